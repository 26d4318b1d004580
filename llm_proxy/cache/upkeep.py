"""Keeps store, view and snapshot in step: everything that the cache writes, and when."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from llm_proxy.errors import CacheCorruptError, CacheError

from . import snapshot
from .entry import decode_entry
from .follow import Follower

if TYPE_CHECKING:
    from pathlib import Path

    from .entry import Entry
    from .stores.base import Store
    from .view import View

__all__ = ["Clock", "Upkeep", "readable"]

FOLLOW_EVERY_S = 0.05
FLUSH_EVERY_S = 1.0
SAVE_EVERY_S = 60.0
SAVE_EVERY_CHANGES = 5_000
_FLUSH_KEYS = 512  # keys whose hits are written at once, in some ten milliseconds
_SAVE_INLINE = 5_000  # vectors that a writer saves by itself, in some ten milliseconds; more is left to `maintain`


class Clock(Protocol):
    """The time, injected."""

    def time(self) -> float:
        """Unix time, seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""


class Upkeep:
    """The writing side of a cache.

    Attributes:
        writing: Held by whoever calls `follow`, `adopt`, `write`, `discard`, `tend` or `finish`; the rest needs no
            lock. Work that may wait (hits, damage) is noted under a short lock and written by the next who writes.

    Args:
        store: The durable truth.
        view: What this process knows of it.
        clock: Clocks for expiry (Unix time) and for what is done now and then.
        budget_bytes: Most bytes that entries may take, > 0.
        max_entries: Most entries, > 0.
        snapshot_path: Where the view is saved for the next process; None: nowhere.
    """

    def __init__(
        self,
        store: Store,
        view: View,
        *,
        clock: Clock,
        budget_bytes: int,
        max_entries: int,
        snapshot_path: Path | None,
    ) -> None:
        self._store, self._view, self._clock = store, view, clock
        self._budget_bytes, self._max_entries, self._snapshot_path = budget_bytes, max_entries, snapshot_path
        self._follower = Follower(store, view, snapshot_path=snapshot_path, on_damage=self._doom_damaged)
        self.writing = threading.Lock()
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._doomed: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        now_s = clock.monotonic()
        self._followed_s, self._flushed_s, self._saved_s = now_s - FOLLOW_EVERY_S, now_s, now_s
        self._saved_changes = 0

    # -- without the lock ----------------------------------------------------------------------------------------

    def counts(self) -> Counter[str]:
        """How many entries were found to be no good or were given up so far, by reason."""
        with self._lock:
            return Counter(self._counts)

    def doom(self, key: str, reason: str) -> None:
        """Have an entry removed with the next write, unless it is sound by then."""
        with self._lock:
            if key not in self._doomed:
                self._doomed[key] = reason
                self._counts[reason] += 1

    def hit(self, key: str, hits: int) -> bool:
        """Count hits, to be written later; whether that is due."""
        self._view.hit(key, hits)
        with self._lock:
            self._pending[key] += hits
        return self._is_due(self._flushed_s, FLUSH_EVERY_S)

    # -- with the lock -------------------------------------------------------------------------------------------

    def follow(self, *, now: bool = False) -> bool:
        """Do a slice of catching up with the store, if one is due; whether memory is up to date."""
        if not now and not self._follower.is_busy and not self._is_due(self._followed_s, FOLLOW_EVERY_S):
            return True
        self._followed_s = self._clock.monotonic()
        is_current = self._follower.step()
        if is_current:  # before that, another process's eviction may be among the steps to come
            self._evict()
        return is_current

    def catch_up(self, *, spare_damaged: bool = False) -> None:
        """Bring view and store to agree: follow to the end, then remove what must go.

        With ``spare_damaged`` the damaged entries stay, until a lookup or a write meets them again.
        """
        while not self.follow(now=True):
            pass
        if spare_damaged:
            with self._lock:
                self._doomed = {key: why for key, why in self._doomed.items() if why != "corrupt"}
        self._sweep()

    def begin_again(self) -> None:
        """Have the whole store read by the following slices, into an index that is empty."""
        self._view.renew_index()
        self._follower.read_again()

    def adopt(self, encoder: str, dim: int) -> None:
        """Turn to the vectors of another encoder, if it is another: those of the last one are of no more use."""
        had = self._view.index
        if self._view.adopt(encoder, dim) not in (None, had) and len(self._view):
            self._follower.read_again()
            self._followed_s -= FOLLOW_EVERY_S

    def write(self, entry: Entry, record: bytes) -> bool:
        """Put an entry into store and view, and give up others for it; whether it is there afterwards."""
        if entry.vector is not None and entry.encoder:
            self.adopt(entry.encoder, len(entry.vector))
        self._follower.note_own(self._store.put(entry.key, record))
        with self._lock:
            self._doomed.pop(entry.key, None)
        self._view.insert(entry, len(record))
        victims = self._evict()
        self._sweep()
        return entry.key not in victims

    def discard(self, keys: list[str]) -> int:
        """Remove entries from store and view; returns how many the store had."""
        removed = self._store.remove(keys)
        for key in keys:
            self._view.discard(key)
        return removed

    def tend(self, *, now: bool = False) -> None:
        """Do what is due, or ``now`` all there is: remove what must go, write hits, save the snapshot."""
        if now or self._is_due(self._flushed_s, FLUSH_EVERY_S):
            self._flushed_s = self._clock.monotonic()
            self._sweep()
            self._flush(to_the_end=now)
        if now or self._view.vectors <= _SAVE_INLINE:
            self._save()

    def finish(self) -> None:
        """Write all that is pending, before the store is closed; does not touch a store that was never used."""
        if self._pending or self._doomed or self._view.changes:
            self._sweep()
            self._flush(to_the_end=True)
            self._save(is_last=True)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _is_due(self, last_s: float, every_s: float) -> bool:
        return self._clock.monotonic() - last_s >= every_s

    def _doom_damaged(self, key: str) -> None:
        self.doom(key, "corrupt")

    def _evict(self) -> list[str]:
        victims = self._view.evict(budget_bytes=self._budget_bytes, max_entries=self._max_entries)
        with self._lock:
            self._doomed.update(dict.fromkeys(victims, "evicted"))
            self._counts["evicted"] += len(victims)
        return victims

    def _sweep(self) -> None:
        with self._lock:
            doomed, self._doomed = self._doomed, {}
        try:
            gone = {key: why for key, why in doomed.items() if why == "evicted" or not self._is_sound(key)}
            if gone:
                self._store.remove(gone)
        except CacheError:
            with self._lock:
                self._doomed = {**doomed, **self._doomed}
            raise
        for key in gone:
            self._view.discard(key)

    def _is_sound(self, key: str) -> bool:
        """Whether a doomed entry was replaced by a good one meanwhile."""
        try:
            record = self._store.get(key)
        except CacheCorruptError:
            return False
        entry = readable(record) if record is not None else None
        return entry is not None and entry.key == key and not entry.is_expired(self._clock.time())

    def _flush(self, *, to_the_end: bool = False) -> None:
        """Write hits, of so many keys that a caller hardly feels it, or all."""
        while self._pending:
            with self._lock:
                keys = list(islice(self._pending, _FLUSH_KEYS))
                hits = {key: self._pending.pop(key) for key in keys}
            try:
                self._follower.note_own(self._store.touch(hits))
            except CacheError:
                with self._lock:
                    self._pending.update(hits)
                raise
            if not to_the_end:
                return

    def _save(self, *, is_last: bool = False) -> None:
        """Save the snapshot when enough has changed to pay for it.

        A process without vectors saves none: the next one would take it that there are no vectors.
        """
        path, count = self._snapshot_path, len(self._view)
        changed = self._view.changes - self._saved_changes
        if path is None or not changed or not self._view.is_semantic:
            return
        if is_last:
            is_worth_it = count <= _SAVE_INLINE or changed >= count // 50
        else:
            is_old = self._is_due(self._saved_s, SAVE_EVERY_S) and changed >= count // 20
            is_worth_it = is_old or changed >= max(SAVE_EVERY_CHANGES, count // 4)
        if not is_worth_it:
            return
        self.catch_up()  # hits written here and not yet followed would count twice
        self._saved_s, self._saved_changes = self._clock.monotonic(), self._view.changes
        name, sequence = self._follower.store_name, self._follower.sequence
        if snapshot.sequence_of(path, name) < sequence:  # else another process was here
            try:
                snapshot.save(path, self._view.image(name, sequence))
            except CacheError as exc:  # the next process will read the store instead
                self._view.note(str(exc))


def readable(record: bytes) -> Entry | None:
    """The entry of a record, or None when it is damaged."""
    try:
        return decode_entry(record)
    except CacheCorruptError:
        return None
