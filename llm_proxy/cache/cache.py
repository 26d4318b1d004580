"""Exact and semantic lookup, admission and eviction: keeps the store and what this process knows of it in step.

A lookup by key goes straight to the store, so what another process wrote or removed counts at once. A lookup by
meaning asks the index in memory, which follows the store's log, and then verifies what it found in the store.

Two kinds of locks. `Upkeep.writing` belongs to whoever writes or follows, one thread at a time, store and memory
together; lookups never wait for it. The rest is short locks around memory, never held while a store works.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError

from .bound import ErrorLimits, RouteBounds
from .entry import Entry, decode_entry, encode_entry, readable
from .evidence import Observation, decode_evidence, encode_evidence, is_taken_back, readable_evidence, with_observation
from .fill import by_worth
from .guard import Guard
from .matching import Matcher, Question
from .near import NOWHERE, Reach
from .pins import Bounds, Chosen
from .results import Lookup, Stats
from .turns import NO_TURNS, Turns
from .upkeep import Upkeep
from .view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.types import Clock

    from .base import State
    from .evidence import Source
    from .index.base import VectorIndex
    from .policies.base import Policy
    from .results import CheckReport, Merged
    from .stores.base import Store
    from .weighed import Weighed

__all__ = ["Cache"]

NEIGHBOURS = 8
_ROUNDING = 1e-6
_REMEMBERED_BYTES = 32_768
_TEND_S = 2.0  # for the index, at each `maintain`
_PATIENCE_S = 0.05  # for who stores an answer: the caller waits meanwhile


class Cache:
    """Answers by key and by meaning, within a budget. Every verb may raise `CacheError`; none raises anything else.

    Args:
        store: The durable truth; closed with the cache.
        policy: Which entries go when the budget is spent.
        budget_bytes: Most bytes that entries may take, > 0; see `llm_proxy.cache.view.stored_bytes`.
        max_entries: Most entries, > 0.
        max_entry_bytes: A longer record is not stored, > 0.
        clock: Clocks for expiry (Unix time) and for what is done now and then.
        new_index: Makes an index of so many dimensions; None: exact lookups only.
        snapshot_path: Where the view is saved for the next process; None: nowhere.
        threshold: Least cosine similarity of a semantic hit, in [0, 1].
        limits: How many semantic hits may be wrong.
        guard: Says how likely one answer serves two questions; None: by rules alone.
        problems: What is known to be amiss before it begins.
        reach: How far near misses are looked for.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: Policy,
        budget_bytes: int,
        max_entries: int,
        max_entry_bytes: int,
        clock: Clock,
        new_index: Callable[[int], VectorIndex] | None = None,
        snapshot_path: Path | None = None,
        threshold: float = 0.65,
        limits: ErrorLimits = ErrorLimits(),  # noqa: B008 - frozen
        guard: Guard | None = None,
        problems: Collection[str] = (),
        reach: Reach = NOWHERE,
    ) -> None:
        self._store, self._clock = store, clock
        self._bounds = Bounds(budget_bytes, max_entries, max_entry_bytes)
        self._snapshot_path, self._threshold = snapshot_path, threshold
        self._view = View(policy, new_index, problems)
        self._upkeep = Upkeep(
            store,
            self._view,
            clock=clock,
            budget_bytes=budget_bytes,
            max_entries=max_entries,
            snapshot_path=snapshot_path,
        )
        self._chosen = Chosen(self._view, self._upkeep, get=self.get, clock=clock, bounds=self._bounds)
        self._guard = guard or Guard()
        chance = random.Random().random  # not the program's own sequence, which it may have seeded
        self._route_bounds = RouteBounds(store, limits, chance=chance)
        self._matcher = Matcher(
            threshold,
            self._route_bounds,
            guard=self._guard,
            get=self.get,
            evidence=store.evidence,
            clock=clock,
            reach=reach,
        )
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether `get` answers at once; else it opens files first, as `open_store` does, and may wait for them."""
        return self._store.is_open

    @property
    def state(self) -> State:
        """Whether the store is open, can't be opened, or waits for its first use."""
        return "ok" if self._store.is_open else "failing" if self._store.failure else "opening"

    def open_store(self) -> None:
        """Open the store, which may take a few seconds; `open` does more."""
        self._store.open()

    # -- looking up ----------------------------------------------------------------------------------------------

    def get(self, key: str) -> Entry | None:
        """The entry under an exact key, unless expired; a damaged one counts as absent, and both are removed later."""
        try:
            record = self._store.get(key)
            entry = None if record is None else _decoded(record)
        except CacheCorruptError:
            self._upkeep.doom(key, "corrupt")
            return None
        if entry is None:
            return None
        reason = "corrupt" if entry.key != key else "expired" if entry.is_expired(self._clock.time()) else ""
        if reason:
            self._upkeep.doom(key, reason)
            return None
        return entry

    def nearest(
        self,
        scope: str,
        text: str,
        vector: NDArray[np.float32],
        *,
        encoder: str,
        max_age_s: float | None = None,
        turns: Turns = NO_TURNS,
        route: str = "",
        may_explore: bool = True,
    ) -> Lookup:
        """The nearest entry of a scope that may be served for a question.

        Args:
            scope: The question's scope.
            text: The question.
            vector: Its vector, shape ``(dim,)``, float32, unit norm.
            encoder: Name of the encoder that made it.
            max_age_s: Oldest entry that is acceptable, seconds; None for any age.
            turns: Earlier turns that the scope leaves open.
            route: Name of the route that was asked; empty where a model was named.
            may_explore: Whether it may be asked upstream, by chance, although an answer could be served.
        """
        if not self._view.is_semantic or not text:
            return Lookup()
        if self._upkeep.writing.acquire(blocking=False):  # a thread that holds the lock follows the store by itself
            try:
                self._upkeep.adopt(encoder, len(vector))
                self._upkeep.follow()
            finally:
                self._upkeep.writing.release()
        index = self._view.index
        if index is None or self._view.encoder != encoder or index.dim != len(vector):
            return Lookup()
        question = Question(scope, text, vector, encoder, max_age_s, turns, route, may_explore)
        return self._matcher.match(question, index.search(scope, vector, NEIGHBOURS), index.similarity_error)

    # -- writing -------------------------------------------------------------------------------------------------

    def admit(self, entry: Entry) -> bool:
        """Store an entry and give up others for it; whether it is there afterwards.

        It is not when it is larger than an entry or the whole budget may be, or worth less than one of those that
        would have to go for it (with GDSF: per byte). Then nothing is written.
        Where others write or load for long, it is only stored: searches find it, and it is weighed, a moment later.
        """
        record_bytes = len(encode_entry(entry))
        if not self._bounds.fits(entry, record_bytes):
            return False
        if not self._upkeep.writing.acquire(timeout=_PATIENCE_S):
            self._upkeep.put(entry)
            return True
        try:
            self._upkeep.follow()
            is_kept = self._upkeep.is_worth_it(entry, record_bytes) and self._upkeep.write(entry)
            self._upkeep.tend()
        finally:
            self._upkeep.writing.release()
        return is_kept

    def attach(self, key: str, *, scope: str, vector: NDArray[np.float32], encoder: str, seen_chars: int) -> bool:
        """Give a stored entry the vector that was not ready in time; whether the entry is still there.

        Args:
            key: Its key.
            scope: Its scope, as the encoder's window narrows it.
            vector: Shape ``(dim,)``, float32, unit norm.
            encoder: Name of the encoder that made it.
            seen_chars: Leading characters of the text that the vector stands for.
        """
        with self._upkeep.writing, self._upkeep.together():
            entry = self.get(key)
            if entry is None:
                return False
            entry = replace(entry, scope=scope, vector=vector, encoder=encoder, seen_chars=seen_chars)
            return self._bounds.fits(entry, len(encode_entry(entry))) and self._upkeep.write(entry)

    def merge(self, entries: Iterable[tuple[Entry, int]]) -> list[Merged]:
        """Store entries of elsewhere with their hits, acknowledged together; what became of each.

        Of two under one key the newer stays. A pin is kept where the budget has room for all that are pinned. What is
        due after that is done as with `tend`.
        """
        return self._chosen.merge(entries)

    def pin(self, keys: Iterable[str], *, is_pinned: bool = True, budget_bytes: int | None = None) -> int:
        """Have entries kept whatever the budget, or no longer: all of them or none. Returns how many were not yet so.

        Raises:
            CacheError: An entry is not there, or all that is pinned would take more than the budget, which is the
                cache's own unless it is given.
        """
        return self._chosen.pin(keys, is_pinned=is_pinned, budget_bytes=budget_bytes)

    def hit(self, key: str, hits: int = 1) -> bool:
        """Count hits of an entry, in memory only; they reach the store together, with `tend` or the next write.

        Returns:
            Whether it is time for `tend`; said to one caller a second.
        """
        return self._upkeep.hit(key, hits)

    def note_served(self, weighed: Weighed) -> None:
        """Take a semantic hit into the account of its route; in memory, and with `tend` in the store."""
        self._route_bounds.note_hit(weighed)

    def learn(self, weighed: Weighed, source: Source, *, is_same: bool) -> bool:
        """Take in a comparison with what a question itself was answered; whether the entry is still there.

        Args:
            weighed: What was decided on the entry.
            source: Who compared.
            is_same: Whether the answers said the same. Undone again, or its entry gone, a hit teaches nothing.
        """
        seen = Observation(self._clock.time(), weighed.similarity, weighed.p_same, is_same, source)
        if source == "undo":
            with self._store.writing():
                if is_taken_back(weighed.similarity, readable_evidence(self._store.evidence(weighed.key))):
                    return True
                if not self.observe(weighed.key, seen):
                    return False
        self._route_bounds.learn(weighed, source, is_same=is_same)
        self._route_bounds.keep()
        return source == "undo" or self.observe(weighed.key, seen)

    def observe(self, key: str, observation: Observation) -> bool:
        """Add to the evidence of an entry, for all who share the store, at once; whether the entry is still there."""
        with self._store.writing():
            before = readable_evidence(self._store.evidence(key))
            return self._store.put_evidence(key, encode_evidence(with_observation(before, observation)))

    def evidence(self, key: str) -> tuple[Observation, ...]:
        """The evidence of an entry, oldest first; none where it has none or is not there.

        Raises:
            CacheCorruptError: It can't be read.
        """
        return decode_evidence(self._store.evidence(key))

    def tend(self) -> None:
        """Write hits, remove what must go and save the snapshot, so far as that is due; may wait for a disk."""
        with self._upkeep.writing:
            self._upkeep.tend()
        self._route_bounds.keep()

    # -- looking at it -------------------------------------------------------------------------------------------

    def lacking(self, encoder: str) -> Iterator[Entry]:
        """Entries whose text has no vector of this encoder, for `attach`.

        Not those whose text was longer than another encoder's window: their scope says so and can't be taken back.
        """
        for row in self._store.scan():
            entry = readable(row.record)
            if entry is None or not entry.text or (entry.encoder == encoder and entry.vector is not None):
                continue
            if entry.vector is None or entry.seen_chars >= len(entry.text):
                yield entry

    def stats(self) -> Stats:
        """The cache at this moment."""
        self.open()
        view, index, counts = self._view, self._view.index, self._upkeep.counts()
        return Stats(
            entries=len(view),
            vectors=view.vectors,
            scopes=index.scopes if index is not None else 0,
            used_bytes=view.used_bytes,
            budget_bytes=self._bounds.budget_bytes,
            max_entries=self._bounds.max_entries,
            store_bytes=self._store.size_bytes(),
            encoder=view.encoder,
            evicted=counts["evicted"],
            expired=counts["expired"],
            corrupt=counts["corrupt"] + self._store.refused,
            problems=(*view.problems, *([self._guard.failure] if self._guard.failure else [])),
        )

    def fill(self) -> list[tuple[float, int, int]]:
        """What the entries that may be given up are worth: see `llm_proxy.cache.fill.by_worth`."""
        return by_worth(*self._view.columns())

    def check(self, *, repair: bool = False) -> CheckReport:
        """Read everything and compare; with ``repair`` remove what is damaged and build the index anew.

        Reads every record, so it takes seconds for a large cache; lookups go on meanwhile, writes wait.
        """
        self.open()
        with self._upkeep.writing:
            report = self._checked(repair=repair)
            if report.is_clean or not repair:
                return report
            self._upkeep.begin_again()
            return replace(report, is_repaired=self._checked(repair=True).is_clean)

    def _checked(self, *, repair: bool = False) -> CheckReport:
        from .check import check  # which nobody asks for in most processes

        catch_up = partial(self._upkeep.catch_up, spare_damaged=not repair)
        return check(self._store, self._view, self._snapshot_path, catch_up=catch_up, repair=repair)

    # -- keeping in step -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bring memory up to the store: from the snapshot, else by reading it all. Other verbs need not wait for it.

        It is not required: lookups and writes do the same in small slices. Call it in the background to have it done.
        """
        self._view.prepare()
        if self._view.is_semantic:
            self._guard.load()
        self._upkeep.load()

    def maintain(self) -> None:
        """Do at once what waits: catch up with the store, write hits, remove what expired, save the snapshot.

        For what expired, a part of the entries is read each time: all of them in sixty times.
        """
        self.open()
        self._upkeep.examine()
        if self._view.index is not None:
            self._view.index.tend(_TEND_S)
        with self._upkeep.writing:
            self._upkeep.tend(now=True)

    def close(self) -> None:
        """Write what is pending, save the snapshot, and close the store; calling it again is safe."""
        with self._upkeep.writing:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._upkeep.finish()
                if self._route_bounds.has_news:
                    self._route_bounds.keep()
            finally:
                self._store.close()


def _decoded(record: bytes) -> Entry:
    return _remembered(record) if len(record) <= _REMEMBERED_BYTES else decode_entry(record)


@lru_cache(maxsize=256)
def _remembered(record: bytes) -> Entry:
    """Popular entries are read again and again; the same bytes are the same entry."""
    return decode_entry(record)
