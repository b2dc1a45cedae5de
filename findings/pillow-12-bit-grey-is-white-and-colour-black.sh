#!/usr/bin/env bash
# A scene of 12 bits, as scientific cameras store it in PNG files of 16: as a grey file it becomes a
# white image, as a colour file a black one, both with the usual Image.open(file).convert("RGB") of
# data loaders. Pillow clips grey values at 255, and of colours it keeps the upper 8 of 16 bits. Grey
# files open in a mode of 16 bits, so a program can scale them itself. Colour files open as plain RGB:
# neither the mode nor an exception tells that the lower bits are gone, only the raw mode in
# `Image.tile` before the file is loaded.
# Seen with Pillow 13.0.0 and numpy 2.4.0 on Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

GREY, COLOUR = 0, 2
print("Pillow", PIL.__version__)


def write_png(path, pixels, kind):
    """A PNG file of 16 bits; Pillow itself writes none in colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data)
            file.write(struct.pack(">I", zlib.crc32(name + data)))


scene = np.linspace(256, 4_095, 64).round().astype(np.uint16).reshape(8, 8)  # 12 bits
write_png("grey.png", scene, GREY)
write_png("colour.png", np.stack([scene] * 3, -1), COLOUR)
seen = {}
for name in ("grey", "colour"):
    with Image.open(f"{name}.png") as image:
        raw = image.tile[0][3]
        values = np.asarray(image.convert("RGB"))
        seen[name] = (image.mode, str(raw), int(values.min()), int(values.max()))
    print(f"{name:6}: mode {seen[name][0]}, raw mode {seen[name][1]}, as RGB from "
          f"{seen[name][2]} to {seen[name][3]}")
print(f"right would be about {256 * 255 // 4_095} to 255 for both")
assert seen["grey"] == ("I;16", "I;16B", 255, 255), seen
assert seen["colour"] == ("RGB", "RGB;16B", 1, 15), seen
PY
