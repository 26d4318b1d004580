"""``llm-proxy doctor``: what is installed, what really works, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING

import typer

from ._shared import Json, console, emit, visible

if TYPE_CHECKING:
    from pathlib import Path

    from ._findings import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check the installation, the settings, the keys, the encoder, the guard and the cache.

    Keys are never shown, only whether they are set. The exit code is 1 when
    there is a problem; warnings say what works with less.

    Examples:
        llm-proxy doctor
        llm-proxy doctor --json
    """
    found = list(_all(context.obj.config))
    if as_json:
        emit({"findings": [asdict(finding) for finding in found], "problems": _problems(found)})
    else:
        _show(found)
    if _problems(found):
        raise typer.Exit(1)


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

    rows = Table.grid(padding=(0, 1))
    for finding in found:
        mark, style = _MARKS[finding.state]
        message = Text(visible(finding.message))
        if finding.remedy:
            message.append(f"\n→ {visible(finding.remedy)}", style="bold")
        rows.add_row(Text(mark, style), Text(finding.topic, "bold"), message)
    screen = console()
    screen.print(rows)
    warnings = sum(finding.state == "warning" for finding in found)
    screen.print(Text(f"{_problems(found)} problem(s), {warnings} warning(s)"))
