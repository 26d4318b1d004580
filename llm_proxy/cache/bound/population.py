"""How far the guard's probabilities hold in a population of entries: those of one route.

::

    bands of risk = 1 - p_same; in each: expected = sum of risks compared, wrong = those found wrong; older ones fade
    wrong ~ Poisson(factor * expected),  factor ~ Gamma(DOUBT, START), START so that factor <= 1 with CONFIDENCE
    p_wrong = risk * the CONFIDENCE quantile of factor; at least as much as in any band of less risk

So the guard is believed until something is known, and as an upper limit rather than as a mean.

Source: Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.6 (Poisson model with exposure); the quantile of
Gamma: Wilson & Hilferty, "The distribution of chi-square", PNAS 17, 1931.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist

__all__ = ["MOST_SEEN", "Population"]

DOUBT = 2.0
"""Wrong answers that have to be seen before they weigh as much as the guard's word."""

CONFIDENCE = 0.9

MOST_SEEN = 1e15
"""Of anything that is counted: more is damage, and its square would be too large for a float."""

_DEVIATIONS = NormalDist().inv_cdf(CONFIDENCE)
_REMEMBERED = 1_000.0  # comparisons of a band after which one counts a third
_BAND_RATIO = 4.0
_LEAST_RISK = 1e-4  # no guard is surer than that
_BANDS = 1 + math.floor(math.log(1.0 / _LEAST_RISK, _BAND_RATIO))
_EDGES = [_LEAST_RISK * _BAND_RATIO ** (band + 1) for band in range(_BANDS - 1)]


class Population:
    """Wrong answers beside those to be expected, by how sure the guard was."""

    def __init__(self) -> None:
        self._seen = [(0.0, 0.0)] * _BANDS  # (expected, wrong)
        self._derive()

    def learn(self, p_same: float, is_same: bool) -> None:
        """Take in a comparison.

        Args:
            p_same: The guard's probability, in [0, 1].
            is_same: Whether the answers were equivalent.
        """
        risk, fade = _risk(p_same), 1.0 - 1.0 / _REMEMBERED
        band = bisect(_EDGES, risk)
        expected, wrong = self._seen[band]
        self._seen[band] = expected * fade + risk, wrong * fade + (not is_same)
        self._derive()

    def p_wrong(self, p_same: float) -> float:
        """How likely an answer is wrong that the guard gives this probability of being right, an upper estimate.

        Args:
            p_same: The guard's probability, in [0, 1].

        Returns:
            In [0, 1], falling with p_same.
        """
        risk = _risk(p_same)
        band = bisect(_EDGES, risk)
        return min(1.0, max(risk * self._uppers[band], self._least[band]))

    def to_json(self) -> dict[str, list[float]]:
        """By band what was expected and what was wrong, without bands of which nothing was seen."""
        return {str(band): list(seen) for band, seen in enumerate(self._seen) if any(seen)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Population:
        """What `to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        found = cls()
        for name, seen in value.items():
            if name not in map(str, range(_BANDS)) or not isinstance(seen, list) or len(seen) != 2:
                raise ValueError(f"a band of a population can't be {name}: {seen!r}")
            if not all(type(each) in (int, float) and 0.0 <= each <= MOST_SEEN for each in seen):
                raise ValueError(f"a band of a population can't be {name}: {seen!r}")
            found._seen[int(name)] = float(seen[0]), float(seen[1])
        found._derive()
        return found

    def _derive(self) -> None:
        """Of each band the factor's quantile, and the least p_wrong, by the bands of less risk."""
        self._uppers = [_upper(DOUBT + wrong) / (_upper(DOUBT) + expected) for expected, wrong in self._seen]
        at_edges = (edge * upper for edge, upper in zip(_EDGES, self._uppers, strict=False))
        self._least = [0.0, *accumulate(at_edges, max)]


def _risk(p_same: float) -> float:
    return max(_LEAST_RISK, 1.0 - p_same)


@lru_cache(maxsize=4096)
def _upper(shape: float) -> float:
    """A quantile of Gamma(shape, 1); off by less than 2 % for shapes from 1."""
    away = 1.0 / (9.0 * shape)
    return float(shape * (1.0 - away + _DEVIATIONS * math.sqrt(away)) ** 3)
