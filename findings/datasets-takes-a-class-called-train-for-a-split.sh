#!/usr/bin/env bash
# One folder of images per class is the layout of datasets' imagefolder builder. If classes are called
# like splits (COCO and CIFAR-100 have a class "train"; a data set on exams may have "test"),
# load_dataset takes those folders for splits: it leaves out all other classes and gives no label,
# without a word. A card that lists the files brings everything back. Seen with datasets 5.2.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow==12.0.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$folder/cache" "$folder/venv/bin/python" - <<'PY'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
CARD = '---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "*/*.png"\n---\n'


def load(name, classes, card=""):
    root = Path(name)
    for number, label in enumerate(classes):
        (root / label).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (40 * number, 60 * index, 0)).save(root / label / f"{index}.png")
    if card:
        (root / "README.md").write_text(card)
    return datasets.load_dataset(str(root.resolve()))


print("datasets", datasets.__version__)
for name, classes, card in (
    ("usual", ("bicycle", "bus", "tram"), ""),
    ("vehicles", ("bicycle", "bus", "train"), ""),
    ("with-card", ("bicycle", "bus", "train"), CARD),
):
    found = load(name, classes, card)
    rows = sum(len(split) for split in found.values())
    labels = getattr(found["train"].features.get("label"), "names", None)
    first = found["train"][0].get("label")
    print(f"{name}: 12 images of {classes} are {rows} rows; classes {labels}, first label {first}")
    if name == "vehicles":
        assert rows == 4 and first is None, "the surprise is gone"
    else:
        assert rows == 12 and labels == list(classes) and first == 0
PY
