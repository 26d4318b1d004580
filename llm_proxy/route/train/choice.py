"""What a choice among all models would have scored and cost on a log, beside each model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.route.calibrate import expected_usd, for_score, mean_tokens, true_usd, within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.outcomes import Outcomes

__all__ = ["Choice", "Routed", "Single", "choice_of", "foreseen_usd"]

USUAL_QUALITY = 0.95
_LONGEST_LOG = 12.0  # a hundred and sixty thousand tokens


@dataclass(frozen=True, slots=True)
class Single:
    """One model asked for everything: its name, mean score in [0, 1], and mean cost of a call in dollars."""

    model: str
    score: float
    usd: float


@dataclass(frozen=True, slots=True)
class Routed:
    """A choice among all by a tolerance.

    Attributes:
        quality: The tolerance, in (0, 1].
        score: Mean, in [0, 1].
        usd: Mean cost of a call, dollars.
        calls: Share of the calls by model, in their order.
    """

    quality: float
    score: float
    usd: float
    calls: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Every way to choose, on the rows in which all models have a score.

    Attributes:
        n: Rows.
        singles: Each model alone.
        best: Name of the one of the highest score.
        routed: The choice by the default tolerance, and by the one that is foreseen to keep 95 % of the best's score.
    """

    n: int
    singles: tuple[Single, ...]
    best: str
    routed: tuple[Routed, ...]


def choice_of(
    outcomes: Outcomes,
    p_good: NDArray[np.float32],
    log_tokens: NDArray[np.float32],
    prices: Sequence[tuple[float, float]],
) -> Choice | None:
    """What choosing would have been worth.

    Args:
        outcomes: ``n`` rows, ``M`` models.
        p_good: Shape ``(n, M)``, by learners that did not see the row.
        log_tokens: Shape ``(n, M)``, likewise; NaN for the usual length.
        prices: Of each model, dollars per million prompt tokens and answer tokens; none for what the log itself says.

    Returns:
        None where no row has scores of all models.

    Raises:
        ConfigError: There are no prices, and the log does not say what each answer cost.
    """
    import numpy

    rows = outcomes.asked()
    rows = rows[~numpy.isnan(p_good[rows]).any(axis=1)]
    if not len(rows):
        return None
    some, p, usual = outcomes.rows(rows), p_good[rows], mean_tokens(outcomes)
    usd = true_usd(some, prices, usual)
    # Where the log says what it cost, it says nothing of what was foreseen: the mean is.
    foreseen = (
        foreseen_usd(some, log_tokens[rows], prices) if prices else numpy.broadcast_to(usd.mean(axis=0), usd.shape)
    )
    singles = tuple(
        Single(model, float(some.scores[:, at].mean()), float(usd[:, at].mean()))
        for at, model in enumerate(outcomes.models)
    )
    tolerances = (USUAL_QUALITY, for_score(p, foreseen, USUAL_QUALITY).value)
    routed = tuple(_routed(some, within(p, foreseen, quality), usd, quality) for quality in dict.fromkeys(tolerances))
    return Choice(len(rows), singles, max(singles, key=lambda one: one.score).model, routed)


def foreseen_usd(
    outcomes: Outcomes, log_tokens: NDArray[np.float32], prices: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """What answers are foreseen to cost: the prompt is known, the length of an answer is predicted.

    Args:
        outcomes: ``n`` rows, ``M`` models.
        log_tokens: Shape ``(n, M)``; see `Fitted.predict`. NaN for the usual length.
        prices: Of each model, dollars per million prompt tokens and answer tokens.

    Returns:
        Shape ``(n, M)``, float64, dollars.
    """
    import numpy

    lengths = numpy.expm1(log_tokens.clip(0, _LONGEST_LOG))
    tokens = numpy.where(numpy.isnan(lengths), mean_tokens(outcomes), lengths)
    return expected_usd(outcomes.prompt_tokens, tokens.astype(numpy.float32), prices)


def _routed(outcomes: Outcomes, chosen: NDArray[np.intp], usd: NDArray[np.float64], quality: float) -> Routed:
    import numpy

    rows = numpy.arange(len(chosen))
    return Routed(
        quality=quality,
        score=float(outcomes.scores[rows, chosen].mean()),
        usd=float(usd[rows, chosen].mean()),
        calls=tuple((numpy.bincount(chosen, minlength=len(outcomes.models)) / len(chosen)).tolist()),
    )
