"""The pair for photographs: a crop of a canvas, chosen by z."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import ConfigError
from cgan.models import build_pair, photo
from cgan.training.plan import Plan
from cgan.training.state import TrainState


def test_nearest_neighbours_and_a_convolution_in_one() -> None:
    """In value, by the weights and by the input."""
    torch.manual_seed(0)
    layer, x = photo.NearestConv(5, 7), torch.randn(2, 5, 4, 6, requires_grad=True)
    weight, upstream = layer.conv.weight, torch.randn(2, 7, 8, 12)
    expected = conv2d(interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, [x, weight], upstream),
        torch.autograd.grad(expected, [x, weight], upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_crop_by_hand() -> None:
    x = torch.arange(24.0).view(2, 1, 3, 4)
    found = photo.crop(x, torch.tensor([[0, 1], [1, 2]]), 2, 2, torch.tensor([0, 1]))
    assert found.tolist() == [[[[1, 2], [5, 6]]], [[[19, 18], [23, 22]]]]


def blind(shape: tuple[int, int, int], mirror: bool = False) -> photo.Generator:
    """A generator that sees only the later numbers of z, so the first three move its picture."""
    torch.manual_seed(0)
    G, _ = build_pair(
        "photo", image_shape=shape, num_classes=None, latent_dim=8, width=8, mirror=mirror
    )
    assert isinstance(G, photo.Generator)
    with torch.no_grad():
        G.project.weight[:, :3] = 0
        for parameter in G.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        G.project.weight[:, :3] = 0
    return G.eval()


def latents(*moved: tuple[float, float, float]) -> Tensor:
    """z with these first numbers and the same others."""
    others = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    return torch.cat([torch.tensor(moved), others.expand(len(moved), -1)], dim=1)


@pytest.mark.parametrize(("side", "cell"), [(56, 8), (28, 4), (112, 16)])
@torch.no_grad()
def test_z_moves_the_picture_by_whole_pixels(side: int, cell: int) -> None:
    G = blind((3, side, side))
    assert G.base[1] == side // cell + 1
    middle = torch.special.ndtri((torch.arange(cell) + 0.5) / cell).tolist()
    down = G(latents(*((value, -9.0, 0.0) for value in middle)))
    right = G(latents(*((-9.0, value, 0.0) for value in middle)))
    torch.testing.assert_close(down[0], right[0])
    edge = 2 * cell  # nearer to it, convolutions reach beyond the canvas
    exact = {"atol": 1e-5, "rtol": 1e-4}
    for step in range(1, cell):
        here, there = slice(edge, side - edge - step), slice(edge + step, side - edge)
        torch.testing.assert_close(down[step][:, here], down[0][:, there], **exact)
        torch.testing.assert_close(right[step][:, :, here], right[0][:, :, there], **exact)
    assert down[0][:, edge:-edge].std() > 0.05


def test_all_shifts_are_equally_frequent() -> None:
    G = blind((1, 32, 32))
    shift = G.shift_of(torch.randn(40_000, 8, generator=torch.Generator().manual_seed(2)))
    for axis in range(2):
        counts = shift[:, axis].bincount(minlength=8)
        assert counts.shape == (8,)
        assert (counts - 5_000).abs().max() < 300  # more than four standard deviations
    together = (8 * shift[:, 0] + shift[:, 1]).bincount(minlength=64)
    assert together.min() > 500


@torch.no_grad()
def test_the_third_number_mirrors_only_if_asked_to() -> None:
    z = latents((0.3, -0.2, 1.0), (0.3, -0.2, -1.0))
    pictures = blind((3, 32, 32), mirror=True)(z)
    assert torch.equal(pictures[0], pictures[1].flip(2))
    assert not torch.equal(pictures[0], pictures[1])
    pictures = blind((3, 32, 32))(z)
    assert torch.equal(pictures[0], pictures[1])


@pytest.mark.parametrize(
    ("changes", "mirrors"),
    [({}, True), ({"augment": "hue"}, False), ({"augment": "hue", "model.mirror": True}, True)],
)
def test_it_mirrors_where_the_augmentation_does(
    changes: dict[str, object], mirrors: bool, tmp_path: Path
) -> None:
    """The file says so, and what is loaded from it mirrors too."""
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    pets = ImageDataset("pets", images, torch.arange(4) % 2, ("cat", "dog"))
    config = load_config("folder-dcgan", {"model.width": 4, "device": "cpu", **changes})
    state = TrainState(Plan(config, pets, torch.device("cpu")))
    assert state.generator.mirror is mirrors
    state.save_generator(tmp_path / "generator.safetensors")
    sampler = cgan.load(tmp_path / "generator.safetensors")
    assert sampler.config.model.mirror is mirrors
    z = latents((0.3, -0.2, 1.0))
    z = torch.cat([z, torch.zeros(1, sampler.latent_dim - 8)], dim=1)
    assert torch.equal(
        sampler.generator(z, torch.tensor([1])), state.generator_ema(z, torch.tensor([1]))
    )


def test_the_network_sees_where_its_crop_is() -> None:
    """So it can keep objects in their places."""
    G, _ = build_pair("photo", image_shape=(3, 32, 32), num_classes=None, latent_dim=8, width=8)
    z = torch.randn(4, 8, requires_grad=True)
    G(z).square().sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(0) > 0).all()


def test_z_is_long_enough() -> None:
    with pytest.raises(ConfigError, match="takes at least 3"):
        build_pair("photo", latent_dim=2)


def test_every_layer_keeps_one_layout() -> None:
    G, D = (
        network.to(memory_format=torch.channels_last)
        for network in build_pair("photo", image_shape=(3, 32, 32), num_classes=10)
    )
    seen: list[bool] = []

    def watch(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        if output.dim() == 4:
            seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in (*G.modules(), *D.modules()):
        module.register_forward_hook(watch)
    labels = torch.arange(4)
    D(G(torch.randn(4, 64), labels), labels)
    assert len(seen) > 8
    assert all(seen)
