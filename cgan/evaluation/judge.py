"""The judge: a small classifier trained on real images. It is never used to train a generator."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgan.errors import FileError
from cgan.runtime.device import find_device, set_memory_format, to_device, torch_defaults
from cgan.storage.checkpoint import (
    JUDGE,
    load_weights,
    new_header,
    read_header,
    read_tensors,
    save_tensors,
)

FEATURE_DIM = 128
"""Length of the judge's feature vector."""


@dataclass(frozen=True)
class JudgeHeader:
    """The header of a judge's file."""

    data: str
    digest: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    held_out_accuracy: float | None
    """Accuracy on held-out real images; None if there are none."""
    held_out_pictures: int


class Classifier(nn.Module):
    """Three convolutions and one hidden layer: (B, C, H, W) in [-1, 1] to logits (B, classes)."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for out in (32, 64, 64):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            ]
            channels = out
            if min(height, width) >= 6:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        self.features = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, FEATURE_DIM, bias=False),
            nn.BatchNorm1d(FEATURE_DIM),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURE_DIM, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        logits: Tensor = self.head(self.features(images))
        return logits


class Prediction(NamedTuple):
    """The judge's output for a batch."""

    labels: Tensor
    """The predicted class of each image, int64 (B,)."""
    features: Tensor
    """The last hidden layer, float32 (B, FEATURE_DIM)."""


class Judge:
    """A trained classifier that predicts which class an image shows."""

    def __init__(self, network: Classifier, header: JudgeHeader) -> None:
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

    def weights_digest(self) -> str:
        """SHA-256 of its weights, in hexadecimal."""
        digest = hashlib.sha256()
        for _, weight in sorted(self.network.state_dict().items()):
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Save the judge as one safetensors file."""
        header = {**new_header(JUDGE), **asdict(self.header)}
        save_tensors(path, dict(self.network.state_dict()), header)

    @classmethod
    @torch_defaults()
    def load(cls, path: Path) -> Judge:
        """Load a judge; raises ``cgan.errors.FileError`` if the file is not one."""
        header = read_header(path, JUDGE)
        try:
            channels, height, width = map(int, header["image_shape"])
            described = JudgeHeader(
                data=header["data"],
                digest=header["digest"],
                classes=tuple(header["classes"]),
                image_shape=(channels, height, width),
                held_out_accuracy=header["held_out_accuracy"],
                held_out_pictures=header["held_out_pictures"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path} has an invalid header: {error}") from error
        with torch.random.fork_rng([]):  # the initial weights are overwritten
            network = Classifier(described.image_shape, len(described.classes))
        load_weights(network, read_tensors(path), path)
        return cls(network, described)
