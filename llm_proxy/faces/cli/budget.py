"""``llm-proxy budget``: what was spent of each limit, and what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from ._format import amount, dollars
from ._shared import Json, console, emit, settings, table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_proxy.backends.budget import Account
    from llm_proxy.config import BudgetLimit, Config

__all__ = ["budget"]


def budget(context: typer.Context, as_json: Json = False) -> None:
    """Show what is used and left of the budget, today and this month (UTC).

    Reserved is what calls under way may take at most. Each key, route or
    backend that a limit is for has a row of its own once it has spent; keys
    are named as cache.tenant makes them, never by themselves.

    Examples:
        llm-proxy budget
        llm-proxy budget --json
    """
    config = settings(context)
    rows = list(_rows(config))
    if as_json:
        emit({"limits": rows})
    elif not config.budget.limits:
        typer.echo("The settings have no budget: set [budget.limits.NAME].")
    elif not rows:
        typer.echo("Nothing was spent yet on what the limits are for.")
    else:
        _show(rows)


def _rows(config: Config) -> Iterator[dict[str, Any]]:
    """One for each amount of each limit, and each of those it is for."""
    from llm_proxy.backends.budget import accounts
    from llm_proxy.limits import budget_file

    path = budget_file(config)
    spent = [] if path is None else accounts(path, now_s=time.time())
    for name, limit in config.budget.limits.items():
        for account in spent:
            if _is_for(limit, account):
                yield from _amounts(name, limit, account)


def _is_for(limit: BudgetLimit, account: Account) -> bool:
    per, _, who = account.name.partition(" ")
    return per == limit.per and (not limit.only or who in limit.only)


def _amounts(name: str, limit: BudgetLimit, account: Account) -> Iterator[dict[str, Any]]:
    is_day = len(account.period) > len("2026-01")
    for unit, most in (
        ("usd", limit.usd_per_day if is_day else limit.usd_per_month),
        ("tokens", limit.tokens_per_day if is_day else limit.tokens_per_month),
    ):
        if most is not None:
            used, held = getattr(account, unit), getattr(account, f"held_{unit}")
            yield {
                "limit": name,
                "for": account.name,
                "period": account.period,
                "unit": unit,
                "most": most,
                "used": used,
                "reserved": held,
                "left": max(0, most - used - held),
            }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    shown = table()
    for name in ("limit", "for", "period"):
        shown.add_column(name)
    for name in ("most", "used", "reserved", "left"):
        shown.add_column(name, justify="right")
    for row in rows:
        written = dollars if row["unit"] == "usd" else _tokens
        amounts = [written(row[name]) for name in ("most", "used", "reserved", "left")]
        shown.add_row(*(Text(visible(cell)) for cell in (row["limit"], row["for"], row["period"], *amounts)))
    console().print(shown)


def _tokens(count: float) -> str:
    return f"{amount(count)} tokens"
