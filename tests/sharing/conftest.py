"""Fixtures: a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
    for _ in range(800):
        if page.evaluate(script):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"not true after 20 seconds: {script}")
