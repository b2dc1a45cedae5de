"""Where the label enters a network. All conditioning is in this file.

    generator      concat       G([z, e(y)])                          Mirza and Osindero 2014
                   cbn          batch-norm gain and bias per class    de Vries et al. 2017
    discriminator  concat       D([x, e(y)]), e(y) as a channel       Mirza and Osindero 2014
                   projection   w·h(x) + b + e(y)·h(x)                Miyato and Koyama 2018
                   auxiliary    w·h(x) + b, and log p(y|x)            Odena et al. 2017 (AC-GAN)

Labels are int64 of shape (B,), from 0 to num_classes − 1. ``num_classes=None`` means unconditional:
the module ignores the label. A discriminator with projection or auxiliary also takes the label −1:
it then judges the image without a label. A generator also takes the weights of a mix of classes,
float (B, num_classes), in place of labels.

Classes that combine attributes get sums over the values: a class like "cat + indoors" gets
e(cat) + e(indoors) in place of an embedding of its own, wherever a network has one row per class:
embeddings, gains and biases of batch norm, and the auxiliary classifier of D. There the logit of a
class is the sum of one logit per value. So if all combinations occur, log p(y|x) is the sum of the
log-probabilities of one classifier per attribute. The row of a value is trained on all images that
have the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from cgan.attributes import attribute_values

LABEL_DIM = 32
"""Length of the label embedding that is concatenated to z."""
ORIGINAL = ".original"
"""The end of the name of a tensor with one row per value: torch's name for what it parametrizes."""


def check_labels(labels: Tensor | None, num_classes: int | None) -> None:
    """A conditional network needs labels; an unconditional one takes none.

    Raises:
        ValueError: labels are missing, or are given to an unconditional network.
    """
    if labels is None and num_classes is not None:
        raise ValueError(f"this network is conditional: pass labels in 0..{num_classes - 1}")
    if labels is not None and num_classes is None:
        raise ValueError("this network is unconditional: it takes no labels")


def embed_labels(labels: Tensor, table: Tensor) -> Tensor:
    """The rows (B, F) of a table (num_classes, F) that labels (B,) choose, or their weighted sums
    if ``labels`` are the weights of a mix, float (B, num_classes)."""
    return labels @ table if labels.is_floating_point() else functional.embedding(labels, table)


class LatentConcat(nn.Module):
    """Concatenate a learned embedding of y to z: (B, latent_dim), (B,) to (B, ``features``)."""

    def __init__(self, latent_dim: int, num_classes: int | None) -> None:
        super().__init__()
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, LABEL_DIM)
        self.features = latent_dim + (0 if num_classes is None else LABEL_DIM)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """[z, e(y)], or z alone."""
        if self.embedding is None:
            return z
        assert labels is not None
        return torch.cat([z, embed_labels(labels, self.embedding.weight)], dim=1)


class LabelChannel(nn.Module):
    """Add a learned embedding of y as an image channel.

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
        """[x, e(y)], or x alone."""
        if self.embedding is None:
            return images
        channel = self.embedding(labels).view(-1, 1, self.height, self.width)
        return torch.cat([images, channel], dim=1)


class BatchNorm(nn.Module):
    """Batch norm of (B, F) or (B, F, H, W), optionally with gain and bias per class.

    In evaluation mode it uses running statistics, so an image does not depend on its batch.
    Ioffe and Szegedy 2015; conditional: de Vries et al. 2017, equation 2.
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
        self.all_reduce_mean: Callable[[Tensor], Tensor] | None = None
        self.world_size = 1

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Normalise over batch and space, then scale and shift (per class if conditional)."""
        chosen = labels if self.conditional else None
        mean, var = self.running_mean, self.running_var
        if self.training and self.all_reduce_mean is not None:
            normal = self._normalise_globally(x, self.all_reduce_mean)
        elif chosen is not None:
            normal = functional.batch_norm(x, mean, var, training=self.training)
        else:
            gain, bias = self.gain[0], self.bias[0]
            return functional.batch_norm(x, mean, var, gain, bias, training=self.training)
        if chosen is None:
            chosen = torch.zeros(1, dtype=torch.int64, device=x.device)
        shape = (chosen.shape[0], x.shape[1], *[1] * (x.dim() - 2))
        gain = embed_labels(chosen, self.gain).view(shape)
        bias = embed_labels(chosen, self.bias).view(shape)
        return torch.addcmul(bias, normal, gain)

    def _normalise_globally(self, x: Tensor, mean_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Normalise by the moments of the global batch; x is this process's shard of it.

        The moments are computed in float32, as ``batch_norm`` does.
        """
        dtype, x = x.dtype, x.float()
        others = [dim for dim in range(x.dim()) if dim != 1]
        mean = mean_of(x.mean(others, keepdim=True))
        var = mean_of((x - mean).square().mean(others, keepdim=True))
        count = self.world_size * x.numel() // x.shape[1]
        with torch.no_grad():  # as functional.batch_norm: momentum 0.1, unbiased
            self.running_mean.lerp_(mean.flatten(), 0.1)
            self.running_var.lerp_(var.flatten() * (count / (count - 1)), 0.1)
        return ((x - mean) * (var + 1e-5).rsqrt()).to(dtype)


def sync_batch_norm(
    network: nn.Module, all_reduce_mean: Callable[[Tensor], Tensor], world_size: int
) -> None:
    """Make batch norm use the moments of the global batch, split evenly over processes.

    Args:
        network: its ``BatchNorm`` modules are changed in place.
        all_reduce_mean: differentiable mean of a tensor over all processes.
        world_size: number of processes.
    """
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.all_reduce_mean, module.world_size = all_reduce_mean, world_size


class Head(nn.Module):
    """Map features and label to a logit and, optionally, class logits.

    projection   w·h + b + e(y)·h: Miyato and Koyama 2018, equation 3.
    auxiliary    w·h + b, and a classifier of h: Odena et al. 2017, section 3.

    With the label −1 the logit is w·h + b, that an image is real, whatever its class.

    Shapes: h (B, features), y (B,) to (B,). With an auxiliary classifier the output is
    (B, 1 + num_classes): the logit first, then the class logits.
    """

    def __init__(self, features: int, num_classes: int | None, label: str) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = self.classifier = None
        if num_classes is not None and "projection" in label:
            self.embedding = nn.Embedding(num_classes, features)
            # Same scale as the linear part. With N(0, 1) the embedding would dominate the logit.
            nn.init.normal_(self.embedding.weight, 0.0, features**-0.5)
        if num_classes is not None and "auxiliary" in label:
            self.classifier = nn.Linear(features, num_classes)

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """The logit that the image is real and matches its label, if it has one."""
        logits: Tensor = self.linear(h).squeeze(1)
        if self.embedding is not None:
            assert labels is not None
            matches = (self.embedding(labels.clamp_min(0)) * h).sum(1)
            logits = logits + matches * (labels >= 0)
        if self.classifier is not None:
            logits = torch.cat([logits.unsqueeze(1), self.classifier(h)], dim=1)
        return logits


def per_class_tensors(network: nn.Module) -> set[str]:
    """Names of the tensors with one row per class."""
    found = set()
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Embedding):
            found.add(f"{prefix}weight")
        elif isinstance(module, BatchNorm) and module.conditional:
            found |= {f"{prefix}gain", f"{prefix}bias"}
        elif isinstance(module, Head) and module.classifier is not None:
            found |= {f"{prefix}classifier.weight", f"{prefix}classifier.bias"}
    return found


def classes_if(condition: bool, num_classes: int | None) -> int | None:
    """``num_classes`` if the label enters here, else None."""
    return num_classes if condition else None


def value_indices(rows: Sequence[tuple[str, ...]]) -> Tensor:
    """The values of each class, numbered through all attributes: int64 (attributes, classes)."""
    indices, first = [], 0
    for column, values in zip(zip(*rows, strict=True), attribute_values(rows), strict=True):
        indices.append([first + values.index(value) for value in column])
        first += len(values)
    return torch.tensor(indices)


class SumOverValues(nn.Module):
    """Rows per value to rows per class: (values, …) to (classes, …).

    Args:
        indices: as from ``value_indices``.
    """

    indices: Tensor

    def __init__(self, indices: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """The sum of the rows of each class's values."""
        # Indexing would add up gradients in the order in which threads come; `embedding` does not.
        rows = functional.embedding(self.indices, values.reshape(len(values), -1)).sum(0)
        return rows.view(-1, *values.shape[1:])

    def right_inverse(self, classes: Tensor) -> Tensor:
        """The rows per value whose sums are closest to these rows per class."""
        design = torch.zeros(len(classes), int(self.indices.max()) + 1, device=classes.device)
        design.scatter_(1, self.indices.T, 1.0)
        rows: Tensor = torch.linalg.pinv(design) @ classes.reshape(len(classes), -1)
        return rows.view(-1, *classes.shape[1:])


def share_values(network: nn.Module, rows: Sequence[tuple[str, ...]]) -> None:
    """Make each tensor with one row per class a sum over values; the network is changed in place.

    The sums start at the scale of the initial rows.

    Args:
        network: a generator or a discriminator whose tensors have one row per class.
        rows: the values of each class.
    """
    for name in sorted(per_class_tensors(network)):
        module_name, _, tensor = name.rpartition(".")
        module = network.get_submodule(module_name)
        before = getattr(module, tensor).detach().std()
        to_classes = SumOverValues(value_indices(rows))
        parametrize.register_parametrization(module, tensor, to_classes, unsafe=True)
        after = getattr(module, tensor).detach().std()
        if tensor == "weight" and after > 0:  # not the gains of batch norm, which are near 1
            with torch.no_grad():
                network.get_parameter(f"{module_name}.parametrizations.{tensor}{ORIGINAL}").mul_(
                    before / after
                )


def to_class_rows(
    tensors: Mapping[str, Tensor], rows: Sequence[tuple[str, ...]] | None
) -> dict[str, Tensor]:
    """The weights of a network with shared values as those of an ordinary conditional network.

    Args:
        tensors: by name, as in its ``state_dict``.
        rows: the values of each class; None returns the tensors unchanged.
    """
    found = dict(tensors)
    for name, tensor in tensors.items():
        if rows and name.endswith(ORIGINAL):
            module, _, attribute = name.removesuffix(ORIGINAL).rpartition(".parametrizations.")
            to_classes = SumOverValues(value_indices(rows).to(tensor.device))
            found[f"{module}.{attribute}"] = to_classes(found.pop(name))
    return found
