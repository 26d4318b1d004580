"""How often keys were asked for that are not held: never let in, or given up.

A table of so many places for each key held, in groups of four. A key may lie in any place of one group. When all four
are taken, the one that was asked for the least goes: floods of keys that are asked for once push out each other only.
"""

from __future__ import annotations

import zlib
from array import array

__all__ = ["History"]

_GROUP = 4
_LEAST_PLACES = 1 << 14
_PLACES_PER_KEY = 2


class History:
    """Counts in 16 to 32 bytes for each key that is held; not thread-safe. O(1), but for `widen` and `scale`.

    A key is known by 32 bits of hash: where a million keys are remembered, about one new key in 4,300 is taken for one
    of them, and begins with its count.
    """

    def __init__(self) -> None:
        self._hashes = array("I", bytes(4 * _LEAST_PLACES))
        self._counts = array("f", bytes(4 * _LEAST_PLACES))
        self._is_empty = True

    def count(self, key: str) -> float:
        """What was last kept of a key, to seven digits; 0 when that is nothing, or forgotten."""
        if self._is_empty:
            return 0.0
        number, start = self._group(key)
        hashes = self._hashes[start : start + _GROUP]
        return self._counts[start + hashes.index(number)] if number in hashes else 0.0

    def keep(self, key: str, count: float) -> None:
        """Remember how often a key was asked for.

        Args:
            key: The key.
            count: How often, > 0 and below 2**120.
        """
        self._is_empty = False
        number, start = self._group(key)
        hashes = self._hashes[start : start + _GROUP]
        if number in hashes:
            place = start + hashes.index(number)
        else:
            counts = self._counts[start : start + _GROUP]
            place = start + counts.index(min(counts))
            self._hashes[place] = number
        self._counts[place] = count

    def widen(self, keys: int) -> None:
        """Make room beside so many keys that are held."""
        while _PLACES_PER_KEY * keys > len(self._hashes):  # one more bit of the hash tells the group: in one of its
            self._hashes *= 2  # two groups a key is found as before, from the other it is pushed out in time
            self._counts *= 2

    def scale(self, factor: float) -> None:
        """Multiply all counts; O(n)."""
        self._counts = array("f", (count * factor for count in self._counts))

    def _group(self, key: str) -> tuple[int, int]:
        number = zlib.crc32(key.encode())
        return number, number * _GROUP % len(self._hashes)
