"""``llm-proxy stats``: what the ledger adds up to."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._format import amount, dollars, milliseconds, seconds, share
from ._shared import Json, console, emit, settings, table, visible

if TYPE_CHECKING:
    from pathlib import Path

    from llm_proxy.config import Config

__all__ = ["Group", "ledger_of", "since_s", "span_s", "stats"]


class Group(StrEnum):
    """What calls are summed by."""

    model = "model"
    route = "route"
    api = "api"
    key = "key"
    day = "day"


_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_COLUMNS = (
    "calls",
    "hit rate",
    "exact",
    "semantic",
    "misses",
    "bypasses",
    "refused",
    "errors",
    "saved",
    "spent",
    "time saved",
)


def stats(
    context: typer.Context,
    since: Annotated[
        str, typer.Option(metavar="SPAN|TIME", help="Count calls since: 90m, 24h, 7d, or an ISO 8601 time.")
    ] = "",
    by: Annotated[Group | None, typer.Option(help="One row for each.")] = None,
    as_json: Json = False,
) -> None:
    """Show calls, hits, money and time saved, and latencies.

    The numbers come from the ledger in cache.directory, which every client and proxy with these settings writes;
    it holds neither prompts nor keys. A key is named by the first eight digits of its SHA-256:
    printf %s "$KEY" | sha256sum | cut -c1-8
    and one of llm-proxy keys by its name and tenant as well.

    Examples:
        llm-proxy stats --since 24h
        llm-proxy stats --by model
        llm-proxy stats --since 1h --by key
        llm-proxy stats --json
    """
    start_s = since_s(since, time.time()) if since else 0.0
    config = settings(context)
    path = ledger_of(config)
    report = _report(path, start_s, by)
    if by is Group.key:
        _name_keys(report, config)
    if as_json:
        emit(report)
    elif not report["calls"]:
        typer.echo(f"No calls{' since then' if since else ' yet'} in {visible(str(path))}.")
    else:
        _show(report, by)


def span_s(text: str) -> int | None:
    """Seconds that ``24h`` or ``7d`` mean; None where it is no span."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    return None if found is None else int(found[1]) * _UNITS_S[found[2]]


def since_s(text: str, now_s: float) -> float:
    """The Unix time that ``24h``, ``7d`` or an ISO 8601 time means; a time without offset is local.

    Raises:
        ConfigError: It is neither.
    """
    span = span_s(text)
    if span is not None:
        return max(0.0, now_s - span)
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise ConfigError(f"--since must be like 90m, 24h, 7d or 2026-01-31T08:00, not {text!r}") from exc


def ledger_of(config: Config) -> Path:
    """Where the ledger of these settings is.

    Raises:
        ConfigError: They keep none.
    """
    from llm_proxy.runtime import LEDGER_NAME

    if not config.observe.ledger or config.cache.store != "disk":
        raise ConfigError(
            'no ledger is kept with these settings: this needs observe.ledger = true and cache.store = "disk"'
        )
    return config.cache.directory / LEDGER_NAME


def _report(path: Path, start_s: float, by: Group | None) -> dict[str, Any]:
    from llm_proxy.observe.totals import bypass_reasons, refusal_reasons, totals, totals_by

    report: dict[str, Any] = {**totals(path, since_s=start_s)}
    report["bypass_reasons"] = dict(bypass_reasons(path, since_s=start_s))
    report["refusal_reasons"] = dict(refusal_reasons(path, since_s=start_s))
    report["since_s"] = start_s or None
    if by:
        report["by"] = by.value
        report["groups"] = {name: dict(group) for name, group in totals_by(path, by.value, since_s=start_s).items()}
    return report


def _name_keys(report: dict[str, Any], config: Config) -> None:
    """Say beside each key that the proxy has issued what it is called."""
    from llm_proxy.faces.keys import read
    from llm_proxy.limits import keys_file

    path = keys_file(config)
    known = {record.holder.id: record.holder for record in (read(path) if path is not None else ())}
    for key_id, group in report["groups"].items():
        holder = known.get(key_id)
        group["name"], group["tenant"] = (holder.name, holder.tenant) if holder is not None else ("", "")


def _show(report: Mapping[str, Any], by: Group | None) -> None:
    from rich.text import Text

    screen = console()
    if by:
        rows = table()
        rows.add_column(by.value)
        for name in (*_COLUMNS, "hit p50", "miss p50"):
            rows.add_column(name, justify="right")
        for name, group in report["groups"].items():
            cells = (*_cells(group), _latency(group, "hit_p50_s"), _latency(group, "miss_p50_s"))
            called = f"{name} {group['name']}" if group.get("name") else name
            rows.add_row(Text(visible(called) or "-"), *map(Text, cells))
        screen.print(rows)
        return
    rows = table()
    rows.show_header = False
    rows.add_column()
    rows.add_column(justify="right")
    for name, cell in zip(_COLUMNS, _cells(report), strict=True):
        rows.add_row(Text(name), Text(cell))
    for word, name in (("bypassed", "bypass_reasons"), ("refused", "refusal_reasons")):
        for reason, count in report[name].items():
            rows.add_row(Text(f"  {word}: {visible(reason) or 'no reason given'}"), Text(amount(count)))
    for kind in ("hit", "miss"):
        both = f"{_latency(report, f'{kind}_p50_s')} / {_latency(report, f'{kind}_p99_s')}"
        rows.add_row(Text(f"{kind} p50 / p99"), Text(both))
    screen.print(rows)


def _cells(sums: Mapping[str, float]) -> tuple[str, ...]:
    hits = sums["exact_hits"] + sums["semantic_hits"]
    names = ("exact_hits", "semantic_hits", "misses", "bypasses", "refusals", "errors")
    money = (dollars(sums["saved_usd"]), dollars(sums["cost_usd"]), seconds(sums["saved_s"]))
    return (
        amount(sums["calls"]),
        share(hits, sums["calls"] - sums["refusals"]),
        *(amount(sums[name]) for name in names),
        *money,
    )


def _latency(sums: Mapping[str, float], name: str) -> str:
    return milliseconds(sums[name]) if sums[name] else "-"
