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

from collections.abc import Callable

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
        self.mean_of_parts: Callable[[Tensor], Tensor] | None = None
        self.parts = 1

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Normalise over batch and space, then scale and shift, by class if conditional."""
        chosen = labels if self.conditional else None
        mean, var = self.running_mean, self.running_var
        if self.training and self.mean_of_parts is not None:
            normal = self._normalise_together(x, self.mean_of_parts)
        elif chosen is not None:
            normal = functional.batch_norm(x, mean, var, training=self.training)
        else:
            gain, bias = self.gain[0], self.bias[0]
            return functional.batch_norm(x, mean, var, gain, bias, training=self.training)
        if chosen is None:
            chosen = torch.zeros(1, dtype=torch.int64, device=x.device)
        shape = (len(chosen), x.shape[1], *[1] * (x.dim() - 2))
        gain = functional.embedding(chosen, self.gain).view(shape)
        bias = functional.embedding(chosen, self.bias).view(shape)
        return torch.addcmul(bias, normal, gain)

    def _normalise_together(self, x: Tensor, mean_of: Callable[[Tensor], Tensor]) -> Tensor:
        """By the moments of the whole batch, of which every process holds an equal part."""
        others = [dim for dim in range(x.dim()) if dim != 1]
        mean = mean_of(x.mean(others, keepdim=True))
        var = mean_of((x - mean).square().mean(others, keepdim=True))
        count = self.parts * x.numel() // x.shape[1]
        with torch.no_grad():  # as functional.batch_norm keeps them
            self.running_mean.lerp_(mean.flatten(), 0.1)
            self.running_var.lerp_(var.flatten() * (count / (count - 1)), 0.1)
        return (x - mean) * (var + 1e-5).rsqrt()


def share_moments(network: nn.Module, mean: Callable[[Tensor], Tensor], parts: int) -> None:
    """Let batch norm see the whole batch where each of so many processes holds one part of it.

    Args:
        network: whose batch norms are meant.
        mean: of a tensor over all processes, differentiable.
        parts: how many processes.
    """
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.mean_of_parts, module.parts = mean, parts


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
