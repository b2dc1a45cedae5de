"""Configs: read, overridden, refused, written back."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cgan.config import DATA_NAMES, height_and_width, parse_count, size_of
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

PACKAGED = [
    "digits-mlp", "fashion-dcgan", "folder-dcgan", "mnist", "mnist-dcgan", "mnist-mlp",
    "photos-resnet", "steer",
]  # fmt: skip


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
    assert [parse_count(t) for t in ("4.1M", "16.1k", "2.03M")] == [4_100_000, 16_100, 2_030_000]
    assert load_config("digits-mlp", {"images": "2M"}).images == 2_000_000


def test_names_of_version_0_3_still_read() -> None:
    given = {"images": 100, "update": "shared", "penalty": {"gradient_penalty": 0.0, "r1": 2.0}}
    config = make_config(given)
    assert (config.update, config.penalty.r1) == ("simultaneous", 2.0)
    assert given["penalty"] == {"gradient_penalty": 0.0, "r1": 2.0}
    used = {**given, "penalty": {"gradient_penalty": 10.0}}
    with pytest.raises(ConfigError, match=r"penalty.gradient_penalty is gone .* use penalty.r1"):
        make_config(used)
    with pytest.raises(ConfigError, match="is gone since version 0.4"):
        load_config("digits-mlp", {"penalty.gradient_penalty": 1})
    assert make_config(used, strict=False).penalty.r1 == 0  # the header of a generator file


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
        ("device", "gpu", "device: a device is auto, cpu, cuda, cuda:1, mps or xpu, not 'gpu'"),
        ("images", "1e6", "images: a count is a number such as 600000, 600k or 2M, not '1e6'"),
        ("lr", float("nan"), "lr"),
        ("lr.x", 1, "'lr.x': 'lr' is a single value, not a section"),
        ("name", "../escape", "name: a name has letters, digits, _, - and, inside, dots"),
        ("name", "..", "name: a name has letters"),
        ("name", "a.", "name: a name has letters"),
        ("name", "a\n", "name: a name has letters, digits, _, - and, inside, dots, not 'a\\n'"),
        ("name", "é" * 101, "name: a name has at most 200 bytes, not 'éé"),
        ("name", "con", "name: a name must not be one that Windows reserves, not 'con'"),
        ("name", "LPT1.mnist", "name: a name must not be one that Windows reserves"),
        ("name", "\ud800", r"name: a name has letters"),
        ("data", [1], "data is a section, with keys and values, not [1]"),
        ("model", None, "model is a section, with keys and values, not None"),
        ("data.source", "a\0", "data.source: a path is UTF-8 text without line breaks or"),
        ("data.source", "a\udce9", "data.source: input should be a valid string"),
        ("data.data_dir", "a\nb", r"control characters, not 'a\nb'"),
        ("images", 10**30, "images: input should be less than or equal to 1000000000000, not 1000"),
        ("images", "999999999999999M", "images: input should be less than or equal to"),
        ("eval_every_images", 10**13, "eval_every_images"),
        ("batch_size", 2**20 + 1, "batch_size: input should be less than or equal to 1048576"),
        ("seed", 10**30, "seed: input should be less than 9223372036854775808, not 1000"),
        ("control_per_class", 10**7, "control_per_class"),
        ("minutes", 1e300, "minutes"),
        ("penalty.r1", 1e7, "penalty.r1"),
        ("aux_weight", float("inf"), "aux_weight"),
        ("lr", "1e400", "lr: input should be a finite number, not '1e400'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="^[^\n]+$") as caught:
        load_config("digits-mlp", {key: value})
    assert words in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError, match=r"batch_size.*; lr"):
        make_config({"lr": 5, "batch_size": 0, "images": 100})


def test_long_values_are_cut() -> None:
    limit = "images: input should be less than or equal to 1000000000000, not "
    short = f"'{'x' * 37}...{'x' * 38}'"
    for key, value, sentence in (
        ("images", 10**5000, limit + "a very long number"),
        ("images", "1" * 400, limit + short.replace("x", "1")),
        ("penalty.lazy_interval", 10**400, "penalty.lazy_interval: input should be less than or "
         f"equal to 1000000, not 1{'0' * 37}...{'0' * 39}"),
        ("loss", 10**5000, "loss: no loss a very long number; choose from nonsaturating, "
         "least_squares, hinge, relativistic"),
        ("data.source", "x" * 4097, "data.source: string should have at most 4096 characters, "
         f"not {short}"),
        ("x" * 5000, 1, f"unknown key {short}; there are 35, from 'name' to 'mlflow'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load_config("digits-mlp", {key: value})
        assert str(caught.value) == sentence


def test_many_mistakes_are_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"images": 100, **{f"key{i}": i for i in range(2_000)}})
    sentences = str(caught.value).split("; ")
    assert sentences[0] == "unknown key 'key0'"
    assert len([s for s in sentences if s.startswith("unknown key")]) == 10
    assert sentences[-1] == "and 1,990 more mistakes"


def test_the_largest_values_are_exact() -> None:
    config = load_config("digits-mlp", {"images": 10**12, "seed": 2**63 - 1, "batch_size": 2**20})
    assert (config.images, config.seed, config.batch_size) == (10**12, 2**63 - 1, 2**20)
    assert float(10**12) == 10**12


@pytest.mark.parametrize("name", ["connect", "com10", "a.b-c_d.1", "é" * 100, "7", "nul_1"])
def test_names_of_folders(name: str) -> None:
    assert load_config("digits-mlp", {"name": name}).name == name


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1], r"a config is keys and values, not \[1\]"),
        ({1: 2, "images": 1}, "a key must be a name, not 1"),
        ({"model": {None: 2}, "images": 1}, "a key must be a name, not None"),
        ({"\ud800": 2, "images": 1}, r"a key must be a name, not '\\ud800'"),
    ],
)
def test_values_that_are_no_config(values: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        make_config(values)


def test_values_without_end() -> None:
    endless: dict[str, Any] = {}
    endless["lr"] = endless
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"x": deep}
    for value in (endless, deep):
        with pytest.raises(ConfigError, match="^lr: input should be a valid number, not {"):
            make_config({"images": 100, "lr": value})


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
    for name in ("a\0.yaml", "a\n.yaml"):
        with pytest.raises(ConfigError, match="^a path is UTF-8 text without .*, not 'a"):
            load_config(name)
    for text in ("- a\n- list", "a: [unclosed", "\x00", ""):
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
    assert parse_assignment("data.background=#ffcc00") == ("data.background", "#ffcc00")
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
    assert default_config_name("emnist-letters") == "mnist-dcgan"
    assert default_config_name("emnist-balanced") == "mnist-dcgan"
    assert default_config_name("cifar100") == default_config_name("svhn") == "folder-dcgan"
    assert default_config_name("/somewhere/pets") == "folder-dcgan"
    for name in DATA_NAMES:
        assert default_config_name(name) in config_names()


def test_data_names_are_those_of_the_table() -> None:
    assert tuple(DATASETS) == DATA_NAMES


def test_packaged_files_are_plain_yaml() -> None:
    for path in config_folder().glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize(
    ("given", "size", "shape"),
    [
        (64, 64, (64, 64)),
        ("64", 64, (64, 64)),
        ("64x48", "64x48", (48, 64)),
        ("64×48", "64x48", (48, 64)),
        ("32x32", 32, (32, 32)),
        ("512x8", "512x8", (8, 512)),
    ],
)
def test_a_size_is_a_side_or_a_width_and_a_height(
    given: object, size: object, shape: tuple[int, int]
) -> None:
    config = load_config("folder-dcgan", {"data.size": given})
    assert config.data.size == size
    assert make_config(config.model_dump(mode="json")).data.size == size
    assert height_and_width(config.data.size or 0) == shape
    assert size_of((3, *shape)) == size


@pytest.mark.parametrize("size", [30, 4, 516, "64x", "x48", "64x48x3", "64x50", -8, 8.5, True, "a"])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(ConfigError, match="data.size: a size is a side, or two like 64x48"):
        load_config("folder-dcgan", {"data.size": size})
