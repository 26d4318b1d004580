"""Where responses are kept: only the server that made one can go on from it (``previous_response_id``).

::

    keep   one row a response: its mark, who answered, where that was, when
    find   the row of a mark, unless it is too old

A mark is a hash of the response's id and of whose call it was (`llm_proxy.engine.fingerprint.owner_of`): nobody finds
what was answered to somebody else, and the rows tell nothing by themselves. They lie in a SQLite file that all
processes of a cache directory share, or in the memory of one. A damaged file is left behind, see
`llm_proxy.route.shared_file`.

Source: OpenAI, "Conversation state": responses are kept for 30 days.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from llm_proxy.errors import CacheError
from llm_proxy.forking import working

from .base import Home
from .shared_file import SharedFile

__all__ = ["HOMES_NAME", "KEPT_S", "MOST_HOMES", "FileHomes", "MemoryHomes", "address_of"]

HOMES_NAME = "responses.sqlite3"
"""Name of the file, in the cache's directory."""
KEPT_S = 30 * 86_400.0
"""How long a response is known."""
MOST_HOMES = 100_000
"""Most responses that are known; beyond it the oldest go. About 20 MB."""

APPLICATION_ID = 0x4C50_4831  # "LPH1": tells the file from any other SQLite file. Source: sqlite.org/fileformat.html
_SCHEMA = (
    """CREATE TABLE homes (
  number INTEGER PRIMARY KEY, mark TEXT NOT NULL UNIQUE, backend TEXT NOT NULL, model TEXT NOT NULL,
  address TEXT NOT NULL, at_s REAL NOT NULL)""",
    "CREATE INDEX homes_by_age ON homes (at_s)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
_KEEP = "INSERT OR REPLACE INTO homes (mark, backend, model, address, at_s) VALUES (?, ?, ?, ?, ?)"
_FIND = "SELECT backend, model, address FROM homes WHERE mark = ? AND at_s >= ?"
_TOO_OLD = "DELETE FROM homes WHERE at_s < ?"
_TOO_MANY = "DELETE FROM homes WHERE number <= (SELECT MAX(number) FROM homes) - ?"
_MOST_CHARS = 200
_BUSY_S = 0.25  # longest wait of an answer for another process's lock
_REST_S = 0.5  # how long a file that was locked for longer is left alone
_MOMENT_S = 0.02  # longest wait from then on, until it can be written again; about ten writes of other processes
_PATIENT_S = 1.0  # longest wait of a call that goes on from a response, refused where that is not known; and of the end
_MOST_WAITING = 1000

Row = tuple[str, str, str, str, float]


def address_of(base_url: str) -> str:
    """A base URL as a short hash: it may hold what is not for a file."""
    return hashlib.sha256(base_url.encode()).hexdigest()[:16]


class MemoryHomes:
    """The same for one process, gone with it; thread-safe.

    Args:
        time: Unix time, seconds.
        most: Most responses that are known, > 0.
    """

    def __init__(self, *, time: Callable[[], float], most: int = MOST_HOMES) -> None:
        self._time, self._most = time, most
        self._homes: OrderedDict[str, tuple[Home, float]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, mark: str, home: Home) -> None:
        """Have it known where a response is kept."""
        with self._lock:
            self._homes[mark] = home, self._time()
            self._homes.move_to_end(mark)
            if len(self._homes) > self._most:
                self._homes.popitem(last=False)

    def find(self, mark: str) -> Home | None:
        """Where a response is kept; None where that is not known."""
        home, at_s = self._homes.get(mark, (None, 0.0))
        return home if at_s >= self._time() - KEPT_S else None

    def close(self) -> None:
        """There is nothing to release."""


class FileHomes:
    """The same in a file, for all processes that use it; thread-safe, usable on both sides of a fork.

    What can't be written waits in memory, is known in this process, and is written with what comes next, or at the
    end. A file that was locked is tried now and then only, and hardly waited for: answers must not wait for it.

    Args:
        path: The SQLite file, see `llm_proxy.route.shared_file.SharedFile`.
        time: Unix time, seconds.
        note: Counts a damaged file.
        monotonic: Clock, seconds.
        most: Most responses that are known, > 0.
    """

    def __init__(
        self,
        path: Path,
        *,
        time: Callable[[], float],
        note: Callable[[Exception], object],
        monotonic: Callable[[], float],
        most: int = MOST_HOMES,
    ) -> None:
        self._path, self._time, self._monotonic, self._most = path, time, monotonic, most
        # Two, so that what keeps does not wait for what looks for something, which has more patience.
        self._keeping, self._finding = threading.Lock(), threading.Lock()
        self._to_keep = SharedFile(path, application_id=APPLICATION_ID, note=note)
        self._to_find = SharedFile(path, application_id=APPLICATION_ID, note=note)
        self._waiting: OrderedDict[str, Row] = OrderedDict()
        self._locked_until: float | None = None

    def keep(self, mark: str, home: Home) -> None:
        """Have it known where a response is kept; for other processes, too, once this has returned.

        Raises:
            CacheError: It can't be written now.
        """
        backend, model, address = (value[:_MOST_CHARS].encode("utf-8", "replace").decode() for value in home)
        with working, self._keeping:  # in this order: a child of a fork must not find the lock taken
            self._waiting[mark] = mark, backend, model, address, self._time()
            self._waiting.move_to_end(mark)
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)
            if self._locked_until is not None and self._monotonic() < self._locked_until:
                raise CacheError(f"where responses are kept, {self._path}, was locked: it is written later")
            self._write(_BUSY_S if self._locked_until is None else _MOMENT_S)

    def find(self, mark: str) -> Home | None:
        """Where a response is kept; None where that is not known.

        Raises:
            CacheError: It can't be read.
        """
        since_s = self._time() - KEPT_S
        waiting = self._waiting.get(mark)
        if waiting is not None:
            return Home(*waiting[1:4]) if waiting[4] >= since_s else None
        with working, self._finding, _translated(self._path):
            if not self._to_find.path.exists():
                return None
            return self._to_find.do(partial(_found, self._path, (mark, since_s)), busy_s=_PATIENT_S)

    def close(self) -> None:
        """Write what waits, and release the file; a later call opens it again."""
        with working, self._keeping, self._finding:
            if self._waiting:
                with suppress(CacheError):  # that it waits was counted when it came
                    self._write(_PATIENT_S)
            self._to_keep.close()
            self._to_find.close()

    def _write(self, busy_s: float) -> None:
        rows, now_s = list(self._waiting.values()), self._time()
        with _translated(self._path):
            try:
                self._to_keep.do(partial(_written, self._path, rows, (now_s - KEPT_S,), (self._most,)), busy_s=busy_s)
            except sqlite3.Error as exc:
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                    self._locked_until = self._monotonic() + _REST_S
                raise
        self._waiting.clear()
        self._locked_until = None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise CacheError(f"where responses are kept, {path}, can't be used: {exc}") from exc


def _written(
    path: Path, rows: list[Row], too_old: tuple[float], most: tuple[int], connection: sqlite3.Connection
) -> None:
    _lay_out(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_KEEP, rows)
    connection.execute(_TOO_OLD, too_old)
    connection.execute(_TOO_MANY, most)
    connection.execute("COMMIT")


def _found(path: Path, values: tuple[str, float], connection: sqlite3.Connection) -> Home | None:
    if not _is_laid_out(connection, path):
        return None
    row = connection.execute(_FIND, values).fetchone()
    return None if row is None else Home(*row)


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    if _is_laid_out(connection, path):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not _is_laid_out(connection, path):  # asked again: another process may have been faster
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _is_laid_out(connection: sqlite3.Connection, path: Path) -> bool:
    # In this order: another process may lay it out between the two, tables and number at once.
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return False
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CacheError(f"{path} is not a file of llm-proxy; move it away or set another cache.directory")
    return True
