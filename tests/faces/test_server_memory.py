"""A server gives memory back when a rush is over, and does not try all the time."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref

import pytest

from llm_proxy.faces import _memory
from llm_proxy.faces._memory import Slack, resident_bytes, trim

MIB = 1 << 20


class Machine:
    """A process whose free memory goes back to the system when it is told to."""

    def __init__(self) -> None:
        self.used, self.free, self.given = 100 * MIB, 0, 0

    def resident(self) -> int:
        return self.used + self.free

    def give(self) -> None:
        self.given += 1
        self.free = 0


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def slack(machine):
    slack = Slack(machine.resident, machine.give)
    slack.give_back()
    return slack


def test_nothing_is_due_where_nothing_grew(slack, machine):
    machine.free = 7 * MIB
    assert not any(slack.is_due(0) for _ in range(100))


def test_it_waits_for_the_end_of_a_rush(slack, machine):
    machine.used, machine.free = 300 * MIB, 100 * MIB
    assert [slack.is_due(busy) for busy in (40, 60, 31, 30)] == [False, False, False, True]
    slack.give_back()
    assert machine.resident() == 300 * MIB
    machine.used = 305 * MIB
    assert not slack.is_due(0), "what is used is no slack"


def test_a_rush_that_never_ends_is_interrupted_once_a_minute(slack, machine):
    machine.free = 100 * MIB
    found = []
    for _ in range(36):
        found.append(slack.is_due(16))
        if found[-1]:
            slack.give_back()
            machine.free = 100 * MIB
    assert [place for place, is_due in enumerate(found, 1) if is_due] == [12, 24, 36]


def test_calls_that_are_over_are_collected_first():
    class Call:
        """Something that refers to itself, as a task does that keeps the error that ended it."""

    call = Call()
    call.me = call
    gone = weakref.ref(call)
    gc.collect()  # it is old now, and would wait for many calls
    del call
    assert gone() is not None
    trim()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_pages_go_back_to_the_system():
    assert resident_bytes() > MIB
    blocks = [ctypes.create_string_buffer(60_000) for _ in range(1_000)]  # below what glibc takes from the system
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    kept = blocks[::50]  # so that the free pages have used ones between them
    before = resident_bytes()
    del blocks, block
    if not trim():
        pytest.skip("not glibc, or nothing was left to give")
    assert resident_bytes() < before - 20 * MIB
    assert len(kept) == 20


def test_where_there_is_no_such_function(monkeypatch, tmp_path):
    def missing(name: object) -> object:
        raise OSError(name)

    _memory._malloc_trim.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    try:
        assert not trim()
    finally:
        _memory._malloc_trim.cache_clear()
    monkeypatch.setattr(_memory, "Path", lambda path: tmp_path / "none")
    assert resident_bytes() == 0
