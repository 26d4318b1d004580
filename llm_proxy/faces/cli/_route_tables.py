"""Figures of heads as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from ._format import amount, share
from ._shared import console, table, visible

if TYPE_CHECKING:
    from llm_proxy.route.train.choice import Choice
    from llm_proxy.route.train.measure import ModelFigures, PairFigures

__all__ = ["number", "show_choice", "show_models", "show_pair", "show_rows"]


def show_pair(pair: PairFigures) -> None:
    """APGR of the choice between two models, beside the baselines."""
    typer.echo(
        visible(
            f"{pair.weak} ({number(pair.weak_score)}) or {pair.strong} ({number(pair.strong_score)}), "
            f"{amount(pair.n)} rows"
        )
    )
    rows = [
        ("head", f"{number(pair.apgr)} ({number(pair.apgr_low95)} to {number(pair.apgr_high95)})"),
        ("  kind of question not seen", number(pair.group_out_apgr)),
        ("prompt length", number(pair.length_apgr)),
        ("TF-IDF, logistic regression", number(pair.tfidf_apgr)),
        ("chance", number(pair.random_apgr)),
        ("CPT50, CPT80", f"{number(pair.cpt50)}, {number(pair.cpt80)}"),
    ]
    show_rows(("", "APGR"), rows)


def show_models(models: Iterable[ModelFigures]) -> None:
    """How well each model's answers are foreseen."""
    rows = [
        (
            one.model,
            amount(one.n),
            *map(number, (one.score, one.auc, one.group_out_auc, one.calibration_error, one.length_tau)),
        )
        for one in models
    ]
    show_rows(("model", "rows", "score", "AUC", "AUC unseen kind", "calibration error", "length tau"), rows)


def show_choice(choice: Choice) -> None:
    """What choosing among all models would have scored and cost."""
    best = next(one for one in choice.singles if one.model == choice.best)
    rows = [(one.model, one.score, one.usd) for one in choice.singles]
    rows += [(f"routed, quality {one.quality:g}", one.score, one.usd) for one in choice.routed]
    cells = [
        (name, number(score), share(score, best.score), f"{1000 * usd:.4f}", share(usd, best.usd))
        for name, score, usd in rows
    ]
    show_rows(("", "score", "of the best", "$ per 1,000 calls", "of its cost"), cells)


def show_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table; the first column is text, the others are numbers."""
    from rich.text import Text

    found = table(title)
    for at, head in enumerate(heads):
        found.add_column(head, justify="right" if at else "left")
    for row in rows:
        found.add_row(*(Text(visible(cell)) for cell in row))
    console().print(found)


def number(value: float) -> str:
    """Three digits; a dash for what is not known."""
    return "-" if value != value else f"{value:.3f}"
