"""The verdict: validation images choose, test images decide, and every control counts."""

from __future__ import annotations

import pytest
import torch

from cgan.evaluation.distances import Difference
from cgan.evaluation.verdict import Row, decide, format_difference, judge_rows, rarest_class

LABELS = torch.arange(400) % 2
"""Of the test images."""


def right(*shares: float) -> torch.Tensor:
    """(seeds, 400): the first images of each class are right, as many as these shares."""
    return torch.stack([torch.arange(400) < round(400 * share) for share in shares])


def row(name: str, generated: bool, validation: float, test: float = 0.0) -> Row:
    return Row(name, generated, 1_000, (validation,), (test,))


def test_a_gain_counts_only_against_every_control() -> None:
    rows = [
        row("real", False, 0.8, 0.50),
        row("longer", False, 0.6, 0.75),
        row("drawn", True, 0.7, 0.75),
        row("drawn too", True, 0.1, 0.99),  # better on test images, but not chosen
    ]
    found = {
        "real": right(0.50, 0.52), "longer": right(0.75, 0.75), "drawn": right(0.75, 0.76),
        "drawn too": right(0.99, 0.99),
    }  # fmt: skip
    verdict = judge_rows(rows, found, LABELS)
    assert verdict.best == "drawn"  # chosen by validation images
    assert [one.control for one in verdict.comparisons] == ["real", "longer"]
    assert verdict.comparisons[0].test.low > 0  # it beats one control,
    assert verdict.comparisons[1].test.low < 0 < verdict.comparisons[1].test.high  # not the other
    assert verdict.answer == "no difference"
    assert verdict.reason.startswith(
        "they make no difference that can be shown (drawn: 75.0 % of test images are right; "
        "longer: 75.0 %; difference +0.5 points (−"
    )
    assert verdict.rarest is None


def test_the_three_answers() -> None:
    means = {"drawn": 0.7, "real": 0.6, "longer": 0.65}
    above, below = Difference(0.1, 0.05, 0.15), Difference(-0.1, -0.2, -0.01)
    around = Difference(0.02, -0.01, 0.05)
    assert decide("drawn", "real", {"real": above, "longer": above}, means)[0] == "yes"
    assert decide("drawn", "real", {"real": above, "longer": around}, means) == (
        "no difference",
        "they make no difference that can be shown (drawn: 70.0 % of test images are right; "
        "longer: 65.0 %; difference +2.0 points (−1.0 to +5.0))",
    )
    chance = decide("drawn", "real", {"real": above, "longer": below}, means)
    assert chance[0] == "no difference"  # validation images did not choose that control
    assert decide("drawn", "longer", {"real": above, "longer": below}, means) == (
        "no",
        "do not use them (drawn: 70.0 % of test images are right; longer: 65.0 %; difference "
        "−10.0 points (−20.0 to −1.0))",
    )


def test_the_rarest_class_has_an_answer_of_its_own() -> None:
    labels = torch.tensor([0] * 300 + [1] * 100)
    better = torch.ones(2, 400, dtype=torch.bool)
    worse = better.clone()
    worse[:, 300:360] = False  # 60 of 100 of the rare class
    rows = [
        Row("real", False, 1, (0.5,), (0.7,), (0.4, 0.4)),
        Row("drawn", True, 1, (0.5,), (1.0,), (1.0, 1.0)),
    ]
    verdict = judge_rows(rows, {"real": worse, "drawn": better}, labels, 1, "lynx")
    assert (verdict.answer, verdict.rarest) == ("yes", "yes")
    (one,) = verdict.comparisons
    assert one.test.mean == pytest.approx(0.3)  # the mean of 0 and 0.6
    assert one.rarest is not None
    assert one.rarest.mean == pytest.approx(0.6)
    assert "; in the rarest class, lynx, they help (drawn: 100.0 % of test" in verdict.reason


def test_rarest_class() -> None:
    equal, rare = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    assert rarest_class(equal, equal) is None
    assert rarest_class(rare, equal) == 1
    assert rarest_class(rare, torch.tensor([0])) is None


def test_format_difference() -> None:
    assert format_difference(Difference(0.012, -0.003, 0.027)) == "+1.2 points (−0.3 to +2.7)"
