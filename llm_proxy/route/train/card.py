"""The card of a head: what it learnt from, what it is worth beside the baselines, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .measure import Measured, PairFigures

if TYPE_CHECKING:
    from llm_proxy.route.outcomes import Outcomes

    from .choice import Choice

__all__ = ["Origin", "card"]

_NO_GAP = (
    "the second is not the better one on this log: there is nothing to recover, and every call can go to the first"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """How a head was made.

    Attributes:
        name: Of the head.
        source: Name of the log, without its folder.
        encoder: Identity of the encoder.
        command: What was typed.
        date: Day, ISO 8601.
        until_s: Unix time of the last call of the log of outcomes; 0 for a file.
    """

    name: str
    source: str
    encoder: str
    command: str
    date: str
    until_s: float = 0.0


def card(origin: Origin, outcomes: Outcomes, measured: Measured, choice: Choice | None, *, prior: str = "") -> str:
    """The card, Markdown.

    Args:
        origin: How the head was made.
        outcomes: What it learnt from.
        measured: What it is worth.
        choice: What choosing among all models is worth; None where no prices are known.
        prior: Name of the head that it began with; empty for none.
    """
    parts = [
        f"# {origin.name}\n",
        "From a question's vector and plain facts of its text: how likely each model answers well, and how long its "
        "answer is.\n",
        *_data(origin, outcomes, prior),
        *_pair(measured),
        *_models(measured),
        *(_choice(choice) if choice else ()),
        *_limits(outcomes),
    ]
    return "\n".join(parts)


def verdict(pair: PairFigures) -> str:
    """In a sentence, whether the head is worth having."""
    if pair.apgr != pair.apgr:
        return f"{pair.weak}, {pair.strong}: {_NO_GAP}."
    sure = f"in {pair.beats_length:.0%} of the draws of a bootstrap (95 % are asked for)"
    if pair.is_worth_it:
        return f"The head beats the length of the prompt and chance, {sure}."
    return f"The head does not beat the length of the prompt and chance beyond doubt: {sure}."


def _data(origin: Origin, outcomes: Outcomes, prior: str) -> Iterator[str]:
    groups = len(set(outcomes.groups))
    yield "| | |\n|---|---|"
    yield f"| log | `{_cell(origin.source)}`, sha256 `{outcomes.sha256}` |"
    yield f"| rows | {len(outcomes):,} different prompts of {outcomes.lines:,} lines, {groups} kinds |"
    yield f"| models | {', '.join(map(_cell, outcomes.models))} |"
    yield f"| encoder | {origin.encoder} |"
    if prior:
        yield f"| beginning | the shipped head `{_cell(prior)}`, which counts as much as 100 rows |"
    yield f"| made | {origin.date}, by `{_cell(origin.command)}` |"


def _pair(measured: Measured) -> Iterator[str]:
    pair = measured.pair
    yield f"\n## {_cell(pair.weak)} or {_cell(pair.strong)}\n"
    yield (
        f"{pair.n:,} rows; mean scores {pair.weak_score:.3f} and {pair.strong_score:.3f}. Every row was judged by a "
        f"learner that had not seen it ({measured.folds} folds).\n"
    )
    yield "| | APGR |\n|---|--:|"
    yield f"| **head** | **{_number(pair.apgr)}** ({_number(pair.apgr_low95)} to {_number(pair.apgr_high95)}, 95 %) |"
    yield f"| head, kind of question not seen | {_number(pair.group_out_apgr)} |"
    yield f"| prompt length | {_number(pair.length_apgr)} |"
    yield f"| TF-IDF with a logistic regression | {_number(pair.tfidf_apgr)} |"
    yield f"| chance | {_number(pair.random_apgr)} |"
    yield (
        f"\nHalf of the gap between the two takes {_number(pair.cpt50)} of the calls to the stronger one, 80 % of it "
        f"{_number(pair.cpt80)}.\n"
    )
    yield verdict(pair)


def _models(measured: Measured) -> Iterator[str]:
    yield "\n## Each model\n"
    yield "| model | rows | mean score | AUC | AUC, kind not seen | calibration error | tau of length |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for one in measured.models:
        figures = (one.score, one.auc, one.group_out_auc, one.calibration_error, one.length_tau)
        yield f"| {_cell(one.model)} | {one.n:,} | {' | '.join(map(_number, figures))} |"
    yield "\n![What the head says, and what came](reliability.svg)\n"


def _choice(choice: Choice) -> Iterator[str]:
    best = next(one for one in choice.singles if one.model == choice.best)
    yield "\n## All models at their prices\n"
    yield f"{choice.n:,} rows in which all have a score.\n"
    yield "| | mean score | of the best | dollars a call | of its cost |\n|---|--:|--:|--:|--:|"
    rows: Sequence[tuple[str, float, float]] = [
        *((_cell(one.model), one.score, one.usd) for one in choice.singles),
        *((f"**routed, quality = {one.quality:g}**", one.score, one.usd) for one in choice.routed),
    ]
    for name, score, usd in rows:
        yield f"| {name} | {score:.3f} | {_share(score, best.score)} | {usd:.6f} | {_share(usd, best.usd)} |"


def _limits(outcomes: Outcomes) -> Iterator[str]:
    yield "\n## Limits\n"
    yield "The figures are of this log. Where questions come of a kind that it lacks, expect those of the lines that"
    yield "say so: a head learns kinds of questions sooner than it learns what is hard about one."
    if len(set(outcomes.groups)) < 2:
        yield 'This log names no kinds ("group"), so that could not be measured.'
    if outcomes.chars is not None:
        yield "No prompts were kept, so there was no TF-IDF to measure."


def _cell(text: str) -> str:
    """A name that can't break the table or the line."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
