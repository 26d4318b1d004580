"""Greedy-dual size with frequency: keep what is asked often, costs much to ask again, and is small.

::

    w = 1
    request k: seen[k] += w, whether k is held or not
               w *= 2 ** (1 / half-life);  w *= 32 when hits become rarer than seen[] foretells
    insert k:  priority[k] = seen[k] * cost[k] / size[k]
    hit k:     priority[k] = seen[k] * cost[k] / size[k]
    victim:    k of least priority, of equals the one inserted first
    admit k:   seen[k] * cost[k] / size[k] > priority[victim]

It differs from the source in three points, each of which saves more. A key keeps its frequency when it is given up. A
newcomer that is worth less per byte than the victim is not let in. And age is a matter of weight: a request counts the
more the later it comes, which orders keys as if all counts before it had shrunk. The source adds the last victim's
priority to every newer one, which forgets the faster the more newcomers there are, whatever they are.

The half-life is so long that chance does not drive out what is held; so when the popular questions change at once,
something else has to notice: see `llm_proxy.cache.policies.drift`. The chance of a hit is foretold to be the share
that the keys held have of all requests. After an alarm, one request counts as much as 32 before it.

Source: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998;
in money for language models: Zhu et al., arXiv 2306.02003, section 3; counts that grow instead of fading: Cormode,
Shkapenyuk, Srivastava and Xu, "Forward Decay", ICDE 2009, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import COST_FLOOR_USD
from .drift import Drift
from .weighed import Weighed

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["GDSF", "HALF_LIFE_REQUESTS", "LEAST_HALF_LIFE"]

HALF_LIFE_REQUESTS = 1_024
"""Requests for each key held after which a request counts half."""

LEAST_HALF_LIFE = 65_536
"""The same, at least, however few keys are held."""

_RENEWAL = 32.0
_WEIGHED_TOGETHER = 64
_LARGEST_WEIGHT = 2.0**60


class GDSF(Weighed):
    """Gives up the key of least ``frequency * cost / size``, and lets in only what is above it; O(log n), amortised.

    How often a key was asked for is remembered when it is given up or not let in, and fades.
    """

    def __init__(self) -> None:
        super().__init__()
        self._drift = Drift()
        self._all_seen = 0.0
        self._unweighed = 0

    def _value_usd(self, worth: Worth) -> float:
        return max(worth.cost_usd, COST_FLOOR_USD) / worth.size_bytes

    def _note(self, seen: float, hits: int, requests: int = 1) -> None:
        self._all_seen += seen
        self._unweighed += requests
        has_changed = self._drift.has_changed(self._held_seen / self._all_seen, hits=hits, requests=requests)
        if has_changed:
            self._weight *= _RENEWAL
        if has_changed or self._unweighed >= _WEIGHED_TOGETHER:
            half_life = max(LEAST_HALF_LIFE, HALF_LIFE_REQUESTS * len(self._ranking))
            self._weight *= 2.0 ** min(self._unweighed / half_life, 1.0)
            self._unweighed = 0
            if self._weight > _LARGEST_WEIGHT:
                self._all_seen /= self._weight
                self._scale(1.0 / self._weight)
