"""What the ledger adds up to: counts, dollars, seconds and latencies, over all calls or by model, route or day."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from llm_proxy.errors import CacheError

__all__ = ["By", "bypass_reasons", "latest_calls", "opened", "totals", "totals_by"]

By = Literal["model", "route", "key", "day"]

_SUMS = {
    "calls": "COUNT(*)",
    "exact_hits": "SUM(status = 'hit' AND kind = 'exact')",
    "semantic_hits": "SUM(status = 'hit' AND kind = 'semantic')",
    "misses": "SUM(status = 'miss')",
    "bypasses": "SUM(status = 'bypass')",
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
    "key": "caller",
    "day": "strftime('%Y-%m-%d', at_s, 'unixepoch', 'localtime')",
}
_TOTALS = "SELECT {group} AS name, {sums} FROM {calls} WHERE at_s >= ? GROUP BY name ORDER BY {order}"
_CALLS_WITH_KEYS = "(SELECT calls.*, COALESCE(caller, '') AS caller FROM calls LEFT JOIN callers ON call = calls.id)"
_CALLS_OF_BEFORE = "(SELECT *, '' AS caller FROM calls)"
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
_REASONS = """
SELECT detail, COUNT(*) FROM calls WHERE status = 'bypass' AND at_s >= ? GROUP BY detail ORDER BY 2 DESC, 1
"""
_LATEST = """
SELECT backend, model, prompt_tokens, completion_tokens, latency_s FROM calls
WHERE status != 'hit' AND error = '' AND http_status = 200 AND completion_tokens IS NOT NULL ORDER BY id DESC LIMIT ?
"""


def totals(path: Path, *, since_s: float = 0.0) -> Mapping[str, float]:
    """Sums over the calls since a Unix time.

    Returns:
        Counts ``calls, exact_hits, semantic_hits, misses, bypasses, errors``; dollars ``saved_usd, cost_usd``;
        seconds ``saved_s`` and, of calls that ended well, ``hit_p50_s, hit_p99_s, miss_p50_s, miss_p99_s``. All are
        0 where there is nothing, and when there is no file.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    return next(iter(_read(path, "", since_s).values()), _nothing())


def totals_by(path: Path, by: By, *, since_s: float = 0.0) -> Mapping[str, Mapping[str, float]]:
    """The same by model, route, key (most calls first) or local day (earliest first).

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
    with opened(path) as connection:
        return {} if connection is None else dict(connection.execute(_REASONS, (since_s,)))


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


def _read(path: Path, by: str, since_s: float) -> dict[str, dict[str, float]]:
    group = _GROUPS[by]
    order = "name" if by == "day" else "2 DESC, name"
    found: dict[str, dict[str, float]] = {}
    with opened(path) as connection:
        if connection is None:
            return found
        connection.execute("BEGIN")  # both queries see the same rows
        calls = _calls(connection) if by == "key" else "calls"
        query = _TOTALS.format(group=group, sums=", ".join(_SUMS.values()), order=order, calls=calls)
        for name, *sums in connection.execute(query, (since_s,)):
            found[name] = _nothing() | dict(zip(_SUMS, sums, strict=True))
        for name, status, p50_s, p99_s in connection.execute(_RANKED.format(group=group, calls=calls), (since_s,)):
            found[name] |= {f"{status}_p50_s": p50_s, f"{status}_p99_s": p99_s}
    return found


def _calls(connection: sqlite3.Connection) -> str:
    """Calls with who made them; nobody knows in a ledger of before."""
    known = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'callers'").fetchone()[0]
    return _CALLS_WITH_KEYS if known else _CALLS_OF_BEFORE


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
