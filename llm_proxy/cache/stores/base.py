"""The store seam: the durable truth of the cache, and a log that others can follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from contextlib import AbstractContextManager

__all__ = ["Change", "Changes", "Store", "Stored"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of a store: the key, its record (see `llm_proxy.cache.entry`) and how often it was hit."""

    key: str
    record: bytes
    hits: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a store's log. ``hits`` is the number of further hits of a touch, else 0."""

    sequence: int
    operation: Literal["put", "touch", "remove"]
    key: str
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """The log after some sequence number.

    Attributes:
        steps: Oldest first.
        sequence: Number of the last step that exists; ask with it next time.
        complete: False when older steps were trimmed: the follower must `scan` instead.
        store: Random name that the store got when it was made; another name than last time means that it was
            replaced, and that sequence numbers of before mean nothing.
    """

    steps: tuple[Change, ...]
    sequence: int
    complete: bool = True
    store: str = ""


class Store(Protocol):
    """Bytes by key, durable where the store is; safe for several threads, and for several processes where it says so.

    Every verb raises `CacheError` when the store can't do its work; no other exception leaves a store.
    """

    @property
    def refused(self) -> int:
        """How many rows were passed over so far because no store of this kind writes such."""

    @property
    def is_open(self) -> bool:
        """Whether `get` reads at once; else it opens files first, which `open` does as well, and may wait for them."""

    @property
    def failure(self) -> str:
        """Why the last attempt to open came to nothing; empty when it did not, or when there was none."""

    def open(self) -> None:
        """Open what is not open."""

    def writing(self) -> AbstractContextManager[object]:
        """A block in which nobody else writes: what this thread reads in it stays true until it is left.

        What is written in it is acknowledged together when it is left, and takes no effect when it is left by an
        error, if the store is durable. Such blocks may lie within each other. Keep them short: all writers wait.
        """

    def get(self, key: str) -> bytes | None:
        """The record of ``key``, or None; `CacheCorruptError` when its row is not one that this store writes."""

    def put(self, key: str, record: bytes) -> int:
        """Write or replace a record and log it, both or neither; acknowledged (durable) on return.

        Hits counted so far are kept. Returns the sequence number of the step.
        """

    def touch(self, hits: Mapping[str, int]) -> int:
        """Add hits to keys, as one step; keys that are gone are passed over.

        Returns the sequence number of the step, or 0 when no key is there any more.
        """

    def remove(self, keys: Collection[str]) -> int:
        """Remove keys and log them; returns how many were there."""

    def evidence(self, key: str) -> bytes:
        """What was put beside an entry with `put_evidence`; empty when nothing was.

        Raises:
            CacheCorruptError: There is something else.
        """

    def put_evidence(self, key: str, evidence: bytes) -> bool:
        """Keep something beside an entry, in place of what was there; False where no such entry is.

        It stays when the entry is replaced and goes when it is removed. No step of the log speaks of it: whoever
        needs it asks for it.
        """

    def note(self, name: str) -> bytes:
        """What was put under a name with `put_note`; empty when nothing was, or the row is not one of these."""

    def put_note(self, name: str, note: bytes) -> None:
        """Keep something of the cache's own, in place of what was there; no step of the log speaks of it."""

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted; no record is read."""

    def scan(self) -> Iterator[Stored]:
        """All rows, in any order; rows written meanwhile may or may not appear."""

    def changes(self, since: int) -> Changes:
        """What was logged after sequence number ``since`` (0: from the start)."""

    def size_bytes(self) -> int:
        """Bytes that the rows take, records and bookkeeping; free space inside the store counts too."""

    def live_bytes(self) -> int:
        """As `size_bytes`, without the free space."""

    def tidy(self, spare_bytes: int) -> None:
        """Give back what the store's own bookkeeping takes, where that is more than so many bytes."""

    def check(self, *, repair: bool = False) -> tuple[str, ...]:
        """Faults of the store's own structure, a sentence each; ``repair`` puts right or removes what is faulty."""

    def close(self) -> None:
        """Release files and connections; calling it again is safe."""
