"""Progress of drawing: images that already exist count, but not towards the speed."""

import pytest

from cgan.runtime import progress
from cgan.runtime.progress import CountProgress, ProgressLine


def test_images_that_exist_do_not_count_as_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with CountProgress(100, enabled=True) as shown:
        shown.skip(40)
        now += 10  # 20 images in 10 seconds, 40 left
        shown.add(20)
        shown.add(0)  # too early for another line
    out, err = capsys.readouterr()
    assert out == ""
    assert err == " 60 % · 60 of 100 images · 2 images/s · 0:20 left\n"


def test_nothing_is_printed_if_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with CountProgress(1, enabled=False) as shown:
        shown.add(1)
    assert capsys.readouterr() == ("", "")


def test_a_line_inside_of_another_takes_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    """rich shows one bar at a time."""
    with ProgressLine() as outer:
        assert ProgressLine.outer is outer
        with CountProgress(10, enabled=True) as inner:
            assert ProgressLine.outer is outer
            inner.add(5)
        outer.show(0.5, "too early for another line")
    assert ProgressLine.outer is None
    assert capsys.readouterr().err.startswith(" 50 % · 5 of 10 images")
    with CountProgress(0, enabled=True) as empty:
        empty.add(0)
    with CountProgress(1, enabled=False):
        assert ProgressLine.outer is None
