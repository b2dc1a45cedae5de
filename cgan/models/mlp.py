"""A fully connected pair: Goodfellow et al. 2014; conditional: Mirza and Osindero 2014.

G   z (B, latent_dim) ── width ── 2·width ── pixels, tanh      batch norm, ReLU
D   pixels ── 2·width ── width ── logit (B,)                   leaky ReLU, no normalisation
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from cgan.models.conditioning import (
    BatchNorm,
    Head,
    LabelChannel,
    LatentConcat,
    check_labels,
    classes_if,
)
from cgan.models.layers import Dropout


def default_width(image_shape: tuple[int, int, int]) -> int:
    """256 units at any size."""
    return 256


class Generator(nn.Module):
    """G(z, y): z (B, latent_dim) and y (B,) to images (B, C, H, W) in [-1, 1]."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        latent_dim: int,
        width: int,
        label: str,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        self.embed = LatentConcat(latent_dim, classes_if(label == "concat", num_classes))
        cbn_classes = classes_if(label == "cbn", num_classes)
        self.hidden = nn.ModuleList()
        self.norms = nn.ModuleList()
        features = self.embed.features
        for units in (width, 2 * width):
            self.hidden.append(nn.Linear(features, units, bias=False))
            self.norms.append(BatchNorm(units, cbn_classes))
            features = units
        self.out = nn.Linear(features, prod(image_shape))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate one image per row of z."""
        check_labels(labels, self.num_classes)
        h = self.embed(z, labels)
        for hidden, norm in zip(self.hidden, self.norms, strict=True):
            h = relu(norm(hidden(h), labels))
        images: Tensor = self.out(h).tanh().view(-1, *self.image_shape)
        return images


class Discriminator(nn.Module):
    """D(x, y): images (B, C, H, W) in [-1, 1] and y (B,) to logits (B,).

    It has no batch norm, because with R1 each logit must depend on its own image only.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        width: int,
        label: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes = image_shape, num_classes
        self.dropout = Dropout(dropout)
        self.embed = LabelChannel(image_shape, classes_if(label == "concat", num_classes))
        self.hidden = nn.ModuleList()
        features = self.embed.channels * image_shape[1] * image_shape[2]
        for units in (2 * width, width):
            self.hidden.append(nn.Linear(features, units))
            features = units
        self.head = Head(features, num_classes, label)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """One logit per image."""
        check_labels(labels, self.num_classes)
        h = self.embed(images, labels).flatten(1)
        for hidden in self.hidden:
            h = self.dropout(leaky_relu(hidden(h), 0.2))
        logits: Tensor = self.head(h, labels)
        return logits
