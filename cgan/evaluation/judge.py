"""The judge: a small classifier trained on real images. It is never used to train a generator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgan.errors import FileError, UnknownNameError
from cgan.evaluation.classifiers import JudgeNetwork, build_classifier
from cgan.runtime.device import find_device, set_memory_format, to_device, torch_defaults
from cgan.storage.checkpoint import JUDGE, new_header, open_checkpoint, save_tensors
from cgan.storage.weights import load_network


@dataclass(frozen=True)
class JudgeHeader:
    """The header of a judge's file."""

    data: str
    digest: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    held_out_accuracy: float | None
    """Accuracy on real test images, the mean over the classes; None if there are none."""
    held_out_pictures: int
    architecture: str = "cnn"
    """A name of ``cgan.evaluation.classifiers.CLASSIFIERS``."""


class Prediction(NamedTuple):
    """The judge's output for a batch."""

    labels: Tensor
    """The predicted class of each image, int64 (B,)."""
    features: Tensor
    """The last hidden layer, float32 (B, FEATURE_DIM)."""


class Judge:
    """A trained classifier that predicts which class an image shows."""

    def __init__(self, network: JudgeNetwork, header: JudgeHeader) -> None:
        self.network = network.eval().requires_grad_(False)
        set_memory_format(network)
        self.header = header

    @property
    def device(self) -> torch.device:
        """The device it classifies on."""
        return next(self.network.parameters()).device

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of its predictions."""
        return self.header.classes

    @property
    def name(self) -> str:
        """Its name in reports: the start of its digest, and its data."""
        return f"judge {self.weights_digest[:8]} of {self.header.data}"

    def is_of(self, generator_header: Mapping[str, Any]) -> bool:
        """Whether it was trained on the training images of a generator.

        Generators of version 0.2 name their data but hold no digest of it.
        """
        digest = generator_header.get("data_digest")
        if digest is None:
            return bool(self.header.data == generator_header["data"])
        return bool(self.header.digest == digest)

    def to(self, device: torch.device | str) -> Judge:
        """Move it to a device; returns itself.

        Raises:
            DeviceError: the device is not available.
        """
        to_device(self.network, find_device(str(device)))
        return self

    @torch_defaults()
    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Labels and features of images (B, C, H, W) in [0, 1], on the judge's device."""
        features = self.network.features(images.to(self.device) * 2 - 1)
        return Prediction(self.network.head(features).argmax(1), features)

    def classify(self, images: Tensor) -> Tensor:
        """The class of each image: (B, C, H, W) in [0, 1] to int64 (B,)."""
        return self.predict(images).labels

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of its weights, in hexadecimal."""
        hasher = hashlib.sha256()
        for _, weight in sorted(self.network.state_dict().items()):
            hasher.update(weight.cpu().contiguous().numpy().tobytes())
        return hasher.hexdigest()

    def save(self, path: Path) -> None:
        """Save the judge as one safetensors file."""
        header = {**new_header(JUDGE), **asdict(self.header)}
        save_tensors(path, dict(self.network.state_dict()), header)

    @classmethod
    @torch_defaults()
    def load(cls, path: Path) -> Judge:
        """Load a judge; raises ``cgan.errors.FileError`` if the file is not one."""
        with open_checkpoint(path, JUDGE) as file:
            channels, height, width = file.header["image_shape"]
            header = JudgeHeader(
                data=file.header["data"],
                digest=file.header["digest"],
                classes=tuple(file.header["classes"]),
                image_shape=(channels, height, width),
                held_out_accuracy=file.header["held_out_accuracy"],
                held_out_pictures=file.header["held_out_pictures"],
                architecture=file.header.get("architecture", "cnn"),
            )
            try:
                network = load_network(
                    file,
                    lambda: build_classifier(
                        header.architecture, header.image_shape, len(header.classes)
                    ),
                )
            except UnknownNameError as error:
                raise FileError(f"{path} has an invalid header: {error}") from error
        return cls(network, header)
