"""What an entry's own observations say on top of what is known of all entries.

::

    logit P(same answer) = c logit(q) + u       q: guard and population;  u ~ N(0, SPREAD^2): of this entry alone
    P(u | observations) is proportional to P(u) times the product of P(what was observed | u)
    P(same answer | observations) = mean of sigmoid(c logit(q) + u) over it

The integral is a sum over 13 values of u. With ``c = sqrt(1 + pi / 8 SPREAD^2)`` the mean without observations is
nearly q; in odds, the result is q times what the observations change in that mean, so it is just q without any.

Right answers lower the odds of a wrong one to no less than ``(1 + their number)^-2``: one lucky find among questions
that the guard refuses would make up for far more otherwise.

A wrong answer where the guard was sure says that this entry draws questions which the guard can't tell from its own; a
wrong one that was to be expected says next to nothing, and so does a right one. A sum keeps the order that a Laplace
approximation loses, which was tried: another wrong answer never makes the next one look better.

Source: random intercepts: Gelman & Hill, "Data Analysis Using Regression", 2007, section 14; the averaged sigmoid:
MacKay, "The evidence framework applied to classification networks", Neural Computation 4, 1992, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

__all__ = ["Observed", "pooled"]

SPREAD = 2.5
"""Standard deviation of entries in log-odds."""

_WIDENED = math.sqrt(1.0 + math.pi / 8.0 * SPREAD**2)
_POINTS = 13
_REACH = 3.0  # standard deviations
_LEAST = 1e-4  # 32 odds of that can be multiplied
_STEPS = [_REACH * (2.0 * at / (_POINTS - 1) - 1.0) for at in range(_POINTS)]
_PRIOR = [math.exp(-0.5 * step**2) for step in _STEPS]
_ODDS = [math.exp(-SPREAD * step) for step in _STEPS]  # of a wrong answer, at c logit(q) = 0


class Observed(Protocol):
    """A fresh answer was compared with an entry's; `llm_proxy.cache.evidence.Observation` is one."""

    @property
    def similarity(self) -> float:
        """Cosine of the question and the entry, in [-1, 1]."""

    @property
    def p_same(self) -> float | None:
        """What the guard took for the probability that they share an answer, in [0, 1]; None where unknown."""

    @property
    def is_same(self) -> bool:
        """Whether the answers said the same."""


def pooled(q: float, observations: Iterable[tuple[float, bool]]) -> float:
    """Probability that a neighbour's answer holds, by all that is known.

    Args:
        q: The same by guard and population, in [0, 1].
        observations: Of this entry, at most 32: (q of that question, whether the answer held).

    Returns:
        In [0, 1], growing with q; q itself where there is no observation.
    """
    seen = list(observations)
    if not seen:
        return q
    rights = [_wrong_odds(each) for each, is_same in seen if is_same]
    wrongs = [1.0 / _wrong_odds(each) for each, is_same in seen if not is_same]
    weights = [
        prior / (math.prod([1.0 + odds * at for odds in rights]) * math.prod([1.0 + odds / at for odds in wrongs]))
        for prior, at in zip(_PRIOR, _ODDS, strict=True)
    ]
    change = max(_mean_odds(q, weights) / _mean_odds(q, _PRIOR), (1.0 + len(rights)) ** -2)
    return q / (q + change * (1.0 - q))


def _mean_odds(q: float, weights: list[float]) -> float:
    """Odds of a wrong answer."""
    odds = _wrong_odds(q)
    right = wrong = 0.0
    for weight, at in zip(weights, _ODDS, strict=True):
        share = 1.0 / (1.0 + odds * at)
        right += weight * share
        wrong += weight * share * odds * at
    return wrong / right


def _wrong_odds(q: float) -> float:
    q = min(1.0 - _LEAST, max(_LEAST, q))
    return math.exp(_WIDENED * math.log((1.0 - q) / q))
