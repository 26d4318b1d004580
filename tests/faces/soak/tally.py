"""What the callers of the soak saw, against what the provider counted and what the ledger says."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Reply", "Tally"]

_MOST_PROBLEMS = 50
_UNSENT = {"not_cached", "queue_full"}
_UNBOOKED = {"too_many_connections", "rate_limit_exceeded"}
_LEDGER = """
SELECT COUNT(*), SUM(status = 'hit' AND kind = 'exact'), SUM(status = 'hit' AND kind = 'semantic'),
  COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0), COALESCE(SUM(cost_usd), 0.0) FROM calls
WHERE NOT (status = 'refused' AND latency_s = 0.0)
"""
# Of what the proxy refuses before it is a call there is a row, too, but not of all where there are many.
_REFUSED = "SELECT COUNT(*) FROM calls WHERE status = 'refused' AND latency_s = 0.0"


@dataclass(frozen=True)
class Reply:
    """One answer as its caller saw it; ``error`` is the code of the error in it."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def error(self) -> str:
        if self.status < 400:
            return ""
        try:
            found = json.loads(self.raw)["error"]
            return str(found.get("code"))
        except (ValueError, KeyError, AttributeError, TypeError):
            return ""

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "")


@dataclass
class Tally:
    """Counts of one run.

    Attributes:
        statuses: Of each kind of call, how often which status came.
        hits: Calls that were answered from the cache, by how the entry was found.
        sent: For each call, how many requests of it the provider must have got.
        left: Calls whose callers left in the middle.
        calls: Calls that the ledger must have a row of.
        forwarded: Those of them that the provider must have got.
        unsent: Those that were refused before they were sent.
        refused: Requests that were refused before they were calls.
        collapsed: Those that shared the answer of another one.
        tokens: Prompt's and answer's, of whole answers that were asked for upstream.
        cost_usd: What these cost, dollars.
        owners: Whose tenant each of the provider's answers belongs to.
        problems: What was wrong, at most 50 of them in words.
        wrong: How many things were wrong.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    hits: Counter[str] = field(default_factory=Counter)
    sent: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    calls: int = 0
    forwarded: int = 0
    unsent: int = 0
    refused: int = 0
    collapsed: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    cost_usd: float = 0.0
    owners: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def complain(self, what: str) -> None:
        """Note a problem."""
        self.wrong += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(what)

    def book(self, call: str, reply: Reply, *, times: int, is_call: bool) -> bool:
        """Note how a call was answered; whether it went upstream.

        Args:
            call: Its ``x-soak-call``.
            reply: The answer.
            times: Requests of it that the provider gets where it is not answered otherwise.
            is_call: Whether the engine answers such calls, and books them.
        """
        said, error = reply.cache_status, reply.error
        self.sent[call] = 0
        if error in _UNBOOKED or not times:
            self.refused += 1
            return False
        self.calls += is_call
        if said.startswith("llm-proxy; hit"):
            self.hits["semantic" if "semantic" in said else "exact"] += 1
        elif "; collapsed" in said:
            self.collapsed += 1
        elif error in _UNSENT:
            self.unsent += 1
        else:
            self.sent[call] = times
            self.forwarded += is_call
            return True
        return False

    def own(self, serial: int, tenant: str) -> None:
        """Note who got an answer of the provider: a second tenant must not."""
        if self.owners.setdefault(serial, tenant) != tenant:
            self.complain(f"answer {serial} of tenant {self.owners[serial]} went to {tenant}")

    def used(self, prompt: int, completion: int, usd_per_mtok: tuple[float, float]) -> None:
        """Note the tokens of an answer that was asked for upstream."""
        self.tokens[0] += prompt
        self.tokens[1] += completion
        self.cost_usd += (prompt * usd_per_mtok[0] + completion * usd_per_mtok[1]) / 1e6

    def against_provider(self, counts: Mapping[str, Any]) -> None:
        """Compare every call with what the provider got of it."""
        asked: Mapping[str, int] = counts["asked"]
        for call, times in self.sent.items():
            if asked.get(call, 0) != times:
                self.complain(f"call {call} was sent {asked.get(call, 0)} times, not {times}")
        for call in asked.keys() - self.sent.keys():
            self.complain(f"the provider was asked for {call}, which nobody asked")
        for call in self.left - set(counts["left"]):
            self.complain(f"call {call} went on upstream although its caller had left")

    def against_ledger(self, path: Path) -> dict[str, Any]:
        """Compare the sums with those of the ledger; returns both."""
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            rows, *rest, cost_usd = connection.execute(_LEDGER).fetchone()
            [refused] = connection.execute(_REFUSED).fetchone()
        connection.close()
        names = ("calls", "exact", "semantic", "prompt_tokens", "completion_tokens", "cost_usd", "upstream")
        upstream = rows - rest[0] - rest[1] - self.unsent - self.collapsed
        ledger = dict(zip(names, (rows, *rest, round(cost_usd, 6), upstream), strict=True))
        mine = (self.calls, self.hits["exact"], self.hits["semantic"], *self.tokens, round(self.cost_usd, 6))
        seen = dict(zip(names, (*mine, self.forwarded), strict=True))
        for name in names:
            if ledger[name] != seen[name] and not (name == "cost_usd" and abs(cost_usd - self.cost_usd) < 1e-4):
                self.complain(f"{name}: {ledger[name]} in the ledger, {seen[name]} seen")
        if refused > self.refused:
            self.complain(f"refused: {refused} in the ledger, {self.refused} seen")
        return {"ledger": {**ledger, "refused": refused}, "seen": {**seen, "refused": self.refused}}
