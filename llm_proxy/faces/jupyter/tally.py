"""What the calls of a kernel add up to, and the newest of them one by one."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_proxy._shown import kind_of

if TYPE_CHECKING:
    from llm_proxy.observe.events import CallEvent

__all__ = ["MOST_POINTS", "Point", "Sums", "Tally"]

MOST_POINTS = 120
"""How many of the newest calls are kept one by one."""

_MOST_NAMES = 50  # of models that are told apart; those beyond it count as one


@dataclass(frozen=True, slots=True)
class Point:
    """One call: its kind, how long it took, and what all calls up to it have saved, dollars and seconds."""

    kind: str
    latency_s: float
    saved_usd: float
    saved_s: float


@dataclass(slots=True)
class Sums:
    """Counts by kind and by what answered, dollars, seconds; latencies are of the newest calls.

    Attributes:
        kinds: Calls by kind: ``exact``, ``semantic``, ``miss``, ``bypass``, ``refused``, ``error``.
        answered: Calls that went upstream, by ``(route, model)``.
        saved_usd: Money that hits spared.
        cost_usd: Money that calls cost, where prices are known.
        saved_s: Time that hits spared.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    saved_usd: float = 0.0
    cost_usd: float = 0.0
    saved_s: float = 0.0

    @property
    def calls(self) -> int:
        """All calls."""
        return self.kinds.total()

    @property
    def hits(self) -> int:
        """Calls that were answered from the cache."""
        return self.kinds["exact"] + self.kinds["semantic"]


class Tally:
    """Adds up events; a sink, thread-safe."""

    def __init__(self) -> None:
        self._sums = Sums()
        self._points: deque[Point] = deque(maxlen=MOST_POINTS)
        self._newest: CallEvent | None = None
        # Reentrant: the garbage collector may end a dropped call, whose event comes here, at any place.
        self._lock = threading.RLock()

    def __call__(self, event: CallEvent) -> None:
        """Take one event; never raises."""
        outcome = event.outcome
        is_error = event.error or (event.http_status >= 400 and outcome.status != "refused")
        kind = "error" if is_error else kind_of(outcome)
        with self._lock:
            sums, self._newest = self._sums, event
            sums.kinds[kind] += 1
            sums.saved_usd += outcome.saved_usd
            sums.saved_s += event.saved_s
            sums.cost_usd += outcome.cost_usd or 0.0
            if outcome.status not in ("hit", "refused"):
                name = (outcome.route, outcome.model)
                sums.answered[name if name in sums.answered or len(sums.answered) < _MOST_NAMES else ("", "…")] += 1
            self._points.append(Point(kind, event.latency_s, sums.saved_usd, sums.saved_s))

    def now(self) -> tuple[Sums, Sequence[Point]]:
        """A copy of the sums, and the newest calls, oldest first."""
        with self._lock:
            sums = self._sums
            return (
                Sums(sums.kinds.copy(), sums.answered.copy(), sums.saved_usd, sums.cost_usd, sums.saved_s),
                list(self._points),
            )

    def newest(self, key: str) -> CallEvent | None:
        """The newest call, where it is the one of an exact key; None where another came between."""
        with self._lock:
            event = self._newest
        return event if event is not None and event.outcome.key == key else None
