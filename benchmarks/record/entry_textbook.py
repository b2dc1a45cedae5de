"""The textbook loop of benchmarks/textbook.py, with the DCGAN of cgan."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from entry import Snapshots, image_loader, parse, to_digits, to_pixels

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.textbook import BATCH, Textbook


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    pictures = image_loader(options, BATCH) if options.pictures else None
    loop = Textbook("dcgan", str(options.data_dir), torch.device("cpu"), pictures)
    to_images = to_pixels if options.pictures else to_digits

    @torch.no_grad()
    def draw(labels):
        loop.generator.eval()
        z = torch.randn(len(labels), 64)
        images = to_images(loop.generator(z, torch.from_numpy(labels)))
        loop.generator.train()
        return images

    loader = Snapshots(options, draw, loop.generator).watch(loop.loader)
    while True:
        for real, labels in loader:
            loop.step(real, labels)


if __name__ == "__main__":
    main()
