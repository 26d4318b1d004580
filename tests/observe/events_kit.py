"""Events of calls for the tests of what is made from them."""

from __future__ import annotations

from typing import Any

from llm_proxy.observe.events import CallEvent
from llm_proxy.types import Outcome, Usage

NOW_S = 1_700_000_000.0


def exact(at_s: float = NOW_S, latency_s: float = 0.001, **changes: Any) -> CallEvent:
    """An exact hit."""
    outcome = Outcome("hit", "exact", model="m", backend="main", route="auto", saved_usd=0.25, similarity=1.0)
    return CallEvent(at_s, outcome.with_changes(**changes), latency_s, saved_s=2.0)


def near(at_s: float = NOW_S, latency_s: float = 0.004, **changes: Any) -> CallEvent:
    """A semantic hit."""
    outcome = Outcome(
        "hit", "semantic", model="m", route="auto", saved_usd=0.5, similarity=0.9, p_wrong=0.002,
        key="k" * 64, asked="a" * 64, scope="s" * 64,
    )  # fmt: skip
    return CallEvent(at_s, outcome.with_changes(**changes), latency_s, saved_s=1.0)


def miss(at_s: float = NOW_S, latency_s: float = 2.0, **changes: Any) -> CallEvent:
    """A call that was asked."""
    outcome = Outcome("miss", model="m", backend="main", cost_usd=0.125, reason="cheapest")
    return CallEvent(at_s, outcome.with_changes(**changes), latency_s, usage=Usage(10, 20), requested="auto")


def refused(at_s: float = NOW_S, **changes: Any) -> CallEvent:
    """A call that llm-proxy did not send."""
    outcome = Outcome("refused", forward="", detail="budget-usd", model="m").with_changes(**changes)
    return CallEvent(at_s, outcome, 0.001, http_status=429)


def bypass(at_s: float = NOW_S, http_status: int = 200, error: str = "", **changes: Any) -> CallEvent:
    """A call with which the cache has nothing to do."""
    outcome = Outcome("bypass", detail="temperature", model="n").with_changes(**changes)
    return CallEvent(at_s, outcome, 0.5, http_status=http_status, error=error)
