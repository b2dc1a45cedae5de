"""Classes that combine several attributes, such as "cat + indoors".

Each combination of values is a class like any other. Its name joins the values, in the order of the
attributes. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cgan.errors import ConfigError, FileError, UnknownNameError, quote

JOINT = " + "
"""Between the values in the name of a class."""


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
            known = [value for attribute in values for value in attribute]
            raise UnknownNameError("class", name, [*dict.fromkeys(known), *classes])
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
        asked = join_values(" or ".join(sorted(wanted[index])) for index in sorted(wanted))
        raise ConfigError(
            f"the training data has no {quote(asked)}: choose from {', '.join(classes[:10])}"
        )
    return found
