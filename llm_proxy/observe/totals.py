"""What the ledger adds up to: counts, dollars, seconds and latencies, over all calls or by model, route or day."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from llm_proxy.errors import CacheError
from llm_proxy.types import CHAT

__all__ = [
    "CALL_COLUMNS",
    "By",
    "bypass_reasons",
    "calls_with",
    "latest_calls",
    "opened",
    "refusal_reasons",
    "totals",
    "totals_by",
]

By = Literal["model", "route", "api", "key", "day"]

CALL_COLUMNS = (
    "at_s", "status", "kind", "detail", "model", "backend", "route", "latency_s", "saved_s", "saved_usd", "cost_usd",
    "similarity", "http_status", "error", "prompt_tokens", "completion_tokens", "is_stream",
)  # fmt: skip
"""What a row of a call tells, beside its ``id``. They are named wherever rows are read or written: a ledger that is a
newer version's may have more, in any order."""

_SUMS = {
    "calls": "COUNT(*)",
    "exact_hits": "SUM(status = 'hit' AND kind = 'exact')",
    "semantic_hits": "SUM(status = 'hit' AND kind = 'semantic')",
    "misses": "SUM(status = 'miss')",
    "bypasses": "SUM(status = 'bypass')",
    "refusals": "SUM(status = 'refused')",
    "errors": "SUM(error != '' OR http_status >= 400)",
    "saved_usd": "TOTAL(saved_usd)",
    "cost_usd": "TOTAL(cost_usd)",
    "saved_s": "TOTAL(saved_s)",
}
_LATENCIES = ("hit_p50_s", "hit_p99_s", "miss_p50_s", "miss_p99_s")
_GROUPS: Mapping[str, str] = {
    "": "''",
    "model": "model",
    "route": "route",
    "api": "api",
    "key": "caller",
    "day": "strftime('%Y-%m-%d', at_s, 'unixepoch', 'localtime')",
}
_TOTALS = "SELECT {group} AS name, {sums} FROM {calls} WHERE at_s >= ? GROUP BY name ORDER BY {order}"
_OF_CALLS: Mapping[str, tuple[str, str, str]] = {"key": ("callers", "caller", ""), "api": ("apis", "api", CHAT)}
"""What another table says of calls: its name, its column, and what holds where it says nothing."""
_JOINED = (
    "(SELECT {columns}, COALESCE({table}.{column}, '{default}') AS {column} FROM calls LEFT JOIN {table} "
    "ON {table}.call = calls.id)"
)
_OF_BEFORE = "(SELECT {columns}, '{default}' AS {column} FROM calls)"
# Percentiles by nearest rank: the least latency that at least the share of them does not exceed.
_RANKED = """
SELECT name, status, MIN(CASE WHEN place >= 0.5 * size THEN latency_s END),
  MIN(CASE WHEN place >= 0.99 * size THEN latency_s END)
FROM (SELECT name, status, latency_s,
    ROW_NUMBER() OVER (PARTITION BY name, status ORDER BY latency_s) AS place,
    COUNT(*) OVER (PARTITION BY name, status) AS size
  FROM (SELECT {group} AS name, status, latency_s FROM {calls}
    WHERE at_s >= ? AND status IN ('hit', 'miss') AND error = '' AND http_status < 400))
GROUP BY name, status
"""
# A reason is what stands before the first semicolon; what follows may be of that one call, as a similarity is.
_REASONS = """
SELECT RTRIM(SUBSTR(detail, 1, INSTR(detail || ';', ';') - 1)) AS reason, COUNT(*) FROM calls
WHERE status = ? AND at_s >= ? GROUP BY reason ORDER BY 2 DESC, 1
"""
_LATEST = """
SELECT backend, model, prompt_tokens, completion_tokens, latency_s FROM calls
WHERE status != 'hit' AND error = '' AND http_status = 200 AND completion_tokens IS NOT NULL ORDER BY id DESC LIMIT ?
"""


def totals(path: Path, *, since_s: float = 0.0) -> Mapping[str, float]:
    """Sums over the calls since a Unix time.

    Returns:
        Counts ``calls, exact_hits, semantic_hits, misses, bypasses, refusals, errors``; dollars ``saved_usd,
        cost_usd``; seconds ``saved_s`` and, of calls that ended well, ``hit_p50_s, hit_p99_s, miss_p50_s,
        miss_p99_s``. All are 0 where there is nothing, and when there is no file.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    return next(iter(_read(path, "", since_s).values()), _nothing())


def totals_by(path: Path, by: By, *, since_s: float = 0.0) -> Mapping[str, Mapping[str, float]]:
    """The same by model, route, API, key (most calls first) or local day (earliest first).

    A key is named by the first eight hexadecimal digits of its SHA-256; the name is empty for calls without one.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    return _read(path, by, since_s)


def bypass_reasons(path: Path, *, since_s: float = 0.0) -> Mapping[str, int]:
    """How many calls bypassed the cache for which reason, most first.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    return _reasons(path, "bypass", since_s)


def refusal_reasons(path: Path, *, since_s: float = 0.0) -> Mapping[str, int]:
    """How many calls llm-proxy itself refused for which reason, most first.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    return _reasons(path, "refused", since_s)


def latest_calls(path: Path, *, most: int) -> Sequence[tuple[str, str, int, int, float]]:
    """The newest calls that were answered upstream with token counts, oldest first.

    Args:
        path: The ledger.
        most: How many at the most, >= 0.

    Returns:
        Backend, model that answered, prompt tokens, completion tokens, and latency in seconds of each.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    with opened(path) as connection:
        return [] if connection is None else connection.execute(_LATEST, (most,)).fetchall()[::-1]


def _reasons(path: Path, status: str, since_s: float) -> dict[str, int]:
    with opened(path) as connection:
        return {} if connection is None else dict(connection.execute(_REASONS, (status, since_s)))


def _read(path: Path, by: str, since_s: float) -> dict[str, dict[str, float]]:
    group = _GROUPS[by]
    order = "name" if by == "day" else "2 DESC, name"
    found: dict[str, dict[str, float]] = {}
    with opened(path) as connection:
        if connection is None:
            return found
        connection.execute("BEGIN")  # both queries see the same rows
        calls = calls_with(connection, by) if by in _OF_CALLS else "calls"
        query = _TOTALS.format(group=group, sums=", ".join(_SUMS.values()), order=order, calls=calls)
        for name, *sums in connection.execute(query, (since_s,)):
            found[name] = _nothing() | dict(zip(_SUMS, sums, strict=True))
        for name, status, p50_s, p99_s in connection.execute(_RANKED.format(group=group, calls=calls), (since_s,)):
            found[name] |= {f"{status}_p50_s": p50_s, f"{status}_p99_s": p99_s}
    return found


def calls_with(connection: sqlite3.Connection, what: str) -> str:
    """A table of calls with a column more: ``caller`` for ``key``, or ``api``; a ledger of before does not know it."""
    table, column, default = _OF_CALLS[what]
    known = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    columns = ", ".join(f"calls.{name}" for name in ("id", *CALL_COLUMNS))
    return (_JOINED if known else _OF_BEFORE).format(table=table, column=column, default=default, columns=columns)


def _nothing() -> dict[str, float]:
    return dict.fromkeys(_SUMS, 0) | dict.fromkeys(_LATENCIES, 0.0)


@contextmanager
def opened(path: Path, what: str = "ledger") -> Iterator[sqlite3.Connection | None]:
    """A connection that can't write; None when there is no such file, or only one without rows yet."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as exc:
        raise CacheError(f"{what} {path} can't be read: {exc.strerror}") from exc
    try:
        with closing(_connect(path)) as connection:
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
            yield connection if tables else None
    except sqlite3.Error as exc:
        raise CacheError(f"{what} {path} can't be read: {exc}; move it away to begin a new one") from exc


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_master")
    except sqlite3.Error as exc:
        connection.close()
        if not isinstance(exc, sqlite3.OperationalError) or path.with_name(path.name + "-wal").exists():
            raise
        # A file in a folder that may not be written, with no one writing: SQLite can't make its lock file there,
        # and needs none.
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    return connection
