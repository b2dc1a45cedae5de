"""A baseline: the same networks in a training loop as in tutorials.

It uses a DataLoader with a transform per image, label concatenation in both networks, binary
cross-entropy, Adam with learning rate 2e-4 and betas (0.5, 0.999), and a batch size of 64. Each
step runs G once and reads both losses.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

import cgan
from cgan.evaluation.judge import Judge

BATCH = 64


class Textbook:
    """The networks of a backbone for the images of a loader; without one, for MNIST."""

    def __init__(
        self, backbone: str, data_dir: str, device: torch.device, loader: DataLoader | None = None
    ) -> None:
        self.device = device
        self.loader = loader or mnist_loader(data_dir)
        image, _ = self.loader.dataset[0]
        self.generator, self.discriminator = (
            network.to(device)
            for network in cgan.build_pair(
                backbone,
                image_shape=tuple(image.shape),
                num_classes=len(self.loader.dataset.classes),
                generator_label="concat",
                discriminator_label="concat",
            )
        )
        self.loss = nn.BCEWithLogitsLoss()
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]

    def step(self, real: torch.Tensor, labels: torch.Tensor) -> None:
        real, labels = real.to(self.device), labels.to(self.device)
        valid = torch.ones(len(real), device=self.device)
        of_g, of_d = self.optimizers

        of_g.zero_grad()
        z = torch.randn(len(real), 64, device=self.device)
        fake = self.generator(z, labels)
        loss_g = self.loss(self.discriminator(fake, labels), valid)
        loss_g.backward()
        of_g.step()

        of_d.zero_grad()
        loss_real = self.loss(self.discriminator(real, labels), valid)
        loss_fake = self.loss(self.discriminator(fake.detach(), labels), 1 - valid)
        loss_d = (loss_real + loss_fake) / 2
        loss_d.backward()
        of_d.step()
        self.last = loss_g.item(), loss_d.item()

    def train(self, seconds: float) -> float:
        """Images per second over ``seconds`` seconds, after a warm-up of a tenth of that time."""
        seen, began, end = 0, 0.0, time.perf_counter() + 1.1 * seconds
        while time.perf_counter() < end:
            for real, labels in self.loader:
                self.step(real, labels)
                now = time.perf_counter()
                if not began and now > end - seconds:
                    began, seen = now, 0
                seen += len(real)
                if now >= end:
                    break
        return (seen - BATCH) / (time.perf_counter() - began)

    @torch.no_grad()
    def control(self, judge: Judge, per_class: int = 200) -> float:
        """Control accuracy: fraction of images that the judge assigns to the requested class."""
        self.generator.eval()
        labels = torch.arange(10 * per_class, device=self.device) % 10
        z = torch.randn(len(labels), 64, device=self.device)
        named = judge.classify(((self.generator(z, labels) + 1) / 2).cpu())
        self.generator.train()
        return float((named.cpu() == labels.cpu()).float().mean())


def mnist_loader(data_dir: str) -> DataLoader:
    """MNIST's training images, with a transform per image."""
    to_signed = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    return DataLoader(MNIST(data_dir, transform=to_signed), BATCH, shuffle=True, drop_last=True)
