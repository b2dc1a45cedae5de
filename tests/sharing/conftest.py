"""Fixtures: a real browser, and generators with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cgan
from cgan.models import build_pair
from cgan.storage.checkpoint import GENERATOR, new_header, save_tensors

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(path)`` opens a page; at the end it had no errors and used no network."""
    problems: list[str] = []
    contexts = []

    def open_(path: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [text for text in problems if not text.startswith(HARMLESS)] == []


HARMLESS = ("file:", "blob:", "data:", "Canvas2D: Multiple readback")  # these tests read canvases


def wait_for(page: Any, script: str) -> None:
    """Wait until a script is true. (Playwright's own function needs eval, which a page forbids.)"""
    for _ in range(200):
        if page.evaluate(script):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"not true after five seconds: {script}")


def randomise(network: nn.Module) -> nn.Module:
    """Weights that make each layer matter: no running moment, gain or bias is 0 or 1."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture
def make_generator(tmp_path: Path) -> Callable[..., cgan.Sampler]:
    """``make_generator(classes, image_shape, backbone)`` writes a generator file and loads it."""

    def make(
        classes: tuple[str, ...] = ("cat", "dog"),
        image_shape: tuple[int, int, int] = (1, 8, 8),
        backbone: str = "mlp",
        conditional: bool = True,
        measured: dict[str, Any] | None = None,
        **model: Any,
    ) -> cgan.Sampler:
        torch.manual_seed(0)
        pair = build_pair(
            backbone, image_shape=image_shape, num_classes=len(classes) if conditional else None,
            width=16, latent_dim=8, **model,
        )  # fmt: skip
        config = cgan.load_config("digits-mlp", {
            "model.backbone": backbone, "model.width": 16, "model.latent_dim": 8,
            "model.conditional": conditional, **{f"model.{key}": model[key] for key in model},
        })  # fmt: skip
        header = {
            **new_header(GENERATOR), "config": config.model_dump(mode="json"), "data": "pets",
            "classes": list(classes), "image_shape": list(image_shape), "images_seen": 100,
            "seconds": 6.0, "steps": 10, "measured": measured or {}, "versions": {},
        }  # fmt: skip
        path = tmp_path / "pets" / "generator.safetensors"
        save_tensors(path, randomise(pair.generator).state_dict(), header)
        return cgan.load(path)

    return make
