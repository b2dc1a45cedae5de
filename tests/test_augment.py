"""Augmentations: values computed by hand, gradients, random numbers, and what D and G see."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

import cgan
from cgan.augment import (
    AUGMENTATIONS,
    PHOTO_AUGMENTATIONS,
    Augment,
    AugmentedDiscriminator,
    choose_augmentations,
    colour,
    cutout,
    hue,
    mirror,
    translation,
)
from cgan.config import AugmentationName
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import ConfigError, UnknownNameError
from cgan.penalties import r1
from cgan.runtime.distributed import World
from cgan.storage.run_files import load_state
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep

ALMOST_1 = 1 - 2**-24
RAMP = torch.arange(64.0).view(1, 1, 8, 8) / 64


def photographs(count: int = 64, classes: tuple[str, ...] = ("cat", "dog")) -> ImageDataset:
    images = torch.randint(1, 255, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    return ImageDataset(
        "photographs", images.to(torch.uint8), torch.arange(count) % len(classes), classes
    )


def test_names() -> None:
    assert get_args(AugmentationName) == ("auto", *AUGMENTATIONS)
    with pytest.raises(UnknownNameError, match="cutot"):
        Augment(["cutot"])
    with pytest.raises(ConfigError, match="augment"):
        load_config("digits-mlp", {"augment": ["cutot"]})
    assert load_config("digits-mlp", {"augment": ["cutout", "mirror"]}).augment == (
        "cutout",
        "mirror",
    )
    assert load_config("digits-mlp", {"augment": "auto"}).augment == ("auto",)


def test_colour() -> None:
    """One pixel, red 0.6, green and blue 0, beside a grey one of 0.2."""
    images = torch.tensor([[0.6, 0.2], [0.0, 0.2], [0.0, 0.2]]).view(1, 3, 1, 2)
    same = colour(images, torch.tensor([[0.5, 0.5, 0.5]]))
    assert torch.allclose(same, images)
    brighter = colour(images, torch.tensor([[0.75, 0.5, 0.5]]))
    assert torch.allclose(brighter, images + 0.25)
    grey = colour(images, torch.tensor([[0.5, 0.0, 0.5]]))
    assert torch.allclose(grey, torch.full((1, 3, 1, 2), 0.2))
    flat = colour(images, torch.tensor([[0.5, 0.5, 0.0]]))  # the mean is 0.2
    expected = torch.tensor([[0.4, 0.2], [0.1, 0.2], [0.1, 0.2]]).view(1, 3, 1, 2)
    assert torch.allclose(flat, expected)


def test_hue() -> None:
    """A third of a turn makes red green, half a turn of pure red is (−⅓, ⅔, ⅔); grey stays."""
    red = torch.tensor([0.9, 0.0, 0.0]).view(1, 3, 1, 1)
    images = torch.cat([red, torch.full((1, 3, 1, 1), 0.4)], dim=3).expand(4, 3, 1, 2)
    turned = hue(images, torch.tensor([[0.0, 1 / 3], [0.49, 0.5], [0.5, 0.5], [0.0, 0.0]]))
    expected = torch.tensor([[0.0, 0.9, 0.0], [-0.3, 0.6, 0.6], [0.9, 0.0, 0.0], [0.9, 0.0, 0.0]])
    assert torch.allclose(turned[..., 0, 0], expected, atol=1e-6)
    assert torch.equal(turned[2:], images[2:])  # exactly
    assert torch.allclose(turned[..., 1], torch.full((4, 3, 1), 0.4))
    grey = torch.rand(2, 1, 4, 4)
    assert hue(grey, torch.tensor([[0.0, 0.3], [0.0, 0.6]])) is grey
    memory = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert hue(memory, torch.rand(2, 2)).is_contiguous(memory_format=torch.channels_last)


def test_translation_moves_by_an_eighth_of_the_side() -> None:
    up = translation(RAMP, torch.tensor([[0.0, 0.5]]))
    assert torch.equal(up[..., :7, :], RAMP[..., 1:, :])
    assert not up[..., 7, :].any()
    right = translation(RAMP, torch.tensor([[0.5, ALMOST_1]]))
    assert torch.equal(right[..., 1:], RAMP[..., :7])
    assert not right[..., 0].any()
    both = translation(RAMP.expand(2, 1, 8, 8), torch.tensor([[0.5, 0.5], [0.99, 0.0]]))
    assert torch.equal(both[:1], RAMP)
    assert torch.equal(both[1, 0, 1:, :7], RAMP[0, 0, :7, 1:])


def test_translation_keeps_colours_together_and_the_memory_format() -> None:
    images = torch.randn(4, 3, 16, 8).contiguous(memory_format=torch.channels_last)
    moved = translation(images, torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.9, 0.9], [0.3, 0.5]]))
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved[0, :, :14, :7], images[0, :, 2:, 1:])  # 2 of 16 rows, 1 of 8 columns
    assert torch.equal(moved[1], images[1])
    assert torch.equal(moved[2, :, 2:, 1:], images[2, :, :14, :7])


def test_cutout_is_half_the_side() -> None:
    images = torch.ones(3, 2, 8, 8)
    cut = cutout(images, torch.tensor([[0.5, 0.5], [0.0, 0.0], [ALMOST_1, 0.5]]))
    assert cut[0, :, 2:6, 2:6].sum() == 0
    assert cut[0].sum() == 2 * (64 - 16)
    assert cut[1, :, :2, :2].sum() == 0  # half of the square is beyond the corner
    assert cut[1].sum() == 2 * (64 - 4)
    assert cut[2, :, 6:, 2:6].sum() == 0
    assert cut[2].sum() == 2 * (64 - 8)


def test_mirror() -> None:
    images = RAMP.expand(2, 1, 8, 8)
    mirrored = mirror(images, torch.tensor([[0.49], [0.5]]))
    assert torch.equal(mirrored[0], images[0])
    assert torch.equal(mirrored[1], images[1].flip(-1))


def test_the_gradient_goes_back_to_the_pixel_it_came_from() -> None:
    images = RAMP.clone().requires_grad_()
    weights = torch.randn(1, 1, 8, 8)
    (gradient,) = torch.autograd.grad(
        (translation(images, torch.tensor([[0.0, 0.5]])) * weights).sum(), images
    )
    assert torch.equal(gradient[..., 1:, :], weights[..., :7, :])
    assert not gradient[..., 0, :].any()
    (gradient,) = torch.autograd.grad(cutout(images, torch.tensor([[0.5, 0.5]])).sum(), images)
    assert gradient.sum() == 64 - 16
    assert not gradient[..., 2:6, 2:6].any()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_and_their_gradients_are_those_of_finite_differences(name: str) -> None:
    chosen = AUGMENTATIONS[name]
    images = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    u = torch.rand(2, chosen.num_random, dtype=torch.float64)

    def squared(x: Tensor) -> Tensor:
        return chosen.function(x, u).square()

    assert torch.autograd.gradcheck(squared, images)
    assert torch.autograd.gradgradcheck(squared, images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_is_augmented_independently_of_the_others(name: str) -> None:
    chosen = AUGMENTATIONS[name]
    images, u = torch.randn(5, 3, 8, 8), torch.rand(5, chosen.num_random)
    together = chosen.function(images, u)
    alone = torch.cat([chosen.function(images[i : i + 1], u[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.shape == images.shape


def test_random_numbers_of_the_global_batch() -> None:
    images = torch.randn(8, 3, 8, 8)
    torch.manual_seed(3)
    whole = Augment(AUGMENTATIONS)(images)
    for size in (2, 4):
        parts = []
        for rank, part in enumerate(images.chunk(size)):
            torch.manual_seed(3)
            parts.append(Augment(AUGMENTATIONS, rank, size)(part))
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    assert not torch.equal(Augment(AUGMENTATIONS)(images), whole)
    state = torch.get_rng_state()
    assert Augment([])(images) is images
    assert torch.equal(torch.get_rng_state(), state)  # without augmentation nothing is drawn


def test_penalties_are_those_before_augmentation() -> None:
    """For D(x) = Σ ½·x, ‖∇ₓ D(T(x))‖² is 49·¼ if T shifts one row and one column out."""
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1), torch.nn.Flatten(0))
    torch.nn.init.constant_(D[1].weight, 0.5)

    class Shift(Augment):
        def forward(self, images: Tensor) -> Tensor:
            return translation(images, torch.tensor([[0.0, 0.0]]).expand(len(images), 2))

    class WithoutLabels(torch.nn.Module):
        def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
            return D(images)

    images = torch.randn(3, 1, 8, 8, requires_grad=True)
    augmented = AugmentedDiscriminator(WithoutLabels(), Shift([]))
    values = r1(augmented(images), images)
    assert torch.allclose(values, torch.full((3,), 0.5 * 49 * 0.25))
    values.mean().backward()
    assert D[1].weight.grad is not None
    assert float(D[1].weight.grad.sum()) == pytest.approx(49 * 0.5)


def test_what_auto_chooses() -> None:
    photos = (3, 32, 32)
    sorted_photo = [name for name in AUGMENTATIONS if name in PHOTO_AUGMENTATIONS]
    assert choose_augmentations(["auto"], ["cat", "dog"], photos) == (
        "mirror",
        "hue",
        "translation",
    )
    assert choose_augmentations(["auto"], ["cat", "dog"], (1, 32, 32)) == ()
    assert choose_augmentations(["auto"], ["0", "1", "seven"], photos) == ()
    assert choose_augmentations(["auto"], ["a", "b", "ä"], photos) == ()
    assert choose_augmentations(["auto"], ["1 + red", "2 + red", "3 + blue"], photos, 2) == ()
    assert choose_augmentations(["auto"], ["cat + 1", "cat + big"], photos, 2) == tuple(
        sorted_photo
    )
    assert choose_augmentations(["auto"], ["8", "9", "10"], photos) == tuple(sorted_photo)
    assert choose_augmentations(["auto"], ["猫", "犬"], photos) == tuple(sorted_photo)
    assert choose_augmentations(["auto"], ["b", "bee"], photos) == (
        "mirror",
        "hue",
        "translation",
    )
    assert choose_augmentations(("colour",), ["0", "1"], (1, 8, 8)) == ("colour",)
    assert choose_augmentations(["auto", "colour"], ["cat"], photos) == (
        "mirror",
        "colour",
        "hue",
        "translation",
    )
    assert choose_augmentations((), ["cat", "dog"], photos) == ()


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_d_sees_augmented_images_only_and_g_draws_whole_ones(update: str) -> None:
    """Every image that enters D has a cut out rectangle; nothing that leaves G has one."""
    changes = {"augment": ["cutout"], "update": update, "model.backbone": "dcgan",
               "model.width": 4, "batch_size": 8, "penalty.r1": 1.0, "device": "cpu",
               "model.last_layer": "resize", "loss": "nonsaturating"}  # fmt: skip
    dataset = photographs()
    state = TrainState(Plan(load_config("folder-dcgan", changes), dataset, torch.device("cpu")))
    step = TrainStep(state)
    torch.nn.init.constant_(state.generator.up[-1].conv.bias, 0.3)  # no pixel of G is exactly 0
    into_D, from_G = [], []
    state.discriminator.register_forward_pre_hook(lambda _, args: into_D.append(args[0].detach()))
    state.generator.register_forward_hook(lambda *args: from_G.append(args[2].detach()))
    real = dataset.images[:8] / 127.5 - 1  # no pixel is 0
    step(real, dataset.labels[:8])
    assert len(into_D) == (3 if update == "alternating" else 2)
    for images in into_D:
        assert ((images == 0).all(1).flatten(1).sum(1) >= 4).all()
    assert from_G
    assert all((images != 0).all() for images in from_G)
    z, labels = torch.randn(4, state.config.model.latent_dim), torch.arange(4) % 2
    assert (state.generator_ema(z, labels) != 0).all()


def test_mirrored_data() -> None:
    """D sees each real image as it is or mirrored, before the other augmentations."""
    changes = {"augment": ["mirror"], "model.width": 4, "batch_size": 16, "device": "cpu",
               "update": "simultaneous"}  # fmt: skip
    dataset = photographs()
    state = TrainState(Plan(load_config("folder-dcgan", changes), dataset, torch.device("cpu")))
    step = TrainStep(state)
    seen: list[Tensor] = []
    state.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    state.generator.register_forward_hook(lambda *args: seen.append(args[2].detach()))
    real = dataset.images[:16] / 127.5 - 1
    torch.manual_seed(0)
    step(real, dataset.labels[:16])
    fake, seen_fake, seen_real = seen
    assert torch.equal(seen_fake, fake)
    kept = [torch.equal(a, b) for a, b in zip(seen_real, real, strict=True)]
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(seen_real, real, strict=True)]
    assert all(a != b for a, b in zip(kept, flipped, strict=True))
    assert 0 < sum(kept) < 16


def test_the_probability_of_an_augmentation() -> None:
    """0 changes nothing, 1 is always, and ½ applies each of two to half of the images."""
    images = torch.rand(4000, 3, 4, 4) / 2 + 0.25  # after cutout some pixels are 0
    for probability, cut, coloured in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)):
        augment = Augment(["colour", "cutout"])
        augment.probability = torch.tensor(probability)
        torch.manual_seed(0)
        out = augment(images)
        was_cut = (out == 0).flatten(1).any(1)
        was_coloured = ((out != images) & (out != 0)).flatten(1).any(1)
        assert was_cut.float().mean() == pytest.approx(cut, abs=0.03)
        assert was_coloured.float().mean() == pytest.approx(coloured, abs=0.03)
        both = (was_cut & was_coloured).float().mean()
        assert both == pytest.approx(cut * coloured, abs=0.03)


def test_each_augmentation_has_its_own_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name, augmentation in AUGMENTATIONS.items():

        def record(images: Tensor, u: Tensor, name: str = name) -> Tensor:
            seen[name] = u
            return images

        monkeypatch.setitem(AUGMENTATIONS, name, augmentation._replace(function=record))
    Augment(AUGMENTATIONS)(torch.zeros(5, 3, 8, 8))
    assert {name: u.shape for name, u in seen.items()} == {
        name: (5, augmentation.num_random) for name, augmentation in AUGMENTATIONS.items()
    }
    drawn = torch.cat(list(seen.values()), dim=1)
    assert len(drawn.unique()) == drawn.numel()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_type_is_kept(name: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert Augment([name])(torch.zeros(2, 3, 8, 8, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (12, 2), (20, 3), (28, 4), (32, 4), (64, 8)])
def test_the_reach_of_a_translation(side: int, reach: int) -> None:
    """An eighth of the side, halves rounded up, as in the paper's code."""
    images = torch.arange(1.0, side * side + 1).view(1, 1, side, side)
    moved = translation(images, torch.tensor([[ALMOST_1, 0.5]]))
    assert not moved[..., :reach, :].any()
    assert torch.equal(moved[..., reach:, :], images[..., : side - reach, :])


def test_auto_in_a_run(caplog: pytest.LogCaptureFixture, pets: Path, tmp_path: Path) -> None:
    changes = {"data.source": str(pets), "control_per_class": 0, "model.width": 4, "device": "cpu",
               "augment": "auto", "images": 64}  # fmt: skip
    caplog.set_level("INFO", "cgan")
    cgan.train(load_config("folder-dcgan", changes), tmp_path / "a")
    assert "augmentation: mirror, hue, translation" in caplog.text
    caplog.clear()
    cgan.train(load_config("digits-mlp", {"images": 64, "augment": "auto", "control_per_class": 0,
                                          "device": "cpu"}), tmp_path / "b")  # fmt: skip
    assert "augmentation: none, because the images are grey" in caplog.text
    caplog.clear()
    for number, name in enumerate(sorted(path.name for path in pets.iterdir())):
        (pets / name).rename(pets / f"{number}")
    cgan.train(load_config("folder-dcgan", changes), tmp_path / "c")
    assert "augmentation: none, because the classes are named like characters" in caplog.text


def test_a_plain_gan_with_augmentation() -> None:
    changes = {"augment": ["mirror", "cutout"], "model.width": 4, "model.conditional": False,
               "batch_size": 8, "penalty.r1": 1.0, "device": "cpu"}  # fmt: skip
    dataset = photographs()
    state = TrainState(Plan(load_config("folder-dcgan", changes), dataset, torch.device("cpu")))
    seen: list[Tensor] = []
    state.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    losses = TrainStep(state)(dataset.images[:8] / 127.5 - 1, dataset.labels[:8])
    assert float(losses["penalty"]) > 0
    for images in seen:
        assert ((images == 0).all(1).flatten(1).sum(1) >= 4).all()


def test_names_in_a_config() -> None:
    for value in ("none", False, None, []):
        assert load_config("digits-mlp", {"augment": value}).augment == ()
    both = load_config("digits-mlp", {"augment": "mirror, cutout"}).augment
    assert both == load_config("digits-mlp", {"augment": ["mirror", "cutout", "mirror"]}).augment
    assert both == ("cutout", "mirror")


def test_a_shard_of_the_step_uses_its_own_numbers() -> None:
    dataset = photographs()
    config = load_config("folder-dcgan", {"model.width": 4, "device": "cpu"})
    step = TrainStep(TrainState(Plan(config, dataset, torch.device("cpu"))), World(1, 2))
    for augment in (step.augment_real, step.discriminator.augment):
        assert (augment.rank, augment.world_size) == (1, 2)


def test_an_augmented_run_resumes_bit_for_bit(tmp_path: Path, pets: Path) -> None:
    changes = {"data.source": str(pets), "control_per_class": 0, "model.width": 4, "device": "cpu",
               "augment": list(AUGMENTATIONS), "lr_final_fraction": 1.0}  # fmt: skip
    short, long = (load_config("folder-dcgan", {**changes, "images": n}) for n in (128, 256))
    whole = cgan.train(long, tmp_path / "a")
    part = cgan.train(short, tmp_path / "b")
    cgan.train(long, part.folder, resume=True)
    (_, a, *_), (_, b, *_) = load_state(whole.folder), load_state(part.folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
