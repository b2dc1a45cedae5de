"""Train a conditional GAN in a loop of your own, with cgan's networks, loss, penalty and update.

Run it:  python examples/own_loop.py
"""

import sys
from pathlib import Path

import torch

from cgan.data import Loader, load_pictures
from cgan.losses import get_loss
from cgan.models import build_pair
from cgan.storage.images import make_grid, save_png, to_pixels, to_unit
from cgan.updates import GAN, PenaltyWeights, simultaneous

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_500

digits = load_pictures("digits")
G, D = build_pair(
    "dcgan", image_shape=digits.image_shape, discriminator_label="projection+auxiliary"
)
optimizers = [torch.optim.Adam(network.parameters(), 1e-3, (0.0, 0.99)) for network in (G, D)]
gan = GAN(G, D, *optimizers, get_loss("hinge"))

batches = Loader(digits, batch_size=64).batches()
for step, (real, labels) in zip(range(STEPS), batches, strict=False):
    losses = simultaneous(gan, real, labels, lambda: torch.randn(64, 64), PenaltyWeights(r1=0.1))
    if step % 300 == 0:
        print(f"step {step:5}", {name: round(float(value), 3) for name, value in losses.items()})

with torch.no_grad():
    drawn = G.eval()(torch.randn(80, 64), torch.arange(10).repeat_interleave(8))
print(save_png(make_grid(to_pixels(to_unit(drawn)), columns=8, scale=6), Path("own_loop.png")))
