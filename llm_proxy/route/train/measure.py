"""What a learner is worth on a log: figures of predictions by learners that did not see the row, beside the baselines.

A head is worth having where it recovers more of the gap between two models than the length of the prompt does, and than
chance: in at least 95 % of the draws of a bootstrap over rows, both by the same draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.errors import ConfigError
from llm_proxy.route import metrics

from .baselines import length_scores, word_scores
from .evaluate import Encoded, group_folds, out_of_fold, prompt_folds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.outcomes import Outcomes

__all__ = [
    "LEAST_ROWS",
    "Measured",
    "ModelFigures",
    "PairFigures",
    "both_asked",
    "measure",
    "model_figures",
    "pair_figures",
]

LEAST_ROWS = 20
"""Fewer rows teach nothing."""

_DRAWS = 1000
_SURE = 0.95


@dataclass(frozen=True, slots=True)
class PairFigures:
    """How well the choice between two models is made; see `llm_proxy.route.metrics`. NaN where there is no gap.

    Attributes:
        weak: Name.
        strong: Name.
        n: Rows in which both have a score.
        weak_score: Mean, in [0, 1].
        strong_score: Mean, in [0, 1].
        apgr: Of the head.
        apgr_low95: Lower end of its interval.
        apgr_high95: Upper end.
        cpt50: Share of strong calls that recovers half of the gap.
        cpt80: Share that recovers 80 %.
        length_apgr: Of the length of the prompt.
        tfidf_apgr: Of TF-IDF with a logistic regression; NaN where it was not measured.
        random_apgr: Of chance.
        group_out_apgr: Of the head on kinds of questions that it did not see; NaN where the log has no groups.
        beats_length: Share of bootstrap draws in which the head has more than length and chance, in [0, 1]; of length
            in the direction that is better here.
    """

    weak: str
    strong: str
    n: int
    weak_score: float
    strong_score: float
    apgr: float
    apgr_low95: float
    apgr_high95: float
    cpt50: float
    cpt80: float
    length_apgr: float
    tfidf_apgr: float
    random_apgr: float
    group_out_apgr: float
    beats_length: float

    @property
    def is_worth_it(self) -> bool:
        """Whether the head is better than the length of the prompt, beyond doubt."""
        return self.beats_length >= _SURE


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """How well one model's answers are foreseen.

    Attributes:
        model: Name.
        n: Rows in which it has a score.
        score: Mean, in [0, 1].
        auc: Of ``p_good`` against a score of .5 or more; NaN where all are on one side.
        group_out_auc: The same on kinds of questions that were not seen; NaN where the log has no groups.
        calibration_error: Mean distance of ``p_good`` from what came.
        bins: Of the reliability plot.
        length_tau: Kendall's tau-b of predicted and real lengths; NaN where there are no lengths.
    """

    model: str
    n: int
    score: float
    auc: float
    group_out_auc: float
    calibration_error: float
    bins: tuple[metrics.Bin, ...]
    length_tau: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of a training.

    Attributes:
        pair: Of the weakest and the strongest model.
        models: Of each model.
        folds: Folds of rows.
        p_good: Shape ``(n, M)``, float32: by learners that did not see the row.
        log_tokens: Shape ``(n, M)``, float32, likewise.
    """

    pair: PairFigures
    models: tuple[ModelFigures, ...]
    folds: int
    p_good: NDArray[np.float32]
    log_tokens: NDArray[np.float32]


def measure(
    log: Encoded, weak: str, strong: str, *, folds: int = 5, step: Callable[[int], None] = lambda done: None
) -> Measured:
    """Cross-validate the learner on a log.

    Args:
        log: With ``n`` rows.
        weak: Name of a model.
        strong: Name of another.
        folds: Folds of rows, > 1; groups are shared out among at most as many.
        step: Called with the number of rounds done, of ``2 * folds`` at most.

    Raises:
        ConfigError: A model is not among the outcomes, or no prompt was put to both.
    """
    import numpy

    outcomes = log.outcomes
    fold = prompt_folds(outcomes.prompts, folds)
    p_good, log_tokens = out_of_fold(log, fold, step=step)
    groups = group_folds(outcomes.groups, folds)
    apart = numpy.full(p_good.shape, numpy.nan, numpy.float32)
    if groups:
        of_group = {name: at for at, names in enumerate(groups) for name in names}
        fold_of = numpy.array([of_group[group] for group in outcomes.groups])
        apart, _ = out_of_fold(log, fold_of, step=lambda done: step(folds + done))
    models = model_figures(outcomes, p_good, log_tokens, apart=apart)
    pair = pair_figures(outcomes, p_good, weak, strong, apart=apart, fold=fold)
    return Measured(pair, models, folds, p_good, log_tokens)


def both_asked(outcomes: Outcomes, weak: str, strong: str) -> NDArray[np.intp]:
    """The rows in which two models have a score; ascending, at least one.

    Raises:
        ConfigError: A model is not among the outcomes, or both are one, or there is no such row.
    """
    rows = outcomes.of(weak, strong).asked()
    if weak == strong or not len(rows):
        raise ConfigError(
            f"no prompt has scores of both {weak} and {strong}: ask two different models the same, some hundred times; "
            "routes.NAME.compare_share does"
        )
    return rows


def pair_figures(
    outcomes: Outcomes,
    p_good: NDArray[np.float32],
    weak: str,
    strong: str,
    *,
    apart: NDArray[np.float32] | None = None,
    fold: NDArray[np.intp] | None = None,
) -> PairFigures:
    """Figures of the choice between two models.

    Args:
        outcomes: ``n`` rows.
        p_good: Shape ``(n, M)``, of the head.
        weak: Name of a model.
        strong: Name of another.
        apart: The same by learners that saw no question of the row's group.
        fold: Shape ``(n,)``, of the rows: TF-IDF is cross-validated by them; None to leave it out, as it is where the
            prompts were not kept.

    Raises:
        ConfigError: A model is not among the outcomes, or both are one, or no row has both.
    """
    import numpy

    rows = both_asked(outcomes, weak, strong)
    weak_scores, strong_scores = outcomes.of(weak, strong).scores[rows].T
    at = [outcomes.models.index(name) for name in (weak, strong)]
    prompts = [outcomes.prompts[row] for row in rows]
    length = length_scores(prompts) if outcomes.chars is None else outcomes.chars[rows].astype(numpy.float64)
    rival = length if not metrics.apgr(length, weak_scores, strong_scores) < 0.5 else -length
    words = None
    if fold is not None and outcomes.chars is None:
        words = _words(prompts, strong_scores - weak_scores, fold[rows])
    unseen = None if apart is None else _need(apart[rows], at)

    def area(score: NDArray[np.float64] | None) -> float:
        if score is None or numpy.isnan(score).any():
            return float("nan")
        return metrics.apgr(score, weak_scores, strong_scores)

    score = _need(p_good[rows], at)
    low, high = metrics.apgr_interval(score, weak_scores, strong_scores, draws=_DRAWS)
    return PairFigures(
        weak=weak,
        strong=strong,
        n=len(rows),
        weak_score=float(weak_scores.mean()),
        strong_score=float(strong_scores.mean()),
        apgr=area(score),
        apgr_low95=low,
        apgr_high95=high,
        cpt50=metrics.cpt(0.5, score, weak_scores, strong_scores),
        cpt80=metrics.cpt(0.8, score, weak_scores, strong_scores),
        length_apgr=area(length),
        tfidf_apgr=area(words),
        random_apgr=area(numpy.zeros(len(rows))),
        group_out_apgr=area(unseen),
        beats_length=metrics.share_above(score, rival, weak_scores, strong_scores, draws=_DRAWS),
    )


def _need(p_good: NDArray[np.float32], at: list[int]) -> NDArray[np.float64]:
    """How much each row needs the second of two models rather than the first."""
    import numpy

    return (p_good[:, at[1]] - p_good[:, at[0]]).astype(numpy.float64)


def _words(prompts: list[str], gain: NDArray[np.float32], fold: NDArray[np.intp]) -> NDArray[np.float64]:
    import numpy

    scores = numpy.full(len(prompts), 0.5)
    for at in numpy.unique(fold).tolist():
        held, seen = numpy.flatnonzero(fold == at), numpy.flatnonzero(fold != at)
        if len(seen):
            texts = [prompts[row] for row in seen]
            scores[held] = word_scores(texts, gain[seen], [prompts[row] for row in held])
    return scores


def model_figures(
    outcomes: Outcomes,
    p_good: NDArray[np.float32],
    log_tokens: NDArray[np.float32],
    *,
    apart: NDArray[np.float32] | None = None,
) -> tuple[ModelFigures, ...]:
    """How well each model's answers are foreseen.

    Args:
        outcomes: ``n`` rows, ``M`` models.
        p_good: Shape ``(n, M)``, of the head.
        log_tokens: Shape ``(n, M)``, likewise; NaN where it says nothing of lengths.
        apart: ``p_good`` by learners that saw no question of the row's group.
    """
    import numpy

    unseen = numpy.full(p_good.shape, numpy.nan, numpy.float32) if apart is None else apart
    return tuple(_model_figures(outcomes, at, p_good, unseen, log_tokens) for at in range(len(outcomes.models)))


def _model_figures(
    outcomes: Outcomes,
    at: int,
    p_good: NDArray[np.float32],
    apart: NDArray[np.float32],
    log_tokens: NDArray[np.float32],
) -> ModelFigures:
    import numpy

    rows = numpy.flatnonzero(~numpy.isnan(outcomes.scores[:, at]) & ~numpy.isnan(p_good[:, at]))
    lengths = numpy.flatnonzero(~numpy.isnan(outcomes.tokens[:, at]) & ~numpy.isnan(log_tokens[:, at]))
    score, p, unseen = outcomes.scores[rows, at], p_good[rows, at], apart[rows, at]
    bins = metrics.reliability(p, score)
    return ModelFigures(
        model=outcomes.models[at],
        n=len(rows),
        score=float(score.mean()) if len(rows) else float("nan"),
        auc=metrics.auc(p, score >= 0.5),
        group_out_auc=float("nan") if numpy.isnan(unseen).any() else metrics.auc(unseen, score >= 0.5),
        calibration_error=metrics.calibration_error(bins),
        bins=bins,
        length_tau=metrics.kendall_tau(log_tokens[lengths, at], outcomes.tokens[lengths, at]),
    )
