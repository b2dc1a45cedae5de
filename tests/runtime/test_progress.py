"""Progress of drawing: images that already exist count, but not towards the speed."""

import pytest

from cgan.runtime import progress
from cgan.runtime.progress import CountProgress


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
