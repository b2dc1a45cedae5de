"""The judge: a classifier of real images. The one whose figures are reported trains no generator.

Two architectures are built differently, so that a second judge can disagree with the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from cgan.errors import FileError, UnknownNameError
from cgan.evaluation.pretrained import COMPONENTS, FEATURES, PretrainedFeatures
from cgan.runtime.device import find_device, set_memory_format, to_device, torch_defaults
from cgan.runtime.streams import map_streams
from cgan.storage.checkpoint import JUDGE, load_network, new_header, open_checkpoint, save_tensors
from cgan.storage.paths import StrPath

FEATURE_DIM = COMPONENTS
"""Length of a judge's feature vector: 128."""


class JudgeNetwork(nn.Module):
    """Maps images (B, C, H, W) in [-1, 1] to features (B, F) and logits (B, classes)."""

    features: nn.Sequential
    head: nn.Linear

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def compared(self, features: Tensor) -> Tensor:
        """What FID and similar metrics compare, (B, FEATURE_DIM)."""
        return features


class Classifier(JudgeNetwork):
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


class BasicBlock(nn.Module):
    """x + f(x) with group norm before each convolution: He et al. 2016, "Identity mappings"."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        added: Tensor = x + self.body(x)
        return added


class ResidualClassifier(JudgeNetwork):
    """Three residual stages with strided convolutions, group norm and a mean over positions.

    It shares no kind of layer with ``Classifier`` but convolution and linear layers: no batch norm,
    no max pooling, no fully connected layer over positions.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for out in (32, 64, 128):
            stride = 2 if min(height, width) >= 4 else 1
            layers += [nn.Conv2d(channels, out, 3, stride=stride, padding=1), BasicBlock(out)]
            channels, height, width = out, -(-height // stride), -(-width // stride)
        self.features = nn.Sequential(
            *layers,
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, FEATURE_DIM),
            nn.GELU(),
        )
        self.head = nn.Linear(FEATURE_DIM, num_classes)


class ResNet9(JudgeNetwork):
    """For photographs: a narrow ResNet-9 (Page 2018, "How to train your ResNet"), 0.4 M weights.

    Eight convolutions with batch norm, two residual blocks, and a maximum over positions. The stem
    halves large images until the smaller side is below 64.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        narrow, side = FEATURE_DIM // 8, min(height, width)
        layers: list[nn.Module] = [_convolution(channels, narrow)]
        while side >= 64:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        for inputs, outputs, residual in (
            (narrow, 2 * narrow, True),
            (2 * narrow, 4 * narrow, False),
            (4 * narrow, FEATURE_DIM, True),
        ):
            layers.append(_convolution(inputs, outputs))
            if side >= 4:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            if residual:
                layers.append(_ResidualPair(outputs))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(FEATURE_DIM, num_classes)


class _ResidualPair(nn.Module):
    """x + f(x) with two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, channels), _convolution(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        added: Tensor = x + self.body(x)
        return added


class PretrainedClassifier(JudgeNetwork):
    """Features of a network that was trained on other photographs, and a linear head."""

    components: Tensor

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, lite: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(PretrainedFeatures(lite))
        self.register_buffer("components", torch.zeros(FEATURES, FEATURE_DIM))
        self.head = nn.Linear(FEATURES, num_classes)

    @property
    def pretrained(self) -> PretrainedFeatures:
        """The features without the head."""
        features = self.features[0]
        assert isinstance(features, PretrainedFeatures)
        return features

    def compared(self, features: Tensor) -> Tensor:
        """Their principal components: FID needs more images than features."""
        return features @ self.components


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


CLASSIFIERS: dict[str, Callable[[tuple[int, int, int], int], JudgeNetwork]] = {
    "cnn": Classifier,
    "resnet9": ResNet9,
    "residual": ResidualClassifier,
    "pretrained": PretrainedClassifier,
    "pretrained-lite1": partial(PretrainedClassifier, lite=1),
}


def build_classifier(
    architecture: str, image_shape: tuple[int, int, int], num_classes: int
) -> JudgeNetwork:
    """A classifier with new weights from torch's global random state.

    Raises:
        UnknownNameError: no such architecture.
    """
    if architecture not in CLASSIFIERS:
        raise UnknownNameError("judge", architecture, CLASSIFIERS)
    return CLASSIFIERS[architecture](image_shape, num_classes)


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
    """A name of ``cgan.evaluation.judge.CLASSIFIERS``."""


class Prediction(NamedTuple):
    """The judge's output for a batch."""

    labels: Tensor
    """The predicted class of each image, int64 (B,)."""
    features: Tensor
    """The last hidden layer, or its principal components, float32 (B, FEATURE_DIM)."""


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
        """Its name in reports: its kind, the start of its digest, and its data."""
        kind = "pretrained reader" if self.is_pretrained else "judge"
        return f"{kind} {self.weights_digest[:8]} of {self.header.data}"

    @property
    def is_pretrained(self) -> bool:
        """Whether its features are those of a network that was trained on other photographs."""
        return isinstance(self.network, PretrainedClassifier)

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
        labels = self.network.head(features).argmax(1)
        return Prediction(labels, self.network.compared(features))

    @torch_defaults()
    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """p(y|x) of images (B, C, H, W) in [0, 1], on the judge's device: (B, classes).

        On a CPU each of two streams reads half of them.
        """
        images = images.to(self.device) * 2 - 1
        parts = images.chunk(2 if images.device.type == "cpu" else 1)
        logits = torch.cat(list(map_streams(self.network, parts, images.device)))
        return logits.softmax(1)

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

    def save(self, path: StrPath) -> None:
        """Save the judge as one safetensors file."""
        header = {**new_header(JUDGE), **asdict(self.header)}
        save_tensors(Path(path), dict(self.network.state_dict()), header)

    @classmethod
    @torch_defaults()
    def load(cls, path: StrPath) -> Judge:
        """Load a judge; raises ``cgan.errors.FileError`` if the file is not one."""
        path = Path(path)
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


class Judges:
    """Judges of the same data as one classifier: p(y|x) is the mean of theirs."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = list(judges)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of their predictions."""
        return self.judges[0].classes

    @property
    def name(self) -> str:
        """The names of all."""
        return " and ".join(judge.name for judge in self.judges)

    def probabilities(self, images: Tensor) -> Tensor:
        """p(y|x) of images (B, C, H, W) in [0, 1]: (B, classes)."""
        return torch.stack([judge.probabilities(images) for judge in self.judges]).mean(0)

    def classify(self, images: Tensor) -> Tensor:
        """The class of each image: (B, C, H, W) in [0, 1] to int64 (B,)."""
        return self.probabilities(images).argmax(1)

    def soft_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """Half the label and half p(y|x), as in Hinton et al. 2015, section 2, at temperature 1.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: int64 (B,).

        Returns:
            float32 (B, classes); each row sums to 1.
        """
        return soften(self.probabilities(images), labels)


def soften(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Half the label, int64 (B,), and half p(y|x), (B, classes)."""
    hard = one_hot(labels.to(probabilities.device), probabilities.shape[1])
    return (hard + probabilities) / 2
