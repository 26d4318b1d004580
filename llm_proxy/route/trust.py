"""How far a selector's word can be trusted, measured by what became of it.

A selector says which way of asking is the cheapest for a query: small model first, large one at once. It may be wrong,
and following a poor one costs more than having none. Here its word is evidence, whose strength is learnt from nothing
but what was seen: what the ways that were taken have cost::

    e(q, w, a)  = (k * prior(w, a) + n * (mean(q, a) + shift(w, a))) / (k + n)        what way a is expected to cost
    d(q, w, a)  = sqrt(between(a) * k / (k + n))                                      the standard deviation of that
                  sqrt(between(a) * (1 + 1 / m)) where n = 0, without the 1 for a query that is new
    low         = max(e - 2 * d, least)

    n, mean(q, a)   how often way a was taken for query q, and its mean cost
    m, prior(w, a)  how many queries took way a, the selector saying w, when they came for the first time, and its mean
                    cost: the word's measured reliability, in money. While m = 0, that of all words; then of all ways
    shift(w, a)     by how much requests for which the selector says w differ from mean(q, a), times m' / (m' + 10)
    k               within / between(a): how soon a query's own outcomes overrule the word
    within          variance of the costs of one way for one query
    between(a)      variance among queries of what way a costs, ``prior ** 2`` at the beginning
    least           the least cost that was seen, a deviation of the noise on top of it, times m(a) / (m(a) + 1): for as
                    likely as 1 / (m(a) + 1), the next of m(a) queries that took way a costs less than any before

The way of least ``e`` is taken, and another one is tried where what it may save pays for what it may lose, as a query
that came t times (or a word, for a new query) is expected to come t times more::

    t * (min e - low) > e - min e

A good selector decides what is new; a query that comes again is decided by its own outcomes; and the word of a selector
that is right as often as a coin says nothing. A way that failed and was followed by another (a cascade) has cost the
sum. A word that was never followed is followed. ``low`` is also what a cached answer is worth.

Source: linear empirical Bayes, Robbins, "An empirical Bayes approach to statistics", 1956; one bound for choice and
worth, Zhu et al., arXiv 2306.02003, section 4.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .arms import MOST_COST, ArmCosts, Running

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Estimate", "Trust"]

Way = TypeVar("Way")

_DEVIATIONS = 2.0
_SHIFT_OBSERVATIONS = 10
_LEAST_BETWEEN = 0.05  # of the variance of first costs: two queries never cost quite the same


class Estimate(NamedTuple):
    """What a way is expected to cost, >= 0, and the standard deviation of that; inf and 0 while nothing was seen."""

    cost: float
    deviation: float


class Trust:
    """Chooses ways of asking by a selector's word and by outcomes; thread-safe, O(ways), no I/O.

    Args:
        most_queries: Pairs of query and way whose own outcomes are remembered, > 0; the one taken the longest ago is
            forgotten first.
    """

    def __init__(self, *, most_queries: int = 65_536) -> None:
        self._own = ArmCosts(most_arms=most_queries)
        self._by_word = ArmCosts()
        self._shifts = ArmCosts(least=-MOST_COST)
        self._by_way: dict[Hashable, Running] = {}
        self._all = Running()
        self._least = math.inf
        self._lock = threading.RLock()  # reentrant as that of `ArmCosts`

    def observe(self, query: Hashable, word: Hashable, way: Hashable, cost: float) -> None:
        """Take in what a way has cost, all that followed from it included.

        Args:
            query: What was asked.
            word: What the selector had said.
            way: The way that was taken.
            cost: In any unit; what is not between 0 and 1e12 is passed over.
        """
        if not 0 <= cost <= MOST_COST:
            return
        with self._lock:
            self._least = min(self._least, cost)
            mean = self._own.mean(query, way)
            # First times only: later, this way is taken by those on whom the word was wrong, which would count twice.
            if not self._own.knows(query):
                self._by_word.observe(word, way, cost)
                self._by_way.setdefault(way, Running()).add(cost)
                self._all.add(cost)
            elif mean is not None:
                self._shifts.observe(word, way, cost - mean)
            self._own.observe(query, way, cost)

    def choose(self, query: Hashable, word: Hashable, ways: Sequence[Way]) -> Way:
        """The way to take, of equals the first.

        Args:
            query: What is asked; or a kind of query, where few come again.
            word: The way that the selector recommends; None without a selector.
            ways: The ways there are, at least one.
        """
        with self._lock:
            if word in ways and not self._by_word.seen(word, word).count:
                return ways[ways.index(word)]
            within = self._own.variance
            known = [self._estimate(query, word, way, within) for way in ways]
            costs = [estimate.cost for estimate in known]
            best = costs.index(min(costs))
            times, chosen, most = self._times(query, word, ways), best, 0.0
            for place, estimate in enumerate(known):
                if place != best and estimate.cost < math.inf:
                    saved = times * (costs[best] - self._low(ways[place], estimate, within))
                    gain = saved - (estimate.cost - costs[best])
                    if gain > most:
                        chosen, most = place, gain
            return ways[chosen]

    def estimate(self, query: Hashable, word: Hashable, way: Hashable) -> Estimate:
        """What a way is expected to cost, see the module's text.

        Args:
            query: What is asked.
            word: What the selector says of it.
            way: A way.
        """
        with self._lock:
            return self._estimate(query, word, way, self._own.variance)

    def worth(self, query: Hashable, word: Hashable, ways: Sequence[Hashable]) -> float:
        """What asking a query again costs at the least, as far as is known; inf while nothing was seen."""
        with self._lock:
            within = self._own.variance
            return min(self._low(way, self._estimate(query, word, way, within), within) for way in ways)

    def _estimate(self, query: Hashable, word: Hashable, way: Hashable, within: float) -> Estimate:
        group = self._by_way.get(way, self._all)
        if not group.count:
            return Estimate(math.inf, 0.0)
        said, own = self._by_word.seen(word, way), self._own.seen(query, way)
        prior, times = (said.mean, said.count) if said.count else (group.mean, 1)
        total = group.variance(group.mean**2)
        between = max(total - within, _LEAST_BETWEEN * total)
        if not own.count:
            return Estimate(prior, math.sqrt(between * (self._own.knows(query) + 1 / times)))
        shifts = self._shifts.seen(word, way)
        shift = shifts.mean * shifts.count / (shifts.count + _SHIFT_OBSERVATIONS)
        left = within / (within + own.count * between) if within else 0.0  # k / (k + n)
        return Estimate(left * prior + (1 - left) * (own.mean + shift), math.sqrt(between * left))

    def _low(self, way: Hashable, estimate: Estimate, within: float) -> float:
        group = self._by_way.get(way)
        times = 0 if group is None else group.count
        least = (self._least + math.sqrt(within)) * times / (times + 1) if times else 0.0
        return max(estimate.cost - _DEVIATIONS * estimate.deviation, least)

    def _times(self, query: Hashable, word: Hashable, ways: Sequence[Hashable]) -> int:
        """How often a query came, or if it is new, how many new ones came of which the selector said the same."""
        asked = sum([self._own.seen(query, way).count for way in ways])
        return asked or sum([self._by_word.seen(word, way).count for way in ways])
