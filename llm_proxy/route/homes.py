"""Where responses are kept: only the server that made one can go on from it (``previous_response_id``).

::

    keep   one row a response: its mark, who answered, where that was, when
    find   the row of a mark, unless it is too old

A mark is a hash of the response's id and of whose call it was (`llm_proxy.engine.fingerprint.owner_of`): nobody finds
what was answered to somebody else, and the rows tell nothing by themselves. They lie in a SQLite file that all
processes of a cache directory share, or in the memory of one.

Source: OpenAI, "Conversation state": responses are kept for 30 days.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_proxy.errors import CacheError
from llm_proxy.forking import working

from .base import Home

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
_BUSY_S = 1.0
_MOST_CHARS = 200


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

    Args:
        path: The SQLite file; made, with its folder, by the first `keep`, readable by its owner only.
        time: Unix time, seconds.
        most: Most responses that are known, > 0.
    """

    def __init__(self, path: Path, *, time: Callable[[], float], most: int = MOST_HOMES) -> None:
        self._path, self._time, self._most = path, time, most
        self._open: tuple[sqlite3.Connection, int, tuple[int, int]] | None = None
        self._lock = threading.Lock()

    def keep(self, mark: str, home: Home) -> None:
        """Have it known where a response is kept; for other processes, too, once this has returned.

        Raises:
            CacheError: It can't be written.
        """
        now_s = self._time()
        values = (mark, *(value[:_MOST_CHARS].encode("utf-8", "replace").decode() for value in home), now_s)
        with self._opened() as connection:
            _lay_out(connection, self._path)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_KEEP, values)
            connection.execute(_TOO_OLD, (now_s - KEPT_S,))
            connection.execute(_TOO_MANY, (self._most,))
            connection.execute("COMMIT")

    def find(self, mark: str) -> Home | None:
        """Where a response is kept; None where that is not known.

        Raises:
            CacheError: It can't be read.
        """
        if not self._path.exists():
            return None
        with self._opened() as connection:
            if not _is_laid_out(connection, self._path):
                return None
            row = connection.execute(_FIND, (mark, self._time() - KEPT_S)).fetchone()
        return None if row is None else Home(*row)

    def close(self) -> None:
        """Release the file; a later call opens it again."""
        with working, self._lock:
            if self._open is not None and self._open[1] == os.getpid():
                self._open[0].close()
                self._open = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with working, self._lock:  # in this order: a child of a fork must not find the lock taken
            try:
                yield self._connection()
            except (sqlite3.Error, OSError) as exc:
                raise CacheError(f"where responses are kept, {self._path}, can't be used: {exc}") from exc
            finally:
                if self._open is not None and self._open[0].in_transaction:
                    self._open[0].execute("ROLLBACK")

    def _connection(self) -> sqlite3.Connection:
        """Open, and left so: to close the last one writes the log of changes back, which takes ten times a row."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        found = self._path.stat()
        here = os.getpid(), (found.st_dev, found.st_ino)
        if self._open is not None:
            if self._open[1:] == here:
                return self._open[0]
            if self._open[1] == here[0]:  # the file was taken away
                self._open[0].close()
            else:
                _left_open.append(self._open)  # a parent's connection must not be closed here
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        self._open = connection, *here
        return connection


_left_open: list[object] = []


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
