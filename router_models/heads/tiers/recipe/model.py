"""The head of tiers: how hard a question is, learnt from many models, and its length; in numbers of two tiers.

::

    x       = as in `llm_proxy.route.train.fit`: vector, layers, features, scaled
    hard    = ridge regression on x of how hard a question is for the models of its set
    s       = hard / its deviation within a set + log(1 + chars) / its deviation within a set, then of unit deviation
    weak    = mean score of the worst third of a set's models, by s, with a level for each set
    strong  = likewise of the best third
    middle  = half way

What one model gains over another does not carry over from set to set; how hard a question is does, and so does that
longer prompts need the stronger model. Both count alike: it is the one choice that was made by the figures of the card.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llm_proxy.route.features import FEATURES
from llm_proxy.route.tiers import TIERS
from llm_proxy.route.train.fit import LIMIT, Fitted, Inputs, Side

from .data import Rated

_PENALTY = 30_000.0
_LEAST_MORE = 0.02  # by how much the weak tier falls faster than the strong one, for a deviation of s

Matrix = NDArray[np.float64]


def fit(sets: list[Rated]) -> Fitted:
    """Learn the tiers; a set counts by the root of its rows."""
    facts = np.concatenate([_facts(one.log.inputs) for one in sets])
    mean, deviation = facts.mean(axis=0), facts.std(axis=0) + np.float32(1e-6)
    x = [_scaled(one.log.inputs, mean, deviation) for one in sets]
    weights = _hardness(x, sets)
    chars = x[0].shape[1] - len(FEATURES) + FEATURES.index("chars")
    weights /= _within([rows @ weights for rows in x])
    weights[chars] += 1.0 / _within([rows[:, chars] for rows in x])
    said = [rows @ weights for rows in x]
    weights, said = weights / _within(said), [one / _within(said) for one in said]
    level = float(np.mean([one.mean() for one in said]))
    lines = np.array([_line(said, [one.weak for one in sets]), _line(said, [one.strong for one in sets])])
    lines[0, 1] = min(lines[0, 1], lines[1, 1] - _LEAST_MORE)
    lines = np.array([lines[0], lines.mean(axis=0), lines[1]])
    side = Side(
        np.outer(weights, lines[:, 1]).astype(np.float32),
        (lines[:, 0] - level * lines[:, 1]).astype(np.float32),
        None,
        1.0,
    )
    return Fitted(TIERS, mean, deviation, side, None, (False,) * len(TIERS))


def _facts(inputs: Inputs) -> NDArray[np.float32]:
    return np.concatenate([inputs.layers, inputs.features], axis=1)


def _scaled(inputs: Inputs, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> Matrix:
    scaled = ((_facts(inputs) - mean) / deviation).clip(-LIMIT, LIMIT)
    return np.concatenate([inputs.vectors * inputs.vectors.shape[1] ** 0.5, scaled], axis=1).astype(np.float64)


def _hardness(x: list[Matrix], sets: list[Rated]) -> Matrix:
    """Weights of a ridge regression of hardness."""
    rows, target = np.concatenate(x), np.concatenate([one.hardness for one in sets])
    each = np.concatenate([np.full(len(one), len(one) ** -0.5) for one in sets])
    each /= each.mean()
    rows, target = rows - np.average(rows, axis=0, weights=each), target - np.average(target, weights=each)
    weighed = rows * each[:, None]
    found: Matrix = np.linalg.solve(weighed.T @ rows + _PENALTY * np.eye(rows.shape[1]), weighed.T @ target)
    return found


def _within(columns: list[Matrix]) -> float:
    """The standard deviation within a set, sets counting alike."""
    return float(np.mean([column.var() for column in columns]) ** 0.5)


def _line(said: list[Matrix], scores: list[Matrix]) -> tuple[float, float]:
    """Mean of the sets' means, and the slope within them, sets counting alike."""
    means, products, squares = [], [], []
    for one, score in zip(said, scores, strict=True):
        known = ~np.isnan(score)
        apart = one[known] - one[known].mean()
        means.append(score[known].mean())
        products.append((apart * score[known]).mean())
        squares.append((apart**2).mean())
    return float(np.mean(means)), float(np.mean(products) / np.mean(squares))
