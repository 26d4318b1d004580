"""A decision with all that led to it: what ``llm-proxy route explain`` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .base import Decision
    from .costs import Estimate
    from .plan import Plan, Route

__all__ = ["Explanation", "Option", "explained", "unexplained"]


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate.

    Attributes:
        candidate: ``BACKEND/MODEL``.
        why_not: Why it can't take the request; empty where it can.
        resting_s: For how much longer it is passed over after failures, seconds; 0 where it is well.
        is_good_enough: Whether it might be asked as far as quality goes.
        is_chosen: Whether it is asked.
        is_on_trial: Whether too little was seen of it, so that it is counted at what the prompt alone costs.
        p_good: Probability of a good answer, in [0, 1]; None without a head.
        completion_tokens: Expected length of the answer; None where it is not estimated.
        expected_usd: Expected cost, the wait's included; None where no price is known.
        latency_s: Predicted latency, seconds; None where it is not estimated.
    """

    candidate: str
    why_not: str = ""
    resting_s: float = 0.0
    is_good_enough: bool = False
    is_chosen: bool = False
    is_on_trial: bool = False
    p_good: float | None = None
    completion_tokens: float | None = None
    expected_usd: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and what led to it.

    Attributes:
        route: Name of the route.
        chosen: ``BACKEND/MODEL``.
        reason: Why, in a few words.
        score: How strong a model the request needs, in [0, 1].
        decided_by: ``head`` or ``rules``; ``default`` where no candidate can take the request.
        without_head: Why no head decided; empty where one did.
        least_p_good: From which probability on a candidate is good enough; None where no head decided, or where it is
            weighed against the cost.
        prompt_tokens: About the length of the prompt; None where no candidate can take the request.
        options: Every candidate, in the route's order.
        way: Whether the call is asked in a cascade, and why; empty where its route has none.
    """

    route: str
    chosen: str
    reason: str
    score: float
    decided_by: str
    without_head: str = ""
    least_p_good: float | None = None
    prompt_tokens: int | None = None
    options: tuple[Option, ...] = ()
    way: str = ""

    def as_data(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self)


def explained(route: Route, plan: Plan, decision: Decision, estimates: Mapping[int, Estimate]) -> Explanation:
    """Puts an explanation together.

    Args:
        route: The route.
        plan: How the request was routed.
        decision: What came of it.
        estimates: What candidates are expected to take, by place.
    """
    return Explanation(
        route=route.name,
        chosen=f"{decision.backend}/{decision.model}",
        reason=decision.reason,
        score=decision.score,
        decided_by="head" if plan.case.word.predictions else "rules",
        without_head=plan.case.word.lack,
        least_p_good=None if plan.least_p_good is None else float(plan.least_p_good),
        prompt_tokens=plan.case.needs.prompt_tokens,
        options=tuple(_option(route, plan, place, estimates.get(place)) for place in range(len(route.pairs))),
    )


def unexplained(route: Route, refusals: Sequence[str], decision: Decision) -> Explanation:
    """The explanation where no candidate can take the request."""
    chosen = f"{decision.backend}/{decision.model}"
    both = zip(route.candidates, refusals, strict=True)
    options = tuple(Option(name, refusal, is_chosen=name == chosen) for name, refusal in both)
    return Explanation(route.name, chosen, decision.reason, decision.score, "default", options=options)


def _option(route: Route, plan: Plan, place: int, estimate: Estimate | None) -> Option:
    expected = None if estimate is None else estimate.expected
    return Option(
        candidate=route.candidates[place],
        why_not=plan.refusals[place],
        resting_s=plan.resting_s[place],
        is_good_enough=place in plan.asked,
        is_chosen=place == plan.place,
        is_on_trial=estimate is not None and estimate.is_on_trial,
        # Heads may give numbers of their array library, which JSON does not know.
        p_good=float(plan.case.word.predictions[place].p_good) if plan.case.word.predictions else None,
        completion_tokens=None if estimate is None else float(estimate.completion_tokens),
        expected_usd=None if expected is None else float(expected.usd),
        latency_s=None if estimate is None else float(estimate.latency_s),
    )
