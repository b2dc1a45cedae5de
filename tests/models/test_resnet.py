"""The residual pair: resampling by hand, and activations at the first step."""

from __future__ import annotations

import pytest
import torch

from cgan.models import build_pair
from cgan.models.conditioning import BatchNorm
from cgan.models.resnet import Resample, ResidualBlock, downsample, plan_channels, upsample


def test_channels_fall_with_resolution() -> None:
    assert plan_channels((3, 32, 32), 64) == [64, 128, 192, 256]
    assert plan_channels((1, 28, 28), 64) == [64, 128, 192]
    assert plan_channels((3, 128, 128), 64) == [64, 128, 192, 256, 256, 256]


def test_upsampling_is_linear_interpolation() -> None:
    image = torch.tensor([[4.0, 8.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    expected = torch.tensor(
        [[4.0, 6.0, 8.0, 4.0], [2.0, 3.0, 4.0, 2.0], [0.0] * 4, [0.0] * 4]
    )  # zeros lie beyond the right and the lower edge
    assert torch.equal(upsample(image)[0, 0], expected)


def test_downsampling_by_hand() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 2, 2] = 16.0
    image[0, 0, 0, 1] = 16.0
    assert torch.equal(downsample(image)[0, 0], torch.tensor([[2.0, 2.0], [0.0, 4.0]]))


def test_downsampling_is_a_quarter_of_the_transposed_upsampling() -> None:
    small, large = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 8, 12)
    one = (upsample(small) * large).sum()
    other = 4 * (small * downsample(large)).sum()
    torch.testing.assert_close(one, other)


def test_the_channels_change_at_the_lower_resolution() -> None:
    up, down = Resample(4, 2, up=True), Resample(4, 2, up=False)
    assert up(torch.randn(1, 4, 3, 5)).shape == (1, 2, 6, 10)
    assert down(torch.randn(1, 4, 6, 10)).shape == (1, 2, 3, 5)
    assert (up.conv.weight.shape, down.conv.weight.shape) == ((2, 4, 1, 1), (2, 4, 1, 1))
    assert list(up.state_dict()) == ["conv.weight"]


def test_a_block_starts_as_the_identity() -> None:
    block, x = ResidualBlock(16, 4), torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)
    assert block.grouped.groups == 2  # 32 channels in groups of 16
    assert block.expand.bias is not None
    assert block.reduce.bias is None
    block(x).square().sum().backward()
    assert block.reduce.weight.grad.abs().sum() > 0  # it learns first, and then the others


def test_branches_are_scaled_by_the_number_of_blocks() -> None:
    """The first two convolutions keep the variance but for L^(−1/4) each: Fixup."""
    torch.manual_seed(0)
    x = torch.randn(8, 64, 8, 8)
    for blocks in (1, 4, 16):
        block = ResidualBlock(64, blocks)
        h = torch.nn.functional.leaky_relu(block.expand(x), 0.2)
        assert h.square().mean().item() == pytest.approx(blocks**-0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 64, 64)])
def test_activations_at_the_first_step(shape: tuple[int, int, int]) -> None:
    """In no layer of G or D they vanish or explode: root mean squares between ½ and 2."""
    torch.manual_seed(0)
    G, D = build_pair("resnet", image_shape=shape, num_classes=10, width=32)
    sizes: list[float] = []
    for network in (G, D):
        for module in (*network.blocks, *getattr(network, "up", ()), *getattr(network, "down", ())):
            module.register_forward_hook(
                lambda _, __, output: sizes.append(output.square().mean().sqrt().item())
            )
    labels = torch.arange(64) % 10
    images = G(torch.randn(64, 64), labels)
    sizes.append(images.square().mean().sqrt().item())
    D(torch.randn(64, shape[0], 1, 1).expand(64, *shape), labels)  # the filter smooths noise away
    assert len(sizes) == 2 * (2 * len(plan_channels(shape, 32)) - 1) + 1
    assert all(0.5 < size < 2 for size in sizes), sizes


def test_images_are_clamped_when_drawn_only() -> None:
    G, _ = build_pair("resnet", image_shape=(1, 8, 8), num_classes=None, width=8)
    torch.nn.init.constant_(G.to_image.weight, 3.0)
    z = torch.randn(4, 64)
    free = G(z)
    assert free.abs().max() > 1
    assert torch.equal(G.eval()(z), free.clamp(-1, 1))


def test_labels_by_batch_norm_or_beside_z() -> None:
    by_norm, _ = build_pair("resnet", num_classes=3, width=8, generator_label="cbn")
    beside_z, _ = build_pair("resnet", num_classes=3, width=8, generator_label="concat")
    assert sum(isinstance(module, BatchNorm) for module in by_norm.modules()) == 3
    assert not any(isinstance(module, BatchNorm) for module in beside_z.modules())
