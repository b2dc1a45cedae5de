"""Configs: read, overridden, refused, written back."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cgan.config import DATA_NAMES, parse_count
from cgan.config_io import (
    config_folder,
    config_names,
    default_config_name,
    load_config,
    make_config,
    parse_assignment,
    to_yaml,
)
from cgan.data import DATASETS
from cgan.errors import ConfigError

PACKAGED = ["digits-mlp", "fashion-dcgan", "folder-dcgan", "mnist", "mnist-dcgan", "mnist-mlp"]


def test_packaged_configs() -> None:
    assert config_names() == PACKAGED
    for name in PACKAGED:
        assert load_config(name).name == name
        text = (config_folder() / f"{name}.yaml").read_text()
        assert text.startswith("#")
        assert len(text.splitlines()) <= 30


def test_round_trip(tmp_path: Path) -> None:
    config = load_config("folder-dcgan", {"betas": [0.5, 0.999], "data.size": 32})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_counts_with_units() -> None:
    assert [parse_count(t) for t in ("600k", "2M", "1.5k", "70")] == [600_000, 2_000_000, 1_500, 70]
    assert load_config("digits-mlp", {"images": "2M"}).images == 2_000_000


def test_one_budget_replaces_the_other_and_both_are_refused() -> None:
    config = load_config("digits-mlp", {"minutes": 5})
    assert (config.images, config.minutes) == (None, 5)
    with pytest.raises(ConfigError, match="either in images or in minutes"):
        make_config({"images": 100, "minutes": 1})
    with pytest.raises(ConfigError, match="either in images or in minutes"):
        make_config({})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("batchsize", 3, "unknown key 'batchsize'; did you mean 'batch_size'?"),
        ("model.widht", 3, "unknown key 'model.widht'; did you mean 'width'?"),
        ("loss", "hing", "did you mean 'hinge'"),
        ("model.backbone", "vit", "choose from mlp, dcgan"),
        ("lr", -1, "lr: input should be greater than 0, not -1"),
        ("batch_size", "many", "batch_size"),
        ("images", "many", "images"),
        ("betas", [0.5], "betas"),
        ("betas", [0.5, 1.0], "betas"),
        ("data.size", 30, "data.size"),
        ("device", "gpu", "device"),
        ("lr", float("nan"), "lr"),
        ("lr.x", 1, "lr is a single value"),
        ("name", "../escape", "name"),
    ],
)
def test_mistakes_are_named(key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="^[^\n]+$") as caught:
        load_config("digits-mlp", {key: value})
    assert words in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError, match=r"batch_size.*; lr"):
        make_config({"lr": 5, "batch_size": 0, "images": 100})


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="bf16 needs a CUDA device"):
        load_config("digits-mlp", {"bf16": True, "device": "cpu"})


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config("digits-mlp").lr = 1.0  # type: ignore[misc]


def test_unknown_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mnist-mlp'"):
        load_config("mnist-mpl")
    with pytest.raises(ConfigError, match="no config file"):
        load_config(tmp_path / "none.yaml")
    for text in ("- a\n- list", "a: [unclosed", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match="bad.yaml"):
            load_config(tmp_path / "bad.yaml")


def test_yaml_reads_1e_4_as_a_number_here(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("images: 100\nlr: 1e-4\n")
    assert load_config(tmp_path / "c.yaml").lr == 1e-4
    assert load_config("digits-mlp", dict([parse_assignment("lr=1e-4")])).lr == 1e-4


def test_assignments() -> None:
    assert parse_assignment("model.width=64") == ("model.width", 64)
    assert parse_assignment("betas=[0, 0.9]") == ("betas", [0, 0.9])
    for text in ("model.width", "=3", "a=[", ""):
        with pytest.raises(ConfigError):
            parse_assignment(text)


def test_betas_are_floats_as_torch_wants_them() -> None:
    betas = load_config("digits-mlp", {"betas": [0, 0.9]}).betas
    assert [type(beta) for beta in betas] == [float, float]


def test_defaults_by_data() -> None:
    assert default_config_name() == "digits-mlp"
    assert default_config_name("mnist", "mlp") == "mnist-mlp"
    assert default_config_name("mnist") == "mnist-dcgan"
    assert default_config_name("/somewhere/pets") == "folder-dcgan"
    for name in DATA_NAMES:
        assert default_config_name(name) in config_names()


def test_data_names_are_those_of_the_table() -> None:
    assert tuple(DATASETS) == DATA_NAMES


def test_packaged_files_are_plain_yaml() -> None:
    for path in config_folder().glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_keys_of_version_0_1_are_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("images: 100\nauxiliary: 0.3\npenalty: {r1: 1, every_steps: 4}\n")
    with caplog.at_level("WARNING", "cgan"):
        config = load_config(path)
    assert (config.aux_weight, config.penalty.lazy_interval) == (0.3, 4)
    assert "auxiliary is now called aux_weight" in caplog.text
    assert "penalty.every_steps is now called penalty.lazy_interval" in caplog.text
    for overrides in ({"penalty.every_steps": 2}, {"penalty": {"r1": 1, "every_steps": 2}}):
        assert load_config("digits-mlp", overrides).penalty.lazy_interval == 2
    both = {"images": 1, "auxiliary": 0.1, "aux_weight": 0.2}
    assert make_config(both, warn=False).aux_weight == 0.2
    caplog.clear()
    load_config(path, warn=False)
    assert caplog.text == ""
