"""``llm-proxy doctor``: what is installed, what really works, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from ._shared import Json, console, emit, visible

if TYPE_CHECKING:
    from pathlib import Path

    from ._findings import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}
_ASCII = {"✓": "+", "✗": "x", "→": "->"}


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without harm, and look again.")] = False,
    as_json: Json = False,
) -> None:
    """Check the installation, the settings, the keys, the encoder, the guard and the cache.

    Keys are never shown, only whether they are set. The exit code is 1 when
    there is a problem; warnings say what works with less. With --fix, a cache
    folder that others may read becomes the owner's alone, and a snapshot of
    the index that can't be read is removed: the next start makes it anew.
    Answers, settings and packages are never touched.

    Examples:
        llm-proxy doctor
        llm-proxy doctor --fix
        llm-proxy doctor --json
    """
    found = list(_all(context.obj.config))
    changes = _mended(context.obj.config, found) if fix else []
    if any(is_done for is_done, _ in changes):
        found = list(_all(context.obj.config))
    if as_json:
        report = {"findings": [asdict(finding) for finding in found], "problems": _problems(found)}
        emit(report | ({"fixed": [text for is_done, text in changes if is_done]} if fix else {}))
    else:
        for is_done, text in changes:
            typer.echo(visible(f"{'fixed' if is_done else 'not fixed'}: {text}"))
        _show(found)
    if _problems(found):
        raise typer.Exit(1)


def _mended(path: Path | None, found: list[Finding]) -> list[tuple[bool, str]]:
    """What was changed; nothing where the settings are wrong, for then the folder that was looked at is another."""
    if any(finding.topic == "settings" and finding.state == "problem" for finding in found):
        return [(False, "nothing, until the settings are right")]
    from llm_proxy.config import load

    from ._fixes import fixed

    return list(fixed(load(path), found))


def _all(path: Path | None) -> Iterator[Finding]:
    from . import _checks, _checks_cache

    yield from _checks.packages()
    config, findings = _checks.settings(path)
    yield from findings
    yield from _checks.optional(config)
    yield from _checks.keys(config)
    yield from _checks_cache.encoder(config)
    yield from _checks_cache.guard(config)
    yield from _checks_cache.cache(config)
    yield from _checks_cache.ledger(config)
    yield from _checks.servers()
    yield from _checks.prices(date.today())


def _problems(found: list[Finding]) -> int:
    return sum(finding.state == "problem" for finding in found)


def _show(found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    screen = console()
    signs = _ASCII if screen.options.ascii_only else {}
    rows = Table.grid(padding=(0, 1))
    for finding in found:
        mark, style = _MARKS[finding.state]
        message = Text(visible(finding.message))
        if finding.remedy:
            message.append(f"\n{signs.get('→', '→')} {visible(finding.remedy)}", style="bold")
        rows.add_row(Text(signs.get(mark, mark), style), Text(finding.topic, "bold"), message)
    screen.print(rows)
    warnings = sum(finding.state == "warning" for finding in found)
    mendable = sum(bool(finding.fix) for finding in found)
    hint = f"; llm-proxy doctor --fix mends {mendable}" if mendable else ""
    screen.print(Text(f"{_problems(found)} problem(s), {warnings} warning(s){hint}"))
