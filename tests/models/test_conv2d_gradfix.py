"""The convolution for gradient penalties equals torch's, with all its derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cgan.models import layers
from cgan.models.layers import Conv2d


def pair(kernel: int, groups: int) -> tuple[nn.Conv2d, Conv2d]:
    """The same convolution by torch and by us, in float64."""
    shape = (4, 6, kernel)
    options = {"padding": kernel // 2, "groups": groups, "dtype": torch.float64}
    torch.manual_seed(0)
    torch_conv = nn.Conv2d(*shape, **options)  # type: ignore[arg-type]
    ours = Conv2d(*shape, **options)  # type: ignore[arg-type]
    ours.load_state_dict(torch_conv.state_dict())
    return torch_conv, ours


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 2), (1, 2)])
def test_values_and_first_and_second_derivatives_are_torchs(kernel: int, groups: int) -> None:
    found: list[list[Tensor]] = []
    for conv in pair(kernel, groups):
        torch.manual_seed(1)
        x = torch.randn(3, 4, 5, 7, dtype=torch.float64, requires_grad=True)
        out = conv(x)
        # The gradient depends on x and on the weights, as that of a network with leaky ReLUs does.
        (of_x,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        assert conv.bias is not None
        inputs = [x, conv.weight, conv.bias]
        second = torch.autograd.grad(of_x.square().sum() + out.sum(), inputs)
        found.append([out, of_x, *second])
    for torchs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs)


def test_every_derivative_up_to_the_third_order() -> None:
    """With respect to all three operands, by finite differences."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def convolve(x: Tensor, w: Tensor) -> Tensor:
        return layers.convolve(x, w, (1, 1), 2)

    def gradients(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        value = convolve(x, w).pow(3).sum()
        return torch.autograd.grad(value, (x, w), create_graph=True)

    assert torch.autograd.gradcheck(convolve, (x, w))
    assert torch.autograd.gradgradcheck(convolve, (x, w))
    assert torch.autograd.gradgradcheck(gradients, (x, w))


def test_nothing_else_is_computed_without_a_second_derivative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drawing images and autocast use torch's own convolution."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError

    _, conv = pair(3, 2)
    conv = conv.float()
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        expected = conv(x)
    monkeypatch.setattr(layers, "convolve", refuse)
    assert torch.equal(conv(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x.requires_grad_())
    assert out.dtype == torch.bfloat16
    with pytest.raises(AssertionError):
        conv(x)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (3, {"stride": 2}),
        (3, {"dilation": 2}),
        (3, {"padding_mode": "reflect"}),
        (1, {"padding": 1}),
    ],
)
def test_what_it_does_not_support_is_refused(kernel: int, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use torch.nn.Conv2d"):
        Conv2d(4, 4, kernel, **options)
