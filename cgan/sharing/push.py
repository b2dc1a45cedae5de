"""``cgan.push``: publish a generator on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from cgan.config import DATA_NAMES
from cgan.errors import ConfigError
from cgan.evaluation.api import find_judge_of
from cgan.runtime.device import torch_defaults
from cgan.sampling.sampler import Sampler, load
from cgan.sharing import card
from cgan.sharing.page import render_page
from cgan.storage.hub import PREFIX, check_repository, explain_errors, require_library
from cgan.storage.images import make_grid, save_png, to_pixels
from cgan.storage.paths import ENCODER_FILE, GENERATOR_FILE, JUDGE_FILE

PAGE_FILE, REPORT_FILE, SAMPLES_FILE = "draw.html", "report.html", "samples.png"
MAX_ROWS, COLUMNS = 20, 10
"""Of the picture of samples."""

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""Identifiers of the Hub, such as mit, cc-by-4.0 or other."""

DATASETS = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""Data sets on the Hub that a card can link to."""


class Pushed(NamedTuple):
    """What was published, or would be.

    Attributes:
        name: ``hf-hub:owner/name@commit``, for ``cgan.load``; without a commit in a dry run.
        files: bytes of each file.
        card: the text of README.md.
        space: the address of the Space, if one was asked for.
    """

    name: str
    files: dict[str, int]
    card: str
    space: str | None = None


@torch_defaults()
def push(
    path_or_run: str | Path,
    repository: str,
    *,
    license: str,
    private: bool = False,
    space: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Publish a generator, in one commit: it, its judge, a card, samples, and a page that draws.

    A ``report.html`` in the folder of the run is published too. The token is that of ``hf auth
    login``, or ``HF_TOKEN``.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        repository: ``owner/name``; it is created if it does not exist.
        license: of the model, as the Hub writes it: ``mit``, ``cc-by-4.0``, ``other``.
        private: whether a new repository is private.
        space: publish the page as a static Space of the same name, too.
        dry_run: prepare everything, and send nothing.

    Raises:
        ConfigError: the name or the licence is invalid, or ``huggingface_hub`` is not installed.
        FileError: there is no such generator, or the Hub refuses the files.
    """
    check_repository(repository)
    if not LICENSE.fullmatch(license):
        raise ConfigError(f"{license!r} is no licence of the Hub: write mit, cc-by-4.0 or other")
    require_library()
    from huggingface_hub import HfApi

    sampler = load(path_or_run)
    with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        folder, page = Path(temporary, "model"), Path(temporary, "space")
        folder.mkdir()
        write_repository(sampler, folder, f"{PREFIX}{repository}", license)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        text = (folder / "README.md").read_text(encoding="utf-8")
        if dry_run:
            return Pushed(f"{PREFIX}{repository}", files, text)
        api = HfApi(library_name="cgan")
        with explain_errors(repository):
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Publish with cgan"
            )
        address = _push_space(api, repository, folder, page, private) if space else None
    return Pushed(f"{PREFIX}{repository}@{commit.oid}", files, text, address)


def _push_space(api: Any, repository: str, folder: Path, page: Path, private: bool) -> str:
    """Publish the page as a static Space; returns its address."""
    page.mkdir()
    shutil.copyfile(folder / PAGE_FILE, page / "index.html")
    title = repository.rpartition("/")[2]
    metadata = f"title: {json.dumps(title)}\nsdk: static\nmodels:\n- {repository}"
    (page / "README.md").write_text(f"---\n{metadata}\n---\n", encoding="utf-8")
    options = {"repo_id": repository, "repo_type": "space"}
    with explain_errors(f"the Space {repository}"):
        created = api.create_repo(**options, private=private, exist_ok=True, space_sdk="static")
        api.upload_folder(**options, folder_path=page, commit_message="Publish with cgan")
    return str(created)


def write_repository(sampler: Sampler, folder: Path, name: str, license: str) -> None:
    """Write the files of a repository to an empty folder.

    Args:
        sampler: the generator.
        folder: where.
        name: the repository, ``hf-hub:owner/name``.
        license: of the model.
    """
    source = sampler.path.parent
    shutil.copyfile(sampler.path, folder / GENERATOR_FILE)
    if sampler.conditional and (source / JUDGE_FILE).exists():
        find_judge_of(sampler).save(folder / JUDGE_FILE)
    for file in (ENCODER_FILE, REPORT_FILE):
        if (source / file).exists():
            shutil.copyfile(source / file, folder / file)
    (folder / PAGE_FILE).write_text(render_page(sampler), encoding="utf-8")
    labels = list(sampler.classes[:MAX_ROWS]) if sampler.conditional else None
    images = sampler.sample(labels, COLUMNS if sampler.conditional else COLUMNS**2)
    scale = max(1, round(56 / sampler.image_shape[2]))
    save_png(make_grid(to_pixels(images), COLUMNS, scale), folder / SAMPLES_FILE)
    files = {path.name for path in folder.iterdir()}
    text = render_card(sampler, name, license, files)
    (folder / "README.md").write_text(text, encoding="utf-8")


def render_card(sampler: Sampler, name: str, license: str, files: set[str]) -> str:
    """The README.md of a repository, with the metadata that the Hub reads."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["md"] = escape_markdown
    template = (Path(__file__).parent / "README.md.j2").read_text(encoding="utf-8")
    first = sampler.classes[0]
    rows = card.card_rows(sampler)
    channels, height, width = sampler.image_shape
    limits = rows.pop("limits", None) or (
        f"It draws {width}×{height} images in the style of its training images, which are "
        f"{sampler.header['data']}, and some of them show another class or nothing recognisable."
    )
    return environment.from_string(template).render(
        metadata=_metadata(sampler, name, license),
        title=name.rpartition("/")[2],
        sampler=sampler,
        header=sampler.header,
        shape=f"{width}×{height} {'grey' if channels == 1 else 'colour'}",
        name=name,
        example=f" --class {json.dumps(first)}" if sampler.conditional else "",
        first_class=f"{json.dumps(first, ensure_ascii=False)}, " if sampler.conditional else "",
        rows={**rows, "licence": license},
        limits=limits,
        files=files,
    )


def _metadata(sampler: Sampler, name: str, license: str) -> str:
    """The YAML at the head of a card, with the measurements as ``model-index``."""
    from huggingface_hub import EvalResult, ModelCardData

    header = sampler.header
    source = str(header["config"]["data"]["source"])
    on_hub = DATASETS.get(source)
    metrics: list[tuple[str, str, float]] = []
    if measured := header["measured"]:
        metrics.append(("control_accuracy", "control accuracy", measured["control_accuracy"]))
    if worst := card.worst_class(header):
        metrics.append(
            ("control_accuracy_worst_class", f"of the worst class, {worst[0]}", worst[1])
        )
    features = str(measured.get("features", "the judge's"))
    for key, (value, _) in card.figures(header).items():
        metrics.append((key, f"{card.FIGURES[key]} (features: {features})", value))
    results = [
        EvalResult(
            task_type="unconditional-image-generation",
            task_name="class-conditional image generation",
            dataset_type=on_hub or source,
            dataset_name=str(header["data"]),
            metric_type=kind,
            metric_name=words,
            metric_value=value,
        )
        for kind, words, value in metrics
    ]
    tags = ["gan", "cgan", "image-generation"]
    data = ModelCardData(
        license=license,
        library_name="cgan",
        tags=[*tags, "conditional-gan"] if sampler.conditional else tags,
        datasets=[on_hub] if on_hub in DATASETS.values() and source in DATA_NAMES else None,
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
    )
    return str(data.to_yaml())


def escape_markdown(text: object) -> str:
    """Any text as one line of Markdown without markup."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>&])", r"\\\1", " ".join(str(text).split()))
