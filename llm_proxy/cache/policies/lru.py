"""Least recently used: blind to cost and size, the baseline.

::

    insert k:  move k to the end
    hit k:     move k to the end
    victim:    the front
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["LRU"]


class LRU:
    """Gives up the key that was inserted or hit the longest ago; O(1)."""

    def __init__(self) -> None:
        self._order: OrderedDict[str, int] = OrderedDict()
        self._uses = 0

    def __len__(self) -> int:
        return len(self._order)

    def on_insert(self, key: str, worth: Worth) -> None:
        """Take in a key, or give a known one a new worth; both count as a use."""
        self._use(key)

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count a use of a key; an unknown key is passed over."""
        if key in self._order:
            self._use(key)

    def on_remove(self, key: str) -> None:
        """Forget a key; an unknown key is passed over."""
        self._order.pop(key, None)

    def victim(self) -> str | None:
        """The key whose last use is the oldest, left in place; None when there are none."""
        return next(iter(self._order), None)

    def _use(self, key: str) -> None:
        self._uses += 1
        self._order[key] = self._uses
        self._order.move_to_end(key)
