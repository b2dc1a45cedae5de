"""Tables of labels beside images: ``labels.csv``, ``metadata.csv`` or ``.jsonl``, and Kaggle's."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from cgan.attributes import join_values
from cgan.data.archive import AnyPath
from cgan.errors import DataError, one_line, quote
from cgan.storage.safe_reading import MAX_CLASS_NAME

TABLES = ("labels.csv", "metadata.csv", "metadata.jsonl")
STYLEGAN_TABLE = "dataset.json"
"""The labels of StyleGAN's data sets: ``{"labels": [["00000/img0.png", 3], …]}``."""
FILE_COLUMN, LABEL_COLUMN, GROUP_COLUMN = "file_name", "label", "group"
"""The names of Hugging Face's ImageFolder. In place of ``label`` there may be several columns like
``label_species``, one per attribute."""
NO_LABELS = {
    "partition", "split", "fold", "set", "url", "path", "size", "width", "height", "loss", "bbox",
}  # fmt: skip
"""Names of columns that are no classes, even if a table has no other."""
MAX_ATTRIBUTES = 4
"""Labels that an image may have."""
MAX_BYTES = 2**26
"""A larger table is not read."""


class LabelTable(NamedTuple):
    """The labels of a table.

    Attributes:
        labels: the values of each file, one per attribute, by the name that the table gives it.
        columns: the columns that they come from.
        unused: the other columns, without that of the files.
        groups: by the same names, the column ``group``, if there is one.
    """

    labels: dict[str, tuple[str, ...]]
    columns: tuple[str, ...]
    unused: tuple[str, ...]
    groups: dict[str, str]


def read_labels(table: AnyPath, foreign: bool = False) -> LabelTable:
    """Read a table.

    The labels are the column ``label``; without it all columns like ``label_species``; without them
    several columns of 0 and 1 (one-hot). If each row has a single 1, its column is the class,
    otherwise each of these columns is an attribute. Images with the same value in the column
    ``group``, such as a patient, stay in one split.

    Args:
        table: CSV with commas, semicolons or tabs, or one JSON object per line.
        foreign: the first column names the files, whatever its name is, and if there is one more
            column only, that holds the labels: Kaggle's form.

    Raises:
        DataError: the table cannot be read, lacks a column, names a file twice or outside its
            folder, or its labels are not classes.
    """
    rows = list(_read_rows(table))
    if not rows:
        raise DataError(f"{table} has no rows")
    names = list(dict.fromkeys(name for _, row in rows for name in row if name))
    if not names:
        raise DataError(f"{table} has no names of columns in its first line")
    files = FILE_COLUMN if FILE_COLUMN in names or not foreign else names[0]
    columns, hot = _label_columns(names), False
    others = [name for name in names if name not in (files, GROUP_COLUMN)]
    if not columns and foreign and len(others) == 1 and others[0].lower() not in NO_LABELS:
        columns = others
    if not columns:
        columns, hot = _columns_of_zero_and_one(others, rows), True
    _check_columns(table, names, files, columns)
    labels: dict[str, tuple[str, ...]] = {}
    groups: dict[str, str] = {}
    for number, row in rows:
        where = f"{table}, line {number}"
        if any(row.get(None) or ()):  # an empty one is a comma at the end of the line
            raise DataError(
                f"{where} has {len(names) + len(row[None])} values, and there are {len(names)} "
                'columns: write a value with a comma in it between "'
            )
        name = _file_name(row, files, where)
        if name in labels:
            raise DataError(f"{where} names {quote(name)} a second time: remove one of the lines")
        labels[name] = tuple(_label(row, column, where) for column in columns)
        group = row.get(GROUP_COLUMN)
        if group is not None and (group := str(group).strip()):
            groups[name] = group
        if (length := len(join_values(labels[name]))) > MAX_CLASS_NAME:
            raise DataError(
                f"{where} has a label of {length:,} characters, and the limit is {MAX_CLASS_NAME}"
            )
    labels = _whole_numbers(labels)
    if hot:
        labels = _read_one_hot(table, labels, columns)
    if len(labels) > 2 and len(set(labels.values())) == len(labels):
        raise DataError(
            f"{table} gives each of its {len(labels):,} files another label, so "
            f"the column {' and '.join(map(quote, columns))} is not a class: put the class into it"
        )
    unused = (name for name in others if name not in columns)
    return LabelTable(labels, tuple(columns), tuple(unused), groups)


def is_foreign(table: AnyPath) -> bool:
    """Whether the first column names the files, as in Kaggle's tables."""
    return table.name not in (*TABLES, STYLEGAN_TABLE)


def is_table_of_stylegan(path: AnyPath) -> bool:
    """Whether a ``dataset.json`` holds labels, as StyleGAN2-ADA and StyleGAN3 write them."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return False
    try:
        with path.open("rb") as file:
            found = json.loads(file.read())
    except (ValueError, RecursionError, OSError):
        return False
    labels = found.get("labels") if isinstance(found, dict) else None
    return isinstance(labels, list) and all(isinstance(one, list) for one in labels)


def _columns_of_zero_and_one(
    names: Sequence[str], rows: Sequence[tuple[int, Mapping[str, Any]]]
) -> list[str]:
    """At least two columns with nothing but 0 and 1, or none. A split or a fold is no class."""
    may_be = [name for name in names if name.lower() not in NO_LABELS]
    found = [name for name in may_be if all(_as_bit(row.get(name)) is not None for _, row in rows)]
    numbers = re.compile(r"[-+.\d]+")
    has_text = any(
        not numbers.fullmatch(str(row.get(name)).strip())
        for name in names if name not in found for _, row in rows
    )  # fmt: skip
    return found if len(found) > 1 and not has_text else []


def _as_bit(value: Any) -> bool | None:
    """False for 0, True for 1, None for everything else."""
    return {"0": False, "1": True, "0.0": False, "1.0": True}.get(str(value).strip())


def _read_one_hot(
    table: AnyPath, labels: dict[str, tuple[str, ...]], columns: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The classes, or the values of each attribute, of rows of 0 and 1."""
    bits = {name: [_as_bit(value) for value in row] for name, row in labels.items()}
    if all(sum(map(bool, row)) == 1 for row in bits.values()):
        return {name: (columns[row.index(True)],) for name, row in bits.items()}
    if len(columns) > MAX_ATTRIBUTES:
        raise DataError(
            f"{table} has {len(columns)} columns of 0 and 1 and rows without a single 1, so each "
            f"is an attribute, and the limit is {MAX_ATTRIBUTES}: call those you want "
            f"{LABEL_COLUMN}_…"
        )
    return {
        name: tuple(
            column if bit else f"no {column}" for column, bit in zip(columns, row, strict=True)
        )
        for name, row in bits.items()
    }


def _whole_numbers(labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Whole numbers that a program wrote as floats, 3.0, are whole numbers, if all of them are."""
    columns = [
        [value.partition(".")[0] for value in column]
        if all(re.fullmatch(r"\d+(\.0+)?", value) for value in column)
        else column
        for column in zip(*labels.values(), strict=True)
    ]
    return dict(zip(labels, zip(*columns, strict=True), strict=True))


def _read_rows(table: AnyPath) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """The rows of a table, with the numbers of their lines."""
    if (size := table.stat().st_size) > MAX_BYTES:
        raise DataError(f"{table} has {size:,} bytes, and the limit is {MAX_BYTES:,}")
    try:
        with table.open("rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text: save it as UTF-8") from error
    if table.suffix == ".jsonl":
        yield from _read_json_lines(table, text)
        return
    if table.suffix == ".json":
        for number, pair in enumerate(json.loads(text)["labels"], start=1):
            if not isinstance(pair, list) or len(pair) != 2:
                raise DataError(f"{table}: entry {number} of its labels is not a name and a label")
            yield number, {FILE_COLUMN: pair[0], LABEL_COLUMN: pair[1]}
        return
    first = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    separator = next((one for one in ",;\t" if one in first), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        if not reader.fieldnames:
            _check_columns(table, [], FILE_COLUMN, [])
        columns = [name.strip() for name in reader.fieldnames or ()]
        if twice := [name for name in columns if name and columns.count(name) > 1]:
            raise DataError(f"{table} has two columns {quote(twice[0])}: rename one")
        reader.fieldnames = columns
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{table} is not valid CSV after line {reader.line_num}: {one_line(error)}"
        ) from error


def _read_json_lines(table: AnyPath, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number} is not JSON: {one_line(error)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{table}, line {number} is not a JSON object")
        yield number, row


def _check_columns(
    table: AnyPath, names: Sequence[str], files: str, columns: Sequence[str]
) -> None:
    """Raise ``DataError`` if the column of the files or that of the labels is missing."""
    for wanted, found in ((files, files in names), (LABEL_COLUMN, bool(columns))):
        if not found:
            raise DataError(
                f"{table} has no column {wanted!r}; its columns are "
                f"{', '.join(quote(name) for name in names[:10]) or 'none'}: rename one, or "
                "remove the table if folders are the classes"
            )


def _label_columns(columns: Iterable[str]) -> list[str]:
    """``label``, or without it all columns like ``label_species``, in order."""
    columns = [name for name in columns if isinstance(name, str)]
    if LABEL_COLUMN in columns:
        return [LABEL_COLUMN]
    return [name for name in columns if name.startswith(f"{LABEL_COLUMN}_")]


def _file_name(row: Mapping[Any, Any], column: str, where: str) -> str:
    name = row.get(column)
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no {column}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(f"{where}: {quote(name)} is not a path inside the folder of the table")
    return str(path)


def _label(row: Mapping[Any, Any], column: str, where: str) -> str:
    label = row.get(column)
    if type(label) is int or (type(label) is float and label.is_integer()):
        label = str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{where} has no {column}: write a class name or a whole number")
    return label.strip()
