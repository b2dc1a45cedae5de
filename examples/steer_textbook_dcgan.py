"""Give class control over a plain DCGAN of other code: the networks and the loop of a tutorial.

Run it:  python examples/steer_textbook_dcgan.py
"""

import sys

import torch
from torch import nn

import cgan
from cgan.data import Loader, load_pictures

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
DATA = sys.argv[2] if len(sys.argv) > 2 else "digits"  # or mnist
LATENT_DIM = 100

data = load_pictures(DATA)
base = data.image_shape[1] // 4


def up(inputs: int, outputs: int, *shape: int) -> nn.Sequential:
    """A transposed convolution, batch norm and ReLU."""
    convolution = nn.ConvTranspose2d(inputs, outputs, *shape, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


# z is (B, 100, 1, 1), as in PyTorch's DCGAN tutorial, and there are no labels.
G = nn.Sequential(
    up(LATENT_DIM, 128, base, 1, 0),
    up(128, 64, 4, 2, 1),
    nn.ConvTranspose2d(64, 1, 4, 2, 1),
    nn.Tanh(),
)
D = nn.Sequential(
    nn.Conv2d(1, 64, 4, 2, 1),
    nn.LeakyReLU(0.2),
    nn.Conv2d(64, 128, 4, 2, 1, bias=False),
    nn.BatchNorm2d(128),
    nn.LeakyReLU(0.2),
    nn.Conv2d(128, 1, base, 1, 0),
    nn.Flatten(0),
)
opt_G = torch.optim.Adam(G.parameters(), 2e-4, (0.5, 0.999))
opt_D = torch.optim.Adam(D.parameters(), 2e-4, (0.5, 0.999))
loss, ones, zeros = nn.BCEWithLogitsLoss(), torch.ones(64), torch.zeros(64)

for _, (real, _) in zip(range(STEPS), Loader(data, batch_size=64).batches(), strict=False):
    fake = G(torch.randn(64, LATENT_DIM, 1, 1))
    opt_D.zero_grad()
    (loss(D(real), ones) + loss(D(fake.detach()), zeros)).backward()
    opt_D.step()
    opt_G.zero_grad()
    loss(D(fake), ones).backward()
    opt_G.step()

run = cgan.steer(cgan.wrap(G, LATENT_DIM), DATA, overrides={"images": 20 * STEPS})
print(f"control accuracy {run.control.accuracy:.1%}:  cgan generate {run.folder} --digit 7")
