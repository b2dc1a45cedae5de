"""The contract of every backbone, size, number of channels and way of conditioning."""

import itertools
from typing import Any

import pytest
import torch

from cgan.config import Backbone
from cgan.errors import ConfigError, UnknownNameError
from cgan.models import (
    BACKBONES,
    DISCRIMINATOR_LABELS,
    GENERATOR_LABELS,
    build_pair,
    count_parameters,
)
from cgan.models.dcgan import count_halvings

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 12, 20), (3, 64, 64)]
WAYS = list(itertools.product(GENERATOR_LABELS, DISCRIMINATOR_LABELS))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_shapes_and_range(backbone: str, shape: tuple[int, int, int]) -> None:
    for classes in (5, None):
        G, D = build_pair(backbone, image_shape=shape, num_classes=classes, width=4)
        labels = None if classes is None else torch.tensor([0, 4, 2])
        pictures = G(torch.randn(3, 64), labels)
        assert pictures.shape == (3, *shape)
        assert G.eval()(torch.randn(3, 64), labels).abs().max() <= 1
        assert D(pictures, labels).shape == (3,)


@pytest.mark.parametrize(("generator_label", "discriminator_label"), WAYS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_label_changes_the_answer_and_every_weight_learns(
    backbone: str, generator_label: str, discriminator_label: str
) -> None:
    torch.manual_seed(0)
    G, D = build_pair(
        backbone, image_shape=(1, 8, 8), num_classes=3, width=8,
        generator_label=generator_label, discriminator_label=discriminator_label,
    )  # fmt: skip
    z, labels = torch.randn(6, 64), torch.tensor([0, 1, 2] * 2)
    with torch.no_grad():  # batch norm by class starts the same for all classes
        for parameter in (*G.parameters(), *D.parameters()):  # and residual branches start at 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    pictures = G(z, labels)
    D(pictures, labels).sum().backward()
    for network in (G, D):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    G.eval()
    same_z = z[:1].expand(3, -1)
    drawn = G(same_z, torch.arange(3))
    assert not torch.allclose(drawn[0], drawn[1])
    judged = D(pictures[:1].expand(3, -1, -1, -1), torch.arange(3))
    if discriminator_label == "auxiliary":  # it must find the label, so it is not told
        assert judged.shape == (3, 1 + 3)
        torch.testing.assert_close(judged[0], judged[1])
    else:
        assert not torch.allclose(judged[0], judged[1])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_dropout_is_the_discriminators_and_only_while_it_learns(backbone: str) -> None:
    torch.manual_seed(0)
    G, D = build_pair(backbone, image_shape=(1, 8, 8), num_classes=3, width=8, dropout=0.5)
    images, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    assert not torch.equal(D(images, labels), D(images, labels))
    D.eval()
    assert torch.equal(D(images, labels), D(images, labels))
    assert not any(isinstance(module, torch.nn.Dropout) for module in G.modules())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_logit_depends_on_its_own_picture_alone(backbone: str) -> None:
    _, D = build_pair(backbone, image_shape=(1, 8, 8), num_classes=3, width=4)
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    D(images, torch.tensor([0, 1, 2, 0]))[2].backward()
    assert images.grad is not None
    assert images.grad[[0, 1, 3]].abs().sum() == 0
    assert images.grad[2].abs().sum() > 0


def test_forgotten_or_superfluous_labels_are_refused() -> None:
    G, D = build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, width=4)
    with pytest.raises(ValueError, match="conditional"):
        G(torch.randn(2, 64))
    with pytest.raises(ValueError, match="conditional"):
        D(torch.randn(2, 1, 8, 8))
    G, _ = build_pair("mlp", image_shape=(1, 8, 8), num_classes=None, width=4)
    with pytest.raises(ValueError, match="unconditional"):
        G(torch.randn(2, 64), torch.tensor([0, 1]))


@pytest.mark.parametrize(("side", "width"), [(8, 32), (28, 32), (32, 32), (64, 16), (256, 8)])
def test_large_images_have_fewer_channels_by_default(side: int, width: int) -> None:
    G, D = build_pair("dcgan", image_shape=(3, side, side), num_classes=2)
    assert D.first.out_channels == G.up[-1].in_channels == width  # type: ignore[index,union-attr]


def test_dcgan_weights_are_drawn_as_in_the_paper() -> None:
    torch.manual_seed(0)
    G, _ = build_pair("dcgan", width=64)
    weight = G.up[0].weight
    assert abs(weight.std() - 0.02) < 0.001
    assert abs(G.norms[0].gain.std() - 0.02) < 0.002
    assert abs(G.norms[0].gain.mean() - 1) < 0.002


def test_halvings() -> None:
    sides = {8: 2, 12: 2, 16: 2, 28: 2, 32: 3, 40: 3, 64: 4, 256: 6}
    assert {side: count_halvings(side) for side in sides} == sides


def test_parameters_counted_by_hand() -> None:
    """mlp, 1×8×8, 3 classes, z 2, width 4, concat in G, projection in D."""
    G, D = build_pair(
        "mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=2, width=4,
        generator_label="concat", discriminator_label="projection",
    )  # fmt: skip
    assert count_parameters(G) == 3 * 32 + 34 * 4 + 8 + 4 * 8 + 16 + 8 * 64 + 64
    assert count_parameters(D) == 64 * 8 + 8 + 8 * 4 + 4 + 4 + 1 + 3 * 4


def test_bad_choices() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dcgan'"):
        build_pair("dcgam")
    with pytest.raises(UnknownNameError, match="did you mean 'projection'"):
        build_pair(discriminator_label="projektion")
    with pytest.raises(ConfigError, match="multiples of 4"):
        build_pair(image_shape=(1, 30, 28))


def test_names_are_those_of_the_config() -> None:
    assert tuple(BACKBONES) == Backbone.__args__


@pytest.mark.parametrize("wrong", [{"width": 0}, {"latent_dim": 0}, {"dropout": 1.0}])
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the first two must be at least 1, and dropout"):
        build_pair("mlp", image_shape=(1, 8, 8), **wrong)
