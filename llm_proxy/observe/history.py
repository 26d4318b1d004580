"""What the ledger says over time, kept in memory and brought up to date by its new rows alone.

A ledger of a million rows is read once, in pieces, by whoever asks first; later questions read what came since. Spans
are kept in three sizes: minutes for two hours, quarters of an hour for eight days, local days for 400; so memory is
bounded whatever the ledger holds. The sums of all time go on when the ledger drops its oldest rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .buckets import EDGES_S, Part, Sums, percentile, place_of
from .totals import opened

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .events import CallEvent

__all__ = ["RANGES", "History", "Range"]

Range = Literal["hour", "day", "week", "all"]
RANGES: tuple[Range, ...] = ("hour", "day", "week", "all")
"""The last hour, today, the last seven days with today, all that is known."""

_MINUTE_S, _QUARTER_S, _DAY_S = 60, 900, 86_400
_MINUTES_S, _QUARTERS_S, _DAYS_S = 2 * 3_600, 8 * _DAY_S, 400 * _DAY_S
_PIECE = 20_000  # rows at a time: a few hundredths of a second
_MOST_PAIRS = 64  # of route and model in a span; a caller may name any model
_MOST_SHOWN = 12
_OTHER = ("", "other")
_MOST_SLOTS = 60


def _place_sql(value: str, low: int = 0, high: int = len(EDGES_S)) -> str:
    """`place_of` as SQL: a tree of comparisons, eight deep."""
    if low == high:
        return str(low)
    middle = (low + high) // 2
    below, above = _place_sql(value, low, middle), _place_sql(value, middle + 1, high)
    return f"CASE WHEN {value} <= {EDGES_S[middle]!r} THEN {below} ELSE {above} END"


_COUNTED = "status IN ('hit', 'miss') AND error = '' AND http_status < 400"
_SPAN = (
    "CAST(at_s AS INTEGER) - CAST(at_s AS INTEGER) % "
    "CASE WHEN at_s >= :minutes_s THEN 60 WHEN at_s >= :quarters_s THEN 900 ELSE 3600 END"
)
_PIECE_OF = "WHERE id > :after AND id <= :upto"
_CALLS = f"""
SELECT {_SPAN}, status, kind, route, model, COUNT(*), SUM(error != '' OR http_status >= 400), TOTAL(saved_usd),
  TOTAL(cost_usd), TOTAL(saved_s)
FROM calls {_PIECE_OF} GROUP BY 1, 2, 3, 4, 5
"""
_LATENCIES = f"""
SELECT {_SPAN}, status, {_place_sql("latency_s")}, COUNT(*) FROM calls {_PIECE_OF} AND {_COUNTED} GROUP BY 1, 2, 3
"""
_WITHOUT = f"""
SELECT {_SPAN}, 'without', {_place_sql("(latency_s + saved_s)")}, COUNT(*)
FROM calls {_PIECE_OF} AND {_COUNTED} GROUP BY 1, 3
"""
_SEMANTIC = f"""
SELECT {_SPAN}, SUM(source = 'served'), SUM(source = 'shadow' AND is_same IS NOT NULL),
  SUM(source = 'shadow' AND is_same IS 0), SUM(source = 'shadow' AND is_same IS NULL), SUM(source = 'undo'),
  TOTAL(CASE WHEN source = 'served' THEN 0 ELSE cost_usd END)
FROM semantic {_PIECE_OF} GROUP BY 1
"""
_CHECKS = ("served", "checked", "wrong", "unclear", "undone", "check_usd")


class _Slots(NamedTuple):
    """How a range is cut: where it starts, and how long each piece is, Unix time and seconds."""

    starts_s: list[float]
    slot_s: float


class History:
    """Sums of calls by time; thread-safe, and itself a sink for where no ledger is kept.

    Args:
        path: The ledger; None where events are taken as they come.
        now: Unix time, seconds.
    """

    def __init__(self, path: Path | None, *, now: Callable[[], float]) -> None:
        self._path, self._now = path, now
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._seen = [0] * len(_QUERIES)
        self._minutes: dict[int, Sums] = {}
        self._quarters: dict[int, Sums] = {}
        self._days: dict[int, Sums] = {}
        self._total = Sums()
        self._fresh: dict[int, Sums] = {}

    def __call__(self, event: CallEvent) -> None:
        """Take an event; without effect where a ledger has it."""
        if self._path is not None:
            return
        outcome, start_s = event.outcome, int(event.at_s) // _MINUTE_S * _MINUTE_S
        is_error = bool(event.error) or event.http_status >= 400
        money = outcome.saved_usd, outcome.cost_usd or 0.0, event.saved_s
        row = (start_s, outcome.status, outcome.kind, outcome.route, outcome.model, 1, is_error, *money)
        with self._lock:
            if start_s not in self._fresh:
                self._fold()
            sums = self._fresh.setdefault(start_s, Sums())
            _add_calls(sums, row)
            _bound(sums)
            if outcome.status in _LATENCIES_OF and not is_error:
                _add_latencies(sums, (start_s, outcome.status, place_of(event.latency_s), 1))
                _add_latencies(sums, (start_s, "without", place_of(event.latency_s + event.saved_s), 1))
            sums.served += outcome.kind == "semantic"

    def refresh(self) -> None:
        """Read what the ledger got since the last time; one thread does so, others do not wait for it.

        Raises:
            CacheError: The file is there but can't be read as a ledger.
        """
        if self._path is None:
            with self._lock:
                self._fold()
            return
        if not self._reading.acquire(blocking=False):
            return
        try:
            with opened(self._path) as connection:
                if connection is not None:
                    self._follow(connection)
        finally:
            self._reading.release()

    def total(self) -> Sums:
        """The sums of all time; not to be changed."""
        with self._lock:
            return self._total

    def view(self, name: Range) -> dict[str, Any]:
        """A range as plain data for JSON.

        Returns:
            ``range``; ``from_s`` and ``slot_s``; ``slots``, each a list of counts ``exact, semantic, miss, bypass,
            errors``, of ``saved_usd``, and of the count ``refused``; ``totals`` as `Sums.numbers`; ``latency``: p50,
            p90 and p99 in seconds, or None, of calls ``with`` the cache, of the same ``without`` it, of ``hits`` and
            of ``upstream``; ``mix``: route, model, calls, hits and money of those asked most.
        """
        with self._lock:
            cut = self._slots(name)
            spans = [Sums() for _ in cut.starts_s]
            for start_s, sums in self._between(name, cut.starts_s[0]):
                place = min(int((start_s - cut.starts_s[0]) // cut.slot_s), len(spans) - 1)
                spans[place].add(sums)
        whole = Sums()
        for sums in spans:
            whole.add(sums)
        return {
            "range": name,
            "from_s": cut.starts_s[0],
            "slot_s": cut.slot_s,
            "slots": [[s.exact, s.semantic, s.miss, s.bypass, s.errors, s.saved_usd, s.refused] for s in spans],
            "totals": whole.numbers(),
            "latency": _latencies(whole),
            "mix": _mix(whole),
        }

    def sums(self) -> dict[str, dict[str, Any]]:
        """Numbers of today, of seven days and of all time, by ``day``, ``week`` and ``all``."""
        with self._lock:
            found = {}
            for name in ("day", "week"):
                whole = Sums()
                for _, sums in self._between(name, self._slots(name).starts_s[0]):
                    whole.add_numbers(sums)
                found[name] = whole.numbers()
            return {**found, "all": self._total.numbers()}

    # -- reading the ledger --------------------------------------------------------------------------------------

    def _follow(self, connection: sqlite3.Connection) -> None:
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ends = {table: _end_of(connection, table) if table in there else (0, 0) for table in ("calls", "semantic")}
        if any(ends[table][1] < seen for (table, *_), seen in zip(_QUERIES, self._seen, strict=True)):
            with self._lock:
                self._begin()  # another ledger is in its place
        for place, (table, query, add) in enumerate(_QUERIES):
            first, newest = ends[table]
            while (after := max(self._seen[place], first - 1)) < newest:
                upto = min(newest, after + _PIECE)
                self._read_piece(connection.execute(query, self._bounds(after, upto)), add)
                self._seen[place] = upto
        with self._lock:
            self._forget()

    def _bounds(self, after: int, upto: int) -> dict[str, float]:
        now_s = self._now()
        return {"after": after, "upto": upto, "minutes_s": now_s - _MINUTES_S, "quarters_s": now_s - _QUARTERS_S}

    def _read_piece(self, rows: Iterable[tuple[Any, ...]], add: Callable[[Sums, tuple[Any, ...]], None]) -> None:
        found: dict[int, Sums] = {}
        for row in rows:
            add(found.setdefault(row[0], Sums()), row)
        with self._lock:
            for start_s, sums in found.items():
                self._add(start_s, sums)

    # -- spans ---------------------------------------------------------------------------------------------------

    def _add(self, start_s: int, sums: Sums) -> None:
        now_s = self._now()
        self._total.add(sums)
        if start_s >= now_s - _MINUTES_S:
            self._minutes.setdefault(start_s // _MINUTE_S * _MINUTE_S, Sums()).add(sums)
        if start_s >= now_s - _QUARTERS_S:
            self._quarters.setdefault(start_s // _QUARTER_S * _QUARTER_S, Sums()).add(sums)
        self._days.setdefault(int(_midnight(start_s)), Sums()).add(sums)
        _bound(self._total)

    def _fold(self) -> None:
        """Add what events brought to the spans: once a minute, since it takes longer than to note one."""
        for start_s, sums in self._fresh.items():
            self._add(start_s, sums)
        self._fresh.clear()
        self._forget()

    def _forget(self) -> None:
        now_s = self._now()
        for spans, kept_s in ((self._minutes, _MINUTES_S), (self._quarters, _QUARTERS_S), (self._days, _DAYS_S)):
            for start_s in [start_s for start_s in spans if start_s < now_s - kept_s]:
                del spans[start_s]
            for sums in spans.values():
                _bound(sums)

    def _slots(self, name: Range) -> _Slots:
        now_s = self._now()
        if name == "hour":
            start_s = now_s // _MINUTE_S * _MINUTE_S - 59 * _MINUTE_S
            return _cut(start_s, _MINUTE_S, 60)
        if name == "day":
            return _cut(_midnight(now_s), 3_600, 24)
        if name == "week":
            return _cut(_midnight(now_s, days_ago=6), 6 * 3_600, 28)
        first_s = min(self._days, default=now_s)
        days = max(14, int((_midnight(now_s) - _midnight(first_s)) / _DAY_S + 0.5) + 1)
        per_slot = -(-days // _MOST_SLOTS)
        slots = -(-days // per_slot)
        return _cut(_midnight(now_s, days_ago=slots * per_slot - 1), per_slot * _DAY_S, slots)

    def _between(self, name: Range, from_s: float) -> Iterator[tuple[int, Sums]]:
        spans = {"hour": self._minutes, "day": self._quarters, "week": self._quarters, "all": self._days}[name]
        # An hour's slack at the start of a day: when clocks change, midnights are not 24 hours apart.
        slack_s = 3_600 if name == "all" else 0
        yield from ((max(start_s, int(from_s)), sums) for start_s, sums in spans.items() if start_s >= from_s - slack_s)


def _end_of(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """The first and the last number of a table's rows; zeros where it is empty."""
    first, last = connection.execute(f"SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM {table}").fetchone()
    return first, last


def _cut(start_s: float, slot_s: float, slots: int) -> _Slots:
    return _Slots([start_s + slot_s * place for place in range(slots)], slot_s)


def _midnight(at_s: float, *, days_ago: int = 0) -> float:
    """Unix time at which a local day begins."""
    day = datetime.fromtimestamp(at_s).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)
    return day.timestamp()


def _add_calls(sums: Sums, row: tuple[Any, ...]) -> None:
    _, status, kind, route, model, count, errors, saved_usd, cost_usd, saved_s = row
    is_hit = status == "hit"
    name = kind if is_hit else status
    name = name if name in _SORTS else "other"
    setattr(sums, name, getattr(sums, name) + count)
    sums.errors += errors
    sums.saved_usd += saved_usd
    sums.cost_usd += cost_usd
    sums.saved_s += saved_s
    if status == "refused":
        return  # no model has answered
    part = Part(count, count if is_hit else 0, saved_usd, cost_usd)
    sums.mix.setdefault((route, model), Part()).add(part)


def _add_latencies(sums: Sums, row: tuple[Any, ...]) -> None:
    _, status, place, count = row
    getattr(sums, _LATENCIES_OF[status])[place] += count


def _add_checks(sums: Sums, row: tuple[Any, ...]) -> None:
    sums.add(Sums(**dict(zip(_CHECKS, row[1:], strict=True))))


_SORTS = frozenset({"exact", "semantic", "miss", "bypass", "refused"})
_LATENCIES_OF = {"hit": "hits", "miss": "upstream", "without": "without"}
_QUERIES: tuple[tuple[str, str, Callable[[Sums, tuple[Any, ...]], None]], ...] = (
    ("calls", _CALLS, _add_calls),
    ("calls", _LATENCIES, _add_latencies),
    ("calls", _WITHOUT, _add_latencies),
    ("semantic", _SEMANTIC, _add_checks),
)


def _bound(sums: Sums) -> None:
    """Keep the models that were asked most: names are the callers'."""
    if len(sums.mix) > 2 * _MOST_PAIRS:
        other = sums.mix.pop(_OTHER, Part())
        ordered = sorted(sums.mix.items(), key=lambda item: item[1].calls, reverse=True)
        for _, part in ordered[_MOST_PAIRS - 1 :]:
            other.add(part)
        sums.mix = {**dict(ordered[: _MOST_PAIRS - 1]), _OTHER: other}


def _latencies(sums: Sums) -> dict[str, dict[str, float | None]]:
    groups = {
        "with": sums.hits + sums.upstream,
        "without": sums.without,
        "hits": sums.hits,
        "upstream": sums.upstream,
    }
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {
        name: {word: percentile(counts, share) for word, share in shares.items()} for name, counts in groups.items()
    }


def _mix(sums: Sums) -> list[dict[str, Any]]:
    ordered = sorted(sums.mix.items(), key=lambda item: item[1].calls, reverse=True)
    rows = [(*pair, part) for pair, part in ordered[:_MOST_SHOWN]]
    return [
        {
            "route": route,
            "model": model,
            "calls": part.calls,
            "hits": part.hits,
            "saved_usd": part.saved_usd,
            "cost_usd": part.cost_usd,
        }
        for route, model, part in rows
    ]
