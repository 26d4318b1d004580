"""Keeps store, view and snapshot in step: everything that the cache writes, and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError, CacheError

from . import snapshot
from .entry import decode_entry
from .follow import Follower

if TYPE_CHECKING:
    from pathlib import Path

    from llm_proxy.types import Clock

    from .entry import Entry
    from .stores.base import Store
    from .view import View

__all__ = ["Upkeep", "readable"]

FOLLOW_EVERY_S = 0.05
FLUSH_EVERY_S = 1.0
SAVE_EVERY_S = 60.0
SAVE_EVERY_CHANGES = 5_000
_EXAMINED_KEYS = 5_000  # entries read for their expiry at once, in some hundred milliseconds,
_EXAMINED_PARTS = 60  # or this part of all where that is more
_GIVE_WAY_S = 0.001  # a break after each slice of loading, which takes some ten milliseconds
_FLUSH_KEYS = 512  # keys whose hits are written at once, in some ten milliseconds
_SAVE_INLINE = 5_000  # vectors that a writer saves by itself, in some ten milliseconds; more is left to `maintain`


class Upkeep:
    """The writing side of a cache.

    Attributes:
        writing: Held by whoever calls `follow`, `adopt`, `write`, `tend` or `finish`; the rest needs no
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
        self._loading = 0
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._doomed: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        now_s = clock.monotonic()
        self._followed_s, self._flushed_s, self._saved_s = now_s - FOLLOW_EVERY_S, now_s, now_s
        self._announced_s = now_s
        self._unexamined: list[str] = []
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

    def load(self) -> None:
        """Bring memory up to the store, with `writing` given up after every slice."""
        with self._lock:
            self._loading += 1
        try:
            while not self._step():
                time.sleep(_GIVE_WAY_S)  # a thread that takes a lock again at once keeps those out who wait for it
        finally:
            with self._lock:
                self._loading -= 1

    def put(self, key: str, record: bytes) -> None:
        """Put an entry into the store alone; memory takes it from the log later, like those of other processes."""
        self._store.put(key, record)
        with self._lock:
            self._doomed.pop(key, None)

    def hit(self, key: str, hits: int) -> bool:
        """Count hits, to be written later; whether that is due and nobody was told so yet."""
        self._view.hit(key, hits)
        with self._lock:
            self._pending[key] += hits
            is_due = self._is_due(max(self._flushed_s, self._announced_s), FLUSH_EVERY_S)
            if is_due:
                self._announced_s = self._clock.monotonic()
        return is_due

    def examine(self) -> None:
        """Have a part of the entries read, and those removed that nobody asks for any more and that have expired."""
        if not self._unexamined:
            self._unexamined = self._view.expiring()
        count = max(_EXAMINED_KEYS, len(self._view) // _EXAMINED_PARTS)
        keys, self._unexamined = self._unexamined[:count], self._unexamined[count:]
        for key in keys:
            entry = self._sound(key)
            if entry is None:
                self.doom(key, "expired")
            else:
                self._view.note_expiry(key, entry.expires_s is not None)

    # -- with the lock -------------------------------------------------------------------------------------------

    def follow(self, *, now: bool = False) -> bool:
        """Do a slice of catching up with the store, if one is due; whether memory is up to date.

        While another thread is loading, only ``now``: who has a call to answer leaves the slices to that one.
        """
        if not now:
            if self._loading:
                return False
            if not self._follower.is_busy and not self._is_due(self._followed_s, FOLLOW_EVERY_S):
                return True
        self._followed_s = self._clock.monotonic()
        is_current = self._follower.step()
        if is_current:  # until then, steps that are still to be followed may remove entries by themselves
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

    def _step(self) -> bool:
        with self.writing:
            return self.follow(now=True)

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
            gone = {key: why for key, why in doomed.items() if why == "evicted" or self._sound(key) is None}
            if gone:
                self._store.remove(gone)
        except CacheError:
            with self._lock:
                self._doomed = {**doomed, **self._doomed}
            raise
        for key in gone:
            self._view.discard(key)

    def _sound(self, key: str) -> Entry | None:
        """The entry that the store has now, unless it is damaged or expired."""
        try:
            record = self._store.get(key)
        except CacheCorruptError:
            return None
        entry = readable(record) if record is not None else None
        is_sound = entry is not None and entry.key == key and not entry.is_expired(self._clock.time())
        return entry if is_sound else None

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
        if self._follower.is_busy and not is_last:
            return  # a snapshot needs all of the store, and a caller would wait until it is read
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
        self.catch_up()  # else the next process would read hits from the log that the snapshot has already
        self._saved_s, self._saved_changes = self._clock.monotonic(), self._view.changes
        name, sequence = self._follower.store_name, self._follower.sequence
        if snapshot.sequence_of(path, name) < sequence:  # else another process has saved a newer one
            try:
                snapshot.save(path, self._view.image(name, sequence))
            except CacheError as exc:  # without a snapshot the next process reads the store
                self._view.note(str(exc))


def readable(record: bytes) -> Entry | None:
    """The entry of a record, or None when it is damaged."""
    try:
        return decode_entry(record)
    except CacheCorruptError:
        return None
