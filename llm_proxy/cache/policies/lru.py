"""Least recently used: blind to cost and size, a baseline.

::

    clock = 0
    insert k:  clock += 1;  used[k] = clock
    hit k:     clock += 1;  used[k] = clock
    victim:    k of least used
    admit k:   always
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ranking import Ranked

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["LRU"]


class LRU(Ranked):
    """Gives up the key that was inserted or hit the longest ago; O(log n)."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = 0

    def on_insert(self, key: str, worth: Worth) -> int:
        """Take in a key, or give a known one a new worth, both of which count as a use; returns its slot."""
        self._clock += 1
        slot = self._ranking.slot(key)
        if slot is None:
            return self._ranking.add(key, self._clock)
        self._ranking.move(slot, self._clock)
        return slot

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count a use of a key; an unknown key is passed over."""
        slot = self._ranking.slot(key)
        if slot is not None:
            self._clock += 1
            self._ranking.move(slot, self._clock)
