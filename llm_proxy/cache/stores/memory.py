"""A store that lives and dies with the process."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError

from .base import Change, Changes, Stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["MemoryStore"]


class MemoryStore:
    """Records in a dictionary, with the same log as the durable stores; several caches of one process may share it.

    Args:
        log_steps: How many of the newest steps the log keeps, > 0.
    """

    def __init__(self, *, log_steps: int = 100_000) -> None:
        self._lock = threading.RLock()  # reentrant, for `writing`
        self._records: dict[str, bytes] = {}
        self._hits: dict[str, int] = {}
        self._evidence: dict[str, bytes] = {}
        self._notes: dict[str, bytes] = {}
        self._bytes = 0
        self._sequence = 0
        self._log: deque[tuple[Change, ...]] = deque(maxlen=log_steps)
        self._name = secrets.token_hex(8)
        self._is_closed = False

    @property
    def refused(self) -> int:
        """Always 0: nothing else writes here."""
        return 0

    @property
    def is_open(self) -> bool:
        """Always: there is nothing to open."""
        return True

    @property
    def failure(self) -> str:
        """Always empty."""
        return ""

    def open(self) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A block in which no other thread writes; what is written in it stays, also when it is left by an error."""
        with self._lock:
            self._ensure_open()
            yield

    def get(self, key: str) -> bytes | None:
        """The record of ``key``, or None."""
        self._ensure_open()
        return self._records.get(key)

    def put(self, key: str, record: bytes) -> int:
        """Write or replace a record and log it; returns the sequence number of the step."""
        with self._lock:
            self._ensure_open()
            self._bytes += len(record) - len(self._records.get(key, b""))
            self._records[key] = record
            return self._log_step(Change(self._sequence + 1, "put", key))

    def touch(self, hits: Mapping[str, int]) -> int:
        """Add hits to keys that are there; returns the sequence number of the step, or 0 when none is."""
        with self._lock:
            self._ensure_open()
            known = {key: count for key, count in hits.items() if key in self._records}
            if not known:
                return 0
            for key, count in known.items():
                self._hits[key] = self._hits.get(key, 0) + count
            number = self._sequence + 1
            return self._log_step(*(Change(number, "touch", key, count) for key, count in known.items()))

    def remove(self, keys: Collection[str]) -> int:
        """Remove keys and log them; returns how many were there."""
        with self._lock:
            self._ensure_open()
            known = [key for key in dict.fromkeys(keys) if key in self._records]
            for key in known:
                self._bytes -= len(self._records.pop(key))
                self._hits.pop(key, None)
                self._bytes -= len(self._evidence.pop(key, b""))
            if known:
                self._log_step(*(Change(self._sequence + 1, "remove", key) for key in known))
            return len(known)

    def evidence(self, key: str) -> bytes:
        """What was put beside an entry; empty when nothing was."""
        self._ensure_open()
        return self._evidence.get(key, b"")

    def put_evidence(self, key: str, evidence: bytes) -> bool:
        """Keep something beside an entry, in place of what was there; False where no such entry is."""
        with self._lock:
            self._ensure_open()
            if key not in self._records:
                return False
            self._bytes += len(evidence) - len(self._evidence.get(key, b""))
            self._evidence[key] = evidence
            return True

    def note(self, name: str) -> bytes:
        """What was put under a name; empty when nothing was."""
        self._ensure_open()
        return self._notes.get(name, b"")

    def put_note(self, name: str, note: bytes) -> None:
        """Keep something of the cache's own, in place of what was there."""
        with self._lock:
            self._ensure_open()
            self._bytes += len(note) - len(self._notes.get(name, b""))
            self._notes[name] = note

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted."""
        with self._lock:
            self._ensure_open()
            return sorted(key for key in self._records if key.startswith(prefix))

    def scan(self) -> Iterator[Stored]:
        """All rows as they are now."""
        with self._lock:
            self._ensure_open()
            rows = [Stored(key, record, self._hits.get(key, 0)) for key, record in self._records.items()]
        yield from rows

    def changes(self, since: int) -> Changes:
        """What was logged after sequence number ``since``."""
        with self._lock:
            self._ensure_open()
            oldest = self._sequence - len(self._log)
            is_complete = oldest <= since <= self._sequence
            # The log is read from its right end, because a follower is seldom far behind and a deque's middle is slow.
            missed = list(islice(reversed(self._log), self._sequence - since)) if is_complete else []
            steps = tuple(change for step in reversed(missed) for change in step)
            return Changes(steps, self._sequence, is_complete, self._name)

    def size_bytes(self) -> int:
        """Bytes of the records, and of what lies beside them."""
        self._ensure_open()
        return self._bytes

    def live_bytes(self) -> int:
        """Bytes of the records."""
        return self.size_bytes()

    def tidy(self, spare_bytes: int) -> None:
        """Do nothing: there is no more than records and the log."""

    def check(self, *, repair: bool = False) -> tuple[str, ...]:
        """Nothing can be wrong with a dictionary."""
        self._ensure_open()
        return ()

    def close(self) -> None:
        """Forget everything; calling it again is safe."""
        with self._lock:
            self._is_closed = True
            self._records.clear()
            self._hits.clear()
            self._evidence.clear()
            self._notes.clear()
            self._log.clear()
            self._bytes = 0

    def _ensure_open(self) -> None:
        if self._is_closed:
            raise CacheError("the memory store is closed; make a new cache")

    def _log_step(self, *changes: Change) -> int:
        self._sequence += 1
        self._log.append(changes)
        return self._sequence
