"""A picture is a function of model, class and seed alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cgan
from cgan.errors import (
    ConfigError,
    FileError,
    MeasureError,
    RunError,
    UnconditionalError,
    UnknownNameError,
)
from cgan.models import build_pair
from cgan.sampling.sampler import RejectionSampler, Sampler
from cgan.storage.checkpoint import read_header, save_tensors
from cgan.storage.images import to_pixels


@pytest.fixture(scope="module")
def sampler(small_run: cgan.Run) -> Sampler:
    return cgan.load(small_run.folder)


@pytest.fixture(scope="module")
def convolutional() -> Sampler:
    """Random weights of the shape that MNIST's have: rounding is at its worst there."""
    torch.manual_seed(0)
    config = cgan.load_config("mnist-dcgan")
    header = {
        "config": config.model_dump(mode="json"),
        "classes": list("0123456789"),
        "image_shape": [1, 28, 28],
        "measured": {},
    }
    generator = build_pair(image_shape=(1, 28, 28), generator_label="concat").generator
    for _ in range(3):
        generator(torch.randn(64, 64), torch.arange(64) % 10)
    return Sampler(generator, header, Path("none"))


def test_shape_range_and_kind(sampler: Sampler) -> None:
    pictures = sampler.sample("7", n=5)
    assert pictures.shape == (5, 1, 8, 8)
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() < 0.1
    assert 0.7 < pictures.max() <= 1
    assert sampler.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["sampler", "convolutional"])
def test_the_same_picture_in_every_company(name: str, request: pytest.FixtureRequest) -> None:
    sampler: Sampler = request.getfixturevalue(name)
    many = to_pixels(sampler.sample("7", n=300, seed=5))
    for index in (0, 1, 63, 64, 299):
        assert torch.equal(to_pixels(sampler.sample("7", 1, 5 + index))[0], many[index])
    among = sampler.sample(["3", "7", "1"], n=100, seed=5)
    assert torch.equal(to_pixels(among[100:200]), many[:100])
    mixed = sampler.sample(["7", "3", "7", "7"], seed=5)
    assert torch.equal(to_pixels(mixed[[0, 2, 3]]), many[:3])


def test_ways_to_say_a_class(sampler: Sampler) -> None:
    sevens = sampler.sample("7", 3, seed=2)
    assert torch.equal(sampler.sample(7, 3, seed=2), sevens)
    assert torch.equal(sampler.sample(["7"], 3, seed=2), sevens)
    assert torch.equal(sampler.sample(torch.tensor([7, 7, 7]), seed=2), sevens)
    assert sampler.sample([0, 1, 3], n=20).shape[0] == 60
    assert sampler.sample(None, n=2).shape[0] == 20


def test_names_that_are_numbers_are_names_and_others_are_counted() -> None:
    header = {
        "config": cgan.load_config("digits-mlp").model_dump(mode="json"),
        "classes": ["cat", "dog"],
        "image_shape": [1, 8, 8],
    }
    pets = Sampler(torch.nn.Identity(), header, Path("none"))
    assert pets.class_indices(1) == [1]
    assert pets.class_indices(["dog", 0]) == [1, 0]
    assert pets.class_indices([np.int64(1), *torch.tensor([0])]) == [1, 0]
    years = Sampler(torch.nn.Identity(), {**header, "classes": ["1", "2", "10"]}, Path("none"))
    assert years.class_indices(10) == [2]
    with pytest.raises(UnknownNameError):
        years.class_indices(0)
    with pytest.raises(UnknownNameError, match="class number"):
        pets.class_indices(2)
    assert years.class_indices(np.int64(2)) == years.class_indices(2) == [1]  # the name
    assert years.class_indices(np.array([2])) == [2]  # an array holds indices
    for wrong in (torch.tensor([0.9]), 7.5, object()):
        with pytest.raises(ConfigError, match="a whole number, not"):
            pets.class_indices(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"n": 2.0}, {"seed": 1.5}, {"seed": "3"}, {"n": 10**9}])
def test_n_and_seed_are_whole_numbers(sampler: Sampler, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is a whole number, not|n is at most 10,000,000"):
        sampler.sample("7", **wrong)


def test_n_and_seed_of_numpy(sampler: Sampler) -> None:
    found = sampler.sample("7", n=np.int64(2), seed=np.int32(5))
    assert torch.equal(found, sampler.sample("7", 2, 5))


def test_seeds_and_classes_give_different_pictures(sampler: Sampler) -> None:
    pictures = sampler.sample(["3", "7"], n=2)
    for a, b in ((0, 1), (0, 2), (2, 3)):
        assert not torch.allclose(pictures[a], pictures[b], atol=1e-2)


def test_sampling_leaves_random_state_and_weights_alone(sampler: Sampler) -> None:
    state = torch.get_rng_state()
    weights = {k: v.clone() for k, v in sampler.generator.state_dict().items()}
    sampler.sample("1", 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, weights[k]) for k, v in sampler.generator.state_dict().items())


def test_plain_gan_draws_but_cannot_choose(plain_run: cgan.Run) -> None:
    plain = cgan.load(plain_run.generator)
    assert plain.sample(n=3).shape == (3, 1, 8, 8)
    with pytest.raises(UnconditionalError, match=r"cannot choose.*cgan steer"):
        plain.sample("7")


def test_bad_requests(sampler: Sampler) -> None:
    with pytest.raises(UnknownNameError, match="no class '12'"):
        sampler.sample(12)
    with pytest.raises(UnknownNameError, match="no class 'seven'; choose from 0, 1"):
        sampler.sample("seven")
    with pytest.raises(UnknownNameError, match="class number"):
        sampler.sample(torch.tensor([10]))
    with pytest.raises(ConfigError, match="at least 1"):
        sampler.sample("7", n=0)
    with pytest.raises(ConfigError, match="seed"):
        sampler.sample("7", seed=-1)
    highest = 2**63 - 4
    assert sampler.request(["7", "7", "3"], seed=highest).seeds == (highest, highest + 1, highest)
    with pytest.raises(ConfigError, match="is too close to it"):
        sampler.request(["7"] * 4, seed=highest)


def test_no_class_is_not_every_class(sampler: Sampler) -> None:
    for nothing in ([], torch.tensor([], dtype=torch.int64)):
        with pytest.raises(ConfigError, match="name at least one class, or leave out labels"):
            sampler.sample(nothing)


def test_latents_and_labels_that_do_not_fit(sampler: Sampler, plain_run: cgan.Run) -> None:
    z = torch.zeros(2, sampler.latent_dim)
    for wrong in (z[:, 1:], z[0]):
        with pytest.raises(ConfigError, match=rf"z must be \(N, {sampler.latent_dim}\)"):
            sampler.generate(wrong, torch.zeros(2, dtype=torch.int64))
    labels: Any
    for labels in (None, "7", torch.zeros(3, dtype=torch.int64), torch.eye(2)):
        with pytest.raises(ConfigError, match="labels must be a tensor of 2 class indices"):
            sampler.generate(z, labels)
    with pytest.raises(UnknownNameError, match="class number"):
        sampler.generate(z, torch.tensor([0, 10]))
    plain = cgan.load(plain_run)
    with pytest.raises(UnconditionalError, match="takes no labels"):
        plain.generate(torch.zeros(2, plain.latent_dim), torch.tensor([0, 1]))


def test_a_run_stands_for_its_folder_and_a_sampler_for_its_file(
    small_run: cgan.Run, sampler: Sampler, tmp_path: Path
) -> None:
    assert Path(small_run) == small_run.folder
    assert cgan.load(small_run).path == sampler.path == Path(sampler)
    assert cgan.load(sampler).path == sampler.path
    page = cgan.export_page(sampler, str(tmp_path / "draw.html"))
    assert page.read_bytes() == cgan.export_page(small_run, tmp_path / "b.html").read_bytes()


def test_header_describes_the_generator(small_run: cgan.Run, sampler: Sampler) -> None:
    header = read_header(small_run.generator, "cgan-generator")
    assert header["value_range"] == [-1, 1]
    assert header["images_seen"] == small_run.images_seen == 6_016
    assert header["versions"]["torch"] == torch.__version__
    assert header["data"] == "digits"
    assert sampler.config == small_run.config


def test_files_that_do_not_fit_their_header(small_run: cgan.Run, tmp_path: Path) -> None:
    header = read_header(small_run.generator, "cgan-generator")
    tensors = load_file(small_run.generator)
    path = tmp_path / "g.safetensors"
    save_tensors(path, {"x": torch.zeros(1)}, header)
    with pytest.raises(FileError, match="does not fit"):
        cgan.load(path)
    save_tensors(path, tensors, {**header, "config": {"nonsense": 1}})
    with pytest.raises(FileError, match="invalid header"):
        cgan.load(path)
    save_tensors(path, tensors, {**header, "image_shape": "big"})
    with pytest.raises(FileError, match="invalid header"):
        cgan.load(path)
    with pytest.raises(FileError, match="no run or generator file"):
        cgan.load(tmp_path / "none")
    with pytest.raises(FileError, match="folder of a run"):
        cgan.load(tmp_path)


def random_sampler(image_shape: tuple[int, int, int]) -> Sampler:
    """A small DCGAN with random weights."""
    torch.manual_seed(0)
    config = cgan.load_config("folder-dcgan", {"model.width": 4})
    header = {
        "config": config.model_dump(mode="json"),
        "classes": ["cat", "dog"],
        "image_shape": image_shape,
    }
    generator = build_pair(
        image_shape=image_shape, num_classes=2, width=4, generator_label="concat"
    ).generator
    for weight in generator.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.1)
    return Sampler(generator, header, Path("none"))


def test_large_pictures_are_the_same_in_every_company() -> None:
    sampler = random_sampler((3, 128, 128))
    sizes: list[int] = []
    sampler.generator.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    many = sampler.sample("dog", n=20, seed=5)
    assert sizes == [16, 16]
    assert many.std() > 0.03
    for index in (0, 15, 16, 19):
        assert torch.equal(sampler.sample("dog", 1, 5 + index)[0], many[index])


class Full(torch.nn.Module):
    """A generator that runs out of memory."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.error = error

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2.00 GiB"),
    ],
)
def test_memory_that_runs_out(error: Exception) -> None:
    sampler = random_sampler((3, 128, 128))
    sampler.generator = Full(error)
    with pytest.raises(RunError) as caught:
        sampler.sample("dog")
    assert str(caught.value) == (
        "sampling a batch of 16 images of 128×128 on cpu ran out of memory (it tried to "
        "allocate 2.00 GiB): free memory, or use another --device"
    )
    sampler.generator = Full(ValueError("something else"))
    with pytest.raises(ValueError, match="something else"):
        sampler.sample("dog")


def test_memory_for_all_pictures_that_runs_out(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(shape: tuple[int, ...], **_: object) -> None:
        assert shape == (3, 1, 8, 8)
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(RunError, match=r"^sampling 3 images ran .* 9 bytes.*: draw fewer at once"):
        sampler.sample("7", n=3)


@pytest.mark.cuda
def test_cuda_draws_the_same_picture(small_run: cgan.Run) -> None:
    here = cgan.load(small_run.folder).sample("7", 4)
    there = cgan.load(small_run.folder, "cuda").sample("7", 4)
    torch.testing.assert_close(here, there, atol=1e-3, rtol=0)


class Picky:
    """Takes a picture for the class asked for only if it is bright enough; asked one class only."""

    classes = tuple("0123456789")

    def __init__(self, asked: int, threshold: float) -> None:
        self.asked, self.threshold = asked, threshold

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean((1, 2, 3)) > self.threshold
        return torch.where(bright, self.asked, (self.asked + 1) % 10)


def test_verified_pictures_are_redrawn_from_their_own_sequence(sampler: Sampler) -> None:
    raw = sampler.sample("7", n=80)
    middle = float(raw.mean((1, 2, 3)).median())
    verifier = RejectionSampler(Picky(7, middle))
    verified = sampler.sample("7", n=80, verify=verifier)
    bright = raw.mean((1, 2, 3)) > middle
    assert torch.equal(verified[bright], raw[bright])
    assert verified.mean((1, 2, 3)).min() > middle
    assert verifier.accepted == 80
    assert 100 < verifier.drawn < 300
    assert verifier.acceptance == 80 / verifier.drawn
    # Alone or in company, a refused picture is redrawn as the same one.
    dark = int((~bright).nonzero()[3])
    alone = sampler.sample("7", n=1, seed=dark, verify=Picky(7, middle))
    assert torch.equal(to_pixels(alone[0]), to_pixels(verified[dark]))


def test_a_judge_that_never_agrees_is_an_error(sampler: Sampler) -> None:
    with pytest.raises(MeasureError, match=r"rejected all 100 draws of seed 5 for '7'"):
        sampler.sample("7", n=2, seed=5, verify=Picky(7, 2.0))


def test_a_judge_of_other_classes_cannot_verify(sampler: Sampler) -> None:
    judge = Picky(7, 0.0)
    judge.classes = ("cat", "dog")  # type: ignore[assignment]
    with pytest.raises(MeasureError, match="cat, dog"):
        sampler.sample("7", verify=judge)


def test_a_plain_gan_has_nothing_to_verify(plain_run: cgan.Run) -> None:
    with pytest.raises(UnconditionalError, match="nothing to verify"):
        cgan.load(plain_run.folder).sample(None, 4, verify=Picky(7, 0.0))


def test_only_a_bare_name_means_the_generator_in_the_package() -> None:
    with pytest.raises(FileError, match="no run or generator file runs/mnist"):
        cgan.load("runs/mnist")
