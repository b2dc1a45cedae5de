"""What ``cgan augment-test`` prints to stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cgan.cli.options import results
from cgan.evaluation.augment_report import AugmentTest


def print_augment_test(result: AugmentTest) -> None:
    """Accuracies per training set, and the verdict."""
    results.print(
        f"{result.model}: {result.train_images:,} training and {result.test_images:,} test images, "
        f"classifiers trained on {result.shown_images:,} images each",
        style="italic",
    )
    table = Table(title="right in %: mean (lowest–highest seed)")
    table.add_column("trained on", no_wrap=True)
    for heading in ("validation", "test", *([result.rarest_class] if result.rarest_class else [])):
        table.add_column(heading, justify="right")
    for row in result.rows:
        columns = [row.validation, row.test, *([row.rarest] if row.rarest else [])]
        table.add_row(row.name, *map(format_range, columns))
    results.print(table)
    for warning in result.warnings:
        results.print(f"warning: {warning}", style="yellow")
    for reason in result.left_out:
        results.print(f"left out: {reason}", style="dim")
    results.print(f"verdict: {result.reason}")


def format_range(shares: Sequence[float]) -> str:
    """Mean and range of fractions in %: ``81.2 (80.7–81.9)``."""
    mean = sum(shares) / len(shares)
    return f"{100 * mean:.1f} ({100 * min(shares):.1f}–{100 * max(shares):.1f})"
