"""Greedy-dual size with frequency: keep what is expensive to ask again, often asked, and small.

::

    L = 0
    insert k:  freq[k] = hits[k] + 1;  priority[k] = L + freq[k] * cost[k] / size[k]
    hit k:     freq[k] += 1;           priority[k] = L + freq[k] * cost[k] / size[k]
    victim:    k of least priority, of equals the one inserted first
    give up k: L = priority[k], when k was the victim

``L`` ages the rest: what is not hit again keeps a priority of the past, while newcomers start from the present.

Source: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998;
in money for language models: Zhu et al., arXiv 2306.02003, section 3.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["COST_FLOOR_USD", "GDSF"]

COST_FLOOR_USD = 1e-9
"""Cost of an entry that costs nothing (a local model's): far below any price, so that frequency per byte orders
such entries among themselves, after all that cost money."""

_SPARE_RECORDS = 64


@dataclass(slots=True)
class _Held:
    order: int
    frequency: int
    usd_per_byte: float
    priority: float


class GDSF:
    """Gives up the key of least ``L + frequency * cost / size``; O(log n).

    The heap is not searched when a priority changes: a second record is pushed and the old one is passed over when it
    comes to the top. Records in the heap never exceed twice the keys by more than a constant.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._inserted = 0
        self._age = 0.0
        self._announced: tuple[str, float] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def on_insert(self, key: str, worth: Worth) -> None:
        """Take in a key, or give a known one a new worth (its frequency is kept)."""
        usd_per_byte = max(worth.cost_usd, COST_FLOOR_USD) / worth.size_bytes
        held = self._held.get(key)
        if held is None:
            self._inserted += 1
            held = self._held[key] = _Held(self._inserted, worth.hits + 1, usd_per_byte, 0.0)
        else:
            held.frequency = max(held.frequency, worth.hits + 1)
            held.usd_per_byte = usd_per_byte
        self._rank(key, held)

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""
        held = self._held.get(key)
        if held is not None:
            held.frequency += hits
            self._rank(key, held)

    def on_remove(self, key: str) -> None:
        """Forget a key; an unknown key is passed over. When it was the victim, the rest ages by it."""
        if self._held.pop(key, None) is not None and self._announced is not None and self._announced[0] == key:
            self._age = self._announced[1]
            self._announced = None
        self._compact()

    def victim(self) -> str | None:
        """The key of least priority, left in place; None when there are none."""
        while self._heap:
            priority, order, key = self._heap[0]
            held = self._held.get(key)
            if held is not None and (held.priority, held.order) == (priority, order):
                self._announced = (key, priority)
                return key
            heapq.heappop(self._heap)
        return None

    def _rank(self, key: str, held: _Held) -> None:
        held.priority = self._age + held.frequency * held.usd_per_byte
        heapq.heappush(self._heap, (held.priority, held.order, key))
        self._compact()

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._held) + _SPARE_RECORDS:
            self._heap = [(held.priority, held.order, key) for key, held in self._held.items()]
            heapq.heapify(self._heap)
