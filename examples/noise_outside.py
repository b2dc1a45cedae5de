"""Background noise with and without convolutions, in pixels that are 0 in all MNIST images.

The notes in docs/notes.md report black and white noise around the digits of an MLP.
Needs MNIST in $CGAN_DATA. Run it:  python examples/noise_outside.py
"""

import sys

import matplotlib.pyplot as plt

import cgan
from cgan.storage.run_files import read_curves

SHARE = float((sys.argv[1:] or ["1"])[0])  # fraction of the budgets below
IMAGES = {"mnist-mlp": 200_000 * SHARE, "mnist-dcgan": 60_000 * SHARE}

fig, (left, *grids) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for axis, (name, images) in zip(grids, IMAGES.items(), strict=True):
    settings = {
        "images": int(images),
        "eval_every_images": max(int(images) // 12, 1),
        "control_per_class": 0,
    }
    run = cgan.train(cgan.load_config(name, settings), f"runs/noise-{name}")
    curve = read_curves(run.folder)["background_ink"]
    print(f"{name}: background mean {curve[0][1]:.4f} at first, {curve[-1][1]:.5f} at the end")
    left.plot([seen / images for seen, _ in curve], [ink for _, ink in curve], label=name)
    drawn = cgan.load(run.folder).sample(None, n=5)[:, 0]  # five of each class
    shown = drawn.view(10, 5, 28, 28)[:8].permute(1, 2, 0, 3).reshape(5 * 28, 8 * 28)
    axis.imshow(shown.sqrt().numpy(), cmap="gray")  # the square root makes faint noise visible
    axis.set(title=f"{name} (square root)", xticks=[], yticks=[])
left.set(xlabel="fraction of the budget", ylabel="mean background value", yscale="log")
left.legend()
plt.savefig("noise_outside.png", dpi=110)
print("noise_outside.png")
