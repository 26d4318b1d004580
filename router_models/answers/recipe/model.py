"""The scorer as scikit-learn fits it: a line over both vectors, trees over its word and the features, a calibration.

The line is fitted on four fifths of the questions and speaks for the fifth, in turn, so that the trees learn how far it
can be trusted on questions that it has not seen. What a user may lack is hidden from the trees in some of the rows: the
vectors in a fifth of them, what a head foretold (`p_good`) in half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from llm_proxy.route.answers import FEATURES

from .data import Array, Marked

Floats = NDArray[np.float64]

FOLDS = 5
P_GOOD = FEATURES.index("p_good")
_HIDDEN_VECTORS, _HIDDEN_P_GOOD = 0.2, 0.5
_LINE = {"C": 0.2, "max_iter": 400}
_TREES = {
    "max_iter": 300,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 40,
    "l2_regularization": 5.0,
    "max_features": 0.4,
    "early_stopping": False,
}


@dataclass(frozen=True, slots=True)
class Scorer:
    """A fitted scorer: ``sigmoid(slope * trees([features, line(vectors)]) + offset)``."""

    weights: Floats
    bias: float
    trees: HistGradientBoostingClassifier
    columns: tuple[int, ...]
    slope: float
    offset: float

    def line(self, rows: Marked) -> Floats:
        """What the vectors say, a logit; shape ``(n,)``."""
        return _both(rows) @ self.weights + self.bias

    def logits(self, features: Array, line: Floats) -> Floats:
        """The calibrated logit of a right answer; NaN in either argument is what is not known."""
        known = np.column_stack([features[:, self.columns], line])
        return self.slope * self.trees.decision_function(known) + self.offset


def fit(rows: Marked, *, seed: int = 0) -> Scorer:
    """Fit on these answers alone."""
    chance = np.random.default_rng(seed)
    folds = (rows.places * 1e6).astype(int) % FOLDS
    line, p_good = np.zeros(len(rows)), np.zeros(len(rows))
    for fold in range(FOLDS):
        known, other = rows.rows(folds != fold), rows.rows(folds == fold)
        weights, bias = _line(known)
        line[folds == fold] = _both(other) @ weights + bias
        p_good[folds == fold] = foretold(known, other)
    line[chance.random(len(rows)) < _HIDDEN_VECTORS] = np.nan
    p_good[chance.random(len(rows)) < _HIDDEN_P_GOOD] = np.nan
    features = rows.features.copy()
    features[:, P_GOOD] = p_good
    columns = tuple(int(place) for place in np.flatnonzero(~np.isnan(features).all(axis=0)))
    known = np.column_stack([features[:, columns], line])
    slope, offset = _calibration(known, rows, folds, seed)
    return Scorer(*_line(rows), _trees(seed).fit(known, rows.is_good), columns, slope, offset)


def foretold(known: Marked, other: Marked) -> Floats:
    """What the questions alone let expect of each model in ``other``: a ridge per model, as a head would say it."""
    said = np.full(len(other), np.nan)
    for model in np.unique(other.models):
        chosen = other.models == model
        own = known.rows(known.models == model)
        if len(own):
            ridge = Ridge(10.0).fit(own.questions, own.is_good)
            said[chosen] = np.clip(ridge.predict(other.questions[chosen]), 0.02, 0.98)
    return said


def _line(rows: Marked) -> tuple[Floats, float]:
    found = LogisticRegression(**_LINE).fit(_both(rows), rows.is_good)
    return found.coef_[0].astype(np.float64), float(found.intercept_[0])


def _both(rows: Marked) -> Array:
    return np.hstack([rows.questions, rows.answers])


def _trees(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**_TREES, random_state=seed)


def _calibration(known: Floats, rows: Marked, folds: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Slope and offset of the trees' logits on questions that they have not seen: two thirds fit, one is looked at."""
    held = folds % 3 == 0
    trees = _trees(seed).fit(known[~held], rows.is_good[~held])
    found = LogisticRegression(C=1e6).fit(trees.decision_function(known[held])[:, None], rows.is_good[held])
    return float(found.coef_[0, 0]), float(found.intercept_[0])
