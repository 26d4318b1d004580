"""The learner: from a question's vector, inner layers and text features to each model's score and length of answer.

::

    x        = vector * sqrt(dim), (layers, features - mean) / deviation, clipped to [-4, 4]
    kinds    = the first components of what all models scored, by ridge regression on x: what kind of question is it?
    linear   = ridge regression on x: of how hard the question is for all models, and of how far each model is off that
    forest   = trees over features, kinds, linear and the first 24 principal components of x, where what the
               regressions say of a row comes from other rows
    score    = linear / 4 + forest * 3 / 4, clipped to [0, 1]
    length   = a larger forest, for the logarithm of the answer's length, in tokens, plus one

Scores are noisy, and some of the regression steadies them; lengths are not, and it is an input of the trees already.

All models of a log teach how hard a question is, also those that nobody will be sent to.

Source: stacking, Wolpert, "Stacked generalization", Neural Networks 5, 1992; components of a matrix with gaps,
Troyanskaya et al., "Missing value estimation methods for DNA microarrays", Bioinformatics 17, 2001 (SVDimpute).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .forest import Forest
from .ridge import Ridge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.outcomes import Outcomes

    from .prior import Prior

__all__ = ["LIMIT", "Fitted", "Inputs", "Side", "fit"]

LIMIT = 4.0
"""Deviations from its mean that a feature counts for at most."""

_LEAST_ROWS = 2
_LEAST_FOREST_ROWS = 200  # below it trees follow single rows
_LEAVES, _LEAF_ROWS, _MOST_LEAVES, _TRUST = 64, 15, 400, 0.75
_LENGTH_LEAVES, _LENGTH_LEAF_ROWS = 300, 3
_KINDS, _COMPONENTS = 4, 24
_ROUNDS = 5
_KEPT = 0.9  # of what was filled into a gap, in each round


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a head sees of ``n`` questions.

    Attributes:
        vectors: Shape ``(n, d)``, float32, rows of unit length.
        features: Shape ``(n, F)``, float32, see `llm_proxy.route.features`.
        layers: Shape ``(n, k)``, float32, see `llm_proxy.encode.base.Encoding`; k may be 0.
    """

    vectors: NDArray[np.float32]
    features: NDArray[np.float32]
    layers: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, chosen: NDArray[np.intp]) -> Inputs:
        """The same with some rows only."""
        return Inputs(self.vectors[chosen], self.features[chosen], self.layers[chosen])


@dataclass(frozen=True, slots=True)
class Side:
    """What was learnt of one thing, scores or lengths, of ``M`` models.

    Attributes:
        weights: Shape ``(d + k + F, K)``, float32: of the models, of the kinds of questions, of the components.
        bias: Shape ``(K,)``, float32.
        forest: Over features and what the regressions say; None where there were too few rows.
        trust: How much of the prediction is the forest's, in (0, 1]; the rest is the regression's.
        prior: What is added, see `llm_proxy.route.train.prior`: weights, shape ``(d + k + F, M)``, and bias, shape
            ``(M,)``, float32; None for nothing.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    forest: Forest | None
    trust: float
    prior: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def predict(self, x: NDArray[np.float32], features: NDArray[np.float32], models: int) -> NDArray[np.float32]:
        """Of each row and model, shape ``(n, models)``, float32."""
        import numpy

        linear = x @ self.weights + self.bias
        found = linear[:, :models]
        if self.forest is not None:
            trees = self.forest.predict(numpy.concatenate([features, linear], axis=1))
            found = found + self.trust * (trees - found)
        if self.prior is not None:
            found = found + x @ self.prior[0] + self.prior[1]
        return found.astype(numpy.float32)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learnt of ``M`` models.

    Attributes:
        models: Names.
        mean: Shape ``(k + F,)``, float32, of layers and features.
        deviation: Shape ``(k + F,)``, float32, > 0.
        scores: Of ``p_good``.
        lengths: Of ``log_tokens``; None where no lengths were seen.
        has_tokens: Of each model, whether lengths of its answers were seen.
    """

    models: tuple[str, ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    scores: Side
    lengths: Side | None
    has_tokens: tuple[bool, ...]

    def predict(self, inputs: Inputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What to expect of each model's answers.

        Returns:
            ``p_good``, shape ``(n, M)``, float32, in [0, 1]; and ``log_tokens``, shape ``(n, M)``, float32, natural
            logarithm of one more than the length; NaN where `has_tokens` is false.
        """
        import numpy

        x, models = _scaled(inputs, self.mean, self.deviation), len(self.models)
        p_good = self.scores.predict(x, inputs.features, models).clip(0, 1)
        nothing = numpy.full_like(p_good, numpy.nan)
        if self.lengths is None:
            return p_good, nothing
        logs = self.lengths.predict(x, inputs.features, models)
        return p_good, numpy.where(self.has_tokens, logs, nothing)


def fit(outcomes: Outcomes, inputs: Inputs, models: Sequence[str] = (), prior: Prior | None = None) -> Fitted:
    """Learn from outcomes.

    Args:
        outcomes: ``n`` rows; a model counts where it was asked.
        inputs: ``n`` rows.
        models: Whom to learn; none for all of `outcomes`. The others help to tell how hard a question is.
        prior: What is known before; it fades as rows grow in number.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    import numpy

    wanted = tuple(models) or outcomes.models
    places = numpy.array([outcomes.models.index(name) for name in wanted])
    facts = numpy.concatenate([inputs.layers, inputs.features], axis=1)
    mean, deviation = facts.mean(axis=0), facts.std(axis=0) + numpy.float32(1e-6)
    x = _scaled(inputs, mean, deviation)
    has_tokens = (~numpy.isnan(outcomes.tokens[:, places])).sum(axis=0) >= _LEAST_ROWS
    ridges = _Ridges(x)
    scores = _side(ridges, inputs.features, outcomes.scores.astype(numpy.float64), places, is_noisy=True)
    if prior is not None:
        means = _means(outcomes.scores[:, places].astype(numpy.float64))
        scores = replace(scores, prior=prior.lines(x, deviation, means))
    logs = numpy.log1p(outcomes.tokens).astype(numpy.float64)
    lengths = _side(ridges, inputs.features, logs, places, is_noisy=False) if has_tokens.any() else None
    return Fitted(wanted, mean, deviation, scores, lengths, tuple(has_tokens.tolist()))


def _scaled(inputs: Inputs, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy

    facts = numpy.concatenate([inputs.layers, inputs.features], axis=1)
    scaled = ((facts - mean) / deviation).clip(-LIMIT, LIMIT)
    direction = inputs.vectors * numpy.float32(inputs.vectors.shape[1] ** 0.5)
    return numpy.concatenate([direction, scaled], axis=1, dtype=numpy.float32)


class _Ridges:
    """Decomposed rows, by which of them there are: the same rows are asked for again and again."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.x = x
        self._known: dict[bytes, Ridge] = {}

    def of(self, is_there: NDArray[np.bool_]) -> Ridge:
        """The ridge regression of some rows."""
        key = is_there.tobytes()
        if key not in self._known:
            self._known[key] = Ridge(self.x[is_there])
        return self._known[key]


def _side(
    ridges: _Ridges,
    features: NDArray[np.float32],
    targets: NDArray[np.float64],
    places: NDArray[np.intp],
    *,
    is_noisy: bool,
) -> Side:
    """Learn the columns ``places`` of targets with gaps (NaN)."""
    import numpy

    known = ~numpy.isnan(targets)
    if not known.any():  # a log of lengths alone
        nothing = numpy.zeros((ridges.x.shape[1] + 1, len(places)), numpy.float32)
        return Side(nothing[1:], nothing[0], None, 1.0)
    centered = targets - _means(targets)
    hardness = _row_means(centered)
    asked: NDArray[np.bool_] = numpy.asarray(known.any(axis=1))
    kinds = ridges.of(asked).fit(_kinds(centered[asked]))
    size = len(places)
    shape, shift = ridges.of(asked).components(_COMPONENTS)
    weights = numpy.concatenate([numpy.zeros((len(shape), size)), kinds.weights, shape], axis=1)
    bias = numpy.concatenate([numpy.zeros(size), kinds.bias, shift])
    without = ridges.x @ weights + bias  # of the rows that a regression did not see, what it says of them
    without[asked, size : size + len(kinds.bias)] = kinds.without
    for rows, columns in _alike(known[:, places]):
        ridge, shared = ridges.of(rows), hardness[rows][:, None]
        own = ridge.fit(numpy.repeat(shared, len(columns), axis=1)) + ridge.fit(
            targets[rows][:, places[columns]] - shared
        )
        weights[:, columns], bias[columns] = own.weights, own.bias
        without[:, columns] = ridges.x @ own.weights + own.bias
        without[numpy.ix_(rows, columns)] = own.without
    forest = None
    if asked.sum() >= _LEAST_FOREST_ROWS:
        seen = numpy.concatenate([features, without], axis=1, dtype=numpy.float32)
        filled = numpy.where(known, targets, 0.0)[:, places]
        filled = numpy.where(known[:, places], filled, without[:, :size])
        forest = _grown(seen[asked], filled[asked], is_noisy=is_noisy)
    return Side(weights.astype(numpy.float32), bias.astype(numpy.float32), forest, _TRUST if is_noisy else 1.0)


def _grown(seen: NDArray[np.float32], targets: NDArray[np.float64], *, is_noisy: bool) -> Forest:
    if is_noisy:
        return Forest(seen, targets, leaves=_LEAVES, least_rows=max(_LEAF_ROWS, len(seen) // _MOST_LEAVES))
    return Forest(seen, targets, leaves=_LENGTH_LEAVES, least_rows=_LENGTH_LEAF_ROWS)


def _alike(known: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """Columns that are known in the same rows, with these rows: one decomposition serves them all."""
    import numpy

    _, place = numpy.unique(known, axis=1, return_inverse=True)
    for at in range(int(place.max()) + 1):
        columns = numpy.flatnonzero(place.ravel() == at)
        rows = known[:, columns[0]]
        if rows.sum() >= _LEAST_ROWS:
            yield rows, columns


def _means(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column, over what is known; 0 for nothing."""
    import numpy

    known = ~numpy.isnan(targets)
    means: NDArray[np.float64] = numpy.where(known, targets, 0).sum(axis=0) / known.sum(axis=0).clip(1)
    return means


def _row_means(centered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, over what is known; 0 for nothing."""
    return _means(centered.T)


def _kinds(centered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first components of a centered matrix with gaps, shape ``(n, kinds)``, each of about unit variance."""
    import numpy

    known = ~numpy.isnan(centered)
    filled = numpy.where(known, centered, 0.0)
    size = min(_KINDS, *filled.shape)
    for _ in range(_ROUNDS):
        _, _, basis = numpy.linalg.svd(filled, full_matrices=False)
        found = filled @ basis[:size].T
        filled = numpy.where(known, centered, found @ basis[:size] * _KEPT)
    found = filled @ basis[:size].T
    kinds: NDArray[np.float64] = found / (found.std(axis=0) + 1e-9)
    return kinds
