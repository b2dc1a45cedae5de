"""``cgan.invert``: find the z and the class from which a generator draws a given image.

An encoder makes the first guess: from an image to its z and its class. It is trained on the
generator's own images, whose z and classes are known (the latent regressor of Donahue et al. 2017,
"Adversarial feature learning"), once per generator, and kept in the cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from cgan.augment import shows_photographs
from cgan.data import ImageDataset, ImageFolder, load_split
from cgan.data.datasets import needs_download
from cgan.data.image_cache import is_grey
from cgan.data.image_file import Conversion, open_image, read_image
from cgan.errors import CganError, ConfigError, DataError, FileError
from cgan.evaluation.api import data_config_of
from cgan.evaluation.control import check_fit
from cgan.evaluation.features import evenly_spaced
from cgan.evaluation.judge import JudgeNetwork, build_classifier
from cgan.runtime.device import (
    explain_out_of_memory,
    seeded,
    set_memory_format,
    to_device,
    torch_defaults,
)
from cgan.runtime.progress import CountProgress
from cgan.runtime.streams import run_both
from cgan.sampling.sampler import Sampler, as_sampler
from cgan.storage.checkpoint import ENCODER, load_network, new_header, open_checkpoint, save_tensors
from cgan.storage.paths import ENCODER_FILE, StrPath, cache_folder, default_data_dir, safe_file_name
from cgan.storage.safe_reading import file_digest

IMAGES, BATCH, PEAK_LR = 120_000, 128, 4e-3

logger = logging.getLogger("cgan")
STEPS, LR = 100, 0.05
"""Of Adam, for each image."""
CANDIDATES = 3
"""Classes that are tried for each image, those with the highest probability."""
PIXEL_STD = 0.2
"""Standard deviation of the pixels around the generator's image, for values in [-1, 1]."""
HELD_OUT = 200
"""Real images that the generator was not trained on, whose distances are the reference."""
OUTSIDE = 0.99
"""An image farther away than this fraction of those is outside of what the generator knows."""


@dataclass
class Encoder:
    """A trained encoder.

    Attributes:
        network: images (B, C, H, W) in [-1, 1] to z and class logits, (B, latent_dim + classes).
        latent_dim: length of z.
        header: of its file; ``distances`` are those of test images, if they are known.
    """

    network: JudgeNetwork
    latent_dim: int
    header: dict[str, Any]

    @torch_defaults()
    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, latent_dim) and class logits (B, classes) of images in [-1, 1]."""
        output = self.network(images)
        return output[:, : self.latent_dim], output[:, self.latent_dim :]


def encoder_path(sampler: Sampler) -> Path:
    """Its file in the cache, which depends on the content of the generator file."""
    digest = file_digest(sampler.path)[:16]
    name = safe_file_name(str(sampler.header["config"]["name"]))
    return cache_folder() / "encoders" / f"{name}-{digest}.safetensors"


@torch_defaults()
def load_encoder(sampler: Sampler, path: Path) -> Encoder:
    """Load the encoder of a generator; raises ``FileError`` if the file is not one."""
    with open_checkpoint(path, ENCODER) as file:
        network = load_network(file, lambda: _build(sampler))
        header = file.header
    network.eval().requires_grad_(False)
    set_memory_format(network)
    to_device(network, sampler.device)
    return Encoder(network, sampler.latent_dim, header)


def read_encoder(sampler: Sampler) -> Encoder | None:
    """The encoder of a generator: from the cache, or from the file beside a packaged generator.

    None if there is none. A file that is damaged or belongs to another generator is ignored, with a
    warning.
    """
    cached = encoder_path(sampler)  # named after the digest of the generator
    for path in (cached, sampler.path.with_name(ENCODER_FILE)):
        if not path.exists():
            continue
        try:
            encoder = load_encoder(sampler, path)
        except FileError as error:
            logger.warning("%s; it is ignored", error)
            continue
        if path == cached or encoder.header.get("generator") == file_digest(sampler.path):
            return encoder
        logger.warning("%s belongs to another generator; it is ignored", path)
    return None


def get_or_train_encoder(sampler: Sampler, progress: bool = False) -> Encoder:
    """The encoder of a generator: read, or trained and cached now."""
    encoder = read_encoder(sampler)
    if encoder is None:
        encoder = train_encoder(sampler, progress=progress)
        save_encoder(sampler, encoder)
    return encoder


def save_encoder(sampler: Sampler, encoder: Encoder) -> None:
    """Save an encoder in the cache; if that fails, log a warning."""
    try:
        save_tensors(encoder_path(sampler), dict(encoder.network.state_dict()), encoder.header)
    except FileError as error:
        logger.warning("the encoder is not cached: %s", error)


@torch_defaults()
def train_encoder(sampler: Sampler, images: int | None = None, progress: bool = False) -> Encoder:
    """Train an encoder on a generator's images.

    Args:
        sampler: the generator.
        images: how many; None is ``IMAGES``.
        progress: show progress on the terminal.
    """
    device, classes = sampler.device, len(sampler.classes) if sampler.conditional else 0
    steps = max((images or IMAGES) // BATCH, 1)
    logger.info("training an encoder of %s (only once)", sampler.name)
    with seeded(0, device), CountProgress(steps * BATCH, progress) as shown:
        network = _build(sampler)
        to_device(network, device)
        optimizer = torch.optim.AdamW(network.parameters(), PEAK_LR, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps + 1)

        def new_latents() -> tuple[Tensor, Tensor]:
            z = torch.randn(BATCH, sampler.latent_dim, device=device)
            return z, torch.randint(max(classes, 1), (BATCH,), device=device)

        @torch.no_grad()
        def draw(z: Tensor, labels: Tensor) -> Tensor:
            images: Tensor = sampler.generator(z, labels if classes else None)
            return images

        def update(images: Tensor, z: Tensor, labels: Tensor) -> None:
            output = network(images)
            loss = mse_loss(output[:, : sampler.latent_dim], z)
            if classes:
                loss = loss + cross_entropy(output[:, sampler.latent_dim :], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

        latents = new_latents()
        drawn = draw(*latents)
        for _ in range(steps):
            following = new_latents()
            _, drawn_next = run_both(
                partial(update, drawn, *latents),
                partial(draw, *following),
                in_turn=device.type != "cpu",
            )
            latents, drawn = following, drawn_next
            shown.add(BATCH)
    network.eval().requires_grad_(False)
    header = {
        **new_header(ENCODER),
        "generator": file_digest(sampler.path),
        "data_digest": "",
        "distances": [],
    }
    return Encoder(network, sampler.latent_dim, header)


def _build(sampler: Sampler) -> JudgeNetwork:
    photographs = shows_photographs(sampler.classes, sampler.image_shape, sampler.num_attributes)
    outputs = sampler.latent_dim + (len(sampler.classes) if sampler.conditional else 0)
    return build_classifier("resnet9" if photographs else "cnn", sampler.image_shape, outputs)


class Inversion(NamedTuple):
    """The result of an inversion."""

    z: Tensor
    """(latent_dim,), for ``Sampler.generate``."""
    label: str | None
    """The class; None if the generator is unconditional."""
    distance: float
    """Root mean square difference of pixels in [0, 1] between the image and its reconstruction."""
    held_out_distances: tuple[float, ...]
    """Sorted distances of real images that the generator was not trained on; empty if unknown."""

    @property
    def is_outside(self) -> bool:
        """Whether it is farther away than 99 % of real images are."""
        others = self.held_out_distances
        return bool(others) and self.distance > others[int(OUTSIDE * len(others))]


@torch_defaults()
def invert(
    model: StrPath | Sampler,
    picture: str | Path | Tensor,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    progress: bool = False,
) -> Inversion:
    """Find z and class of an image.

    An encoder, which is trained once per generator, guesses both. z is then refined for the most
    likely classes by gradient steps on −log p(image | z, class) − log p(z) (Zhu et al. 2016,
    "Generative visual manipulation", section 3.1), and the class with the least sum of this and
    −log p(class | image) is chosen.

    Args:
        model: a run folder, a generator file, ``"mnist"``, or a sampler.
        picture: an image file of the generator's size, or a tensor (C, H, W): uint8, or float in
            [0, 1].
        data: as for ``cgan.evaluate``: the data whose test images are the reference. If None, and
            the data is not found, the distance has no reference.
        data_dir: where data sets are stored.
        progress: show progress on the terminal.

    Raises:
        DataError: it is no image, or has another size or other colours than the generator's.
        ConfigError: the generator has no gradient, because it is an ONNX network.
    """
    sampler = as_sampler(model)
    if (steered := sampler.header.get("steered")) and steered["model"] is None:
        raise ConfigError(f"{sampler.name} cannot be inverted: an ONNX network has no gradient")
    image = read_picture(picture, sampler)
    held_out = _load_held_out(sampler, data, data_dir)
    with explain_out_of_memory(f"inverting an image of {sampler.name}", "free memory"):
        encoder = get_or_train_encoder(sampler, progress)
        _measure_held_out(sampler, encoder, held_out, is_own=data is None)
        z, labels, distances = invert_batch(sampler, encoder, image[None])
    label = sampler.classes[int(labels[0])] if sampler.conditional else None
    return Inversion(z[0], label, float(distances[0]), tuple(encoder.header["distances"]))


def read_picture(picture: str | Path | Tensor, sampler: Sampler) -> Tensor:
    """An image as float (C, H, W) in [0, 1].

    A file becomes an image of the generator's size as the files of its training data did.

    Raises:
        DataError: it is no image, has other colours than the generator's images, or as a tensor
            another shape, or values that are neither uint8 nor numbers in [0, 1].
    """
    shape = sampler.image_shape
    if not isinstance(picture, Tensor):
        conversion = Conversion(**sampler.header.get("conversion", {}))
        with open_image(Path(picture), conversion) as (image, _):
            channels, size = (1 if is_grey(image) else 3), image.size
        if channels > shape[0]:
            raise DataError(f"{picture} is in colour and the generator draws grey images")
        if size != (shape[2], shape[1]):
            logger.info("%s has %d×%d pixels: it is resized as in training", picture, *size)
        return read_image(Path(picture), shape, conversion).float() / 255
    if tuple(picture.shape) != shape:
        raise DataError(
            f"the image has the shape {list(picture.shape)} (channels, height, width) and the "
            f"generator draws {list(shape)}: convert it first"
        )
    values = picture.float() / (255 if picture.dtype == torch.uint8 else 1)
    if not ((values >= 0) & (values <= 1)).all():  # NaN too
        raise DataError("the values of the image are neither uint8 nor numbers in [0, 1]")
    return values


@torch_defaults()
def invert_batch(
    sampler: Sampler, encoder: Encoder, images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Invert several images.

    Args:
        sampler: the generator.
        encoder: of this generator.
        images: (N, C, H, W) in [0, 1].

    Returns:
        z (N, latent_dim), class indices (N,), 0 if unconditional, and distances (N,), on the CPU.
    """
    size = max(sampler.batch_size // CANDIDATES, 1)
    if len(images) > size:
        parts = [invert_batch(sampler, encoder, part) for part in images.split(size)]
        z, labels, distances = (torch.cat(found) for found in zip(*parts, strict=True))
        return z, labels, distances
    signed = images.to(sampler.device) * 2 - 1
    guess, logits = encoder.encode(signed)
    class_nll = -logits.log_softmax(1)
    count = min(CANDIDATES, logits.shape[1]) if sampler.conditional else 1
    labels = torch.zeros(len(images), 1, dtype=torch.int64, device=signed.device)
    if sampler.conditional:
        labels = logits.topk(count).indices
    target = signed.repeat_interleave(count, 0)
    chosen = labels.flatten() if sampler.conditional else None
    z, energy, distance = _refine(sampler, target, guess.repeat_interleave(count, 0), chosen)
    energy = energy.view(-1, count)
    if sampler.conditional:
        energy = energy + class_nll.gather(1, labels)
    best = energy.argmin(1, keepdim=True)
    rows = torch.arange(len(images), device=z.device) * count + best.squeeze(1)
    return z[rows].cpu(), labels.gather(1, best).squeeze(1).cpu(), distance[rows].cpu()


def _refine(
    sampler: Sampler, target: Tensor, z: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise −log p(image | z) − log p(z) by ``STEPS`` steps of Adam from each z.

    Returns:
        z, the energy and the distance of the best step, for each image.
    """
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    found = z.detach().clone()
    least = torch.full((len(z),), torch.inf, device=z.device)
    distance = least.clone()
    for _ in range(STEPS):
        drawn = sampler.generator(z, labels)
        squares = (drawn - target).square().flatten(1)
        energy = squares.sum(1) / (2 * PIXEL_STD**2) + 0.5 * z.square().sum(1)
        with torch.no_grad():
            better = energy < least
            found[better] = z[better]
            least = torch.where(better, energy, least)
            distance = torch.where(better, squares.mean(1).sqrt() / 2, distance)
        optimizer.zero_grad()
        energy.sum().backward(inputs=[z])
        optimizer.step()
        schedule.step()
    return found, least.detach(), distance.detach()


def _load_held_out(
    sampler: Sampler, data: str | None, data_dir: str | Path | None
) -> ImageDataset | ImageFolder | None:
    """The test images of the generator's data. They are downloaded only if it was asked for.

    Raises:
        CganError: the data that was asked for is not found, or has other images.
    """
    try:
        config = data_config_of(sampler, data, data_dir)
        stored = Path(config.data_dir) if config.data_dir else default_data_dir()
        if data is None and data_dir is None and needs_download(config.source, stored):
            logger.info("not downloaded for the distances of test images: %s", config.source)
            return None
        held_out = load_split(config, "test")
        check_fit(sampler, f"{held_out.name} has", held_out.classes, held_out.image_shape)
        if len(held_out):
            return held_out
        logger.warning("without test images the distance has no reference")
    except CganError as error:
        if data is not None or data_dir is not None:
            raise
        logger.warning("without test images the distance has no reference: %s", error)
    return None


def _measure_held_out(
    sampler: Sampler, encoder: Encoder, held_out: ImageDataset | ImageFolder | None, is_own: bool
) -> None:
    """Measure the distances of test images, unless the encoder's file holds those of the same.

    Those of data that the caller gives are not saved: a later call may give none.
    """
    header = encoder.header
    digest = "" if held_out is None else held_out.digest()
    if held_out is not None and header["data_digest"] != digest:
        indices = evenly_spaced(torch.arange(len(held_out)), HELD_OUT)
        _, _, distances = invert_batch(sampler, encoder, held_out.take(indices) / 255)
        header |= {
            "data_digest": digest,
            "distances": [round(one, 5) for one in distances.sort().values.tolist()],
        }
        if is_own:
            save_encoder(sampler, encoder)
