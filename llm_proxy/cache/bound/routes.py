"""A `Bound` for each route, shared between threads and, through the store, between processes.

::

    what this process learnt = its bound now - its bound when it last looked into the store
    stored' = stored + what this process learnt;      then it goes on from stored'

The sums of the account add up whoever learnt them; what fades or is forgiven meanwhile is off by a little where
several processes learn at once. Nothing is lost but what a process learnt since it last looked, when it is killed.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_proxy.cache.weighed import Weighed

from .bound import SUMS, Bound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_proxy.cache.evidence import Source
    from llm_proxy.cache.stores.base import Store

    from .entry_model import Observed

__all__ = ["ErrorLimits", "RouteBounds"]

_NOTE = "bounds"
_NONE = (0.0, 0.0)
_MOST_UNCHECKED = 10_000  # questions; beyond them those that were served least lately are forgotten


@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """How many semantic hits may be wrong, and how that is found out.

    Attributes:
        max_error_rate: Largest share that may be wrong, in (0, 1).
        by_route: The same for routes, by name.
        explore_share: See `Bound`, in [0, 1].
        check_share: Share of hits that is checked in the background, in [0, 1].
    """

    max_error_rate: float = 0.01
    by_route: Mapping[str, float] = field(default_factory=dict)
    explore_share: float = 0.0
    check_share: float = 0.0


class RouteBounds:
    """Decides for each route by what came of it; safe to share between threads.

    Args:
        store: Where it is kept; its `CacheError` is that of each verb that reads or writes it.
        limits: Rates and shares.
        chance: Draws evenly from [0, 1).

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, store: Store, limits: ErrorLimits, *, chance: Callable[[], float]) -> None:
        self._store, self._limits, self._chance = store, limits, chance
        self._rates = {**limits.by_route, "": limits.max_error_rate}
        self._lock = threading.Lock()  # for moments; never held while the store works
        self._keeping = threading.Lock()  # for `keep` alone
        self._bounds = {route: self._new(route) for route in self._rates}
        self._before = {route: bound.to_json() for route, bound in self._bounds.items()}
        self._is_loaded = False
        self._unchecked: dict[int, int] = {}  # the latest that were served come last

    @property
    def is_comparing(self) -> bool:
        """Whether answers are compared at all."""
        return self._limits.explore_share > 0.0 or self._limits.check_share > 0.0

    def limit(self, route: str) -> float:
        """Largest p_wrong that may be served at this moment; see `Bound.limit`.

        Raises:
            CacheError: What is known can't be read from the store.
        """
        self._load()
        with self._lock:
            return self._bound(route).limit

    def decide(
        self,
        key: str,
        question: str,
        similarity: float,
        p_same: float,
        observations: Sequence[Observed] = (),
        *,
        route: str,
        may_explore: bool = True,
    ) -> Weighed:
        """Whether an entry's answer may be served for a question; see `Bound.decide`.

        Args:
            key: Of the entry.
            question: What is asked.
            similarity: Cosine of question and entry, in [-1, 1].
            p_same: The guard's probability that both ask the same, in [0, 1].
            observations: Of the entry, oldest first.
            route: Name of the route; one that is not configured counts as none.
            may_explore: Whether it may be asked upstream although it could be served.

        Raises:
            CacheError: What is known can't be read from the store.
        """
        self._load()
        coin = self._chance() if may_explore else 1.0
        asked = hash((key, question))
        with self._lock:
            unchecked = self._unchecked.get(asked, 0) if may_explore else 0
            bound = self._bound(route)
            decision = bound.decide(similarity, p_same, observations, coin=coin, unchecked=unchecked)
            if decision.reason == "unsure":
                bound.note_unsure(decision)
            if decision.reason == "repeated":  # where its own answer is not kept, it is served again
                del self._unchecked[asked]
        return Weighed(key, asked, similarity, p_same, route, decision)

    def note_hit(self, weighed: Weighed) -> None:
        """Take a served answer into the account of its route."""
        with self._lock:
            self._bound(weighed.route).note_hit(weighed.decision)
            self._unchecked[weighed.asked] = self._unchecked.pop(weighed.asked, 0) + 1
            if len(self._unchecked) > _MOST_UNCHECKED:
                del self._unchecked[next(iter(self._unchecked))]

    def learn(self, weighed: Weighed, source: Source, *, is_same: bool) -> None:
        """Learn from a comparison with what the question itself was answered.

        Args:
            weighed: The neighbour.
            source: Who compared. ``undo`` is a person who took the hit back.
            is_same: Whether the answers said the same.
        """
        decision, p_same = weighed.decision, weighed.p_same
        with self._lock:
            bound = self._bound(weighed.route)
            if source == "undo":
                bound.note_undone(decision.p_wrong, p_same)
                return
            if source == "shadow":
                bound.note_checked(decision.p_wrong, p_same, is_same=is_same)
            else:
                bound.note_asked(decision, p_same, is_same=is_same)
            self._unchecked.pop(weighed.asked, None)

    @property
    def has_news(self) -> bool:
        """Whether something was learnt that the store does not know."""
        with self._lock:
            learnt = [_minus(bound.to_json(), self._before[route]) for route, bound in self._bounds.items()]
        return any(map(_is_anything, learnt))

    def keep(self) -> None:
        """Put what was learnt into the store, and take up what other processes put there.

        Raises:
            CacheError: The store can't be read or written; nothing is lost then.
        """
        with self._keeping:
            self._keep()

    def _keep(self) -> None:
        with self._lock:
            seen = {route: bound.to_json() for route, bound in self._bounds.items()}
            learnt = {route: _minus(now, self._before[route]) for route, now in seen.items()}
        with self._store.writing():
            stored = _decoded(self._store.note(_NOTE))
            kept = {route: _plus(self._known(stored, route), learnt[route]) for route in learnt}
            if any(map(_is_anything, learnt.values())):
                rows = {**stored, **{self._name(route): row for route, row in kept.items()}}
                self._store.put_note(_NOTE, json.dumps(rows, separators=(",", ":")).encode())
        with self._lock:
            for route, row in kept.items():
                bound = self._bounds[route]
                bound.restore(_plus(row, _minus(bound.to_json(), seen[route])))
                self._before[route] = row
            self._is_loaded = True

    def _load(self) -> None:
        if not self._is_loaded:
            self._take_up(_decoded(self._store.note(_NOTE)))

    def _take_up(self, stored: Mapping[str, Any]) -> None:
        with self._lock:
            if self._is_loaded:  # another thread was faster
                return
            for route, bound in self._bounds.items():
                known, learnt = self._known(stored, route), _minus(bound.to_json(), self._before[route])
                bound.restore(_plus(known, learnt))
                self._before[route] = known
            self._is_loaded = True

    def _new(self, route: str) -> Bound:
        limits = self._limits
        return Bound(self._rates[route], explore_share=limits.explore_share, check_share=limits.check_share)

    def _bound(self, route: str) -> Bound:
        return self._bounds[route if route in self._bounds else ""]

    def _name(self, route: str) -> str:
        return f"{route}:{self._rates[route]}"

    def _known(self, stored: Mapping[str, Any], route: str) -> dict[str, Any]:
        """What the store knows of a route; nothing where it is not what a bound writes."""
        bound = self._new(route)
        value = stored.get(self._name(route))
        if isinstance(value, dict):
            with contextlib.suppress(ValueError):
                bound.restore(value)
        return bound.to_json()


def _decoded(note: bytes) -> dict[str, Any]:
    try:
        value = json.loads(note or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _minus(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was learnt between two times of `Bound.to_json`."""
    return _sum(now, before, -1.0)


def _plus(known: Mapping[str, Any], learnt: Mapping[str, Any]) -> dict[str, Any]:
    """Both together; what can't be negative is not, where the store was emptied meanwhile."""
    found = _sum(known, learnt, 1.0)
    counts = {name: max(0.0, found[name]) for name in SUMS if name != "wrong"}
    return {
        **found,
        **counts,
        "bands": {band: [max(0.0, each) for each in seen] for band, seen in found["bands"].items()},
    }


def _sum(one: Mapping[str, Any], other: Mapping[str, Any], sign: float) -> dict[str, Any]:
    bands = {
        band: [
            a + sign * b for a, b in zip(one["bands"].get(band, _NONE), other["bands"].get(band, _NONE), strict=True)
        ]
        for band in {**one["bands"], **other["bands"]}
    }
    return {**{name: one[name] + sign * other[name] for name in SUMS}, "bands": bands}


def _is_anything(learnt: Mapping[str, Any]) -> bool:
    return any(learnt[name] for name in SUMS) or any(map(any, learnt["bands"].values()))
