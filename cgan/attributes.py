"""Classes that combine several attributes, such as "cat + indoors".

Each combination of values is a class like any other. Its name joins the values, in the order of the
attributes. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cgan.errors import ConfigError, UnknownNameError, quote

JOINT = " + "
"""Between the values in the name of a class."""


def join_values(values: Iterable[str]) -> str:
    """The class of a combination of values: ``["cat", "indoors"]`` is ``"cat + indoors"``."""
    return JOINT.join(values)


def split_classes(classes: Sequence[str]) -> list[tuple[str, ...]] | None:
    """The values of each class, one per attribute; None if the classes have a single attribute."""
    rows = [tuple(name.split(JOINT)) for name in classes]
    lengths = {len(row) for row in rows}
    return rows if len(lengths) == 1 and lengths != {1} else None


def attribute_values(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The different values of each attribute, sorted."""
    return [tuple(sorted(set(column))) for column in zip(*rows, strict=True)]


def match_values(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """The classes that have all these values, as indices.

    Names of the same attribute are alternatives: ``cat``, ``dog`` and ``indoors`` are
    "cat + indoors" and "dog + indoors".

    Raises:
        UnknownNameError: a name is not a value.
        ConfigError: a name is a value of two attributes, or there is no such combination.
    """
    rows = split_classes(classes)
    values = attribute_values(rows or [])
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
        for index, row in enumerate(rows or [])
        if all(row[attribute] in chosen for attribute, chosen in wanted.items())
    ]
    if not found:
        asked = join_values(" or ".join(sorted(wanted[index])) for index in sorted(wanted))
        raise ConfigError(
            f"the training data has no {quote(asked)}: choose from {', '.join(classes[:10])}"
        )
    return found
