"""A durable store that several processes share: one SQLite file, written and read as plain bytes.

Rows, by the first letters of their keys::

    e:KEY       the record of an entry
    h:KEY       how often it was hit, when it ever was
    v:KEY       the evidence beside it, where there is any
    l:NUMBER    a step of the log: ["put" | "remove", KEY, ...] or ["touch", [KEY, HITS], ...]
    n:sequence  the number of the last step;  n:schema  the format;  n:store  the store's own random name
    n:bounds    a note of the cache's own

A step and the rows that it speaks of are written in one transaction. Acknowledged means committed: no death of any
process loses or halves it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from llm_proxy.errors import CacheCorruptError, CacheError
from llm_proxy.forking import process

from ._migrate import introduce
from ._steps import MOST_HITS, integer, is_there, log, log_key, shorten, step_of
from .base import Change, Changes, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ._rows import Rows

__all__ = ["DiskStore"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_SCAN_ROWS = 64  # rows held in memory by a scan; each may be a mebibyte
_REMOVE_KEYS = 500  # keys removed in one transaction, so that other writers get their turn

_SCAN = (
    "SELECT e.key, e.raw, e.mode, e.filename, e.value, h.value FROM Cache e "
    "LEFT JOIN Cache h ON h.key = 'h:' || substr(e.key, 3) AND h.raw = 1 AND h.mode = 1 "
    "WHERE e.key > ? AND e.key < 'e;' AND e.raw = 1 ORDER BY e.key LIMIT ?"
)
_REMOVE = "DELETE FROM Cache WHERE key IN (?, ?, ?) AND raw = 1"
_HITS = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = 1 AND typeof(value) = 'integer'"
_KEYS = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND key < 'e;' AND raw = 1 ORDER BY key"
_LOG = "SELECT key, mode, filename, value FROM Cache WHERE key > ? AND key <= ? AND raw = 1 ORDER BY key"
_FOREIGN = (
    "raw IS NOT 1 OR mode IS NOT 1 OR filename IS NOT NULL OR typeof(key) != 'text' OR "
    "CASE substr(key, 1, 2) WHEN 'e:' THEN typeof(value) != 'blob' WHEN 'v:' THEN typeof(value) != 'blob' "
    "WHEN 'l:' THEN typeof(value) != 'text' "
    f"WHEN 'h:' THEN typeof(value) != 'integer' OR value NOT BETWEEN 0 AND {MOST_HITS} WHEN 'n:' THEN 0 ELSE 1 END"
)
_ORPHAN = (
    "substr(key, 1, 2) IN ('h:', 'v:') AND NOT EXISTS "
    "(SELECT 1 FROM Cache e WHERE e.key = 'e:' || substr(Cache.key, 3) AND e.raw = 1)"
)


def _translated(verb: Callable[Concatenate[DiskStore, _P], _T]) -> Callable[Concatenate[DiskStore, _P], _T]:
    """The map from what SQLite and the file system raise to what a store raises."""

    @functools.wraps(verb)
    def run(store: DiskStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return verb(store, *args, **kwargs)
        except (sqlite3.Error, OSError, ValueError, OverflowError) as exc:
            raise CacheError(
                f"the cache in {store.directory} does not work: {exc}; set another cache.directory or remove this one"
            ) from exc

    return run


class DiskStore:
    """Entries in a directory; safe for several threads and several processes, and across a fork.

    Nothing is touched before the first verb. Where the directory cannot be opened the same error is raised for a
    while without a new attempt, so that a broken directory costs a call nothing.

    Args:
        directory: Made with mode 0700 when it is not there, files with 0600: prompts are private.
        busy_timeout_s: Longest wait for another process's write, seconds.
        log_steps: How many of the newest steps the log keeps at least, > 0; more where there are many entries.
        retry_s: How long a failure to open is remembered, seconds.
        monotonic: Clock for ``retry_s``.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        busy_timeout_s: float = 2.0,
        log_steps: int = 2_000,
        retry_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = Path(directory)
        self._busy_timeout_s, self._log_steps, self._retry_s = busy_timeout_s, log_steps, retry_s
        self._monotonic = monotonic
        self._opening = threading.Lock()
        self._rows: Rows | None = None
        self._refused = 0
        self._failure: tuple[float, str] | None = None
        self._inherited: list[Rows] = []
        self._is_closed = False

    @property
    def refused(self) -> int:
        """Rows that were passed over because this store does not write such: serialised objects, files, settings."""
        return self._refused + (self._rows.refused if self._rows is not None else 0)

    @property
    def is_open(self) -> bool:
        """Whether the file is open, in this very process."""
        return self._rows is not None and self._rows.pid == process.id

    @property
    def failure(self) -> str:
        """Why the last attempt to open the file came to nothing; empty when it did not, or when there was none."""
        return "" if self.is_open or self._failure is None else self._failure[1]

    @_translated
    def open(self) -> None:
        """Open the file, which may take a few seconds when another process has it locked."""
        self._open()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A block in which no other thread or process writes; all that is written in it takes effect, or nothing."""
        try:
            with self._open(is_current=True).writing():
                yield
        except (sqlite3.Error, OSError, UnicodeError, OverflowError) as exc:
            raise CacheError(f"the cache in {self.directory} could not be written: {exc}") from exc

    @_translated
    def get(self, key: str) -> bytes | None:
        """The record of ``key``, or None; `CacheCorruptError` when its row is not one that this store writes."""
        record = self._open().value(f"e:{key}")
        if record is None or isinstance(record, bytes):
            return record
        self._refused += 1
        raise CacheCorruptError(f"the row of entry {key} holds {type(record).__name__}, not bytes")

    def row(self, key: str) -> Stored | None:
        """The record of ``key`` with its hits, or None; see `get`."""
        record = self.get(key)
        if record is None:
            return None
        found = self._read(_HITS, f"h:{key}")
        return Stored(key, record, max(0, found[0][0]) if found else 0)

    @_translated
    def put(self, key: str, record: bytes) -> int:
        """Write or replace a record and log it, both or neither; returns the sequence number of the step."""
        with self._open().writing() as rows:
            rows.set(f"e:{key}", record)
            return self._log(rows, ["put", key])

    @_translated
    def touch(self, hits: Mapping[str, int]) -> int:
        """Add hits to keys, as one step; returns its sequence number, or 0 when none of the keys is there any more."""
        with self._open().writing() as rows:
            known = [(key, count) for key, count in hits.items() if is_there(rows, key)]
            for key, count in known:
                before = integer(rows, f"h:{key}")
                rows.set(f"h:{key}", min(max(0, before or 0) + count, MOST_HITS))
            return self._log(rows, ["touch", *known]) if known else 0

    @_translated
    def remove(self, keys: Collection[str]) -> int:
        """Remove keys and log them; returns how many were there."""
        wanted = list(dict.fromkeys(keys))
        removed = 0
        for start in range(0, len(wanted), _REMOVE_KEYS):
            with self._open().writing() as rows:
                known = [key for key in wanted[start : start + _REMOVE_KEYS] if is_there(rows, key)]
                for key in known:
                    rows.run(_REMOVE, f"e:{key}", f"h:{key}", f"v:{key}")
                if known:
                    self._log(rows, ["remove", *known])
                shorten(rows)
            removed += len(known)
        return removed

    @_translated
    def evidence(self, key: str) -> bytes:
        """What was put beside an entry; empty when nothing was.

        Raises:
            CacheCorruptError: Its row is not one that this store writes; it may have said that an answer is wrong.
        """
        evidence = self._open().value(f"v:{key}")
        if evidence is not None and not isinstance(evidence, bytes):
            raise CacheCorruptError(f"the evidence of entry {key} is {type(evidence).__name__}, not bytes")
        return evidence or b""

    @_translated
    def put_evidence(self, key: str, evidence: bytes) -> bool:
        """Keep something beside an entry, in place of what was there; False where no such entry is."""
        with self._open().writing() as rows:
            if not is_there(rows, key):
                return False
            rows.set(f"v:{key}", evidence)
            return True

    @_translated
    def note(self, name: str) -> bytes:
        """What was put under a name; empty when nothing was, or its row is not one that this store writes."""
        with contextlib.suppress(CacheCorruptError):
            if isinstance(value := self._open().value(f"n:{name}"), bytes):
                return value
        return b""

    @_translated
    def put_note(self, name: str, note: bytes) -> None:
        """Keep something of the cache's own, in place of what was there."""
        with self._open().writing() as rows:
            rows.set(f"n:{name}", note)

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted; read from SQLite's index, without the records."""
        first = f"e:{prefix}"
        # Keys are hex digits, so none that begins with the prefix is above the prefix with this last character.
        return [key[2:] for (key,) in self._read(_KEYS, first, first + chr(0x10FFFF))]

    def scan(self) -> Iterator[Stored]:
        """All rows by key; rows written meanwhile may or may not appear."""
        self._note_foreign_keys()
        last = "e:"
        while found := self._read(_SCAN, last, _SCAN_ROWS):
            last = found[-1][0]
            for key, _, mode, filename, value, hits in found:
                if mode == 1 and filename is None and type(value) is bytes:
                    yield Stored(key[2:], value, max(0, hits) if type(hits) is int else 0)
                else:
                    self._refused += 1

    @_translated
    def changes(self, since: int) -> Changes:
        """What was logged after sequence number ``since``; incomplete when that is trimmed away or not yet reached."""
        rows = self._open(is_current=True)
        name, last = rows.value("n:store"), rows.value("n:sequence")
        if type(name) is not str or type(last) is not int:
            raise CacheCorruptError(f"the cache in {self.directory} has lost its name or sequence: remove it")
        if since == last:
            return Changes((), last, store=name)
        found = rows.read(_LOG, log_key(since), log_key(last)) if 0 <= since < last else []
        steps: list[Change] = []
        for sequence, row in enumerate(found, since + 1):
            changes = step_of(sequence, *row)
            if changes is None:
                self._refused += 1
                return Changes((), last, complete=False, store=name)
            steps += changes
        is_complete = len(found) == last - since
        return Changes(tuple(steps) if is_complete else (), last, is_complete, name)

    @_translated
    def size_bytes(self) -> int:
        """Bytes of the SQLite file, free pages included."""
        rows = self._open()
        return rows.pragma("page_count") * rows.pragma("page_size")

    @_translated
    def live_bytes(self) -> int:
        """Bytes of the pages that are in use."""
        rows = self._open()
        return (rows.pragma("page_count") - rows.pragma("freelist_count")) * rows.pragma("page_size")

    @_translated
    def tidy(self, spare_bytes: int) -> None:
        """Have SQLite's write-ahead log begun anew where it is longer than that."""
        self._open().shorten_wal(spare_bytes)

    @_translated
    def check(self, *, repair: bool = False) -> tuple[str, ...]:
        """Faults of the file, a sentence each: SQLite's own check, rows of another make, hits without an entry."""
        rows = self._open()
        findings = [message for (message,) in self._read_apart("PRAGMA integrity_check(20)") if message != "ok"]
        if findings and repair:
            with rows.writing():
                rows.run("REINDEX")
        faulty = [
            ("row(s) that this store did not write", _FOREIGN),
            ("count(s) of hits or evidence without an entry", _ORPHAN),
        ]
        for what, condition in faulty:
            ((count,),) = self._read(f"SELECT count(*) FROM Cache WHERE {condition}")
            if count:
                findings.append(f"{count} {what}")
                if repair:
                    with rows.writing():
                        rows.run(f"DELETE FROM Cache WHERE {condition}")
        return tuple(findings)

    def close(self) -> None:
        """Release files and connections; calling it again is safe, and so is closing what never opened."""
        with self._opening:
            self._is_closed = True
            if self._rows is not None and self._rows.pid == process.id:
                self._rows.shut()

    # -- opening -------------------------------------------------------------------------------------------------

    def _open(self, *, is_current: bool = False) -> Rows:
        """The open file; with ``is_current`` a new one where the directory was removed or replaced."""
        rows = self._rows
        if rows is not None and rows.pid == process.id and (rows.is_writing or not (is_current and _has_moved(rows))):
            return rows
        if not self._opening.acquire(timeout=self._busy_timeout_s):
            raise CacheError(f"the cache in {self.directory} is still being opened")
        try:
            if self._is_closed:
                raise CacheError("the disk store is closed; make a new cache")
            if rows is self._rows or self._rows is None:  # else another thread was faster
                self._open_again(rows)
            return cast("Rows", self._rows)
        finally:
            self._opening.release()

    def _open_again(self, rows: Rows | None) -> None:
        if self._failure is not None and self._monotonic() < self._failure[0]:
            raise CacheError(self._failure[1])
        self._failure = None
        if rows is not None:
            self._leave(rows)
        self._rows = self._opened()

    def _leave(self, rows: Rows) -> None:
        self._refused += rows.refused
        self._rows = None
        if rows.pid == process.id:
            rows.shut()
        else:
            # SQLite's connections must not be used, nor closed, in a forked child.
            self._inherited.append(rows)

    def _opened(self) -> Rows:
        from ._rows import Rows, make_private

        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            make_private(self.directory / "cache.db")
            deadline_s = time.monotonic() + 3 * self._busy_timeout_s
            while True:
                try:
                    rows = Rows(self.directory, busy_timeout_s=self._busy_timeout_s)
                    break
                except sqlite3.OperationalError as exc:
                    # SQLite does not wait in some steps of making a file while another process makes it.
                    if "locked" not in str(exc) or time.monotonic() > deadline_s:
                        raise
                    time.sleep(random.uniform(0.002, 0.02))
            introduce(rows)
            return rows
        except (sqlite3.Error, OSError, ValueError, CacheError) as exc:
            message = str(exc) if isinstance(exc, CacheError) else f"the cache in {self.directory} does not open: {exc}"
            self._failure = (self._monotonic() + self._retry_s, message)
            raise

    # -- reading and writing -------------------------------------------------------------------------------------

    @_translated
    def _read(self, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
        return self._open().read(statement, *values)

    @_translated
    def _note_foreign_keys(self) -> None:
        ((count,),) = self._read_apart("SELECT count(*) FROM Cache WHERE raw IS NOT 1 OR typeof(key) != 'text'")
        self._refused += count

    def _read_apart(self, statement: str) -> list[tuple[Any, ...]]:
        # What reads the whole file has a connection of its own, so that lookups do not wait for it.
        with contextlib.closing(self._open().connect()) as connection:
            return connection.execute(statement).fetchall()

    def _log(self, rows: Rows, step: list[object]) -> int:
        return log(rows, step, least_steps=self._log_steps)


def _has_moved(rows: Rows) -> bool:
    try:
        found = os.stat(rows.path)
    except OSError:
        return True
    return (found.st_dev, found.st_ino) != rows.inode
