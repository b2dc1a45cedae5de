"""``cgan evaluate``, ``cgan compare`` and ``cgan augment-test``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    check_output,
    load_model,
    messages,
    results,
)
from cgan.errors import ConfigError

if TYPE_CHECKING:
    from cgan.evaluation.report import Report

PerClassOption = Annotated[
    int | None, typer.Option(min=1, help="Images per class.", show_default="1000, or fewer of many")
]
FeaturesOption = Annotated[
    str, typer.Option(help="judge, pretrained, or inception (downloads its weights).")
]
TruncationOption = Annotated[
    bool,
    typer.Option("--truncation", help="Also measure control and recall with z scaled down."),
]
SecondJudgeOption = Annotated[
    bool,
    typer.Option(
        "--second-judge",
        help="Also measure control with a second judge with another architecture.",
    ),
]
JudgeOption = Annotated[
    Path | None, typer.Option("--judge", help="Use the judge in this file.", metavar="FILE")
]
FailUnderOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Exit with status 1 if a figure is worse than this, like control=0.99 or fid=2; "
        "repeatable.",
        metavar="FIGURE=LIMIT",
        show_default=False,
    ),
]
HtmlOption = Annotated[str | None, typer.Option("--html", help="Write a report.", metavar="FILE")]
MinutesOption = Annotated[
    float, typer.Option(min=0, help="About the longest training time of all classifiers together.")
]
SeedsOption = Annotated[int, typer.Option(min=2, help="Classifiers per recipe.")]
RecipeOption = Annotated[
    bool,
    typer.Option("--recipe", help="Print the best recipe with generated images as Python."),
]


def evaluate(
    model: ModelArgument = None,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    per_class: PerClassOption = None,
    features: FeaturesOption = "judge",
    cas: Annotated[
        bool, typer.Option("--cas", help="Also train a classifier on generated images.")
    ] = False,
    truncation: TruncationOption = False,
    second_judge: SecondJudgeOption = False,
    judge: JudgeOption = None,
    html: HtmlOption = None,
    fail_under: FailUnderOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a generator against real images: control, quality, diversity, memorization."""
    from cgan.cli import tables
    from cgan.evaluation.api import evaluate as evaluate_model
    from cgan.evaluation.reference import check_limits, parse_limits

    limits = parse_limits(fail_under or [])
    for key, option, given in (
        ("cas", "--cas", cas),
        ("control_accuracy_second_judge", "--second-judge", second_judge),
        ("control_relative_second_judge", "--second-judge", second_judge),
        ("judge_agreement", "--second-judge", second_judge),
    ):
        if key in limits and not given:
            raise ConfigError(f"--fail-under {key} needs {option}, which measures it")
    if any("_truncation_" in key for key in limits) and not truncation:
        raise ConfigError("--fail-under with a truncation needs --truncation, which measures it")
    check_output("--html", html, ".html")
    report = evaluate_model(
        load_model(model), data=data, data_dir=data_dir, per_class=per_class, features=features,
        cas=cas, truncation=truncation, second_judge=second_judge, judge=judge, device=device,
    )  # fmt: skip
    checks = check_limits(report, limits)
    if as_json:
        _print_json({**report.to_dict(), "checks": [check._asdict() for check in checks]})
    else:
        tables.print_report(report)
    _write_html(html, [report])
    for check in checks:
        mark, style = ("passed", None) if check.passed else ("FAILED", "red")
        messages.print(f"{mark}: {check.sentence}", style=style)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def compare(
    models: Annotated[list[str], typer.Argument(help="Runs, generator files, or mnist.")],
    data: DataOption = None,
    data_dir: DataDirOption = None,
    per_class: PerClassOption = None,
    features: FeaturesOption = "judge",
    second_judge: SecondJudgeOption = False,
    judge: JudgeOption = None,
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Evaluate several generators side by side."""
    from cgan.cli import tables
    from cgan.evaluation.api import compare as compare_models

    check_output("--html", html, ".html")
    reports = compare_models(
        models,
        data=data,
        data_dir=data_dir,
        per_class=per_class,
        features=features,
        second_judge=second_judge,
        judge=judge,
        device=device,
    )
    if as_json:
        _print_json([report.to_dict() for report in reports])
    else:
        tables.print_comparison(reports)
    _write_html(html, reports)


def augment_test(
    model: ModelArgument = None,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    minutes: MinutesOption = 30.0,
    seeds: SeedsOption = 3,
    recipe: RecipeOption = False,
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure whether generated images help a classifier of the real ones."""
    from cgan.cli.tables import print_augment_test
    from cgan.evaluation.augment_test import augment_test as run
    from cgan.evaluation.augment_test import render_augment_test

    if recipe and as_json:
        raise ConfigError("--json holds the recipe: leave out --recipe")
    check_output("--html", html, ".html")
    result = run(
        load_model(model), data=data, data_dir=data_dir, minutes=minutes, seeds=seeds,
        device=device, progress=True,
    )  # fmt: skip
    if as_json:
        _print_json(result.to_dict())
    else:
        print_augment_test(result, messages if recipe else results)
    if recipe:
        typer.echo(result.recipe, nl=False)
    if html is not None:
        _write_page(html, render_augment_test(result))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


def _write_html(html: str | None, reports: list[Report]) -> None:
    if html is not None:
        from cgan.evaluation.report import render_report

        _write_page(html, render_report(reports))


def _write_page(html: str, page: str) -> None:
    from cgan.storage.atomic import write_atomically

    write_atomically(Path(html), page.encode())
    messages.print(f"report: {html}")
