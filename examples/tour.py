# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of cgan
#
# Train a conditional GAN on real digits, choose what it draws, and measure whether it obeys. It takes
# about a minute on two cores, and downloads nothing.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import cgan
from cgan.evaluation.judge import Judge
from cgan.storage.images import make_grid, to_pixels

IMAGES = os.environ.get("CGAN_TOUR_IMAGES", "160k")  # real images that D sees


def show(images, columns=8, scale=4):
    """Images (N, C, H, W) in [0, 1] as one picture."""
    grid = make_grid(to_pixels(images), columns, scale)
    return Image.fromarray(grid.transpose(1, 2, 0).squeeze())


# %% [markdown]
# ## Train
#
# `digits-mlp` trains on the 8×8 digits that come with scikit-learn.

# %%
run = cgan.train(cgan.load_config("digits-mlp", {"images": IMAGES}), progress=True)
run

# %% [markdown]
# ## Choose
#
# A sampler shows itself: one row per class. An image is a function of generator, class and seed.

# %%
sampler = cgan.load(run.folder)
sampler

# %%
sevens = sampler.sample("7", n=16, seed=0)  # (16, 1, 8, 8) in [0, 1]
show(sevens)

# %% [markdown]
# ## Verify
#
# A judge, a classifier of real images, checks each image. Images that it assigns to another class are
# drawn again.

# %%
judge = Judge.load(run.folder / "judge.safetensors")
show(sampler.sample(["4", "9"], n=8, verify=judge))

# %% [markdown]
# ## Mix and walk

# %%
show(sampler.sample(n=8, mix={"3": 0.5, "8": 0.5}))

# %%
show(cgan.walk(sampler, "3", "8", frames=16))

# %% [markdown]
# ## Evaluate
#
# Each figure stands beside that of real images, and that of chance.

# %%
cgan.evaluate(sampler, per_class=100)

# %% [markdown]
# ## Your own pictures
#
# A folder with one subfolder per class is enough. Here they are circles and squares.

# %%
random = np.random.default_rng(0)
for name in ("circle", "square"):
    Path("shapes", name).mkdir(parents=True, exist_ok=True)
    for index in range(40):
        picture = Image.new("RGB", (16, 16))
        x, y, size = random.integers(1, 5), random.integers(1, 5), random.integers(8, 11)
        colour = tuple(int(level) for level in random.integers(100, 256, 3))
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if name == "circle" else draw.rectangle)((x, y, x + size, y + size), colour)
        picture.save(f"shapes/{name}/{index}.png")

options = {"data.source": "shapes", "images": "20k" if IMAGES == "160k" else "1k"}
shapes = cgan.train(cgan.load_config("folder-dcgan", {**options, "control_per_class": 0}))
show(cgan.load(shapes.folder).sample(["circle", "square"], n=8))

# %% [markdown]
# ## The parts, in a loop of your own
#
# Networks, losses, penalties and augmentations work without the rest of cgan.

# %%
G, D = cgan.build_pair("mlp", image_shape=(1, 8, 8), num_classes=10, width=64)
opt_G = torch.optim.Adam(G.parameters(), 1e-3, (0.0, 0.99))
opt_D = torch.optim.Adam(D.parameters(), 1e-3, (0.0, 0.99))
digits = cgan.load_pictures("digits")
batches = cgan.data.Loader(digits, batch_size=64).batches()
for _, (real, labels) in zip(range(100), batches, strict=False):
    real.requires_grad_()
    fake, real_logits = G(torch.randn(64, 64), labels), D(real, labels)
    loss_D = cgan.losses.discriminator_hinge(real=real_logits, fake=D(fake.detach(), labels))
    opt_D.zero_grad()
    (loss_D + 0.1 * cgan.penalties.r1(real_logits, real)).mean().backward()
    opt_D.step()
    loss_G = cgan.losses.generator_hinge(fake=D(fake, labels)).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
print(f"loss of G: {loss_G:.2f}")

# %% [markdown]
# ## Share
#
# A page that draws in any browser, without a server. `cgan push` publishes it on the Hugging Face Hub.

# %%
from cgan.sharing.page import export_page

export_page(run.folder, Path("draw.html"))
