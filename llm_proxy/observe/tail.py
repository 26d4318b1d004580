"""The newest calls as rows for people, from memory and from the ledger, which has those of other processes too."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from llm_proxy.types import CHAT, HIT_ID_CHARS

from .recent import MOST_CALLS, Recent, call_id
from .totals import CALL_COLUMNS, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .events import CallEvent

__all__ = ["Feed", "row_of"]

_CALLS = f"SELECT id, {', '.join(CALL_COLUMNS)} FROM calls WHERE id > ? ORDER BY id DESC LIMIT {MOST_CALLS}"
_OF_CALLS = "SELECT call, {column} FROM {table} WHERE call > ? ORDER BY call DESC LIMIT {most}"
_SEMANTIC = (
    "SELECT id, at_s, source, key, asked, p_wrong FROM semantic "
    f"WHERE id > ? AND source IN ('served', 'undo') ORDER BY id DESC LIMIT {2 * MOST_CALLS}"
)
_MOST_TAKEN_BACK = 4 * MOST_CALLS

Row = dict[str, Any]


def row_of(event: CallEvent) -> Row:
    """A call as plain data for JSON."""
    outcome, usage = event.outcome, event.usage
    is_semantic = outcome.kind == "semantic"
    return {
        "id": call_id(event.at_s, event.latency_s),
        "at_s": event.at_s,
        "status": outcome.status,
        "kind": outcome.kind,
        "detail": outcome.detail,
        "model": outcome.model,
        "backend": outcome.backend,
        "route": outcome.route,
        "latency_s": event.latency_s,
        "saved_s": event.saved_s,
        "saved_usd": outcome.saved_usd,
        "cost_usd": outcome.cost_usd,
        "similarity": outcome.similarity,
        "http_status": event.http_status,
        "error": event.error,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "is_stream": event.is_stream,
        "p_wrong": outcome.p_wrong,
        "hit_id": outcome.asked[:HIT_ID_CHARS] if is_semantic else "",
        "pair": f"{outcome.key}/{outcome.asked}" if is_semantic else "",
        "reason": outcome.reason,
        "cascade": outcome.cascade,
        "caller": event.caller,
        "api": event.api,
        "question": event.question,
        "is_here": True,
        "is_undone": False,
    }


class Feed:
    """The newest calls of all processes that share a ledger; thread-safe.

    Args:
        recent: Those of this process.
        path: The ledger; None where there is none.
    """

    def __init__(self, recent: Recent, path: Path | None) -> None:
        self._recent, self._path = recent, path
        self._rows: dict[str, tuple[int, Row]] = {}
        self._number = self._seen_recent = self._seen_calls = self._seen_semantic = 0
        self._pairs: OrderedDict[float, tuple[str, str, float | None]] = OrderedDict()
        self._taken_back: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Take in what is new.

        Raises:
            CacheError: The ledger is there but can't be read.
        """
        with self._lock:
            self._seen_recent, events = self._recent.since(self._seen_recent)
            for event in events:
                self._put(row_of(event))
            if self._path is not None:
                with opened(self._path) as connection:
                    if connection is not None:
                        self._read(connection)
            newest = sorted(self._rows.values(), key=lambda found: float(found[1]["at_s"]))[-MOST_CALLS:]
            self._rows = {row["id"]: (number, row) for number, row in newest}

    def since(self, number: int) -> tuple[int, Sequence[Row]]:
        """Rows that are new or have changed, oldest first, and the number to ask with the next time; 0 for all."""
        with self._lock:
            return self._number, [row for at, row in self._rows.values() if at > number]

    def row(self, name: str) -> Row | None:
        """The row of a call, or None when it is no longer among the newest."""
        with self._lock:
            found = self._rows.get(name)
        return found[1] if found else None

    def take_back(self, pair: str) -> None:
        """Mark the hits of an entry and a question as undone.

        Args:
            pair: Exact keys of both, as a row's ``pair`` has them.
        """
        with self._lock:
            self._mark(pair)

    def _mark(self, pair: str) -> None:
        _keep(self._taken_back, pair, None)
        for _, row in list(self._rows.values()):
            if row["pair"] == pair and not row["is_undone"]:
                self._put(row)

    def _read(self, connection: sqlite3.Connection) -> None:
        newest = connection.execute("SELECT COALESCE(MAX(id), 0) FROM calls").fetchone()[0]
        if newest < self._seen_calls:  # another ledger is in its place
            self._seen_calls = self._seen_semantic = 0
        self._read_semantic(connection)
        callers = self._of_calls(connection, "callers", "caller")
        apis = self._of_calls(connection, "apis", "api")
        for number, *values in connection.execute(_CALLS, (self._seen_calls,)).fetchall()[::-1]:
            self._seen_calls = number
            row = dict(zip(CALL_COLUMNS, values, strict=True))
            name = call_id(row["at_s"], row["latency_s"])
            if name in self._rows:
                continue
            key, asked, p_wrong = self._pairs.get(row["at_s"], ("", "", None))
            is_semantic = row["kind"] == "semantic" and bool(asked)
            more = {"p_wrong": p_wrong, "hit_id": asked[:HIT_ID_CHARS], "pair": f"{key}/{asked}"} if is_semantic else {}
            self._put({
                "id": name, **row, "is_stream": bool(row["is_stream"]), "p_wrong": None, "hit_id": "", "pair": "",
                "reason": "", "cascade": "", "question": "", "is_here": False,
                "caller": callers.get(number, ""), "api": apis.get(number, CHAT), "is_undone": False, **more,
            })  # fmt: skip

    def _of_calls(self, connection: sqlite3.Connection, table: str, column: str) -> dict[int, str]:
        """What another table says of new calls, by their number; nothing in a ledger of before."""
        query = _OF_CALLS.format(table=table, column=column, most=MOST_CALLS)
        return dict(connection.execute(query, (self._seen_calls,))) if _has_table(connection, table) else {}

    def _read_semantic(self, connection: sqlite3.Connection) -> None:
        if not _has_table(connection, "semantic"):
            return  # a ledger of before
        rows = connection.execute(_SEMANTIC, (self._seen_semantic,)).fetchall()
        for number, at_s, source, key, asked, p_wrong in reversed(rows):
            self._seen_semantic = number
            if source == "served":
                _keep(self._pairs, at_s, (key, asked, p_wrong))
            else:
                self._mark(f"{key}/{asked}")

    def _put(self, row: Row) -> None:
        self._number += 1
        is_undone = bool(row["pair"]) and row["pair"] in self._taken_back
        self._rows[row["id"]] = (self._number, {**row, "is_undone": is_undone})


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return bool(found[0])


def _keep(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _MOST_TAKEN_BACK:
        kept.popitem(last=False)
