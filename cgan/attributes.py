"""The names of classes: values of several attributes, and the order in which people see them.

Each combination of values, such as "cat + indoors", is a class like any other. Its name joins the
values, in the order of the attributes. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from cgan.errors import ConfigError, FileError, UnknownNameError, quote

JOINT = " + "
"""Between the values in the name of a class."""


def natural_key(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """What ``natural_order`` compares: the characters of a name, and the name itself for ties.

    A run of the digits 0 to 9 stands where a digit does. Runs compare by length, then as text,
    because Python turns no run of more than 4,300 digits into a number.
    """
    parts = []
    for part in re.findall("[0-9]+|[^0-9]", name.casefold()):
        number = part.lstrip("0") if part[0] in "0123456789" else None
        parts.append((part, 0, "") if number is None else ("0", len(number), number))
    return parts, name


def natural_order(names: Sequence[str]) -> list[int]:
    """The indices of names in the order that people expect: 1, 2, 10 and v9, v10.

    Runs of the digits 0 to 9 compare as whole numbers, everything else as text without case. Names
    that are alike (``01`` and ``1``, ``A`` and ``a``) are in text order; equal ones keep theirs.
    """
    return sorted(range(len(names)), key=lambda index: natural_key(names[index]))


def display_order(classes: Sequence[str]) -> list[int]:
    """The indices of classes in the order in which people see them.

    That is the natural order if the classes are in text order, as those of folders and tables are.
    A data set that states another order, such as Fashion-MNIST, keeps it.
    """
    in_text_order = all(one <= other for one, other in pairwise(classes))
    return natural_order(classes) if in_text_order else list(range(len(classes)))


def sort_for_display(names: Sequence[str]) -> list[str]:
    """Some or all classes, which are in the order of their indices, as people see them."""
    return [names[index] for index in display_order(names)]


def join_values(values: Iterable[str]) -> str:
    """The class of a combination of values: ``["cat", "indoors"]`` is ``"cat + indoors"``."""
    return JOINT.join(values)


def split_classes(classes: Sequence[str], num_attributes: int) -> list[tuple[str, ...]] | None:
    """The values of each class, one per attribute; None if the classes have a single attribute."""
    return None if num_attributes == 1 else [tuple(name.split(JOINT)) for name in classes]


def num_attributes_of(header: Mapping[str, Any]) -> int:
    """How many attributes a class combines, as the header of a generator file says.

    Files of version 0.3 do not say it: theirs have as many as all names seem to join.

    Raises:
        FileError: the classes do not combine that many.
    """
    counts = {name.count(JOINT) + 1 for name in header["classes"]}
    joined = counts.pop() if len(counts) == 1 else 1
    stated: int = header.get("num_attributes", joined)
    if stated not in (1, joined):
        raise FileError(f"its header names {stated} attributes, and its classes are no such names")
    return stated


def attribute_values(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The different values of each attribute, sorted."""
    return [tuple(sorted(set(column))) for column in zip(*rows, strict=True)]


def match_values(classes: Sequence[str], num_attributes: int, names: Sequence[str]) -> list[int]:
    """The classes of several attributes that have all these values, as indices.

    Names of the same attribute are alternatives: ``cat``, ``dog`` and ``indoors`` are
    "cat + indoors" and "dog + indoors".

    Raises:
        UnknownNameError: a name is not a value.
        ConfigError: a name is a value of two attributes, or there is no such combination.
    """
    rows = split_classes(classes, num_attributes) or []
    values = attribute_values(rows)
    wanted: dict[int, set[str]] = {}
    for name in names:
        of_attributes = [index for index, known in enumerate(values) if name in known]
        if not of_attributes:
            known = [value for attribute in values for value in sort_for_display(attribute)]
            every = sort_for_display(classes)
            raise UnknownNameError("class", name, [*dict.fromkeys(known), *every])
        if len(of_attributes) > 1:
            raise ConfigError(
                f"{quote(name)} is a value of {len(of_attributes)} attributes: give the whole "
                f"class, such as {quote(next(one for one in classes if name in one))}"
            )
        wanted.setdefault(of_attributes[0], set()).add(name)
    found = [
        index
        for index, row in enumerate(rows)
        if all(row[attribute] in chosen for attribute, chosen in wanted.items())
    ]
    if not found:
        asked = join_values(
            " or ".join(sort_for_display(sorted(wanted[index]))) for index in sorted(wanted)
        )
        raise ConfigError(
            f"the training data has no {quote(asked)}: choose from "
            f"{', '.join(sort_for_display(classes)[:10])}"
        )
    return found
