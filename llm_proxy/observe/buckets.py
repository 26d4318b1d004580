"""Sums of calls over spans of time, with latencies as counts on a logarithmic scale."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["EDGES_S", "Part", "Sums", "percentile", "place_of"]

_PER_DECADE = 20
_DECADES = (-5, 3)
EDGES_S = tuple(
    10.0 ** (step / _PER_DECADE) for step in range(_DECADES[0] * _PER_DECADE, _DECADES[1] * _PER_DECADE + 1)
)
"""Upper edges of the places of latencies, seconds: from 10 us to 1,000 s, a factor of 1.122 apart."""


def place_of(latency_s: float) -> int:
    """Place of a latency among `EDGES_S`, in [0, len(EDGES_S)]."""
    return bisect_left(EDGES_S, latency_s)


def percentile(counts: Counter[int], share: float) -> float | None:
    """The latency that at least this share of calls does not exceed, by nearest rank.

    Args:
        counts: Calls by place.
        share: In (0, 1].

    Returns:
        Seconds, the geometric middle of a place, so at most 6 % off; None without calls.
    """
    rank = math.ceil(share * counts.total())
    for place in sorted(counts):
        rank -= counts[place]
        if rank <= 0 and counts.total():
            upper = EDGES_S[min(place, len(EDGES_S) - 1)]
            return float(upper / 10.0 ** (0.5 / _PER_DECADE))
    return None


@dataclass(slots=True)
class Part:
    """What one model answered for one route: calls, those of them served from the cache, and money."""

    calls: int = 0
    hits: int = 0
    saved_usd: float = 0.0
    cost_usd: float = 0.0

    def add(self, other: Part) -> None:
        """Add another's."""
        self.calls += other.calls
        self.hits += other.hits
        self.saved_usd += other.saved_usd
        self.cost_usd += other.cost_usd


@dataclass(slots=True)
class Sums:
    """Counts >= 0, dollars and seconds of the calls of one span of time.

    Attributes:
        exact: Calls answered by an entry of the same question.
        semantic: Calls answered by an entry of an equivalent one.
        miss: Calls asked upstream and looked up before.
        bypass: Calls with which the cache has nothing to do.
        refused: Calls that llm-proxy itself refused, e.g. for a budget.
        other: Calls of a sort that a newer version has booked, and this one does not know.
        errors: Calls that did not end as they should, and answers with a status of 400 or more.
        saved_usd: Money that hits did not cost.
        cost_usd: Money that calls cost, where prices are known.
        saved_s: Time that hits did not take.
        served: Semantic hits, checked or not.
        checked: Semantic hits that were compared with another answer.
        wrong: Those of them whose answer said something else.
        unclear: Checks without a verdict.
        undone: Hits that somebody took back.
        check_usd: What checks cost, where it is known.
        hits: Latencies of hits, by place.
        upstream: Latencies of misses.
        without: What both would have taken without a cache.
        mix: What each model answered, by route and model.
    """

    exact: int = 0
    semantic: int = 0
    miss: int = 0
    bypass: int = 0
    refused: int = 0
    other: int = 0
    errors: int = 0
    saved_usd: float = 0.0
    cost_usd: float = 0.0
    saved_s: float = 0.0
    served: int = 0
    checked: int = 0
    wrong: int = 0
    unclear: int = 0
    undone: int = 0
    check_usd: float = 0.0
    hits: Counter[int] = field(default_factory=Counter)
    upstream: Counter[int] = field(default_factory=Counter)
    without: Counter[int] = field(default_factory=Counter)
    mix: dict[tuple[str, str], Part] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """All calls."""
        return self.exact + self.semantic + self.miss + self.bypass + self.refused + self.other

    def add(self, other: Sums) -> None:
        """Add another span's."""
        self.add_numbers(other)
        for name in _PLACES:
            getattr(self, name).update(getattr(other, name))
        for pair, part in other.mix.items():
            self.mix.setdefault(pair, Part()).add(part)

    def add_numbers(self, other: Sums) -> None:
        """Add another span's counts, dollars and seconds, which is sooner done."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def numbers(self) -> dict[str, Any]:
        """The counts, dollars and seconds by name, and ``calls``."""
        return {"calls": self.calls, **{name: getattr(self, name) for name in _NUMBERS}}


_PLACES = ("hits", "upstream", "without")
_NUMBERS = tuple(item.name for item in fields(Sums) if item.name not in {*_PLACES, "mix"})
