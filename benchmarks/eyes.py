"""``python -m benchmarks eyes``: can people name what is drawn?

It writes sheets of numbered pictures, real and drawn of several runs mixed, and a key apart. A
viewer who sees neither key nor code names each picture by one of the classes, with a confidence
from 1 (a guess) to 3 (sure). The score is the share that is named rightly, for each run and for
real test pictures.

An answer file has one line for each picture: its number, a class and a confidence, as in
``17 horse 2``. Lines that begin with ``#`` are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import cgan
from cgan.data import load_split
from cgan.evaluation.api import data_config_of
from cgan.evaluation.distances import ratio_interval, wilson_interval
from cgan.evaluation.report import format_interval, format_share
from cgan.storage.images import to_array, to_pixels

SHEET, COLUMNS = 50, 10
SIDE, BAND = 128, 22
"""Pixels of a picture on a sheet, and of the line below it that holds its number."""
FIRST_SEED = 10**9
"""No evaluation and no look during training draws these seeds."""
REAL = "real"
KEY = "key.json"


def write_sheets(runs: list[Path], out: Path, each: int, real: int, seed: int = 0) -> int:
    """Write ``sheet-1.png``, … and the key; returns the number of pictures.

    Args:
        runs: run folders of the same classes.
        out: a new folder.
        each: drawn pictures of each run, as many of each class as possible.
        real: real test pictures of the first run's data.
        seed: of the order.
    """
    samplers = [cgan.load(run) for run in runs]
    classes = samplers[0].classes
    pictures: list[Tensor] = []
    rows: list[tuple[str, str]] = []
    for run, sampler in zip(runs, samplers, strict=True):
        for index in range(each):
            name = classes[index % len(classes)]
            drawn = sampler.sample(name, 1, FIRST_SEED + len(rows))
            pictures.append(to_pixels(drawn)[0])
            rows.append((str(run), name))
    test = load_split(data_config_of(samplers[0]), "test")
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    for label in range(len(classes)):
        share = real // len(classes) + (label < real % len(classes))
        for index in order[test.labels[order] == label][:share].tolist():
            pictures.append(test.take(torch.tensor([index]))[0])
            rows.append((REAL, classes[label]))
    mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    out.mkdir(parents=True)
    for start in range(0, len(mixed), SHEET):
        chosen = mixed[start : start + SHEET]
        sheet = draw_sheet([pictures[index] for index in chosen], start + 1)
        sheet.save(out / f"sheet-{start // SHEET + 1}.png")
    key = {str(number): rows[index] for number, index in enumerate(mixed, 1)}
    (out / KEY).write_text(json.dumps({"classes": classes, "pictures": key}, indent=0) + "\n")
    return len(mixed)


def draw_sheet(pictures: list[Tensor], first: int) -> Image.Image:
    """Pictures in rows, enlarged smoothly, each with its number below it."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 6), rows * (SIDE + BAND)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        x, y = index % COLUMNS * (SIDE + 6), index // COLUMNS * (SIDE + BAND)
        array = to_array(picture.expand(3, -1, -1)).transpose(1, 2, 0)
        sheet.paste(Image.fromarray(array).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        draw.text((x + 4, y + SIDE + 2), str(first + index), fill="black", font_size=16)
    return sheet


def read_answers(files: Iterable[Path]) -> list[tuple[str, str, int]]:
    """Number, class and confidence of each line.

    Raises:
        ValueError: a line is something else.
    """
    answers = []
    for file in files:
        for line in file.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            number, *name, confidence = line.split()
            if not number.isdecimal() or not name or confidence not in ("1", "2", "3"):
                raise ValueError(f"{file}: {line!r} is not like '17 horse 2'")
            answers.append((number, " ".join(name), int(confidence)))
    return answers


def print_scores(folder: Path, files: list[Path]) -> None:
    """The share named rightly, for each source and for each class of it."""
    key = json.loads((folder / KEY).read_text())
    classes, pictures = key["classes"], key["pictures"]
    found: dict[str, list[tuple[str, bool, int]]] = {}
    answers = read_answers(files)
    numbers = [number for number, _, _ in answers]
    if sorted(numbers) != sorted(pictures):
        raise ValueError(f"{len(pictures)} pictures need one answer each, also where it is a guess")
    for number, name, confidence in answers:
        if name not in classes:
            raise ValueError(f"{name!r} is not one of {', '.join(classes)}")
        source, truth = pictures[number]
        found.setdefault(source, []).append((truth, name == truth, confidence))
    real_rows = found.get(REAL, [])
    real = sum(right for _, right, _ in real_rows) / max(len(real_rows), 1)
    print("| pictures | named rightly | 95 % interval | of real | sure | worst classes |")
    print("|---|--:|--:|--:|--:|---|")
    for source in sorted(found):
        rows = found[source]
        right = sum(one for _, one, _ in rows)
        by_class = {name: [one for truth, one, _ in rows if truth == name] for name in classes}
        shares = sorted((sum(ok) / len(ok), name) for name, ok in by_class.items() if ok)
        worst = ", ".join(f"{name} {share:.0%}" for share, name in shares[:3])
        sure = sum(confidence == 3 for _, _, confidence in rows) / len(rows)
        share = right / len(rows)
        ratio = "–"
        if real:
            low, high = ratio_interval(share, len(rows), real, len(real_rows))
            ratio = f"{share / real:.2f} ({low:.2f} to {high:.2f})"
        print(
            f"| {source}, {len(rows)} | {format_share(share)} "
            f"| {format_interval(wilson_interval(right, len(rows)))} "
            f"| {ratio} | {sure:.0%} | {worst} |"
        )
