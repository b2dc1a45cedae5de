"""How a label enters a network: the one place for it.

    generator      concat       G([z, e(y)])                          Mirza and Osindero 2014
                   cbn          gain and bias of batch norm by class  de Vries et al. 2017
    discriminator  concat       D([x, e(y)]), e(y) one more channel   Mirza and Osindero 2014
                   projection   w·h(x) + b + e(y)·h(x)                Miyato and Koyama 2018
                   auxiliary    w·h(x) + b, and beside it log p(y|x)  Odena et al. 2017 (AC-GAN)

Each module takes ``num_classes=None`` for the plain GAN, and then is told no label.
Labels are int64 of shape (B,), from 0 to num_classes − 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LABEL_DIM = 32
"""Length of the label embedding that is concatenated to z."""


def check_labels(labels: Tensor | None, num_classes: int | None) -> None:
    """A conditional network must be told a label and a plain one must not."""
    if labels is None and num_classes is not None:
        raise ValueError(f"this network is conditional: pass labels in 0..{num_classes - 1}")
    if labels is not None and num_classes is None:
        raise ValueError("this network is plain: it takes no labels")


class LatentLabel(nn.Module):
    """(z, y) to the generator's input: z itself, or z with a learned embedding of y beside it.

    Shapes: z (B, latent_dim), y (B,) to (B, ``features``).
    """

    def __init__(self, latent_dim: int, num_classes: int | None) -> None:
        super().__init__()
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, LABEL_DIM)
        self.features = latent_dim + (0 if num_classes is None else LABEL_DIM)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Concatenate where there is something to concatenate."""
        if self.embedding is None:
            return z
        return torch.cat([z, self.embedding(labels)], dim=1)


class LabelPlane(nn.Module):
    """(x, y) to the discriminator's input: x itself, or x with a learned picture of y as a channel.

    Shapes: x (B, C, H, W), y (B,) to (B, ``channels``, H, W).
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int | None) -> None:
        super().__init__()
        channels, self.height, self.width = image_shape
        self.embedding = (
            None if num_classes is None else nn.Embedding(num_classes, self.height * self.width)
        )
        self.channels = channels + (0 if num_classes is None else 1)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Concatenate where there is something to concatenate."""
        if self.embedding is None:
            return images
        plane = self.embedding(labels).view(-1, 1, self.height, self.width)
        return torch.cat([images, plane], dim=1)


class BatchNorm(nn.Module):
    """Batch norm of (B, F) or (B, F, H, W) whose gain and bias are learned for each class.

    In evaluation mode it uses running statistics, so a picture does not depend on its batch.
    Ioffe and Szegedy 2015; by class: de Vries et al. 2017, equation 2.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, num_classes: int | None) -> None:
        super().__init__()
        self.conditional = num_classes is not None
        self.gain = nn.Parameter(torch.ones(num_classes or 1, features))
        self.bias = nn.Parameter(torch.zeros(num_classes or 1, features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Normalise over batch and space, then scale and shift, by class if conditional."""
        mean, var = self.running_mean, self.running_var
        if not self.conditional or labels is None:
            gain, bias = self.gain[0], self.bias[0]
            return functional.batch_norm(x, mean, var, gain, bias, training=self.training)
        normal = functional.batch_norm(x, mean, var, training=self.training)
        shape = (*x.shape[:2], *[1] * (x.dim() - 2))
        gain = functional.embedding(labels, self.gain).view(shape)
        bias = functional.embedding(labels, self.bias).view(shape)
        return torch.addcmul(bias, normal, gain)


class Head(nn.Module):
    """Features and label to one logit, and beside it, where asked, a guess of the label.

    projection   w·h + b + e(y)·h: Miyato and Koyama 2018, equation 3.
    auxiliary    w·h + b, and a classifier that must find y itself: Odena et al. 2017, section 3.

    Shapes: h (B, features), y (B,) to (B,); with an auxiliary classifier to (B, 1 + num_classes),
    the logit first, then the classifier's.
    """

    def __init__(self, features: int, num_classes: int | None, label: str) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = self.classifier = None
        if num_classes is not None and "projection" in label:
            self.embedding = nn.Embedding(num_classes, features)
            # As small as the linear part, or its noise is all one sees.
            nn.init.normal_(self.embedding.weight, 0.0, features**-0.5)
        if num_classes is not None and "auxiliary" in label:
            self.classifier = nn.Linear(features, num_classes)

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """The logit that the picture is real and is what its label says."""
        logits: Tensor = self.linear(h).squeeze(1)
        if self.embedding is not None:
            logits = logits + (self.embedding(labels) * h).sum(1)
        if self.classifier is not None:
            logits = torch.cat([logits.unsqueeze(1), self.classifier(h)], dim=1)
        return logits


def only_if(choice: str, chosen: str, num_classes: int | None) -> int | None:
    """``num_classes`` where the label enters this way, None where it enters another way."""
    return num_classes if choice == chosen else None
