"""Fused Adam with less around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)`` (Kingma and Ba 2015), bit for bit.

    Its ``step`` goes straight to torch's fused kernel. That of torch imports the compiler, which
    takes more than a second, and spends as long on preparations as on the update of a small
    network. Weight decay and the variants of Adam are left out.

    Args:
        parameters: of one floating-point dtype, on one device.
        lr: learning rate, a number or a tensor.
        betas: β₁ and β₂.
    """

    def __init__(self, parameters: Any, lr: float | Tensor, betas: tuple[float, float]) -> None:
        super().__init__(parameters, lr, betas, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        (group,) = self.param_groups
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        means: list[Tensor] = []
        squares: list[Tensor] = []
        steps: list[Tensor] = []
        prepare: Any = self._init_group
        prepare(group, parameters, gradients, means, squares, [], steps)
        if not parameters:
            return
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
