"""What comes or stays by somebody's will rather than by its worth alone: entries of files, and pins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError

from .entry import encode_entry
from .view import stored_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from llm_proxy.types import Clock

    from .entry import Entry
    from .results import Merged
    from .upkeep import Upkeep
    from .view import View

__all__ = ["Bounds", "Chosen"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a cache may take.

    Attributes:
        budget_bytes: Most bytes that entries may take, > 0.
        max_entries: Most entries, > 0.
        max_entry_bytes: A longer record is not stored, > 0.
    """

    budget_bytes: int
    max_entries: int
    max_entry_bytes: int

    def fits(self, entry: Entry, record_bytes: int) -> bool:
        """Whether an entry with a record of that length may be stored at all."""
        return record_bytes <= self.max_entry_bytes and stored_bytes(record_bytes, entry) <= self.budget_bytes


class Chosen:
    """Merges and pins. `Upkeep.writing` is taken by each verb.

    Args:
        view: What this process knows of the store.
        upkeep: Writes.
        get: Finds the entry under a key.
        clock: Clock for expiry, Unix time.
        bounds: What all entries together may take.
    """

    def __init__(
        self, view: View, upkeep: Upkeep, *, get: Callable[[str], Entry | None], clock: Clock, bounds: Bounds
    ) -> None:
        self._view, self._upkeep, self._get = view, upkeep, get
        self._clock, self._bounds = clock, bounds

    def merge(self, entries: Iterable[tuple[Entry, int]]) -> list[Merged]:
        """As `llm_proxy.cache.cache.Cache.merge`."""
        with self._upkeep.writing:
            self._upkeep.catch_up()
            with self._upkeep.together():
                became = [self._merged(entry, hits) for entry, hits in entries]
            self._upkeep.keep_within()  # before the next ones come
            self._upkeep.tend()
        return became

    def _merged(self, entry: Entry, hits: int) -> Merged:
        if entry.is_expired(self._clock.time()):
            return "expired"
        record_bytes = len(encode_entry(entry))
        if not self._bounds.fits(entry, record_bytes):
            return "too-large"
        before = self._get(entry.key)
        if before is not None and before.created_s >= entry.created_s:
            return "older"
        if entry.is_pinned and not self._can_pin([entry], self._bounds.budget_bytes):
            entry = replace(entry, is_pinned=False)
        if not (self._upkeep.is_worth_it(entry, record_bytes) and self._upkeep.write(entry)):
            return "refused"
        if before is None and hits > 0:
            self._upkeep.hit(entry.key, hits)
        return "stored"

    def pin(self, keys: Iterable[str], *, is_pinned: bool, budget_bytes: int | None) -> int:
        """As `llm_proxy.cache.cache.Cache.pin`."""
        budget_bytes = budget_bytes or self._bounds.budget_bytes
        with self._upkeep.writing:
            self._upkeep.catch_up()
            with self._upkeep.together():
                found = {key: self._get(key) for key in dict.fromkeys(keys)}
                for key, entry in found.items():
                    if entry is None:
                        raise CacheError(f"entry {key} is not there, or has expired or is damaged")
                others = [entry for entry in found.values() if entry is not None and entry.is_pinned != is_pinned]
                if is_pinned and not self._can_pin(others, budget_bytes):
                    raise CacheError(
                        f"what is pinned would take more than the budget of {budget_bytes} bytes: unpin some, or "
                        "raise cache.budget_bytes"
                    )
                for entry in others:
                    self._upkeep.write(replace(entry, is_pinned=is_pinned), keeps_pin=False)
                return len(others)

    def _can_pin(self, entries: Collection[Entry], budget_bytes: int) -> bool:
        keys = filter(self._view.is_pinned, self._view.keys())
        pinned = [known for key in keys if (known := self._view.known(key)) is not None]
        more = [stored_bytes(len(encode_entry(entry)), entry) for entry in entries]
        taken = sum(known.size_bytes for known in pinned) + sum(more)
        return taken <= budget_bytes and len(pinned) + len(more) <= self._bounds.max_entries
