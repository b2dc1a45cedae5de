"""Files from anyone: each bad one gives one sentence, status 2, and takes no memory to speak of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from typer.testing import Result

import cgan
from cgan.config import ModelConfig
from cgan.errors import FileError
from cgan.evaluation.judge import Classifier, Judge
from cgan.models import build_networks
from cgan.sampling.shards import Shard
from cgan.sampling.write_dataset import DATASET_FILE, open_dataset
from cgan.storage.checkpoint import save_tensors
from cgan.storage.paths import METRICS_FILE
from cgan.storage.run_files import read_curves, read_metrics
from cgan.storage.safe_reading import (
    MAX_CLASS_NAME,
    MAX_CLASSES,
    MAX_HEADER_BYTES,
    MAX_JSON_DEPTH,
    MAX_LATENT_DIM,
    MAX_SIDE,
    parse_json_object,
)
from cgan.storage.schema import GENERATOR_RULES, JUDGE_RULES

NAN = float("nan")
CONFIG = cgan.load_config(
    "digits-mlp", {"model.width": 4, "model.latent_dim": 4, "model.generator_label": "cbn"}
)
SHAPE = (1, 8, 8)
HEADER: dict[str, Any] = {
    "format": "cgan-generator",
    "format_version": 2,
    "config": CONFIG.model_dump(mode="json"),
    "classes": ["a", "b"],
    "image_shape": list(SHAPE),
    "data": "digits",
    "images_seen": 1,
    "seconds": 0.5,
    "measured": {"control_accuracy": 0.5, "fid": None},
    "versions": {"cgan": "0.2.0"},
    "card": {
        "features": "judge",
        "pictures": 3,
        "figures": {"fid": {"value": 0.5, "real": 1, "chance": None}},
    },
}
JUDGE_HEADER: dict[str, Any] = {
    "format": "cgan-judge",
    "format_version": 1,
    "data": "digits",
    "digest": "0",
    "classes": ["a", "b"],
    "image_shape": list(SHAPE),
    "held_out_accuracy": None,
    "held_out_pictures": 0,
}


def generator_weights() -> dict[str, Tensor]:
    return build_networks(CONFIG.model, SHAPE, 2).generator.state_dict()


def write(
    path: Path, header: dict[str, Any] | str = HEADER, tensors: dict[str, Tensor] | None = None
) -> Path:
    """A generator file; ``header`` may be any text."""
    text = header if isinstance(header, str) else json.dumps(header)
    weights = generator_weights() if tensors is None else tensors
    path.write_bytes(save(weights, metadata={"cgan": text}))
    return path


def write_raw(path: Path, header: bytes, data: bytes = b"", declared: int | None = None) -> Path:
    """The bytes of a safetensors file, with any length declared for its header."""
    length = len(header) if declared is None else declared
    path.write_bytes(length.to_bytes(8, "little") + header + data)
    return path


def refusal(path: Path, load: Callable[[Path], object] = cgan.load) -> str:
    """What is said about a file that is refused: one sentence with its name."""
    with pytest.raises(FileError) as caught:
        load(path)
    said = str(caught.value)
    assert str(path) in said
    assert len(said.splitlines()) == 1
    assert len(said) < len(str(path)) + 400
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g.safetensors"


def test_the_file_that_the_others_vary_is_good(path: Path, shell: Callable[..., Result]) -> None:
    sampler = cgan.load(write(path))
    assert sampler.classes == ("a", "b")
    assert sampler.sample("b", 2).shape == (2, *SHAPE)
    shown = shell("info", path)
    assert shown.exit_code == 0, shown.output
    assert "3 images; features: judge" in shown.stdout


# The container.


def test_a_header_longer_than_the_limit_is_not_read(path: Path) -> None:
    write_raw(path, b"", declared=99_999_999)
    os.truncate(path, 100_000_007)
    assert f"a header of 99,999,999 bytes; the limit is {MAX_HEADER_BYTES:,}" in refusal(path)
    write_raw(path, b"{", declared=2**64 - 1)
    assert "is not a safetensors file (it does not begin with the length" in refusal(path)


def test_a_million_classes(path: Path) -> None:
    header = {**HEADER, "classes": [str(number) for number in range(10**6)]}
    assert re.search(
        r"a header of 1\d,\d{3},\d{3} bytes; the limit is", refusal(write(path, header))
    )
    with pytest.raises(FileError, match=r"was not written, because its header would have 1\d,"):
        save_tensors(path.with_name("own"), {}, header)


def test_the_limit_itself_is_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    monkeypatch.setattr("cgan.storage.checkpoint.MAX_HEADER_BYTES", length)
    assert cgan.load(path).classes == ("a", "b")
    monkeypatch.setattr("cgan.storage.checkpoint.MAX_HEADER_BYTES", length - 1)
    assert f"a header of {length:,} bytes; the limit is {length - 1:,}" in refusal(path)


def entry(dtype: str, shape: list[int], end: int) -> bytes:
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (entry("F32", [10**12], 4 * 10**12), b"abcd"),
        (entry("F32", [2**62, 2**62], 4), b"abcd"),
        (entry("F32", [-1], 4), b"abcd"),
        (entry("F32", [1], 4), b"abc"),
        (entry("F32", [1], 4), b"abcde"),
        (entry("Q" * 1_000, [1], 4), b"abcd"),
        (b'{"w":' + b"[" * 100_000, b""),
        (b"\xff\xff", b""),
        (b"[]", b""),
        (b"", b""),
    ],
)
def test_what_the_file_declares_but_does_not_hold(header: bytes, data: bytes, path: Path) -> None:
    assert "is damaged or is not a safetensors file" in refusal(write_raw(path, header, data))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x80", "is a pickle"),
        (b"\x01", "is damaged"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "was written by another program"),
    ],
)
def test_files_of_a_few_bytes(content: bytes, said: str, path: Path) -> None:
    path.write_bytes(content)
    assert said in refusal(path)


def test_every_cut_is_noticed(path: Path) -> None:
    content = write(path).read_bytes()
    for length in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        assert "is damaged" in refusal(path)


# The JSON in the header.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "invalid header"),
        ("{", "invalid header"),
        ("[]", "not a JSON object"),
        ('{"format":' + "[" * 100_000, "nested too deeply"),
        (json.dumps({**HEADER, "x": NAN}), "NaN, which is not a number"),
        (json.dumps({**HEADER, "x": -float("inf")}), "-Infinity, which is not a number"),
        (json.dumps(HEADER).replace("0.5", "1e999"), "a number that is not finite"),
        (json.dumps({**HEADER, "x": 2**63}), "a number of more than 64 bits"),
        ('{"x": ' + "9" * 5_000 + "}", "a number of more than 64 bits"),
        (json.dumps(HEADER)[:-1] + ', "data": "x"}', "a key twice"),
        (json.dumps({**HEADER, "classes": ["\ud800", "b"]}), "not valid Unicode"),
        (json.dumps({**HEADER, "\ud800": 1}), "not valid Unicode"),
        (json.dumps({**HEADER, "format": ["cgan-generator"]}), "another program"),
        (json.dumps({**HEADER, "format": "x" * 1_000_000}), "is a xxxx"),
        (json.dumps({**HEADER, "format_version": True}), "another program"),
        (json.dumps({**HEADER, "format_version": 0}), "another program"),
        (json.dumps({**HEADER, "format_version": 2**62}), "upgrade cgan"),
    ],
)
def test_header_that_is_no_good_json(text: str, said: str, path: Path) -> None:
    assert said in refusal(write(path, text))


def test_json_is_read_up_to_its_limits() -> None:
    deep = "[" * (MAX_JSON_DEPTH - 1) + "]" * (MAX_JSON_DEPTH - 1)
    assert len(parse_json_object(f'{{"x": {deep}}}')) == 1
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json_object(f'{{"x": [{deep}]}}')
    assert parse_json_object(f'{{"x": {2**63 - 1}, "y": -0, "z": 1e308}}')["x"] == 2**63 - 1
    assert parse_json_object('{"x": NaN, "y": 1e999}', allow_nan=True)["y"] == float("inf")
    assert parse_json_object('{"a": "\\ud83d\\ude00 \\u0000 \\\\ud800"}') == {"a": "😀 \0 \\ud800"}
    with pytest.raises(ValueError, match="utf-8"):
        parse_json_object(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="utf-8"):
        parse_json_object('{"a": 1}'.encode("utf-16"))


# The entries of the header.


@pytest.mark.parametrize("key", [key for key, rule in GENERATOR_RULES.items() if rule.required])
def test_every_entry_is_needed(key: str, path: Path) -> None:
    without = {name: value for name, value in HEADER.items() if name != key}
    assert refusal(write(path, without)).endswith(f"has an invalid header: {key} is missing")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("classes", ["ab", {}, [], ["a", "a"], ["a", ""], ["a", 1], ["a", ["b"]]]),
        ("classes", [["a", "x" * (MAX_CLASS_NAME + 1)], [str(n) for n in range(MAX_CLASSES + 1)]]),
        ("image_shape", ["181", [1, 8], [2, 8, 8], [0, 8, 8], [1, 8, 8.0], [True, 8, 8]]),
        ("image_shape", [[1, -8, 8], [1, 0, 8], [1, MAX_SIDE + 1, 8], [1, 8, 10**9]]),
        ("data", [1, None, ["digits"]]),
        ("images_seen", ["1", 1.0, -1, None, True]),
        ("seconds", ["1", -0.1, None, True]),
        ("measured", [None, [], [1], {"fid": 1}, {"control_accuracy": "1"}]),
        ("measured", [{"control_accuracy": 1.1}, {"control_accuracy": 1, "fid": "1"}]),
        ("measured", [{"control_accuracy": 1, "lowest_selection_score": None}]),
        ("versions", [None, ["0.1"], {"cgan": 1}]),
        ("card", [None, "card", {}, {**HEADER["card"], "pictures": "3"}]),
        ("card", [{**HEADER["card"], "figures": {"fid": 1}}]),
        ("card", [{**HEADER["card"], "figures": {"fid": {"value": 1, "real": 1}}}]),
        ("card", [{**HEADER["card"], "figures": {"fid": dict.fromkeys(("value", "real"), "1")}}]),
        ("config", [None, [], {}, {"name": "a", "model": []}]),
    ],
)
def test_wrong_entries(key: str, values: list[object], path: Path) -> None:
    tensors = generator_weights()
    for value in values:
        said = refusal(write(path, {**HEADER, key: value}, tensors))
        assert f"has an invalid header: {key} is not " in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_dim": 10**9}, "invalid header: config is not"),
        ({"latent_dim": 0}, "invalid header: config is not"),
        ({"latent_dim": "4"}, "invalid header: config is not"),
        ({"conditional": 1}, "invalid header: config is not"),
        ({"width": 10**9}, "invalid config: model.width"),
        ({"backbone": "x" * 1_000_000}, "invalid config: model.backbone"),
        ({"backbone": ["[" * 10] * 100_000}, "invalid config: model.backbone"),
        ({f"{n}": n for n in range(10_000)}, "invalid config: unknown key"),
        ({"latent_dim": 5}, "does not fit the networks of its config: hidden.0.weight is F32"),
        ({"width": 4096, "latent_dim": MAX_LATENT_DIM}, "does not fit the networks"),
        ({"generator_label": "concat"}, "does not fit the networks"),
    ],
)
def test_configs_of_other_networks(changes: dict[str, Any], said: str, path: Path) -> None:
    header = deepcopy(HEADER)
    header["config"]["model"] |= changes
    assert said in refusal(write(path, header))


def test_sides_that_the_networks_do_not_support(path: Path) -> None:
    assert "multiples of 4" in refusal(write(path, {**HEADER, "image_shape": [1, 10, 10]}))


def test_the_largest_network_is_compared_without_memory(path: Path) -> None:
    """It would have 26 billion weights."""
    header = deepcopy(HEADER)
    header["config"]["model"] |= {"width": 4096, "latent_dim": MAX_LATENT_DIM}
    header["image_shape"] = [3, MAX_SIDE, MAX_SIDE]
    header["classes"] = [str(number) for number in range(MAX_CLASSES)]
    assert "hidden.0.weight is F32 [4, 4], not F32 [4096, 4096]" in refusal(write(path, header))


def test_the_limits_are_those_of_a_config_or_higher() -> None:
    (_, highest) = ModelConfig.model_fields["latent_dim"].metadata
    assert highest.le == MAX_LATENT_DIM
    largest = cgan.load_config("folder-dcgan", {"data.source": "x", "data.size": 512})
    assert largest.data.size is not None
    assert largest.data.size <= MAX_SIDE
    assert MAX_CLASSES > 21_841


def test_class_names_of_all_kinds(path: Path) -> None:
    names = ["é", "😀", "a\nb", "\x1b[31m", "../x", "x" * MAX_CLASS_NAME]
    network = build_networks(CONFIG.model, SHAPE, len(names)).generator
    write(path, {**HEADER, "classes": names}, network.state_dict())
    assert cgan.load(path).classes == tuple(names)


# The tensors.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out.bias": None}, "out.bias is missing"),
        ({"out.bias": torch.zeros(65)}, "out.bias is F32 [65], not F32 [64]"),
        ({"out.bias": torch.zeros(64, 1)}, "out.bias is F32 [64, 1], not F32 [64]"),
        ({"out.bias": torch.zeros(64).half()}, "out.bias is F16 [64], not F32 [64]"),
        ({"out.bias": torch.zeros(64, dtype=torch.float64)}, "out.bias is F64 [64], not F32"),
        ({"more": torch.zeros(1)}, "'more' is not in them"),
        ({"x" * 100_000: torch.zeros(1)}, "x' is not in them"),
        ({f"{n}": torch.zeros(1) for n in range(5_000)}, "is not in them"),
        ({"out.bias": torch.full((64,), NAN)}, "values that are not finite (out.bias)"),
        ({"norms.1.gain": torch.full((2, 8), float("inf"))}, "not finite (norms.1.gain)"),
    ],
)
def test_tensors_that_are_not_those_of_the_network(
    changes: dict[str, Tensor | None], said: str, path: Path
) -> None:
    tensors = {**generator_weights(), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    assert said in refusal(write(path, HEADER, kept))


def test_loading_leaves_the_random_state_alone_and_gives_own_tensors(path: Path) -> None:
    tensors = generator_weights()
    write(path, HEADER, tensors)
    state = torch.get_rng_state()
    sampler = cgan.load(path)
    assert torch.equal(state, torch.get_rng_state())
    path.write_bytes(bytes(path.stat().st_size))
    loaded = sampler.generator.state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert not any(weight.requires_grad for weight in sampler.generator.parameters())


# Judges.


def write_judge(path: Path, tensors: dict[str, Tensor] | None = None, **changes: object) -> Path:
    weights = Classifier(SHAPE, 2).state_dict() if tensors is None else tensors
    return write(path, {**JUDGE_HEADER, **changes}, weights)


@pytest.mark.parametrize("key", JUDGE_RULES)
def test_every_entry_of_a_judge_is_needed_and_checked(key: str, path: Path) -> None:
    header = {name: value for name, value in JUDGE_HEADER.items() if name != key}
    weights = Classifier(SHAPE, 2).state_dict()
    if JUDGE_RULES[key].required:
        said = refusal(write(path, header, weights), Judge.load)
        assert said.endswith(f"has an invalid header: {key} is missing")
    said = refusal(write_judge(path, weights, **{key: {}}), Judge.load)
    assert f"has an invalid header: {key} is not " in said


def test_judges_that_do_not_fit(path: Path) -> None:
    weights = Classifier(SHAPE, 2).state_dict()
    assert Judge.load(write_judge(path)).classes == ("a", "b")
    for changes, wrong in (
        ({"architecture": "transformer"}, "no judge 'transformer'"),
        ({"image_shape": [3, MAX_SIDE, MAX_SIDE]}, "features.0.weight is F32 [32, 1, 3, 3], not"),
        ({"classes": [str(n) for n in range(MAX_CLASSES)]}, "head.weight is F32 [2, 128], not"),
    ):
        assert wrong in refusal(write_judge(path, weights, **changes), Judge.load)
    weights["head.bias"] = torch.tensor([0.0, NAN])
    said = refusal(write_judge(path, weights), Judge.load)
    assert "contains values that are not finite (head.bias)" in said


# Logs, descriptions and indices.


GOOD = b'{"images_seen": 1, "fid": 2.5}\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "line 2"),
        (b"\xff\xfe", "line 2"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "not a JSON object"),
        (b'{"fid": 1}', "images_seen is not a whole number from 0"),
        (b'{"images_seen": 1.5}', "images_seen is not a whole number from 0"),
        (b'{"images_seen": -1}', "images_seen is not a whole number from 0"),
        (b'{"images_seen": 1, "fid": null}', "'fid' is not a number"),
        (b'{"images_seen": 1, "fid": true}', "'fid' is not a number"),
        (b'{"images_seen": 1, "fid": [2]}', "'fid' is not a number"),
        (b'{"images_seen": ' + b"9" * 5_000 + b"}", "more than 64 bits"),
    ],
)
def test_damaged_logs(line: bytes, said: str, tmp_path: Path) -> None:
    log = tmp_path / METRICS_FILE
    log.write_bytes(GOOD + line + b"\n" + GOOD)
    assert said in refusal(log, lambda path: read_metrics(path.parent))
    assert f"line 2 of {log} is damaged" in refusal(log, lambda path: read_curves(path.parent))
    log.write_bytes(GOOD + GOOD + line)  # a line that a killed process left
    assert read_curves(tmp_path) == {"fid": [(1, 2.5), (1, 2.5)]}


def test_logs_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_curves(tmp_path) == {}
    log = tmp_path / METRICS_FILE
    log.mkdir()
    assert "is not a file" in refusal(log, lambda path: read_metrics(path.parent))
    log.rmdir()
    os.mkfifo(log)
    assert "is not a file" in refusal(log, lambda path: read_metrics(path.parent))
    log.unlink()
    log.write_bytes(GOOD)
    monkeypatch.setattr("cgan.storage.run_files.MAX_METRICS_BYTES", len(GOOD))
    assert len(read_metrics(tmp_path)) == 1
    monkeypatch.setattr("cgan.storage.run_files.MAX_METRICS_BYTES", len(GOOD) - 1)
    assert f"larger than {len(GOOD) - 1} bytes" in refusal(log, lambda path: read_metrics(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"null", b'{"count": "3"}', b'{"count": -1}', b'{"count": 1.5}', b"{}",
        b'{"count": NaN}', b"\xff\xfe", b'{"count":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_descriptions_of_data_sets(content: bytes, tmp_path: Path) -> None:
    described = tmp_path / DATASET_FILE
    described.write_bytes(content)
    said = refusal(described, lambda path: open_dataset(path.parent, {"count": 3}))
    assert said.endswith("was not written by cgan generate: give another --out")
    assert described.read_bytes() == content


def test_descriptions_of_other_data_sets(tmp_path: Path) -> None:
    described = tmp_path / DATASET_FILE
    described.write_text(json.dumps({"count": 3, "rule": "x" * 1_000_000}))
    said = refusal(tmp_path, lambda path: open_dataset(path, {"count": 3, "rule": "y"}))
    assert "holds another data set (rule 'xxxx" in said
    described.write_text('{"count": 4}')
    assert "count 4, not 3" in refusal(tmp_path, lambda path: open_dataset(path, {"count": 3}))


@pytest.mark.parametrize("name", ["", "a\nb", '"' * MAX_CLASS_NAME, "😀" * MAX_CLASS_NAME])
def test_index_of_a_shard(name: str, tmp_path: Path) -> None:
    shard = Shard(tmp_path, 0, 0, (0, 0), (5, 6))
    assert not shard.is_complete("folder")
    quoted = name.replace('"', '""')
    rows = [f'{key:09d},0,"{quoted}",{key}\n' for key in range(2)]
    shard.index.write_text("key,class,name,seed\n" + "".join(rows), encoding="utf-8")
    assert shard.is_complete("folder")
    assert not shard.is_complete("npz")  # it has no data
    for content in (
        "",
        "\n",
        "key,class,name,seed\n",
        "key,class,name,seed\n" + rows[0],
        "000000001",
    ):
        shard.index.write_text(content, encoding="utf-8")
        assert not shard.is_complete("folder")
    shard.index.write_bytes(b"\xff\xfe\x00")
    assert not shard.is_complete("folder")
    shard.index.unlink()
    shard.index.mkdir()
    assert not shard.is_complete("folder")


# From the shell, and in memory.


@pytest.mark.parametrize("words", [("info",), ("info", "--json"), ("generate",), ("export",)])
def test_one_sentence_and_status_2(
    words: tuple[str, ...], path: Path, shell: Callable[..., Result]
) -> None:
    write(path, {**HEADER, "versions": [1]})
    result = shell(words[0], path, *words[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"cgan: {path} has an invalid header: versions is not a version by package\n"
    )


MEASURE = """
import os, resource, sys
from pathlib import Path
import cgan
from cgan.errors import FileError
from cgan.evaluation.judge import Judge
from cgan.sampling.write_dataset import open_dataset
from cgan.sampling.onnx import open_export
from cgan.sampling.shards import Shard
from cgan.storage.run_files import read_metrics
from cgan.storage.run_files import load_state

folder = Path(sys.argv[1])
good, folder = cgan.load(folder / "good.safetensors"), folder / "bad"
shard = Shard(folder, 0, 0, (0,), (5,))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, refused = peak(), 0
loads = [lambda path=path: cgan.load(path) for path in sorted(folder.glob("g*.safetensors"))]
loads += [
    lambda: Judge.load(folder / "judge.safetensors"),
    lambda: load_state(folder),
    lambda: read_metrics(folder),
    lambda: open_dataset(folder, {"count": 1}),
]
for load in loads:
    try:
        load()
    except FileError as error:
        assert len(str(error)) < 600, error
        refused += 1
assert open_export(folder.parent / "good.safetensors") is None
assert not shard.is_complete("folder")
print(refused, len(loads), peak() - before, "sympy" in sys.modules)
"""


def test_no_file_takes_memory_that_it_does_not_fill(tmp_path: Path) -> None:
    """Sparse files of 2 and 64 GB, and headers that ask for networks of 100 GB."""
    write(tmp_path / "good.safetensors")
    bad = tmp_path / "bad"
    bad.mkdir()
    write_raw(bad / "g1.safetensors", b"", declared=2**36)
    write_raw(bad / "g2.safetensors", entry("F32", [2**34], 2**36))
    huge = {"w": {"dtype": "F32", "shape": [2**29], "data_offsets": [0, 2**31]}}
    for name, header in (
        ("g3", HEADER),
        ("judge", JUDGE_HEADER),
        ("state", {"format": "cgan-state", "format_version": 2, "images_seen": "x"}),
    ):
        text = json.dumps({"__metadata__": {"cgan": json.dumps(header)}, **huge}).encode()
        write_raw(bad / f"{name}.safetensors", text)
        os.truncate(bad / f"{name}.safetensors", 8 + len(text) + 2**31)
    large = deepcopy(HEADER)
    large["config"]["model"] |= {"width": 4096, "latent_dim": MAX_LATENT_DIM}
    large["image_shape"] = [3, MAX_SIDE, MAX_SIDE]
    write(bad / "g4.safetensors", large)
    write(bad / "g5.safetensors", '{"format":' + "[" * 100_000)
    sparse = ("g1.safetensors", "metrics.jsonl", "dataset.json", "shard-00000.csv", "../good.onnx")
    for name in sparse:
        with (bad / name).open("ab") as file:
            file.truncate(2**36)
    words = (sys.executable, "-c", MEASURE, str(tmp_path))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    refused, loads, taken, imported = done.stdout.split()
    assert (refused, loads) == ("9", "9")
    assert int(taken) < 32 * 2**20
    assert imported == "False"  # building networks on the meta device must not import it
