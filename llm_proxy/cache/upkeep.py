"""Keeps store, view and snapshot in step: everything that the cache writes, and when."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError, CacheError

from . import snapshot
from .entry import encode_entry, readable
from .follow import Follower
from .view import VECTOR_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llm_proxy.types import Clock

    from .entry import Entry
    from .snapshot import Snapshot
    from .stores.base import Store
    from .view import View

__all__ = ["Upkeep"]

FOLLOW_EVERY_S = 0.05
FLUSH_EVERY_S = 1.0
SAVE_EVERY_S = 60.0
SAVE_EVERY_CHANGES = 5_000
_EXAMINED_KEYS = 5_000  # entries read for their expiry at once, in some hundred milliseconds,
_EXAMINED_PARTS = 60  # or this part of all where that is more
_SPARE_PART = 128  # the part of the budget that SQLite's write-ahead log may take,
_LEAST_SPARE_BYTES, _MOST_SPARE_BYTES = 1 << 17, 1 << 22  # within these bounds
_SLICE_BYTES, _SLICE_KEYS = 1 << 19, 64  # removed at once, in some milliseconds, beside what a newcomer takes,
_SLICE_PART, _BUDGET_PER_KEY = 64, 1 << 18  # or less where the budget is small, lest one slice fill SQLite's log
_GIVE_WAY_S = 0.001  # a break after each slice of loading, which takes some ten milliseconds
_SAVE_INLINE = 5_000  # vectors that a writer saves by itself, in some ten milliseconds; more is left to `maintain`


class Upkeep:
    """The writing side of a cache.

    Attributes:
        writing: Held by whoever calls `follow`, `adopt`, `write`, `tend` or `finish`; the rest needs no
            lock. Work that may wait (hits, damage) is noted under a short lock and written by the next who writes.
        room_bytes: What entries may take at present: the budget, less what they take beyond what they are thought to.

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
        self.room_bytes = budget_bytes
        self._slice_bytes = min(_SLICE_BYTES, budget_bytes // _SLICE_PART)
        self._slice_keys = min(_SLICE_KEYS, max(1, budget_bytes // _BUDGET_PER_KEY))
        self._spare_bytes = min(_MOST_SPARE_BYTES, max(_LEAST_SPARE_BYTES, budget_bytes // _SPARE_PART))
        self._follower = Follower(store, view, snapshot_path=snapshot_path, on_damage=self._doom_damaged)
        self.writing = threading.Lock()
        self._loading = 0
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._doomed: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        now_s = clock.monotonic()
        self._followed_s, self._flushed_s, self._saved_s = now_s - FOLLOW_EVERY_S, now_s - FLUSH_EVERY_S, now_s
        self._announced_s = now_s
        self._unexamined: list[str] = []
        self._saved_changes = 0
        self._changed: dict[str, int] = {}
        self._is_together = False

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
            with self.writing:
                self._make_room()
        finally:
            with self._lock:
                self._loading -= 1

    def put(self, entry: Entry) -> None:
        """Put an entry into the store alone; memory takes it from the log later, like those of other processes."""
        with self._store.writing():
            self._store.put(entry.key, encode_entry(self._pinned_as_before(entry)))
        with self._lock:
            self._doomed.pop(entry.key, None)

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
        return self._follower.step()

    def catch_up(self, *, spare_damaged: bool = False) -> None:
        """Bring view and store to agree: follow to the end, then remove what must go.

        With ``spare_damaged`` the damaged entries stay, until a lookup or a write meets them again.
        """
        while not self.follow(now=True):
            pass
        self._make_room()
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

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block in which no other process writes; what is written in it is acknowledged when it is left, or undone.

        Blocks may lie within each other. Where the store fails, the view looks again at what was changed in it.
        """
        if self._is_together:
            yield
            return
        self._is_together, self._changed = True, {}
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_is_together", False)
            on_failure = stack.enter_context(contextlib.ExitStack())
            on_failure.callback(self._follower.doubt, self._changed)
            with self._store.writing():
                yield
            on_failure.pop_all()
        for number in self._changed.values():
            self._follower.note_own(number)
        self._store.tidy(self._spare_bytes)

    def write(self, entry: Entry, *, keeps_pin: bool = True) -> bool:
        """Put an entry into store and view, and give up others for it; whether it is there afterwards.

        All of it is one transaction of the store, after its log was read to the end. So of two processes that write
        at once, the second knows what the first has given up, and does not give up others for the same bytes.
        """
        with self.together():
            is_current = not self._loading and self._is_current()
            entry = self._pinned_as_before(entry) if keeps_pin else entry
            record = encode_entry(entry)
            if is_current:
                self._evict(self._view.lacks(entry, len(record)))
            self._note(entry.key, self._store.put(entry.key, record))
        # Outside, because an index that outgrows its form takes its time, and all other processes would wait for it.
        self._view.insert(entry, len(record))
        if is_current:
            self._make_room()
        with self._lock:
            self._doomed.pop(entry.key, None)
        self._sweep()
        return entry.key in self._view

    def is_worth_it(self, entry: Entry, record_bytes: int) -> bool:
        """Whether there is room for an entry, or can be at the cost of such as are worth less."""
        return self._view.admits(entry, record_bytes, budget_bytes=self.room_bytes, max_entries=self._max_entries)

    def keep_within(self) -> None:
        """Compare what entries are thought to take with what they do take, and evict what is over the budget.

        Records may fill their pages badly. What is free of the budget may be used up, and what it lacks has to go. At
        least half of it is for entries, since there is bookkeeping that does not become less with them.
        """
        # The log may be twice as long, and pages lie free; in memory there is neither.
        spare_bytes = 3 * self._spare_bytes * (self._snapshot_path is not None)
        vector_bytes = max(snapshot.bytes_of(self._snapshot_path), self._vector_bytes())
        taken = self._store.live_bytes() + spare_bytes + vector_bytes
        room = self._view.used_bytes + self._budget_bytes - taken
        self.room_bytes = max(self._budget_bytes // 2, min(self._budget_bytes, room))
        self._make_room()

    def tend(self, *, now: bool = False) -> None:
        """Do what is due, or ``now`` all there is: remove what must go, write hits, save the snapshot."""
        if now or self._is_due(self._flushed_s, FLUSH_EVERY_S):
            self._flushed_s = self._clock.monotonic()
            self._sweep()
            self._flush(to_the_end=now)
            self.keep_within()
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

    def _is_current(self) -> bool:
        """Whether the view is that of the store, inside of `together`; a slice is done for it where that is enough.

        While it is not, steps that are still to be followed may remove entries by themselves, and nothing is evicted.
        """
        return not self._follower.is_busy and self._follower.step()

    def _vector_bytes(self) -> int:
        """What a snapshot of the vectors takes; see `llm_proxy.cache.view.stored_bytes`."""
        index = self._view.index
        return 0 if index is None else len(index) * (2 * index.dim + VECTOR_ROW_BYTES)

    def _make_room(self) -> None:
        """Evict what is over the budget though this process wrote nothing: another one may have another budget."""
        is_over = True
        while is_over and (self._view.used_bytes > self.room_bytes or len(self._view) > self._max_entries):
            with self.together():
                is_over = self._is_current() and bool(self._evict())

    def _evict(self, newcomer_bytes: int = 0) -> list[str]:
        """Give up what is over the budget, or a slice of it: a transaction that takes long keeps all others waiting."""
        victims = self._view.evict(
            budget_bytes=max(self.room_bytes - newcomer_bytes, self._view.used_bytes - self._slice_bytes),
            max_entries=max(self._max_entries - bool(newcomer_bytes), len(self._view) - self._slice_keys),
        )
        if victims:
            for victim in victims:
                self._note(victim, 0)
            self._store.remove(victims)
            with self._lock:
                self._counts["evicted"] += len(victims)
        return victims

    def _note(self, key: str, sequence: int) -> None:
        """Take note of a change inside of `together`, with the step's number where the view has its effect already."""
        self._changed[key] = sequence

    def _pinned_as_before(self, entry: Entry) -> Entry:
        """An answer that is asked anew keeps its pin; inside of `Store.writing`."""
        before = self._sound(entry.key)
        return replace(entry, is_pinned=True) if before is not None and before.is_pinned else entry

    def _sweep(self) -> None:
        """Remove what is doomed, in slices; a slice that can't be removed stays doomed."""
        while self._doomed:
            with self._lock:
                doomed = dict(islice(self._doomed.items(), self._slice_keys))
                self._doomed = {key: why for key, why in self._doomed.items() if key not in doomed}
            try:
                with self.together():  # else an entry that another process writes just now would go with the one before
                    gone = [key for key in doomed if self._sound(key) is None]
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
                keys = list(islice(self._pending, 2 * self._slice_keys))
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
        ahead = sequence - snapshot.sequence_of(path, name)
        if ahead < 0 or ahead > (0 if is_last else changed // 2):  # a step that is not yet made was never saved
            with self._view.still():
                self._save_to(path, self._view.image(name, sequence))  # else another process has saved one lately

    def _save_to(self, path: Path, image: Snapshot) -> None:
        if self._store.live_bytes() + 2 * self._vector_bytes() > self._budget_bytes:
            # There is no room for two. Should this process be killed now, the next one reads the store.
            with contextlib.suppress(OSError):
                path.unlink()
        try:
            snapshot.save(path, image)
        except CacheError as exc:  # without a snapshot the next process reads the store
            self._view.note(str(exc))
