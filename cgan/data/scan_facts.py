"""What was understood of a folder: classes, conversion, and whatever a user would not expect.

Everything here is said once, when the folder is scanned: valid input that means something else than
its owner thinks trains without an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

from PIL import ImageColor

from cgan.attributes import display_order
from cgan.data.facts import inform, warn
from cgan.data.image_cache import Probe
from cgan.data.image_file import DEEP, Conversion
from cgan.data.layout import NO_LABEL, Layout
from cgan.errors import DataError, first_few

MAX_COUNTED = 20
"""Classes that are listed with their counts."""
DEPTHS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""The largest values that files of 16 bits use: cameras and scanners have fewer bits."""
BLANK = 3
"""An image whose values span less, of 255, shows nothing."""
FAINT = 25
"""An image whose values span less, of 255, uses less than a tenth of the range."""
MANY = 0.05
"""Share of the images that is worth a warning."""
KEPT_WELL, KEPT_BADLY = 0.9, 0.6
"""Share of the area that cropping keeps: less is said, and much less is a warning."""


def count_by_class(classes: Sequence[str], labels: Sequence[int]) -> str:
    """The classes with their images: all of them if there are few, else the largest and smallest.

    Args:
        classes: the class names.
        labels: of all images; -1 is no class.
    """
    counts = Counter(label for label in labels if label != NO_LABEL)
    return describe_counts(classes, [counts[label] for label in range(len(classes))])


def describe_counts(classes: Sequence[str], counts: Sequence[int]) -> str:
    """The same from the number of images of each class, in the order in which people see them."""
    rows = [
        (counts[index], f"{classes[index]} ({counts[index]:,})") for index in display_order(classes)
    ]
    if len(rows) <= MAX_COUNTED:
        return ", ".join(text for _, text in rows)
    (_, largest), (_, smallest) = (choose(rows, key=itemgetter(0)) for choose in (max, min))
    return f"{len(rows):,}, the largest {largest}, the smallest {smallest}"


def choose_conversion(probes: Sequence[Probe], background: str, fit: str) -> Conversion:
    """One conversion for all files of a data set.

    Files of 16 bits are scaled by the smallest usual depth that holds all of them. ``auto`` is
    white, unless most drawings on transparency vanish on white and not on black.
    """
    deepest = max((probe.maximum for probe in probes), default=0)
    maximum = next(depth for depth in DEPTHS if depth >= deepest) if deepest else DEEP
    if background == "auto":
        clear = [probe for probe in probes if probe.black_span >= 0]
        better = sum(probe.span < BLANK <= probe.black_span for probe in clear)
        background = "black" if 2 * better > len(clear) else "white"
    return Conversion(maximum, background, fit)


def shows_colour(probes: Sequence[Probe], conversion: Conversion) -> bool:
    """Whether a background in colour shows anywhere."""
    red, green, blue = ImageColor.getrgb(conversion.background)[:3]
    anywhere = conversion.fit == "pad" or any(probe.black_span >= 0 for probe in probes)
    return anywhere and not red == green == blue


def report_broken(broken: list[str], skip: bool) -> None:
    """Log one warning about all broken images, or raise ``DataError``."""
    if not broken:
        return
    others = len(broken) - 1
    if not skip:
        more = f"; {others:,} more cannot be read either" if others else ""
        raise DataError(
            f"{broken[0]}{more}: add --skip-broken to skip {'them' if others else 'it'}"
        )
    what = f"{len(broken):,} broken images" if others else "the broken image"
    warn("skipped %s: %s", what, first_few(broken))


def without_conflicts(
    layout: Layout, kept: list[int], probes: list[Probe], labels: list[int], skip: bool
) -> tuple[list[int], list[Probe], list[int]]:
    """Warn of files that are in several classes; with ``skip`` leave them out."""
    of_digest: dict[bytes, set[int]] = {}
    for probe, label in zip(probes, labels, strict=True):
        if label != NO_LABEL:
            of_digest.setdefault(probe.digest, set()).add(label)
    conflicts = {digest for digest, several in of_digest.items() if len(several) > 1}
    if not conflicts:
        return kept, probes, labels
    one, places = next(iter(conflicts)), zip(kept, probes, strict=True)
    same = [str(layout.paths[index]) for index, probe in places if probe.digest == one]
    where = f"{len(conflicts):,} images are in several classes, such as {first_few(same)}"
    warn("%s: %s", where, "they are left out" if skip else "--skip-conflicts leaves them out")
    if not skip:
        return kept, probes, labels
    rows = [
        row for row in zip(kept, probes, labels, strict=True)
        if row[2] == NO_LABEL or row[1].digest not in conflicts
    ]  # fmt: skip
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def say_how_images_look(probes: Sequence[Probe], conversion: Conversion, aspect: float) -> None:
    """Log how the files became images, and warn of images that show little.

    Args:
        probes: of all images.
        conversion: of all images.
        aspect: width divided by height of the images.
    """
    if any(probe.maximum for probe in probes) and conversion.maximum != DEEP:
        deepest = max(probe.maximum for probe in probes)
        inform("files of 16 bits: their largest value is %s, so %s becomes white",
               f"{deepest:,}", f"{conversion.maximum:,}")  # fmt: skip
    if 0 < (colour := max(probe.colour_maximum for probe in probes)) < 128:
        warn("files of 16 bits a colour, read with the upper 8, use fewer: their largest value is "
             "%d of 255; convert them to 8 bits", colour)  # fmt: skip
    clear = [probe for probe in probes if probe.black_span >= 0]
    if clear and conversion.background != "white":
        inform(
            "%d images have transparent parts: %s shows there", len(clear), conversion.background
        )
    if frames := sum(probe.has_frames for probe in probes):
        inform("%d files have several frames: the first one is read", frames)
    if conversion.fit == "crop":
        _say_what_is_cropped(probes, aspect)
    spans = [
        probe.black_span
        if conversion.background == "black" and probe.black_span >= 0
        else probe.span
        for probe in probes
    ]
    spans = [span for span in spans if span >= 0]  # of many files, a part is measured
    blank = sum(span < BLANK for span in spans)
    faint = sum(BLANK <= span < FAINT for span in spans)
    copies = len(probes) - len({probe.digest for probe in probes})
    for count, of, what in (
        (blank, spans, "show nothing: all their pixels are the same"),
        (faint, spans, "use less than a tenth of the range from black to white"),
        (copies, probes, "are copies of another file"),
    ):
        if count > MANY * len(of):
            warn("%s of %s images %s", f"{count:,}", f"{len(of):,}", what)


def _say_what_is_cropped(probes: Sequence[Probe], aspect: float) -> None:
    """Say what share of the area is kept, and which size would keep more."""
    aspects = sorted(probe.width / probe.height for probe in probes)
    kept = sum(min(one / aspect, aspect / one) for one in aspects) / len(aspects)
    if kept >= KEPT_WELL:
        return
    if kept >= KEPT_BADLY:
        inform("cropped at the centre: %.0f %% of the area is kept", 100 * kept)
        return
    middle = aspects[len(aspects) // 2]
    warn(
        "cropping at the centre keeps %.0f %% of the area: --set data.fit=pad or stretch keeps all "
        "of it, and --size %s fits most images",
        100 * kept, _size_of_aspect(middle),
    )  # fmt: skip


def _size_of_aspect(aspect: float) -> str:
    """A small size of about this aspect: multiples of 4 of at least 8."""
    short = 32
    long = min(round(short * max(aspect, 1 / aspect) / 4) * 4, 512)
    return f"{long}x{short}" if aspect >= 1 else f"{short}x{long}"


def warn_of_similar_names(classes: Sequence[str]) -> None:
    """Warn of classes whose names differ only in case, spaces, marks or leading zeros."""

    def simple(name: str) -> str:
        words = re.split(r"(?<=\w)[\s_-]+(?=\w)", name.strip().casefold())
        return " ".join(word.lstrip("0") or "0" if word.isdecimal() else word for word in words)

    in_order = sorted((simple(name), name) for name in classes)
    pairs = [(a[1], b[1]) for a, b in pairwise(in_order) if a[0] == b[0]]
    if pairs:
        warn(
            "different classes with almost the same name: %s",
            first_few([f"{one!r} and {other!r}" for one, other in pairs]),
        )
