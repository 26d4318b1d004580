"""What things cost, learnt from those that were tried: running statistics, and a bound below what is not yet known.

An arm is a choice that can be made for a query: a model, or a way of asking. Only the arm that was chosen shows its
cost, so an arm that was seen seldom gets the benefit of the doubt::

    lower(q, a) = max(mean(q, a) - scale * sqrt(|Q| / n(q, a)), floor, floor_share * mean(q, a))
                  floor where n(q, a) = 0
    scale^2     = (own squared deviations + 4 * pooled) / (n - 1 + 4)
    pooled      = (all squared deviations + 4 * prior scale^2) / (all observations - arms + 4)

``|Q|`` is the number of queries remembered, of which any arm was seen. The same bound serves the choice of an arm (the
least is taken, so what is in doubt is tried) and the worth of a cached answer. ``scale`` comes from the observed spread
within an arm: its own, drawn towards that of all arms while it has few observations, as that is towards a prior at the
beginning.

Source: Zhu et al., "On Optimal Caching and Model Multiplexing for Large Model Inference", arXiv 2306.02003, section 4.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["MOST_COST", "ArmCosts", "Running"]

Arm = TypeVar("Arm", bound=Hashable)

MOST_COST = 1e12
"""Above it no cost is believed: its square would drown all others for good."""

PRIOR_OBSERVATIONS = 4
_HALVED_AT = 1024  # the newest observations count: what a provider took a year ago is another matter


@dataclass(slots=True)
class Running:
    """Count, mean and sum of squared deviations of numbers that come one by one."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> float:
        """Take in a number; returns by how much the sum of squared deviations grew."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        squared = before * (value - self.mean)
        self.squares += squared
        return squared

    def variance(self, prior: float) -> float:
        """Variance, where ``prior`` counts as much as four observations would."""
        squares = self.squares if self.squares > 0.0 else 0.0
        freedom = self.count - 1 if self.count else 0
        return (squares + PRIOR_OBSERVATIONS * prior) / (freedom + PRIOR_OBSERVATIONS)


NOTHING = Running()


class ArmCosts:
    """Costs by query and arm; thread-safe, O(1), no I/O.

    Args:
        floor: Least mean cost that is possible, >= 0.
        floor_share: The bound is never below this share of the mean, in [0, 1].
        scale: Standard deviation of costs within an arm that is assumed before any is seen, >= 0.
        scale_share: The same as a share of the mean of all costs, >= 0; both add up.
        least: Costs below it are passed over; below 0 where it is differences that are learnt.
        most_arms: Arms remembered, > 0; the one observed the longest ago goes.
    """

    def __init__(
        self,
        *,
        floor: float = 0.0,
        floor_share: float = 0.0,
        scale: float = 0.0,
        scale_share: float = 0.0,
        least: float = 0.0,
        most_arms: int = 65_536,
    ) -> None:
        self._floor, self._floor_share, self._most = floor, floor_share, most_arms
        self._scale, self._scale_share, self._least = scale, scale_share, least
        self._arms: OrderedDict[tuple[Hashable, Hashable], Running] = OrderedDict()
        self._queries: Counter[Hashable] = Counter()
        self._squares, self._freedom = 0.0, 0
        self._mean, self._count = 0.0, 0
        # Reentrant: the garbage collector may end a dropped call at any place, and that call comes here.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._arms)

    def observe(self, query: Hashable, arm: Hashable, cost: float) -> None:
        """Take in what an arm cost; one below ``least``, above `MOST_COST` or not a number is passed over."""
        if not self._least <= cost <= MOST_COST:
            return
        with self._lock:
            seen = self._place(query, arm)
            self._squares += seen.add(cost)
            self._freedom += seen.count > 1
            self._count = min(self._count + 1, _HALVED_AT)
            self._mean += (cost - self._mean) / self._count
            if seen.count >= _HALVED_AT:
                self._halve(seen)

    def knows(self, query: Hashable) -> bool:
        """Whether any arm was seen for a query."""
        return query in self._queries

    def seen(self, query: Hashable, arm: Hashable) -> Running:
        """Count and mean of an arm, not to be changed; the count is 0 while it was not seen."""
        return self._arms.get((query, arm), NOTHING)

    def mean(self, query: Hashable, arm: Hashable) -> float | None:
        """Mean cost of an arm; None while it was not seen."""
        seen = self.seen(query, arm)
        return seen.mean if seen.count else None

    def lower(self, query: Hashable, arm: Hashable) -> float:
        """The lower confidence bound of an arm's cost, see the module's text; the floor while it was not seen."""
        return self.bound(self.seen(query, arm))

    def bound(self, seen: Running, variance: float | None = None) -> float:
        """The same for what `seen` gave; ``variance`` is `variance`, for who asks of several arms at once."""
        count, mean = seen.count, seen.mean
        if not count:  # also while another thread is about to take in the first cost
            return self._floor
        own = seen.variance(self.variance if variance is None else variance)
        least = mean - math.sqrt(own * len(self._queries) / count)
        floor = self._floor_share * mean
        return max(least, floor if floor > self._floor else self._floor)

    def choose(self, query: Hashable, arms: Sequence[Arm]) -> Arm:
        """The arm whose cost has the least lower bound, of equals the first.

        Args:
            query: What is asked.
            arms: The arms there are, at least one.
        """
        return min(arms, key=lambda arm: self.lower(query, arm))

    @property
    def variance(self) -> float:
        """Variance of costs within an arm, pooled over all arms and the prior, see the module's text; >= 0."""
        scale = self._scale + self._scale_share * self._mean
        squares = self._squares + PRIOR_OBSERVATIONS * scale * scale
        return max(squares, 0.0) / (self._freedom + PRIOR_OBSERVATIONS)

    def _place(self, query: Hashable, arm: Hashable) -> Running:
        key = query, arm
        seen = self._arms.get(key)
        if seen is not None:
            self._arms.move_to_end(key)
            return seen
        if len(self._arms) >= self._most:
            self._forget()
        seen = self._arms[key] = Running()
        self._queries[query] += 1
        return seen

    def _forget(self) -> None:
        (query, _), seen = self._arms.popitem(last=False)
        self._squares -= seen.squares
        self._freedom -= seen.count - 1
        self._queries[query] -= 1
        if not self._queries[query]:
            del self._queries[query]

    def _halve(self, seen: Running) -> None:
        kept = seen.count // 2
        self._freedom -= seen.count - kept
        self._squares -= seen.squares / 2
        seen.count, seen.squares = kept, seen.squares / 2
