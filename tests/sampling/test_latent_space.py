"""Mixes, truncation, walks and files of latent vectors: what they draw, exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

import cgan
from cgan.errors import ConfigError, FileError, UnconditionalError, UnknownNameError
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.models import build_pair
from cgan.models.conditioning import embed_labels
from cgan.sampling.latents import draw_latents
from cgan.sampling.walk import slerp
from cgan.storage.checkpoint import LATENTS, Latents, new_header, save_tensors
from cgan.storage.images import save_animation
from tests.conftest import open_image

Shell = Callable[..., Result]


@pytest.fixture(scope="module")
def sampler(small_run: cgan.Run) -> cgan.Sampler:
    return cgan.load(small_run.folder)


def z(*seeds: int) -> torch.Tensor:
    return torch.from_numpy(draw_latents(seeds, 64))


def refused(done: Result, sentence: str) -> None:
    """Exit status 2 with this sentence, and nothing written."""
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not list(Path().iterdir())


def test_labels_choose_rows_and_weights_sum_them() -> None:
    table = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    assert embed_labels(torch.tensor([2, 0]), table).tolist() == [[100, 200], [1, 2]]
    weights = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    assert embed_labels(weights, table).tolist() == [[50.5, 101], [10, 20]]


@pytest.mark.parametrize("backbone", ["mlp", "dcgan", "photo", "resnet"])
@pytest.mark.parametrize("label", ["concat", "cbn"])
def test_a_mix_of_one_class_is_that_class_in_every_network(backbone: str, label: str) -> None:
    torch.manual_seed(0)
    generator = build_pair(
        backbone, image_shape=(1, 8, 8), num_classes=3, latent_dim=8, generator_label=label, width=8
    )[0].eval()
    latents, labels = torch.randn(4, 8), torch.tensor([0, 2, 1, 1])
    weights = torch.nn.functional.one_hot(labels, 3).float()
    assert torch.allclose(generator(latents, weights), generator(latents, labels), atol=1e-6)


def test_a_mix_is_reproducible_and_lies_between(sampler: cgan.Sampler) -> None:
    half = sampler.sample(mix={"3": 0.5, "8": 0.5}, n=3, seed=4)
    assert torch.equal(half[1:], sampler.sample(mix={"8": 0.5, "3": 0.5}, n=2, seed=5))
    assert torch.equal(sampler.sample(mix={"3": 1}, n=3, seed=4), sampler.sample("3", 3, 4))
    weights = torch.zeros(3, 10)
    weights[:, [3, 8]] = 0.5
    assert torch.equal(half, sampler.generate(z(4, 5, 6), weights))


@pytest.mark.parametrize(
    ("mix", "kind", "sentence"),
    [
        ({"3": 0.5, "8": 0.4}, ConfigError, "sum to 0.9, not to 1"),
        ({"3": -0.5, "8": 1.5}, ConfigError, "the weight of '3' in the mix is -0.5"),
        ({"3": 0.5, "x": 0.5}, UnknownNameError, "no class 'x'"),
        ({"3": float("nan")}, ConfigError, "is nan"),
        ({}, ConfigError, "sum to 0"),
    ],
)
def test_mixes_that_are_none(
    sampler: cgan.Sampler, mix: dict[str, float], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        sampler.sample(mix=mix)


def test_a_mix_of_three_thirds(sampler: cgan.Sampler) -> None:
    weights = sampler.mix_weights({"3": 0.33, "8": 0.33, "9": 0.33})
    assert sum(weights) == pytest.approx(1)
    assert weights[3] == weights[8] == weights[9]


def test_the_callers_default_dtype_does_not_matter(sampler: cgan.Sampler) -> None:
    wanted = sampler.sample(mix={"3": 0.5, "8": 0.5}), cgan.walk(sampler, "3", "8", frames=3)
    torch.set_default_dtype(torch.float64)
    try:
        found = sampler.sample(mix={"3": 0.5, "8": 0.5}), cgan.walk(sampler, "3", "8", frames=3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_a_mix_excludes_classes_a_judge_and_a_plain_gan(
    sampler: cgan.Sampler, plain_run: cgan.Run
) -> None:
    with pytest.raises(ConfigError, match="either classes or a mix"):
        sampler.sample("3", mix={"3": 1})
    judge: Judge = get_or_train_judge(lambda split: cgan.load_pictures("digits", split=split))
    with pytest.raises(ConfigError, match="a judge verifies single classes"):
        sampler.sample(mix={"3": 1}, verify=judge)
    with pytest.raises(UnconditionalError, match="cgan steer"):
        cgan.load(plain_run.folder).sample(mix={"3": 1})


def test_truncation_scales_z(sampler: cgan.Sampler) -> None:
    drawn = sampler.sample("7", n=2, seed=3, truncation=0.5)
    assert torch.equal(drawn, sampler.generate(0.5 * z(3, 4), torch.tensor([7, 7])))
    same = sampler.sample("7", n=2, truncation=0)
    assert torch.equal(same[0], same[1])
    with pytest.raises(ConfigError, match="from 0 to 1, not 1.5"):
        sampler.sample("7", truncation=1.5)


def test_slerp_computed_by_hand() -> None:
    first, last = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    points = slerp(first, last, torch.tensor([0.0, 1 / 3, 1.0]))
    assert torch.allclose(points[1], torch.tensor([2 * 0.75**0.5, 1.0]))  # 30 degrees
    assert torch.equal(points[0], first)
    assert torch.equal(points[2], last)
    assert torch.equal(slerp(first, first, torch.tensor([0.5]))[0], first)


def test_a_walk_begins_and_ends_at_images_of_their_seeds(sampler: cgan.Sampler) -> None:
    frames = cgan.walk(sampler, "3", "8", frames=5, seed=2, end_seed=9)
    assert frames.shape == (5, 1, 8, 8)
    assert torch.equal(frames[0], sampler.sample("3", seed=2)[0])
    assert torch.equal(frames[-1], sampler.sample("8", seed=9)[0])
    middle = cgan.walk(sampler, "3", "8", frames=3, seed=2)[1]
    assert torch.allclose(middle, sampler.sample(mix={"3": 0.5, "8": 0.5}, seed=2)[0], atol=1e-6)


def test_a_walk_of_a_plain_gan(plain_run: cgan.Run) -> None:
    plain = cgan.load(plain_run.folder)
    frames = cgan.walk(plain, frames=3, seed=1, end_seed=2)
    assert torch.equal(frames[[0, -1]], plain.sample(n=2, seed=1))


@pytest.mark.parametrize("name", ["w.gif", "w.webp", "w.png", "folder"])
def test_the_shell_writes_every_format(name: str, small_run: cgan.Run, shell: Shell) -> None:
    done = shell(
        "walk", small_run.folder, "--from", "3", "--to", "8", "--frames", 4, "--out", name,
        "--scale", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    if name == "folder":
        assert len(list(Path(name).glob("*.png"))) == 4
    elif name == "w.png":
        assert open_image(name).size == (2 * (4 * 10 - 2), 2 * 8)  # 2 black pixels between images
    else:
        with Image.open(name) as image:
            assert (getattr(image, "n_frames", 1), image.size) == (4, (16, 16))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--from", "3"], "a walk needs an end"),
        (["--to", "3"], "a walk begins at a class"),
        (["--from", "3", "--to", "x"], "no class 'x'"),
        (["--from", "3", "--style", "--to", "8"], "--style keeps the class"),
        (["--from", "3", "--style", "--frames", "0"], "from 2 to 10,000 frames, not 0"),
        (["--from", "3", "--style", "--frames", "1000000000"], "not 1,000,000,000"),
        (["--from", "3", "--style", "--out", "walk.avi"], "not walk.avi"),
        (["--from", "3", "--end-seed", "-1"], "a seed is a whole number"),
    ],
)
def test_walks_that_lead_nowhere(
    words: list[str], sentence: str, small_run: cgan.Run, shell: Shell
) -> None:
    refused(shell("walk", small_run.folder, *words), sentence)


def test_walks_that_cannot_be_written(small_run: cgan.Run, shell: Shell) -> None:
    words = ("walk", small_run.folder, "--from", "3", "--style", "--frames", 3, "--out")
    assert shell(*words, "frames").exit_code == 0
    again = shell(*words, "frames")
    assert again.exit_code == 2
    assert "holds frames already" in again.output
    large = np.zeros((1, 1, 2, 300), np.uint8)
    with pytest.raises(FileError, match="cannot be written as webp"):
        save_animation(large, Path("wide.webp"), 64)
    assert not Path("wide.webp").exists()


def test_a_walk_needs_one_class(small_run: cgan.Run) -> None:
    header = cgan.load(small_run.folder).header
    classes = [f"{animal} + {place}" for animal in "abcde" for place in ("in", "out")]
    sampler = cgan.Sampler(
        cgan.load(small_run.folder).generator,
        {**header, "classes": classes, "num_attributes": 2},
        small_run.generator,
    )
    assert len(cgan.walk(sampler, "b + in", "a + out", frames=3)) == 3
    with pytest.raises(ConfigError, match="a walk needs an end: another class or another seed"):
        cgan.walk(sampler, "b + in")
    with pytest.raises(ConfigError, match="'a' are several classes: choose one of a"):
        cgan.walk(sampler, "a", end_seed=1)


def test_the_shell_draws_mixes_and_truncated_images(small_run: cgan.Run, shell: Shell) -> None:
    for words in (["--mix", "3=0.5,8=0.5"], ["--digit", 7, "--truncation", "0.5"]):
        done = shell("generate", small_run.folder, *words, "-n", 2, "--out", "some.png")
        assert done.exit_code == 0, done.output
        assert Path("some.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--mix", "3"], "takes classes and weights"),
        (["--mix", "3=0.5,3=0.5"], "takes classes and weights"),
        (["--mix", "3=1", "--digit", "3"], "either classes or a mix"),
        (["--mix", "3=1", "--verify"], "a judge verifies single classes"),
        (["--mix", "3=1", "--count", "10", "--out", "set"], "--mix does not apply to a data set"),
        (["--truncation", "2"], "from 0 to 1, not 2"),
        (["--latent", "nowhere"], "there is no file nowhere"),
        (["--latent", "nowhere", "--mix", "3=1"], "as they are"),
        (["--latent", "nowhere", "--seed", "0"], "leave out -n, --seed"),
        (["--data", "nowhere"], "give --verify too"),
        (["-n", "100000000000"], "-n is at most 100,000, not 100,000,000,000"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], sentence: str, small_run: cgan.Run, shell: Shell
) -> None:
    refused(shell("generate", small_run.folder, *words), sentence)


def test_a_file_of_latents_draws_the_same_images(
    sampler: cgan.Sampler, small_run: cgan.Run, shell: Shell
) -> None:
    weights = torch.eye(10)[[3, 8]]
    Latents(z(1, 2), weights, sampler.classes).save(Path("two.safetensors"))
    found = Latents.load(Path("two.safetensors"))
    assert torch.equal(found.z, z(1, 2))
    words = ("--latent", "two.safetensors", "--scale", 1, "--out", "a.png")
    assert shell("generate", small_run.folder, *words).exit_code == 0
    own = sampler.sample(["3"], seed=1).mul(255).round().byte()[0, 0]
    drawn = torch.tensor(list(open_image("a.png").tobytes())).view(8, 18)
    assert torch.equal(drawn[:, :8], own.int())
    done = shell(
        "generate", small_run.folder, "--latent", "two.safetensors", "--digit", 7, "--digit", 1,
        "--scale", 1, "--out", "b.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    wanted = sampler.sample(["7", "1"], n=2, seed=1).mul(255).round().byte()
    drawn = torch.tensor(list(open_image("b.png").tobytes())).view(18, 18)
    assert torch.equal(drawn[10:, 10:], wanted[3, 0].int())


@pytest.mark.parametrize(
    "tensors",
    [
        {"z": torch.zeros(2, 64), "labels": torch.zeros(3, 10)},
        {"z": torch.zeros(2, 64), "labels": torch.zeros(2, 9)},
        {"z": torch.zeros(64)},
        {"z": torch.zeros(0, 64)},
        {"z": torch.zeros(2, 64), "more": torch.zeros(2, 10)},
        {"labels": torch.zeros(2, 10)},
        {"z": torch.zeros(2, 64, dtype=torch.int64)},
    ],
)
def test_files_that_hold_no_latents(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    save_tensors(path, tensors, {**new_header(LATENTS), "classes": list("0123456789")})
    with pytest.raises(FileError, match="holds no latent vectors"):
        Latents.load(path)


def test_latents_of_another_generator(small_run: cgan.Run, shell: Shell) -> None:
    Latents(torch.zeros(1, 12), None, tuple("0123456789")).save(Path("a.safetensors"))
    done = shell("generate", small_run.folder, "--latent", "a.safetensors")
    assert done.exit_code == 2
    assert "of another length, or for other classes" in done.output


def test_a_walk_of_a_plain_gan_has_no_class(plain_run: cgan.Run) -> None:
    with pytest.raises(UnconditionalError, match="a plain GAN cannot choose the class"):
        cgan.walk(plain_run.folder, end="3")
    assert len(cgan.walk(plain_run.folder, end_seed=1, frames=2)) == 2


def test_redrawn_latents_do_not_replace_the_inverted_image(
    sampler: cgan.Sampler, small_run: cgan.Run, shell: Shell
) -> None:
    Latents(z(1), torch.eye(10)[[3]], sampler.classes).save(Path("seven-inverted.safetensors"))
    words = ("generate", small_run.folder, "--latent", "seven-inverted.safetensors")
    done = [shell(*words, *more) for more in ((), ("--digit", 3))]
    drawn = [Path(one.stdout.strip()).name for one in done]
    assert drawn == ["seven-inverted-latent.png", "seven-inverted-as-3-latent.png"]
