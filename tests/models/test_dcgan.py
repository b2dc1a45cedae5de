"""The convolutional pair on a CPU: the same numbers, in one layout."""

import pytest
import torch

from cgan.models import dcgan


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_patches_times_weights_are_the_convolution(channels: int) -> None:
    """In value, by weights, and by pictures."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(channels, 8, 4, stride=2, padding=1)
    x = torch.randn(5, channels, 12, 20, requires_grad=True)
    upstream = torch.randn(5, 8, 6, 10)
    asked = [x, convolution.weight, convolution.bias]
    expected, found = convolution(x), dcgan.conv_as_matmul(x, convolution)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(expected, asked, upstream),
        torch.autograd.grad(found, asked, upstream),
        strict=True,
    ):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def phases(layer: torch.nn.Module) -> int:
    """Different values inside a picture that a layer draws of equal pixels."""
    inside = layer(torch.ones(1, 4, 6, 6))[0, 0, 3:-3, 3:-3]
    return len(inside.detach().double().round(decimals=5).unique())


def test_a_resize_convolution_draws_no_checkerboard() -> None:
    torch.manual_seed(0)
    G = dcgan.Generator((3, 32, 32), None, 8, 4, "concat", last_layer="resize")
    assert G.up[-1](torch.ones(2, 4, 16, 16)).shape == (2, 3, 32, 32)
    assert phases(G.up[-1]) == 1
    transposed = dcgan.Generator((3, 32, 32), None, 8, 4, "concat").up[-1]
    assert phases(transposed) == 4  # an even and an odd row and column each


@pytest.mark.parametrize("last_layer", ["transposed", "resize"])
def test_every_layer_keeps_one_layout(last_layer: str) -> None:
    """Where two meet in one operation, a CPU takes twenty times as long for it."""
    torch.manual_seed(0)
    G, D = (
        network.to(memory_format=torch.channels_last)
        for network in (
            dcgan.Generator((1, 28, 28), 10, 64, 32, "concat", last_layer),
            dcgan.Discriminator((1, 28, 28), 10, 32, "projection"),
        )
    )
    seen: list[bool] = []

    def note(tensor: torch.Tensor) -> None:
        seen.append(tensor.is_contiguous(memory_format=torch.channels_last))

    def watch(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        if output.dim() == 4:
            note(output)
            output.register_hook(note)

    for module in [*G.norms, *G.up, *D.down]:
        module.register_forward_hook(watch)
    labels = torch.arange(4)
    D(G(torch.randn(4, 64), labels), labels).sum().backward()
    called = 2 if last_layer == "resize" else 1  # the transposed one is a matrix product here
    assert len(seen) == 2 * (2 + called + 1)
    assert all(seen)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 24)])
def test_the_last_layer_is_the_same_as_a_matrix_product(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    G = dcgan.Generator(shape, None, 8, 8, "concat")
    G.up[-1].bias.data.normal_()  # type: ignore[union-attr,operator]
    h = torch.randn(3, 8, shape[1] // 2, shape[2] // 2, requires_grad=True)
    found = []
    for training in (True, False):
        images = G.train(training).to_image(h)
        gradients = torch.autograd.grad(images.square().sum(), [h, *G.up[-1].parameters()])
        found.append((images, *gradients))
    for fast, usual in zip(*found, strict=True):
        torch.testing.assert_close(fast, usual, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[1][0], G.up[-1](h))
