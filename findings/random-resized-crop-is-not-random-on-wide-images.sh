#!/usr/bin/env bash
# torchvision's RandomResizedCrop draws an area and an aspect, and tries ten times whether that crop
# fits. If none fits it takes one central crop, always the same, and says nothing. The aspect is that
# of pixels, 3/4 to 4/3, whatever the shape of the image: of images that are three times as wide as
# high no crop of half of the area fits, so the augmentation is a constant zoom to the middle.
# Seen with torchvision 0.29.2, v2 transforms. Aspects in units of the image's own, ratio=(0.75 w / h,
# 4 w / 3 h), give random crops.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 torchvision==0.29.2 numpy==2.4.0
"$folder/venv/bin/python" - <<'PY'
import torch
import torchvision
from torchvision.transforms import v2

torch.manual_seed(0)
print("torchvision", torchvision.__version__)
for height, width, ratio, expected in (
    (64, 64, (3 / 4, 4 / 3), None),
    (32, 96, (3 / 4, 4 / 3), 1),
    (32, 96, (3 / 4 * 3, 4 / 3 * 3), None),
):
    image = torch.rand(1, height, width)
    crop = v2.RandomResizedCrop((height, width), scale=(0.5, 1.0), ratio=ratio)
    different = len({crop(image).numpy().tobytes() for _ in range(100)})
    print(f"{width}×{height}, aspects {ratio[0]:.2f} to {ratio[1]:.2f}: {different} of 100 crops differ")
    if expected:
        assert different == expected, "crops of wide images are random now"
    else:
        assert different > 90
PY
