"""The Sampler: asks a trained generator for classes by name.

A picture is a function of model, class and seed alone. The k-th picture of a class in a request
has the seed ``seed + k``, and z is drawn for each seed by itself. Networks run on batches of one
fixed size, the last one filled up, so that not even the rounding depends on how many are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cgan.asking import Described, Labels, Request
from cgan.checkpoint import GENERATOR, GENERATOR_VERSION, load_weights, read_header, read_tensors
from cgan.config import Config, make_config
from cgan.errors import ConfigError, FileError
from cgan.images import to_unit
from cgan.latents import draw_latents, draw_normals
from cgan.models import build_networks
from cgan.places import find_generator
from cgan.verify import Names, Verifier

DESCRIPTION = ("data", "images_seen", "seconds", "measured", "versions")
"""What a header says beside its config, classes and shape."""

BATCH = {"cpu": 64, "cuda": 4_096}
"""Pictures drawn at once, always: rounding depends on it."""


class Sampler(Described):
    """A generator with the names of its classes.

    Attributes:
        generator: the network, in evaluation mode.
        config: what it was trained with.
    """

    def __init__(self, generator: nn.Module, header: dict[str, Any], path: Path) -> None:
        super().__init__(header, path)
        # Channels-last as it was trained: another layout rounds otherwise.
        self.generator = generator.eval().requires_grad_(False)
        self.generator.to(memory_format=torch.channels_last)
        self.config: Config = make_config(header["config"])

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return next(self.generator.parameters()).device

    @property
    def batch(self) -> int:
        """Pictures it draws at once."""
        return BATCH[self.device.type]

    def to(self, device: torch.device | str) -> Sampler:
        """Itself, moved."""
        self.generator.to(device)
        return self

    def sample(
        self,
        labels: Labels = None,
        n: int = 1,
        seed: int = 0,
        verify: Names | Verifier | None = None,
    ) -> Tensor:
        """Draw pictures.

        Args:
            labels: a class by name (``"cat"``) or digit (``7``), a list of them, or an int64
                tensor of class indices; None is every class, or no class if the GAN is plain.
            n: pictures for each label that was given.
            seed: the first picture of each class has this seed, the next one the next.
            verify: a judge, or a :class:`Verifier` that counts; what it does not take for the
                class asked for is drawn again.

        Returns:
            float32 in [0, 1], (labels · n, C, H, W), label by label, on the CPU.

        Raises:
            UnknownName: no such class.
            PlainGan: a class was asked of a plain GAN, or its pictures to be verified.
            MeasureError: the judge knows other classes, or never agreed.
        """
        request = self.request(labels, n, seed)
        pictures = torch.empty(len(request), *self.image_shape)
        start = 0
        for batch, _ in self.batches(request, verify):
            pictures[start : start + len(batch)] = batch.cpu()
            start += len(batch)
        return pictures

    def batches(
        self, request: Request, verify: Names | Verifier | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Pictures (≤ ``batch``, C, H, W) in [0, 1] and their classes, in order, on the device."""
        if verify is not None and not isinstance(verify, Verifier):
            verify = Verifier(verify)
        if verify is not None:
            verify.check(self, request)
        for start in range(0, len(request), self.batch):
            seeds = request.seeds[start : start + self.batch]
            labels = None
            if request.labels is not None:
                chosen = request.labels[start : start + self.batch]
                labels = torch.tensor(chosen, device=self.device)
            pictures = self._draw(seeds, labels)
            if verify is not None and labels is not None:
                verify.redraw(pictures, seeds, labels, self._draw)
            yield pictures, labels

    def _draw(
        self, seeds: Sequence[int], labels: Tensor | None, attempts: Sequence[int] | None = None
    ) -> Tensor:
        """At most one batch of pictures, drawn as a full one."""
        missing = self.batch - len(seeds)
        z = functional.pad(self._draw_z(seeds, attempts), (0, 0, 0, missing))
        if labels is not None:
            labels = functional.pad(labels, (0, missing))
        with torch.inference_mode():
            return to_unit(self.generator(z, labels))[: len(seeds)]

    def _draw_z(self, seeds: Sequence[int], attempts: Sequence[int] | None) -> Tensor:
        """Where the networks are: NumPy's on the CPU, as where there is no torch."""
        if self.device.type == "cpu":
            return torch.from_numpy(draw_latents(seeds, self.latent_dim, attempts))
        passed = torch.tensor(attempts or [0] * len(seeds), device=self.device)
        z: Tensor = draw_normals(
            torch, torch.tensor(seeds, device=self.device), passed, self.latent_dim
        )
        return z


def load(path_or_run: str | Path, device: torch.device | str = "cpu") -> Sampler:
    """Load a generator.

    Args:
        path_or_run: a generator file, the folder of a run, or ``"mnist"``, which is in the package.
        device: where it shall draw.

    Raises:
        FileError: there is none, or the file is not a generator.
    """
    path = find_generator(path_or_run)
    header = read_header(path, GENERATOR, GENERATOR_VERSION)
    try:
        config, classes = make_config(header["config"]), header["classes"]
        channels, height, width = map(int, header["image_shape"])
        if missing := [key for key in DESCRIPTION if key not in header]:
            raise ValueError(f"{', '.join(missing)} missing")
        if not isinstance(classes, list):
            raise TypeError("classes is not a list")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise FileError(f"{path} has a header that cannot be understood: {error}") from error
    header["config"] = config.model_dump(mode="json")  # with what an older one left unsaid
    with torch.random.fork_rng([]):  # the weights drawn here are thrown away
        generator = build_networks(config.model, (channels, height, width), len(classes)).generator
    load_weights(generator, read_tensors(path), path)
    return Sampler(generator, header, path).to(device)
