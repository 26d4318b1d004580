"""``llm-proxy cache replay``: weak cached answers are asked again where that is expected to pay."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from llm_proxy.errors import CacheError

from ._entries import opened, spare
from ._format import amount
from ._progress import progress
from ._replay import Ask, Replay, Replayed, Terms
from ._shared import Json, console, emit, one_line, settings, table
from ._warm import API_KEY_VARIABLE, Caller

if TYPE_CHECKING:
    from llm_proxy.cache.entry import Entry
    from llm_proxy.config import Config

__all__ = ["replay"]

_DAY_S = 86_400.0
_INTERRUPTED = 130
_SHOWN = 20


def replay(
    context: typer.Context,
    *,
    budget: Annotated[
        float,
        typer.Option(
            metavar="USD", min=0.0, help="Most dollars to spend; a server must heed max_tokens for it to hold."
        ),
    ],
    logs: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]", help="Logs of past calls, as for cache warm.")
    ] = None,
    days: Annotated[float, typer.Option(metavar="DAYS", min=0.01, help="How far ahead answers are of use.")] = 30.0,
    worth: Annotated[
        float | None, typer.Option(metavar="USD", help="What a good answer is worth, where its route does not say it.")
    ] = None,
    rise: Annotated[
        float | None,
        typer.Option(metavar="SHARE", min=-1.0, max=1.0, help="How much better answers get, where outcomes don't say."),
    ] = None,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Where the client sends its calls, if not to a backend.")
    ] = "",
    tenant_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable of the API key that the calls are made with.")
    ] = API_KEY_VARIABLE,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header that the calls have; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; ask nobody.")] = False,
    as_json: Json = False,
) -> None:
    """Ask the strongest candidate again where a weaker one's answer is served often enough to be worth it.

    An answer is worth asking again when its expected uses, times how much better the strongest candidate does, times
    what a good answer is worth, come to more than asking costs; the most for a dollar comes first. How good candidates
    are is known from outcomes. An entry does not keep its request, so the bare question is asked, or that of a log
    with the same key. Each new answer is stored at once: an interrupted run loses nothing.

    Examples:
        llm-proxy cache replay --budget 1.50 --worth 0.01 --dry-run
        llm-proxy cache replay --budget 1.50 --worth 0.01 calls.jsonl
    """
    config, count = settings(context), Replayed()
    spare(config)
    caller = Caller.of(base_url=base_url, key_variable=tenant_key_env, headers=header or [])
    entries = _entries(config)
    work = Replay(config, caller, Terms(budget, days * _DAY_S, worth, rise), count)
    try:
        with ExitStack() as stack:
            asks = work.plan(entries, [stack.enter_context(_reading(log)) for log in logs or []])
        is_whole = dry_run or _run(work, asks, count)
    finally:
        work.close()
    if as_json:
        plan = [{"key": ask.entry.key, "gain_usd": ask.weak.gain_usd, "cost_usd": ask.weak.cost_usd} for ask in asks]
        emit({**asdict(count), **({"plan": plan} if dry_run else {})})
    else:
        _say(asks, count, is_dry=dry_run)
    if not is_whole:
        raise typer.Exit(_INTERRUPTED)


def _run(work: Replay, asks: list[Ask], count: Replayed) -> bool:
    """Whether it came to its end."""
    try:
        with progress("Replaying", len(asks)) as step:
            for done in work.run(asks):
                step(done)
    except KeyboardInterrupt:
        count.left = len(asks) - count.asked
        return False
    return True


def _entries(config: Config) -> list[tuple[Entry, int]]:
    from llm_proxy.cache.entry import readable

    with opened(config) as store:
        rows = [] if store is None else [(readable(row.record), row.hits) for row in store.scan()]
    return [(entry, hits) for entry, hits in rows if entry is not None and hits]


def _reading(log: Path) -> BinaryIO:
    try:
        return log.open("rb")
    except OSError as exc:
        raise CacheError(f"{log} can't be read: {exc.strerror}") from exc


def _say(asks: list[Ask], count: Replayed, *, is_dry: bool) -> None:
    from rich.text import Text

    if is_dry and asks:
        shown = table()
        for name in ("entry", "gain", "cost", "question"):
            shown.add_column(name)
        for ask in asks[:_SHOWN]:
            weak, text = ask.weak, one_line(ask.entry.text, 80)
            cells = (ask.entry.key[:12], f"${weak.gain_usd:.6f}", f"${weak.cost_usd:.6f}", text)
            shown.add_row(*map(Text, cells))
        console().print(shown)
    typer.echo(
        f"{amount(count.planned)} of {amount(count.weak)} answers of weaker candidates are worth asking again, for "
        f"about ${count.planned_usd:.6f}; of {amount(count.unknown)} more the request is not known."
    )
    if not is_dry:
        typer.echo(
            f"Asked {amount(count.asked)}, replaced {amount(count.replaced)} ({amount(count.same)} say the same), "
            f"{amount(count.failed)} failed, {amount(count.left)} left, spent ${count.spent_usd:.6f}."
        )
