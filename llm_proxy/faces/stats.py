"""``llm_proxy.stats()``: the calls that the ledger knows, as a table to go on with."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, overload

from llm_proxy.errors import ConfigError
from llm_proxy.observe.totals import calls_with, opened, totals_by
from llm_proxy.runtime import Settings, alive, runtime_for
from llm_proxy.sinks import ledger_path

if TYPE_CHECKING:
    from pathlib import Path

    from llm_proxy.observe.totals import By
    from llm_proxy.runtime import Runtime

__all__ = ["COLUMNS", "Calls", "stats"]

COLUMNS = (
    "at", "status", "kind", "detail", "model", "backend", "route", "latency_s", "saved_s", "saved_usd", "cost_usd",
    "similarity", "http_status", "error", "prompt_tokens", "completion_tokens", "api", "is_stream",
)  # fmt: skip
"""Columns of one row a call: the ledger's, with the time in place of its number of seconds."""

_CALLS = f"SELECT at_s, {', '.join(COLUMNS[1:])} FROM {{calls}} WHERE at_s >= ? ORDER BY id DESC LIMIT ?"
_MOST_ROWS = 100_000
_SHOWN_ROWS = 20


class Calls(Sequence[Mapping[str, Any]]):
    """A table without pandas: rows by number, columns by name.

    Args:
        columns: Names, in order.
        rows: Values in that order.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.columns = tuple(columns)
        self._rows = [dict(zip(self.columns, row, strict=True)) for row in rows]

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Calls: ...
    @overload
    def __getitem__(self, place: str) -> list[Any]: ...
    def __getitem__(self, place: int | slice | str) -> Any:
        """A row by its number, rows by a slice, or a column by its name.

        Raises:
            KeyError: There is no such column.
            IndexError: There is no such row.
        """
        if isinstance(place, str):
            if place not in self.columns:
                raise KeyError(place)
            return [row[place] for row in self._rows]
        if isinstance(place, slice):
            return Calls(self.columns, [list(row.values()) for row in self._rows[place]])
        return self._rows[place]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} rows: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        names = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row.values())}</tr>"
            for row in self._rows[-_SHOWN_ROWS:]
        )
        more = f"<p>the newest {_SHOWN_ROWS} of {len(self)} rows</p>" if len(self) > _SHOWN_ROWS else ""
        return f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>{more}"


def stats(
    *,
    last_s: float = math.inf,
    by: Literal["", "model", "route", "api", "key", "day"] = "",
    as_frame: bool | None = None,
    llm_proxy: Settings = None,
) -> Any:
    """What the ledger knows: one row a call, oldest first, or the sums by something.

    It has neither prompts nor keys, and the calls of all programs with the same settings.

    Args:
        last_s: Only calls of the last so many seconds, >= 0.
        by: One row for each ``model``, ``route``, ``api``, ``key`` or ``day``, with the sums of
            `llm_proxy.observe.totals.totals`; empty for one row a call, the newest 100,000 at the most.
        as_frame: Whether to return a `pandas.DataFrame`; None: where pandas is installed.
        llm_proxy: Settings, see `llm_proxy.ProxyTransport`.

    Returns:
        A `pandas.DataFrame`, or `Calls` with the same columns.

    Raises:
        ConfigError: These settings keep no ledger, or ``last_s`` is negative.
        CacheError: It can't be read.
        ImportError: A frame was asked for, and pandas is not installed.
    """
    if not last_s >= 0:
        raise ConfigError(f"last_s must be a number of seconds >= 0, not {last_s!r}")
    runtime = runtime_for(llm_proxy)
    path = ledger_path(runtime.config)
    if path is None:
        raise ConfigError(
            'no ledger is kept with these settings: this needs observe.ledger = true and cache.store = "disk"'
        )
    _write_down(runtime)
    since_s = max(0.0, runtime.clock.time() - last_s)
    table = _sums(path, by, since_s) if by else _rows(path, since_s)
    wants_frame = find_spec("pandas") is not None if as_frame is None else as_frame
    return _frame(table) if wants_frame else table


def _write_down(runtime: Runtime) -> None:
    """Have the rows written that wait in this process, of all engines that write the same file."""
    for known in alive():
        if known.ledger is not None and ledger_path(known.config) == ledger_path(runtime.config):
            known.ledger.drain()


def _rows(path: Path, since_s: float) -> Calls:
    with opened(path) as connection:
        found = [] if connection is None else _fetched(connection, since_s)
    return Calls(COLUMNS, [(datetime.fromtimestamp(at_s, UTC), *row[:-1], bool(row[-1])) for at_s, *row in found])


def _fetched(connection: sqlite3.Connection, since_s: float) -> list[tuple[Any, ...]]:
    calls = calls_with(connection, "api")
    return connection.execute(_CALLS.format(calls=calls), (since_s, _MOST_ROWS)).fetchall()[::-1]


def _sums(path: Path, by: By, since_s: float) -> Calls:
    groups = totals_by(path, by, since_s=since_s)
    names = list(next(iter(groups.values()), {}))
    return Calls([by, *names], [[name, *group.values()] for name, group in groups.items()])


def _frame(table: Calls) -> Any:
    import pandas as pd

    return pd.DataFrame(list(table), columns=list(table.columns))
