"""Threads, processes and forks that write one ledger."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.observe import ledger
from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.observe.totals import totals
from llm_proxy.testing import FakeClock
from llm_proxy.types import Outcome
from tests.observe.ledger_kit import MISS, Bench


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


class Looking(sqlite3.Connection):
    """After its first look another connection lays the file out."""

    path = Path()
    looks = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        found = super().execute(*args)
        self.looks += 1
        if self.looks == 1:
            rows = found.fetchall()
            with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
                ledger._make_ours(other, self.path)
            return super().execute(f"SELECT {rows[0][0]}")
        return found


def test_another_process_is_faster_between_two_looks(tmp_path):
    path = Looking.path = tmp_path / "l.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None, factory=Looking)) as connection:
        ledger._make_ours(connection, path)
        assert connection.execute("PRAGMA application_id").fetchone()[0] == ledger.APPLICATION_ID


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


def test_a_forked_child_that_only_closes_waits_for_no_thread_of_its_parent(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3")
    bench.ledger(MISS)
    bench.ledger._writing.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # ends it, where it hangs
            bench.ledger.close()
            code = 0
        finally:
            os._exit(code)
    bench.ledger._writing.release()
    assert os.waitpid(child, 0)[1] == 0
    bench.ledger.close()
    assert bench.rows("at_s") == [(MISS.at_s,)]


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
