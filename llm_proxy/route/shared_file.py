"""A SQLite file that several processes share, and what takes its place where it is damaged.

::

    responses.sqlite3 ──damaged──> responses.2.sqlite3 ──damaged──> responses.3.sqlite3 ──damaged──> the error stays

The newest that is there counts, for all processes. A damaged one stays as it is, under its name: to rename it, others
would have to be kept from opening it, and its log of changes from being taken for the new one's. To begin the next is
to make a file that must not be there yet, so one process does and the others find it. Only damage leads there: a file
that is locked, read-only, of another program or of a newer SQLite stays the one in use, as does any on a full disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from llm_proxy.errors import CacheError

__all__ = ["SharedFile"]

T = TypeVar("T")

_MOST_FILES = 3  # a disk that damages the third one damages any
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 100
_NEWEST_FORMAT = 2


class SharedFile:
    """One connection to the newest of the files; usable on both sides of a fork. Not thread-safe.

    Args:
        path: The first file; made, with its folder, on the first use, readable by its owner only.
        application_id: What tells it from other programs' files.
        note: Counts a damaged file.
    """

    def __init__(self, path: Path, *, application_id: int, note: Callable[[Exception], object]) -> None:
        numbers = range(2, _MOST_FILES + 1)
        self._paths = [path, *(path.with_name(f"{path.stem}.{number}{path.suffix}") for number in numbers)]
        self._application_id, self._note = application_id, note
        self._open: tuple[sqlite3.Connection, int, tuple[int, int]] | None = None

    @property
    def path(self) -> Path:
        """The file in use."""
        return next((path for path in self._paths[:0:-1] if path.exists()), self._paths[0])

    def do(self, work: Callable[[sqlite3.Connection], T], *, busy_s: float) -> T:
        """Do some work; where the file is damaged, again in the one that takes its place.

        Args:
            work: Gets the connection; a transaction that it leaves open is undone.
            busy_s: Longest wait for another process's lock, seconds.

        Raises:
            sqlite3.Error: It can't be done.
            OSError: Likewise.
        """
        while True:
            path = self.path
            try:
                return self._done(work, path, busy_s)
            except sqlite3.Error as exc:
                if not self._is_damaged(exc, path) or not self._begin_anew(path, exc):
                    raise

    def close(self) -> None:
        """Release the file; a later call opens it again."""
        if self._open is not None and self._open[1] == os.getpid():
            self._open[0].close()
            self._open = None

    def _done(self, work: Callable[[sqlite3.Connection], T], path: Path, busy_s: float) -> T:
        connection = self._connection(path, busy_s)
        try:
            connection.execute(f"PRAGMA busy_timeout = {round(busy_s * 1000)}")
            return work(connection)
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def _connection(self, path: Path, busy_s: float) -> sqlite3.Connection:
        """Open, and left so: to close the last one writes the log of changes back, which takes ten times a row."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        found = path.stat()
        here = os.getpid(), (found.st_dev, found.st_ino)
        if self._open is not None:
            if self._open[1:] == here:
                return self._open[0]
            if self._open[1] == here[0]:  # the file was taken away, or another has taken its place
                self._open[0].close()
            else:
                _left_open.append(self._open)  # a parent's connection must not be closed here
            self._open = None
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error:
            connection.close()
            raise
        self._open = connection, *here
        return connection

    def _is_damaged(self, exc: sqlite3.Error, path: Path) -> bool:
        """Whether an error says that a file is damaged, and it is not another program's, or a newer SQLite's."""
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
            return True
        # Source: sqlite.org/fileformat.html, section 1.3.
        return int.from_bytes(head[68:72], "big") == self._application_id and max(head[18:20]) <= _NEWEST_FORMAT

    def _begin_anew(self, damaged: Path, exc: Exception) -> bool:
        """Have the next file be the newest one; False where there is none."""
        number = self._paths.index(damaged) + 1
        if number == len(self._paths):
            return False
        following = self._paths[number]
        with suppress(FileExistsError):  # another process was faster
            os.close(os.open(following, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._note(
            CacheError(f"{damaged} is damaged ({exc}): what it held is unknown, {following.name} takes its place")
        )
        return True


_left_open: list[object] = []
