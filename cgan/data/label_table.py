"""Tables of labels beside images: ``labels.csv``, ``metadata.csv`` and ``metadata.jsonl``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from cgan.attributes import join_values
from cgan.data.archive import AnyPath
from cgan.errors import DataError, one_line, quote
from cgan.storage.safe_reading import MAX_CLASS_NAME

TABLES = ("labels.csv", "metadata.csv", "metadata.jsonl")
FILE_COLUMN, LABEL_COLUMN = "file_name", "label"
"""The names of Hugging Face's ImageFolder. In place of ``label`` there may be several columns like
``label_species``, one per attribute."""
MAX_BYTES = 2**26
"""A larger table is not read."""


def read_labels(table: AnyPath) -> dict[str, tuple[str, ...]]:
    """The values of each file, one per attribute, by its path relative to the table.

    Raises:
        DataError: the table cannot be read, lacks a column, names a file twice or outside its
            folder, or its labels are not classes.
    """
    labels: dict[str, tuple[str, ...]] = {}
    columns: list[str] = []
    for number, row in _read_rows(table):
        where = f"{table}, line {number}"
        columns = columns or _label_columns(row)
        name = _file_name(row, where)
        label = tuple(_label(row, column, where) for column in columns)
        if (length := len(join_values(label))) > MAX_CLASS_NAME:
            raise DataError(
                f"{where} has a label of {length:,} characters, and the limit is {MAX_CLASS_NAME}"
            )
        if name in labels:
            raise DataError(f"{where} names {quote(name)} a second time: remove one of the lines")
        labels[name] = label
    if not labels:
        raise DataError(f"{table} has no rows")
    if len(labels) > 2 and len(set(labels.values())) == len(labels):
        raise DataError(
            f"{table} gives each of its {len(labels):,} files another label, so "
            f"the column {' and '.join(map(quote, columns))} is not a class: put the class into it"
        )
    return labels


def _read_rows(table: AnyPath) -> Iterator[tuple[int, Mapping[str, Any]]]:
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
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(table, reader.fieldnames or [])
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{table} is not valid CSV after line {reader.line_num}: {one_line(error)}"
        ) from error


def _read_json_lines(table: AnyPath, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    checked = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number} is not JSON: {one_line(error)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{table}, line {number} is not a JSON object")
        if not checked:
            _check_columns(table, list(row))
            checked = True
        yield number, row


def _check_columns(table: AnyPath, columns: Sequence[str]) -> None:
    for wanted in (FILE_COLUMN, LABEL_COLUMN):
        if wanted not in columns and not (wanted == LABEL_COLUMN and _label_columns(columns)):
            raise DataError(
                f"{table} has no column {wanted!r}; its columns are "
                f"{', '.join(quote(name) for name in columns[:10]) or 'none'}: rename one, or "
                "remove the table if folders are the classes"
            )


def label_columns(table: AnyPath) -> list[str]:
    """The columns that hold the labels of a table; raises ``DataError`` like ``read_labels``."""
    for _, row in _read_rows(table):
        return _label_columns(row)
    return []


def _label_columns(columns: Iterable[str]) -> list[str]:
    """``label``, or without it all columns like ``label_species``, in order."""
    columns = [name for name in columns if isinstance(name, str)]
    if LABEL_COLUMN in columns:
        return [LABEL_COLUMN]
    return [name for name in columns if name.startswith(f"{LABEL_COLUMN}_")]


def _file_name(row: Mapping[str, Any], where: str) -> str:
    name = row.get(FILE_COLUMN)
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no {FILE_COLUMN}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(f"{where}: {quote(name)} is not a path inside the folder of the table")
    return str(path)


def _label(row: Mapping[str, Any], column: str, where: str) -> str:
    label = row.get(column)
    if type(label) is int:
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{where} has no {column}: write a class name or a whole number")
    return label.strip()
