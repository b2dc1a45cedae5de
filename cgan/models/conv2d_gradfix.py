"""A convolution that is fast to differentiate twice, as gradient penalties do.

PyTorch computes the second derivative with respect to the weights as a convolution that has the
whole image as its kernel, in a loop over the groups. But a convolution is linear in its input and
in its weights, so each of its derivatives, of any order, is one of three operations: the
convolution, or its gradient with respect to the input or to the weights. All three have fast
kernels. The idea is that of ``conv2d_gradfix`` in StyleGAN2-ADA (Karras et al. 2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

Gradients = tuple[Tensor | None, Tensor | None, None, None, None]


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with stride 1, and the same values and derivatives.

    A kernel of 1×1 is a matrix product over the channels, which has fast derivatives by itself.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1) and self.groups == 1 and input.device.type != "mps":
            pixels = input.permute(0, 2, 3, 1)
            out: Tensor = linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)
        elif not input.requires_grad or uses_autocast(input.device):
            out = super()._conv_forward(input, weight, bias)  # nothing is differentiated twice
        else:
            out = _Convolution.apply(input, weight, None, self.padding, self.groups)
            out = out if bias is None else out + bias.view(-1, 1, 1)
        return out


def uses_autocast(device: torch.device) -> bool:
    """Whether autocast is on, on this device."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


class _Convolution(torch.autograd.Function):
    """x, w ↦ x ∗ w: (B, inputs, H, W) and the weights to (B, outputs, H, W).

    In all three functions ``like`` only has the shape of the result.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, like: None, padding: Any, groups: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.arguments = padding, groups
        return conv2d(x, w, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, w = ctx.saved_tensors
        of_x, of_w = ctx.needs_input_grad[:2]
        return (
            _InputGradient.apply(gradient, w, x, *ctx.arguments) if of_x else None,
            _WeightGradient.apply(gradient, x, w, *ctx.arguments) if of_w else None,
            *(None, None, None),
        )


class _InputGradient(torch.autograd.Function):
    """g, w ↦ ∂⟨g, x ∗ w⟩/∂x: (B, outputs, H, W) and the weights to (B, inputs, H, W)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, like: Tensor, padding: Any, groups: int) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.arguments = padding, groups
        return gradient_of(g, like, w, padding, groups, of_input=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        g, w = ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        return (
            _Convolution.apply(gradient, w, None, *ctx.arguments) if of_g else None,
            _WeightGradient.apply(g, gradient, w, *ctx.arguments) if of_w else None,
            *(None, None, None),
        )


class _WeightGradient(torch.autograd.Function):
    """g, x ↦ ∂⟨g, x ∗ w⟩/∂w: (B, outputs, H, W) and (B, inputs, H, W) to the weights' shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, like: Tensor, padding: Any, groups: int) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.arguments = padding, groups
        return gradient_of(g, x, like, padding, groups, of_input=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        g, x = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        return (
            _Convolution.apply(x, gradient, None, *ctx.arguments) if of_g else None,
            _InputGradient.apply(g, gradient, x, *ctx.arguments) if of_x else None,
            *(None, None, None),
        )


def gradient_of(
    g: Tensor, x: Tensor, w: Tensor, padding: Any, groups: int, of_input: bool
) -> Tensor:
    """One of the two gradients of ⟨g, x ∗ w⟩."""
    wanted = [of_input, not of_input, False]
    gradients = torch.ops.aten.convolution_backward(
        g, x, w, None, [1, 1], list(padding), [1, 1], False, [0, 0], groups, wanted
    )
    result: Tensor = gradients[0 if of_input else 1]
    return result
