"""Keys in order of a number: what all policies share. Compact, because there may be a million of them.

A key has a slot, and what is known of it lies in arrays at that slot. The heap holds one whole number for each key:
its value, its turn and its slot, from the highest bits to the lowest. A value that rises, as it does with every hit,
leaves the heap as it is: the record is too low then, and put right when it comes to the top. So a hit costs nothing
but the array's cell. A value that falls gets a second record; the first is dropped when it comes to the top.
"""

from __future__ import annotations

import heapq
import struct
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .base import Worth

__all__ = ["Ranked", "Ranking"]

_BITS = struct.Struct(">d")  # of positive floats, the bytes sort as the numbers do
_SLOT_BITS = 32
_SLOT = (1 << _SLOT_BITS) - 1
_VALUE_SHIFT = 72
_SPARE_RECORDS = 64


class Ranking:
    """A priority queue over keys; not thread-safe. Every verb is O(log n), amortised."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []
        self._free: list[int] = []
        self._values = array("d")
        self._turns = array("q")
        self._turn = 0
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def slot(self, key: str) -> int | None:
        """Where arrays beside this one keep what belongs to a key: its number as long as it is held, or None.

        Numbers of removed keys are given out again, so the largest is below the most keys that were held at once.
        """
        return self._slots.get(key)

    def value(self, slot: int) -> float:
        """The value of the key in a slot."""
        return self._values[slot]

    def add(self, key: str, value: float) -> int:
        """Take in a key that is not held; returns its slot.

        Args:
            key: The key.
            value: Its place in the order, >= 0 and finite.
        """
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            self._values.append(0.0)
            self._turns.append(0)
        self._slots[key] = slot
        self._values[slot], self._turns[slot] = value, self._next_turn()
        heapq.heappush(self._heap, self._record(slot))
        return slot

    def move(self, slot: int, value: float, *, is_last: bool = False) -> None:
        """Give the key in a slot another value.

        Args:
            slot: Its slot.
            value: Its place in the order, >= 0 and finite.
            is_last: Of equal values it goes last from now on; else those added first go first.
        """
        falls = value < self._values[slot]
        self._values[slot] = value
        if is_last:
            self._turns[slot] = self._next_turn()
        if falls:
            heapq.heappush(self._heap, self._record(slot))
            self._compact()

    def remove(self, key: str) -> int | None:
        """Forget a key; the slot that it had, or None when it is not held."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._keys[slot] = ""
            self._values[slot] = -1.0
            self._free.append(slot)
            if self._heap[0] & _SLOT == slot:
                heapq.heappop(self._heap)
            self._compact()
        return slot

    def least(self) -> int | None:
        """The slot of the least value, of equals the one added or moved the longest ago; None when there are none."""
        heap = self._heap
        while heap:
            record = heap[0]
            slot = record & _SLOT
            if self._values[slot] < 0.0:
                heapq.heappop(heap)
                continue
            current = self._record(slot)
            if record == current:
                return slot
            if record < current:
                heapq.heapreplace(heap, current)
            else:
                heapq.heappop(heap)
        return None

    def order(self) -> Generator[str]:
        """The keys, from the least value on, left in place; nothing may be done with others until it is closed."""
        taken: list[int] = []
        try:
            while (slot := self.least()) is not None:
                record = heapq.heappop(self._heap)
                if not taken or record != taken[-1]:  # else it is there twice, which need not go on
                    taken.append(record)
                    yield self._keys[slot]
        finally:
            for record in taken:
                heapq.heappush(self._heap, record)

    def key(self, slot: int) -> str:
        """The key in a slot."""
        return self._keys[slot]

    def scale(self, factor: float) -> None:
        """Multiply all values, which keeps their order but for what is rounded; O(n).

        Args:
            factor: In (0, 1].
        """
        self._values = array("d", (value * factor for value in self._values))
        self._rebuild()

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _record(self, slot: int) -> int:
        value = int.from_bytes(_BITS.pack(self._values[slot]), "big")
        return value << _VALUE_SHIFT | self._turns[slot] << _SLOT_BITS | slot

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._slots) + _SPARE_RECORDS:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [self._record(slot) for slot in self._slots.values()]
        heapq.heapify(self._heap)


class Ranked:
    """The verbs of `llm_proxy.cache.policies.base.Policy` that are the same for every order of keys."""

    def __init__(self) -> None:
        self._ranking = Ranking()

    def __len__(self) -> int:
        return len(self._ranking)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranking)

    def slot(self, key: str) -> int | None:
        """The number of a key as long as it is held, or None."""
        return self._ranking.slot(key)

    def admits(self, key: str, worth: Worth, victim: str | None = None) -> bool:
        """Every key is let in."""
        return True

    def on_remove(self, key: str) -> None:
        """Forget that a key is held; an unknown key is passed over."""
        self._ranking.remove(key)

    def order(self) -> Generator[str]:
        """The keys as `victim` would name them one after the other, left in place; close it before any other verb."""
        return self._ranking.order()

    def victim(self) -> str | None:
        """The key that comes first in the order, left in place; None when there are none."""
        slot = self._ranking.least()
        return None if slot is None else self._ranking.key(slot)
