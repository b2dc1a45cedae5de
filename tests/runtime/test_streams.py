"""Two streams: the same results at the same time as in turn, and what they leave behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from cgan.runtime import streams
from cgan.runtime.streams import map_streams, random_generator, run_both, split_cores

CPU = torch.device("cpu")


@contextmanager
def cores(count: int) -> Iterator[None]:
    """``split_cores`` on a machine with that many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with split_cores():
            yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "share"), [(1, 1), (2, 1), (3, 1), (4, 2)])
def test_each_stream_has_half_of_the_threads(count: int, share: int) -> None:
    with cores(count):
        assert run_both(torch.get_num_threads, torch.get_num_threads) == (share, share)
        with split_cores():
            assert torch.get_num_threads() == share
        here, there = run_both(threading.get_ident, threading.get_ident)
        assert here == threading.get_ident()
        assert (there == here) == (count == 1)


def test_the_threads_are_no_more_than_the_cores_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_cores", lambda: 4)
    with cores(8):  # the tests set OMP_NUM_THREADS
        assert torch.get_num_threads() == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    with cores(8):
        assert torch.get_num_threads() == 2


def test_the_callers_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), cores(4):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    assert run_both(threading.get_ident, threading.get_ident) == 2 * (threading.get_ident(),)


def test_random_numbers_do_not_depend_on_the_cores() -> None:
    def draw() -> torch.Tensor:
        return torch.rand(5, generator=random_generator())

    found = []
    for count, in_turn in ((1, False), (2, False), (2, True)):
        torch.manual_seed(3)
        with cores(count):
            found.append((*run_both(draw, draw, seed=7, in_turn=in_turn), draw()))
            assert random_generator() is None
    for others in zip(*found, strict=True):
        assert all(torch.equal(one, others[0]) for one in others)
    own = torch.Generator().manual_seed(7)
    assert torch.equal(found[0][1], torch.rand(5, generator=own))
    torch.manual_seed(3)
    assert torch.equal(found[0][0], torch.rand(5))


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_either_stream_ends_both(count: int) -> None:
    ended = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    with cores(count):
        with pytest.raises(ZeroDivisionError):
            run_both(ended.set, fail)
        assert ended.is_set()
        ended.clear()
        with pytest.raises(ZeroDivisionError):
            run_both(fail, ended.set)
        assert ended.is_set() == (count == 2)  # the second one had begun, so it was waited for
        assert run_both(lambda: 1, lambda: 2) == (1, 2)


@pytest.mark.parametrize("count", [1, 2])
def test_the_second_stream_records_gradients_if_the_first_does(count: int) -> None:
    with cores(count):
        assert run_both(torch.is_grad_enabled, torch.is_grad_enabled) == (True, True)
        with torch.no_grad():
            assert run_both(torch.is_grad_enabled, torch.is_grad_enabled) == (False, False)


@pytest.mark.parametrize("length", range(5))
def test_a_map_keeps_the_order_and_takes_no_more_than_two_items_ahead(length: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(length):
            taken.append(item)
            yield item

    with cores(2):
        found = []
        for result in map_streams(lambda item: (item, threading.get_ident()), items(), CPU):
            found.append(result)
            assert len(taken) <= len(found) + 1
    assert [item for item, _ in found] == list(range(length))
    assert len({thread for _, thread in found}) == min(length, 2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_second_stream_of_its_own() -> None:
    with cores(2):
        run_both(threading.get_ident, threading.get_ident)
        child = os.fork()
        if child == 0:
            here, there = run_both(threading.get_ident, threading.get_ident)
            os._exit(int(here == there))
    assert os.waitpid(child, 0)[1] == 0
