"""Requests for a cache: which query is asked, what its answer costs, and how many bytes it takes.

**Requests.** A table with ``Query`` and ``PopularityScore`` is drawn by popularity, the scores of equal queries added
up; of any other file of queries each is as likely as the next. With ``drift``, the popularity of each query passes to
another one after that share of the requests.

**Costs**, drawn once for each query. ``fleet``: the tokens of one request of the Azure conversation trace, at one of
three tiers of prices, for 70, 25 and 5 % of the queries. ``arena809``: the tokens and dollars of the cheaper of two
models for one prompt of RouterArena, which are much alike.

**Bytes.** 4 for each token generated, and 1,000 for what an entry keeps beside its answer.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ._queries import content_of, read_texts

__all__ = ["COSTS", "Trace", "trace"]

_TIERS = ((0.15, 0.60), (2.50, 10.0), (15.0, 60.0))  # dollars for a million tokens, of prompt and of completion
_TIER_SHARES = (70, 25, 5)
_ENTRY_BYTES = 1_000
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Trace:
    """Requests, by the number of the query.

    Attributes:
        requests: Number of the query of each request.
        costs_usd: Cost of the answer of each query, > 0.
        sizes: Bytes of the answer of each query, > 0.
        popularity: Weight of each query that the requests were drawn by, >= 0; empty where it changes hands.
    """

    requests: list[int]
    costs_usd: list[float]
    sizes: list[int]
    popularity: list[float] = field(default_factory=list)

    @cached_property
    def counts(self) -> Counter[int]:
        """How often each query is asked, without those that never are."""
        return Counter(self.requests)

    @cached_property
    def cost_usd(self) -> float:
        """What all requests cost together without a cache."""
        return sum(count * self.costs_usd[query] for query, count in self.counts.items())

    @cached_property
    def bytes_requested(self) -> int:
        """Bytes of all answers as often as they are asked for."""
        return sum(count * self.sizes[query] for query, count in self.counts.items())

    def capacity(self, fraction: float) -> int:
        """Bytes of a cache that holds a fraction of the bytes of all queries that are asked."""
        return int(fraction * sum(self.sizes[query] for query in self.counts))

    def hindsight(self, capacity: int) -> float:
        """Share of the cost saved by the best entries that fit, known beforehand and never changed.

        Each is paid for once; of largest ``(count - 1) * cost / size`` first, what does not fit any more is left out.
        """
        saved = {query: (count - 1) * self.costs_usd[query] for query, count in self.counts.items()}
        total = 0.0
        for query in sorted(saved, key=lambda query: -saved[query] / self.sizes[query]):
            if self.sizes[query] <= capacity:
                capacity -= self.sizes[query]
                total += saved[query]
        return total / self.cost_usd


def trace(path: Path, *, costs: str, data: Path, requests: int, seed: int, drift: float = 0.0) -> Trace:
    """Requests drawn from a file of queries.

    Args:
        path: The file; see above.
        costs: A name out of `COSTS`.
        data: Folder of the data sets that costs are taken from.
        requests: How many.
        seed: Of all that is drawn.
        drift: Share of the requests after which popularities change hands, in [0, 1]; 0: never.

    Raises:
        SystemExit: A file can't be read, or has not what it should have.
    """
    weights = _popularity(path)
    if not any(weights):
        sys.exit(f"{path} holds no queries")
    rng = random.Random(seed)
    drawn = rng.choices(range(len(weights)), weights, k=requests)
    try:
        tokens = COSTS[costs](data, rng, len(weights))
        if min(tokens)[0] < 0 or not max(tokens)[0] > 0:
            raise ValueError("they are 0 or negative")
    except (ValueError, KeyError, TypeError, IndexError, csv.Error) as exc:
        sys.exit(f"{data}: no costs for --costs {costs} ({exc}); name the folder of the data sets with --data FOLDER")
    others = rng.sample(range(len(weights)), len(weights))
    if drift:
        start = int(drift * requests)
        drawn[start:] = [others[query] for query in drawn[start:]]
    sizes = [_ENTRY_BYTES + _BYTES_PER_TOKEN * generated for _, generated in tokens]
    return Trace(drawn, [cost for cost, _ in tokens], sizes, [] if drift else weights)


def _popularity(path: Path) -> list[float]:
    name = path.name.removesuffix(".gz")
    if name.endswith((".tsv", ".csv")):
        try:
            table = _table(path, is_tabbed=name.endswith(".tsv"))
            if {"Query", "PopularityScore"} <= set(table.fieldnames or ()):
                return list(_scores(table).values())
        except (ValueError, TypeError, csv.Error) as exc:
            sys.exit(f"{path} can't be read: {exc}")
    return [1.0] * len(read_texts(path))


def _scores(table: csv.DictReader[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for row in table:
        score = float(row["PopularityScore"])
        if not 0 <= score < math.inf:
            raise ValueError(f"PopularityScore {score} of {row['Query']!r}")
        scores[row["Query"]] = scores.get(row["Query"], 0.0) + score
    return scores


def _table(path: Path, *, is_tabbed: bool = False) -> csv.DictReader[str]:
    content = io.StringIO(content_of(path), newline="")
    if is_tabbed:
        return csv.DictReader(content, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.DictReader(content)


def _fleet(data: Path, rng: random.Random, queries: int) -> list[tuple[float, int]]:
    rows = [
        (int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for row in _table(data / "trace_azure_llm_2023" / "conv.csv.gz")
    ]
    drawn = zip(rng.choices(rows, k=queries), rng.choices(_TIERS, _TIER_SHARES, k=queries), strict=True)
    return [
        ((context * per_context + generated * per_generated) / 1e6, generated)
        for (context, generated), (per_context, per_generated) in drawn
    ]


def _arena809(data: Path, rng: random.Random, queries: int) -> list[tuple[float, int]]:
    lines = content_of(data / "router_arena809" / "rows.jsonl.gz").splitlines()
    rows = [min(zip(row["cost"], row["otok"], strict=True)) for row in map(json.loads, lines)]
    return rng.choices(rows, k=queries)


COSTS: dict[str, Callable[[Path, random.Random, int], list[tuple[float, int]]]] = {
    "arena809": _arena809,
    "fleet": _fleet,
}
"""Where costs come from: of each query the dollars and the tokens generated."""
