"""The networks of judges: small classifiers that are built differently."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cgan.errors import UnknownNameError

FEATURE_DIM = 128
"""Length of a judge's feature vector."""


class JudgeNetwork(nn.Module):
    """Maps images (B, C, H, W) in [-1, 1] to features (B, FEATURE_DIM) and logits (B, classes)."""

    features: nn.Sequential
    head: nn.Linear

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        logits: Tensor = self.head(self.features(images))
        return logits


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


class ResidualBlock(nn.Module):
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
            layers += [nn.Conv2d(channels, out, 3, stride=stride, padding=1), ResidualBlock(out)]
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


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


CLASSIFIERS: dict[str, Callable[[tuple[int, int, int], int], JudgeNetwork]] = {
    "cnn": Classifier,
    "resnet9": ResNet9,
    "residual": ResidualClassifier,
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
