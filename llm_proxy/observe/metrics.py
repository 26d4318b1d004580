"""Figures for Prometheus, in its text format.

What this process saw begins with ``llm_proxy_`` and with 0 at its start; what all processes of a ledger saw begins with
``llm_proxy_ledger_``. The number of series is bounded: models, routes and backends are those of the settings, any
other is ``other``.

Source: prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4. A library was left out: it has a registry
of the process's own, threads and files of its own for several processes, and the format takes thirty lines.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from .process import process_figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_proxy.config import Config

    from .buckets import Sums
    from .events import CallEvent, Troubles

__all__ = ["CONTENT_TYPE", "LATENCY_EDGES_S", "Family", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_OTHER = "other"
_MOST_NAMES = 200
_CACHE = (
    ("entries", "gauge", "Entries."),
    ("vectors", "gauge", "Entries that can be found by meaning."),
    ("used_bytes", "gauge", "Bytes of the budget that are taken."),
    ("budget_bytes", "gauge", "Most bytes that entries may take."),
    ("store_bytes", "gauge", "Bytes of the store's files."),
    ("evicted", "counter", "Entries given up for the budget."),
    ("expired", "counter", "Entries met after their time."),
    ("corrupt", "counter", "Entries whose record was damaged."),
)
_LEDGER = (
    ("errors", "Calls that did not end as they should."),
    ("saved_usd", "Dollars that hits did not cost."),
    ("saved_s", "Seconds that hits did not take."),
    ("cost_usd", "Dollars that calls cost, where prices are known."),
    ("checked", "Semantic hits that were compared with another answer."),
    ("wrong", "Checked semantic hits whose answer said something else."),
    ("undone", "Semantic hits that somebody took back."),
)
_LEDGER_NAMES = {"saved_s": "saved_seconds", "errors": "failed_requests", "checked": "checks", "wrong": "wrong_hits"}

Labels = tuple[tuple[str, str], ...]


class Watched(Protocol):
    """The parts of a runtime that figures are read from."""

    cache: Any
    troubles: Troubles
    flights: Any
    encoder: Any


@dataclass(slots=True)
class Family:
    """One metric: its name, kind and meaning, and its samples.

    Attributes:
        name: Name, with its unit and, for a counter, ``_total``.
        kind: ``counter``, ``gauge`` or ``histogram``.
        meaning: One sentence.
        samples: Suffix, labels and value of each.
    """

    name: str
    kind: str
    meaning: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, *labels: tuple[str, str], suffix: str = "") -> None:
        """Add a sample."""
        self.samples.append((suffix, labels, value))

    def lines(self) -> Iterator[str]:
        """The family in the text format; nothing where it has no samples."""
        if self.samples:
            yield f"# HELP {self.name} {self.meaning}"
            yield f"# TYPE {self.name} {self.kind}"
        for suffix, labels, value in self.samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            yield f"{self.name}{suffix}{f'{{{inside}}}' if inside else ''} {_number(value)}"


class _Histogram:
    """Counts of latencies, by edge."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_EDGES_S) + 1)
        self.sum_s = 0.0

    def add(self, latency_s: float) -> None:
        self.counts[bisect_left(LATENCY_EDGES_S, latency_s)] += 1
        self.sum_s += latency_s

    def put(self, family: Family, *labels: tuple[str, str]) -> None:
        below = 0
        for edge, count in zip((*LATENCY_EDGES_S, float("inf")), self.counts, strict=True):
            below += count
            family.add(below, *labels, ("le", _number(edge)), suffix="_bucket")
        family.add(self.sum_s, *labels, suffix="_sum")
        family.add(below, *labels, suffix="_count")


class Metrics:
    """Counts events; a sink, thread-safe.

    Args:
        config: Tells the names that may become labels.
    """

    def __init__(self, config: Config) -> None:
        self._models, self._routes = _models_of(config), set(config.routes)
        self._backends = set(config.backends)
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a dropped call at any place
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._failed: Counter[str] = Counter()
        self._tokens: Counter[tuple[str, ...]] = Counter()
        self._money = {"saved_usd": 0.0, "saved_seconds": 0.0, "cost_usd": 0.0}
        self._latencies = {name: _Histogram() for name in ("hit", "miss", "bypass")}

    def __call__(self, event: CallEvent) -> None:
        """Take one event; never raises."""
        outcome, usage = event.outcome, event.usage
        model = outcome.model if outcome.model in self._models else _OTHER
        route = outcome.route if outcome.route in self._routes or not outcome.route else _OTHER
        backend = outcome.backend if outcome.backend in self._backends or not outcome.backend else _OTHER
        with self._lock:
            self._requests[outcome.status, outcome.kind, route, model, backend, event.api] += 1
            if outcome.status in self._latencies:
                self._latencies[outcome.status].add(event.latency_s)
            self._money["saved_usd"] += outcome.saved_usd
            self._money["saved_seconds"] += event.saved_s
            self._money["cost_usd"] += outcome.cost_usd or 0.0
            if event.error or event.http_status >= 400:
                self._failed[_failure(event)] += 1
            if usage is not None:
                self._tokens["input", model, backend] += usage.prompt_tokens
                self._tokens["output", model, backend] += usage.completion_tokens

    def exposition(self, watched: Watched, ledger: Sums, refused: Mapping[int, int] = MappingProxyType({})) -> bytes:
        """The answer to a scrape.

        Args:
            watched: The runtime; its cache is read.
            ledger: The sums of all processes that share the ledger.
            refused: Requests that were refused before they were calls, by status.
        """
        families = [
            *self._of_calls(),
            _of_refused(refused),
            *_of_cache(watched),
            *_of_parts(watched),
            *_of_ledger(ledger),
            *_of_process(),
        ]
        lines = [line for family in families for line in family.lines()]
        return ("\n".join(lines) + "\n").encode()

    def _of_calls(self) -> Iterator[Family]:
        with self._lock:
            requests, failed, tokens = dict(self._requests), dict(self._failed), dict(self._tokens)
            latencies = Family(
                "llm_proxy_request_duration_seconds", "histogram", "From arrival to the end of the answer."
            )
            for outcome, histogram in self._latencies.items():
                histogram.put(latencies, ("outcome", outcome))
            money = dict(self._money)
        family = Family("llm_proxy_requests_total", "counter", "Calls by what was done.")
        for labels, count in requests.items():
            family.add(count, *zip(("outcome", "kind", "route", "model", "backend", "api"), labels, strict=True))
        yield family
        yield latencies
        family = Family("llm_proxy_failed_requests_total", "counter", "Calls that did not end as they should.")
        for reason, count in failed.items():
            family.add(count, ("reason", reason))
        yield family
        family = Family("llm_proxy_tokens_total", "counter", "Tokens of answers that were asked upstream.")
        for labels, count in tokens.items():
            family.add(count, *zip(("type", "model", "backend"), labels, strict=True))
        yield family
        for name, meaning in (
            ("saved_usd", "Dollars that hits did not cost."),
            ("saved_seconds", "Seconds that hits did not take."),
            ("cost_usd", "Dollars that calls cost, where prices are known."),
        ):
            family = Family(f"llm_proxy_{name}_total", "counter", meaning)
            family.add(money[name])
            yield family


def _of_refused(refused: Mapping[int, int]) -> Family:
    family = Family("llm_proxy_refused_requests_total", "counter", "Requests refused before they were calls.")
    for status, count in dict(refused).items():
        family.add(count, ("status", str(status)))
    return family


def _of_cache(watched: Watched) -> Iterator[Family]:
    cache = watched.cache
    if cache is None or not cache.is_open:
        return
    stats = cache.stats()
    for name, kind, meaning in _CACHE:
        family = Family(f"llm_proxy_cache_{name}{'_total' if kind == 'counter' else ''}", kind, meaning)
        family.add(getattr(stats, name))
        yield family


def _of_parts(watched: Watched) -> Iterator[Family]:
    family = Family("llm_proxy_troubles_total", "counter", "What went wrong inside llm-proxy, by part.")
    for part, count in dict(watched.troubles.counts).items():
        family.add(count, ("part", part))
    yield family
    family = Family("llm_proxy_flights", "gauge", "Answers under way that several callers can share.")
    family.add(len(watched.flights))
    yield family
    if watched.encoder is not None:
        family = Family("llm_proxy_encoder_up", "gauge", "Whether the encoder is loaded.")
        family.add(int(watched.encoder.is_ready))
        yield family


def _of_ledger(ledger: Sums) -> Iterator[Family]:
    family = Family("llm_proxy_ledger_requests_total", "counter", "Calls of all processes that share the ledger.")
    for outcome, kind, count in (
        ("hit", "exact", ledger.exact),
        ("hit", "semantic", ledger.semantic),
        ("miss", "", ledger.miss),
        ("bypass", "", ledger.bypass),
        ("refused", "", ledger.refused),
    ):
        family.add(count, ("outcome", outcome), ("kind", kind))
    yield family
    for name, meaning in _LEDGER:
        family = Family(f"llm_proxy_ledger_{_LEDGER_NAMES.get(name, name)}_total", "counter", meaning)
        family.add(getattr(ledger, name))
        yield family


def _of_process() -> Iterator[Family]:
    for name, kind, meaning, value in process_figures(os.getpid()):
        family = Family(name, kind, meaning)
        family.add(value)
        yield family


def _models_of(config: Config) -> set[str]:
    """The models that the settings name, at most 200."""
    named: list[str] = []
    for backend in config.backends.values():
        named += [*backend.models, *backend.prices, *backend.limits]
    for route in config.routes.values():
        named += [candidate.partition("/")[2] for candidate in route.candidates]
    named += list(config.aliases.values())
    return set(dict.fromkeys(named[:_MOST_NAMES]))


def _failure(event: CallEvent) -> str:
    """Why, in one of a few words."""
    if event.http_status >= 400:
        return f"http_{event.http_status // 100}xx"
    if event.error in {"aborted", "cancelled", "incomplete"}:
        return event.error
    return "body" if event.error.startswith("body-") else "connection"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return repr(value) if isinstance(value, float) and not value.is_integer() else str(int(value))
