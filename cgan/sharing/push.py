"""``cgan.push``: publish a generator on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cgan.attributes import sort_for_display
from cgan.errors import ConfigError, FileError
from cgan.evaluation.invert import read_encoder
from cgan.evaluation.judge import Judge
from cgan.runtime.device import torch_defaults
from cgan.sampling.sampler import Sampler, load
from cgan.sharing.card import render_readme
from cgan.sharing.page import render_page
from cgan.storage.atomic import temporary_folder
from cgan.storage.checkpoint import save_tensors
from cgan.storage.images import make_grid, save_png, to_pixels
from cgan.storage.paths import (
    ENCODER_FILE,
    GENERATOR_FILE,
    JUDGE_FILE,
    PREFIX,
    StrPath,
    check_repository,
    explain_errors,
    require_library,
)
from cgan.storage.safe_reading import file_digest

PAGE_FILE, REPORT_FILE, SAMPLES_FILE = "draw.html", "report.html", "samples.png"
MAX_ROWS, COLUMNS = 20, 10
"""Of the picture of samples."""

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""Identifiers of the Hub, such as mit, cc-by-4.0 or other."""

OPTIONAL_FILES = (JUDGE_FILE, ENCODER_FILE, REPORT_FILE, PAGE_FILE)
"""Files that a repository may lack."""
MESSAGE = "Publish with cgan"


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
    path_or_run: StrPath,
    repository: str,
    *,
    license: str,
    private: bool = False,
    space: bool = False,
    report: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Publish a generator, in one commit: it, its judge, a card, samples, and a page that draws.

    The token is that of ``hf auth login``, or ``HF_TOKEN``. Files of an earlier push that are not
    part of this one are removed.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        repository: ``owner/name``; it is created if it does not exist.
        license: of the model, as the Hub writes it: ``mit``, ``cc-by-4.0``, ``other``.
        private: whether a new repository is private.
        space: publish the page as a static Space of the same name, too. It holds all weights, so it
            is private if the repository is.
        report: publish ``report.html`` of the run folder, too. It shows training images.
        dry_run: prepare everything, and send nothing.

    Raises:
        ConfigError: the name or the licence is invalid, ``huggingface_hub`` is not installed, or
            a Space was asked for an ONNX network, which no page can draw.
        FileError: there is no such generator or report, the disk is full, the repository exists
            and is public, or the Hub refuses the files.
    """
    check_repository(repository)
    if not LICENSE.fullmatch(license):
        raise ConfigError(f"{license!r} is not a licence of the Hub: use mit, cc-by-4.0 or other")
    require_library()
    from huggingface_hub import HfApi

    sampler = load(path_or_run)
    with temporary_folder() as temporary:
        folder, page = temporary / "model", temporary / "space"
        folder.mkdir()
        write_repository(sampler, folder, f"{PREFIX}{repository}", license, report)
        if space and not (folder / PAGE_FILE).exists():
            raise ConfigError("no page can draw with an ONNX network: leave out --space")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        text = (folder / "README.md").read_text(encoding="utf-8")
        if dry_run:
            return Pushed(f"{PREFIX}{repository}", files, text)
        api = HfApi(library_name="cgan")
        with explain_errors(repository):
            _create(api, repository, private)
            private = api.repo_info(repository).private
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=MESSAGE,
                delete_patterns=[*OPTIONAL_FILES],
            )  # fmt: skip
        name = f"{PREFIX}{repository}@{commit.oid}"
        try:
            address = _push_space(api, repository, folder, page, private) if space else None
        except FileError as error:
            raise FileError(
                f"the model is published as {name}, but not its page: {error}"
            ) from error
    return Pushed(name, files, text, address)


def _create(api: Any, repository: str, private: bool, **options: Any) -> str:
    """Create a repository unless it exists; returns its address."""
    # None leaves it to the owner's settings
    url = api.create_repo(repository, private=private or None, exist_ok=True, **options)
    if private and not api.repo_info(repository, repo_type=options.get("repo_type")).private:
        raise FileError(
            f"{repository} exists and is public: choose another name, or leave out --private"
        )
    return str(url)


def _push_space(api: Any, repository: str, folder: Path, page: Path, private: bool) -> str:
    """Publish the page as a static Space; returns its address."""
    page.mkdir()
    shutil.copyfile(folder / PAGE_FILE, page / "index.html")
    title = repository.rpartition("/")[2]
    metadata = f"title: {json.dumps(title)}\nsdk: static\nmodels:\n- {repository}"
    (page / "README.md").write_text(f"---\n{metadata}\n---\n", encoding="utf-8")
    with explain_errors(f"the Space {repository}"):
        url = _create(api, repository, private, repo_type="space", space_sdk="static")
        api.upload_folder(
            repo_id=repository, repo_type="space", folder_path=page, commit_message=MESSAGE
        )
    return url


def _report_of(sampler: Sampler) -> Path:
    """The report beside a generator; raises ``FileError`` if there is none of it."""
    path = sampler.path.parent / REPORT_FILE
    anew = f"write it with {shlex.join(['cgan', 'evaluate', sampler.name, '--html', str(path)])}"
    if not path.is_file():
        raise FileError(f"there is no {path}: {anew}, or leave out --report")
    if file_digest(sampler.path) not in path.read_text(encoding="utf-8", errors="replace"):
        raise FileError(f"{path} is not of this generator, or of an older version: {anew}")
    return path


def write_repository(
    sampler: Sampler, folder: Path, name: str, license: str, report: bool = False
) -> None:
    """Write the files of a repository to an empty folder.

    Args:
        sampler: the generator.
        folder: where.
        name: the repository, ``hf-hub:owner/name``.
        license: of the model.
        report: copy the report of the run.

    Raises:
        FileError: there is no report of this generator.
    """
    source = sampler.path.parent
    shutil.copyfile(sampler.path, folder / GENERATOR_FILE)
    if (source / JUDGE_FILE).exists() and Judge.load(source / JUDGE_FILE).is_of(sampler.header):
        shutil.copyfile(source / JUDGE_FILE, folder / JUDGE_FILE)
    if (encoder := read_encoder(sampler)) is not None:
        header = {**encoder.header, "generator": file_digest(sampler.path)}
        save_tensors(folder / ENCODER_FILE, dict(encoder.network.state_dict()), header)
    if report:
        shutil.copyfile(_report_of(sampler), folder / REPORT_FILE)
    with suppress(ConfigError):  # no page can draw with an ONNX network
        (folder / PAGE_FILE).write_text(render_page(sampler, name), encoding="utf-8")
    labels = sort_for_display(sampler.classes)[:MAX_ROWS] if sampler.conditional else None
    images = sampler.sample(labels, COLUMNS if sampler.conditional else COLUMNS**2)
    scale = max(1, round(56 / sampler.image_shape[2]))
    save_png(make_grid(to_pixels(images), COLUMNS, scale), folder / SAMPLES_FILE)
    files = {path.name for path in folder.iterdir()}
    text = render_readme(sampler, name, license, files)
    (folder / "README.md").write_text(text, encoding="utf-8")
