"""The log of outcomes: what routed calls were about, who answered, and how good that was; heads are trained from it.

::

    calls      one row a routed call: who was asked, the question's vector and plain facts of its text, tokens, dollars
    outcomes   how good a model's answer to such a call was, in [0, 1], and who says so; one a call, model and source
    hits       ids of semantic hits, so that who got one can take it back
    spending   what comparisons took, by day and route

Vectors are kept as float16: half the bytes, and heads trained from them are as good. Prompts are kept only where
`observe.prompts` is set; answers and keys never. Written as the ledger is: in batches, by any number of processes.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llm_proxy.errors import CacheError, LLMProxyError

from .batches import Batches, Later, writable
from .events import GradeEvent, HitEvent, RoutedEvent, Troubles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.types import Clock

__all__ = ["APPLICATION_ID", "FORMAT", "Kept", "Known", "OutcomeLog", "check_format"]

APPLICATION_ID = 0x4C50_4F31  # "LPO1": tells the log from any other SQLite file. Source: sqlite.org/fileformat.html
FORMAT = 1
"""Of the file; a newer one is refused."""

_SCHEMA = (
    """CREATE TABLE calls (
  id TEXT PRIMARY KEY, at_s REAL NOT NULL, owner TEXT NOT NULL, route TEXT NOT NULL, candidates TEXT NOT NULL,
  backend TEXT NOT NULL, model TEXT NOT NULL, encoder TEXT NOT NULL, vector BLOB, layers BLOB, features BLOB,
  chars INTEGER NOT NULL, prompt TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL,
  is_graded INTEGER NOT NULL, size_bytes INTEGER NOT NULL)""",
    "CREATE INDEX calls_by_age ON calls (is_graded, at_s, size_bytes)",
    """CREATE TABLE outcomes (
  call TEXT NOT NULL, backend TEXT NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL, at_s REAL NOT NULL, score REAL,
  completion_tokens INTEGER, cost_usd REAL, PRIMARY KEY (call, backend, model, source)) WITHOUT ROWID""",
    "CREATE TRIGGER forget AFTER DELETE ON calls BEGIN DELETE FROM outcomes WHERE call = old.id; END",
    "CREATE TABLE hits (id TEXT PRIMARY KEY, at_s REAL NOT NULL, owner TEXT NOT NULL)",
    "CREATE INDEX hits_by_age ON hits (at_s)",
    "CREATE TABLE spending (day INTEGER NOT NULL, route TEXT NOT NULL, usd REAL NOT NULL, PRIMARY KEY (day, route))",
)
_CALL = "INSERT OR IGNORE INTO calls VALUES (?" + ", ?" * 17 + ")"
_HIT = "INSERT OR REPLACE INTO hits VALUES (?, ?, ?)"
_GRADE = "INSERT OR REPLACE INTO outcomes SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM calls WHERE id = ?)"
_GRADED = "UPDATE calls SET is_graded = 1 WHERE id = ? AND is_graded = 0"
_SPENT = "INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT (day, route) DO UPDATE SET usd = usd + excluded.usd"
_TOO_OLD = "DELETE FROM calls WHERE is_graded IN (0, 1) AND at_s < ?"  # as the index has it: rows are long
_OLDEST = "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE is_graded = ? ORDER BY at_s LIMIT ?)"
_FIND = "SELECT owner, route, backend, model FROM calls WHERE id = ?"
_FIND_HIT = "SELECT owner FROM hits WHERE id = ?"

_DAY_S = 86_400
_MOST_PENDING = 2_000  # each may hold a question
_MOST_CHARS = 200
_MOST_PROMPT_CHARS = 8_000
_ROW_BYTES = 300  # of a row without its vectors and prompt
_UNGRADED_SHARE = 4  # one in so many rows is kept for calls of which nothing is known yet, before graded ones go
_LARGEST_HALF = 65_504.0
_MOST_COUNT = 1 << 53  # SQLite's integers end at 2^63, JSON's exact ones here; an upstream may claim any number
_BUSY_S = 1.0

Event = RoutedEvent | HitEvent | GradeEvent


class Encoded(Protocol):
    """See `llm_proxy.encode.base.Encoding`."""

    @property
    def vector(self) -> NDArray[np.float32]:
        """Shape ``(dim,)``, float32, unit norm."""

    @property
    def layers(self) -> NDArray[np.float32] | None:
        """Shape ``(k,)``, float32, or None."""


class Encodes(Protocol):
    """See `llm_proxy.encode.lazy.LazyEncoder`."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded."""

    def encode(self, text: str) -> Encoded:
        """Encode one text."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What may be kept.

    Attributes:
        rows: Most calls, > 0.
        days: Of what age, > 0.
        size_bytes: Most bytes, > 0.
        has_prompts: Whether prompts are kept.
    """

    rows: int
    days: float
    size_bytes: int
    has_prompts: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What the log knows of an id; without a model it is that of a semantic hit."""

    owner: str
    route: str = ""
    backend: str = ""
    model: str = ""


class OutcomeLog(Batches[Event]):
    """Writes the log; see the module's text. Thread-safe, and usable on both sides of a fork.

    Args:
        path: The SQLite file; made, with its folder, on the first write, readable by its owner only.
        kept: What may be kept.
        clock: Clocks.
        troubles: Where a failing disk is counted.
        features: Plain facts of a text.
        encoder: Encodes questions that were not encoded on their way; None: they are kept without a vector.
        later: Runs a function once after some seconds, elsewhere; by default a timer's thread.
    """

    def __init__(
        self,
        path: Path,
        kept: Kept,
        *,
        clock: Clock,
        troubles: Troubles,
        features: Callable[[str], Sequence[float]],
        encoder: Encodes | None = None,
        later: Later | None = None,
    ) -> None:
        super().__init__(
            path, "outcomes", monotonic=clock.monotonic, troubles=troubles, later=later, most_pending=_MOST_PENDING
        )
        self._kept, self._clock, self._features, self._encoder = kept, clock, features, encoder

    def find(self, call_id: str) -> Known | None:
        """What is known of an ``x-llm-proxy-id``; what waits is written first.

        Raises:
            CacheError: The file can't be read.
        """
        self.drain()
        if not self._path.exists():
            return None
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as connection:
                if not check_format(connection, self._path):
                    return None
                row = connection.execute(_FIND, (call_id,)).fetchone() or connection.execute(
                    _FIND_HIT, (call_id,)
                ).fetchone()  # fmt: skip
        except sqlite3.Error as exc:
            raise CacheError(f"the log of outcomes {self._path} can't be read: {exc}") from exc
        return None if row is None else Known(*row)

    def _write(self, events: list[Event], *, busy_s: float) -> None:
        rows = [self._row(event) for event in events if isinstance(event, RoutedEvent)]  # may encode: no lock is held
        hits = [(one.call_id, one.at_s, one.owner) for one in events if isinstance(one, HitEvent)]
        grades = [event for event in events if isinstance(event, GradeEvent)]
        told = [one for one in grades if one.score is not None]
        spent = [(int(one.at_s // _DAY_S), _text(one.route), one.spent_usd) for one in grades if one.spent_usd]
        with writable(self._path, busy_s=busy_s) as connection:
            _lay_out(connection, self._path)
            connection.execute("PRAGMA secure_delete = ON")  # what went by age is gone from the file as well
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_CALL, rows)
            connection.executemany(_HIT, hits)
            connection.executemany(_GRADE, map(_grade_row, told))
            connection.executemany(_GRADED, [(one.call_id,) for one in told])
            connection.executemany(_SPENT, spent)
            self._trim(connection)
            connection.execute("COMMIT")

    def _row(self, event: RoutedEvent) -> tuple[Any, ...]:
        vector, layers, encoder = event.vector, event.layers, event.encoder
        if vector is None:
            vector, layers, encoder = self._encoded(event.question)
        blobs = (_halves(vector), _halves(layers), _halves(self._features(event.question) if event.question else None))
        prompt = _text(event.question, _MOST_PROMPT_CHARS) if self._kept.has_prompts else None
        size = _ROW_BYTES + sum(len(part or "") for part in (*blobs, prompt))
        usage = event.usage
        return (
            event.call_id, event.at_s, event.owner, _text(event.route), json.dumps(event.candidates),
            _text(event.backend), _text(event.model), encoder, *blobs, len(event.question),
            prompt, _count(usage.prompt_tokens if usage else None), _count(usage.completion_tokens if usage else None),
            _real(event.cost_usd), 0, size,
        )  # fmt: skip

    def _encoded(self, question: str) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, str]:
        """Vector and layers of a question that its call did not need, and whose encoder made them."""
        encoder = self._encoder
        is_at_hand = encoder is not None and (encoder.is_ready or not self._is_closed)  # none is loaded to end with
        if encoder is None or not is_at_hand or not question.strip():
            return None, None, ""
        try:
            found = encoder.encode(question)
        except LLMProxyError as exc:
            self._troubles.note("encoder", exc)
            return None, None, ""
        return found.vector, found.layers, encoder.name

    def _trim(self, connection: sqlite3.Connection) -> None:
        oldest_s = self._clock.time() - self._kept.days * _DAY_S
        connection.execute(_TOO_OLD, (oldest_s,))
        connection.execute("DELETE FROM hits WHERE at_s < ?", (oldest_s,))
        connection.execute("DELETE FROM spending WHERE day < ?", (int(oldest_s // _DAY_S) - 1,))
        last_hits = "DELETE FROM hits WHERE at_s < (SELECT at_s FROM hits ORDER BY at_s DESC LIMIT 1 OFFSET ?)"
        connection.execute(last_hits, (self._kept.rows,))
        sums = "SELECT COUNT(*), TOTAL(size_bytes), SUM(is_graded = 0) FROM calls"
        rows, size_bytes, ungraded = connection.execute(sums).fetchone()
        excess = rows - self._kept.rows
        if size_bytes > self._kept.size_bytes:
            excess = max(excess, math.ceil((size_bytes - self._kept.size_bytes) * rows / size_bytes))
        if excess > 0:
            waiting = max(0, ungraded - self._kept.rows // _UNGRADED_SHARE)
            gone = connection.execute(_OLDEST, (0, min(excess, waiting))).rowcount
            gone += connection.execute(_OLDEST, (1, excess - gone)).rowcount
            connection.execute(_OLDEST, (0, excess - gone))


def check_format(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is laid out as a log of outcomes; False for an empty one.

    Raises:
        CacheError: It is another program's, or a newer version's.
    """
    # In this order: another process may lay it out between the two, tables and numbers at once.
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return False
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CacheError(f"{path} is no log of outcomes of llm-proxy; move it away or set another cache.directory")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        raise CacheError(
            f"{path} has format {found}, and this version of llm-proxy reads and writes {FORMAT}: upgrade llm-proxy, "
            "or move the file away"
        )
    return True


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    if check_format(connection, path):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not check_format(connection, path):  # asked again: another process may have been faster
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _grade_row(event: GradeEvent) -> tuple[Any, ...]:
    return (
        event.call_id, _text(event.backend), _text(event.model), event.source, event.at_s, _real(event.score),
        _count(event.completion_tokens), _real(event.cost_usd), event.call_id,
    )  # fmt: skip


def _halves(values: Iterable[float] | None) -> bytes | None:
    """Numbers as float16, little-endian."""
    if values is None:
        return None
    try:
        import numpy
    except ImportError:  # nothing can be learnt here, and the row still tells who was asked
        return None
    found = numpy.asarray(values, numpy.float32).clip(-_LARGEST_HALF, _LARGEST_HALF)
    return found.astype("<f2").tobytes()


def _text(value: str, most: int = _MOST_CHARS) -> str:
    """Text that SQLite takes: lone surrogates are none."""
    return value[:most].encode("utf-8", "replace").decode()


def _real(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _count(value: int | None) -> int | None:
    return None if value is None else max(0, min(value, _MOST_COUNT))
