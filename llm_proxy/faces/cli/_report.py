"""``llm-proxy cache report``: how often semantic hits were wrong, and ``cache rm --hit``, which takes one back."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import CacheError

from ._entries import limitless, opened
from ._format import amount, dollars
from ._shared import Json, console, emit, settings, table, visible
from .stats import ledger_of, since_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_proxy.config import Config
    from llm_proxy.observe.verdicts import Verdicts

__all__ = ["Part", "report", "take_back"]

_PART_CHARS = 16
_METHOD = "Clopper-Pearson, 95 %"


class Part(StrEnum):
    """What the counts are split by."""

    scope = "scope"
    route = "route"
    model = "model"


def report(
    context: typer.Context,
    since: Annotated[
        str, typer.Option(metavar="SPAN|TIME", help="Count hits since: 90m, 24h, 7d, or an ISO 8601 time.")
    ] = "",
    by: Annotated[Part | None, typer.Option(help="One row for each.")] = None,
    as_json: Json = False,
) -> None:
    """Show how many semantic hits were served, checked and wrong.

    Checked are those that cache.check_share drew by chance and had asked
    upstream as well. The rate is of them, with its 95 % interval by
    Clopper and Pearson. Hits that somebody took back are counted apart:
    nobody takes a right one back, so they say nothing of the rate.

    Examples:
        llm-proxy cache report
        llm-proxy cache report --since 7d --by model
        llm-proxy cache report --json
    """
    from llm_proxy.observe.verdicts import Verdicts, verdicts

    config = settings(context)
    path, start_s = ledger_of(config), since_s(since, time.time()) if since else 0.0
    total = verdicts(path, since_s=start_s).get("", Verdicts())
    parts = verdicts(path, by.value, since_s=start_s) if by else {}
    if as_json:
        data: dict[str, Any] = {**_data(total), "since_s": start_s or None}
        if by:
            data |= {"by": by.value, "groups": {name: _data(part) for name, part in parts.items()}}
        emit(data)
        return
    if by and parts:
        _show_parts(by, parts)
    for line in _lines(total, config.cache.check_share):
        typer.echo(line)


def take_back(config: Config, hit_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Take semantic hits back: each pair becomes wrong evidence, and is booked as undone.

    Raises:
        CacheError: The ledger has no such hit, or several, or can't be written.
    """
    from llm_proxy.checks import hit_named
    from llm_proxy.engine.shadow import weighed_of
    from llm_proxy.observe.events import CheckEvent, Troubles
    from llm_proxy.observe.ledger import Ledger

    path = ledger_of(config)
    hits = [hit_named(config, hit_id) for hit_id in hit_ids]  # all or none
    troubles = Troubles()
    ledger = Ledger(path, monotonic=time.monotonic, max_rows=config.observe.ledger_rows, troubles=troubles)
    done = []
    with opened(config) as store:
        cache = limitless(config, store, is_semantic=False) if store is not None else None
        for hit in hits:
            similarity = hit.similarity or 0.0
            is_there = cache is not None and cache.learn(weighed_of(hit), "undo", is_same=False)
            done.append({"entry": hit.key, "asked": hit.asked, "similarity": similarity, "is_there": is_there})
            ledger(
                CheckEvent(
                    time.time(),
                    "undo",
                    hit.key,
                    hit.asked,
                    hit.scope,
                    hit.route,
                    hit.model,
                    similarity,
                    hit.p_wrong,
                    False,
                )
            )
    ledger.close()
    if troubles.counts:
        raise CacheError(f"the hits were taken back, and {visible(str(path))} could not be written to say so")
    return done


def _data(counts: Verdicts) -> dict[str, Any]:
    from llm_proxy.cache.evidence import interval

    data: dict[str, Any] = {**asdict(counts), "rate": None, "rate_low95": None, "rate_high95": None}
    if counts.checked:
        low, high = interval(counts.wrong, counts.checked)
        data |= {"rate": counts.wrong / counts.checked, "rate_low95": low, "rate_high95": high}
    return data | {"interval": _METHOD}


def _lines(counts: Verdicts, check_share: float) -> list[str]:
    lines = [
        f"semantic hits served  {amount(counts.served)}",
        f"checked               {amount(counts.checked)} of {amount(counts.served)}{_unclear(counts)}",
        f"wrong                 {_rate(counts)}",
        f"taken back            {amount(counts.undone)}",
    ]
    if counts.explored:
        different = f"{amount(counts.explored_different)} of {amount(counts.explored)} had another answer"
        lines.append(f"asked instead         {different} (not served)")
    if counts.spent_usd:
        lines.append(f"spent on checks       {dollars(counts.spent_usd)}")
    if counts.served and not counts.checked and not check_share:
        lines.append(
            "Nothing is checked with these settings: set cache.check_share to have a share of hits asked again."
        )
    return lines


def _unclear(counts: Verdicts) -> str:
    return f", {amount(counts.unclear)} more without a verdict" if counts.unclear else ""


def _rate(counts: Verdicts) -> str:
    if not counts.checked:
        return f"0 of {amount(counts.served)} checked: no rate"
    from llm_proxy.cache.evidence import interval

    low, high = interval(counts.wrong, counts.checked)
    return f"{amount(counts.wrong)}: {counts.wrong / counts.checked:.2%} ({low:.2%} to {high:.2%}, {_METHOD})"


def _show_parts(by: Part, parts: Any) -> None:
    from rich.text import Text

    rows = table()
    rows.add_column(by.value)
    for name in ("served", "checked", "wrong and rate", "taken back"):
        rows.add_column(name, justify="right")
    for name, counts in parts.items():
        cells = (amount(counts.served), amount(counts.checked), _rate(counts), amount(counts.undone))
        shown = name[:_PART_CHARS] if by is Part.scope else name
        rows.add_row(Text(visible(shown) or "-"), *map(Text, cells))
    console().print(rows)
