"""The ledger: one row a call in a SQLite file, from which ``llm-proxy stats`` reads. No prompts, no keys.

Rows are written in batches by a timer's thread, so that a call never waits for the disk and a row is there
``flush_s`` after its call; a killed process loses the rows of its last second. Several processes may write one file.
Calls go on when the ledger can't be written; every row that is lost counts as one trouble.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from llm_proxy.errors import CacheError
from llm_proxy.forking import working

from .events import CallEvent, CheckEvent, Troubles
from .totals import totals

__all__ = ["Ledger", "totals"]

_SCHEMA = """
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, at_s REAL NOT NULL, status TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
  model TEXT NOT NULL, backend TEXT NOT NULL, route TEXT NOT NULL, latency_s REAL NOT NULL, saved_s REAL NOT NULL,
  saved_usd REAL NOT NULL, cost_usd REAL, similarity REAL, http_status INTEGER NOT NULL, error TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER, is_stream INTEGER NOT NULL)
"""
# Semantic hits once more, with what tells them apart, and what was found out about them. Not columns of ``calls``:
# programs of before write that table, too.
_SEMANTIC_SCHEMA = """
CREATE TABLE IF NOT EXISTS semantic (
  id INTEGER PRIMARY KEY, at_s REAL NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL, asked TEXT NOT NULL,
  scope TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, similarity REAL NOT NULL, p_wrong REAL,
  is_same INTEGER, cost_usd REAL)
"""
_INSERTS = {
    "calls": "INSERT INTO calls VALUES (NULL" + ", ?" * 17 + ")",
    "semantic": "INSERT INTO semantic VALUES (NULL" + ", ?" * 11 + ")",
}
_TRIM = "DELETE FROM {table} WHERE id <= (SELECT MAX(id) FROM {table}) - ?"
APPLICATION_ID = 0x4C50_4C31  # "LPL1": tells a ledger from any other SQLite file. Source: sqlite.org/fileformat.html

_BUSY_S = 1.0  # longest wait for another process's write
_CLOSE_BUSY_S = 3.0  # the same for the last write, which is not tried again
_REST_S = 10.0  # how long a file that refused a batch is left alone
_MOST_PENDING = 50_000
_MOST_CHARS = 200
_MOST_COUNT = 1 << 53  # SQLite's integers end at 2^63, JSON's exact ones here; an upstream may claim any number


class Cancellable(Protocol):
    """Something that is going to happen."""

    def cancel(self) -> None:
        """Let it not happen; safe when it already has."""


class Ledger:
    """Appends events to a file; thread-safe, and usable on both sides of a fork.

    Args:
        path: The SQLite file; made, with its folder, on the first write, readable by its owner only.
        monotonic: Clock, seconds.
        max_rows: Oldest rows go beyond this many.
        troubles: Where a failing disk is counted.
        flush_s: Longest time between a call and its row.
        later: Runs a function once after some seconds, elsewhere; by default a timer's thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float],
        max_rows: int,
        troubles: Troubles,
        flush_s: float = 1.0,
        later: Callable[[float, Callable[[], None]], Cancellable] | None = None,
    ) -> None:
        self._path, self._monotonic, self._max_rows, self._flush_s = path, monotonic, max_rows, flush_s
        self._troubles, self._later = troubles, later or _timer
        self._resting_until = -math.inf
        self._is_closed = False
        self._pending: list[CallEvent | CheckEvent] = []
        self._timer: Cancellable | None = None
        self._reset()

    def __call__(self, event: CallEvent | CheckEvent) -> None:
        """Take one event; never raises, and waits for the disk only after `close`, when no timer would write it."""
        if self._pid != os.getpid():
            self._reset()  # a forked child: the rows under way are its parent's, the locks may be held for ever
        with self._lock:
            is_full = len(self._pending) >= _MOST_PENDING
            if not is_full:
                self._pending.append(event)
            self._arm(self._flush_s)
        if is_full:
            self._lose(1, CacheError("it can't keep up"))
        if self._is_closed:
            self._write_pending(is_last=True)

    def flush(self) -> None:
        """Write what is pending, unless the file refused a batch a short while ago; a batch that it refuses is lost."""
        self._disarm()
        rest_s = self._resting_until - self._monotonic()
        if rest_s > 0 and not self._is_closed:
            with self._lock:
                self._arm(rest_s)
            return
        self._write_pending()

    def close(self) -> None:
        """Write what is pending, now, and count what can't be written; calling it again is safe, as is a late event."""
        self._is_closed = True
        self._disarm()
        self._write_pending(is_last=True, is_patient=True)  # a timer that has gone off may be at it

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Reentrant: the garbage collector may end a dropped call, whose event comes here, at any place.
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._pending, self._timer, self._is_armed = [], None, False

    def _arm(self, after_s: float) -> None:
        if self._is_armed or self._is_closed or not self._pending:
            return
        self._is_armed = True  # before the timer is there: to make one may lead here again
        try:
            self._timer = self._later(after_s, self.flush)
        except RuntimeError as exc:  # no thread to be had: the next event tries again, and `close` writes
            self._is_armed = False
            self._troubles.note("ledger", exc)

    def _disarm(self) -> None:
        with self._lock:
            timer, self._timer, self._is_armed = self._timer, None, False
        if timer is not None:
            timer.cancel()  # without effect when it is the timer that calls

    def _write_pending(self, *, is_last: bool = False, is_patient: bool = False) -> None:
        """Write until nothing is pending.

        Args:
            is_last: Nobody will try again: what can't be written is lost.
            is_patient: Wait for another thread that writes; else it, or this one further out, goes on with the rest.
        """
        while self._pending and self._writing.acquire(blocking=is_patient):
            try:
                with self._lock:
                    events, self._pending = self._pending, []
                is_done = self._write_batch(events, is_last=is_last)
            finally:
                self._writing.release()
            if not is_done:
                return

    def _write_batch(self, events: list[CallEvent | CheckEvent], *, is_last: bool) -> bool:
        """Whether the events are written or lost; if not, they are pending again."""
        try:
            with working:
                self._write(_rows(events), busy_s=_CLOSE_BUSY_S if is_last else _BUSY_S)
        except (sqlite3.Error, OSError, CacheError) as exc:
            is_busy = getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if is_busy and not is_last:
                self._put_back(events)
                return False
            if not is_busy:
                self._resting_until = self._monotonic() + _REST_S
            self._lose(len(events), exc)
        return True

    def _put_back(self, events: list[CallEvent | CheckEvent]) -> None:
        with self._lock:
            events += self._pending
            self._pending = events[:_MOST_PENDING]
            self._arm(self._flush_s)
        if len(events) > _MOST_PENDING:
            self._lose(len(events) - _MOST_PENDING, CacheError("it can't keep up"))

    def _lose(self, rows: int, exc: Exception) -> None:
        error = CacheError(f"{rows} row(s) of {self._path} are lost: {type(exc).__name__}: {exc}")
        self._troubles.note("ledger", error, count=rows)

    def _write(self, rows: dict[str, list[tuple[Any, ...]]], *, busy_s: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        # One connection a batch: that is cheap once a second, keeps no file open, and finds a folder again that was
        # removed and made anew.
        with closing(sqlite3.connect(self._path, timeout=busy_s, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            _make_ours(connection, self._path)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SEMANTIC_SCHEMA)
            for table, insert in _INSERTS.items():
                connection.executemany(insert, rows[table])
                connection.execute(_TRIM.format(table=table), (self._max_rows,))
            connection.execute("COMMIT")


def _make_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Lay out an empty file; refuse one that another program made, before anything in it changes."""
    if _is_laid_out(connection, path):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not _is_laid_out(connection, path):  # asked again: another process may have been faster
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _is_laid_out(connection: sqlite3.Connection, path: Path) -> bool:
    # In this order: another process may lay it out between the two, tables and number at once.
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return False
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CacheError(f"{path} is not a ledger of llm-proxy; move it away or set another cache.directory")
    return True


def _timer(after_s: float, function: Callable[[], None]) -> Cancellable:
    timer = threading.Timer(after_s, function)
    timer.daemon = True  # it must not keep the process; `close` writes what it would have written
    timer.name = "llm-proxy-ledger"
    timer.start()
    return timer


def _rows(events: list[CallEvent | CheckEvent]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of some events, by table."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERTS}
    for event in events:
        if isinstance(event, CallEvent):
            rows["calls"].append(_row(event))
            if event.outcome.kind == "semantic":
                rows["semantic"].append(_served_row(event))
        else:
            rows["semantic"].append(_check_row(event))
    return rows


def _served_row(event: CallEvent) -> tuple[Any, ...]:
    outcome = event.outcome
    similarity = 0.0 if outcome.similarity is None else outcome.similarity
    return (
        _real(event.at_s), "served", _text(outcome.key), _text(outcome.asked), _text(outcome.scope),
        _text(outcome.route), _text(outcome.model), _real(similarity), outcome.p_wrong, None, None,
    )  # fmt: skip


def _check_row(event: CheckEvent) -> tuple[Any, ...]:
    return (
        _real(event.at_s), event.source, _text(event.key), _text(event.asked), _text(event.scope), _text(event.route),
        _text(event.model), _real(event.similarity), event.p_wrong,
        None if event.is_same is None else int(event.is_same),
        None if event.cost_usd is None else _real(event.cost_usd),
    )  # fmt: skip


def _row(event: CallEvent) -> tuple[Any, ...]:
    outcome, usage = event.outcome, event.usage
    return (
        _real(event.at_s), outcome.status, outcome.kind, _text(outcome.detail), _text(outcome.model),
        _text(outcome.backend), _text(outcome.route), _real(event.latency_s), _real(event.saved_s),
        _real(outcome.saved_usd), None if outcome.cost_usd is None else _real(outcome.cost_usd), outcome.similarity,
        event.http_status, _text(event.error), _count(usage.prompt_tokens) if usage else None,
        _count(usage.completion_tokens) if usage else None, int(event.is_stream),
    )  # fmt: skip


def _text(value: str) -> str:
    """Text that SQLite takes: a model's name is whatever the caller sent, lone surrogates included."""
    return value[:_MOST_CHARS].encode("utf-8", "replace").decode()


def _real(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _count(value: int) -> int:
    return max(0, min(value, _MOST_COUNT))
