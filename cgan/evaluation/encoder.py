"""The encoder of a generator: from an image to a first guess of its z and its class.

It is trained on the generator's own images, whose z and classes are known (the latent regressor of
Donahue et al. 2017, "Adversarial feature learning"), once per generator, and kept in the cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from cgan.augment import shows_photographs
from cgan.errors import FileError
from cgan.evaluation.classifiers import JudgeNetwork, build_classifier
from cgan.runtime.device import seeded, set_memory_format, to_device, torch_defaults
from cgan.runtime.progress import CountProgress
from cgan.runtime.streams import run_both
from cgan.sampling.sampler import Sampler
from cgan.storage.checkpoint import ENCODER, new_header, open_checkpoint, save_tensors
from cgan.storage.paths import ENCODER_FILE, cache_folder, safe_file_name
from cgan.storage.safe_reading import file_digest
from cgan.storage.weights import load_network

IMAGES, BATCH, PEAK_LR = 120_000, 128, 4e-3

logger = logging.getLogger("cgan")


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


def find_encoder(sampler: Sampler, progress: bool = False) -> Encoder:
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
    photographs = shows_photographs(sampler.classes, sampler.image_shape)
    outputs = sampler.latent_dim + (len(sampler.classes) if sampler.conditional else 0)
    return build_classifier("resnet9" if photographs else "cnn", sampler.image_shape, outputs)
