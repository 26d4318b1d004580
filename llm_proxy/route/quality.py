"""The choice itself: of candidates with their figures, which are good enough, and which of those is asked. Pure.

::

    good enough      by a head: p_good >= quality * max p_good;    by the rules: from the score's quantile on
    cost             the least expected cost
    latency          the least predicted latency, of equals the cheaper
    worth of good    the largest p_good * usd_per_good_answer - expected cost, of all candidates
    ties             the cheaper, then the one that the conversation is on, then the earlier

An unknown price counts as infinite beside known ones, and as nothing where there is no other.

Source: the third rule is that of the predictive routers in Hu et al., "RouterBench", arXiv 2403.12031: the largest
``lambda * quality - cost``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from llm_proxy.errors import RouterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .base import Prediction
    from .costs import Estimate

__all__ = ["Terms", "Verdict", "choose", "least_good", "lifted", "needed", "predictions_for"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a route chooses; see `llm_proxy.config.RouteConfig`."""

    quality: float = 0.95
    usd_per_good_answer: float | None = None
    objective: Literal["cost", "latency"] = "cost"


class Verdict(NamedTuple):
    """What was chosen.

    Attributes:
        place: Of the candidate.
        rivals: Places of those that might be asked instead, its own among them; ascending.
        why: By what it stands out.
    """

    place: int
    rivals: tuple[int, ...]
    why: str


def predictions_for(
    names: Sequence[str], predictions: Mapping[str, Prediction], *, head: str = ""
) -> tuple[Prediction, ...]:
    """What a head says of candidates, in their order.

    Args:
        names: What the head calls them.
        predictions: What it said.
        head: Its name, for the message.

    Raises:
        RouterError: It says nothing of one, no probability, or no length.
    """
    found = []
    for name in names:
        prediction = predictions.get(name)
        if prediction is None:
            raise RouterError(f"head {head!r} says nothing of {name!r}")
        p_good, tokens = prediction
        # Written so that what is not a number fails too.
        if not 0.0 <= p_good <= 1.0 or (tokens is not None and not 0.0 < tokens < math.inf):
            raise RouterError(f"head {head!r} gives {name!r} p_good={p_good}, completion_tokens={tokens}")
        found.append(prediction)
    return tuple(found)


def lifted(
    predictions: tuple[Prediction, ...], pairs: Sequence[tuple[str, str]], lift: Mapping[tuple[str, str], float]
) -> tuple[Prediction, ...]:
    """What is expected of candidates that get examples: more, and no more than of the best one without.

    Args:
        predictions: What a head says of them.
        pairs: Their backends and models, in the same order.
        lift: How good answers with examples were found to be, as a share of the best one's, by pair; others have none.
    """
    if not lift:
        return predictions
    best = max(prediction.p_good for prediction in predictions)
    return tuple(
        one._replace(p_good=max(one.p_good, best * lift.get(pair, 0.0)))
        for one, pair in zip(predictions, pairs, strict=True)
    )


def needed(p_good: Sequence[float]) -> float:
    """How strong a model a request needs, by what a head says: how far the weakest falls behind the best, in [0, 1].

    The weakest of candidates is good enough for a ``quality`` of at most one less this.

    Args:
        p_good: Of the candidates, weakest first.
    """
    best = max(p_good)
    return 1.0 - float(p_good[0] / best) if best > 0.0 else 0.0


def least_good(quality: float, p_good: Sequence[float]) -> float:
    """From which probability on a candidate is good enough: a share of the best one's, which always is."""
    return quality * max(p_good)


def choose(
    estimates: Sequence[Estimate],
    terms: Terms,
    *,
    p_good: Sequence[float] = (),
    current: int | None = None,
    forgone: Sequence[float] = (),
) -> Verdict:
    """The candidate to ask.

    Args:
        estimates: Of the candidates: of those that are good enough, and of all where a good answer has a worth.
        terms: The route's.
        p_good: By a head, of the same candidates; empty without one.
        current: Place of the one that the conversation is on.
        forgone: What the conversation has paid more than each would have taken, dollars, see
            `llm_proxy.route.sessions`; empty for a new one.
    """
    worth = terms.usd_per_good_answer if p_good else None
    is_priced = any(estimate.usd < math.inf for estimate in estimates)
    usd = [estimate.usd if is_priced else 0.0 for estimate in estimates]
    for at, credit in enumerate(forgone):
        usd[at] -= min(estimates[at].reread_usd, credit)
    if worth is not None:
        burden = [cost - p * worth for cost, p in zip(usd, p_good, strict=True)]
    else:
        burden = [estimate.wait_s for estimate in estimates] if terms.objective == "latency" else usd
    least = min(burden)
    tied = [at for at, one in enumerate(burden) if one == least]
    place = min(tied, key=lambda at: (usd[at], at != current, at)) if len(tied) > 1 else tied[0]
    if worth is not None:  # those that are worse would not be asked in its place, however cheap
        rivals = tuple(at for at, p in enumerate(p_good) if p >= p_good[place])
        return Verdict(place, rivals, "worth the most")
    if terms.objective == "latency":  # the next time too the fastest is asked, not the cheapest
        return Verdict(place, (place,), "fastest")
    return Verdict(place, tuple(range(len(usd))), "cheapest")
