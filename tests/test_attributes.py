"""Names of classes and their order; classes that combine attributes, in networks and in data."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cgan
from cgan.attributes import (
    attribute_values,
    display_order,
    match_values,
    natural_order,
    num_attributes_of,
    sort_for_display,
    split_classes,
)
from cgan.data.datasets import DATASETS
from cgan.data.image_folder import scan_folder
from cgan.errors import ConfigError, DataError, FileError, RunError, UnknownNameError
from cgan.evaluation.control import Control
from cgan.models import build_pair
from cgan.models.conditioning import (
    SumOverValues,
    share_values,
    to_class_rows,
    value_indices,
)
from cgan.sampling.request import GeneratorInfo
from cgan.storage.run_files import load_state, save_state, select_tensors
from cgan.training.ema import frozen_copy, update_ema
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.warm_start import warm_start
from tests.conftest import make_pets

CLASSES = ("cat + in", "cat + out", "dog + in", "owl + out")
ROWS = [("cat", "in"), ("cat", "out"), ("dog", "in"), ("owl", "out")]


def test_names() -> None:
    assert split_classes(CLASSES, 2) == ROWS
    assert split_classes(CLASSES, 1) is None
    assert attribute_values(ROWS) == [("cat", "dog", "owl"), ("in", "out")]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([], []),
        (["1", "10", "2"], [0, 2, 1]),
        (["v10", "v9"], [1, 0]),
        (["b", "A"], [1, 0]),
        (["a", "A"], [1, 0]),  # alike: text order
        (["01", "1"], [0, 1]),
        (["1", "01", "001"], [2, 1, 0]),
        (["²", "2"], [1, 0]),  # int cannot read it
        (["٣", "3", "٢"], [1, 2, 0]),  # digits that are not 0 to 9 are text
        (["a1b10", "a1b9", "a01b2"], [2, 1, 0]),
        (["a", "a1", "a-b", "a b"], [0, 3, 2, 1]),  # a number stands where a digit does
        (["x\n10", "x\n9"], [1, 0]),
        (["straße", "STRASSE"], [1, 0]),
        (["same", "same"], [0, 1]),
        (["9" * 5_000 + "1", "9" * 5_000, "0" * 6_000 + "8"], [2, 1, 0]),
        (["a + 10", "a + 2", "a 2 + 1", "b + 1"], [1, 0, 2, 3]),
    ],
)
def test_natural_order(names: list[str], order: list[int]) -> None:
    assert natural_order(names) == order


def test_only_text_order_is_replaced() -> None:
    """A data set that states an order, such as small, medium, large, keeps it."""
    assert display_order(("0", "1", "10", "11", "2")) == [0, 1, 4, 2, 3]
    assert sort_for_display(("B", "a", "b")) == ["a", "B", "b"]
    assert sort_for_display(DATASETS["fashion-mnist"].classes)[:2] == ["T-shirt/top", "Trouser"]
    assert display_order(("small", "medium", "large 10", "large 9")) == [0, 1, 2, 3]
    assert display_order([]) == []
    with pytest.raises(
        ConfigError, match=r"no 'a \+ 1 or 2 or 10': choose from a \+ 3, b \+ 1, b \+ 2, b"
    ):
        match_values(("a + 3", "b + 1", "b + 10", "b + 2"), 2, ["a", "1", "10", "2"])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cat"], [0, 1]),
        (["in"], [0, 2]),
        (["cat", "in"], [0]),
        (["out", "owl"], [3]),
        (["cat", "dog", "in"], [0, 2]),
        (["cat", "dog"], [0, 1, 2]),
    ],
)
def test_values_choose_classes(names: list[str], found: list[int]) -> None:
    assert match_values(CLASSES, 2, names) == found


def test_whole_classes_and_values_together() -> None:
    header = {"classes": CLASSES, "image_shape": [1, 8, 8],
              "config": {"model": {"latent_dim": 4, "conditional": True}}}  # fmt: skip
    info = GeneratorInfo(header, Path("generator.safetensors"))
    assert info.class_indices(["dog + in", "cat"]) == [2, 0, 1]
    assert info.class_indices(["cat + out", "cat"]) == [1, 0]
    assert info.class_indices([3, 0]) == [3, 0]
    assert info.class_indices(["cat + out", "cat + out"]) == [1, 1]


def test_values_that_choose_nothing() -> None:
    with pytest.raises(ConfigError, match=r"data has no 'dog \+ out': choose from cat"):
        match_values(CLASSES, 2, ["dog", "out"])
    with pytest.raises(UnknownNameError, match="no class 'owls'; did you mean 'owl'"):
        match_values(CLASSES, 2, ["owls"])
    with pytest.raises(
        ConfigError, match=r"of 2 attributes: give the whole class, such as 'b \+ a'"
    ):
        match_values(("c + c", "b + a", "a + c"), 2, ["a"])


def pair(label: str = "concat") -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    G, D = build_pair(
        "mlp", image_shape=(1, 8, 8), num_classes=4, width=8, generator_label=label,
        discriminator_label="projection+auxiliary",
    )  # fmt: skip
    for network in (G, D):
        share_values(network, ROWS)
    return G, D


def test_values_are_numbered_through_all_attributes() -> None:
    assert value_indices(ROWS).tolist() == [[0, 0, 1, 2], [3, 4, 3, 4]]


@pytest.mark.parametrize("label", ["concat", "cbn"])
def test_an_embedding_is_the_sum_over_the_values(label: str) -> None:
    """In G and in D's projection and classifier: e(cat+in) − e(cat+out) is that of the dog."""
    G, D = pair(label)
    head = D.get_submodule("head")
    tensors = [head.embedding.weight, head.classifier.weight, head.classifier.bias]  # type: ignore[union-attr]
    tensors += [G.embed.embedding.weight] if label == "concat" else [G.norms[1].gain]  # type: ignore[union-attr,index]
    for tensor in tensors:
        assert isinstance(tensor, torch.Tensor)
        assert len(tensor) == 4
    animal, place = value_indices(ROWS)
    for network in (G, D):
        for name, parameter in network.named_parameters():
            if name.endswith(".original"):
                module = network.get_submodule(name.partition(".parametrizations")[0])
                rows = getattr(module, name.split(".")[-2])
                assert torch.equal(rows, parameter[animal] + parameter[place])
                assert len(parameter) == 5
    if label == "cbn":
        assert torch.allclose(G.norms[1].gain, torch.ones(4, 16))  # type: ignore[union-attr,index,operator]


def test_sums_start_at_the_scale_of_the_initial_rows() -> None:
    """The closest sums to 30 random rows are smaller than these: only 12 rows are free."""
    _, D = build_pair("mlp", image_shape=(1, 8, 8), num_classes=30, width=256)
    embedding = D.get_submodule("head.embedding")
    before = embedding.weight.std()  # type: ignore[union-attr,operator]
    share_values(D, list(product("abcdefghij", "xyz")))
    torch.testing.assert_close(embedding.weight.std(), before)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_gradient_of_a_value_is_the_sum_of_those_of_its_classes(shape: tuple[int, ...]) -> None:
    indices = value_indices(list(product("abcdefgh", "xyz", "mn")))
    values, upstream = torch.randn(13, *shape, requires_grad=True), torch.randn(48, *shape)
    (found,) = torch.autograd.grad(SumOverValues(indices)(values), values, upstream)
    expected = torch.zeros(13, *shape)
    for row in indices:
        expected.index_add_(0, row, upstream)
    torch.testing.assert_close(found, expected)


def test_a_value_learns_from_all_classes_that_have_it() -> None:
    """Training on "cat + in" changes "cat + out" and "dog + in", and not "owl + out"."""
    G, _ = pair()
    z = torch.randn(4, 64)
    embedding = G.get_submodule("embed.embedding")
    old = embedding.weight.detach().clone()  # type: ignore[union-attr,operator]
    optimizer = torch.optim.SGD(G.parameters(), 0.1)
    G(z, torch.zeros(4, dtype=torch.int64)).square().sum().backward()
    optimizer.step()
    moved = (embedding.weight != old).any(1).tolist()  # type: ignore[union-attr]
    assert moved == [True, True, True, False]


def test_the_file_is_that_of_an_ordinary_conditional_generator() -> None:
    """So nothing but training knows of attributes. Its average is that of the sums."""
    G, D = pair()
    ema = frozen_copy(G)
    for parameter in G.parameters():
        nn.init.normal_(parameter)
    update_ema(ema, G, 0.25)
    z, labels = torch.randn(4, 64), torch.arange(4)
    for network, arguments in ((ema, (z, labels)), (D, (torch.randn(4, 1, 8, 8), labels))):
        plain = build_pair(
            "mlp", image_shape=(1, 8, 8), num_classes=4, width=8, generator_label="concat",
            discriminator_label="projection+auxiliary",
        )[0 if network is ema else 1]  # fmt: skip
        state = to_class_rows(network.state_dict(), ROWS)
        assert state.keys() == plain.state_dict().keys()
        plain.load_state_dict(state)
        plain.train(network.training)
        assert torch.equal(plain(*arguments), network(*arguments))


def nested(root: Path, depth: int = 2) -> Path:
    """cat/in, cat/out, dog/in and dog/out (or cat, dog): bright and dark, warm and cold."""
    random = np.random.default_rng(0)
    for animal, place in product(("cat", "dog"), ("in", "out")):
        folder = root / animal / place if depth == 2 else root / f"{animal}-{place}"
        folder.mkdir(parents=True)
        level = (200 if animal == "cat" else 60) + random.integers(-30, 30, (20, 12, 12, 3))
        level[..., 0 if place == "in" else 2] -= 40
        for index, pixels in enumerate(level.clip(0, 255).astype(np.uint8)):
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root


NAMES = ("cat + in", "cat + out", "dog + in", "dog + out")


def test_nested_folders(tmp_path: Path) -> None:
    folder = scan_folder(nested(tmp_path / "pets"))
    assert folder.classes == NAMES
    assert folder.labels.bincount().tolist() == [20] * 4
    for path, label in zip(folder.paths, folder.labels.tolist(), strict=True):
        assert NAMES[label] == f"{path.parent.parent.name} + {path.parent.name}"
    shutil.copytree(tmp_path / "pets", tmp_path / "split" / "train")
    shutil.copytree(tmp_path / "pets", tmp_path / "split" / "test")
    assert scan_folder(tmp_path / "split").classes == NAMES


def test_tables_with_several_labels(tmp_path: Path) -> None:
    root = nested(tmp_path / "pets")
    rows = [path.relative_to(root) for path in sorted(root.rglob("*.png"))]
    lines = [f"{row},x,{row.parts[0]},{row.parts[1]}" for row in rows]
    table = root / "labels.csv"
    table.write_text("\n".join(["file_name,note,label_animal,label_place", *lines]))
    assert scan_folder(root).classes == NAMES
    table.unlink()
    objects = [
        {"file_name": str(row), "label_animal": row.parts[0], "label_place": row.parts[1]}
        for row in rows
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, objects)))
    assert scan_folder(root).classes == NAMES
    objects = [{**one, "label": one["label_animal"]} for one in objects]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, objects)))
    assert scan_folder(root).classes == ("cat", "dog")  # `label` alone decides


def test_nested_folders_that_cannot_be_used(tmp_path: Path) -> None:
    root = nested(tmp_path / "pets")
    (root / "dog" / "out" / "wet").mkdir()
    for path in list((root / "dog" / "out").glob("*.png")):
        path.rename(root / "dog" / "out" / "wet" / path.name)
    with pytest.raises(DataError, match="hold images at different depths: use one level of"):
        scan_folder(root)
    shutil.rmtree(root / "dog" / "out")
    shutil.rmtree(root / "cat" / "out")
    with pytest.raises(DataError, match="pets are 'in', and an attribute needs two values"):
        scan_folder(root)
    root = nested(tmp_path / "diagonal")
    shutil.rmtree(root / "dog" / "out")
    shutil.rmtree(root / "cat" / "in")
    with pytest.raises(DataError, match="'out' and 'cat' in .* always occur together"):
        scan_folder(root)
    root = nested(tmp_path / "joint")
    (root / "dog" / "out").rename(root / "dog" / "out + wet")
    with pytest.raises(DataError, match=r"' \+ ' joins attributes, so no folder or value in"):
        scan_folder(root)


def test_names_never_make_attributes(tmp_path: Path) -> None:
    """Flat folders whose names all hold the mark are classes of one attribute."""
    root = make_pets(tmp_path / "pets", classes={"oil + lemon": 200, "salt + pepper": 50})
    folder = scan_folder(root)
    assert folder.classes == ("oil + lemon", "salt + pepper")
    assert folder.num_attributes == 1
    changes = {
        "data.source": str(root), "data.size": 8, "images": 64, "model.width": 8,
        "control_per_class": 0, "device": "cpu",
    }  # fmt: skip
    run = cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "run")
    sampler = cgan.load(run.generator)
    assert sampler.num_attributes == 1
    assert sampler.header["num_attributes"] == 1
    with pytest.raises(UnknownNameError, match="no class 'salt'"):
        sampler.class_indices(["salt"])


def test_the_number_of_attributes_of_a_file() -> None:
    """Files of version 0.3 do not state it: the names decide, as they did."""
    assert num_attributes_of({"classes": CLASSES}) == 2
    assert num_attributes_of({"classes": ["cat + in", "dog"]}) == 1
    assert num_attributes_of({"classes": CLASSES, "num_attributes": 1}) == 1
    assert num_attributes_of({"classes": CLASSES, "num_attributes": 2}) == 2
    with pytest.raises(FileError, match="its header names 3 attributes"):
        num_attributes_of({"classes": CLASSES, "num_attributes": 3})


def test_splits_are_no_attribute(tmp_path: Path) -> None:
    for name in ("val", "test"):
        make_pets(tmp_path / "data" / name)
    with pytest.raises(DataError, match="test, val in .* look like splits, but there is no folder"):
        scan_folder(tmp_path / "data")
    make_pets(tmp_path / "other" / "train")
    make_pets(tmp_path / "other" / "extra")
    with pytest.raises(DataError, match="extra is beside the folder train, but it is not"):
        scan_folder(tmp_path / "other")


def test_a_split_may_lack_combinations(tmp_path: Path) -> None:
    shutil.copytree(nested(tmp_path / "pets"), tmp_path / "split" / "train")
    shutil.copytree(tmp_path / "pets" / "cat", tmp_path / "split" / "test" / "cat")
    folder = scan_folder(tmp_path / "split")
    assert folder.classes == NAMES
    assert folder.splits.count("test") == 40
    shutil.rmtree(tmp_path / "split" / "test" / "cat" / "in")
    assert scan_folder(tmp_path / "split").splits.count("test") == 20


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = nested(tmp_path / "pets")
    for name in ("cat", "dog"):
        (root / name / "loop").symlink_to(root)
    with pytest.raises(DataError, match="at different depths"):
        scan_folder(root)


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    table = make_pets(tmp_path / "flat") / "labels.csv"
    paths = sorted(path.relative_to(table.parent) for path in table.parent.rglob("*.png"))
    rows = [f"{path},x,{path.parent.name}" for path in paths]
    table.write_text("\n".join(["file_name,label_a,label_b", *rows]))
    with pytest.raises(DataError, match="are 'x', and an attribute needs two values: leave it out"):
        scan_folder(table.parent)
    rows = [f"{path},{path.parent.name} + cheese" for path in paths]
    table.write_text("\n".join(["file_name,label", *rows]))
    assert scan_folder(table.parent).classes == ("cat + cheese", "dog + cheese")


def test_a_run_with_attributes(tmp_path: Path) -> None:
    """It resumes bit for bit, and its generator is drawn by value."""
    changes = {
        "data.source": str(nested(tmp_path / "pets")), "data.size": 8, "batch_size": 8,
        "model.width": 8, "control_per_class": 0, "device": "cpu", "lr_final_fraction": 1.0,
        "penalty.final_fraction": 1.0,
    }  # fmt: skip
    whole = cgan.train(cgan.load_config("folder-dcgan", {**changes, "images": 128}), tmp_path / "a")
    cgan.train(cgan.load_config("folder-dcgan", {**changes, "images": 64}), tmp_path / "b")
    cgan.train(
        cgan.load_config("folder-dcgan", {**changes, "images": 128}), tmp_path / "b", resume=True
    )
    first, second = cgan.load(whole.folder), cgan.load(tmp_path / "b")
    images = first.sample(["cat", "in"], n=2, seed=3)
    assert torch.equal(images, second.sample(["cat", "in"], n=2, seed=3))
    assert torch.equal(images, first.sample("cat + in", n=2, seed=3))
    assert first.request("dog", n=2).labels == (2, 2, 3, 3)
    table = first.generator.get_submodule("embed.embedding").weight  # type: ignore[union-attr]
    assert isinstance(table, torch.Tensor)
    torch.testing.assert_close(table[0] - table[1], table[2] - table[3])


def test_warm_start_between_runs_with_attributes(tmp_path: Path) -> None:
    """The rows of classes are carried over; with the same classes G draws the same images."""
    changes = {
        "data.source": str(nested(tmp_path / "pets")), "data.size": 8, "batch_size": 8,
        "model.width": 8, "control_per_class": 0, "device": "cpu", "images": 128,
    }  # fmt: skip
    run = cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "a")
    z, labels = torch.randn(4, 64), torch.arange(4)
    expected = cgan.load(run.folder).generator(z, labels)
    state_of_D = select_tensors(load_state(run.folder)[1], "D")
    for source in (run.folder, run.generator):
        config = cgan.load_config("folder-dcgan", {**changes, "warm_start": str(source)})
        state = TrainState(
            Plan(config, cgan.data.load_split(config.data, "train"), torch.device("cpu"))
        )
        warm_start(state)
        torch.testing.assert_close(state.generator_ema(z, labels), expected, atol=1e-5, rtol=1e-4)
        found, old = (
            to_class_rows(tensors, state.attributes)["head.classifier.weight"]
            for tensors in (state.discriminator.state_dict(), state_of_D)
        )
        assert torch.allclose(found, old, atol=1e-5) == (source == run.folder)


def test_control_of_each_attribute() -> None:
    """The names of values may be the same in several attributes."""
    confusion = torch.tensor([[6, 2, 2, 0], [0, 10, 0, 0], [0, 0, 0, 0], [0, 5, 0, 5]])
    classes = ("no + no", "no + yes", "yes + no", "yes + yes")
    control = Control(classes, confusion, True, None, 0, num_attributes=2)
    first, second = control.per_attribute
    assert first.values == second.values == ("no", "yes")
    assert first.accuracy == pytest.approx((0.8 + 1.0 + 0.5) / 3)
    assert second.accuracy == pytest.approx((0.8 + 1.0 + 1.0) / 3)
    assert first.chance == second.chance == 0.5
    assert len(control.to_dict()["per_attribute"]) == 2
    plain = Control(classes, confusion, True, None, 0)
    assert plain.per_attribute == []
    assert "per_attribute" not in plain.to_dict()


def test_a_run_whose_names_made_attributes_does_not_go_on_as_another(tmp_path: Path) -> None:
    """A run of version 0.3 on folders that all hold the mark has shared embeddings."""
    root = make_pets(tmp_path / "pets", classes={"oil + lemon": 200, "salt + pepper": 50})
    changes = {
        "data.source": str(root), "data.size": 8, "images": 64, "model.width": 8,
        "control_per_class": 0, "device": "cpu", "batch_size": 8,
    }  # fmt: skip
    run = cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "run")
    _, tensors, header, _ = load_state(run.folder)
    save_state(run.folder, tensors, {k: v for k, v in header.items() if k != "num_attributes"})
    with pytest.raises(
        RunError, match="combine 2 attributes, and those of the data 1: train again"
    ):
        cgan.train(
            cgan.load_config("folder-dcgan", {**changes, "images": 128}), run.folder, resume=True
        )
