"""The textbook loop of benchmarks/textbook.py, with the DCGAN of cgan."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from entry import Snapshots, parse, to_digits

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.textbook import Textbook


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    loop = Textbook("dcgan", str(options.data_dir), torch.device("cpu"))

    @torch.no_grad()
    def draw(labels):
        loop.generator.eval()
        z = torch.randn(len(labels), 64)
        images = to_digits(loop.generator(z, torch.from_numpy(labels)))
        loop.generator.train()
        return images

    loader = Snapshots(options, draw).watch(loop.loader)
    while True:
        for real, labels in loader:
            loop.step(real, labels)


if __name__ == "__main__":
    main()
