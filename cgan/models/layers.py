"""Layers and helpers that several networks use.

- ``Conv2d``, fast to differentiate twice, as gradient penalties do. PyTorch computes the second
  derivative with respect to the weights as a convolution that has the whole image as its kernel, in
  a loop over the groups. But a convolution is linear in its input and in its weights, so each of
  its derivatives, of any order, is one of three operations: the convolution, or its gradient with
  respect to the input or to the weights. All three have fast kernels. The idea is that of
  ``conv2d_gradfix`` in StyleGAN2-ADA (Karras et al. 2020).
- ``Dropout``, whose mask depends on an image's place in the global batch, not on the process.
- ``frozen``: a network that gets no gradient for the length of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from cgan.runtime.streams import random_generator

X, W, G = 0, 1, 2
"""The operands of ⟨g, x ∗ w⟩: input, weights, and a gradient of the output."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with stride 1, and the same values and derivatives.

    A kernel of 1×1 is a matrix product over the channels, which has fast derivatives by itself.

    Raises:
        ValueError: stride or dilation is not 1, the padding is not zeros, or a kernel of 1×1 has
            padding.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usual = (self.stride, self.dilation, self.padding_mode) == ((1, 1), (1, 1), "zeros")
        if not usual or (self.kernel_size == (1, 1) and self.padding != (0, 0)):
            raise ValueError(
                "this convolution has stride 1, dilation 1 and zero padding, and a kernel of 1×1 "
                "none: use torch.nn.Conv2d"
            )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1) and self.groups == 1 and input.device.type != "mps":
            pixels = input.permute(0, 2, 3, 1)
            out: Tensor = linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)
        elif not input.requires_grad or uses_autocast(input.device):
            out = super()._conv_forward(input, weight, bias)  # nothing is differentiated twice
        else:
            out = convolve(input, weight, self.padding, self.groups)
            out = out if bias is None else out + bias.view(-1, 1, 1)
        return out


def uses_autocast(device: torch.device) -> bool:
    """Whether autocast is on, on this device."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


class _Gradient(torch.autograd.Function):
    """The gradient of ⟨g, x ∗ w⟩ with respect to the operand number ``of``: x, w or g.

    The form is linear in each operand. So the derivatives of this gradient are gradients with
    respect to the other two operands, with the incoming gradient in the place of this one.

    Shapes: x (B, inputs, H, W), w (outputs, inputs / groups, height, width) and g
    (B, outputs, H, W). The operand ``of`` is only used for its shape; g may then be None.
    """

    @staticmethod
    def forward(
        ctx: Any, of: int, x: Tensor, w: Tensor, g: Tensor | None, padding: Any, groups: int
    ) -> Tensor:
        ctx.of, ctx.options = of, (padding, groups)
        ctx.save_for_backward(*(None if index == of else t for index, t in enumerate((x, w, g))))
        if of == G:
            return conv2d(x, w, padding=padding, groups=groups)
        wanted = [of == X, of == W, False]
        gradients = torch.ops.aten.convolution_backward(
            g, x, w, None, [1, 1], list(padding), [1, 1], False, [0, 0], groups, wanted
        )
        result: Tensor = gradients[of]
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        operands = list(ctx.saved_tensors)
        operands[ctx.of] = gradient
        derivatives = [
            _Gradient.apply(of, *operands, *ctx.options)
            if of != ctx.of and ctx.needs_input_grad[1 + of]
            else None
            for of in (X, W, G)
        ]
        return (None, *derivatives, None, None)


def convolve(x: Tensor, w: Tensor, padding: Any, groups: int) -> Tensor:
    """x ∗ w with stride 1: (B, inputs, H, W) and the weights to (B, outputs, H, W)."""
    out: Tensor = _Gradient.apply(G, x, w, None, padding, groups)
    return out


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) of (B, F) or (B, C, H, W).

    Each process draws the masks of the global batch and applies those of its shard. So two
    processes never share a mask, and one GAN gets the same masks at any number of processes.

    Args:
        p: the probability of a zero, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.rank, self.world_size = p, 0, 1

    def forward(self, x: Tensor) -> Tensor:
        """Set values to zero with probability p and scale the others by 1 / (1 − p)."""
        if not self.training or self.p == 0:
            return x
        shape = (self.world_size * len(x), *x.shape[2:], x.shape[1])  # channels-last, like x
        u = torch.rand(shape, device=x.device, generator=random_generator())
        kept = u.chunk(self.world_size)[self.rank] >= self.p
        return x * kept.movedim(-1, 1).to(x.dtype).div_(1 - self.p)


def shard_dropout(network: nn.Module, rank: int, world_size: int) -> None:
    """Make dropout use the masks of this process's shard.

    Args:
        network: its ``Dropout`` modules are changed in place.
        rank: the number of this process.
        world_size: number of processes.
    """
    for module in network.modules():
        if isinstance(module, Dropout):
            module.rank, module.world_size = rank, world_size


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Context in which no parameter requires a gradient; those that did require it again after."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
