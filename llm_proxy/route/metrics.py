"""How good a router is: what it recovers of the gap between two models, and how far its probabilities can be trusted.

Every figure takes ties in expectation: rows of one score are sent to the strong model in random order. A router that
scores all rows the same gets the figures of chance, whatever the order of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BINS",
    "Bin",
    "apgr",
    "apgr_interval",
    "auc",
    "calibration_error",
    "cpt",
    "kendall_tau",
    "pgr",
    "reliability",
    "share_above",
]

BINS = 10
"""Quantile bins of the score, and so one more points of the curve."""


class Bin(NamedTuple):
    """Rows of about one predicted probability.

    Attributes:
        predicted: Mean of their predictions, in [0, 1].
        observed: Mean of their outcomes, in [0, 1].
        n: How many they are, > 0.
    """

    predicted: float
    observed: float
    n: int


def pgr(score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> NDArray[np.float64]:
    """Performance gap recovered when the rows of the highest scores go to the strong model, by their share.

    ``PGR = (r - r_weak) / (r_strong - r_weak)`` at the shares 0, 0.1, ... 1 of strong calls.

    Args:
        score: Shape ``(n,)``: how much a row needs the strong model; higher means more.
        weak: Shape ``(n,)``: score of the weak model's answers, in [0, 1].
        strong: The same of the strong model's.

    Returns:
        Shape ``(BINS + 1,)``, float64, from 0 to 1, perhaps outside in between. NaN where the strong model is not the
        better one on these rows: there is no gap to recover then.

    Source: Ong et al., "RouteLLM", arXiv 2406.18665, section 2.
    """
    import numpy

    ranking = _Ranking(score, weak, strong)
    return ranking.curve(numpy.ones(len(ranking.order)))


def apgr(score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """Area under `pgr` over the share of strong calls, by the trapezoid rule; chance gets .5.

    Args:
        score: As for `pgr`.
        weak: As for `pgr`.
        strong: As for `pgr`.

    Returns:
        About in [0, 1]; NaN without a gap.

    Source: Ong et al., "RouteLLM", arXiv 2406.18665, section 2.
    """
    return _area(pgr(score, weak, strong))


def apgr_interval(
    score: ArrayLike, weak: ArrayLike, strong: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of `apgr`: percentiles over draws of as many rows with replacement.

    Args:
        score: As for `pgr`.
        weak: As for `pgr`.
        strong: As for `pgr`.
        draws: How many, > 0. Those in which the strong model is not the better one are left out.
        seed: Seed of the draws.

    Returns:
        Lower and upper end; NaN where no draw has a gap.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", section 13.3.
    """
    import numpy

    ranking = _Ranking(score, weak, strong)
    n = len(ranking.order)
    random = numpy.random.default_rng(seed)
    areas = [_area(ranking.curve(numpy.bincount(random.integers(0, n, n), minlength=n))) for _ in range(draws)]
    found = [area for area in areas if area == area]
    if not found:
        return float("nan"), float("nan")
    low, high = numpy.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def share_above(
    score: ArrayLike, rival: ArrayLike, weak: ArrayLike, strong: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> float:
    """How sure it is that a score is better than another one and than chance.

    Args:
        score: As for `pgr`.
        rival: Another score of the same rows.
        weak: As for `pgr`.
        strong: As for `pgr`.
        draws: Draws of as many rows with replacement, > 0.
        seed: Seed of the draws.

    Returns:
        Share of the draws in which its `apgr` is above the rival's and above .5, in [0, 1]; a draw without a gap counts
        against it.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", section 16.4, paired by row.
    """
    import numpy

    own, other = _Ranking(score, weak, strong), _Ranking(rival, weak, strong)
    n = len(own.order)
    random = numpy.random.default_rng(seed)
    above = 0
    for _ in range(draws):
        weights = numpy.bincount(random.integers(0, n, n), minlength=n)
        above += _area(own.curve(weights)) > max(0.5, _area(other.curve(weights)))
    return above / draws


def cpt(target: float, score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """Call-performance threshold: the smallest share of strong calls that recovers so much of the gap.

    Args:
        target: Gap to recover, in [0, 1]: .5 for CPT(50).
        score: As for `pgr`.
        weak: As for `pgr`.
        strong: As for `pgr`.

    Returns:
        A share in [0, 1], by straight lines between the points of `pgr`; NaN without a gap.

    Source: Ong et al., "RouteLLM", arXiv 2406.18665, section 2.
    """
    curve = pgr(score, weak, strong).tolist()
    if curve[-1] != curve[-1]:
        return float("nan")
    if curve[0] >= target:
        return 0.0
    place = next(at for at, value in enumerate(curve) if value >= target)
    below, above = curve[place - 1], curve[place]
    return float((place - 1 + (target - below) / (above - below)) / BINS)


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """Probability that a row whose label is true has a higher score than one whose label is not; ties count half.

    Args:
        score: Shape ``(n,)``.
        label: Shape ``(n,)``, 0 or 1.

    Returns:
        In [0, 1]; NaN where all labels are one.
    """
    import numpy

    is_true = numpy.asarray(label, dtype=bool)
    n_true, n_false = int(is_true.sum()), int((~is_true).sum())
    if not n_true or not n_false:
        return float("nan")
    _, place, count = numpy.unique(numpy.asarray(score), return_inverse=True, return_counts=True)
    middle = (numpy.cumsum(count) - (count - 1) / 2)[place]  # of rows of one score, their mean rank
    return float((middle[is_true].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's rank correlation in its form for ties, tau-b.

    Args:
        a: Shape ``(n,)``.
        b: Shape ``(n,)``.

    Returns:
        In [-1, 1]; NaN where all values of a side are equal.

    Source: Knight 1966, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data": pairs in wrong order are
    the exchanges of a merge sort. Here every round of merges is one sort of all rows: O(n log^2 n), without a loop
    over rows.
    """
    import numpy

    left = numpy.unique(numpy.asarray(a), return_inverse=True)[1]
    right = numpy.unique(numpy.asarray(b), return_inverse=True)[1]
    n = len(left)
    pairs = n * (n - 1) // 2
    tied_left, tied_right = _tied(left), _tied(right)
    tied_both = _tied(left * (n + 1) + right)
    scale = float(pairs - tied_left) * float(pairs - tied_right)
    if scale <= 0:
        return float("nan")
    wrong = _inversions(right[numpy.lexsort((right, left))])
    return float((pairs - tied_left - tied_right + tied_both - 2 * wrong) / scale**0.5)


def reliability(predicted: ArrayLike, observed: ArrayLike, *, bins: int = BINS) -> tuple[Bin, ...]:
    """Predicted probabilities beside what came: bins of about as many rows each, lowest predictions first.

    Args:
        predicted: Shape ``(n,)``, in [0, 1].
        observed: Shape ``(n,)``, outcomes in [0, 1].
        bins: At most so many; rows of one prediction are never parted.
    """
    import numpy

    p, outcome = numpy.asarray(predicted, numpy.float64), numpy.asarray(observed, numpy.float64)
    if not len(p):
        return ()
    edges = numpy.unique(numpy.quantile(p, numpy.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    place = numpy.searchsorted(edges, p)
    rows = [numpy.flatnonzero(place == at) for at in range(len(edges) + 1)]
    return tuple(Bin(float(p[row].mean()), float(outcome[row].mean()), len(row)) for row in rows if len(row))


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean distance of what was predicted from what came, each bin by its rows; 0 for none.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2.
    """
    return sum(one.n * abs(one.predicted - one.observed) for one in bins) / max(1, sum(one.n for one in bins))


class _Ranking:
    """Rows in falling order of their score, with what the strong model adds in each."""

    def __init__(self, score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> None:
        import numpy

        scores = numpy.asarray(score, numpy.float64)
        self.order = numpy.argsort(-scores, kind="stable")
        self._gain = (numpy.asarray(strong, numpy.float64) - numpy.asarray(weak, numpy.float64))[self.order]
        ranked = scores[self.order]
        # The last row of each group of equal scores: between two ends the expected gain is a straight line.
        self._ends = numpy.append(numpy.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)

    def curve(self, weights: NDArray[np.float64] | NDArray[np.intp]) -> NDArray[np.float64]:
        """PGR by share, where each row counts as many times as its weight says."""
        import numpy

        ranked = weights[self.order]
        rows = numpy.append(0.0, numpy.cumsum(ranked)[self._ends])
        gain = numpy.append(0.0, numpy.cumsum(ranked * self._gain)[self._ends])
        # A millionth of a row: sums of scores such as .1 leave rests of 1e-16 where there is no gap.
        if not gain[-1] > 1e-6:
            return numpy.full(BINS + 1, numpy.nan)
        curve: NDArray[np.float64] = numpy.interp(numpy.linspace(0, rows[-1], BINS + 1), rows, gain) / gain[-1]
        return curve


def _area(curve: NDArray[np.float64]) -> float:
    return float((curve[1:] + curve[:-1]).sum() / 2 / BINS)


def _tied(values: NDArray[np.intp]) -> int:
    """Pairs of equal values."""
    import numpy

    count = numpy.unique(values, return_counts=True)[1]
    return int((count * (count - 1) // 2).sum())


def _inversions(values: NDArray[np.intp]) -> int:
    """Pairs of which the first is the greater."""
    import numpy

    n, found, width = len(values), 0, 1
    rows = numpy.arange(n)
    while width < n:
        block, is_right = rows // (2 * width), rows // width % 2
        # Within a pair of blocks, by value, the left one first among equals: so a right one stands behind exactly
        # those left ones that are not greater.
        order = numpy.lexsort((is_right, values, block))
        lefts = numpy.cumsum(1 - is_right[order])
        ends = numpy.append(numpy.flatnonzero(numpy.diff(block)), n - 1)
        until_end = lefts[ends][block[order]]
        found += int(((until_end - lefts) * is_right[order]).sum())
        width *= 2
    return found
