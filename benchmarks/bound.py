"""What keeps wrong hits rare, on the same requests: ``python -m benchmarks.bound --pairs FILE --max-error 0.01``.

Requests are made of labelled pairs, as `benchmarks._streams` says, with new topics arriving until the end. Every text
that was asked before is an exact hit for all rules, which is never wrong and no rule's merit; what is asked is compared
with its neighbour, as a judge without fault would. Four rules, each with a cache of its own, empty at first:

- the library's: its `Matcher` over 8 neighbours, with the guard and the pair model that ship, and `RouteBounds` with
  ``explore_share`` of `--explore`: questions that could be served are asked by chance, all of them at first;
- ``unexplored_``: the same with ``explore_share = 0``, the library's default: nothing is ever compared;
- ``vcache_``: plain vCache, `llm_proxy.cache.bound.vcache`, on the nearest neighbour; served from six observations on,
  the two it starts with included; what is equivalent to its neighbour is not added to the index;
- ``static_``: the nearest neighbour, where its similarity is above a threshold: the one of most hits whose error_rate
  on these very requests is no more than the limit, which nobody knows beforehand.

``error_rate`` is the share of hits by meaning that were wrong, ``error_upper95`` its exact one-sided upper limit as if
hits were independent (the same question asked again is not). ``error_rate_of_requests`` is what vCache bounds: wrong
hits of all requests. ``hit_rate`` counts exact hits too, ``semantic_hit_rate`` does not. ``spared`` is how many texts
were never asked because a neighbour was served instead: what a rule saves over an exact cache.

With ``--seeds 20`` it runs so many seeds from ``--seed`` on. The keys are those of the first; ``seeds`` has all, and
``static_every_seed_`` is the threshold of most hits that keeps the limit in each of them: one that a user might have
chosen. ``mean_`` are means over the seeds. ``--plot`` draws the first seed's error and hit rates over its requests.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llm_proxy.cache.bound import Bound, ErrorLimits, RouteBounds
from llm_proxy.cache.bound.vcache import ask_probability
from llm_proxy.cache.entry import Entry
from llm_proxy.cache.evidence import Observation, encode_evidence, upper_limit, with_observation
from llm_proxy.cache.guard import Guard, load_shipped
from llm_proxy.cache.index.base import Neighbour
from llm_proxy.cache.matching import Matcher, Question
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.cache.turns import NO_TURNS
from llm_proxy.cache.weighed import Weighed
from llm_proxy.config import CacheConfig
from llm_proxy.runtime import SystemClock

from ._report import arguments, report
from ._streams import Near, Questions, near, questions, requests

__all__ = ["main", "replay"]

_NEIGHBOURS = 8
_LEAST_OBSERVATIONS = 4  # beside the two that vCache starts with
_THRESHOLDS = tuple(step / 200 for step in range(120, 202))  # the last is above any similarity
_EXPLORED = 0.1
_PREFIXES = ("", "unexplored_", "vcache_", "static_", "static_every_seed_")
_TIMED = 2_000
_USUAL = 0.9
_SCOPE = "any"

Neighbours = Sequence[tuple[int, float]]


class Rule(Protocol):
    """Which neighbour to serve. It is told what came of each question that it had asked."""

    looks_at: int

    def choose(self, text: int, neighbours: Neighbours) -> int | None:
        """The neighbour to be served, or None: ask."""

    def learn(self, text: int, neighbours: Neighbours) -> bool:
        """Take in what was asked; whether to add it to the index."""


@dataclass
class Counts:
    """Requests, by what became of them."""

    requests: int = 0
    exact: int = 0
    served: int = 0
    wrong: int = 0
    distinct: int = 0

    @property
    def error_rate(self) -> float:
        """Share of hits by meaning that were wrong."""
        return self.wrong / max(1, self.served)

    @property
    def asked(self) -> int:
        """Requests that went upstream."""
        return self.requests - self.exact - self.served

    def figures(self, prefix: str = "") -> dict[str, float]:
        """As the report has them."""
        found = {
            "error_rate": self.error_rate,
            "error_upper95": upper_limit(self.wrong, self.served),
            "error_rate_of_requests": self.wrong / self.requests,
            "hit_rate": (self.exact + self.served) / self.requests,
            "semantic_hit_rate": self.served / self.requests,
            "asked_upstream": self.asked / self.requests,
            "served": self.served,
            "wrong": self.wrong,
            "spared": self.distinct - self.asked,
        }
        return {prefix + key: value for key, value in found.items()}


def main() -> None:
    """Run and report."""
    options = arguments(
        "bound",
        __doc__,
        pairs=(Path, None, "files of pairs: columns a, b, label; topics of later files arrive later", "+"),
        max_error=(float, 0.01, "largest share of hits that may be wrong"),
        requests=(int, 20_000, "requests in all"),
        seed=(int, 0, "of all that is drawn"),
        seeds=(int, 1, "how many seeds, from --seed on"),
        explore=(float, _EXPLORED, "share asked by chance of questions that are just safe enough"),
        plot=(Path, None, "draw error and hit rates of the first seed into this file"),
    )
    _check(options)
    found = questions(options.pairs)
    streams = [requests(found, options.requests, seed) for seed in range(options.seed, options.seed + options.seeds)]
    known = near(found, set().union(*streams))
    figures = {
        "files": [f"{path.resolve().parent.name}/{path.name}" for path in options.pairs],
        **{name: getattr(options, name) for name in ("max_error", "requests", "seed", "explore")},
        **_compared(found, known, streams, options),
        "decide_us": decide_us(),
    }
    if options.plot:
        _plot(options.plot, found, known, streams[0], options)
    report("bound", figures, options, table=_table(figures))


def _check(options: argparse.Namespace) -> None:
    if not options.pairs or options.requests < 1 or options.seeds < 1:
        sys.exit("name files of pairs: --pairs FILE; --requests and --seeds must be at least 1")
    if not (0.0 < options.max_error < 1.0 and 0.0 <= options.explore <= 1.0):
        sys.exit("--max-error must be above 0 and below 1, --explore from 0 to 1")
    if options.plot and not options.plot.absolute().parent.is_dir():
        sys.exit(f"--plot {options.plot}: there is no such folder")


def _compared(
    found: Questions, known: Near, streams: Sequence[Sequence[int]], options: argparse.Namespace
) -> dict[str, Any]:
    rows, by_threshold = [], []
    for seed, stream in enumerate(streams, options.seed):
        ours = _Bounded(found, options.max_error, seed, options.explore)
        row: dict[str, Any] = {"seed": seed, **replay(found, known, stream, ours).figures(), "explored": ours.explored}
        row |= replay(found, known, stream, _Bounded(found, options.max_error, seed, 0.0)).figures("unexplored_")
        row |= replay(found, known, stream, _VCache(found, options.max_error, seed)).figures("vcache_")
        tried = [replay(found, known, stream, _Static(threshold)) for threshold in _THRESHOLDS]
        by_threshold.append(tried)
        kept = [at for at, counts in enumerate(tried) if counts.error_rate <= options.max_error]
        best = min(kept, key=lambda at: tried[at].asked)
        row |= tried[best].figures("static_") | {"static_threshold": _THRESHOLDS[best]}
        rows.append(row)
    every = [
        at for at in range(len(_THRESHOLDS)) if all(tried[at].error_rate <= options.max_error for tried in by_threshold)
    ]
    best = min(every, key=lambda at: sum(tried[at].asked for tried in by_threshold))
    for row, tried in zip(rows, by_threshold, strict=True):
        row |= tried[best].figures("static_every_seed_")
    return {
        **{key: value for key, value in rows[0].items() if key != "seed"},
        "static_every_seed_threshold": _THRESHOLDS[best],
        "worst_error_rate": max(row["error_rate"] for row in rows),
        "seeds_above_max_error": sum(row["error_rate"] > options.max_error for row in rows),
        "unexplored_seeds_above_max_error": sum(row["unexplored_error_rate"] > options.max_error for row in rows),
        "topics": len(found.topics),
        "distinct": len(set(streams[0])),
        **{f"mean_{prefix}{key}": _mean(rows, prefix + key) for prefix in _PREFIXES for key in ("hit_rate", "spared")},
        "seeds": rows,
    }


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return float(sum(row[key] for row in rows)) / len(rows)


def replay(
    found: Questions, known: Near, stream: Sequence[int], rule: Rule, *, course: list[Counts] | None = None
) -> Counts:
    """Ask one text after another of a cache that decides by a rule; ``course`` gets the counts before each of them."""
    counts = Counts(requests=len(stream), distinct=len(set(stream)))
    stored: set[int] = set()
    indexed: set[int] = set()
    for text in stream:
        if course is not None:
            course.append(replace(counts))
        if text in stored:
            counts.exact += 1
            continue
        neighbours = known.within(text, indexed, rule.looks_at)
        served = rule.choose(text, neighbours)
        if served is not None:
            counts.served += 1
            counts.wrong += not found.is_same(text, served)
            continue
        stored.add(text)
        if rule.learn(text, neighbours):
            indexed.add(text)
    return counts


class _Static:
    looks_at = 1

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def choose(self, text: int, neighbours: Neighbours) -> int | None:
        return neighbours[0][0] if neighbours and neighbours[0][1] >= self._threshold else None

    def learn(self, text: int, neighbours: Neighbours) -> bool:
        return True


class _VCache:
    looks_at = 1

    def __init__(self, found: Questions, max_error: float, seed: int) -> None:
        self._found, self._max_error, self._rng = found, max_error, random.Random(seed)
        self._observations: dict[int, list[tuple[float, bool]]] = defaultdict(list)

    def choose(self, text: int, neighbours: Neighbours) -> int | None:
        for entry, similarity in neighbours:
            observations = self._observations[entry]
            if len(observations) >= _LEAST_OBSERVATIONS:
                ask = ask_probability(max(0.0, similarity), observations, self._max_error)
                return entry if self._rng.random() >= ask else None
        return None

    def learn(self, text: int, neighbours: Neighbours) -> bool:
        for entry, similarity in neighbours:
            is_same = bool(self._found.is_same(text, entry))
            self._observations[entry].append((max(0.0, similarity), is_same))
            return not is_same
        return True


class _Bounded:
    looks_at = _NEIGHBOURS

    def __init__(self, found: Questions, max_error: float, seed: int, explore: float = _EXPLORED) -> None:
        self._found = found
        limits = ErrorLimits(max_error, explore_share=explore)
        self._bounds = RouteBounds(MemoryStore(), limits, chance=random.Random(seed).random)
        self._evidence: dict[str, tuple[Observation, ...]] = {}
        self._matcher = Matcher(
            CacheConfig().threshold,
            self._bounds,
            guard=_guard(),
            get=self._entry,
            evidence=lambda key: encode_evidence(self._evidence.get(key, ())),
            clock=SystemClock(),
        )
        self._doubted: Weighed | None = None
        self.explored = 0

    def choose(self, text: int, neighbours: Neighbours) -> int | None:
        self._doubted = None
        if not neighbours:
            return None
        question = Question(_SCOPE, self._found.texts[text], np.empty(0, np.float32), _SCOPE, None, NO_TURNS)
        looked = self._matcher.match(
            question, [Neighbour(str(entry), similarity) for entry, similarity in neighbours], 0.0
        )
        if looked.entry is None or looked.weighed is None:
            self._doubted = looked.weighed
            return None
        self._bounds.note_hit(looked.weighed)
        return int(looked.entry.key)

    def learn(self, text: int, neighbours: Neighbours) -> bool:
        weighed = self._doubted
        if weighed is not None:
            self.explored += 1
            is_same = bool(self._found.is_same(text, int(weighed.key)))
            self._bounds.learn(weighed, "explore", is_same=is_same)
            seen = Observation(0.0, weighed.similarity, weighed.p_same, is_same, "explore")
            self._evidence[weighed.key] = with_observation(self._evidence.get(weighed.key, ()), seen)
        return True

    def _entry(self, key: str) -> Entry:
        return Entry(key, _SCOPE, self._found.texts[int(key)], b"", 0.0, encoder=_SCOPE)


class _Remembering(Guard):
    """The shipped guard; what it said of two texts it need not find out again for the next seed."""

    def __init__(self) -> None:
        super().__init__(load_shipped)
        self.load()
        if self.failure:
            raise SystemExit(self.failure)
        self.judge = lru_cache(maxsize=None)(super().judge)  # type: ignore[method-assign]
        self.judge_closely = lru_cache(maxsize=None)(super().judge_closely)  # type: ignore[method-assign]


@cache
def _guard() -> Guard:
    return _Remembering()


def decide_us() -> float:
    """Time of a decision on an entry of most observations, without the guard, in microseconds: the 99th percentile."""
    rng = random.Random(0)
    bound = Bound(0.05, explore_share=0.1)
    times = []
    for _ in range(_TIMED):
        seen = [Observation(0.0, rng.random(), rng.random(), rng.random() < 0.5, "explore") for _ in range(32)]
        started = time.perf_counter()
        decision = bound.decide(rng.random(), rng.random(), seen, coin=0.5)
        times.append(1e6 * (time.perf_counter() - started))
        bound.note_asked(decision, rng.random(), is_same=rng.random() < 0.5)  # else parts were remembered
    return sorted(times)[_TIMED * 99 // 100]


def _plot(path: Path, found: Questions, known: Near, stream: Sequence[int], options: argparse.Namespace) -> None:
    """Wrong shares and hit rates so far, over the requests."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    safe = next(at for at in _THRESHOLDS if replay(found, known, stream, _Static(at)).error_rate <= options.max_error)
    rules: dict[str, Rule] = {
        "bound": _Bounded(found, options.max_error, options.seed, options.explore),
        "bound, nothing compared": _Bounded(found, options.max_error, options.seed, 0.0),
        "plain vCache": _VCache(found, options.max_error, options.seed),
        f"threshold {safe:.3f}, the best in hindsight": _Static(safe),
        f"threshold {_USUAL}": _Static(_USUAL),
    }
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    wrong, hits = figure.subplots(1, 2)
    for name, rule in rules.items():
        course: list[Counts] = []
        replay(found, known, stream, rule, course=course)
        wrong.plot([each.error_rate for each in course], label=name)
        hits.plot([each.served / max(1, at) for at, each in enumerate(course)], label=name)
    wrong.axhline(options.max_error, color="grey", linestyle="--", label="max_error_rate")
    wrong.set(title="wrong, of answers served by meaning", xlabel="requests", ylim=(0.0, 6.0 * options.max_error))
    hits.set(title="served by meaning, of all requests", xlabel="requests")
    hits.set_yscale("symlog", linthresh=1e-3)
    for ax in (wrong, hits):
        ax.grid(visible=True, alpha=0.3)
    wrong.legend(fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):  # text stays text, and the file the same
        figure.savefig(path, metadata={"Date": None})


def _table(figures: dict[str, Any]) -> list[list[object]]:
    rules = {
        "bound": "",
        "bound, nothing compared": "unexplored_",
        "vCache": "vcache_",
        "best threshold for this seed": "static_",
    }
    if len(figures["seeds"]) > 1:
        rules["best threshold for every seed"] = "static_every_seed_"
    keys = ("error_rate", "error_upper95", "error_rate_of_requests", "hit_rate", "semantic_hit_rate", "asked_upstream")
    rows: list[list[object]] = [
        [", ".join(figures["files"])],
        [f"{figures['requests']} requests, {figures['distinct']} texts, {figures['topics']} topics"],
        [f"at most {figures['max_error']:.1%} wrong"],
        ["rule", "seed", *keys, "served", "wrong", "spared"],
    ]
    for row in figures["seeds"]:
        for name, prefix in rules.items():
            shares = [f"{row[prefix + key]:.4f}" for key in keys]
            rows.append([name, row["seed"], *shares, *(row[prefix + key] for key in ("served", "wrong", "spared"))])
    for name, prefix in rules.items():
        rows.append(
            [
                name,
                "mean",
                f"hit_rate {figures[f'mean_{prefix}hit_rate']:.4f}",
                "",
                "",
                "",
                "",
                "",
                "",
                "",
                f"{figures[f'mean_{prefix}spared']:.1f}",
            ]
        )
    above = (figures[f"{prefix}seeds_above_max_error"] for prefix in ("", "unexplored_"))
    rows.append(
        ["seeds above the limit, of {}: {}; where nothing is compared {}".format(len(figures["seeds"]), *above)]
    )
    rows.append([f"a decision takes {figures['decide_us']:.0f} us (99th percentile)"])
    return rows


if __name__ == "__main__":
    main()
