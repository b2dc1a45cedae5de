"""Train on the bundled digits and generate classes by name.

Run it:  python examples/train_and_sample.py
"""

import sys
from pathlib import Path

import cgan
from cgan.storage.images import make_grid, save_png, to_pixels

IMAGES = sys.argv[1] if len(sys.argv) > 1 else "100k"

run = cgan.train(cgan.load_config("digits-mlp", {"images": IMAGES}), progress=True)
sampler = cgan.load(run.folder)

sevens = sampler.sample("7", n=16, seed=0)  # (16, 1, 8, 8) in [0, 1]
mixed = sampler.sample(["4", "2"], n=8, seed=3)  # eight fours, then eight twos
again = sampler.sample("7", n=1, seed=5)  # the sixth of the sevens above
print("the same image:", bool((to_pixels(again[0]) == to_pixels(sevens[5])).all()))

pixels = to_pixels(mixed)
print(save_png(make_grid(pixels, columns=8, scale=6), Path("fours-and-twos.png")))
if run.control is not None:
    print(f"control accuracy: {100 * run.control.accuracy:.1f} %")
