"""Keeps a `View` up to date with its store: from the snapshot, then from the log, and by reading everything if need be.

A step of the log says only that a key was changed; what is true of it now is read from the store. So it does not
matter in which order the steps of several processes are seen, and seeing one twice does no harm.

The work is done in slices, because the first lookup after a start may come before it is finished.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError

from . import snapshot
from .entry import decode_entry
from .view import ROW_BYTES, VECTOR_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from .snapshot import Snapshot
    from .stores.base import Change, Store
    from .view import View

__all__ = ["Follower"]

_SLICE = 256  # entries read, or
_RESTORED = 4096  # entries restored, between two yields: some milliseconds


class Follower:
    """One thread steps it at a time.

    Args:
        store: The store to follow.
        view: What to keep up to date with it.
        snapshot_path: File of an earlier process's view, or None.
        on_damage: Called with each key whose record cannot be read; the key is out of the view by then.
    """

    def __init__(
        self, store: Store, view: View, *, snapshot_path: Path | None, on_damage: Callable[[str], None]
    ) -> None:
        self._store, self._view = store, view
        self._snapshot_path = snapshot_path
        self._on_damage = on_damage
        self._own: set[int] = set()
        self._doubtful: set[str] = set()
        self._work: Iterator[None] | None = None
        self.sequence = 0
        self.store_name = ""

    @property
    def is_busy(self) -> bool:
        """Whether a catching-up is under way that needs more steps."""
        return self._work is not None

    def note_own(self, sequence: int) -> None:
        """Remember a step of this process, whose effect the view has already."""
        self._own.add(sequence)

    def doubt(self, keys: Collection[str]) -> None:
        """Have keys looked up with the next step: a write of theirs failed, and the view may be ahead of the store."""
        self._doubtful.update(keys)

    def read_again(self) -> None:
        """Read the whole store with the next steps: the view's index begins anew."""
        self.store_name = ""
        self._work = None

    def step(self) -> bool:
        """Do a slice of the work; whether the view is up to date now.

        Raises:
            CacheError: The store cannot be read; the next step begins again.
        """
        if self._work is None:
            self._work = self._catch_up()
        work, self._work = self._work, None
        for _ in work:
            self._work = work
            return False
        return True

    def _catch_up(self) -> Iterator[None]:
        while self._doubtful:
            key = next(iter(self._doubtful))
            self._look(key)
            self._doubtful.discard(key)
        found = self._load()
        changes = self._store.changes(found.sequence if found else self.sequence)
        self._snapshot_path = None
        if changes.store != self.store_name:
            self._own.clear()  # numbers of another store's steps
        if found is not None and changes.complete and changes.store == found.store and self._is_of_use(found):
            yield from self._restore(found)
            self.store_name = found.store
        if changes.complete and changes.store == self.store_name:
            yield from self._replay(changes.steps)
        else:
            yield from self._read_all()
        self.sequence, self.store_name = changes.sequence, changes.store
        self._own = {number for number in self._own if number > changes.sequence}

    def _load(self) -> Snapshot | None:
        path = self._snapshot_path
        if path is None:
            return None
        snapshot.remove_abandoned(path)
        try:
            return None if snapshot.is_of_other_version(path) else snapshot.load(path)
        except FileNotFoundError:
            return None
        except (CacheCorruptError, OSError) as exc:
            self._view.note(str(exc))
            return None

    def _is_of_use(self, found: Snapshot) -> bool:
        """Not when lookups have begun with another encoder, whose vectors are in the store only.

        Nor when its entries take more than the store can have: sizes are taken on trust, and would evict.
        """
        if self._view.encoder and found.encoder and not self._view.holds(found.encoder, found.dim):
            return False
        others = len(found.keys) * (ROW_BYTES + VECTOR_ROW_BYTES + 2 * found.dim)
        return sum(found.sizes) <= 2 * self._store.size_bytes() + others

    def _restore(self, found: Snapshot) -> Iterator[None]:
        # First, so that a lookup that comes meanwhile finds the index of its encoder, and need not have all read again.
        index = self._view.adopt(found.encoder, found.dim, only_if_none=True) if found.encoder else None
        rows = zip(found.keys, found.sizes, found.costs, found.hits, found.pinned, strict=True)
        for number, (key, size_bytes, cost_usd, hits, is_pinned) in enumerate(rows, 1):
            if key not in self._view:  # an entry that was written since is newer than the snapshot
                self._view.restore(key, size_bytes, cost_usd, hits, is_pinned=bool(is_pinned))
            if number % _RESTORED == 0:
                yield
        if index is None:
            return
        for number, block in enumerate(found.blocks, 1):
            index.add_block(block)
            if block.layout is not None or number % _SLICE == 0:  # a part of a large scope, or many small ones
                yield

    def _replay(self, steps: Sequence[Change]) -> Iterator[None]:
        for start in range(0, len(steps), _SLICE):
            if start:
                yield
            others = [step for step in steps[start : start + _SLICE] if step.sequence not in self._own]
            hits: Counter[str] = Counter()
            for key in dict.fromkeys(step.key for step in others if step.operation != "touch"):
                self._look(key)
            for step in others:
                hits[step.key] += step.hits
            for key, count in hits.items():
                self._view.hit(key, count)

    def _read_all(self) -> Iterator[None]:
        seen = set()
        for number, row in enumerate(self._store.scan(), 1):
            seen.add(row.key)
            self._take(row.key, row.record, row.hits)
            if number % _SLICE == 0:
                yield
        known = self._view.keys()
        for number, key in enumerate([key for key in known if key not in seen], 1):
            self._look(key)  # the entry was removed, or was written after the scan had passed its place
            if number % _SLICE == 0:
                yield

    def _look(self, key: str) -> None:
        try:
            record = self._store.get(key)
        except CacheCorruptError:
            self._drop(key)
            return
        if record is None:
            self._view.discard(key)
        else:
            self._take(key, record, 0)

    def _take(self, key: str, record: bytes, hits: int) -> None:
        try:
            entry = decode_entry(record)
        except CacheCorruptError:
            self._drop(key)
            return
        if entry.key == key:
            self._view.insert(entry, len(record), hits)
        else:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._view.discard(key)
        self._on_damage(key)
