"""Train a conditional GAN in a custom loop with cgan's networks, loss and penalty.

Run it:  python examples/own_loop.py
"""

import sys
from pathlib import Path

import torch

from cgan.data import Loader, load_pictures
from cgan.losses import discriminator_hinge, generator_hinge
from cgan.models import build_pair
from cgan.penalties import r1
from cgan.storage.images import make_grid, save_png, to_pixels, to_unit

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_500

digits = load_pictures("digits")
G, D = build_pair("dcgan", image_shape=digits.image_shape, num_classes=10, generator_label="concat")
opt_G = torch.optim.Adam(G.parameters(), 1e-3, (0.0, 0.99))
opt_D = torch.optim.Adam(D.parameters(), 1e-3, (0.0, 0.99))

batches = Loader(digits, batch_size=64).batches()
for step, (real, labels) in zip(range(STEPS), batches, strict=False):
    real.requires_grad_()
    fake = G(torch.randn(64, 64), labels)

    real_logits = D(real, labels)
    loss_D = discriminator_hinge(real=real_logits, fake=D(fake.detach(), labels))
    opt_D.zero_grad()
    (loss_D + 0.1 * r1(real_logits, real)).mean().backward()
    opt_D.step()

    loss_G = generator_hinge(fake=D(fake, labels)).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    if step % 300 == 0:
        print(f"step {step:5}  loss G {loss_G:.3f}  D {loss_D.mean():.3f}")

with torch.no_grad():
    drawn = G.eval()(torch.randn(80, 64), torch.arange(10).repeat_interleave(8))
print(save_png(make_grid(to_pixels(to_unit(drawn)), columns=8, scale=6), Path("own_loop.png")))
