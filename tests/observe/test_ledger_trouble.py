"""A disk that refuses, a file that is busy, no thread to be had: every row that is lost is counted."""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.observe import batches as module
from llm_proxy.observe.events import CallEvent
from llm_proxy.types import Outcome
from tests.observe.ledger_kit import MISS, Bench
from tests.privileges import unprivileged


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


def test_a_disk_that_refused_rests_for_a_while_and_no_row_of_that_time_is_lost(tmp_path):
    path = tmp_path / "l.sqlite3"
    path.mkdir()
    bench = Bench(path)
    for _ in range(3):
        bench.ledger(MISS)
        bench.ledger.flush()
    assert bench.troubles.counts == {"ledger": 1}, "it was tried once"
    assert bench.later.delays[-1] == 10.0
    path.rmdir()
    bench.clock.advance(10.0)
    bench.later.go_off()
    assert len(bench.rows()) == 2
    assert bench.troubles.counts == {"ledger": 1}


def test_each_row_that_is_lost_is_counted(tmp_path, caplog):
    (tmp_path / "l.sqlite3").mkdir()
    bench = Bench(tmp_path / "l.sqlite3")
    for _ in range(7):
        bench.ledger(MISS)
    bench.ledger.flush()
    bench.ledger(MISS)
    bench.ledger.close()
    assert bench.troubles.counts == {"ledger": 8}, "closing tries once more, though the file rests"
    assert "7 row(s)" in caplog.text


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

    def write(rows: list[Any], *, busy_s: float) -> None:
        bench.ledger(MISS)
        real(rows, busy_s=busy_s)

    bench.ledger(MISS)
    bench.later.go_off()
    monkeypatch.setattr(bench.ledger, "_write", write)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bench.ledger(MISS)
        bench.later.go_off()
    assert len(bench.later.waiting) == 1
    monkeypatch.undo()
    bench.ledger.close()
    assert len(bench.rows()) == 3


def test_rows_that_pile_up_are_bounded_and_counted(bench, monkeypatch):
    monkeypatch.setattr(bench.ledger, "_most_pending", 3)
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


def test_closing_while_another_process_writes_loses_and_counts(bench, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_BUSY_S", 0.01)
    bench.ledger(MISS)
    bench.ledger.flush()
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bench.ledger(MISS)
        bench.ledger(MISS)
        bench.ledger.close()
        bench.ledger(MISS)
    assert not bench.later.waiting, "no timer is left that would hold them"
    assert bench.troubles.counts == {"ledger": 3}
    assert len(bench.rows()) == 1


def test_rows_that_pile_up_while_the_file_is_busy_are_counted(bench, monkeypatch):
    monkeypatch.setattr(module, "_BUSY_S", 0.01)
    monkeypatch.setattr(bench.ledger, "_most_pending", 2)
    bench.ledger(MISS)
    bench.ledger.flush()
    real = bench.ledger._write

    def write(rows: list[Any], *, busy_s: float) -> None:
        bench.ledger(MISS)
        real(rows, busy_s=busy_s)

    monkeypatch.setattr(bench.ledger, "_write", write)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bench.ledger(MISS)
        bench.ledger(MISS)
        bench.later.go_off()
    assert bench.troubles.counts == {"ledger": 1}


def test_closing_waits_for_a_timer_that_writes(tmp_path):
    is_writing, may_go_on = threading.Event(), threading.Event()
    bench = Bench(tmp_path / "l.sqlite3")
    real = bench.ledger._write

    def write(rows: list[Any], *, busy_s: float) -> None:
        is_writing.set()
        assert may_go_on.wait(10)
        real(rows, busy_s=busy_s)

    bench.ledger._write = write  # type: ignore[method-assign]
    bench.ledger(MISS)
    timer = threading.Thread(target=bench.ledger.flush)
    timer.start()
    assert is_writing.wait(10)
    bench.ledger(MISS)
    closer = threading.Thread(target=bench.ledger.close)
    closer.start()
    may_go_on.set()
    timer.join(10)
    closer.join(10)
    assert len(bench.rows()) == 2
    assert not bench.troubles.counts


@pytest.mark.parametrize("is_busy", [False, True])
def test_closing_waits_for_a_timer_that_has_taken_all_there_is(tmp_path, is_busy):
    """Its thread ends with the process: what it had not written then would be lost."""
    is_writing, may_go_on = threading.Event(), threading.Event()
    bench = Bench(tmp_path / "l.sqlite3")
    real = bench.ledger._write

    def write(rows: list[Any], *, busy_s: float) -> None:
        bench.ledger._write = real  # type: ignore[method-assign]
        is_writing.set()
        assert may_go_on.wait(10)
        if is_busy:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy
        real(rows, busy_s=busy_s)

    bench.ledger._write = write  # type: ignore[method-assign]
    bench.ledger(MISS)
    timer = threading.Thread(target=bench.ledger.flush)
    timer.start()
    assert is_writing.wait(10)
    closer = threading.Thread(target=bench.ledger.close)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive(), "it is closed, and its row not written"
    may_go_on.set()
    closer.join(10)
    timer.join(10)
    assert len(bench.rows()) == 1
    assert not bench.troubles.counts


def test_what_comes_while_a_batch_is_written_waits_for_the_next_time(tmp_path):
    """Else a busy process would write without end, a few rows at a time, each with its own trip to the disk."""
    bench = Bench(tmp_path / "l.sqlite3")
    real, batches = bench.ledger._write, []

    def write(rows: list[Any], *, busy_s: float) -> None:
        batches.append(len(rows))
        bench.ledger(MISS)
        real(rows, busy_s=busy_s)

    bench.ledger._write = write  # type: ignore[method-assign]
    bench.ledger(MISS)
    bench.ledger.flush()
    assert batches == [1]
    assert len(bench.rows()) == 1
    assert len(bench.later.waiting) == 1, "its turn comes"
    bench.ledger._write = real  # type: ignore[method-assign]
    bench.ledger.close()
    assert len(bench.rows()) == 2
    assert not bench.troubles.counts


def test_closing_ends_while_calls_go_on(tmp_path):
    """Threads that nobody waits for may go on with their calls while a process ends."""
    bench = Bench(tmp_path / "l.sqlite3")
    real, batches = bench.ledger._write, []

    def write(rows: list[Any], *, busy_s: float) -> None:
        batches.append(len(rows))
        bench.ledger._pending.append(MISS)  # another thread's, which sees that this one writes
        bench.clock.advance(0.4)
        real(rows, busy_s=busy_s)
        assert len(batches) < 9, "it writes for ever"

    bench.ledger._write = write  # type: ignore[method-assign]
    bench.ledger(MISS)
    bench.ledger.close()
    assert len(bench.rows()) == len(batches) > 1


def test_what_another_thread_left_has_its_turn(tmp_path):
    is_writing, may_go_on = threading.Event(), threading.Event()
    bench = Bench(tmp_path / "l.sqlite3")
    real = bench.ledger._write

    def write(rows: list[Any], *, busy_s: float) -> None:
        is_writing.set()
        assert may_go_on.wait(10)
        real(rows, busy_s=busy_s)

    bench.ledger._write = write  # type: ignore[method-assign]
    bench.ledger(MISS)
    timer = threading.Thread(target=bench.ledger.flush)
    timer.start()
    assert is_writing.wait(10)
    bench.ledger(MISS)
    bench.ledger.flush()  # without effect, for the other one writes
    assert len(bench.later.waiting) == 1
    may_go_on.set()
    timer.join(10)
    bench.ledger.flush()
    assert len(bench.rows()) == 2
    assert not bench.troubles.counts


def test_a_dropped_call_collected_while_an_event_is_taken(tmp_path):
    """The collector ends it on the same thread, inside of the ledger; its event gets its row and no second timer."""
    bench = Bench(tmp_path / "l.sqlite3")
    later = bench.later

    def collecting(after_s: float, function: Callable[[], None]) -> Any:
        gc.collect()
        return later(after_s, function)

    bench.ledger._later = collecting

    def flow() -> Iterator[None]:
        try:
            yield
        finally:
            bench.ledger(CallEvent(7.0, Outcome("miss"), 0.0, error="aborted"))

    class Cycle:
        pass

    dropped: Any = Cycle()
    dropped.itself, dropped.flow = dropped, flow()
    next(dropped.flow)
    del dropped
    taking = threading.Thread(target=bench.ledger, args=(MISS,), daemon=True)
    taking.start()
    taking.join(10)
    assert not taking.is_alive(), "it waits for itself"
    assert len(later.waiting) == 1
    later.go_off()
    assert sorted(bench.rows("at_s")) == [(7.0,), (MISS.at_s,)]
