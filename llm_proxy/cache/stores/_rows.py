"""The SQLite file of the disk store: diskcache's format and transactions, without the three things it may do.

It may unpickle what it reads: `RawDisk` lets text, bytes and integers through and refuses the rest. It may open or
remove the file that a row names: `RawDisk` has no files. It obeys settings found in the file: `Rows` imposes its own.

Two connections serve all threads, each under its lock: one writes, one only reads, and so a lookup never waits for a
writer, here or in another process. diskcache itself keeps one for each thread that ever came by.

Not imported before a store is opened.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, ENOVAL, MODE_RAW, UNKNOWN

from llm_proxy.errors import CacheCorruptError, CacheError
from llm_proxy.forking import process

from ._migrate import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["RawDisk", "Rows", "make_private"]

_SETTINGS = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 1 << 62,
    "cull_limit": 0,
    "disk_min_file_size": 1 << 62,
    "disk_pickle_protocol": 0,
}
_VALUE = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
_WRITER_PATIENCE_MS = 5  # of one attempt; see `Rows.writing`
_CHECKPOINT_PATIENCE_MS = 100
_GIVE_WAY_S = 0.3  # longest wait of a write for the log to be begun anew
_COUNTERS = ("count", "size", "hits", "misses")  # diskcache's own, kept up by its triggers

# Not synchronous=FULL: what was acknowledged survives the death of any process; after a power cut the last
# moments may be missing, and the file is whole. No mmap: another program that cuts the file short would kill us.
_PRAGMAS = (
    "trusted_schema=OFF",
    "synchronous=NORMAL",
    "mmap_size=0",
    "cache_size=-2048",
    "journal_size_limit=16777216",
)


class RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys are text; values are bytes, text or integers, in the row itself. Anything else is refused, not read."""

    def put(self, key: Any) -> tuple[str, bool]:
        """The key as it goes into its column."""
        if type(key) is not str:
            raise CacheCorruptError(f"a key of the disk store is {type(key).__name__}, not text")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """The key of a row, if it is one that `put` wrote."""
        if type(key) is not str or raw != 1:
            raise CacheCorruptError("the disk store has a row whose key is serialised; it was not read")
        return key

    def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> tuple[int, int, None, bytes | str | int]:
        """The value as it goes into its columns; never a file, however large."""
        if read or type(value) not in (bytes, str, int):
            raise CacheCorruptError(f"a value for the disk store is {type(value).__name__}, not bytes, text or int")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes | str | int:
        """The value of a row, if it is one that `store` wrote."""
        if mode != MODE_RAW or filename is not None or read or type(value) not in (bytes, str, int):
            raise CacheCorruptError("the disk store has a row whose value is serialised or in a file; it was not read")
        return value  # type: ignore[no-any-return]

    def remove(self, file_path: Any) -> None:
        """Do nothing: a file name in a row is not ours, and may point anywhere."""


class Rows(diskcache.Cache):  # type: ignore[misc]
    """A diskcache whose rows are text keys with raw values.

    Args:
        directory: Where ``cache.db`` is or will be; must exist.
        busy_timeout_s: Longest wait for another process's write, seconds.

    Raises:
        CacheError: The file is another program's, or of a newer version.
        sqlite3.Error: It is no database, locked, or cannot be written.
    """

    def __init__(self, directory: Path, *, busy_timeout_s: float) -> None:
        self.pid = process.id
        self.path = directory / DBNAME
        self.refused = 0
        self._wal_limit_bytes = 1 << 62
        self._busy_timeout_s = busy_timeout_s
        self._reader: sqlite3.Connection | None = None
        self._write_lock, self._read_lock = threading.RLock(), threading.Lock()
        self._writer: sqlite3.Connection | None = self.connect()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._examine(self._writer)
            self._prepare(self._writer)
            super().__init__(str(directory), timeout=busy_timeout_s, disk=RawDisk, **_SETTINGS)
            self._reader = self.connect()
            self._reader.execute("PRAGMA query_only=ON")
            self._con.execute(f"PRAGMA busy_timeout={_WRITER_PATIENCE_MS}")
            on_failure.pop_all()
        found = os.stat(self.path)
        self.inode = found.st_dev, found.st_ino

    def connect(self) -> sqlite3.Connection:
        """A new connection that any thread may use, one at a time."""
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @property
    def is_writing(self) -> bool:
        """Whether this very thread is inside of `writing`."""
        return bool(self._txn_id == threading.get_ident())

    def read(self, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
        """All rows of a query, as they are at one moment; inside of `writing` with what was written there so far."""
        if self._txn_id is not None and self.is_writing:
            return self.run(statement, *values).fetchall()
        with self._read_lock:
            if self._reader is None:
                raise CacheError("the disk store is closed; make a new cache")
            return self._reader.execute(statement, values).fetchall()

    def value(self, key: str) -> bytes | str | int | None:
        """The value under a key, or None.

        Raises:
            CacheCorruptError: The row is not one that this store writes.
        """
        return self._fetched(self.read(_VALUE, key))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Rows]:
        """A transaction: all of it or nothing, durable when the block is left without an error. One lies in another."""
        if self.is_writing:
            yield self
            return
        deadline_s = time.monotonic() + self._busy_timeout_s
        if not self._write_lock.acquire(timeout=self._busy_timeout_s):
            raise CacheError(
                f"{self.path} was not written within {self._busy_timeout_s} s: other threads write too much"
            )
        try:
            if self._writer is None:
                raise CacheError("the disk store is closed; make a new cache")
            self._give_way()
            with contextlib.ExitStack() as transaction:
                self._begin(transaction, deadline_s)
                yield self
        finally:
            try:
                # diskcache leaves the transaction open when its COMMIT fails, and no later one could begin.
                if self._writer is not None and self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            finally:
                self._write_lock.release()

    def _begin(self, transaction: contextlib.ExitStack, deadline_s: float) -> None:
        """Take SQLite's write lock, asking every few milliseconds.

        SQLite's own waiting asks ever less often, up to every tenth of a second: among twenty busy processes some
        would never be lucky within a second. Who has waited for long asks more often.
        """
        while True:
            try:
                transaction.enter_context(self.transact())
                return
            except diskcache.Timeout as exc:
                if "locked" not in str(exc.__context__) or time.monotonic() >= deadline_s:
                    raise CacheError(f"{self.path} could not be written: {exc.__context__}") from exc
            patience = max(0.05, (deadline_s - time.monotonic()) / self._busy_timeout_s)
            time.sleep(patience * random.uniform(0.0005, 0.003))

    def pending(self, key: str) -> bytes | str | int | None:
        """As `value`, inside of `writing`, with what was written there so far."""
        return self._fetched(self.run(_VALUE, key).fetchall())

    def total(self) -> int:
        """How many rows there are, as the file's own triggers count them; inside of `writing`."""
        ((count,),) = self.run("SELECT value FROM Settings WHERE key = 'count'").fetchall()
        return count if type(count) is int else 0

    def pragma(self, name: str) -> int:
        """A number that SQLite knows of the file."""
        ((value,),) = self.read(f"PRAGMA {name}")
        return int(value)

    def wal_bytes(self) -> int:
        """Bytes of the write-ahead log; 0 while there is none."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def shorten_wal(self, limit_bytes: int) -> None:
        """Have the write-ahead log begun anew where it is longer than that, now and before later writes.

        SQLite does so by itself only in a moment when no process writes, and among busy ones there is none. So one
        asks for it as soon as it is due, and where that is in vain all wait a little before they write on.
        """
        self._wal_limit_bytes = limit_bytes
        if self.wal_bytes() > limit_bytes and self._write_lock.acquire(blocking=False):
            try:
                if not self.is_writing:
                    self._checkpoint()
            finally:
                self._write_lock.release()

    def _give_way(self) -> None:
        deadline_s = time.monotonic() + _GIVE_WAY_S
        while self.wal_bytes() > 2 * self._wal_limit_bytes and time.monotonic() < deadline_s:
            if not self._checkpoint():
                time.sleep(random.uniform(0.001, 0.004))

    def _checkpoint(self) -> bool:
        con = self._con
        con.execute(f"PRAGMA busy_timeout={_CHECKPOINT_PATIENCE_MS}")
        try:
            ((is_busy, _, _),) = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return not is_busy
        finally:
            con.execute(f"PRAGMA busy_timeout={_WRITER_PATIENCE_MS}")

    def run(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        """Execute a statement inside of `writing`."""
        return self._con.execute(statement, values)

    def close(self) -> None:
        """Close both connections; nothing can be read or written afterwards."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def shut(self) -> None:
        """As `close`, once those who read or write have finished."""
        with self._write_lock, self._read_lock:
            self.close()

    # -- what diskcache asks of itself ---------------------------------------------------------------------------

    @property
    def _con(self) -> sqlite3.Connection:
        if self._writer is None:  # diskcache closes and opens again at the end of its constructor
            self._writer = self.connect()
        return self._writer

    @property
    def _sql_retry(self) -> Any:
        # diskcache would go on trying for a minute; whoever opens a store retries within a bound of its own.
        return self._con.execute

    def reset(self, key: str, value: Any = ENOVAL, update: bool = True) -> Any:
        """As diskcache's, without the pragmas: `connect` sets those, whatever the file says."""
        return value if key.startswith("sqlite_") else super().reset(key, value, update)

    # -- before diskcache sees the file --------------------------------------------------------------------------

    def _examine(self, connection: sqlite3.Connection) -> None:
        names = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
        tables = {name for (name,) in connection.execute(names)}
        if not tables <= {"Cache", "Settings"}:
            raise CacheError(f"{self.path} belongs to another program; set another cache.directory")
        if "Cache" not in tables or not connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone():
            return
        found = connection.execute("SELECT value FROM Cache WHERE key = 'n:schema' AND raw = 1 AND mode = 1").fetchone()
        if found is None or type(found[0]) is not int:
            raise CacheError(f"{self.path} belongs to another program; set another cache.directory")
        if not 1 <= found[0] <= SCHEMA:
            raise CacheError(
                f"{self.path} has format {found[0]} and this version knows {SCHEMA}: update llm-proxy, or set another "
                "cache.directory"
            )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone():
            return
        known = [*DEFAULT_SETTINGS, *_COUNTERS]
        places = ", ".join("?" * len(known))
        planted = f"FROM Settings WHERE typeof(key) != 'text' OR key NOT IN ({places})"
        (count,) = connection.execute(f"SELECT count(*) {planted}", known).fetchone()
        if count:
            connection.execute(f"DELETE {planted}", known)
            self.refused += count

    def _fetched(self, found: list[tuple[Any, ...]]) -> bytes | str | int | None:
        if not found:
            return None
        mode, filename, value = found[0]
        if mode == MODE_RAW and filename is None and type(value) is bytes:  # an entry: what is asked all the time
            return value
        try:
            return self._disk.fetch(mode, filename, value, False)  # type: ignore[no-any-return]
        except CacheCorruptError:
            self.refused += 1
            raise


def make_private(path: Path) -> None:
    """Make a file that only its owner reads. SQLite gives the files beside it the same mode.

    One that exists is not opened: closing it would drop the locks of other connections in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
