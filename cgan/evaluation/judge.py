"""The judge: a small classifier trained on real images. It is never used to train a generator."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgan.storage.checkpoint import JUDGE, new_header, open_checkpoint, save_tensors
from cgan.storage.weights import load_network

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
        # Channels-last, as in training: another memory format rounds differently.
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.header = header

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of its predictions."""
        return self.header.classes

    def to(self, device: torch.device | str) -> Judge:
        """Move it to a device; returns itself."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Labels and features of images (B, C, H, W) in [0, 1], on the judge's device."""
        device = next(self.network.parameters()).device
        features = self.network.features(images.to(device) * 2 - 1)
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
            )
            network = load_network(
                file, lambda: Classifier(header.image_shape, len(header.classes))
            )
        return cls(network, header)
