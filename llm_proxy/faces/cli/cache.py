"""``llm-proxy cache``: look at the entries on disk, remove some, and check them. A proxy may run meanwhile."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._entries import Row, Sort, answer_of, evidence_of, found, keys_of, limitless, listed, opened, place_of
from ._format import age, amount, dollars, milliseconds, size
from ._report import report, take_back
from ._shared import Json, console, emit, one_line, settings, table, visible
from ._transfer import export, import_, warm
from .replay import replay

if TYPE_CHECKING:
    from llm_proxy.cache.entry import Entry
    from llm_proxy.cache.evidence import Observation
    from llm_proxy.config import Config

__all__ = ["cache_app"]

_KEY_CHARS = 12
_ANSWER_CHARS = 800
_GAP = 3  # columns between two cells

_HELP = """Look at cached answers, keep, remove and move them.

Examples:
    llm-proxy cache ls --sort cost
    llm-proxy cache report --since 7d
"""
cache_app = typer.Typer(name="cache", no_args_is_help=True, help=_HELP)

Keys = Annotated[list[str], typer.Argument(metavar="KEY", help="Keys, or beginnings of keys, as cache ls shows them.")]


@cache_app.command()
def ls(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most entries to show.")] = 20,
    sort: Annotated[Sort, typer.Option(help="What comes first: the newest, dearest, most served or largest.")] = (
        Sort.age
    ),
    as_json: Json = False,
) -> None:
    """List cached answers.

    Examples:
        llm-proxy cache ls
        llm-proxy cache ls --sort hits --limit 5
    """
    config = settings(context)
    with opened(config) as store:
        rows, count = listed(store, sort=sort, limit=limit) if store is not None else ([], 0)
    if as_json:
        emit({"entries": [asdict(row) for row in rows], "count": count})
    elif not count:
        typer.echo(f"Nothing is cached in {visible(str(config.cache.directory))} yet.")
    else:
        _show_rows(rows, count)


@cache_app.command()
def show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="A key, or its beginning.")],
    full: Annotated[bool, typer.Option("--full", help="Show question and answer in full.")] = False,
    as_json: Json = False,
) -> None:
    """Show one cached answer.

    Examples:
        llm-proxy cache show 3f9a01c2
        llm-proxy cache show 3f9a01c2 --full
    """
    with opened(settings(context)) as store:
        entry, row = found(store, key)
        evidence = evidence_of(store, entry.key)
    if as_json:
        emit({**_entry_as_data(entry, row), "evidence": [asdict(seen) for seen in evidence]})
    else:
        _show_entry(entry, row, evidence, is_full=full)


@cache_app.command()
def rm(
    context: typer.Context,
    keys: Keys,
    hit: Annotated[
        bool, typer.Option("--hit", help="KEY is the x-llm-proxy-id of a semantic hit: take that one back.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove cached answers; the next such question is asked upstream.

    With --hit no answer is removed: it stays for its own question, and is
    no longer served to the one that got it, nor to others as far from it.
    cache report counts the hit as taken back.

    Examples:
        llm-proxy cache rm 3f9a01c2
        llm-proxy cache rm --hit 8c1d33f0a2b94e57
    """
    if hit:
        _take_back(settings(context), keys, as_json=as_json)
        return
    with opened(settings(context)) as store:
        wanted = keys_of(store, keys)
        count = store.remove(wanted) if store is not None else 0
    if as_json:
        emit({"removed": count, "keys": wanted})
    else:
        typer.echo(f"Removed {_entries(count)}.")


@cache_app.command()
def clear(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove all cached answers.

    Examples:
        llm-proxy cache clear
        llm-proxy cache clear --yes
    """
    config = settings(context)
    place = place_of(config)
    with opened(config) as store:
        keys = store.keys() if store is not None else []
        if keys and not yes:
            if as_json or not _is_interactive():
                raise ConfigError(f"this would remove {_entries(len(keys))} from {place}; add --yes")
            typer.confirm(f"Remove {_entries(len(keys))} from {visible(str(place))}?", abort=True)
        count = store.remove(keys) if store is not None and keys else 0
    if as_json:
        emit({"removed": count})
    else:
        typer.echo(f"Removed {_entries(count)}.")


@cache_app.command()
def pin(context: typer.Context, keys: Keys, as_json: Json = False) -> None:
    """Keep cached answers whatever the budget, until they expire or are unpinned or removed.

    Examples:
        llm-proxy cache pin 3f9a01c2
    """
    _set_pins(settings(context), keys, is_pinned=True, as_json=as_json)


@cache_app.command()
def unpin(context: typer.Context, keys: Keys, as_json: Json = False) -> None:
    """Let pinned answers go again when the budget is spent.

    Examples:
        llm-proxy cache unpin 3f9a01c2
    """
    _set_pins(settings(context), keys, is_pinned=False, as_json=as_json)


@cache_app.command()
def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged and build the index anew.")] = False,
    as_json: Json = False,
) -> None:
    """Read every entry and compare store and index.

    The exit code is 1 when something is wrong and was not repaired.

    Examples:
        llm-proxy cache check
        llm-proxy cache check --repair
    """
    config = settings(context)
    report = _checked(config, repair=repair)
    is_well = not report["findings"] or report["repaired"]
    if as_json:
        emit(report)
    else:
        for finding in report["findings"]:
            typer.echo(f"- {one_line(finding)}")
        typer.echo(f"{_entries(report['entries'])} in {visible(str(config.cache.directory))}: {_verdict(report)}.")
    if not is_well:
        raise typer.Exit(1)


cache_app.command()(report)
cache_app.command()(export)
cache_app.command("import")(import_)
cache_app.command()(warm)
cache_app.command()(replay)


def _take_back(config: Config, hit_ids: list[str], *, as_json: bool) -> None:
    done = take_back(config, hit_ids)
    if as_json:
        emit({"taken_back": done})
        return
    for one in done:
        what = "is no longer served to such questions" if one["is_there"] else "is not there any more"
        typer.echo(f"Taken back: entry {one['entry'][:_KEY_CHARS]} {what}.")


def _set_pins(config: Config, prefixes: list[str], *, is_pinned: bool, as_json: bool) -> None:
    with opened(config) as store:
        keys = keys_of(store, prefixes)
        count = 0
        if store is not None:
            cache = limitless(config, store)
            cache.open()
            count = cache.pin(keys, is_pinned=is_pinned, budget_bytes=config.cache.budget_bytes)
            cache.close()
    verb = "pinned" if is_pinned else "unpinned"
    if as_json:
        emit({verb: count, "keys": keys})
    else:
        others = len(keys) - count
        typer.echo(f"{verb.capitalize()} {_entries(count)}{f'; {amount(others)} already {verb}' if others else ''}.")


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _checked(config: Config, *, repair: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"entries": 0, "damaged": 0, "findings": [], "repaired": False}
    with opened(config) as store:
        if store is None:
            return report
        cache = limitless(config, store)
        found = cache.check(repair=repair)
        if repair:
            cache.close()  # saves the index that was built anew
    report |= {"entries": found.entries, "damaged": found.damaged, "repaired": found.is_repaired}
    report["findings"] = list(found.findings)
    return report


def _verdict(report: dict[str, Any]) -> str:
    if not report["findings"]:
        return "all is well"
    if report["repaired"]:
        return "repaired"
    return "see above; llm-proxy cache check --repair puts it right"


def _entries(count: int) -> str:
    return f"{amount(count)} {'entry' if count == 1 else 'entries'}"


def _show_rows(rows: list[Row], count: int) -> None:
    from rich.text import Text

    names = ("key", "age", "hits", "size", "cost", "model")
    cells = [_cells(row, time.time()) for row in rows]
    taken = sum(max(map(len, column)) + _GAP for column in zip(names, *cells, strict=True))
    screen = console()
    lines = table()
    for name in names:
        lines.add_column(name, justify="left" if name in {"key", "model"} else "right", no_wrap=True)
    lines.add_column("question", no_wrap=True)
    for row, before in zip(rows, cells, strict=True):
        question = one_line(row.question, max(20, screen.width - taken)) or "-"
        lines.add_row(*map(Text, (*before, question)))
    screen.print(lines)
    if count > len(rows):
        screen.print(Text(f"{amount(len(rows))} of {_entries(count)}; --limit shows more"))


def _cells(row: Row, now_s: float) -> tuple[str, ...]:
    is_expired = row.expires_s is not None and now_s >= row.expires_s
    marks = (" (pinned)" if row.is_pinned else "") + (" (expired)" if is_expired else "")
    return (
        row.key[:_KEY_CHARS],
        age(max(0.0, now_s - row.created_s)) + marks,
        amount(row.hits),
        size(row.size_bytes),
        dollars(row.cost_usd),
        one_line(row.model, 32) or "-",
    )


def _show_entry(entry: Entry, row: Row, evidence: tuple[Observation, ...], *, is_full: bool) -> None:
    expires = "never" if entry.expires_s is None else _moment(entry.expires_s)
    vector = (
        f"{len(entry.vector)} dimensions of {entry.encoder}" if entry.vector is not None else "none: exact hits only"
    )
    facts = {
        "key": entry.key,
        "scope": entry.scope,
        "created": f"{_moment(entry.created_s)} ({age(entry.age_s(time.time()))} ago)",
        "expires": expires,
        "pinned": "yes" if entry.is_pinned else "no",
        "hits": amount(row.hits),
        "size": size(row.size_bytes),
        "cost": dollars(entry.cost_usd),
        "latency": milliseconds(entry.latency_s),
        "model": entry.model or "-",
        "backend": entry.backend or "-",
        "vector": vector,
        "evidence": _verdicts(evidence),
    }
    for name, fact in facts.items():
        typer.echo(f"{name:<10}{one_line(fact)}")
    completion, said = answer_of(entry)
    answer = said if completion is not None else entry.completion.decode("utf-8", "replace")
    for name, text in (("question", entry.text), ("answer", answer)):
        kept = text if is_full or len(text) <= _ANSWER_CHARS else f"{text[:_ANSWER_CHARS]}… (--full shows the rest)"
        typer.echo(f"\n{name}\n{visible(kept, keep_lines=True) or '-'}")


def _verdicts(evidence: tuple[Observation, ...]) -> str:
    wrong = [f"{seen.similarity:.3f}" for seen in evidence if not seen.is_same]
    if not evidence:
        return "none"
    same = f"{amount(len(evidence) - len(wrong))} right"
    return f"{same}, {amount(len(wrong))} wrong (similarity {', '.join(wrong)})" if wrong else same


def _entry_as_data(entry: Entry, row: Row) -> dict[str, Any]:
    return {
        **asdict(row),
        "question": entry.text,
        "scope": entry.scope,
        "backend": entry.backend,
        "latency_s": entry.latency_s,
        "encoder": entry.encoder,
        "has_vector": entry.vector is not None,
        "completion": answer_of(entry)[0],
    }


def _moment(unix_s: float) -> str:
    try:
        return datetime.fromtimestamp(unix_s).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return str(unix_s)
