"""What one process knows of a store: worth, order of eviction and vectors of every entry, without its text."""

from __future__ import annotations

import logging
import math
import threading
from array import array
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.errors import CacheError, MissingDependencyError

from .index.keys import compact, packed
from .policies.base import Worth
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from .entry import Entry
    from .index.base import Block, VectorIndex
    from .policies.base import Policy

__all__ = ["Known", "View", "stored_bytes"]

logger = logging.getLogger("llm_proxy")

ROW_BYTES = 1_400
"""What an entry takes beside its record: keys in two trees, its share of the log, and page ends. Measured with
records of 0.8, 2.6 and 6 kB: 540, 1,380 and 1,010 bytes; the highest is taken, so that a budget is kept."""

VECTOR_ROW_BYTES = 128
"""A vector's place in a snapshot, beside its numbers."""

_MOST_PROBLEMS = 8
_MOST_HITS = 1 << 53


def stored_bytes(record_bytes: int, entry: Entry) -> int:
    """Bytes that an entry takes of the budget: its record, and its vector a second time, in the snapshot.

    Args:
        record_bytes: Length of its record.
        entry: The entry; its vector counts, which is float32 and takes half of that in the snapshot.
    """
    vector_bytes = 0 if entry.vector is None else entry.vector.nbytes
    return record_bytes + ROW_BYTES + (vector_bytes // 2 + VECTOR_ROW_BYTES if vector_bytes else 0)


class Known(NamedTuple):
    """What is known of one entry.

    Attributes:
        size_bytes: Bytes that it takes of the budget, > 0.
        cost_usd: What asking again is expected to cost, >= 0.
        hits: How often it was served, >= 0.
        is_pinned: Whether it is never given up for others.
        can_expire: Whether it may expire, for all that is known here.
    """

    size_bytes: int
    cost_usd: float
    hits: int
    is_pinned: bool = False
    can_expire: bool = True


class View:
    """Policy, sizes and index in step. One thread changes it at a time; hits may be counted beside that.

    What is known of an entry lies in columns, at the slot that the policy gives its key: with a million entries,
    an object for each would take more than all else together. Pinned entries are few, and no concern of the policy.

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
        self._sizes, self._costs, self._hits, self._lasting = array("q"), array("d"), array("q"), bytearray()
        self._pinned: dict[str, Known] = {}
        self.index: VectorIndex | None = None
        self.encoder = ""
        self.used_bytes = 0
        self.changes = 0
        self.problems = list(problems)

    def __len__(self) -> int:
        return len(self._policy) + len(self._pinned)

    def __contains__(self, key: str) -> bool:
        return self._policy.slot(key) is not None or key in self._pinned

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
            return [*self._policy, *self._pinned]

    def known(self, key: str) -> Known | None:
        """What is known of an entry; None when there is none."""
        with self._lock:
            return self._known(key)

    def is_pinned(self, key: str) -> bool:
        """Whether an entry is never given up for others; an unknown one is not."""
        return key in self._pinned

    def expiring(self) -> list[str]:
        """The keys of all entries that may expire for all that is known here: a snapshot does not say it."""
        with self._lock:
            pinned = [key for key, known in self._pinned.items() if known.can_expire]
            slots = ((key, self._policy.slot(key)) for key in self._policy)
            return pinned + [key for key, slot in slots if slot is not None and not self._lasting[slot]]

    def note_expiry(self, key: str, can_expire: bool) -> None:
        """Remember whether an entry may expire; an unknown key is passed over."""
        with self._lock:
            slot = self._policy.slot(key)
            if slot is not None:
                self._lasting[slot] = not can_expire
            elif key in self._pinned:
                self._pinned[key] = self._pinned[key]._replace(can_expire=can_expire)

    def admits(self, entry: Entry, record_bytes: int, *, budget_bytes: int, max_entries: int) -> bool:
        """Whether an entry is worth storing: there is room, or it is worth more than each that would have to go for it.

        Worth is what the policy compares: with GDSF it is that of a byte.

        Asked once, before it is stored; a refusal counts as a request of its key, which is worth more the next time.

        Args:
            entry: The entry. A pinned one and a new form of one that is held are always worth it.
            record_bytes: Length of its record.
            budget_bytes: Most bytes that entries may take.
            max_entries: Most entries.
        """
        size_bytes = stored_bytes(record_bytes, entry)
        with self._lock:
            if entry.is_pinned or entry.key in self:
                return True
            missing = self.used_bytes + size_bytes - budget_bytes
            if missing <= 0 and len(self) < max_entries:
                return True
            worth = Worth(size_bytes, _sound_cost(entry.worth_usd))
            first = self._policy.victim()
            if first is None:  # only pinned ones, or a policy that has lost keys, which must not stop the service
                return len(self._policy) > 0
            if not self._policy.admits(entry.key, worth, first):
                return False
            others = [] if self._size(first) >= missing else self._victims(missing)
            return others is not None and all(self._policy.admits(entry.key, worth, victim) for victim in others[1:])

    def _victims(self, missing: int) -> list[str] | None:
        """Those that would go for so many bytes; None when all that may go is not enough."""
        victims = []
        with closing(self._policy.order()) as order:
            for victim in order:
                victims.append(victim)
                missing -= self._size(victim)
                if missing <= 0:
                    return victims
        return None

    def _size(self, key: str) -> int:
        """Bytes of an entry that is not pinned."""
        return self._sizes[self._policy.slot(key) or 0]

    def insert(self, entry: Entry, record_bytes: int, hits: int = 0) -> None:
        """Take in an entry, or a new form of one; hits counted before are kept when they are more."""
        vector = entry.vector if entry.text and entry.encoder else None
        size_bytes = stored_bytes(record_bytes, entry)
        self.restore(entry.key, size_bytes, entry.worth_usd, hits, is_pinned=entry.is_pinned)
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

    def restore(self, key: str, size_bytes: int, cost_usd: float, hits: int, *, is_pinned: bool = False) -> None:
        """Take in what a snapshot says of an entry, or what is known of a new one, its vector excepted."""
        known = Known(max(1, size_bytes), _sound_cost(cost_usd), _sound_hits(hits), is_pinned)
        with self._lock:
            before = self._known(key)
            if before is None:
                self._take(key, known)
            else:
                self._renew(key, before, known)

    def _take(self, key: str, known: Known) -> None:
        self.used_bytes += known.size_bytes
        if known.is_pinned:
            self._pinned[key] = known
            return
        slot = self._policy.on_insert(key, Worth(*known[:3]))
        if slot == len(self._sizes):
            self._sizes.append(known.size_bytes)
            self._costs.append(known.cost_usd)
            self._hits.append(known.hits)
            self._lasting.append(not known.can_expire)
        else:
            self._sizes[slot], self._costs[slot], self._hits[slot] = known[:3]
            self._lasting[slot] = not known.can_expire

    def _renew(self, key: str, before: Known, known: Known) -> None:
        known = known._replace(hits=max(known.hits, before.hits), can_expire=before.can_expire)
        if known == before:
            return  # following the log reads an entry again, which is no use of it
        self.used_bytes -= before.size_bytes
        if known.is_pinned != before.is_pinned:
            self._leave(key)
        elif known.hits > before.hits:
            self._policy.on_hit(key, known.hits - before.hits)
        self._take(key, known)

    def discard(self, key: str) -> None:
        """Forget an entry, effective at once; an unknown key is passed over."""
        with self._lock:
            self._forget(key)
        if self.index is not None:
            self.index.remove(key)

    def hit(self, key: str, hits: int) -> None:
        """Count hits; an unknown key is passed over."""
        with self._lock:
            slot = self._policy.slot(key)
            if slot is not None:
                self._hits[slot] = _sound_hits(self._hits[slot] + hits)
                self._policy.on_hit(key, hits)
            elif key in self._pinned:
                known = self._pinned[key]
                self._pinned[key] = known._replace(hits=known.hits + hits)

    def columns(self) -> tuple[array[int], array[float]]:
        """Copies of size, bytes, and cost, dollars, by slot; a size of 0 is a free one. Pinned entries have none."""
        with self._lock:
            return self._sizes[:], self._costs[:]

    def lacks(self, entry: Entry, record_bytes: int) -> int:
        """Bytes that an entry takes beside those that are held; 0 for a new form of one of them."""
        return 0 if entry.key in self else stored_bytes(record_bytes, entry)

    def evict(self, *, budget_bytes: int, max_entries: int) -> list[str]:
        """Give up entries until the rest keeps within both bounds, or only pinned ones are left.

        Who makes room for a new entry does so before `insert`, or it would be weighed against those it was let in for.

        Returns:
            The keys that went, in their order.
        """
        victims = []
        with self._lock:
            while self.used_bytes > budget_bytes or len(self) > max_entries:
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
        """See to it that the index holds vectors of this encoder and length: an encoder's name alone may be wrong.

        Args:
            encoder: Name of the encoder; an index of other vectors is dropped, for a new and empty one.
            dim: Length of its vectors.
            only_if_none: Leave an index of other vectors as it is.

        Returns:
            The index, or None when there is none of such vectors.
        """
        if self.index is not None and (only_if_none or self.holds(encoder, dim)):
            return self.index if self.holds(encoder, dim) else None
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

    def holds(self, encoder: str, dim: int) -> bool:
        """Whether the index is one of such vectors."""
        return self.index is not None and self.encoder == encoder and self.index.dim == dim

    def still(self) -> AbstractContextManager[object]:
        """A block in which the index does not change, as `image` needs it until all is written."""
        return nullcontext() if self.index is None else self.index.still()

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
        """All of it for a snapshot. Its vectors are those of the index itself: write it inside of `still`."""
        index = self.index
        image = Snapshot(store, sequence, self.encoder, index.dim if index is not None else 0)
        image.blocks = blocks = list(index.blocks()) if index is not None else []
        with self._lock:
            image.keys = compact(map(packed, self._in_block_order(blocks)))
            for row in map(self._known, image.keys):
                if row is None:
                    raise CacheError("the index has a vector whose entry is not known: llm-proxy cache check --repair")
                image.sizes.append(row.size_bytes)
                image.costs.append(row.cost_usd)
                image.hits.append(row.hits)
                image.pinned.append(row.is_pinned)
        return image

    def _in_block_order(self, blocks: Iterable[Block]) -> Iterator[str]:
        yield from chain.from_iterable(block.keys for block in blocks)
        yield from (key for key in chain(self._policy, self._pinned) if self.index is None or key not in self.index)

    def _known(self, key: str) -> Known | None:
        slot = self._policy.slot(key)
        if slot is None:
            return self._pinned.get(key)
        return Known(self._sizes[slot], self._costs[slot], self._hits[slot], False, not self._lasting[slot])

    def _forget(self, key: str) -> None:
        known = self._known(key)
        if known is not None:
            self.used_bytes -= known.size_bytes
            self.changes += 1
            self._leave(key)

    def _leave(self, key: str) -> None:
        slot = self._policy.slot(key)
        if slot is not None:
            self._sizes[slot] = 0  # free, as `columns` tells it
        self._pinned.pop(key, None)
        self._policy.on_remove(key)

    def note(self, problem: str) -> None:
        """Log a sentence on what is amiss, once, and keep it for those who ask how the cache is."""
        if problem not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
            logger.warning("llm-proxy: the semantic index is in trouble: %s", problem)


def _sound_hits(hits: int) -> int:
    return min(max(0, hits), _MOST_HITS)


def _sound_cost(cost_usd: float) -> float:
    return cost_usd if math.isfinite(cost_usd) and cost_usd > 0 else 0.0
