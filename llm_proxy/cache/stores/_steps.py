"""The rows of the disk store's log: see `llm_proxy.cache.stores.disk`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError

from .base import Change

if TYPE_CHECKING:
    from ._rows import Rows

__all__ = ["MOST_HITS", "integer", "is_there", "log", "log_key", "shorten", "step_of"]

MOST_HITS = 1 << 53
"""Above it a count of hits is not taken for one."""

_FREE_PAGES, _FREE_PART = 32, 64  # pages, or one in so many, that may lie free before the file is made shorter,
_SHORTENED_PAGES = 256  # by so many at once, in some milliseconds
_EMPTY_EVERY = 16  # steps; each may hold ten kilobytes of hits
_TRIM_EVERY = 256  # steps between two cuts of the log
_TRIM_ROWS = 4096  # most steps that go at once
_OLDEST = "SELECT min(key) FROM Cache WHERE key > 'l:' AND key < 'l;' AND raw = 1"
_NEWEST = "SELECT max(key) FROM Cache WHERE key > 'l:' AND key < 'l;' AND raw = 1"
_CUT = "DELETE FROM Cache WHERE key > 'l:' AND key <= ? AND raw = 1"
_FULL = (
    "FROM Cache WHERE key > ? AND key <= ? AND raw = 1 AND typeof(value) = 'text' "
    "AND substr(value, 1, 9) = '[\"touch\",'"
)


def log_key(sequence: int) -> str:
    """The key of a step; keys are ordered as their numbers are."""
    return f"l:{sequence:020d}"


def step_of(sequence: int, key: str, mode: object, filename: object, value: object) -> list[Change] | None:
    """The changes of one row of the log, or None when it is not one that this store writes."""
    if key != log_key(sequence) or mode != 1 or filename is not None or type(value) is not str:
        return None
    try:
        operation, *items = json.loads(value)
        if operation == "touch":
            return [Change(sequence, "touch", _key(key), _hits(hits)) for key, hits in items]
        if operation in ("put", "remove"):
            return [Change(sequence, operation, _key(key)) for key in items]
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _key(value: object) -> str:
    if type(value) is not str:
        raise TypeError("a key is text")
    value.encode()  # text that can't be written can't be asked for either
    return value


def _hits(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MOST_HITS:
        raise ValueError("no count of hits")
    return value


def log(rows: Rows, step: list[object], *, least_steps: int) -> int:
    """Add a step inside of `Rows.writing`, and now and then cut off the oldest; returns its number.

    Half as many steps are kept as there are entries, or ``least_steps`` where that is more: a snapshot is as old as a
    quarter. Hits of more than some dozen steps ago are left out of them: they are many, and the entries have them.
    """
    last = integer(rows, "n:sequence")
    sequence = (_number(rows, _NEWEST) if last is None else last) + 1
    rows.set("n:sequence", sequence)
    rows.set(log_key(sequence), json.dumps(step, separators=(",", ":")))
    if sequence % _EMPTY_EVERY == 0:
        _empty(rows, log_key(max(0, sequence - 2 * _EMPTY_EVERY)), log_key(max(0, sequence - _EMPTY_EVERY)))
    if sequence % _TRIM_EVERY == 0:
        _trim(rows, sequence, least_steps)
    return sequence


def integer(rows: Rows, key: str) -> int | None:
    """An integer row, or None when it is absent or not one: it is then written anew."""
    try:
        value = rows.pending(key)
    except CacheCorruptError:
        return None
    return value if type(value) is int else None


def _empty(rows: Rows, after: str, upto: str) -> None:
    """Take the hits out of steps. By an UPDATE to less SQLite would keep their pages, each all but empty."""
    keys = [key for (key,) in rows.run(f"SELECT key {_FULL}", after, upto).fetchall()]
    rows.run(f"DELETE {_FULL}", after, upto)
    for key in keys:
        rows.set(key, '["touch"]')


def _trim(rows: Rows, sequence: int, least_steps: int) -> None:
    oldest = _number(rows, _OLDEST)
    # Every entry is a row, and most have a second one for their hits.
    entries = (rows.total() - (sequence - oldest + 1)) // 2
    cut = min(sequence - max(least_steps, entries // 2), oldest + _TRIM_ROWS)
    if cut >= oldest:
        rows.run(_CUT, log_key(cut))


def _number(rows: Rows, statement: str) -> int:
    ((key,),) = rows.run(statement).fetchall()
    return int(key[2:]) if key is not None else 0


def is_there(rows: Rows, key: str) -> bool:
    """Whether there is an entry of this key, inside of `Rows.writing`."""
    return rows.run("SELECT 1 FROM Cache WHERE key = ? AND raw = 1", f"e:{key}").fetchone() is not None


def shorten(rows: Rows) -> None:
    """Give a piece of the file back when much of it is free; a piece, so that nobody waits for long."""
    free = rows.pragma("freelist_count")
    if free > max(_FREE_PAGES, rows.pragma("page_count") // _FREE_PART):
        # Python's sqlite3 takes one step of this pragma, which is one page.
        for _ in range(min(free, _SHORTENED_PAGES)):
            rows.run("PRAGMA incremental_vacuum(1)")
