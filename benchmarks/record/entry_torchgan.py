"""torchgan 0.1.0 as installed: its ConditionalGAN pair, least-squares losses and Trainer.

Nothing is patched. Its networks need a side that is a power of two: the digits get a border.
"""

from __future__ import annotations

import os
import tempfile

import torch
from entry import Snapshots, mnist_loader, parse, to_digits

os.environ |= {"CONSOLE_LOGGING": "0", "TENSORBOARD_LOGGING": "0", "VISDOM_LOGGING": "0"}

from torchgan.losses import LeastSquaresDiscriminatorLoss, LeastSquaresGeneratorLoss
from torchgan.models import ConditionalGANDiscriminator, ConditionalGANGenerator
from torchgan.trainer import Trainer


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    adam = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
    networks = {
        "generator": {
            "name": ConditionalGANGenerator,
            "args": {"num_classes": 10, "out_channels": 1, "step_channels": 32},
            "optimizer": adam,
        },
        "discriminator": {
            "name": ConditionalGANDiscriminator,
            "args": {"num_classes": 10, "in_channels": 1, "step_channels": 32},
            "optimizer": adam,
        },
    }
    folder = tempfile.mkdtemp()
    trainer = Trainer(
        networks, [LeastSquaresGeneratorLoss(), LeastSquaresDiscriminatorLoss()],
        device=torch.device("cpu"), epochs=1_000, sample_size=64,
        checkpoints=f"{folder}/gan", recon=f"{folder}/images",
    )  # fmt: skip

    @torch.no_grad()
    def draw(labels):
        trainer.generator.eval()
        z = torch.randn(len(labels), trainer.generator.encoding_dims)
        images = to_digits(trainer.generator(z, torch.from_numpy(labels)))
        trainer.generator.train()
        return images

    loader = mnist_loader(options, batch_size=64, channels=1, low=-1)
    trainer(Snapshots(options, draw).watch(loader))


if __name__ == "__main__":
    main()
