"""vegans 0.4.0, installed without its pins: ConditionalVanillaGAN with its networks for MNIST.

Patched to run: iterators with the method ``next``. Its loader downloads from a server that is gone;
the data is MNIST with the border that it adds.
"""

from __future__ import annotations

import numpy as np
import torch
from entry import Snapshots, mnist_loader, parse, to_digits
from vegans.GAN import ConditionalVanillaGAN
from vegans.utils.loading import architectures


class Iterator:
    """With the method ``next``, which torch's had when vegans was written."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.inner)

    next = __next__


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    shape = (1, 32, 32)
    gan = ConditionalVanillaGAN(
        generator=architectures.load_mnist_generator(x_dim=shape, z_dim=32, y_dim=10),
        adversary=architectures.load_mnist_adversary(
            x_dim=shape, y_dim=10, adv_type="Discriminator"
        ),
        z_dim=32, x_dim=shape, y_dim=10, folder=None, device="cpu",
        optim={"Generator": torch.optim.Adam, "Adversary": torch.optim.Adam},
        optim_kwargs={"Generator": {"lr": 2e-4}, "Adversary": {"lr": 1e-4}},
    )  # fmt: skip
    one_hot = torch.eye(10)

    @torch.no_grad()
    def draw(labels):
        gan.generator.eval()
        y = one_hot[torch.from_numpy(labels)]
        images = gan.generate(y=y, z=torch.randn(len(labels), 32))
        gan.generator.train()
        return to_digits(2 * torch.as_tensor(np.asarray(images)) - 1)

    loader = mnist_loader(options, batch_size=64, channels=1, low=0)
    loader.dataset.target_transform = one_hot.__getitem__
    loader = Snapshots(options, draw).watch(loader)

    class WithNext(type(loader)):
        def __iter__(self):
            return Iterator(super().__iter__())

    loader.__class__ = WithNext
    gan.fit(
        loader, None, epochs=1_000, print_every=None,
        save_losses_every=None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
