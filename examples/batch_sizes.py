"""Batch size 64 against 10,000, equal epochs: the large batch gives 156 times fewer updates.

The notes in docs/notes.md used a batch size of 10,000 by mistake, and the GAN did not learn.
Needs MNIST in $CGAN_DATA. Run it:  python examples/batch_sizes.py
"""

import sys

import matplotlib.pyplot as plt

import cgan
from cgan.storage.run_files import read_curves

EPOCHS, PICTURES = float((sys.argv[1:] or ["3"])[0]), 60_000

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for batch, lr in ((64, 1e-3), (10_000, 1e-3), (10_000, 4e-3)):
    settings = {
        "images": int(EPOCHS * PICTURES),
        "batch_size": batch,
        "lr": lr,
        "eval_every_images": max(int(EPOCHS * PICTURES) // 10, 1),
        "control_per_class": 0,
    }
    run = cgan.train(cgan.load_config("mnist-mlp", settings), f"runs/batch-{batch}-lr-{lr:g}")
    curve = [(0, 0.1), *read_curves(run.folder)["control_accuracy"]]
    name = f"batch {batch:,}, learning rate {lr:g}"
    print(f"{name}: {run.images_seen // batch:,} updates, control accuracy {curve[-1][1]:.1%}")
    left.plot([seen / PICTURES for seen, _ in curve], [share for _, share in curve], label=name)
    right.plot([seen / batch for seen, _ in curve], [share for _, share in curve], label=name)
left.set(xlabel="epochs", ylabel="control accuracy", ylim=(0, 1))
right.set(xlabel="updates", xscale="symlog", ylim=(0, 1))
left.legend()
plt.savefig("batch_sizes.png", dpi=110)
print("batch_sizes.png")
