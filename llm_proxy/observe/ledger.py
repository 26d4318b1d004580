"""The ledger: one row a call in a SQLite file, from which ``llm-proxy stats`` reads. No prompts, no keys.

Rows are written in batches by a timer's thread, so that a call never waits for the disk and a row is there
``flush_s`` after its call; a killed process loses the rows of its last second. Several processes may write one file.
Calls go on when the ledger can't be written; every row that is lost counts as one trouble.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from llm_proxy.errors import CacheError
from llm_proxy.types import CHAT

from .batches import Batches, Later, writable
from .events import NAME_CHARS, CallEvent, CheckEvent, Troubles
from .totals import CALL_COLUMNS, totals

__all__ = ["Ledger", "totals"]

# Older versions read and write the files of newer ones, too: a table or a column may come, with a default where it may
# not be empty, and none may go or change its meaning; a status or a kind that they don't know they count as another.
_SCHEMA = """
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, at_s REAL NOT NULL, status TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
  model TEXT NOT NULL, backend TEXT NOT NULL, route TEXT NOT NULL, latency_s REAL NOT NULL, saved_s REAL NOT NULL,
  saved_usd REAL NOT NULL, cost_usd REAL, similarity REAL, http_status INTEGER NOT NULL, error TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER, is_stream INTEGER NOT NULL)
"""
# Semantic hits once more, with what tells them apart, and what was found out about them. Not columns of ``calls``:
# programs of before write that table, too.
_SEMANTIC_SCHEMA = """
CREATE TABLE IF NOT EXISTS semantic (
  id INTEGER PRIMARY KEY, at_s REAL NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL, asked TEXT NOT NULL,
  scope TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, similarity REAL NOT NULL, p_wrong REAL,
  is_same INTEGER, cost_usd REAL)
"""
# Who made a call, by its number; a table of its own for the same reason.
# Of which API it was, unless of chat completions; likewise.
_OF_CALLS = {"callers": "caller", "apis": "api"}
_OF_CALLS_SCHEMA = "CREATE TABLE IF NOT EXISTS {table} (call INTEGER PRIMARY KEY, {column} TEXT NOT NULL)"
_NEXT_CALL = "SELECT COALESCE(MAX(id), 0) + 1 FROM calls"
_INSERT_OF_CALLS = "INSERT OR REPLACE INTO {table} (call, {column}) SELECT id, ? FROM calls WHERE id BETWEEN ? AND ?"
_TRIM_OF_CALLS = "DELETE FROM {table} WHERE call < (SELECT MIN(id) FROM calls)"
_SEMANTIC_COLUMNS = (
    "at_s", "source", "key", "asked", "scope", "route", "model", "similarity", "p_wrong", "is_same", "cost_usd",
)  # fmt: skip
_INSERTS = {
    table: f"INSERT INTO {table} ({', '.join(columns)}) VALUES (?{', ?' * (len(columns) - 1)})"
    for table, columns in (("calls", CALL_COLUMNS), ("semantic", _SEMANTIC_COLUMNS))
}
_TRIM = "DELETE FROM {table} WHERE id <= (SELECT MAX(id) FROM {table}) - ?"
APPLICATION_ID = 0x4C50_4C31  # "LPL1": tells a ledger from any other SQLite file. Source: sqlite.org/fileformat.html

_MOST_COUNT = 1 << 53  # SQLite's integers end at 2^63, JSON's exact ones here; an upstream may claim any number


class Ledger(Batches[CallEvent | CheckEvent]):
    """Appends events to a file; see `llm_proxy.observe.batches.Batches`.

    Args:
        path: The SQLite file; made, with its folder, on the first write, readable by its owner only.
        monotonic: Clock, seconds.
        max_rows: Oldest rows go beyond this many.
        troubles: Where a failing disk is counted.
        flush_s: Longest time between a call and its row.
        later: Runs a function once after some seconds, elsewhere; by default a timer's thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float],
        max_rows: int,
        troubles: Troubles,
        flush_s: float = 1.0,
        later: Later | None = None,
    ) -> None:
        super().__init__(path, "ledger", monotonic=monotonic, troubles=troubles, flush_s=flush_s, later=later)
        self._max_rows = max_rows

    def _write(self, events: list[CallEvent | CheckEvent], *, busy_s: float) -> None:
        rows = _rows(events)
        # One connection a batch: that is cheap once a second, keeps no file open, and finds a folder again that was
        # removed and made anew.
        with writable(self._path, busy_s=busy_s) as connection:
            _make_ours(connection, self._path)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SEMANTIC_SCHEMA)
            for table, column in _OF_CALLS.items():
                connection.execute(_OF_CALLS_SCHEMA.format(table=table, column=column))
            first = connection.execute(_NEXT_CALL).fetchone()[0]
            for table, insert in _INSERTS.items():
                connection.executemany(insert, rows[table])
                connection.execute(_TRIM.format(table=table), (self._max_rows,))
            for table, column in _OF_CALLS.items():
                # One caller often makes many calls in a row, and each statement has to ask for Python's lock again.
                insert = _INSERT_OF_CALLS.format(table=table, column=column)
                connection.executemany(insert, _runs(rows[table], first))
                connection.execute(_TRIM_OF_CALLS.format(table=table))
            connection.execute("COMMIT")


def _make_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Lay out an empty file; refuse one that another program made, before anything in it changes."""
    if _is_laid_out(connection, path):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not _is_laid_out(connection, path):  # asked again: another process may have been faster
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _is_laid_out(connection: sqlite3.Connection, path: Path) -> bool:
    # In this order: another process may lay it out between the two, tables and number at once.
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return False
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CacheError(f"{path} is not a ledger of llm-proxy; move it away or set another cache.directory")
    return True


def _rows(events: list[CallEvent | CheckEvent]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of some events, by table; those about calls by the place of their call among the others."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in (*_INSERTS, *_OF_CALLS)}
    for event in events:
        if isinstance(event, CallEvent):
            if event.caller:
                rows["callers"].append((len(rows["calls"]), _text(event.caller)))
            if event.api != CHAT:
                rows["apis"].append((len(rows["calls"]), _text(event.api)))
            rows["calls"].append(_row(event))
            if event.outcome.kind == "semantic":
                rows["semantic"].append(_served_row(event))
        else:
            rows["semantic"].append(_check_row(event))
    return rows


def _runs(rows: list[tuple[Any, ...]], first: int) -> Iterator[tuple[str, int, int]]:
    """Of the calls of a batch that follow each other and have a name in common: it, and the numbers of both ends.

    Args:
        rows: Place of a call in the batch, and its name; in order.
        first: Number of the batch's first call.
    """
    for (_, name), run in groupby(enumerate(rows), lambda at: (at[1][0] - at[0], at[1][1])):
        places = [place for _, (place, _) in run]
        yield name, first + places[0], first + places[-1]


def _served_row(event: CallEvent) -> tuple[Any, ...]:
    outcome = event.outcome
    similarity = 0.0 if outcome.similarity is None else outcome.similarity
    return (
        _real(event.at_s), "served", _text(outcome.key), _text(outcome.asked), _text(outcome.scope),
        _text(outcome.route), _text(outcome.model), _real(similarity), outcome.p_wrong, None, None,
    )  # fmt: skip


def _check_row(event: CheckEvent) -> tuple[Any, ...]:
    return (
        _real(event.at_s), event.source, _text(event.key), _text(event.asked), _text(event.scope), _text(event.route),
        _text(event.model), _real(event.similarity), event.p_wrong,
        None if event.is_same is None else int(event.is_same),
        None if event.cost_usd is None else _real(event.cost_usd),
    )  # fmt: skip


def _row(event: CallEvent) -> tuple[Any, ...]:
    outcome, usage = event.outcome, event.usage
    return (
        _real(event.at_s), outcome.status, outcome.kind, _text(outcome.detail), _text(outcome.model),
        _text(outcome.backend), _text(outcome.route), _real(event.latency_s), _real(event.saved_s),
        _real(outcome.saved_usd), None if outcome.cost_usd is None else _real(outcome.cost_usd), outcome.similarity,
        event.http_status, _text(event.error), _count(usage.prompt_tokens) if usage else None,
        _count(usage.completion_tokens) if usage else None, int(event.is_stream),
    )  # fmt: skip


def _text(value: str) -> str:
    """Text that SQLite takes: a model's name is whatever the caller sent, lone surrogates included."""
    cut = value[:NAME_CHARS]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()


def _real(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _count(value: int) -> int:
    return max(0, min(value, _MOST_COUNT))
