"""Networks for classes that combine attributes: their embeddings are sums over the values.

A class like "cat + indoors" gets e(cat) + e(indoors) in place of an embedding of its own, wherever
a network has one row per class: embeddings, gains and biases of batch norm, and the auxiliary
classifier of D. There the logit of a class is the sum of one logit per value. So if all
combinations occur, log p(y|x) is the sum of the log-probabilities of one classifier per attribute.
The row of a value is trained on all images that have the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cgan.attributes import attribute_values
from cgan.models.conditioning import per_class_tensors

ORIGINAL = ".original"
"""The end of the name of a tensor with one row per value: torch's name for what it parametrizes."""


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
        return values[self.indices].sum(0)

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
