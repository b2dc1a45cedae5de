"""Limits that a report must keep, for pipelines: ``cgan evaluate --fail-under control=0.99``."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import NamedTuple

from cgan.console import printable
from cgan.errors import ConfigError, UnknownNameError
from cgan.evaluation.formatting import format_value
from cgan.evaluation.report import Figure, Report

SHORT_NAMES = {
    "control": "control_accuracy",
    "worst_class": "control_accuracy_worst_class",
    "diversity": "diversity_least",
    "copies": "copied_share",
}
LOWER_IS_BETTER = (
    "fid", "kid", "intra_fid_mean", "intra_fid_worst", "background_ink", "copied_share",
)  # fmt: skip
HIGHER_IS_BETTER = (
    "control_accuracy", "control_accuracy_worst_class", "control_accuracy_second_judge",
    "judge_agreement", "precision", "recall", "density", "coverage", "diversity_least", "cas",
)  # fmt: skip
PREFIXES = ("control_accuracy_", "recall_truncation_")
"""Of figures whose names depend on the generator or the options."""


class Check(NamedTuple):
    """A figure and its limit.

    Attributes:
        key: name of the figure.
        title: its name in tables.
        value: what was measured; None if it could not be.
        limit: the worst value that passes.
        passed: whether the figure is no worse than the limit.
        share: whether it is shown in %.
    """

    key: str
    title: str
    value: float | None
    limit: float
    passed: bool
    share: bool

    @property
    def sentence(self) -> str:
        """The result in words."""
        worst = "at most" if self.key in LOWER_IS_BETTER else "at least"
        wanted = f"{worst} {format_value(self.limit, self.share)}"
        title = printable(self.title)  # it may hold the name of a class
        if self.value is None:
            return f"{title} was not measured; required: {wanted}"
        return f"{title} is {format_value(self.value, self.share)}; required: {wanted}"


def parse_limits(texts: list[str]) -> dict[str, float]:
    """Limits like ``control=0.99`` by the name of their figure.

    Raises:
        ConfigError: a text is not NAME=NUMBER.
        UnknownNameError: no report has such a figure.
    """
    limits = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not name or not math.isfinite(limit):
            raise ConfigError(f"--fail-under takes NAME=NUMBER, like control=0.99, not {text!r}")
        key = SHORT_NAMES.get(name, name)
        known = (*LOWER_IS_BETTER, *HIGHER_IS_BETTER)
        if key not in known and not key.startswith(PREFIXES):
            raise UnknownNameError("figure", name, [*SHORT_NAMES, *known])
        limits[key] = limit
    return limits


def check_limits(report: Report, limits: Mapping[str, float]) -> list[Check]:
    """Compare the figures of a report with limits.

    A figure that was not measured does not pass.
    """
    figures = {figure.key: figure for figure in report.figures}
    checks = []
    for key, limit in limits.items():
        figure = figures.get(key, Figure(key, key, None))
        value = figure.value
        if value is None or not math.isfinite(value):
            value, passed = None, False
        else:
            passed = value <= limit if key in LOWER_IS_BETTER else value >= limit
        checks.append(Check(key, figure.title, value, limit, passed, figure.share))
    return checks


def junit_xml(report: Report, checks: list[Check]) -> str:
    """Checks as a JUnit XML report: one test case per limit, one property per figure."""
    failures = sum(not check.passed for check in checks)
    suite = ET.Element(
        "testsuite", name=f"cgan evaluate {printable(report.model)}", tests=str(len(checks)),
        failures=str(failures), errors="0", skipped="0",
    )  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for figure in report.figures:
        if figure.value is not None:
            ET.SubElement(properties, "property", name=figure.key, value=repr(figure.value))
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="cgan.evaluate", name=check.key)
        if not check.passed:
            ET.SubElement(case, "failure", message=check.sentence).text = check.sentence
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
