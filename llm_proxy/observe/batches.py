"""Rows that wait in memory and are written in batches, so that no call waits for the disk.

A timer's thread writes them ``flush_s`` after they came; a killed process loses those of its last second. Several
processes may write one file. Where it can't be written, calls go on; every row that is lost counts as one trouble.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from llm_proxy.errors import CacheError
from llm_proxy.forking import process, working

from .events import Troubles

__all__ = ["Batches", "Cancellable", "Later", "writable"]

EventT = TypeVar("EventT")

_BUSY_S = 1.0  # longest wait for another process's write
_CLOSE_BUSY_S = 3.0  # the same for the last write, which is not tried again
_CLOSE_S = 1.0  # how long a close goes on while other threads, which nobody waits for, still make calls
_REST_S = 10.0  # how long a file that refused a batch is left alone


class Cancellable(Protocol):
    """Something that is going to happen."""

    def cancel(self) -> None:
        """Let it not happen; safe when it already has."""


Later = Callable[[float, Callable[[], None]], Cancellable]
"""Runs a function once after some seconds, elsewhere."""


class Batches(ABC, Generic[EventT]):
    """Takes events and writes them in batches; thread-safe, and usable on both sides of a fork.

    Subclasses say how a batch is written: ``_write``.

    Args:
        path: The SQLite file.
        part: What troubles are counted as.
        monotonic: Clock, seconds.
        troubles: Where a failing disk is counted.
        flush_s: Longest time between an event and its row.
        later: By default a timer's thread.
        most_pending: Most events that wait; further ones are lost.
    """

    def __init__(
        self,
        path: Path,
        part: str,
        *,
        monotonic: Callable[[], float],
        troubles: Troubles,
        flush_s: float = 1.0,
        later: Later | None = None,
        most_pending: int = 50_000,
    ) -> None:
        self._path, self._part, self._monotonic, self._flush_s = path, part, monotonic, flush_s
        self._troubles, self._later = troubles, later or _timer
        self._most_pending = most_pending
        self._resting_until = -math.inf
        self._is_closed = False
        self._pending: list[EventT] = []
        self._timer: Cancellable | None = None
        self._reset()

    def __call__(self, event: EventT) -> None:
        """Take one event; never raises, and waits for the disk only after `close`, when no timer would write it."""
        if self._pid != process.id:
            self._reset()  # a forked child: the rows under way are its parent's, the locks may be held for ever
        with self._lock:
            is_full = len(self._pending) >= self._most_pending
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

    def drain(self) -> None:
        """Write what is pending, now, and wait for what another thread is writing."""
        self._disarm()
        self._write_pending(is_patient=True)
        with self._writing:  # what it took is pending no more, and not written yet
            pass

    def close(self) -> None:
        """Write what is pending, now, and count what can't be written; calling it again is safe, as is a late event.

        A timer that has gone off may have taken all that is pending. Its thread is waited for: it would end with the
        process, its rows unwritten, or abort the process where it encodes (see `llm_proxy.forking.end_in_peace`).
        """
        if self._pid != process.id:
            self._reset()  # a forked child: see above
        self._is_closed = True
        self._disarm()
        until_s = self._monotonic() + _CLOSE_S
        self._write_pending(is_last=True, is_patient=True, until_s=until_s)
        with self._writing:
            pass
        self._write_pending(is_last=True, is_patient=True, until_s=until_s)  # what a busy file made it put back

    @abstractmethod
    def _write(self, events: list[EventT], *, busy_s: float) -> None:
        """Write a batch, or raise.

        Args:
            events: What is to be written.
            busy_s: Longest wait for another process's write, seconds.

        Raises:
            sqlite3.Error: It can't be written.
            OSError: Likewise.
            CacheError: Likewise.
        """

    def _reset(self) -> None:
        self._pid = process.id
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
            self._troubles.note(self._part, exc)

    def _disarm(self) -> None:
        with self._lock:
            timer, self._timer, self._is_armed = self._timer, None, False
        if timer is not None:
            timer.cancel()  # without effect when it is the timer that calls

    def _write_pending(self, *, is_last: bool = False, is_patient: bool = False, until_s: float = math.inf) -> None:
        """Write what is pending; what comes meanwhile waits for the next time, or a busy process would write for ever.

        Args:
            is_last: Nobody will try again: what can't be written is lost, and what comes meanwhile is written as well.
            is_patient: Wait for another thread that writes; else what it leaves is written the next time.
            until_s: When to begin no further batch of what comes meanwhile.
        """
        is_done = False
        while self._pending and not is_done and self._writing.acquire(blocking=is_patient):
            try:
                with self._lock:
                    events, self._pending = self._pending, []
                is_done = not self._write_batch(events, is_last=is_last) or not is_last
                is_done = is_done or self._monotonic() >= until_s
            finally:
                self._writing.release()
        with self._lock:
            self._arm(self._flush_s)

    def _write_batch(self, events: list[EventT], *, is_last: bool) -> bool:
        """Whether the events are written or lost; if not, they are pending again."""
        try:
            with working:
                self._write(events, busy_s=_CLOSE_BUSY_S if is_last else _BUSY_S)
        except (sqlite3.Error, OSError, CacheError) as exc:
            is_busy = getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if is_busy and not is_last:
                self._put_back(events)
                return False
            if not is_busy:
                self._resting_until = self._monotonic() + _REST_S
            self._lose(len(events), exc)
        return True

    def _put_back(self, events: list[EventT]) -> None:
        most = self._most_pending
        with self._lock:
            events += self._pending
            self._pending = events[:most]
            self._arm(self._flush_s)
        if len(events) > most:
            self._lose(len(events) - most, CacheError("it can't keep up"))

    def _lose(self, rows: int, exc: Exception) -> None:
        error = CacheError(f"{rows} row(s) of {self._path} are lost: {type(exc).__name__}: {exc}")
        self._troubles.note(self._part, error, count=rows)


@contextmanager
def writable(path: Path, *, busy_s: float) -> Iterator[sqlite3.Connection]:
    """A connection to a file of ours; the file is made, with its folder, readable by its owner only.

    Args:
        path: The SQLite file.
        busy_s: Longest wait for another process's write, seconds.

    Raises:
        sqlite3.Error: It can't be opened.
        OSError: It can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path, timeout=busy_s, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        yield connection


def _timer(after_s: float, function: Callable[[], None]) -> Cancellable:
    timer = threading.Timer(after_s, function)
    timer.daemon = True  # it must not keep the process; `close` writes what it would have written
    timer.name = "llm-proxy-ledger"
    timer.start()
    return timer
