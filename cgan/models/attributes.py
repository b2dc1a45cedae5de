"""Networks for classes that combine attributes: their embeddings are sums over the values.

A class like "cat + indoors" gets e(cat) + e(indoors) in place of an embedding of its own, wherever
a network has one row per class: embeddings, gains and biases of batch norm, and the auxiliary
classifier of D. There the logit of a class is the sum of one logit per value. So if all
combinations occur, log p(y|x) is the sum of the log-probabilities of one classifier per attribute.
Combinations with few images learn from all other images of their values.
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


def design_matrix(rows: Sequence[tuple[str, ...]]) -> Tensor:
    """Which values each class has: float32 of 0 and 1, (classes, values of all attributes)."""
    columns = [
        [float(row[index] == value) for row in rows]
        for index, values in enumerate(attribute_values(rows))
        for value in values
    ]
    return torch.tensor(columns).T


class SumOverValues(nn.Module):
    """Rows per value to rows per class: (values, …) to (classes, …)."""

    def __init__(self, design: Tensor) -> None:
        super().__init__()
        self.register_buffer("design", design, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """The sum of the rows of each class's values."""
        assert isinstance(self.design, Tensor)
        rows: Tensor = self.design @ values.reshape(len(values), -1)
        return rows.view(-1, *values.shape[1:])

    def right_inverse(self, classes: Tensor) -> Tensor:
        """The rows per value whose sums are closest to these rows per class."""
        assert isinstance(self.design, Tensor)
        rows: Tensor = torch.linalg.pinv(self.design) @ classes.reshape(len(classes), -1)
        return rows.view(-1, *classes.shape[1:])


def share_values(network: nn.Module, rows: Sequence[tuple[str, ...]]) -> None:
    """Make each tensor with one row per class a sum over values; the network is changed in place.

    Args:
        network: a generator or a discriminator with one class per row.
        rows: the values of each class.
    """
    design = design_matrix(rows)
    for name in sorted(per_class_tensors(network)):
        module_name, _, tensor = name.rpartition(".")
        module = network.get_submodule(module_name)
        parametrize.register_parametrization(module, tensor, SumOverValues(design), unsafe=True)


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
            to_classes = SumOverValues(design_matrix(rows).to(tensor.device))
            found[f"{module}.{attribute}"] = to_classes(found.pop(name))
    return found
