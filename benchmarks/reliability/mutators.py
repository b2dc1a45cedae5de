"""Change a valid file: bits, blocks, and values in the structure of each format.

All changes come from a ``random.Random``, so that a seed reproduces them.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

Mutator = Callable[[Random, bytes], bytes]

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 2**31, 2**32, 2**53, 2**63, -(2**63), 2**64, 10**30,
    10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "a", "0", "\0", "a\nb", "é" * 3_000,
    "../../x",
    "/etc/passwd", "-1", "1e9", [], {}, [[]], [None], [0], [-1, 2**40], {"": ""}, {"a": {"b": []}},
    ["a"] * 1_000, list(range(300)), "cpu", "cuda:9", "F64", "BOOL", "cgan-state",
)  # fmt: skip
ODD_BYTES = (b"", b"\0", b"\xff", b"\x00" * 64, b"\xff" * 64, b"[" * 100_000, b'{"a":' * 5_000)

ODD_YAML = (
    "a: &a [*a]\n",
    "name: &a [x, x]\nb: &b [*a, *a]\n"
    + "".join(f"{chr(c)}: &{chr(c)} [*{chr(c - 1)}, *{chr(c - 1)}]\n" for c in range(99, 123)),
    "!!python/object/apply:os.system [touch executed]\n",
    "name: !!python/name:os.system\n",
    "? [a, b]\n: c\n",
    "? {a: b}\n: c\n",
    "<<: [1, 2]\n",
    "name: 2001-01-01\nlr: 12:30:45\nimages: 0x10\n",
    "images: !!binary aGVsbG8=\n",
    "data: !!set {source}\n",
    "--- a\n--- b\n",
    "images: 1" + "0" * 5_000 + "\n",
    "%YAML 9.9\n---\nname: x\n",
    "[" * 3_000,
    "a: " * 1_000,
    "\ufeffname: x\n",
    "name: x\0y\n",
)


def mutate_bytes(random: Random, content: bytes) -> bytes:
    """One to three of: flip bits, cut, remove, repeat, swap or insert blocks."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice(_BYTE_CHANGES)(random, bytearray(content))
    return bytes(content)


def _flip(random: Random, content: bytearray) -> bytes:
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if content:
            content[_position(random, content)] ^= 1 << random.randrange(8)
    return bytes(content)


def _set_byte(random: Random, content: bytearray) -> bytes:
    if content:
        content[_position(random, content)] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(content)


def _cut(random: Random, content: bytearray) -> bytes:
    return bytes(content[: _position(random, content)])


def _remove(random: Random, content: bytearray) -> bytes:
    start = _position(random, content)
    return bytes(content[:start] + content[start + random.choice((1, 4, 8, 64, 512)) :])


def _insert(random: Random, content: bytearray) -> bytes:
    start = _position(random, content)
    block = random.choice((*ODD_BYTES, random.randbytes(8), bytes(content[start : start + 64])))
    return bytes(content[:start] + block + content[start:])


def _swap(random: Random, content: bytearray) -> bytes:
    one, other = sorted((_position(random, content), _position(random, content)))
    length = min(random.choice((1, 8, 64)), other - one)
    first, second = content[one : one + length], content[other : other + length]
    content[one : one + length], content[other : other + length] = second, first
    return bytes(content)


_BYTE_CHANGES = (_flip, _set_byte, _cut, _remove, _insert, _swap)


def _position(random: Random, content: bytearray) -> int:
    """Any position, more often one of the first 512 bytes, where the headers are."""
    end = len(content) if random.random() < 0.5 else min(len(content), 512)
    return random.randrange(end) if end else 0


def mutate_tree(random: Random, tree: Any) -> Any:
    """Change one to three values, keys or items of nested dicts and lists."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = [(tree, key) for key in _keys(tree)]
        for inside, key in places:  # it grows: a place for every nested value
            places += [(inside[key], inner) for inner in _keys(inside[key])]
        if not places:
            return random.choice(ODD_VALUES)
        _change(random, *random.choice(places))
    return tree


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def _change(random: Random, inside: Any, key: Any) -> None:
    value = inside[key]
    what = random.randrange(6)
    if what == 0:
        del inside[key]
    elif what == 1 and isinstance(inside, dict):
        inside[str(random.choice(ODD_VALUES))[:50]] = inside.pop(key)
    elif what == 2 and isinstance(inside, list):
        inside.insert(key, value)
    elif what == 3 and isinstance(value, int | float):
        inside[key] = random.choice((value + 1, value - 1, -value, 2 * value, value * 10**9))
    elif what == 4 and isinstance(value, str):
        at = random.randint(0, len(value))
        inside[key] = value[:at] + random.choice(("\0", "x", "/", "\n", "é", "{{", "\u202e"))
    else:
        inside[key] = random.choice(ODD_VALUES)


def mutate_safetensors(random: Random, content: bytes) -> bytes:
    """Bytes, the header of safetensors (shapes, offsets, types), or our own header in it."""
    where = random.randrange(3)
    if where == 0:
        return mutate_bytes(random, content)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if where == 1:
        header = mutate_tree(random, header)
    else:
        own = mutate_tree(random, json.loads(header["__metadata__"]["cgan"]))
        header["__metadata__"]["cgan"] = json.dumps(own)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


def mutate_json(random: Random, content: bytes) -> bytes:
    """Bytes, or values of one JSON text."""
    if random.random() < 0.4:
        return mutate_bytes(random, content)
    return json.dumps(mutate_tree(random, json.loads(content))).encode()


def mutate_lines(random: Random, content: bytes) -> bytes:
    """Bytes, or values of one of several lines of JSON."""
    if random.random() < 0.3:
        return mutate_bytes(random, content)
    lines = content.splitlines()
    at = random.randrange(len(lines))
    lines[at] = json.dumps(mutate_tree(random, json.loads(lines[at]))).encode()
    return b"\n".join(lines) + b"\n"


def mutate_yaml(random: Random, content: bytes) -> bytes:
    """Bytes, values, or a text that means trouble to a YAML reader."""
    where = random.randrange(4)
    if where == 0:
        return mutate_bytes(random, content)
    if where == 1:
        return mutate_bytes(random, random.choice(ODD_YAML).encode()) + content
    if where == 2:
        return random.choice(ODD_YAML).encode() + (content if random.random() < 0.5 else b"")
    return yaml.safe_dump(mutate_tree(random, yaml.safe_load(content))).encode()


def mutate_picture(random: Random, content: bytes) -> bytes:
    """Bytes; in a PNG also one chunk, with a right checksum."""
    if not content.startswith(b"\x89PNG") or random.random() < 0.4:
        return mutate_bytes(random, content)
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index = random.randrange(len(chunks))
    kind, body = chunks[index]
    if kind == b"IHDR" and random.random() < 0.7:
        size = random.choice((0, 1, 7, 2**14, 2**16, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
        body = size + body[4:] if random.random() < 0.5 else body[:4] + size + body[8:]
    elif random.random() < 0.2:
        chunks.insert(index, chunks[random.randrange(len(chunks))])
    else:
        kind = random.choice(
            (kind, kind, kind, b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"acTL")
        )
        body = mutate_bytes(random, body)
    chunks[index] = (kind, body)
    return content[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )


def mutate_onnx(random: Random, content: bytes) -> bytes:
    """Bytes, or the nodes, weights and metadata of the network."""
    import onnx

    where = random.randrange(6)
    model = onnx.load_from_string(content)
    graph = model.graph
    node, weight = random.choice(graph.node), random.choice(graph.initializer)
    if where == 0:
        return mutate_bytes(random, content)
    if where == 1:
        (entry,) = [entry for entry in model.metadata_props if entry.key == "cgan"]
        entry.value = json.dumps(mutate_tree(random, json.loads(entry.value)))
    elif where == 2:
        node.op_type = random.choice(("Relu", "Conv", "Loop", "If", "Reshape", "Resize", "Nothing"))
    elif where == 3:
        node.input[:] = random.sample(list(node.input), len(node.input))[random.randrange(2) :]
    elif where == 4:
        weight.dims[:] = [random.choice((-1, 0, 1, 3, 2**20, 2**40)) for _ in weight.dims]
    else:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=random.choice(("../x", "/etc/passwd", "x")))
    changed: bytes = model.SerializeToString()
    return changed
