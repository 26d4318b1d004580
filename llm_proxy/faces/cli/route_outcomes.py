"""``llm-proxy route outcomes``: what is known of each model's answers, and whether a head can be trained from it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._format import amount, dollars
from ._route_tables import number, show_rows
from ._shared import Json, emit, settings, visible
from .stats import since_s

if TYPE_CHECKING:
    from pathlib import Path

    from llm_proxy.config import Config

__all__ = ["outcomes"]

_DAY_S = 86_400
_LEAST, _USUAL = 20, 300


def outcomes(
    context: typer.Context,
    *,
    route: Annotated[str, typer.Option(metavar="NAME", help="Of this route only.")] = "",
    since: Annotated[str, typer.Option(metavar="SPAN|TIME", help="Of calls since: 24h, 7d, or an ISO 8601 time.")] = "",
    as_json: Json = False,
) -> None:
    """Show how many outcomes there are of each model, who says so, and whether that is enough to train.

    They come from feedback, from comparisons (compare_share of a route), and
    from cascades. A head learns which of two models is good enough where both
    were asked the same: without such questions nothing can be measured.

    Examples:
        llm-proxy route outcomes
        llm-proxy route outcomes --route auto --since 7d
    """
    config = settings(context)
    start_s = since_s(since, time.time()) if since else 0.0
    report = _report(config, _path(config), route, start_s)
    if as_json:
        emit(report)
        return
    calls = [
        (f"{one['backend']}/{one['model']}", one["route"], amount(one["calls"]), amount(one["with_vector"]))
        for one in report["calls"]
    ]
    show_rows(("answered by", "route", "calls", "with a vector"), calls)
    known = [
        (
            f"{one['backend']}/{one['model']}",
            one["route"],
            one["source"],
            amount(one["count"]),
            number(one["mean_score"]),
            datetime.fromtimestamp(one["last_s"], UTC).strftime("%Y-%m-%d"),
        )
        for one in report["outcomes"]
    ]
    show_rows(("outcomes of", "route", "said by", "how many", "mean score", "last (UTC)"), known)
    for name, usd in report["compared_today_usd"].items():
        typer.echo(visible(f"Comparisons of {name} took {dollars(usd)} today (UTC)."))
    typer.echo(visible(report["verdict"]))


def _path(config: Config) -> Path:
    from llm_proxy.learning import outcomes_path

    path = outcomes_path(config)
    if path is None:
        raise ConfigError(
            "no outcomes are kept with these settings: this needs observe.outcomes = true and cache.store = "
            '"disk"'
        )  # fmt: skip
    return path


def _report(config: Config, path: Path, route: str, start_s: float) -> dict[str, Any]:
    from llm_proxy.observe.outcome_rows import asked_of_both, calls_of, comparison_spending, standings

    names = ("route", "backend", "model", "calls", "with_vector")
    calls = [dict(zip(names, row, strict=True)) for row in calls_of(path, since_s=start_s, route=route)]
    found = [
        {name: getattr(one, name) for name in one.__slots__} for one in standings(path, since_s=start_s, route=route)
    ]
    both: list[dict[str, Any]] = [
        {"one": one, "other": other, "questions": count}
        for one, other, count in asked_of_both(path, since_s=start_s, route=route)
    ]
    today_s = time.time()
    spent = {
        name: comparison_spending(path, name, today_s)
        for name, one in config.routes.items()
        if one.compare_share and route in ("", name)
    }
    most = max((row["questions"] for row in both), default=0)
    return {
        "calls": calls,
        "outcomes": found,
        "both": both,
        "compared_today_usd": spent,
        "is_enough": most >= _LEAST,
        "verdict": _verdict(found, both, most),
    }


def _verdict(found: list[dict[str, Any]], both: list[dict[str, Any]], most: int) -> str:
    if not found:
        return (
            "Nothing is known of any answer yet: send x-llm-proxy-feedback, or set compare_share of a route, or use a "
            "cascade."
        )
    if most < _LEAST:
        return (
            f"Too little to train: {most} calls tell of two models, and {_LEAST} are the least. A router that always "
            "asks one model learns nothing of the others: set compare_share of the route."
        )
    pair = max(both, key=lambda row: int(row["questions"]))
    said = f"{amount(most)} calls tell of both {pair['one']} and {pair['other']}"
    if most < _USUAL:
        return f"Enough to try llm-proxy route train: {said}; some hundred more make it surer."
    return f"Enough for llm-proxy route train: {said}."
