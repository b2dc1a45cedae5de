"""The page in a real browser."""

import json
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import Result

import cgan
from cgan.errors import ConfigError
from cgan.sampling.latents import draw_latents
from cgan.sharing import page as pages
from cgan.sharing.card import render_readme
from cgan.sharing.page import export_page, render_page
from cgan.storage.checkpoint import ENCODER, GENERATOR, open_checkpoint, save_tensors
from cgan.storage.images import to_pixels
from cgan.storage.paths import ENCODER_FILE, GENERATOR_FILE, PACKAGED
from cgan.storage.safe_reading import file_digest
from tests.conftest import open_image
from tests.sharing.conftest import wait_for

Open = Callable[..., Any]
Make = Callable[..., cgan.Sampler]

CANVAS = """id => { const c = document.getElementById(id); const rgba = c.getContext("2d")
  .getImageData(0, 0, c.width, c.height).data; return [...rgba].filter((_, i) => i % 4 < 3); }"""


@pytest.fixture(scope="module")
def mnist_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_page("mnist", tmp_path_factory.mktemp("page") / "mnist.html")


def write(sampler: cgan.Sampler, folder: Path) -> Path:
    path = folder / "page.html"
    path.write_text(render_page(sampler), encoding="utf-8")
    return path


def drawn(page: Any, class_name: str | None, seed: int, shape: Any) -> NDArray[np.int64]:
    script = "async ([name, seed]) => [...await window.cgan.draw(name, BigInt(seed))]"
    channels, height, width = shape
    found = page.evaluate(script, [class_name, str(seed)])
    return np.array(found).reshape(height, width, channels).transpose(2, 0, 1)


def canvas(page: Any, name: str) -> NDArray[np.int64]:
    """The red values of a canvas, (H·W,)."""
    return np.array(page.evaluate(CANVAS, name)[::3])


def wanted(sampler: cgan.Sampler, class_name: str | None, seed: int) -> NDArray[np.int64]:
    return to_pixels(sampler.sample(class_name, 1, seed))[0].numpy().astype(np.int64)


def test_the_same_image_as_python_for_every_class_and_20_seeds(
    open_page: Open, mnist_page: Path
) -> None:
    page, sampler = open_page(mnist_page), cgan.load("mnist")
    script = """() => window.cgan.classes.map((name) => Array.from({ length: 20 },
      (_, seed) => [...generator.draw(name, seed)]))"""
    found = np.array(page.evaluate(script)).reshape(200, 1, 28, 28)
    python = to_pixels(sampler.sample(None, 20, seed=0)).numpy().astype(np.int64)
    assert np.abs(found - python).max() <= 1
    for seed in (2**53 + 1, 2**62):
        difference = drawn(page, "7", seed, (1, 28, 28)) - wanted(sampler, "7", seed)
        assert np.abs(difference).max() <= 1


CASES: list[dict[str, Any]] = [
    {"backbone": "dcgan", "image_shape": (3, 8, 12)},
    {"backbone": "mlp", "conditional": False},
    {"backbone": "resnet", "image_shape": (3, 8, 8)},
    {"backbone": "photo", "image_shape": (3, 8, 12)},
]


@pytest.mark.parametrize("options", CASES)
def test_colour_and_plain(
    open_page: Open, make_generator: Make, tmp_path: Path, options: dict[str, Any]
) -> None:
    sampler = make_generator(**options)
    page = open_page(write(sampler, tmp_path))
    for class_name in sampler.classes if sampler.conditional else [None]:
        for seed in range(5):
            found = drawn(page, class_name, seed, sampler.image_shape)
            assert np.abs(found - wanted(sampler, class_name, seed)).max() <= 1
    if sampler.conditional:
        page.check("input[value=dog]", force=True)
        rgb = np.array(page.evaluate(CANVAS, "picture")).reshape(8, -1, 3).transpose(2, 0, 1)
        np.testing.assert_array_equal(rgb, drawn(page, "dog", 0, sampler.image_shape))


def test_choosing_a_class_and_a_seed(open_page: Open, mnist_page: Path) -> None:
    page = open_page(mnist_page)
    page.check("input[value='7']", force=True)
    page.fill("#seed", "41")
    page.press("#seed", "Enter")
    page.click("#next")
    assert page.inner_text("#caption") == "7, seed 42"
    assert page.inner_text("#command") == "cgan generate mnist --class 7 -n 1 --seed 42"
    np.testing.assert_array_equal(
        canvas(page, "picture"), drawn(page, "7", 42, (1, 28, 28)).ravel()
    )
    page.click("#grid button >> nth=2")  # 45: the grid begins at the next seed
    assert page.inner_text("#caption") == "7, seed 45"
    page.click("#styles button >> nth=3")
    assert page.inner_text("#caption") == "3, seed 45"
    assert page.is_checked("input[value='3']")
    page.click("#more")
    assert page.inner_text("#grid button >> nth=0").strip() == "70"
    page.fill("#seed", "-1")
    page.press("#seed", "Enter")
    assert page.inner_text("#seed-error").startswith("A seed is a whole number from 0 to 92")
    assert page.inner_text("#caption") == "3, seed 45"
    assert page.get_attribute("#seed", "aria-invalid") == "true"
    page.click("#previous")
    assert (page.inner_text("#seed-error"), page.input_value("#seed")) == ("", "44")
    with pytest.raises(Exception, match="there is no class 10: 0, 1, 2"):
        drawn(page, "10", 0, (1, 28, 28))


def test_seeds_at_the_limits(open_page: Open, mnist_page: Path) -> None:
    page = open_page(mnist_page)
    page.fill("#seed", "41")
    page.press("#seed", "ArrowUp")  # from what is typed
    assert page.inner_text("#caption") == "0, seed 42"
    highest = 2**63 - 1 - 1000
    page.fill("#seed", str(highest - 1))
    page.press("#seed", "Enter")
    for _ in range(3):
        page.click("#more")
    page.click("#grid button >> nth=-1")
    assert page.inner_text("#caption") == f"0, seed {highest - 1}"


def test_mixing_and_walking(open_page: Open, mnist_page: Path) -> None:
    page, sampler = open_page(mnist_page), cgan.load("mnist")
    page.check("input[value='3']", force=True)
    page.select_option("#to", "8")
    wait_for(page, "document.getElementById('walk-caption').textContent === '50 % 3, 50 % 8'")
    mixed = to_pixels(sampler.sample(n=1, seed=0, mix={"3": 0.5, "8": 0.5}))[0]
    assert np.abs(canvas(page, "walk") - mixed.flatten().numpy().astype(int)).max() <= 1
    page.check("#change-style")
    frames = to_pixels(cgan.walk(sampler, "3", "8", frames=3, seed=0, end_seed=1))
    for position, frame in zip((0, 50, 100), frames, strict=True):
        page.evaluate(f"""() => {{ const s = document.getElementById("share");
          s.value = {position}; s.dispatchEvent(new Event("input")); }}""")
        wait_for(
            page, f"/(^|\\D){position} % 8/.test(document.getElementById('walk-caption').innerText)"
        )
        assert np.abs(canvas(page, "walk") - frame.flatten().numpy().astype(int)).max() <= 1
    page.click("#play")
    wait_for(page, "window.cgan.frames > 10 && document.getElementById('share').value > 5")
    assert page.evaluate("runs.play") == 1
    page.click("#play")
    count = page.evaluate("window.cgan.frames")
    page.wait_for_timeout(100)
    assert page.evaluate("window.cgan.frames") - count <= 1  # it has stopped


def test_downloads(open_page: Open, mnist_page: Path, tmp_path: Path) -> None:
    page = open_page(mnist_page)
    page.check("input[value='4']", force=True)
    with page.expect_download() as started:
        page.click("#download")
    assert started.value.suggested_filename == "4-seed0.png"
    started.value.save_as(tmp_path / "four.png")
    pixels = np.asarray(open_image(tmp_path / "four.png").convert("L"))
    assert pixels.shape == (252, 252)  # nine times the size
    np.testing.assert_array_equal(pixels[::9, ::9], drawn(page, "4", 0, (1, 28, 28))[0])
    wait_for(page, "!document.getElementById('download-grid').disabled")
    with page.expect_download() as started:
        page.click("#download-grid")
    started.value.save_as(tmp_path / "grid.png")
    grid = np.asarray(open_image(tmp_path / "grid.png").convert("L"))
    assert grid.shape == (88, 238)  # 3 rows of 8 images with gaps of 2 pixels
    np.testing.assert_array_equal(grid[30:58, 30:58], drawn(page, "4", 10, (1, 28, 28))[0])


def test_the_keyboard_alone(open_page: Open, mnist_page: Path) -> None:
    page = open_page(mnist_page)

    def focus(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        pytest.fail(f"the keyboard does not reach {name}")

    focus("picture-button")
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('large').open")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('large').open")
    assert page.evaluate("document.activeElement.id") == "picture-button"
    page.keyboard.press("Tab")  # the chosen class
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#caption") == "1, seed 0"
    focus("seed")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#caption") == "1, seed 1"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    focus_before = "document.activeElement.closest('#grid') !== null"
    for _ in range(10):
        if page.evaluate(focus_before):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first image of the grid
    assert page.inner_text("#caption") == "1, seed 2"
    assert page.evaluate(focus_before)  # it stays where it was
    focus("share")
    page.keyboard.press("End")
    wait_for(page, "document.getElementById('walk-caption').innerText === '0 % 1, 100 % 9'")
    focus("use-picture")
    page.keyboard.press("Enter")
    assert page.inner_text("#hand-caption").startswith("This is 1 (")


def negate(source: Path, format: str, target: Path, layer: str, **header: str) -> None:
    """A packaged file with the weights of one layer negated."""
    with open_checkpoint(source, format) as file:
        tensors = {
            name: -tensor if name.startswith(layer) else tensor
            for name, tensor in file.tensors().items()
        }
        save_tensors(target, tensors, {**file.header, **header})


@pytest.fixture(scope="module")
def dark_ink_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the packaged generator with inverted images: black digits on white."""
    folder, packaged = tmp_path_factory.mktemp("dark"), PACKAGED / "mnist"
    generator = folder / GENERATOR_FILE
    negate(packaged / GENERATOR_FILE, GENERATOR, generator, "up.1.")
    negate(packaged / ENCODER_FILE, ENCODER, folder / ENCODER_FILE, "features.0.",
           generator=file_digest(generator))  # fmt: skip
    assert cgan.load(generator).sample("7").mean() > 0.5
    return export_page(generator, folder / "page.html")


@pytest.mark.parametrize("ink", ["light", "dark"])
def test_a_drawing_by_hand(
    open_page: Open, mnist_page: Path, dark_ink_page: Path, ink: str
) -> None:
    page = open_page(mnist_page if ink == "light" else dark_ink_page)
    area = page.locator("#hand")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()

    def stroke(*points: tuple[float, float]) -> None:
        for x, y in points:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
            page.mouse.down()
        page.mouse.up()

    wait_for(page, "inkFound !== null")
    stroke((0.25, 0.25), (0.7, 0.22), (0.5, 0.5), (0.4, 0.8))
    assert page.inner_text("#hand-caption").startswith("This is 7 (")
    ground = page.evaluate("getComputedStyle(document.getElementById('hand')).backgroundColor")
    assert ground == ("rgb(0, 0, 0)" if ink == "light" else "rgb(255, 255, 255)")
    assert page.locator("#hand-styles button").count() == 10
    assert page.locator("#hand-styles .likely").inner_text().strip() == "7"
    page.click("#clear")
    assert not page.is_visible("#hand-styles")
    stroke((0.5, 0.2), (0.48, 0.8))
    assert page.inner_text("#hand-caption").startswith("This is 1 (")


HOSTILE = ("<script>alert(1)</script>", "</script><b>", "a\u202eb", "\"'`&amp;", "it's", "x" * 200)


def test_hostile_class_names(open_page: Open, make_generator: Make, tmp_path: Path) -> None:
    measured = {"control_accuracy": 0.5, "interval": [0.4, "<i>"], "confusion": [["<b>"]]}
    sampler = make_generator(HOSTILE, measured=measured)
    page = open_page(write(sampler, tmp_path), viewport={"width": 320, "height": 600})
    assert page.evaluate("window.cgan.classes") == list(HOSTILE)
    shown = page.locator("#classes span").all_inner_texts()
    assert [text.strip() for text in shown] == list(HOSTILE)
    for name in HOSTILE:
        assert np.abs(drawn(page, name, 3, (1, 8, 8)) - wanted(sampler, name, 3)).max() <= 1
    assert page.inner_text("#walk-caption bdi >> nth=0") == HOSTILE[0]
    page.check("#classes input >> nth=4", force=True)
    assert page.inner_text("#command").startswith("cgan generate MODEL --class 'it'\\''s'")
    assert page.evaluate("document.querySelectorAll('b').length") == 1  # our own
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


HAND = """() => { for (const id of ["hand-caption", "hand-styles"]) {
  document.body.append(Object.assign(document.createElement("div"), { id })); }
  generator.encode = () => ({ z: drawLatent(0n, 8), probabilities: [0, 0, 1, 0, 0, 0] });
  recognise([]); }"""


def test_numbers_are_in_natural_order(
    open_page: Open, make_generator: Make, tmp_path: Path
) -> None:
    """The indices stay in text order: the button 10 draws the class of the label 2."""
    names, classes = ["0", "1", "2", "3", "10", "11"], ("0", "1", "10", "11", "2", "3")
    confusion = [[int(f"{int(a) + 1}{int(b):02}") for b in classes] for a in classes]
    measured = {"control_accuracy": 0.5, "judge_accuracy": 0.9, "confusion": confusion}
    sampler = make_generator(classes, measured=measured)
    page = open_page(write(sampler, tmp_path))
    assert page.evaluate("window.cgan.classes") == list(sampler.classes) == list(classes)
    assert page.locator("#classes label").all_inner_texts() == names
    for list_ in ("#from option", "#to option"):
        assert page.locator(list_).all_inner_texts() == names
    assert (page.input_value("#from"), page.input_value("#to")) == ("0", "11")
    wait_for(page, "document.querySelectorAll('#styles button[aria-label]').length === 6")
    captions = [text.strip() for text in page.locator("#styles button").all_inner_texts()]
    assert captions == names
    page.check("input[value='10']", force=True)
    assert page.inner_text("#caption") == "10, seed 0"
    z = torch.from_numpy(draw_latents([0], sampler.latent_dim))
    by_label = to_pixels(sampler.generate(z, torch.tensor([2])))[0, 0]
    others = [to_pixels(sampler.sample(name))[0, 0] for name in names if name != "10"]
    assert not any(torch.equal(by_label, one) for one in others)
    assert np.abs(canvas(page, "picture") - by_label.flatten().numpy().astype(int)).max() <= 1
    page.click("#styles button >> nth=2")
    assert page.inner_text("#caption") == "2, seed 0"
    page.evaluate(HAND)
    wait_for(page, "document.querySelectorAll('#hand-styles button[aria-label]').length === 6")
    hands = [text.strip() for text in page.locator("#hand-styles button").all_inner_texts()]
    assert hands == names
    assert page.locator("#hand-styles .likely").inner_text().strip() == "10"
    assert page.inner_text("#hand-caption") == "This is 10 (100 %)."
    heads = page.locator(".heat th[scope=col] bdi").all_inner_texts()
    assert heads == page.locator(".heat th[scope=row] bdi").all_inner_texts() == names
    shares = [
        [100 * int(f"{int(a) + 1}{int(b):02}") / sum(row) for b in names]
        for a, row in ((name, confusion[classes.index(name)]) for name in names)
    ]
    cells = page.locator(".heat td").all_inner_texts()
    assert cells == [f"{share:.1f}" for row in shares for share in row]
    with pytest.raises(Exception, match="there is no class 12: 0, 1, 2, 3, 10, 11"):
        drawn(page, "12", 0, (1, 8, 8))
    text = render_readme(sampler, "me/numbers", "mit", set())
    assert "\nClasses: 0, 1, 2, 3, 10, 11.\n" in text


def test_many_classes(open_page: Open, make_generator: Make, tmp_path: Path) -> None:
    sampler = make_generator(tuple(f"kind {index}" for index in range(60)))
    page = open_page(write(sampler, tmp_path))
    page.select_option("#classes select", "kind 57")
    assert page.inner_text("#caption") == "kind 57, seed 0"
    assert page.locator("#styles button").count() == 48
    assert "The first 48 of 60 classes." in page.inner_text("main")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1200, "light", marks=pytest.mark.slow), (320, "dark")],
)
def test_accessibility(open_page: Open, mnist_page: Path, scheme: str, width: int) -> None:
    from axe_core_python.sync_playwright import Axe

    size = {"width": width, "height": 700}
    page = open_page(mnist_page, viewport=size, color_scheme=scheme)
    page.click("#use-picture")
    wait_for(page, "document.querySelectorAll('#hand-styles canvas').length === 10")
    found = Axe().run(page)
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if scheme == "dark":
        page.click("#enlarge")
        assert Axe().run(page)["violations"] == []


def test_the_file(make_generator: Make, tmp_path: Path, mnist_page: Path) -> None:
    text = mnist_page.read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    assert "99.78 %" in text
    assert "99.67–99.85 %" in text
    assert "http" not in text.replace("http-equiv", "").split('<script type="application/json"')[0]
    sampler = make_generator()
    assert render_page(sampler) == render_page(sampler)
    assert str(tmp_path) not in render_page(sampler)
    assert "<h1>pets</h1>" in render_page(sampler)
    model = json.loads(text.split('id="model">')[1].split("</script>")[0])
    assert model["classes"] == list("0123456789")
    with pytest.raises(ConfigError, match=r"a page is an \.html file"):
        export_page("mnist", tmp_path / "page.txt")


def test_the_page_in_the_docs_is_of_this_code() -> None:
    published = (Path(__file__).parents[2] / "docs" / "draw.html").read_text(encoding="utf-8")
    for name in (*pages.SCRIPTS, "page.css"):
        current = (pages.HERE / name).read_text(encoding="utf-8")
        assert current in published, "run: cgan export mnist --html docs/draw.html"


def test_a_plain_gan_has_no_control(make_generator: Make) -> None:
    measured = {"control_accuracy": 0.5, "per_class": {"cat": 0.5}, "judge_accuracy": 0.9, "fid": 2}
    measured["confusion"] = [[1, 1], [1, 1]]
    text = render_page(make_generator(conditional=False, measured=measured))
    assert "control accuracy" not in text
    assert "worst class" not in text
    assert "Confusion matrix" not in text
    assert "<dt>FID</dt><dd>2.00</dd>" in text
    text = render_page(make_generator(measured=measured))
    assert "control accuracy" in text
    assert "Confusion matrix" in text


def test_show_opens_a_browser(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    result = shell("show", "mnist")
    assert result.exit_code == 0
    path = Path(result.stdout.strip())
    assert opened == [path.as_uri()]
    assert path.is_relative_to(tmp_path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "no browser was found: open this file in one" in result.stderr


def test_export_in_the_shell(shell: Callable[..., Result], tmp_path: Path) -> None:
    result = shell("export", "mnist", "--html", "draw.html")
    assert result.stdout == "draw.html\n"
    assert (tmp_path / "draw.html").stat().st_size > 1_000_000
    assert list(tmp_path.iterdir()) == [tmp_path / "draw.html"]
    for words, sentence in (
        (("--html", "draw.txt"), "a page is an .html file, not draw.txt"),
        (("--html", "a.html", "--out", "b.onnx"), "--out is the path of the ONNX file"),
        (("--html", "a.html", "--opset", 17), "--opset is that of the ONNX file: give --onnx too"),
    ):
        result = shell("export", "mnist", *words)
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "draw.html"]
