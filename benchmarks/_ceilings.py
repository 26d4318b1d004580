"""What keeps a cache from the best in hindsight: policies that know more than any policy can, and a bound for all.

`Informed` lets in and gives up as `gdsf` does, by ``rate * cost / size``, where the rate is not counted but foretold:

- `of_each`: it is the popularity of the query, from which the requests were drawn. What this one lacks of hindsight is
  chance: that in these very requests, queries came more or less often than they had to.
- `of_all`: how many queries have which popularity is known, not which query has which; the rate is the mean over what
  a query may be that came so often in so many requests (Bayes). Where requests are drawn independently, as here, no
  policy that sees keys alone can foretell more. Nor would it help to choose otherwise: between two requests of a query
  its rate falls, while the price of space rises with all that becomes known of others, so what is least worth its
  space now is so until it is asked for. But for chance, and how sizes happen to fit, that makes it the best there is.
  What it lacks of `of_each` is what it takes to find out which queries are popular.
- What `gdsf` lacks of `of_all` is all that a better way to count, forget and admit could gain.

`any_policy` is a bound for whatever a cache does, if it knew all that comes.

Source: the bound is PFOO-L of Berger, Beckmann and Harchol-Balter, "Practical Bounds on Optimal Caching with Variable
Object Sizes", POMACS 2(2), 2018, with money for hits; the rest is Bayes' rule for Poisson arrivals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llm_proxy.cache.policies.ranking import Ranked

if TYPE_CHECKING:
    from llm_proxy.cache.policies.base import Policy, Worth

    from ._traces import Trace

__all__ = ["KNOWING", "Informed", "any_policy", "foretold", "of_all", "of_each"]

_GROWTH = 1.05  # of the number of requests, after which what is held is ranked anew

Rate = Callable[[int, int, int], float]
"""Requests of a query to come, per request: from its number, how often it was asked for, and all requests so far."""


class Informed(Ranked):
    """Gives up the key of least ``rate * cost / size`` and lets in what is above it; keys are numbers of queries.

    Args:
        rate: What is known of the future. It is asked anew for what is held as often as the requests have grown by
            a twentieth.
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self._rate = rate
        self._counts: Counter[str] = Counter()
        self._usd_per_byte: dict[str, float] = {}
        self._requests, self._ranks_anew_at = 0, 1

    def admits(self, key: str, worth: Worth, victim: str | None = None) -> bool:
        """Whether a key is worth more per byte than a victim; if not, the request is counted here."""
        other = self._ranking.least() if victim is None else self._ranking.slot(victim)
        self._usd_per_byte[key] = worth.cost_usd / worth.size_bytes
        if other is None or self._value(key, 1) > self._ranking.value(other):
            return True
        self._note(key, 1)
        return False

    def on_insert(self, key: str, worth: Worth) -> int:
        """Take in a key that is not held; returns its slot."""
        self._usd_per_byte[key] = worth.cost_usd / worth.size_bytes
        self._note(key, 1)
        return self._ranking.add(key, self._value(key))

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""
        slot = self._ranking.slot(key)
        if slot is not None:
            self._note(key, hits)
            self._ranking.move(slot, self._value(key))

    def _value(self, key: str, more: int = 0) -> float:
        """Worth of a byte of a key, after so many more requests of it."""
        return self._rate(int(key), self._counts[key] + more, self._requests + more) * self._usd_per_byte[key]

    def _note(self, key: str, requests: int) -> None:
        self._counts[key] += requests
        self._requests += requests
        if self._requests >= self._ranks_anew_at:
            self._ranks_anew_at = math.ceil(self._requests * _GROWTH)
            for held in self._ranking:
                slot = self._ranking.slot(held)
                if slot is not None:
                    self._ranking.move(slot, self._value(held))


def of_each(popularity: Sequence[float]) -> Policy:
    """The policy that knows the popularity of each query.

    Args:
        popularity: Weights of the queries, by number, >= 0; they need not add up to 1.
    """
    return Informed(lambda query, _count, _requests: popularity[query])


def of_all(popularity: Sequence[float]) -> Policy:
    """The policy that knows all popularities, though not whose they are; see `foretold`."""
    return Informed(foretold(popularity))


def foretold(popularity: Sequence[float]) -> Rate:
    """What is to be expected of a query of which only its requests are known.

    ``sum p * p**count * exp(-requests * p) / sum p**count * exp(-requests * p)`` over the shares p of all queries. The
    number of requests is rounded to a power of 1.05.

    Args:
        popularity: Weights of the queries, in any order, >= 0, not all 0; they need not add up to 1.
    """
    import numpy as np

    shares, queries = np.unique([weight for weight in popularity if weight > 0], return_counts=True)
    shares = shares / (shares @ queries)
    log_shares, log_queries = np.log(shares), np.log(queries)
    known: dict[tuple[int, int], float] = {}

    def rate(_query: int, count: int, requests: int) -> float:
        epoch = round(math.log(requests) / math.log(_GROWTH))
        if (count, epoch) not in known:
            log_odds = log_queries + count * log_shares - _GROWTH**epoch * shares
            odds = np.exp(log_odds - log_odds.max())
            known[count, epoch] = float(odds @ shares / odds.sum())
        return known[count, epoch]

    return rate


def any_policy(found: Trace, capacity: int) -> float:
    """Share of the cost that no policy can exceed with so many bytes, not even one that knows all requests to come.

    A hit needs the bytes of its answer from the request before on. All that lies between two requests may take as many
    bytes, added up over time, as the cache has; that it may take no more at any one time is left out. What saves the
    most for its bytes and time is taken first, and part of the last one.
    """
    last: dict[int, int] = {}
    waits = []
    for now, query in enumerate(found.requests):
        if query in last and found.sizes[query] <= capacity:
            waits.append((found.sizes[query] * (now - last[query]), found.costs_usd[query]))
        last[query] = now
    left, saved = float(capacity) * len(found.requests), 0.0
    for taken, cost_usd in sorted(waits, key=lambda wait: -wait[1] / wait[0]):
        saved += cost_usd * min(1.0, left / taken)
        left -= taken
        if left <= 0:
            break
    return saved / found.cost_usd


KNOWING: dict[str, Callable[[Sequence[float]], Policy]] = {
    "knows all popularities, not whose": of_all,
    "knows the popularity of each": of_each,
}
"""Policies that are told the popularities, from the one that knows less on."""
