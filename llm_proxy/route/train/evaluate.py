"""Predictions for rows by models that did not see them: folds of rows, and folds of whole groups."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.route.features import FEATURES, text_features

from .fit import Fitted, Inputs, fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.outcomes import Outcomes

    from .prior import Prior

__all__ = ["Encoded", "features_of", "group_folds", "out_of_fold", "prompt_folds"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Outcomes with what a head sees of their prompts.

    Attributes:
        outcomes: ``n`` rows.
        inputs: ``n`` rows.
        prior: What is known before.
    """

    outcomes: Outcomes
    inputs: Inputs
    prior: Prior | None = None

    def rows(self, chosen: NDArray[np.intp]) -> Encoded:
        """The same with some rows only."""
        return Encoded(self.outcomes.rows(chosen), self.inputs.rows(chosen), self.prior)

    def fit(self, models: Sequence[str] = ()) -> Fitted:
        """What is learnt from them of some models, or of all; the others help to tell how hard a question is."""
        return fit(self.outcomes, self.inputs, models, self.prior)


def features_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """The text features of many texts; see `llm_proxy.route.features`.

    Returns:
        Shape ``(len(texts), F)``, float32.
    """
    import numpy

    return numpy.array(list(map(text_features, texts)), numpy.float32).reshape(len(texts), len(FEATURES))


def prompt_folds(prompts: Sequence[str], folds: int) -> NDArray[np.intp]:
    """The fold of each prompt, by its SHA-256: the same in whatever order a log is.

    Args:
        prompts: ``n`` texts, no two alike.
        folds: > 1.

    Returns:
        Shape ``(n,)``, in [0, folds).
    """
    import numpy

    digests = (hashlib.sha256(prompt.encode()).digest() for prompt in prompts)
    return numpy.array([int.from_bytes(digest[8:16], "big") % folds for digest in digests], numpy.intp)


def group_folds(groups: Sequence[str], folds: int = 5) -> list[set[str]]:
    """Groups shared out among at most so many folds of about as many rows; none without two groups.

    Args:
        groups: Group of each row; rows without one are a group of their own.
        folds: > 1.
    """
    counts = Counter(groups)
    if len(counts) < 2:
        return []
    found: list[set[str]] = [set() for _ in range(min(folds, len(counts)))]
    sizes = [0] * len(found)
    for group, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        least = sizes.index(min(sizes))
        found[least].add(group)
        sizes[least] += count
    return found


def out_of_fold(
    log: Encoded,
    fold: NDArray[np.intp],
    models: Sequence[str] = (),
    *,
    step: Callable[[int], None] = lambda done: None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each row is predicted by the learner that saw the other folds.

    Args:
        log: ``n`` rows.
        fold: Shape ``(n,)``: of each row.
        models: ``M`` names; none for all models of the log.
        step: Called with the number of folds that are done.

    Returns:
        ``p_good`` and ``log_tokens``, each of shape ``(n, M)``; see `Fitted.predict`. NaN in a fold beside which there
        are no rows.
    """
    import numpy

    shape = (len(log.outcomes), len(models or log.outcomes.models))
    p_good, log_tokens = numpy.full(shape, numpy.nan, numpy.float32), numpy.full(shape, numpy.nan, numpy.float32)
    for done, at in enumerate(numpy.unique(fold).tolist(), 1):
        seen, held = numpy.flatnonzero(fold != at), numpy.flatnonzero(fold == at)
        if len(seen):
            p_good[held], log_tokens[held] = log.rows(seen).fit(models).predict(log.inputs.rows(held))
        step(done)
    return p_good, log_tokens
