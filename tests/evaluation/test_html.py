"""The page: everything that was measured is on it, it is safe, and it needs nothing but itself."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from cgan.console import printable
from cgan.evaluation.control import Control
from cgan.evaluation.report import (
    HEAT,
    MAX_NUMBERED_CLASSES,
    ClassFigures,
    Figure,
    Report,
    format_interval,
    format_value,
    render_report,
    spectrum_lines,
)

CLASSES = ("zero", "<b>&", "two")
CONFUSION = torch.tensor([[90, 6, 4], [0, 100, 0], [30, 0, 70]])
VOID = {"meta", "img"}
DRAWN = {"path", "polyline"}


def make_report(**changes: object) -> Report:
    """Three classes of 4×6 grey pictures, two pairs, two curves."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    report = Report(
        model="runs/told",
        data="shapes",
        conditional=True,
        features="judge-of-shapes",
        pictures=12_345,
        train_images=6_000,
        test_images=1_500,
        splits={"validation": "a tenth", "test": "the other tenth"},
        compared=10_000,
        images_seen=640_000,
        seconds=90.0,
        control=Control(
            CLASSES, CONFUSION, True, 0.9875, 1_500, "judge 12345678 of shapes", "12345678"
        ),
        figures=[
            Figure("control_accuracy", "Control accuracy", 260 / 300, 0.9875, 1 / 3, True),
            Figure("fid", "FID", 3.45678, 0.91234, None, False, "distance; lower is better"),
            Figure("recall", "Recall", None, 0.7531, None, True),
        ],
        classes=[
            ClassFigures(
                name,
                share,
                share - 0.05,
                share,
                0.9911,
                fid,
                4.5674,
                0.003,
                0.001,
                0.9,
                0.95,
                0.91357,
            )
            for name, share, fid in zip(CLASSES, (0.9, 1.0, 0.7), (12.345, None, 7.0), strict=True)
        ],
        warnings=["class two is obeyed least & last"],
        left_out=["inception: its weights are not here"],
        grid=noise(3, 5, 1, 4, 6),
        pairs=noise(2, 2, 1, 4, 6),
        pair_distances=torch.tensor([0.5125, 2.0]),
        curves={"d_loss": [(0, 1.5), (100, 0.25), (200, float("nan"))], "g_loss": [(50, 2.0)]},
    )
    return replace(report, **changes)  # type: ignore[arg-type]


PLAIN = make_report(
    model="runs/untold",
    conditional=False,
    control=Control(CLASSES, torch.full((3, 3), 100), False, 0.9875, 1_500),
    figures=[Figure("fid", "FID", 5.5, 0.91234), Figure("speed", "Speed", 12_345.0)],
    warnings=[],
    curves={"d_loss": [(100, 0.75), (400, 0.5)]},
)


class Page(HTMLParser):
    """Checks that tags are balanced; keeps the words, the pictures and each table row's cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[tuple[str, Image.Image]] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, ...]] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            told = dict(attrs)
            head, data = (told["src"] or "").split(",")
            assert head == "data:image/png;base64"
            image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            self.images.append((told["class"] or "", image))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, f"<{tag}/> closes nothing in HTML"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()

    def row(self, start: str) -> list[str]:
        """The only row whose first cell begins like this."""
        (row,) = (cells for cells in self.rows if cells[0].startswith(start))
        return row[1:]

    def pictures(self, kind: str) -> list[Image.Image]:
        return [image for name, image in self.images if name == kind]


def test_needs_nothing_but_itself() -> None:
    html = render_report([make_report(), PLAIN])
    assert html.startswith("<!DOCTYPE html>")
    for word in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert word not in html
    sources = re.findall(r"src=.{20}", html)
    assert len(sources) == 2 + 2 * 2
    assert set(sources) == {'src="data:image/png;base'}
    assert html == render_report([make_report(), PLAIN])


UNSAFE = (
    "<script>alert(1)</script>\x1b[2J\0",
    "\"><img src=x onerror='alert(1)'>\u202e\n",
    "' onmouseover=alert(1) x='{{ 1 + 1 }}\udce9",
)


def named_by(names: tuple[str, str, str]) -> Report:
    """A report with these names wherever it has text of unknown origin."""
    report = make_report()
    words = " ".join(names)
    return replace(
        report,
        model=f"runs/{words}",
        data=words,
        features=words,
        splits={"test": words, "validation": words},
        control=replace(report.control, classes=names),
        classes=[replace(one, name=name) for one, name in zip(report.classes, names, strict=True)],
        warnings=[words],
        left_out=[words],
        curves={words: [(0, 1.0), (9, 2.0)]},
    )


@pytest.mark.parametrize("many", [1, 2])
def test_names_of_unknown_origin_are_text(many: int) -> None:
    """They add no tag and no attribute, and nothing hides or reorders what is around them."""
    html = render_report([named_by(UNSAFE)] * many)
    page = Page(html)
    plain = Page(render_report([named_by(("one", "two", "three"))] * many))
    assert page.tags == plain.tags
    for name in UNSAFE:
        assert " ".join(printable(name).split()) in page.text
    assert all(c.isprintable() or c == "\n" for c in html)
    assert html.encode()


def test_first_number_is_control_with_its_bounds() -> None:
    text = Page(render_report([make_report()])).text
    told = text.index("86.67 % control accuracy")
    assert told < text.index("Samples") < text.index("Metrics")
    assert "95 % interval 82.35–90.05 %" in text  # Wilson of 260 in 300, by hand
    assert "chance 33.33 % real test images 98.75 % of real ones 0.88 (0.83 to 0.91)" in text
    assert "worst class two, 70.00 %" in text


def test_no_judge_no_ceiling() -> None:
    control = Control(CLASSES, CONFUSION, True, None, 0)
    assert "real test images –" in Page(render_report([make_report(control=control)])).text


def test_says_what_is_wrong_and_what_is_missing() -> None:
    text = Page(render_report([make_report()])).text
    assert "Warnings class two is obeyed least & last" in text
    assert "Left out inception: its weights are not here" in text
    quiet = Page(render_report([make_report(warnings=[], left_out=[])])).text
    assert "Warnings" not in quiet
    assert "Left out" not in quiet


def test_names_are_text_not_html() -> None:
    html = render_report([make_report(model="</title><i>", data='"><u>', features="<s>&amp;")])
    page = Page(html)
    for tag in ("<b>", "<i>", "<u>", "<s>"):
        assert tag not in html
    assert '</title><i> A class-conditional GAN trained on "><u>' in page.text
    assert "features of <s>&amp; ;" in page.text
    assert page.rows.count(
        [
            "<b>&",
            "100.00 %",
            "95.00–100.00 %",
            "99.11 %",
            "–",
            "4.57",
            "0.00300",
            "0.00100",
            "90.00 %",
            "95.00 %",
            "0.914",
        ]
    )


def test_figures_beside_real_and_chance() -> None:
    page = Page(render_report([make_report()]))
    assert page.row("Control accuracy") == ["86.67 %", "98.75 %", "33.33 %"]
    assert page.row("FIDdistance; lower is better") == ["3.46", "0.912", "–"]
    assert page.row("Recall") == ["–", "75.31 %", "–"]
    assert "features of judge-of-shapes ; do not compare metrics of different features" in page.text
    assert [
        "zero",
        "90.00 %",
        "85.00–90.00 %",
        "99.11 %",
        "12.3",
        "4.57",
        "0.00300",
        "0.00100",
        "90.00 %",
        "95.00 %",
        "0.914",
    ] in page.rows


def test_intervals_stand_beside_their_values() -> None:
    shares = Figure("a", "Shares", 0.5, 0.7512, None, True, interval=(0.4321, 0.6))
    ratio = Figure("b", "Ratio", 0.661, 1.0, interval=(0.617, 0.71))
    page = Page(render_report([make_report(figures=[shares, ratio])]))
    assert page.row("Shares") == ["50.00 % (43.21–60.00 %)", "75.12 %", "–"]
    assert page.row("Ratio") == ["0.661 (0.617 to 0.710)", "1.00", "–"]


def test_spectra_and_positions_are_drawn() -> None:
    spectra = torch.tensor([10.0, 1.0, 0.1]), torch.tensor([1.0, 1.0, 1.0])
    assert spectrum_lines(spectra) == [
        "0.0,0.0 120.0,36.0 240.0,72.0",
        "0.0,36.0 120.0,36.0 240.0,36.0",
    ]
    positions = torch.zeros(2, 2, 1, 4, 6, dtype=torch.uint8)
    html = render_report([make_report(spectra=spectra, positions=positions)])
    assert "120.0,36.0 240.0,72.0" in html
    for name in ("mean of generated", "mean of real", "deviation of generated"):
        assert f'alt="{name} images"' in html
    assert "<h2>Pixels" not in render_report([make_report()])


def test_confusion_in_percent_of_the_row() -> None:
    html = render_report([make_report()])
    page = Page(html)
    assert ["", *CLASSES] in page.rows
    assert ["zero", "90.0", "6.0", "4.0"] in page.rows
    assert ["<b>&", "·", "100", "·"] in page.rows
    assert ["two", "30.0", "·", "70.0"] in page.rows
    assert 'style="--shade:0.24" title="6 of 100"' in html  # √0.06
    assert html.count('class="full"') == 4


def test_a_large_confusion_matrix_is_drawn() -> None:
    count = MAX_NUMBERED_CLASSES + 1
    names = tuple(f"c{number}" for number in range(count))
    confusion = 36 * torch.eye(count, dtype=torch.int64)
    confusion[0, 1], confusion[0, 0], confusion[2, 2] = 9, 27, 0  # class 2 was never asked for
    report = make_report(control=Control(names, confusion, True, None, 0))
    grid = report.grid[:1].expand(count, -1, -1, -1, -1)
    report = replace(report, grid=grid, classes=report.classes[:1] * count)
    page = Page(render_report([report]))
    (image,) = page.pictures("drawn-heat")
    pixels = np.array(image)
    assert pixels.shape == (count, count, 3)
    assert tuple(pixels[1, 1]) == HEAT
    assert tuple(pixels[0, 1]) == tuple(round(255 + (ink - 255) / 2) for ink in HEAT)
    assert (pixels[2] == 255).all()
    assert "Classes from c0 to c32" in page.text


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_ones_given(channels: int) -> None:
    report = make_report()
    report = replace(report, grid=report.grid.expand(-1, -1, channels, -1, -1))
    page = Page(render_report([report]))
    (grid,) = page.pictures("grid")
    assert grid.size == (5 * 8 - 2, 3 * 6 - 2)
    assert grid.mode == ("L" if channels == 1 else "RGB")
    pixels = np.array(grid).reshape(16, 38, channels)
    second_of_last_class = pixels[12:16, 8:14].transpose(2, 0, 1)
    assert torch.equal(torch.from_numpy(second_of_last_class), report.grid[2, 1])
    pairs = page.pictures("pair")
    assert [pair.size for pair in pairs] == [(14, 4), (14, 4)]
    assert torch.equal(torch.from_numpy(np.array(pairs[1])[:, 8:]), report.pairs[1, 1, 0])
    nearest = page.text[page.text.index("Nearest training images") :]
    assert nearest.index("0.512") < nearest.index("2.00")


def test_curves_reach_their_ends() -> None:
    html = render_report([make_report()])
    assert 'points="0.0,0.0 240.0,72.0"' in html  # (0, 1.5) is the top, (100, 0.25) the bottom
    assert 'points="240.0,0.0"' in html
    text = Page(html).text
    assert "d_loss 1.50 0.250 0 100 images" in text
    assert "g_loss 2.00 2.00 0 50 images" in text


def test_runs_share_a_drawing() -> None:
    html = render_report([make_report(), PLAIN])
    assert html.count('aria-label="d_loss"') == 1
    assert 'class="line-0" points="0.0,0.0 60.0,72.0"' in html
    assert 'class="line-1" points="60.0,43.2 240.0,57.6"' in html


def test_what_is_empty_is_skipped() -> None:
    full = make_report()
    html = render_report(
        [replace(full, curves={}, pairs=full.pairs[:0], pair_distances=torch.zeros(0))]
    )
    page = Page(html)
    assert "<svg" not in html
    assert page.pictures("pair") == []
    assert "Training curves" not in page.text
    assert "Nearest training" not in page.text
    assert "Training curves" not in render_report(
        [replace(full, curves={"x": [(1, float("inf"))]})]
    )


def test_side_by_side() -> None:
    page = Page(render_report([make_report(), PLAIN]))
    assert len(page.pictures("grid")) == 2
    assert "runs/told vs. runs/untold" in page.text
    assert page.text.index("Conditional · shapes") < page.text.index("Plain · shapes")
    assert "A plain GAN takes no class" in page.text
    assert page.row("metric") == ["runs/told", "runs/untold", "real", "chance"]
    assert page.row("FID") == ["3.46", "5.50", "0.912", "–"]
    assert page.row("Recall") == ["–", "–", "75.31 % / –", "–"]
    assert page.row("Speed") == ["–", "12,300", "–", "–"]


def test_alone_says_what_kind_it_is() -> None:
    told, untold = (Page(render_report([report])).text for report in (make_report(), PLAIN))
    assert "runs/told A class-conditional GAN trained on shapes" in told
    assert "takes no class" not in told
    assert "runs/untold A plain GAN trained on shapes" in untold
    assert " vs. " not in told


def test_different_features_are_told_apart() -> None:
    other = replace(PLAIN, features="inception")
    text = Page(render_report([make_report(), other])).text
    assert "features of judge-of-shapes or inception ;" in text
    assert "runs/told: judge-of-shapes; runs/untold: inception." in text


def test_foot_says_how_it_was_measured() -> None:
    text = Page(render_report([make_report()])).text
    foot = text[text.index("generated 12,345 images") :]
    assert "judge judge 12345678 of shapes training 6,000 real images" in foot
    assert "validation a tenth, used to choose the best generator" in foot
    assert "test 1,500 test images: the other tenth, for this report" in foot
    assert "compared 10,000 generated images" in foot
    assert "trained on 640,000 images in 1.5 minutes" in foot
    assert f"torch {torch.__version__}." in foot


@pytest.mark.parametrize(
    ("value", "share", "text"),
    [
        (None, False, "–"),
        (float("nan"), True, "–"),
        (float("inf"), False, "–"),
        (0.99256, True, "99.26 %"),
        (0.0, False, "0.00"),
        (0.0123456, False, "0.0123"),
        (9.999, False, "10.0"),
        (99.96, False, "100"),
        (312.4, False, "312"),
        (12_345.6, False, "12,300"),
        (-0.00234, False, "−0.00234"),
        (0.0000123, False, "1.23e−05"),
    ],
)
def test_numbers_have_three_digits(value: float | None, share: bool, text: str) -> None:
    assert format_value(value, share) == text


def test_interval_in_percent() -> None:
    assert format_interval((0.98514, 1.0)) == "98.51–100.00 %"
