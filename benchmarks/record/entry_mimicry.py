"""torch-mimicry 0.1.16: its residual cGAN-PD pair for 32×32 and its Trainer, both half as wide.

Patched to run: stubs of TensorFlow, which it imports for Inception scores, and of a module that
torch no longer has.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import torch
from entry import Snapshots, mnist_loader, parse, to_digits

for missing in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1", "torch._six"):
    sys.modules[missing] = MagicMock(__spec__=ModuleSpec(missing, None))

from torch_mimicry.nets.cgan_pd import CGANPDDiscriminator32, CGANPDGenerator32
from torch_mimicry.training import Trainer


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    G = CGANPDGenerator32(num_classes=10, ngf=64)
    D = CGANPDDiscriminator32(num_classes=10, ndf=64)

    @torch.no_grad()
    def draw(labels):
        G.eval()
        images = to_digits(G(torch.randn(len(labels), G.nz), torch.from_numpy(labels)))
        G.train()
        return images

    loader = mnist_loader(options, batch_size=64, channels=3, low=-1)
    adam = {"lr": 2e-4, "betas": (0.0, 0.9)}
    Trainer(
        netD=D, netG=G, optD=torch.optim.Adam(D.parameters(), **adam),
        optG=torch.optim.Adam(G.parameters(), **adam),
        dataloader=Snapshots(options, draw).watch(loader), num_steps=1_000_000, n_dis=1,
        log_dir=tempfile.mkdtemp(), device=torch.device("cpu"), print_steps=1_000_000,
        log_steps=1_000_000, vis_steps=1_000_000, save_steps=1_000_000,
    ).train()  # fmt: skip


if __name__ == "__main__":
    main()
