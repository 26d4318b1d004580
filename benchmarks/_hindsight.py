"""How far a choice between two models could get if one knew how all others did on the same question.

A router sees the question alone. What other models scored on it says more of how hard it is than any reading of it
could, so what is learnt from their scores is a mark that a router by the question hardly passes; no bound is proved.
Much of what is left beyond it is chance in the two models' own answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_proxy.route import metrics
from llm_proxy.route.train.forest import Forest
from llm_proxy.route.train.ridge import Ridge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.outcomes import Outcomes
    from llm_proxy.route.train.evaluate import Encoded

__all__ = ["others_known_apgr"]

_LEAVES, _LEAST_ROWS = 64, 10


def others_known_apgr(train: Encoded, test: Encoded, weak: str, strong: str) -> float | None:
    """APGR of the mean of a ridge and of trees that read the other models' scores; a missing score is the mean.

    Args:
        train: What is learnt from.
        test: What is measured on, with scores of the same models.
        weak: Name of the one model.
        strong: Name of the other.

    Returns:
        None where the two files have no third model in common.
    """
    import numpy

    others = [name for name in train.outcomes.models if name in test.outcomes.models and name not in (weak, strong)]
    if not others:
        return None
    known, seen = (side.rows(side.outcomes.of(weak, strong).asked()).outcomes for side in (train, test))
    scores = known.of(*others).scores
    has = ~numpy.isnan(scores)
    mean = numpy.where(has, scores, 0).sum(axis=0) / has.sum(axis=0).clip(1)
    learnt, asked = (_filled(side, others, mean) for side in (known, seen))
    targets = known.of(weak, strong).scores.astype(numpy.float64)
    ridge = Ridge(learnt).fit(targets)
    forest = Forest(learnt, targets, leaves=_LEAVES, least_rows=_LEAST_ROWS)
    said = (asked @ ridge.weights + ridge.bias + forest.predict(asked)) / 2
    return metrics.apgr(said[:, 1] - said[:, 0], *seen.of(weak, strong).scores.T)


def _filled(outcomes: Outcomes, names: list[str], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy

    scores = outcomes.of(*names).scores
    return (numpy.where(numpy.isnan(scores), mean, scores) - mean).astype(numpy.float32)
