"""Least expected cost: keep what is asked often and costs much to ask again; blind to size.

::

    request k: seen[k] += 1, whether k is held or not
    insert k:  priority[k] = seen[k] * cost[k]
    hit k:     priority[k] = seen[k] * cost[k]
    victim:    k of least priority, of equals the one inserted first
    admit k:   seen[k] * cost[k] > priority[victim]

Source: Zhu et al., "On Optimal Caching and Model Multiplexing for Large Model Inference", arXiv 2306.02003, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import COST_FLOOR_USD
from .weighed import Weighed

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["LEC"]


class LEC(Weighed):
    """Gives up the key of least ``frequency * cost``, and lets in only what is above it; O(log n).

    How often a key was asked for is remembered when it is given up or not let in, and never fades.
    """

    def _value_usd(self, worth: Worth) -> float:
        return max(worth.cost_usd, COST_FLOOR_USD)
