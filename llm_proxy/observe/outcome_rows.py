"""Reads the log of outcomes: its rows for training, what there is of each model, and what comparisons took."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError

from .outcomes import check_format
from .totals import opened

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Logged",
    "LoggedGrade",
    "Standing",
    "asked_of_both",
    "calls_of",
    "comparison_spending",
    "logged",
    "standings",
]

_DAY_S = 86_400
_CALLS = """
SELECT id, at_s, route, candidates, backend, model, encoder, vector, layers, features, chars, prompt, prompt_tokens,
  completion_tokens, cost_usd FROM calls WHERE at_s > ? AND (? = '' OR route = ?) {only} ORDER BY at_s, id
"""
_GRADES = """
SELECT outcomes.call, outcomes.backend, outcomes.model, source, score, outcomes.completion_tokens, outcomes.cost_usd
FROM outcomes JOIN calls ON calls.id = call WHERE calls.at_s > ? AND (? = '' OR route = ?) AND score IS NOT NULL
"""
_STANDINGS = """
SELECT route, outcomes.backend, outcomes.model, source, COUNT(*), AVG(score), MAX(outcomes.at_s)
FROM outcomes JOIN calls ON calls.id = call WHERE score IS NOT NULL AND calls.at_s > ? AND (? = '' OR route = ?)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 5 DESC, 2, 3, 4
"""
_ANSWERED = """
SELECT route, backend, model, COUNT(*), SUM(vector IS NOT NULL) FROM calls WHERE at_s > ? AND (? = '' OR route = ?)
GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC
"""
_BOTH = """
SELECT a.name, b.name, COUNT(*) FROM scored AS a JOIN scored AS b ON a.call = b.call AND a.name < b.name
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
_SCORED = """
WITH scored AS (SELECT DISTINCT outcomes.call, outcomes.backend || '/' || outcomes.model AS name
  FROM outcomes JOIN calls ON calls.id = call WHERE score IS NOT NULL AND calls.at_s > ? AND (? = '' OR route = ?))
"""
_SPENT = "SELECT TOTAL(usd) FROM spending WHERE route = ? AND day >= ?"


@dataclass(frozen=True, slots=True)
class LoggedGrade:
    """How good a model's answer was, in [0, 1], who says so, and that answer's tokens and dollars, where known."""

    backend: str
    model: str
    source: str
    score: float
    completion_tokens: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Logged:
    """One routed call, as it was kept.

    Attributes:
        call_id: Its id.
        at_s: Unix time.
        route: Which route decided.
        candidates: ``BACKEND/MODEL`` names.
        backend: Who answered.
        model: Which of its models.
        encoder: Identity of the encoder of ``vector``; empty without one.
        vector: Float16, little-endian; None where there is none.
        layers: Likewise.
        features: Likewise.
        chars: Length of the question.
        prompt: The question, where prompts are kept.
        prompt_tokens: Where known.
        completion_tokens: Of the answer, where known.
        cost_usd: Of the answer, dollars, where known.
        grades: What is known of answers to it.
    """

    call_id: str
    at_s: float
    route: str
    candidates: tuple[str, ...]
    backend: str
    model: str
    encoder: str
    vector: bytes | None
    layers: bytes | None
    features: bytes | None
    chars: int
    prompt: str | None
    prompt_tokens: float | None
    completion_tokens: float | None
    cost_usd: float | None
    grades: tuple[LoggedGrade, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one model's answers by one source: how many, their mean score, and the Unix time of the last."""

    route: str
    backend: str
    model: str
    source: str
    count: int
    mean_score: float
    last_s: float


def logged(path: Path, *, since_s: float = 0.0, route: str = "", only_graded: bool = True) -> Iterator[Logged]:
    """The routed calls after a Unix time, oldest first; those of which something is known, or all.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
    """
    wanted = since_s, route, route
    with _open(path) as connection:
        if connection is None:
            return
        connection.execute("BEGIN")  # both queries see the same rows
        grades: dict[str, list[LoggedGrade]] = {}
        for call_id, *rest in connection.execute(_GRADES, wanted):
            grades.setdefault(call_id, []).append(LoggedGrade(*rest))
        query = _CALLS.format(only="AND is_graded = 1" if only_graded else "")
        for call_id, at_s, name, candidates, *rest in connection.execute(query, wanted):
            known = tuple(grades.get(call_id, ()))
            yield Logged(call_id, at_s, name, tuple(json.loads(candidates)), *(*rest, known))


def standings(path: Path, *, since_s: float = 0.0, route: str = "") -> Sequence[Standing]:
    """What is known of each model by each source, by route, most first.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
    """
    with _open(path) as connection:
        rows = [] if connection is None else connection.execute(_STANDINGS, (since_s, route, route)).fetchall()
    return [Standing(*row) for row in rows]


def calls_of(path: Path, *, since_s: float = 0.0, route: str = "") -> Sequence[tuple[str, str, str, int, int]]:
    """Route, backend, model, calls that it answered, and of how many there is a vector; most first.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
    """
    with _open(path) as connection:
        return [] if connection is None else connection.execute(_ANSWERED, (since_s, route, route)).fetchall()


def asked_of_both(path: Path, *, since_s: float = 0.0, route: str = "") -> Sequence[tuple[str, str, int]]:
    """Two models, ``BACKEND/MODEL``, and of how many calls there are outcomes of both; most first.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
    """
    with _open(path) as connection:
        return [] if connection is None else connection.execute(_SCORED + _BOTH, (since_s, route, route)).fetchall()


def comparison_spending(path: Path, route: str, since_s: float) -> float:
    """Dollars that comparisons of a route took since the day (UTC) of a Unix time.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
    """
    with _open(path) as connection:
        if connection is None:
            return 0.0
        return float(connection.execute(_SPENT, (route, int(since_s // _DAY_S))).fetchone()[0])


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that can't write; None where there is no log yet."""
    with opened(path, "log of outcomes") as connection:
        try:
            yield connection if connection is not None and check_format(connection, path) else None
        except (ValueError, TypeError) as exc:  # a row that was written by somebody else
            raise CacheError(f"log of outcomes {path} can't be read: {exc}") from exc
