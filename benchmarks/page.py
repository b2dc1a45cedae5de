"""``python -m benchmarks page``: how large a page is, and how fast it draws in Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

from cgan.sharing.page import export_page

FIRST = "performance.getEntriesByName('cgan-first-image')[0].startTime"
EACH = """() => { const begun = performance.now();
  for (let seed = 0; seed < 200; seed++) generator.draw(classes.length ? classes[0] : null, seed);
  return (performance.now() - begun) / 200; }"""


def measure(model: str, repeats: int = 5) -> None:
    """Print size, time to the first image, time of one image, and frames a second of a walk."""
    from playwright.sync_api import sync_playwright

    path = export_page(model, Path(tempfile.mkdtemp()) / "page.html")
    print(f"- size {path.stat().st_size / 1e6:.2f} MB")
    found: dict[str, list[float]] = {"first image (ms)": [], "one image (ms)": [], "frames/s": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(repeats):
            page = browser.new_page()
            page.goto(path.as_uri())
            found["first image (ms)"].append(page.evaluate(FIRST))
            page.wait_for_timeout(1_000)  # the grid is drawn
            found["one image (ms)"].append(page.evaluate(EACH))
            page.click("#play")
            before = page.evaluate("window.cgan.frames || 0")
            page.wait_for_timeout(3_000)
            found["frames/s"].append((page.evaluate("window.cgan.frames") - before) / 3)
            page.close()
        print(f"- Chromium {browser.version}")
        browser.close()
    for name, values in found.items():
        median = statistics.median(values)
        print(f"- {name}: {median:.4g} ({min(values):.4g} to {max(values):.4g})")
