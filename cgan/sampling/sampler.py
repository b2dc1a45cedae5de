"""The ``Sampler``: generates images of a class by name.

An image is a function of model, class and seed only. The k-th image of a class in a request has the
seed ``seed + k``, and each z is drawn from its own seed. The network always runs on batches of one
fixed size (the last one is padded), because rounding depends on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cgan.attributes import sort_for_display
from cgan.config import Config
from cgan.config_io import make_config
from cgan.errors import ConfigError, FileError, MeasureError, UnconditionalError, one_line
from cgan.models.factory import build_generator
from cgan.runtime.device import (
    explain_out_of_memory,
    find_device,
    set_memory_format,
    to_device,
    torch_defaults,
)
from cgan.runtime.streams import map_streams
from cgan.sampling.latents import batch_size, draw_latents, draw_normals
from cgan.sampling.request import GeneratorInfo, Labels, Request
from cgan.storage.checkpoint import GENERATOR, load_network, open_checkpoint
from cgan.storage.images import encode_png, make_grid, to_pixels, to_unit
from cgan.storage.paths import StrPath, find_generator
from cgan.storage.safe_reading import file_digest

NOTEBOOK_ROWS = 10
MAX_DRAWS = 100
"""Draws per image before rejection sampling fails."""
Draw = Callable[[list[int], Tensor, list[int]], Tensor]
"""Seeds, labels and draw indices to images."""


class Sampler(GeneratorInfo):
    """A generator with the names of its classes.

    Attributes:
        generator: the network, in evaluation mode.
        config: the config it was trained with.
    """

    def __init__(self, generator: nn.Module, header: dict[str, Any], path: Path) -> None:
        super().__init__(header, path)
        self.generator = generator.eval().requires_grad_(False)
        set_memory_format(generator)
        self.config: Config = make_config(header["config"], strict=False)

    @property
    def device(self) -> torch.device:
        """The device it draws on."""
        return next(self.generator.parameters()).device

    @property
    def batch_size(self) -> int:
        """Images per forward pass, as ``cgan.sampling.latents`` says."""
        return batch_size(self.image_shape, self.device.type)

    def to(self, device: torch.device | str) -> Sampler:
        """Move it to a device; returns itself.

        Raises:
            DeviceError: the device is not available.
        """
        to_device(self.generator, find_device(str(device)))
        return self

    def sample(
        self,
        labels: Labels = None,
        n: int = 1,
        seed: int = 0,
        verify: ImageClassifier | RejectionSampler | None = None,
        *,
        mix: Mapping[str, float] | None = None,
        truncation: float = 1.0,
    ) -> Tensor:
        """Draw images.

        Args:
            labels: a class by name (``"cat"``) or digit (``7``), a list of them, or an int64
                tensor of class indices. None means every class, or no class if unconditional.
            n: images per label.
            seed: seed of the first image of each class; the next image has the next seed.
            verify: a judge (or a ``RejectionSampler``, which counts draws); images that it
                assigns to another class are drawn again.
            mix: in place of labels, classes and their weights, which sum to 1, like
                ``{"3": 0.5, "8": 0.5}``: G gets the weighted sum of what it learned for each class.
            truncation: factor of z, from 0 to 1. Less gives more control and less variety: Brock
                et al. 2019 (BigGAN), section 3.1, who draw z from a truncated normal distribution.

        Returns:
            float32 in [0, 1], (labels · n, C, H, W), label by label, on the CPU.

        Raises:
            UnknownNameError: no such class.
            ConfigError: the weights of the mix do not sum to 1, or truncation is out of range.
            UnconditionalError: a class or ``verify`` was requested from an unconditional GAN.
            MeasureError: the judge has other classes, or rejected every draw of an image.
            RunError: memory ran out.
        """
        request = self.request(labels, n, seed, mix, truncation)
        shape = (len(request), *self.image_shape)
        with explain_out_of_memory(f"sampling {len(request):,} images", "draw fewer at once"):
            images = torch.empty(shape, dtype=torch.float32, device="cpu")
        start = 0
        for batch, _ in self.batches(request, verify):
            images[start : start + len(batch)] = batch.cpu()
            start += len(batch)
        return images

    def batches(
        self, request: Request, verify: ImageClassifier | RejectionSampler | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images (≤ batch_size, C, H, W) in [0, 1] and their labels, in order, on the device.

        Raises:
            RunError: memory ran out.
        """
        if verify is not None and not isinstance(verify, RejectionSampler):
            verify = RejectionSampler(verify)
        if verify is not None:
            verify.check(self, request)
        draw = partial(self._draw, truncation=request.truncation)

        def draw_batch(start: int) -> tuple[Tensor, Sequence[int], Tensor | None]:
            chosen = slice(start, start + self.batch_size)
            seeds, labels = request.seeds[chosen], None
            if request.labels is not None:
                labels = torch.tensor(request.labels[chosen], device=self.device)
            elif request.mix is not None:
                weights = torch.tensor(request.mix, dtype=torch.float32, device=self.device)
                labels = weights.expand(len(seeds), -1)
            with self._explain_out_of_memory():
                return draw(seeds, labels), seeds, labels

        starts = range(0, len(request), self.batch_size)
        for images, seeds, labels in map_streams(draw_batch, starts, self.device):
            if verify is not None and labels is not None:
                with self._explain_out_of_memory():
                    verify.resample(images, seeds, labels, draw)
            yield images, labels

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images from latent vectors.

        Args:
            z: (N, latent_dim).
            labels: class indices, int64 (N,), or weights of mixes, float (N, classes); None for an
                unconditional GAN.

        Returns:
            float32 in [0, 1], (N, C, H, W), on the CPU.

        Raises:
            ConfigError: z or the labels have another shape.
            UnknownNameError: a label is not in 0..K − 1.
            RunError: memory ran out.
        """
        self._check_latents(z, labels)
        found = []
        for start in range(0, len(z), self.batch_size):
            some = slice(start, start + self.batch_size)
            chosen = None if labels is None else labels[some].to(self.device)
            with self._explain_out_of_memory():
                found.append(self._generate(z[some].to(self.device), chosen).cpu())
        return torch.cat(found) if found else torch.empty(0, *self.image_shape)

    def _check_latents(self, z: Tensor, labels: Tensor | None) -> None:
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ConfigError(f"z must be (N, {self.latent_dim}), not {tuple(z.shape)}")
        if not self.conditional:
            if labels is not None:
                raise UnconditionalError("a plain GAN takes no labels: leave them out")
            return
        shape: tuple[int, ...] = (len(z),)
        if isinstance(labels, Tensor) and labels.is_floating_point():
            shape = (len(z), len(self.classes))
        if not isinstance(labels, Tensor) or labels.shape != shape:
            raise ConfigError(
                f"labels must be a tensor of {len(z)} class indices, or of weights "
                f"({len(z)}, {len(self.classes)}): Sampler.sample takes names"
            )
        if not labels.is_floating_point():
            self.check_numbers(labels.tolist())

    def _repr_png_(self) -> bytes:
        """Samples for notebooks: one row per class, in the order in which people see classes."""
        labels = sort_for_display(self.classes)[:NOTEBOOK_ROWS] if self.conditional else None
        images = self.sample(labels, n=NOTEBOOK_ROWS)
        scale = max(1, round(32 / self.image_shape[2]))
        return encode_png(make_grid(to_pixels(images), NOTEBOOK_ROWS, scale))

    def _explain_out_of_memory(self) -> AbstractContextManager[None]:
        _, height, width = self.image_shape
        return explain_out_of_memory(
            f"sampling a batch of {self.batch_size:,} images of {width}×{height} on {self.device}",
            "free memory, or use another --device",
        )

    def _draw(
        self,
        seeds: Sequence[int],
        labels: Tensor | None,
        draw_index: Sequence[int] | None = None,
        truncation: float = 1.0,
    ) -> Tensor:
        """Draw up to one batch of images."""
        return self._generate(truncation * self._draw_z(seeds, draw_index), labels)

    def _generate(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Generate up to one batch of images, padded to a full batch."""
        count, missing = len(z), self.batch_size - len(z)
        z = functional.pad(z, (0, 0, 0, missing))
        if labels is not None:
            labels = functional.pad(labels, (*[0, 0] * (labels.dim() - 1), 0, missing))
        with torch_defaults(), torch.inference_mode():
            return to_unit(self.generator(z, labels))[:count]

    def _draw_z(self, seeds: Sequence[int], draw_index: Sequence[int] | None) -> Tensor:
        """Draw z: with torch on CUDA, and elsewhere with NumPy, like the ONNX sampler.

        MPS has no float64, and XPU may have none.
        """
        if self.device.type != "cuda":
            z = torch.from_numpy(draw_latents(seeds, self.latent_dim, draw_index))
            return z.to(self.device)
        index = torch.tensor(draw_index or [0] * len(seeds), device=self.device)
        drawn: Tensor = draw_normals(
            torch, torch.tensor(seeds, device=self.device), index, self.latent_dim
        )
        return drawn


def as_sampler(model: StrPath | Sampler) -> Sampler:
    """A sampler unchanged; anything else is loaded on the CPU.

    Raises:
        CganError: there is no such generator, or it cannot be read.
    """
    return model if isinstance(model, Sampler) else load(model)


@torch_defaults()
def load(path_or_run: StrPath, device: torch.device | str = "cpu") -> Sampler:
    """Load a generator.

    Args:
        path_or_run: a generator file, a run folder, ``"mnist"`` for the packaged generator, or
            ``"hf-hub:owner/name@revision"`` for one of the Hugging Face Hub, which is downloaded.
        device: the device to draw on.

    Raises:
        FileError: there is none, the file is not a generator, or a download failed.
        ConfigError: a name of the Hub is invalid, or its library is not installed.
        DeviceError: the device is not available.
    """
    path = find_generator(path_or_run)
    digest = file_digest(path)
    with open_checkpoint(path, GENERATOR) as file:
        try:
            config = make_config(file.header["config"], strict=False)
            generator = load_network(file, lambda: build_generator(file.header))
        except ConfigError as error:
            raise FileError(f"{path} has an invalid config: {one_line(error, 300)}") from error
    # The dump adds defaults that older files lack.
    header = {**file.header, "config": config.model_dump(mode="json")}
    sampler = Sampler(generator, header, path)
    sampler.digest = digest
    return sampler.to(device)


class ImageClassifier(Protocol):
    """Anything that classifies images, such as ``cgan.evaluation.judge.Judge``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of its predictions."""
        ...

    def classify(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to class indices, int64 (B,)."""
        ...


def check_verifiable(request: Request) -> None:
    """Check that a judge can verify the images of a request.

    Raises:
        UnconditionalError: they have no classes.
        ConfigError: they are of a mix of classes.
    """
    if request.mix is not None:
        raise ConfigError("a judge verifies single classes: leave out the mix or the verification")
    if request.labels is None:
        raise UnconditionalError("a plain GAN takes no class, so there is nothing to verify")


@dataclass
class RejectionSampler:
    """Draws rejected images again, and counts draws.

    A rejected image is replaced by one with the next z of its own seed, so it is a function of
    model, class, seed and judge. Do not measure control on accepted images. ``acceptance`` is
    biased too, because classes with less control are drawn more often.
    """

    judge: ImageClassifier
    drawn: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Fraction of draws that the judge accepted, in [0, 1]."""
        return self.accepted / max(self.drawn, 1)

    def check(self, generator: GeneratorInfo, request: Request) -> None:
        """Check that the judge fits the request.

        Raises:
            UnconditionalError: the request has no classes.
            ConfigError: it is for a mix of classes.
            MeasureError: the judge has other classes than the generator.
        """
        check_verifiable(request)
        if self.judge.classes != generator.classes:
            known, drawn = map(sort_for_display, (self.judge.classes, generator.classes))
            raise MeasureError(
                f"the judge knows {', '.join(known[:5])}… and the generator draws "
                f"{', '.join(drawn[:5])}…: use a judge of the generator's training data"
            )

    @torch.inference_mode()
    def resample(self, images: Tensor, seeds: Sequence[int], labels: Tensor, draw: Draw) -> None:
        """Replace rejected images in place until the judge accepts all of them.

        Raises:
            MeasureError: an image was rejected ``MAX_DRAWS`` times.
        """
        rejected = list(range(len(seeds)))
        for index in range(MAX_DRAWS):
            if index:
                again = [seeds[position] for position in rejected]
                images[rejected] = draw(again, labels[rejected], [index] * len(rejected))
            predicted = self.judge.classify(images[rejected]).to(labels.device)
            agrees = (predicted == labels[rejected]).tolist()
            self.drawn += len(rejected)
            self.accepted += sum(agrees)
            rejected = [position for position, ok in zip(rejected, agrees, strict=True) if not ok]
            if not rejected:
                return
        name, seed = self.judge.classes[int(labels[rejected[0]])], seeds[rejected[0]]
        raise MeasureError(
            f"the judge rejected all {MAX_DRAWS} draws of seed {seed} for {name!r}: this generator "
            "has too little control to be verified (see cgan evaluate); train it longer"
        )
