"""What the ledger tells of semantic hits: how many were served, how many checked, and how many of those were wrong."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llm_proxy.errors import CacheError
from llm_proxy.types import Outcome

from .totals import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Verdicts", "check_spending", "served_hit", "verdicts"]

_SUMS = (
    "SUM(source = 'served'), SUM(source = 'shadow' AND is_same IS NOT NULL), "
    "SUM(source = 'shadow' AND is_same IS 0), SUM(source = 'shadow' AND is_same IS NULL), SUM(source = 'undo'), "
    "SUM(source = 'explore' AND is_same IS NOT NULL), SUM(source = 'explore' AND is_same IS 0), TOTAL(cost_usd)"
)
_VERDICTS = "SELECT {group} AS name, {sums} FROM semantic WHERE at_s >= ? GROUP BY name ORDER BY 2 DESC, name"
_LEAST_CHARS = 4
_GROUPS: Mapping[str, str] = {"": "''", "scope": "scope", "route": "route", "model": "model"}
_SPENDING = "SELECT TOTAL(cost_usd) FROM semantic WHERE at_s >= ? AND source != 'served'"
_HITS = """
SELECT key, asked, scope, route, model, similarity, p_wrong, MAX(at_s) FROM semantic
WHERE source = 'served' AND substr(asked, 1, length(?)) = ? GROUP BY key, asked ORDER BY 8 DESC LIMIT 6
"""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Counts of semantic hits, each >= 0.

    Attributes:
        served: Hits.
        checked: Hits that were drawn by chance, asked upstream as well, and compared.
        wrong: Those of them whose answer said something else.
        unclear: Checks without a verdict: no answer came, or the judge could not tell. Not counted as checked.
        undone: Hits that somebody took back. Nobody takes a right one back, so they say nothing of the rate.
        explored: Questions asked upstream, by evidence or chance or for doubt, and compared; they were not served.
        explored_different: Those of them whose answer was another.
        spent_usd: What all that took, as far as prices are known.
    """

    served: int = 0
    checked: int = 0
    wrong: int = 0
    unclear: int = 0
    undone: int = 0
    explored: int = 0
    explored_different: int = 0
    spent_usd: float = 0.0


def verdicts(
    path: Path, by: Literal["", "scope", "route", "model"] = "", *, since_s: float = 0.0
) -> Mapping[str, Verdicts]:
    """Counts since a Unix time, by scope, route or model, most hits first, or of all under the empty name.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    with _semantic(path) as connection:
        if connection is None:
            return {}
        found = connection.execute(_VERDICTS.format(group=_GROUPS[by], sums=_SUMS), (since_s,)).fetchall()
    return {name: Verdicts(*sums) for name, *sums in found}


def check_spending(path: Path, *, since_s: float) -> float:
    """Dollars that checks took since a Unix time, as far as prices are known.

    Raises:
        CacheError: The file is there but can't be read as a ledger.
    """
    with _semantic(path) as connection:
        return 0.0 if connection is None else float(connection.execute(_SPENDING, (since_s,)).fetchone()[0])


def served_hit(path: Path, hit_id: str) -> Outcome:
    """The last semantic hit of an ``x-llm-proxy-id``, as far as the ledger knows it.

    Args:
        path: The ledger.
        hit_id: The value of that header, or four or more of the characters that it begins with.

    Raises:
        CacheError: There is none, or there are hits of several questions, or too little is given to tell, or the ledger
            can't be read.
    """
    wanted = hit_id.strip().lower()
    if len(wanted) < _LEAST_CHARS:
        raise CacheError(f"{hit_id!r} is no id of a hit: give at least {_LEAST_CHARS} characters of x-llm-proxy-id")
    with _semantic(path) as connection:
        rows = [] if connection is None else connection.execute(_HITS, (wanted, wanted)).fetchall()
    if not rows:
        raise CacheError(f"the ledger has no semantic hit with the id {hit_id!r}: it is in the header x-llm-proxy-id")
    if len({row[1] for row in rows}) > 1:
        raise CacheError(f"the ids of several hits begin with {hit_id!r}; give more of it")
    key, asked, scope, route, model, similarity, p_wrong = rows[0][:-1]
    return Outcome(
        "hit",
        "semantic",
        key=key,
        asked=asked,
        scope=scope,
        route=route,
        model=model,
        similarity=similarity,
        p_wrong=p_wrong,
    )


@contextmanager
def _semantic(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that can't write; None where no ledger is, or one of before that has no such rows."""
    with opened(path) as connection:
        if connection is not None:
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'semantic'").fetchone()[0]
            connection = connection if tables else None
        yield connection
