"""Read the metadata of an ONNX file without a parser of ONNX, so that its hash is compared first.

An ONNX file is one protobuf message, ModelProto: a sequence of fields, each a tag and a value. Only
these outermost fields are read here. ``metadata_props`` holds a key and a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

METADATA_PROPS = 14
"""Number of the field ``metadata_props`` of ModelProto."""
KEY, VALUE = 1, 2
"""Numbers of the two fields of a metadata entry."""

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
"""Protobuf's wire types."""


def split_metadata(content: bytes) -> tuple[bytes, str]:
    """The metadata entry ``cgan`` of an ONNX file, and the SHA-256 of all other bytes.

    Raises:
        ValueError: it is not a protobuf message with this metadata entry and no other.
    """
    entries: list[dict[int, bytes]] = []
    network, start = sha256(), 0
    message = memoryview(content)
    for number, value, end in _fields(message):
        if number == METADATA_PROPS:
            entries.append({inner: bytes(text) for inner, text, _ in _fields(value)})
        else:
            network.update(message[start:end])
        start = end
    if len(entries) != 1 or entries[0].get(KEY) != b"cgan" or VALUE not in entries[0]:
        raise ValueError("it has no metadata of cgan, or other metadata too")
    return entries[0][VALUE], network.hexdigest()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, int]]:
    """Number, value and end of each field; the value is empty if it is a number.

    Raises:
        ValueError: a field is invalid or longer than the message.
    """
    end = 0
    while end < len(message):
        tag, start = _varint(message, end)
        number, kind = tag >> 3, tag & 7
        length = 0
        if kind == VARINT:
            _, end = _varint(message, start)
        elif kind == LENGTH_DELIMITED:
            length, start = _varint(message, start)
            end = start + length
        elif kind in (FIXED_32, FIXED_64):
            end = start + (4 if kind == FIXED_32 else 8)
        else:
            raise ValueError(f"a protobuf field has the unknown wire type {kind}")
        if end > len(message):
            raise ValueError("a protobuf field is longer than the file")
        yield number, message[start : start + length], end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, 7 bits at a time, and its end."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), message[at:], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError("a protobuf number has no end")
