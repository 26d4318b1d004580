"""The rule of vCache, as it is written: each entry learns alone at which similarity its answer holds.

::

    observations of an entry: (similarity, 1 if a fresh answer was equivalent else 0), beginning with (0, 0), (1, 1)
    fit   c ~ sigmoid(gamma (s - t));   Var t by the delta method
    for eps on a grid:   t'  = clip(t + Phi^-1(1 - eps) sqrt(Var t), 0, 1)
                         a   = (1 - eps) sigmoid(gamma (s - t'))          at least so sure that the answer holds
                         tau = 1 - max_error_rate / (1 - a)
    ask with probability min over eps of tau, at least 0; serve otherwise

What it bounds is the chance that a request is answered wrongly, ``(1 - tau) (1 - a)``: wrong answers of all requests,
not of those served. It knows nothing of other entries nor of the words, so a new entry is asked about for long, and
where wrong questions look more alike than right ones, as negated ones do, it learns slowly that similarity misleads.

The source leaves open what to do where observations can be told apart by a threshold, so that gamma has no largest
value: a weak ridge on gamma gives it one. Its uncertainty there is what keeps the rule from serving at once.

Source: Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv 2502.03771, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

__all__ = ["STARTING", "Fit", "ask_probability", "fit"]

STARTING: tuple[tuple[float, bool], ...] = ((0.0, False), (1.0, True))
"""What an entry is taken to have observed before it has observed anything: (similarity, whether its answer held)."""

_RIDGE = 1e-3
_ROUNDS = 30
_LARGEST_STEP = 4.0
_FLATTEST = 1e-6
_ANYWHERE = 1e6
_GRID = tuple(0.5 * 0.7**power for power in range(26))  # .5 down to 6.7e-5: of use from rates of a tenth to 1e-3
_DEVIATIONS = tuple(NormalDist().inv_cdf(1.0 - eps) for eps in _GRID)


@dataclass(frozen=True, slots=True)
class Fit:
    """At which similarity an entry's answer begins to hold.

    Attributes:
        gamma: Steepness, per unit of similarity, > 0 where more alike means more often right.
        threshold: Similarity at which the answer holds in half of the cases.
        threshold_sd: Standard deviation of that, >= 0.
    """

    gamma: float
    threshold: float
    threshold_sd: float


def ask_probability(similarity: float, observations: Sequence[tuple[float, bool]], max_error_rate: float) -> float:
    """With which probability to ask the model, in [0, 1].

    Args:
        similarity: Of the question and the entry, in [0, 1].
        observations: Of this entry, (similarity, whether its answer held), without `STARTING`.
        max_error_rate: Share of all requests that may be answered wrongly, in (0, 1).
    """
    found = fit(tuple(observations))
    least = 1.0
    for eps, deviations in zip(_GRID, _DEVIATIONS, strict=True):
        threshold = min(1.0, max(0.0, found.threshold + deviations * found.threshold_sd))
        sure = (1.0 - eps) * _sigmoid(found.gamma * (similarity - threshold))
        least = min(least, 1.0 - max_error_rate / (1.0 - sure))
    return max(0.0, least)


@lru_cache(maxsize=4096)
def fit(observations: tuple[tuple[float, bool], ...]) -> Fit:
    """Fit an entry's observations and those it starts with, by Newton's method on the ridged likelihood.

    Args:
        observations: (similarity in [0, 1], whether the answer held), in any order.
    """
    seen = (*STARTING, *observations)
    offset, gamma = -2.0, 4.0
    covariance = (0.0, 0.0, 0.0)
    for _ in range(_ROUNDS):
        slope, covariance = _slope(seen, offset, gamma), _covariance(seen, offset, gamma)
        steps = (
            covariance[0] * slope[0] + covariance[1] * slope[1],
            covariance[1] * slope[0] + covariance[2] * slope[1],
        )
        shrink = _LARGEST_STEP / max(_LARGEST_STEP, *map(abs, steps))
        offset, gamma = offset + shrink * steps[0], gamma + shrink * steps[1]
    if gamma < _FLATTEST:  # similarity says nothing, or misleads: no threshold is better than another
        return Fit(0.0, 1.0, _ANYWHERE)
    by_offset, by_gamma = -1.0 / gamma, offset / gamma**2
    variance = by_offset**2 * covariance[0] + 2.0 * by_offset * by_gamma * covariance[1] + by_gamma**2 * covariance[2]
    return Fit(gamma, -offset / gamma, math.sqrt(max(0.0, variance)))


def _slope(seen: Sequence[tuple[float, bool]], offset: float, gamma: float) -> tuple[float, float]:
    errors = [(is_same - _sigmoid(offset + gamma * similarity), similarity) for similarity, is_same in seen]
    return sum(error for error, _ in errors), sum(error * s for error, s in errors) - _RIDGE * gamma


def _covariance(seen: Sequence[tuple[float, bool]], offset: float, gamma: float) -> tuple[float, float, float]:
    """Of offset and gamma: the inverse of the information, as (00, 01, 11)."""
    weights = [(sure * (1.0 - sure), s) for s, _ in seen for sure in (_sigmoid(offset + gamma * s),)]
    a = sum(weight for weight, _ in weights) + 1e-9
    b = sum(weight * s for weight, s in weights)
    d = sum(weight * s * s for weight, s in weights) + _RIDGE
    determinant = a * d - b * b
    return d / determinant, -b / determinant, a / determinant


def _sigmoid(value: float) -> float:
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(value, 700.0)))
    power = math.exp(max(value, -700.0))
    return power / (1.0 + power)
