"""The ledger: rows arrive, whatever happens to the disk, and a call never notices."""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.observe import ledger as module
from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.observe.totals import totals
from llm_proxy.testing import FakeClock
from llm_proxy.types import Outcome, Usage
from tests.privileges import unprivileged

MISS = CallEvent(1_700_000_000.0, Outcome("miss", model="m"), 0.25, usage=Usage(10, 20))


class Later:
    """Timers that go off when told."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.delays: list[float] = []
        self.error: RuntimeError | None = None

    def __call__(self, after_s: float, function: Callable[[], None]) -> Any:
        if self.error is not None:
            raise self.error
        self.delays.append(after_s)
        self.waiting.append(function)
        later = self

        class Timer:
            def cancel(self) -> None:
                if function in later.waiting:
                    later.waiting.remove(function)

        return Timer()

    def go_off(self) -> None:
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


class Bench:
    """A ledger with its clock, timers and troubles."""

    def __init__(self, path: Path, *, max_rows: int = 1000) -> None:
        self.path, self.clock, self.later, self.troubles = path, FakeClock(), Later(), Troubles()
        self.ledger = Ledger(
            path, monotonic=self.clock.monotonic, max_rows=max_rows, troubles=self.troubles, later=self.later
        )

    def rows(self, what: str = "*") -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(f"SELECT {what} FROM calls ORDER BY id").fetchall()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "cache" / "ledger.sqlite3")


def test_a_row_holds_what_the_event_says(bench):
    outcome = Outcome(
        "hit", kind="semantic", detail="d", model="m", backend="b", route="r", similarity=0.97, saved_usd=0.5,
        cost_usd=0.25,
    )  # fmt: skip
    bench.ledger(
        CallEvent(1.0, outcome, 0.5, saved_s=2.0, http_status=201, usage=Usage(3, 4), is_stream=True, error="aborted")
    )
    bench.ledger(CallEvent(2.0, Outcome("bypass"), 0.1))
    bench.ledger.close()
    assert bench.rows() == [
        (1, 1.0, "hit", "semantic", "d", "m", "b", "r", 0.5, 2.0, 0.5, 0.25, 0.97, 201, "aborted", 3, 4, 1),
        (2, 2.0, "bypass", "", "", "", "", "", 0.1, 0.0, 0.0, None, None, 200, "", None, None, 0),
    ]


def test_one_timer_a_batch_and_nothing_on_disk_before(bench):
    bench.ledger(MISS)
    bench.ledger(MISS)
    assert bench.later.delays == [1.0]
    assert not bench.path.exists()
    bench.later.go_off()
    assert len(bench.rows()) == 2
    bench.ledger(MISS)
    assert bench.later.delays == [1.0, 1.0]


def test_the_timer_of_its_own_writes_without_being_asked(tmp_path):
    clock = FakeClock()
    ledger = Ledger(tmp_path / "l.sqlite3", monotonic=clock.monotonic, max_rows=10, troubles=Troubles(), flush_s=0.001)
    ledger(MISS)
    timer = ledger._timer
    assert isinstance(timer, threading.Timer)
    assert timer.daemon
    timer.join(10)
    assert totals(tmp_path / "l.sqlite3")["calls"] == 1
    ledger.close()


def test_closing_writes_and_may_be_repeated(bench):
    bench.ledger(MISS)
    bench.ledger.close()
    bench.ledger.close()
    assert not bench.later.waiting
    bench.ledger(MISS)
    bench.ledger.close()
    assert len(bench.rows()) == 2, "a late event is written too"


def test_closing_without_a_call_makes_no_file(bench):
    bench.ledger.close()
    assert not bench.path.parent.exists()


def test_only_the_owner_may_read(bench):
    bench.ledger(MISS)
    bench.ledger.flush()
    with closing(sqlite3.connect(bench.path)) as connection:  # its presence keeps the side files
        connection.execute("SELECT * FROM calls").fetchall()
        bench.ledger(MISS)
        bench.ledger.flush()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in bench.path.parent.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(bench.path.parent.stat().st_mode) == 0o700


def test_the_oldest_rows_go(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3", max_rows=3)
    for number in range(5):
        bench.ledger(CallEvent(float(number), Outcome("miss"), 0.0))
    bench.ledger.flush()
    bench.ledger(CallEvent(5.0, Outcome("miss"), 0.0))
    bench.ledger.flush()
    assert bench.rows("at_s") == [(3.0,), (4.0,), (5.0,)]


def test_a_folder_removed_meanwhile_is_made_again(bench):
    bench.ledger(MISS)
    bench.ledger.flush()
    for path in bench.path.parent.iterdir():
        path.unlink()
    bench.path.parent.rmdir()
    bench.ledger(MISS)
    bench.ledger.flush()
    assert len(bench.rows()) == 1
    assert not bench.troubles.counts


# -- a disk that refuses ---------------------------------------------------------------------------------------------


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE calls (mine TEXT)")
        connection.execute("INSERT INTO calls VALUES ('precious')")
        connection.commit()


SPOILED: dict[str, Callable[[Path], Any]] = {
    "not a database": lambda path: path.write_bytes(b"This is a letter to my aunt. " * 100),
    "cut": lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 50),
    "another program's": _foreign,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_file_that_is_no_ledger_is_counted_and_left_alone(tmp_path, caplog, spoil):
    path = tmp_path / "l.sqlite3"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    bench = Bench(path)
    bench.ledger(MISS)
    with caplog.at_level(logging.WARNING):
        bench.ledger.flush()
    assert bench.troubles.counts == {"ledger": 1}
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "ledger is in trouble, calls go on without it" in caplog.text


def test_a_folder_that_may_not_be_written(open_folder):
    open_folder.chmod(0o555)
    bench = Bench(open_folder / "l.sqlite3")
    bench.ledger(MISS)
    with unprivileged():
        bench.ledger.flush()
    assert bench.troubles.counts == {"ledger": 1}


def test_a_folder_that_can_not_be(tmp_path):
    (tmp_path / "file").write_text("")
    bench = Bench(tmp_path / "file" / "l.sqlite3")
    bench.ledger(MISS)
    bench.ledger.flush()
    assert bench.troubles.counts == {"ledger": 1}


def test_a_disk_that_refused_rests_for_a_while(tmp_path):
    path = tmp_path / "l.sqlite3"
    path.mkdir()
    bench = Bench(path)
    for _ in range(3):
        bench.ledger(MISS)
        bench.ledger.flush()
    assert bench.troubles.counts == {"ledger": 1}, "it was tried once"
    path.rmdir()
    bench.clock.advance(10.0)
    bench.ledger(MISS)
    bench.ledger.flush()
    assert len(bench.rows()) == 1


def test_a_busy_file_keeps_its_rows(bench, monkeypatch):
    monkeypatch.setattr(module, "_BUSY_S", 0.01)
    bench.ledger(MISS)
    bench.ledger.flush()
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bench.ledger(MISS)
        bench.later.go_off()
        assert bench.later.waiting, "it will be tried again"
        bench.ledger(MISS)
        bench.later.go_off()
        other.execute("COMMIT")
    bench.later.go_off()
    assert len(bench.rows()) == 3
    assert not bench.troubles.counts


def test_a_busy_file_when_an_event_came_meanwhile(bench, monkeypatch):
    """The event has armed a timer already: there is one a batch."""
    monkeypatch.setattr(module, "_BUSY_S", 0.01)
    real = bench.ledger._write

    def write(rows: list[Any]) -> None:
        bench.ledger(MISS)
        real(rows)

    bench.ledger(MISS)
    bench.later.go_off()
    monkeypatch.setattr(bench.ledger, "_write", write)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bench.ledger(MISS)
        bench.ledger.close()
    assert len(bench.later.waiting) == 1
    monkeypatch.undo()
    bench.ledger.close()
    assert len(bench.rows()) == 3


def test_rows_that_pile_up_are_bounded_and_counted(bench, monkeypatch):
    monkeypatch.setattr(module, "_MOST_PENDING", 3)
    for _ in range(5):
        bench.ledger(MISS)
    assert bench.troubles.counts == {"ledger": 2}
    bench.ledger.close()
    assert len(bench.rows()) == 3


def test_no_thread_to_be_had(bench):
    bench.later.error = RuntimeError("can't start new thread")
    bench.ledger(MISS)
    assert bench.troubles.counts == {"ledger": 1}
    bench.later.error = None
    bench.ledger(MISS)
    bench.later.go_off()
    assert len(bench.rows()) == 2


# -- whatever an event holds -----------------------------------------------------------------------------------------


@given(
    text=st.text(st.characters(), max_size=300),
    number=st.floats(),
    count=st.integers(),
)
def test_any_event_has_a_row(tmp_path_factory, text, number, count):
    bench = Bench(tmp_path_factory.mktemp("l") / "l.sqlite3")
    outcome = Outcome("miss", detail=text, model=text, backend=text, route=text, saved_usd=number, cost_usd=number)
    bench.ledger(CallEvent(number, outcome, number, saved_s=number, usage=Usage(count, count), error=text))
    bench.ledger.close()
    assert not bench.troubles.counts
    ((model, spent, tokens),) = bench.rows("model, cost_usd, prompt_tokens")
    assert len(model) <= 200
    assert math.isfinite(spent)
    assert 0 <= tokens <= 2**53


def test_lone_surrogates_in_the_name_of_a_model(bench):
    bench.ledger(CallEvent(1.0, Outcome("miss", model="a\ud800b"), 0.1))
    bench.ledger.close()
    assert bench.rows("model") == [("a?b",)]


# -- many at once ----------------------------------------------------------------------------------------------------


def test_twenty_threads(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3", max_rows=10**6)

    def work() -> None:
        for number in range(200):
            bench.ledger(MISS)
            if number % 50 == 0:
                bench.ledger.flush()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.ledger.close()
    assert len(bench.rows("id")) == 4000
    assert not bench.troubles.counts


def _write_many(path: Path, start: Any) -> None:
    troubles = Troubles()
    clock = FakeClock()
    ledger = Ledger(path, monotonic=clock.monotonic, max_rows=10**6, troubles=troubles, flush_s=0.005)
    start.wait(30)
    for number in range(500):
        ledger(MISS)
        if number % 50 == 0:
            ledger.flush()
    ledger.close()
    sys.exit(bool(troubles.counts))


def test_four_processes(tmp_path):
    path = tmp_path / "cache" / "l.sqlite3"
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=_write_many, args=(path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert totals(path)["calls"] == 2000


def test_a_forked_child_writes_its_own_rows_only(tmp_path):
    """What the parent had under way is the parent's; its locks, held at that moment, don't hold the child up."""
    bench = Bench(tmp_path / "l.sqlite3")
    bench.ledger(MISS)
    bench.ledger._lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bench.ledger(CallEvent(7.0, Outcome("miss"), 0.0))
            bench.ledger.close()
            code = 0
        finally:
            os._exit(code)
    bench.ledger._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert bench.rows("at_s") == [(7.0,)]
    bench.ledger.close()
    assert bench.rows("at_s") == [(7.0,), (MISS.at_s,)]


def test_no_file_stays_open(bench):
    def open_files() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            path = Path("/proc/self/fd") / number
            if path.is_symlink():
                found.append(str(path.readlink()))
        return [name for name in found if "sqlite3" in name]

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    bench.ledger(MISS)
    bench.ledger.flush()
    assert totals(bench.path)["calls"] == 1
    assert open_files() == []
    gc.collect()  # a connection that was not closed would warn here, and warnings are errors
