"""``llm-proxy keys``: keys that the proxy issues, each with a tenant, models, a rate and a budget of its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._format import amount, dollars
from ._keyless import say_keyless
from ._shared import Group, Json, console, emit, say, settings, table, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llm_proxy.config import Config
    from llm_proxy.faces.keys import KeyRecord

__all__ = ["keys_app"]

_HELP = """Issue keys, and take them back.

Examples:
    llm-proxy keys add laptop --usd-per-day 2
    llm-proxy keys ls
    llm-proxy keys rm laptop
"""
keys_app = typer.Typer(cls=Group, name="keys", no_args_is_help=True, help=_HELP)


@keys_app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the key.")],
    *,
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Whose cache it has; keys of one tenant share one. Unset: its own.")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Model, route or alias it may ask, or a pattern: gpt-*. May be repeated."),
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=0, max=1_000_000, help="Most requests in any 60 seconds.")] = None,
    usd_per_day: Annotated[float | None, typer.Option(min=0, help="Budget of a day (UTC), dollars.")] = None,
    usd_per_month: Annotated[float | None, typer.Option(min=0, help="Budget of a month (UTC), dollars.")] = None,
    expires: Annotated[
        str, typer.Option(metavar="SPAN|TIME", help="No longer taken after: 12h, 30d, or an ISO 8601 time.")
    ] = "",
    passes: Annotated[
        bool | None,
        typer.Option(
            "--pass/--no-pass",
            help="Whether it may use paths that are only passed on, where nothing is counted. Unset: without a budget.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="It may see the dashboard and /metrics: all calls.")] = False,
    as_json: Json = False,
) -> None:
    """Issue a key and show it, this once.

    A proxy with the same settings takes it within a second; from the first
    key on, every caller needs one. The file of keys holds its hash alone.

    Examples:
        llm-proxy keys add ci --model 'gpt-4o-mini' --rpm 60 --usd-per-day 5
        llm-proxy keys add anna --tenant research --expires 90d
    """
    from llm_proxy.faces.keys import NAME
    from llm_proxy.faces.keys import add as issue
    from llm_proxy.holders import Holder

    for word in (name, tenant or name):
        if not NAME.fullmatch(word):
            raise ConfigError(f"a name must be up to 64 letters, digits and . _ -, not {word!r}")
    now_s, has_budget = time.time(), usd_per_day is not None or usd_per_month is not None
    holder = Holder(
        id="",
        name=name,
        tenant=tenant or name,
        models=tuple(model or ()),
        requests_per_minute=rpm,
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_month,
        may_pass=not has_budget if passes is None else passes,
        may_watch=watch,
        expires_s=_expiry_s(expires, now_s) if expires else None,
    )
    config = settings(context)
    key, record = issue(_file(config), holder, now_s=now_s)
    if as_json:
        emit({"key": key, **_row(record)})
    else:
        typer.echo(key)
        say("This is the only time that the key is shown.")
    say_keyless(config)


@keys_app.command()
def ls(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were taken back.")] = False,
    as_json: Json = False,
) -> None:
    """Show the keys, what they may do, and what they have spent.

    Examples:
        llm-proxy keys ls
        llm-proxy keys ls --all --json
    """
    from llm_proxy.faces.keys import read

    config = settings(context)
    path = _file(config)
    spent = _spent(config)
    rows = [
        {**_row(record), **spent.get(record.holder.id, {"usd_today": 0.0, "usd_this_month": 0.0})}
        for record in read(path)
        if everything or record.removed_s is None
    ]
    if as_json:
        emit({"file": str(path), "keys": rows})
    elif not rows:
        typer.echo(f"No keys in {visible(str(path))}.")
    else:
        _show(rows)


@keys_app.command()
def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its id.")],
    as_json: Json = False,
) -> None:
    """Take a key back; a running proxy refuses it within a second.

    Callers go on needing a key, also when it was the last one.

    Examples:
        llm-proxy keys rm ci
    """
    from llm_proxy.faces.keys import remove

    record = remove(_file(settings(context)), name, now_s=time.time())
    if as_json:
        emit({"id": record.holder.id, "name": record.holder.name})
    else:
        typer.echo(f"The key {record.holder.name} ({record.holder.id}) is taken back.")


def _file(config: Config) -> Path:
    from llm_proxy.limits import keys_file

    path = keys_file(config)
    if path is None:
        raise ConfigError('no keys are kept with cache.store = "memory": set server.keys_file')
    return path


def _expiry_s(text: str, now_s: float) -> float:
    from .stats import span_s

    span = span_s(text)
    try:
        at_s = now_s + span if span is not None else datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise ConfigError(f"--expires must be like 12h, 30d or 2026-01-31T08:00, not {text!r}") from exc
    if at_s <= now_s:
        raise ConfigError(f"--expires {text!r} is over already")
    return at_s


def _spent(config: Config) -> dict[str, dict[str, float]]:
    """What keys have spent, and what is reserved for their calls under way, by id; of today and this month."""
    from llm_proxy.backends.amounts import account_of
    from llm_proxy.backends.budget import accounts
    from llm_proxy.limits import budget_file

    path = budget_file(config)
    found: dict[str, dict[str, float]] = {}
    for account in accounts(path, now_s=time.time()) if path is not None else ():
        if account.name.startswith(account_of("")):
            word = "usd_today" if len(account.period) > len("2026-01") else "usd_this_month"
            row = found.setdefault(account.name.removeprefix(account_of("")), {"usd_today": 0.0, "usd_this_month": 0.0})
            row[word] = account.usd + account.held_usd
    return found


def _row(record: KeyRecord) -> dict[str, Any]:
    """What may be shown of a key: all but its hash."""
    return {
        **record.holder._asdict(),
        "models": list(record.holder.models),
        "created_s": record.created_s,
        "removed_s": record.removed_s,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    shown = table()
    for name in ("name", "id", "tenant", "models", "a minute", "today", "this month", "may", "until"):
        shown.add_column(name)
    for row in rows:
        cells = (
            row["name"],
            row["id"],
            row["tenant"],
            ", ".join(row["models"]) or "all",
            "-" if row["requests_per_minute"] is None else amount(row["requests_per_minute"]),
            _of(row["usd_today"], row["usd_per_day"]),
            _of(row["usd_this_month"], row["usd_per_month"]),
            ", ".join(word for word, name in (("pass", "may_pass"), ("watch", "may_watch")) if row[name]) or "-",
            _until(row),
        )
        shown.add_row(*(Text(visible(cell)) for cell in cells))
    console().print(shown)


def _of(spent_usd: float, most_usd: float | None) -> str:
    return "-" if most_usd is None else f"{dollars(spent_usd)} of {dollars(most_usd)}"


def _until(row: Mapping[str, Any]) -> str:
    if row["removed_s"] is not None:
        return f"taken back {_moment(row['removed_s'])}"
    return "-" if row["expires_s"] is None else _moment(row["expires_s"])


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
