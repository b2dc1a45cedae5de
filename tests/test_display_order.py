"""What people see is in natural order (1, 2, 10); indices and what programs read, in text order."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import Result

import cgan
from cgan.cli import tables
from cgan.console import SafeConsole
from cgan.data import ImageDataset, load, warn_about_classes
from cgan.data.image_folder import scan_folder
from cgan.data.scan_facts import count_by_class
from cgan.errors import ConfigError, DataError, MeasureError, RunError, UnknownNameError
from cgan.evaluation.builder import closest_pairs
from cgan.evaluation.control import Control
from cgan.evaluation.distances import Nearest
from cgan.evaluation.invert import Inversion
from cgan.evaluation.report import ClassFigures, Report, render_report
from cgan.evaluation.sections import control_section, diversity_section
from cgan.sampling.sampler import RejectionSampler
from cgan.sampling.walk import walk
from cgan.sharing import push
from cgan.sharing.push import write_repository
from cgan.storage.checkpoint import Latents
from cgan.storage.images import encode_png, make_grid, to_pixels
from cgan.training import loop, plan
from cgan.training.loggers import TensorBoard
from cgan.training.state import TrainState
from tests.conftest import make_pets, open_image
from tests.evaluation.test_html import Page, make_report

Make = Callable[..., cgan.Sampler]
Shell = Callable[..., Result]

SEEN = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
CLASSES = ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")
"""By index."""
PAIRS = ("a + 1", "a + 10", "a + 2", "b + 1", "b + 10", "b + 2")
"""Two attributes, by index."""


def rows_of(image: Image.Image, side: int = 8, gap: int = 2) -> list[NDArray[np.uint8]]:
    """The rows of a grid of images of this side."""
    pixels = np.asarray(image)
    return [pixels[top : top + side] for top in range(0, len(pixels), side + gap)]


def drawn(sampler: cgan.Sampler, names: Sequence[str], n: int) -> list[NDArray[np.uint8]]:
    """The row of each class, drawn by name."""
    grids = [make_grid(to_pixels(sampler.sample(name, n)), n) for name in names]
    rows = [grid[0] if len(grid) == 1 else np.moveaxis(grid, 0, 2) for grid in grids]
    assert len({row.tobytes() for row in rows}) == len(names), "the classes look alike"
    return rows


def test_the_rows_of_a_grid(make_generator: Make, shell: Shell, tmp_path: Path) -> None:
    sampler = make_generator(CLASSES)
    assert sampler.classes == CLASSES
    every = sampler.sample(None, 1)  # the library keeps the order of indices
    assert torch.equal(every[2], sampler.sample("10")[0])
    assert sampler.request(None, 1).labels == tuple(range(12))
    assert re.search(f"^classes +{', '.join(SEEN)}$", shell("info", sampler.path).stdout, re.M)
    command = ("generate", sampler.path, "-n", 3, "--scale", 1, "--out")
    assert shell(*command, "all.png").exit_code == 0
    np.testing.assert_array_equal(rows_of(open_image("all.png")), drawn(sampler, SEEN, 3))
    assert shell(*command, "two.png", "--class", "10", "--class", "2").exit_code == 0
    np.testing.assert_array_equal(rows_of(open_image("two.png")), drawn(sampler, ("10", "2"), 3))
    assert shell(*command, "folder").exit_code == 0  # one file per image: names are names
    one = np.asarray(open_image(tmp_path / "folder" / "10" / "seed-000000.png"))
    np.testing.assert_array_equal(one, to_pixels(sampler.sample("10"))[0, 0].numpy())
    notebook = rows_of(Image.open(io.BytesIO(sampler._repr_png_())).resize((98, 98), 0))
    np.testing.assert_array_equal(notebook, drawn(sampler, SEEN[:10], 10))


def test_the_rows_of_several_attributes(make_generator: Make, shell: Shell) -> None:
    """Named classes are in the order given, and the classes of a value in natural order."""
    sampler = make_generator(PAIRS)
    assert sampler.class_indices("a") == [0, 1, 2]
    seen = ("b + 10", "a + 1", "a + 2", "a + 10")
    assert [PAIRS[index] for index in sampler.grid_rows(["a", "b + 10"])] == list(seen)
    choice = ("--class", "a", "--class", "b + 10", "--scale", 1)
    shell("generate", sampler.path, "-n", 3, *choice, "--out", "some.png")
    np.testing.assert_array_equal(rows_of(open_image("some.png")), drawn(sampler, seen, 3))
    shell("generate", sampler.path, "-n", 3, "--scale", 1, "--out", "all.png")
    every = ("a + 1", "a + 2", "a + 10", "b + 1", "b + 2", "b + 10")
    np.testing.assert_array_equal(rows_of(open_image("all.png")), drawn(sampler, every, 3))

    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    Latents(z, torch.eye(6)[:1], PAIRS).save(Path("z.safetensors"))
    result = shell("generate", sampler.path, "--latent", "z.safetensors", *choice, "--out", "z.png")
    assert result.exit_code == 0, result.output
    labels = torch.tensor([PAIRS.index(name) for name in seen])
    images = to_pixels(sampler.generate(z.repeat(4, 1), labels))[:, 0].numpy()
    np.testing.assert_array_equal(rows_of(open_image("z.png")), images)


def test_the_style_of_an_image_in_every_class(
    make_generator: Make, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = make_generator(CLASSES)
    z = torch.randn(8, generator=torch.Generator().manual_seed(0))
    found = Inversion(z, "10", 0.1, ())
    monkeypatch.setattr("cgan.evaluation.invert.invert", lambda *_, **__: found)
    Image.new("L", (8, 8), 99).save("picture.png")
    result = shell("invert", sampler.path, "picture.png", "--scale", 1, "--out", "strip.png")
    assert result.exit_code == 0, result.output
    strip = rows_of(Image.fromarray(np.asarray(open_image("strip.png")).T))
    order = torch.tensor([CLASSES.index(name) for name in ("10", *SEEN)])
    images = to_pixels(sampler.generate(z.repeat(13, 1), order))[:, 0].numpy()
    np.testing.assert_array_equal(np.swapaxes(strip[1:], 1, 2), images)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cgan.Run:
    """Twelve folders, of which each class has a number for its name and a brightness."""
    data = tmp_path_factory.mktemp("data") / "numbers"
    make_pets(data, 8, 12, {name: 40 + 15 * int(name) for name in SEEN})
    changes = {
        "data.source": str(data), "data.size": 8, "images": 512, "batch_size": 32, "device": "cpu",
        "model.width": 8, "control_per_class": 0, "lr": 0.01,
    }  # fmt: skip
    config = cgan.load_config("folder-dcgan", changes)
    return cgan.train(config, tmp_path_factory.mktemp("runs") / "numbers")


def test_the_grids_of_a_training(
    run: cgan.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    sampler = cgan.load(run.folder)
    assert sampler.classes == tuple(sampler.header["classes"]) == CLASSES
    grid = open_image(max((run.folder / "samples").iterdir()))
    np.testing.assert_array_equal(rows_of(grid), drawn(sampler, SEEN, 10))

    monkeypatch.setattr(loop, "GRID_CLASSES", 5)  # the first ones that people see
    config = cgan.load_config(run.folder / "config.yaml")
    with caplog.at_level(logging.INFO, "cgan"):
        again = cgan.train(config, tmp_path / "again")
    grid = open_image(max((again.folder / "samples").iterdir()))
    np.testing.assert_array_equal(rows_of(grid), drawn(cgan.load(again.folder), SEEN[:5], 10))
    assert "classes: " + ", ".join(f"{name} (12)" for name in SEEN) in caplog.text


def test_the_shell(run: cgan.Run, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are in natural order, and JSON is by index."""
    monkeypatch.setattr(tables, "MAX_COLUMNS", 12)
    said = shell("info", run.folder).stdout
    counts = re.search(r"^classes +(.*)$", said, re.MULTILINE)
    assert counts is not None
    assert re.sub(r" \(\d+\)", "", counts[1]).split(", ") == list(SEEN)
    assert json.loads(shell("info", run.folder, "--json").stdout)["classes"] == list(CLASSES)
    result = shell("evaluate", run.folder, "--per-class", 4, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["classes"]] == list(CLASSES)
    assert list(found["per_class"]) == list(CLASSES)
    assert f"intra-class FID of {', '.join(SEEN[:10])}…" in " ".join(found["left_out"])
    table = shell("evaluate", run.folder, "--per-class", 4, "--html", "page.html").stdout
    rows = [re.findall(r"[^│┃\s]+", line) for line in table.splitlines()]
    named = [row[0] for row in rows if row and row[0] in SEEN and row != list(SEEN)]
    assert named == [*SEEN, *SEEN]  # metrics of each class, and the confusion matrix
    assert list(SEEN) in rows  # the columns
    refused = shell("generate", run.folder, "--digit", 1)
    assert f"choose with --class from {', '.join(SEEN)}" in refused.stderr


def numbered(count: int = 12) -> Report:
    """A report of classes 0, 1, 2, …: each share says which cell it is."""
    seen = [str(number) for number in range(count)]
    classes = tuple(sorted(seen))
    confusion = torch.tensor([[count * int(a) + int(b) for b in classes] for a in classes])
    report = make_report()
    control = Control(classes, confusion, True, 0.9, 100)
    figures = [
        ClassFigures(name, int(name) / 100, 0.0, 1.0, *[None] * 8) for name in classes
    ]  # fmt: skip
    levels = torch.tensor([int(name) for name in classes], dtype=torch.uint8)
    grid = levels.view(-1, 1, 1, 1, 1).expand(-1, 5, 1, 4, 6)
    return replace(report, control=control, classes=figures, grid=grid, warnings=[], left_out=[])


def shares(count: int) -> list[list[str]]:
    """The rows of the confusion matrix of ``numbered``, in natural order."""
    cells = np.arange(count**2).reshape(count, count)
    return [[f"{100 * cell / row.sum():.1f}" for cell in row] for row in cells]


def test_the_page_of_a_report() -> None:
    report = numbered()
    html = render_report([report])
    page = Page(html)
    names = re.findall(r'<li title="(\d+)">\1</li>', html)
    assert names == list(SEEN)
    grid = np.asarray(page.pictures("grid")[0].convert("L"))
    assert grid[:: 4 + 2, 0].tolist() == list(range(12))
    tables_ = [row for row in page.rows if row[0] in SEEN]
    assert [(row[0], row[1]) for row in tables_[:12]] == [(name, f"{name}.00 %") for name in SEEN]
    assert page.rows[page.rows.index(tables_[12]) - 1] == ["", *SEEN]
    found = [row[1:] for row in tables_[12:]]
    assert [row[0] for row in tables_[12:]] == list(SEEN)
    assert [[cell.replace("·", "0.0") for cell in row] for row in found] == shares(12)
    notebook = re.findall(r'src="data:image/png;base64,([^"]+)"', report._repr_html_())
    assert notebook == [make_uri(report.grid[[CLASSES.index(name) for name in SEEN[:10]]])]
    stated = report.to_dict()
    assert [one["name"] for one in stated["classes"]] == list(CLASSES)
    assert stated["confusion"] == report.control.confusion.tolist()
    assert list(stated["per_class"]) == list(CLASSES)


def make_uri(grid: torch.Tensor) -> str:
    return base64.b64encode(encode_png(make_grid(grid.flatten(0, 1), grid.shape[1]))).decode()


def test_a_drawn_confusion_matrix() -> None:
    """Each class is taken for the next one: a line beside the diagonal, if the order is right."""
    report = numbered(40)
    classes = report.control.classes
    confusion = torch.zeros(40, 40, dtype=torch.int64)
    for row, name in enumerate(classes):
        confusion[row, classes.index(str((int(name) + 1) % 40))] = 7
    control = replace(report.control, confusion=confusion)
    html = render_report([replace(report, control=control)])
    heat = np.asarray(Page(html).pictures("drawn-heat")[0])[:, :, 0]
    np.testing.assert_array_equal(heat < 128, np.roll(np.eye(40, dtype=bool), 1, axis=1))
    assert "Classes from 0 to 39, top to bottom" in html


def test_tables_in_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(tables, "results", SafeConsole())  # it reads the width only once
    report = numbered()
    tables.print_confusion(report.control)
    tables.print_classes(report)
    rows = [re.findall(r"[^│┃\s]+", line) for line in capsys.readouterr().out.splitlines()]
    named = [row for row in rows if row and row[0] in SEEN and row != list(SEEN)]
    assert list(SEEN) in rows
    found = [[cell.replace("·", "0.0") for cell in row] for row in named[:12]]
    assert found == [[name, *row] for name, row in zip(SEEN, shares(12), strict=True)]
    assert [row[:2] for row in named[12:]] == [[name, f"{name}.00"] for name in SEEN]


def test_the_pairs_of_a_report() -> None:
    """The nearest training images are shown class by class."""
    levels = torch.tensor([int(name) for name in CLASSES], dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = torch.arange(12)
    drawn_ = SimpleNamespace(target=labels, kept=labels, images=levels)
    closest = Nearest(torch.rand(12), labels, torch.zeros(12, dtype=torch.bool))
    train = SimpleNamespace(classes=CLASSES, take=lambda indices: levels[indices])
    reference: Any = SimpleNamespace(labels=range(12), train=train, trained_on=train)
    pairs, _ = closest_pairs(drawn_, closest, reference)  # type: ignore[arg-type]
    assert pairs.flatten(1)[:, 0].tolist() == list(range(12))


def test_sentences_of_a_report() -> None:
    real = Control(CLASSES, torch.eye(12, dtype=torch.int64), True, 1.0, 12)
    real.confusion[[1, 2, 4]] = 0  # 1, 10 and 2 have no real images
    confusion = 100 * torch.eye(12, dtype=torch.int64)
    confusion[[1, 2, 4]] = confusion[[2, 4, 1]]  # and are never drawn
    control = Control(CLASSES, confusion, True, 1.0, 12)
    reference: Any = SimpleNamespace(control=real)
    section = control_section(control, reference)
    assert section.left_out == ["metrics of real 1, 2, 10: no image is held out"]
    words = " ".join(section.warnings)
    assert re.findall(r"accuracy of (\d+) is only 0%", words) == ["1", "2", "10"]
    control = Control(
        ("a + 1", "a + 10", "a + 2", "a + 3", "b + 1", "b + 10", "b + 2", "b + 3"),
        torch.eye(8, dtype=torch.int64), True, 1.0, 8, num_attributes=2,
    )  # fmt: skip
    reference.control = None
    titles = [figure.title for figure in control_section(control, reference).figures]
    assert titles[-2:] == ["attribute 1 (a, b)", "attribute 2 (1, 2, 3…)"]
    assert control.to_dict()["per_attribute"][1]["values"] == ("1", "10", "2", "3")
    reference = SimpleNamespace(train=SimpleNamespace(classes=CLASSES), diversity=[1.0] * 12)
    spreads = [0.1 if name in {"1", "2", "10"} else 1.0 for name in CLASSES]
    (warning,) = diversity_section([*spreads], reference).warnings
    assert "mode collapse in 1, 2, 10:" in warning


def test_counts_of_many_classes() -> None:
    """Of classes of the same size, the first one that people see is named."""
    classes = sorted(f"v{number}" for number in range(2, 32))
    assert classes[0] == "v10"
    said = count_by_class(classes, list(range(30)))
    assert said == "30, the largest v2 (1), the smallest v2 (1)"
    assert count_by_class(("1", "10", "2"), [0, 1, 1, 2, 2, 2]) == "1 (1), 2 (3), 10 (2)"


def test_errors_that_list_classes(make_generator: Make) -> None:
    sampler = make_generator(CLASSES)
    every = ", ".join(SEEN)
    with pytest.raises(UnknownNameError, match=f"no class 'cat'; choose from {every}$"):
        sampler.sample("cat")
    with pytest.raises(ConfigError, match=f"a walk begins at a class: choose from {every}$"):
        walk(sampler)
    judge: Any = SimpleNamespace(classes=("1", "10", "2"))
    with pytest.raises(MeasureError, match="knows 1, 2, 10… and the generator draws 0, 1, 2"):
        RejectionSampler(judge).check(sampler, sampler.request("1"))
    many = make_generator(tuple(sorted(f"v{number}" for number in range(30))))
    with pytest.raises(UnknownNameError, match="there are 30, from 'v0' to 'v29'"):
        many.sample("cat")
    pairs = make_generator(PAIRS)
    with pytest.raises(ConfigError, match=r"'a' are several classes: .* a \+ 1, a \+ 2, a \+ 10"):
        walk(pairs, "a", "b")
    with pytest.raises(UnknownNameError, match=r"from a, b, 1, 2, 10, a \+ 1, a \+ 2, a \+ 10"):
        pairs.sample(["zzz"])


def test_a_run_of_other_classes() -> None:
    state = object.__new__(TrainState)
    state.classes = ("1", "10", "2")
    with pytest.raises(RunError, match="classes 0, 1, 2, 3, .* and the data has 1, 2, 10: restore"):
        state.check_same_data(Path("run"), {"classes": list(CLASSES)}, False)


def test_sentences_about_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    levels = {"1": 50, "2": 150, "10": 200, "3": 99}
    for name in ("a", "b"):
        make_pets(tmp_path / "pairs" / name, 8, 2, levels)
    with caplog.at_level(logging.INFO, "cgan"):
        scan_folder(tmp_path / "pairs")
    assert "2 attributes: a, b; 1, 2, 3, 1 more" in caplog.text
    make_pets(tmp_path / "split" / "train", 8, 2, {"4": 50, "5": 99})
    make_pets(tmp_path / "split" / "test", 8, 2, {**levels, "4": 50})
    with pytest.raises(DataError, match="^1, 2, 3, 1 more in .*test has no training images"):
        scan_folder(tmp_path / "split")
    broken = make_pets(tmp_path / "broken", 8, 2, levels)
    for path in broken.glob("*0/*"), broken.glob("[12]/*"):
        for one in path:
            one.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of 1, 2, 10 in"):
        scan_folder(broken, skip_broken=True)
    caplog.clear()
    labels = torch.tensor([0, 1, 2, *[3] * 10])
    few = ImageDataset(
        "x", torch.zeros(13, 1, 8, 8, dtype=torch.uint8), labels, ("1", "10", "2", "3")
    )
    warn_about_classes(few)
    assert "fewer than 10 images in: 1, 2, 10" in caplog.text
    folder: Any = SimpleNamespace(labels=labels, classes=few.classes, name="x")
    with pytest.raises(DataError, match="no training image of 1, 2, 10 that can be read"):
        load._check_every_class(folder, torch.tensor([5, 6]))


def test_classes_that_a_plain_generator_never_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images),), 3)

    judge = SimpleNamespace(classes=("1", "10", "2", "3"), classify=classify)
    monkeypatch.setattr(plan, "get_or_train_judge", lambda *_: judge)
    cpu: Any = SimpleNamespace(load_split=None, device=torch.device("cpu"))
    network = torch.nn.Unflatten(1, (1, 2, 2))
    plain: Any = SimpleNamespace(network=network, latent_dim=4, image_shape=(1, 2, 2))
    with pytest.raises(MeasureError, match="the generator drew 1, 2, 10 0 times"):
        plan.check_classes(cpu, plain)


def test_the_image_in_tensorboard() -> None:
    told: list[NDArray[np.float32]] = []
    board = object.__new__(TensorBoard)
    board.config = {}
    board.writer = SimpleNamespace(
        add_hparams=lambda *_, **__: None,
        add_image=lambda _, image, *__, **___: told.append(image.numpy()),
    )
    control = Control(
        ("1", "10", "2"), torch.tensor([[8, 0, 0], [4, 4, 0], [0, 0, 8]]), True, None, 0
    )
    board.log_result(Path("generator"), 1, control)
    np.testing.assert_array_equal(told[0], [[0, 1, 1], [1, 0, 1], [0.5, 1, 0.5]])


def test_the_samples_of_a_repository(make_generator: Make, tmp_path: Path) -> None:
    sampler = make_generator(CLASSES)
    (tmp_path / "out").mkdir()
    write_repository(sampler, tmp_path / "out", "me/numbers", "mit")
    scale = max(1, round(56 / 8))
    image = open_image(tmp_path / "out" / "samples.png")
    small = image.resize((image.width // scale, image.height // scale), Image.Resampling.NEAREST)
    rows = rows_of(small)
    np.testing.assert_array_equal(rows, drawn(sampler, SEEN[: len(rows)], push.COLUMNS))
