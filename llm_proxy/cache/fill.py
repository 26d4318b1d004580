"""How many bytes hold how much: what entries are worth, in classes a factor of ten apart."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

__all__ = ["EDGES_USD", "by_worth"]

EDGES_USD = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_MOST_LOOKED_AT = 50_000


def by_worth(sizes: array[int], costs: array[float]) -> list[tuple[float, int, int]]:
    """Entries by what asking again is expected to cost.

    Of more than 50,000 slots every second, third, ... is looked at, and counted for those between.

    Args:
        sizes: Bytes by slot; 0 where there is no entry.
        costs: Dollars by slot.

    Returns:
        For each class its upper edge in dollars (0: worth nothing, inf: the last one), entries, and bytes.
    """
    step = -(-len(sizes) // _MOST_LOOKED_AT) or 1
    entries, held = [0] * (len(EDGES_USD) + 1), [0] * (len(EDGES_USD) + 1)
    for size_bytes, cost_usd in zip(sizes[::step], costs[::step], strict=True):
        if size_bytes:
            place = bisect_left(EDGES_USD, cost_usd)
            entries[place] += step
            held[place] += step * size_bytes
    return list(zip((*EDGES_USD, float("inf")), entries, held, strict=True))
