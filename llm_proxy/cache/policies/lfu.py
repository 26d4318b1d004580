"""Least frequently used: blind to cost and size, a baseline.

::

    insert k:  freq[k] = hits[k] + 1
    hit k:     freq[k] += 1
    victim:    k of least freq, of equals the one used the longest ago
    give up k: freq[k] is forgotten
    admit k:   always
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ranking import Ranked

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["LFU"]


class LFU(Ranked):
    """Gives up the key that was asked for the fewest times since it was inserted; O(log n)."""

    def on_insert(self, key: str, worth: Worth) -> int:
        """Take in a key, while a known one keeps its place; returns its slot."""
        slot = self._ranking.slot(key)
        return self._ranking.add(key, worth.hits + 1) if slot is None else slot

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""
        slot = self._ranking.slot(key)
        if slot is not None:
            self._ranking.move(slot, self._ranking.value(slot) + hits, is_last=True)
