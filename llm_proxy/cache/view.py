"""What one process knows of a store: worth, order of eviction and vectors of every entry, without its text."""

from __future__ import annotations

import logging
import math
import threading
from array import array
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError, MissingDependencyError

from .policies.base import Worth
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from .entry import Entry
    from .index import VectorIndex
    from .policies.base import Policy

__all__ = ["View", "stored_bytes"]

logger = logging.getLogger("llm_proxy")

ROW_BYTES = 1_400
"""What an entry takes beside its record: keys in two trees, its share of the log, and page ends. Measured with
records of 0.8, 2.6 and 6 kB: 540, 1,380 and 1,010 bytes; the highest is taken, so that a budget is kept."""

_VECTOR_ROW_BYTES = 128
_MOST_PROBLEMS = 8


def stored_bytes(record_bytes: int, entry: Entry) -> int:
    """Bytes that an entry takes of the budget: its record, and its vector a second time, in the snapshot.

    Args:
        record_bytes: Length of its record.
        entry: The entry; its vector counts, which is float32 and takes half of that in the snapshot.
    """
    vector_bytes = 0 if entry.vector is None else entry.vector.nbytes
    return record_bytes + ROW_BYTES + (vector_bytes // 2 + _VECTOR_ROW_BYTES if vector_bytes else 0)


@dataclass(slots=True)
class _Known:
    size_bytes: int
    cost_usd: float
    hits: int
    can_expire: bool = True


class View:
    """Policy, sizes and index in step. One thread changes it at a time; hits may be counted beside that.

    Args:
        policy: Order of eviction.
        new_index: Makes an index of so many dimensions, or None: exact lookups only.
        problems: What is known to be amiss before it begins.
    """

    def __init__(
        self, policy: Policy, new_index: Callable[[int], VectorIndex] | None, problems: Collection[str] = ()
    ) -> None:
        self._policy = policy
        self._new_index = new_index
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self.index: VectorIndex | None = None
        self.encoder = ""
        self.used_bytes = 0
        self.changes = 0
        self.problems = list(problems)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    @property
    def is_semantic(self) -> bool:
        """Whether vectors can be searched here at all."""
        return self._new_index is not None

    @property
    def vectors(self) -> int:
        """How many entries can be found by their vectors."""
        return len(self.index) if self.index is not None else 0

    def keys(self) -> list[str]:
        """All keys, as they are now."""
        with self._lock:
            return list(self._known)

    def expiring(self) -> list[str]:
        """The keys of all entries that may expire for all that is known here: a snapshot does not say it."""
        with self._lock:
            return [key for key, known in self._known.items() if known.can_expire]

    def note_expiry(self, key: str, can_expire: bool) -> None:
        """Remember whether an entry may expire; an unknown key is passed over."""
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                known.can_expire = can_expire

    def insert(self, entry: Entry, record_bytes: int, hits: int = 0) -> None:
        """Take in an entry, or a new form of one; hits counted before are kept when they are more."""
        vector = entry.vector if entry.text and entry.encoder else None
        self.restore(entry.key, stored_bytes(record_bytes, entry), entry.worth_usd, hits)
        self.note_expiry(entry.key, entry.expires_s is not None)
        self.changes += 1
        index = None if vector is None else self.adopt(entry.encoder, len(vector), only_if_none=True)
        if vector is None or index is None:
            if self.index is not None:
                self.index.remove(entry.key)
            return
        try:
            index.add(entry.key, entry.scope, vector)
        except CacheError as exc:
            index.remove(entry.key)
            self.note(f"an entry was left out of the index: {exc}")

    def restore(self, key: str, size_bytes: int, cost_usd: float, hits: int) -> None:
        """Take in what a snapshot says of an entry, or what is known of a new one, its vector excepted."""
        cost_usd = cost_usd if math.isfinite(cost_usd) and cost_usd > 0 else 0.0
        size_bytes = max(1, size_bytes)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Known(0, cost_usd, hits)
            elif (known.size_bytes, known.cost_usd) == (size_bytes, cost_usd) and hits <= known.hits:
                return  # following the log reads an entry again, which is no use of it
            self.used_bytes += size_bytes - known.size_bytes
            known.size_bytes, known.cost_usd, known.hits = size_bytes, cost_usd, max(known.hits, hits)
            self._policy.on_insert(key, Worth(size_bytes, cost_usd, known.hits))

    def discard(self, key: str) -> None:
        """Forget an entry, effective at once; an unknown key is passed over."""
        with self._lock:
            self._forget(key)
        if self.index is not None:
            self.index.remove(key)

    def hit(self, key: str, hits: int) -> None:
        """Count hits; an unknown key is passed over."""
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                known.hits += hits
                self._policy.on_hit(key, hits)

    def evict(self, *, budget_bytes: int, max_entries: int) -> list[str]:
        """Give up entries until the rest keeps within both bounds; returns them in the order they went."""
        victims = []
        with self._lock:
            while self.used_bytes > budget_bytes or len(self._known) > max_entries:
                victim = self._policy.victim()
                if victim is None:  # a policy that has lost keys must not stop the service
                    break
                self._forget(victim)
                victims.append(victim)
        if self.index is not None:
            for victim in victims:
                self.index.remove(victim)
        return victims

    def adopt(self, encoder: str, dim: int, *, only_if_none: bool = False) -> VectorIndex | None:
        """See to it that the index holds vectors of this encoder.

        Args:
            encoder: Name of the encoder; an index of another one is dropped, for a new and empty one.
            dim: Length of its vectors.
            only_if_none: Leave an index of another encoder as it is.

        Returns:
            The index, or None when there is none of this encoder.
        """
        if self.index is not None and (only_if_none or self.encoder == encoder):
            return self.index if self.encoder == encoder else None
        if self._new_index is None:
            return None
        try:
            self.index = self._new_index(dim)
        except MissingDependencyError as exc:
            self._new_index = None
            self.note(str(exc))
            return None
        self.encoder = encoder
        return self.index

    def renew_index(self) -> None:
        """Begin the index anew, for the same vectors."""
        if self.index is not None and self._new_index is not None:
            self.index = self._new_index(self.index.dim)

    def prepare(self) -> None:
        """Load the index's library now rather than at the first lookup."""
        try:
            if self._new_index is not None:
                self._new_index(1)
        except MissingDependencyError as exc:
            self._new_index = None
            self.note(str(exc))

    def image(self, store: str, sequence: int) -> Snapshot:
        """All of it for a snapshot. Its vectors are those of the index itself: write it before the next change."""
        index = self.index
        blocks = list(index.blocks()) if index is not None else []
        with self._lock:
            keys = list(self._in_block_order(chain.from_iterable(block.keys for block in blocks)))
            known = [self._known[key] for key in keys]
            return Snapshot(
                store,
                sequence,
                self.encoder,
                index.dim if index is not None else 0,
                keys,
                array("q", (row.size_bytes for row in known)),
                array("d", (row.cost_usd for row in known)),
                array("q", (row.hits for row in known)),
                blocks,
            )

    def _in_block_order(self, first: Iterator[str]) -> Iterator[str]:
        seen = set()
        for key in first:
            seen.add(key)
            yield key
        yield from (key for key in self._known if key not in seen)

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self.used_bytes -= known.size_bytes
            self.changes += 1
            self._policy.on_remove(key)

    def note(self, problem: str) -> None:
        """Log a sentence on what is amiss, once, and keep it for those who ask how the cache is."""
        if problem not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
            logger.warning("llm-proxy: the semantic index is in trouble: %s", problem)
