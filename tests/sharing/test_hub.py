"""Publishing to, and loading from, a server of the Hub's HTTP interface on the loopback."""

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants
from typer.testing import Result

import cgan
from cgan.errors import ConfigError, FileError
from cgan.sharing.card import escape_markdown
from cgan.sharing.page import render_page
from cgan.storage import paths as hubs
from cgan.storage.paths import ENCODER_FILE, JUDGE_FILE, PACKAGED
from cgan.storage.safe_reading import file_digest
from tests.sharing.hub_server import TOKEN, Hub

# huggingface_hub passes an argument of httpx that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Shell = Callable[..., Result]
MODEL, SPACE = "models/owner/pets", "spaces/owner/pets"


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    started = Hub()
    yield started
    started.close()


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, with an empty cache and the right token."""
    for name, value in {
        "ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # retries
    huggingface_hub.utils.disable_progress_bars()
    server.reset()
    for store in (server.commits, server.private, server.objects, server.tags, server.requests):
        store.clear()
    yield server
    huggingface_hub.utils.enable_progress_bars()


@pytest.fixture
def pets(make_generator: Callable[..., cgan.Sampler]) -> cgan.Sampler:
    measured = {
        "control_accuracy": 0.875, "interval": [0.8, 0.9], "pictures": 200, "fid": 1.5,
        "per_class": {"cat": 0.75, "d|og": 1.0}, "features": "judge 1234 of pets",
    }  # fmt: skip
    return make_generator(("cat", "d|og"), measured=measured)


def card_of(text: str) -> tuple[dict[str, Any], str]:
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_what_is_pushed_can_be_loaded(hub: Hub, pets: cgan.Sampler) -> None:
    report = f"the report of {file_digest(pets.path)}"
    pets.path.with_name("report.html").write_text(report)
    pets.path.with_name("notes.txt").write_text("my own")
    run = pets.path.parent
    pushed = cgan.push(run, "owner/pets", license="cc-by-4.0", space=True, report=True)
    commit = hub.newest(MODEL)
    assert pushed.name == f"hf-hub:owner/pets@{commit}"
    files = hub.files(MODEL)
    assert {name: len(content) for name, content in files.items()} == pushed.files
    expected = {"README.md", "draw.html", "generator.safetensors", "report.html", "samples.png"}
    assert set(files) == expected
    assert files["generator.safetensors"] == pets.path.read_bytes()
    assert files["report.html"] == report.encode()
    assert files["README.md"].decode() == pushed.card
    assert hub.pushes(MODEL) == 1  # all files in one commit
    assert set(hub.files(SPACE)) == {"README.md", "index.html"}
    assert hub.files(SPACE)["index.html"] == files["draw.html"]
    assert files["draw.html"] == render_page(pets, "hf-hub:owner/pets").encode()
    assert b"cgan generate hf-hub:owner/pets" not in render_page(pets).encode()
    assert card_of(hub.files(SPACE)["README.md"].decode())[0]["sdk"] == "static"

    loaded = cgan.load("hf-hub:owner/pets")
    assert loaded.name == pushed.name  # with its commit
    assert torch.equal(loaded.sample("cat", 3), pets.sample("cat", 3))
    hub.requests.clear()
    assert cgan.load(pushed.name).name == pushed.name
    assert hub.requests == []  # a commit never changes, so the cache is enough
    assert "<h1>pets</h1>" in render_page(loaded)

    cgan.push(run, "owner/pets", license="cc-by-4.0")  # now without the report
    assert set(hub.files(MODEL)) == expected - {"report.html"}
    pets.path.with_name("report.html").write_text("the report of another generator")
    with pytest.raises(FileError, match=r"report\.html is not of this generator"):
        cgan.push(run, "owner/pets", license="mit", report=True)
    pets.path.with_name("report.html").unlink()
    with pytest.raises(FileError, match=r"there is no .*report\.html: write it with cgan evaluate"):
        cgan.push(run, "owner/pets", license="mit", report=True)


def test_the_card(hub: Hub, pets: cgan.Sampler) -> None:
    pushed = cgan.push(pets.path, "owner/pets", license="mit", dry_run=True)
    assert hub.requests == []
    assert pushed.name == "hf-hub:owner/pets"
    metadata, body = card_of(pushed.card)
    assert (metadata["license"], metadata["library_name"]) == ("mit", "cgan")
    assert {"gan", "conditional-gan"} <= set(metadata["tags"])
    assert "datasets" not in metadata  # "pets" is no data set of the Hub
    (model,) = metadata["model-index"]
    assert model["name"] == "pets"
    metrics = {one["type"]: one for result in model["results"] for one in result["metrics"]}
    assert metrics["control_accuracy"]["value"] == 0.875
    assert metrics["control_accuracy_worst_class"]["value"] == 0.75
    assert metrics["fid"]["name"] == "FID (features: judge 1234 of pets)"
    assert "# pets\n" in body
    assert "cat, d\\|og." in body
    assert r"| control accuracy | 87.50 % \(95 % interval 80.00–90.00 %, 200 images\) |" in body
    assert "| worst class | cat, 75.00 % |" in body
    assert "| licence | mit |" in body
    assert "cgan.load(\"hf-hub:owner/pets\").sample('cat', n=16, seed=0)" in body
    assert str(pets.path.parent) not in pushed.card
    assert escape_markdown("<b>\n[a](b) `c`") == r"\<b\> \[a\]\(b\) \`c\`"
    assert escape_markdown("\u202e~~http://x.y www.z") == r"\\u202e\~\~http\://x.y www\.z"


def test_hostile_names_in_the_card(hub: Hub, make_generator: Callable[..., cgan.Sampler]) -> None:
    sampler = make_generator(("a$(id)`b`", "\u732b\u202e", *(f"c{i}" for i in range(110))))
    text = cgan.push(sampler.path, "owner/pets", license="mit", dry_run=True).card
    assert "cgan generate hf-hub:owner/pets --class 'a$(id)`b`'\n" in text
    assert r"a\$\(id\)\`b\`, \u732b\\u202e, c0" in text.replace("\u732b", r"\u732b")
    assert " c97 and 12 more." in text
    assert "\u202e" not in text


def test_a_plain_gan(hub: Hub, make_generator: Callable[..., cgan.Sampler]) -> None:
    measured = {"control_accuracy": 0.5, "per_class": {"cat": 0.5}, "fid": 2.0}
    sampler = make_generator(conditional=False, measured=measured)
    metadata, body = card_of(cgan.push(sampler.path, "o/p", license="mit", dry_run=True).card)
    (result,) = metadata["model-index"][0]["results"]
    assert [one["type"] for one in result["metrics"]] == ["fid"]
    assert result["task"]["name"] == "plain image generation"
    assert "ontrol" not in body


def test_private_means_private(hub: Hub, pets: cgan.Sampler) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")
    with pytest.raises(FileError, match="owner/pets exists and is public: choose another name"):
        cgan.push(pets.path, "owner/pets", license="mit", private=True)
    assert hub.pushes(MODEL) == 1
    cgan.push(pets.path, "owner/hidden", license="mit", private=True)
    cgan.push(pets.path, "owner/hidden", license="mit", space=True)  # as private as the weights
    assert SPACE.replace("pets", "hidden") in hub.private


def test_an_encoder_of_another_generator_is_left_out(hub: Hub, pets: cgan.Sampler) -> None:
    shutil.copyfile(PACKAGED / "mnist" / ENCODER_FILE, pets.path.with_name(ENCODER_FILE))
    assert ENCODER_FILE not in cgan.push(pets.path, "owner/pets", license="mit", dry_run=True).files


def test_a_judge_of_other_data_is_left_out(hub: Hub, pets: cgan.Sampler) -> None:
    shutil.copyfile(PACKAGED / "mnist" / JUDGE_FILE, pets.path.with_name(JUDGE_FILE))
    assert JUDGE_FILE not in cgan.push(pets.path, "owner/pets", license="mit", dry_run=True).files


def test_a_page_that_is_not_published_is_said(hub: Hub, pets: cgan.Sampler) -> None:
    hub.fail = lambda request: 403 if "/spaces/" in request else None
    with pytest.raises(FileError, match=r"is published as hf-hub:owner/pets@\w{40}, but not its"):
        cgan.push(pets.path, "owner/pets", license="mit", space=True)
    assert hub.pushes(MODEL) == 1


def test_the_packaged_generator_brings_its_judge(hub: Hub) -> None:
    cgan.push("mnist", "owner/pets", license="mit", private=True)
    assert {MODEL} == hub.private
    assert {"judge.safetensors", "encoder.safetensors"} <= set(hub.files(MODEL))
    metadata, _ = card_of(hub.files(MODEL)["README.md"].decode())
    assert metadata["datasets"] == ["ylecun/mnist"]
    folder = cgan.load("hf-hub:owner/pets").path.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.safetensors", "generator.safetensors", "judge.safetensors",
    ]  # fmt: skip


def test_the_shell(hub: Hub, pets: cgan.Sampler, shell: Shell, tmp_path: Path) -> None:
    result = shell("push", pets.path, "owner/pets")
    assert result.exit_code == 2
    assert "a published model needs a licence: --license mit" in result.stderr
    result = shell("push", pets.path, "owner/pets", "--license", "mit", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("---\n")
    assert hub.requests == []
    result = shell("push", pets.path, "owner/pets", "--license", "mit")
    name = f"hf-hub:owner/pets@{hub.newest(MODEL)}"
    assert result.stdout == f"{name}\n"
    hub.tags["v1"] = hub.newest(MODEL)
    result = shell("generate", "hf-hub:owner/pets@v1", "--class", "cat")
    assert result.exit_code == 0, result.stderr
    assert f"generated by {name}" in result.stderr
    assert (tmp_path / result.stdout.strip()).is_file()
    assert result.stdout.startswith("generated/pets/")  # not in the cache


def test_offline_it_works_from_the_cache(
    hub: Hub, pets: cgan.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")
    with pytest.raises(FileError, match="does not exist on the Hub|does not exist, is private"):
        cgan.load("hf-hub:owner/none")
    first = cgan.load("hf-hub:owner/pets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cgan.load("hf-hub:owner/pets").name == first.name
    with pytest.raises(FileError, match="owner/other is not in the cache, and the Hub cannot be"):
        cgan.load("hf-hub:owner/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert cgan.load("hf-hub:owner/pets").name == first.name
    with pytest.raises(FileError, match="owner/other is not in the cache, and the Hub cannot be"):
        cgan.load("hf-hub:owner/other")


FAILURES = [
    (401, "does not exist, is private, or needs an account: log in with hf auth login"),
    (403, "the Hub refuses access to"),
    (404, "does not exist on the Hub, or is private"),
    (429, "too many requests"),
    (500, "the Hub answered with status 500"),
]


STEPS = ["/api/repos/create", "/preupload/", "/objects/batch", "/commit/", "/commit/"]


@pytest.mark.parametrize(
    ("step", "status", "sentence"),
    [(step, *failure) for step, failure in zip(STEPS, FAILURES, strict=True)],
)
def test_a_push_that_fails_leaves_no_commit(
    hub: Hub, pets: cgan.Sampler, step: str, status: int, sentence: str
) -> None:
    hub.fail = lambda request: status if step in request else None
    with pytest.raises(FileError, match=sentence) as raised:
        cgan.push(pets.path, "owner/pets", license="mit")
    assert "\n" not in str(raised.value)
    assert hub.pushes(MODEL) == 0
    hub.reset()
    cgan.push(pets.path, "owner/pets", license="mit")
    assert hub.pushes(MODEL) == 1


def test_a_card_that_the_hub_refuses(hub: Hub, pets: cgan.Sampler) -> None:
    hub.card_errors = ['"license" must be one of [mit, gpl-3.0]']
    with pytest.raises(FileError, match='refuses owner/pets: .*"license" must be one of') as raised:
        cgan.push(pets.path, "owner/pets", license="gpl3")
    assert "\n" not in str(raised.value)


def test_a_full_disk_and_a_cache_that_is_not_writable(
    hub: Hub, pets: cgan.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "samples.png")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", fail)
        with pytest.raises(FileError, match="was not transferred .*: free space, or set HF_HOME"):
            cgan.load("hf-hub:owner/pets")
    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(FileError, match="the disk is full: samples.png was not written"):
        cgan.push(pets.path, "owner/pets", license="mit")
    assert hub.pushes(MODEL) == 1


@pytest.mark.parametrize(("status", "sentence"), FAILURES)
def test_a_download_that_fails_leaves_nothing(
    hub: Hub, pets: cgan.Sampler, tmp_path: Path, status: int, sentence: str
) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")
    hub.fail = lambda request: status if request.startswith("GET /owner") else None
    with pytest.raises(FileError, match=sentence):
        cgan.load("hf-hub:owner/pets")
    assert list(tmp_path.glob("hub/**/*.safetensors")) == []
    hub.reset()
    assert cgan.load("hf-hub:owner/pets").classes == ("cat", "d|og")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda content: content[:-1] + b"!", "is damaged .its digest differs.: try again"),
        (lambda content: content[:1000], "was not transferred"),
    ],
)
def test_a_broken_transfer(
    hub: Hub, pets: cgan.Sampler, tmp_path: Path, spoil: Any, sentence: str
) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")
    hub.spoil = spoil
    with pytest.raises(FileError, match=sentence):
        cgan.load("hf-hub:owner/pets")
    assert list(tmp_path.glob("hub/**/*.safetensors")) == []
    hub.reset()
    assert cgan.load("hf-hub:owner/pets").classes == ("cat", "d|og")


def test_names(hub: Hub, pets: cgan.Sampler) -> None:
    cgan.push(pets.path, "owner/pets", license="mit")
    hub.commit(MODEL, {})
    for rest in ("", "pets", "a/b/c", "a/b@", "../b", "a/-b", "a/b@main c"):
        with pytest.raises(
            ConfigError, match=r"is not the name of a repository on the Hub: write hf-hub:owner"
        ):
            cgan.load(f"hf-hub:{rest}")
    with pytest.raises(FileError, match="owner/pets@v9 does not exist: the repository has no such"):
        cgan.load("hf-hub:owner/pets@v9")
    with pytest.raises(ConfigError, match="is named owner/name, not 'pets'"):
        cgan.push(pets.path, "pets", license="mit")
    with pytest.raises(ConfigError, match="'My own' is not a licence of the Hub"):
        cgan.push(pets.path, "owner/pets", license="My own")
    hub.commits["models/owner/empty"] = {}
    hub.commit("models/owner/empty", {"pytorch_model.bin": b"a pickle"})
    with pytest.raises(FileError, match=r"owner/empty holds no generator\.safetensors"):
        cgan.load("hf-hub:owner/empty")
    assert not any("pytorch_model" in request for request in hub.requests)


def test_without_the_library(pets: cgan.Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (
        lambda: cgan.load("hf-hub:owner/pets"),
        lambda: cgan.push(pets.path, "owner/pets", license="mit"),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'cgan\[hub\]'"):
            call()


def test_names_of_files_in_the_cache() -> None:
    commit = "a" * 40
    path = Path(f"/c/models--owner--my-pets/snapshots/{commit}/generator.safetensors")
    assert hubs.hub_name(path) == f"hf-hub:owner/my-pets@{commit}"
    assert hubs.hub_name(Path("runs/pets/generator.safetensors")) is None
