"""What eviction policies save, on the same requests: ``python -m benchmarks.eviction --queries FILE``.

Requests, costs and bytes are those of `benchmarks._traces`; the data sets that costs are taken from are looked for
beside the folder of the queries, or in ``--data``. The cache holds ``--cache-fraction`` of the bytes of all
different queries that are asked, and is empty at first. A miss pays for its answer, a hit saves it:
``cost_saved_ratio`` is what hits saved of what all requests would have cost.

The library's policies run as its cache runs them; beside them libcachesim's, which know bytes and no costs, as they
come, but for a window of W-TinyLFU that would be too small for any entry. ``hindsight_cost_saved_ratio`` is the best
that a cache could save whose entries are chosen beforehand and never change. ``gap_closed`` is how far a policy of the
library comes from the best of libcachesim's, 0, to that, 1. ``ceilings`` says the same of policies that are told what
no cache can know, and of a bound for every policy: see `benchmarks._ceilings`. With ``--seeds``, ``over_seeds`` has
all of this for so many seeds from ``--seed`` on, as the mean of ``gap_closed``, its standard error, the least and the
share of seeds at 0.9 or above; ``gdsf_behind`` is by how much ``gdsf`` lies below each ceiling, seed by seed.

``us_per_request`` is the time of all verbs of one request. The last figures are of a whole view of ``--entries``
entries, ``gdsf``, without an index and beside the keys: how long it takes to load, its bytes, and the time of a
request, of which as many miss as with ``gdsf`` in the trace; half of those are let in, each in place of another.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llm_proxy.cache.entry import Entry
from llm_proxy.cache.policies.base import Policy
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC
from llm_proxy.cache.policies.lfu import LFU
from llm_proxy.cache.policies.lru import LRU
from llm_proxy.cache.view import ROW_BYTES, View

from ._ceilings import KNOWING, any_policy
from ._report import arguments, report
from ._traces import COSTS, Trace, trace

__all__ = ["main", "replay"]

_OURS: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lec": LEC, "lfu": LFU, "lru": LRU}
_THEIRS = {
    "LRU": "LRU",
    "SIEVE": "Sieve",
    "S3-FIFO": "S3FIFO",
    "W-TinyLFU": "WTinyLFU",
    "ARC": "ARC",
    "GDSF": "GDSF",
}
_PLOTTED = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_TIMED_REQUESTS = 200_000
_ASKED = 0.9  # of the gap


def main() -> None:
    """Run and report."""
    options = arguments(
        "eviction",
        __doc__,
        queries=(Path, None, "file of queries"),
        costs=(str, "fleet", f"where costs come from: {' or '.join(COSTS)}"),
        cache_fraction=(float, 0.05, "bytes of the cache, as a share of the bytes of all different queries"),
        requests=(int, 200_000, "requests in all"),
        seed=(int, 0, "of all that is drawn"),
        data=(Path, None, "folder of the data sets that costs are taken from; else that of the queries' own folder"),
        seeds=(int, 1, "how many seeds, from that on, to summarize beside it"),
        drift=(float, 0.0, "share of the requests after which popularities change hands; 0: never"),
        entries=(int, 1_000_000, "entries of the view that is timed and weighed; 0: none"),
        plot=(Path, None, "SVG file to draw cost against cache size into"),
    )
    _check(options)
    found = _drawn(options, options.seed)
    figures = {
        "file": f"{options.queries.parent.name}/{options.queries.name}",
        **{name: getattr(options, name) for name in ("costs", "cache_fraction", "requests", "seed", "drift")},
        **_compared(found, options.cache_fraction),
    }
    if options.seeds > 1:
        figures["over_seeds"] = _over_seeds(options)
    if options.entries:
        misses = 1 - next(row["hit_ratio"] for row in figures["policies"] if row["ours"] and row["name"] == "gdsf")
        figures |= _at_scale(options.entries, misses, options.seed)
    if options.plot:
        _plot(found, options.plot)
    report("eviction", figures, options, table=_table(figures))


def _drawn(options: argparse.Namespace, seed: int) -> Trace:
    return trace(
        options.queries,
        costs=options.costs,
        data=options.data or options.queries.resolve().parent.parent,
        requests=options.requests,
        seed=seed,
        drift=options.drift,
    )


def _check(options: argparse.Namespace) -> None:
    """End with one line on what is missing or out of range."""
    if options.queries is None or options.requests < 1:
        sys.exit("name a file of queries: --queries FILE, and how many to ask: --requests 200000")
    if options.costs not in COSTS:
        sys.exit(f"--costs {options.costs}: there is only {' and '.join(COSTS)}")
    if not 0 < options.cache_fraction <= 1 or not 0 <= options.drift <= 1:
        sys.exit("--cache-fraction must be above 0 and at most 1, --drift at least 0 and at most 1")
    if options.entries < 0 or options.seeds < 1:
        sys.exit(f"--entries {options.entries} must be 0 or more, --seeds {options.seeds} at least 1")
    if options.plot and not options.plot.absolute().parent.is_dir():
        sys.exit(f"--plot {options.plot}: there is no such folder")
    try:
        import libcachesim  # noqa: F401
    except ImportError:
        sys.exit("policies to compare with are missing: pip install libcachesim")


def _compared(found: Trace, fraction: float, ours: dict[str, Callable[[], Policy]] = _OURS) -> dict[str, Any]:
    """Figures of all policies at one size of the cache."""
    capacity = found.capacity(fraction)
    if capacity < 1:
        sys.exit(f"--cache-fraction {fraction}: the cache has no room for one byte")
    rows = [_measured(found, capacity, name, policy=new) for name, new in ours.items()]
    rows += [_measured(found, capacity, name, theirs=kind) for name, kind in _THEIRS.items()]
    ceilings = _ceilings(found, capacity)
    best = max(row["cost_saved_ratio"] for row in rows if not row["ours"])
    hindsight = found.hindsight(capacity)
    for row in [row for row in rows if row["ours"]] + ceilings:
        row["gap_closed"] = (row["cost_saved_ratio"] - best) / (hindsight - best) if hindsight > best else None
    return {
        "distinct": len(found.counts),
        "cache_bytes": capacity,
        "policies": rows,
        "best_cost_blind_ratio": best,
        "hindsight_cost_saved_ratio": hindsight,
        "ceilings": ceilings,
    }


def _ceilings(found: Trace, capacity: int) -> list[dict[str, Any]]:
    """What policies save that are told what a cache can't know, and what none can exceed."""
    told = KNOWING if found.popularity else {}
    rows = [_measured(found, capacity, name, policy=partial(new, found.popularity)) for name, new in told.items()]
    known = [{"name": row["name"], "cost_saved_ratio": row["cost_saved_ratio"]} for row in rows]
    return [*known, {"name": "any policy", "cost_saved_ratio": any_policy(found, capacity)}]


def _over_seeds(options: argparse.Namespace) -> dict[str, Any]:
    """How far `GDSF` and the ceilings close the gap, over seeds; one that leaves no gap does not count."""
    closed: dict[str, list[float]] = {}
    for seed in range(options.seed, options.seed + options.seeds):
        compared = _compared(_drawn(options, seed), options.cache_fraction, {"gdsf": GDSF})
        for row in [*compared["policies"], *compared["ceilings"]]:
            if row.get("gap_closed") is not None:
                closed.setdefault(row["name"], []).append(row["gap_closed"])
    ours = closed.get("gdsf", [])
    behind = {name: [than - our for than, our in zip(closed[name], ours, strict=True)] for name in closed}
    return {
        "seeds": len(ours),
        "gap_closed": {name: _summary(gaps) for name, gaps in closed.items()},
        "gdsf_behind": {name: _summary(gaps) for name, gaps in behind.items() if name != "gdsf"},
    }


def _summary(gaps: Sequence[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(gaps),
        "standard_error": statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0,
        "least": min(gaps),
        "at_nine_tenths": sum(gap >= _ASKED for gap in gaps) / len(gaps),
    }


def _measured(
    found: Trace, capacity: int, name: str, *, policy: Callable[[], Policy] | None = None, theirs: str = ""
) -> dict[str, Any]:
    started = time.perf_counter()
    hits = list(replay(policy(), found, capacity) if policy else _replay_theirs(theirs, found, capacity))
    seconds = time.perf_counter() - started
    asked = [query for query, is_hit in zip(found.requests, hits, strict=True) if is_hit]
    return {
        "name": name,
        "ours": policy is not None,
        "hit_ratio": len(asked) / len(hits),
        "byte_hit_ratio": sum(found.sizes[query] for query in asked) / found.bytes_requested,
        "cost_saved_ratio": sum(found.costs_usd[query] for query in asked) / found.cost_usd,
        "us_per_request": 1e6 * seconds / len(hits),
    }


def replay(policy: Policy, found: Trace, capacity: int) -> Iterator[bool]:
    """Whether each request is a hit, in the library's view of a cache of so many bytes."""
    view, bounds = View(policy, None), {"budget_bytes": capacity, "max_entries": len(found.sizes)}
    entries = [Entry(str(query), "", "", b"", 0.0, cost_usd=cost) for query, cost in enumerate(found.costs_usd)]
    records = [size - ROW_BYTES for size in found.sizes]
    for query in found.requests:
        entry, record_bytes = entries[query], records[query]
        is_hit = entry.key in view
        yield is_hit
        if is_hit:
            view.hit(entry.key, 1)
        elif found.sizes[query] <= capacity and view.admits(entry, record_bytes, **bounds):
            view.evict(budget_bytes=capacity - found.sizes[query], max_entries=len(found.sizes))
            view.insert(entry, record_bytes)


def _replay_theirs(kind: str, found: Trace, capacity: int) -> Iterator[bool]:
    import libcachesim

    # W-TinyLFU's window is a hundredth of the cache; one that is smaller than an entry would hold none.
    window = max(0.01, max(found.sizes) / capacity)
    more = {"window_size": window} if kind == "WTinyLFU" and window < 1 else {}
    cache, request = getattr(libcachesim, kind)(capacity, hashpower=18, **more), libcachesim.Request()
    for query in found.requests:
        request.obj_id, request.obj_size = query + 1, found.sizes[query]
        yield cache.get(request)


def _at_scale(entries: int, miss_ratio: float, seed: int) -> dict[str, float]:
    """Time and memory of a view that holds so many entries."""
    rng = random.Random(seed)
    keys = [f"{rng.getrandbits(256):064x}" for _ in range(entries)]
    costs = [rng.expovariate(1000.0) for _ in range(entries)]
    requests = [_new_entry(rng, "" if rng.random() < miss_ratio else rng.choice(keys)) for _ in range(_TIMED_REQUESTS)]
    view = View(GDSF(), None)
    gc.collect()
    before, started = _resident_bytes(), time.perf_counter()
    for key, cost_usd in zip(keys, costs, strict=True):
        view.restore(key, 2000, cost_usd, 1)
    loaded_s, taken = time.perf_counter() - started, _resident_bytes() - before
    bounds = {"budget_bytes": view.used_bytes, "max_entries": entries}
    started = time.perf_counter()
    for entry in requests:
        if entry.key in view:
            view.hit(entry.key, 1)
        elif view.admits(entry, 600, **bounds):
            view.evict(budget_bytes=bounds["budget_bytes"] - 2000, max_entries=entries - 1)
            view.insert(entry, 600)
    seconds = time.perf_counter() - started
    return {
        "entries": entries,
        "load_s": loaded_s,
        "bytes_per_entry": taken / entries,
        "us_per_request_1m": 1e6 * seconds / len(requests),
    }


def _new_entry(rng: random.Random, key: str) -> Entry:
    """An entry of a key, or of a new one; every other one is worth nothing, and so not let in."""
    return Entry(key or f"{rng.getrandbits(256):064x}", "", "", b"", 0.0, cost_usd=rng.choice([0.0, 0.01]))


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # only Linux says it
        return 0


def _plot(found: Trace, path: Path) -> None:
    """Draw what is paid, of what all would cost, against the size of the cache."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    at = [_compared(found, fraction) for fraction in _PLOTTED]
    with plt.rc_context({"svg.hashsalt": "eviction", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        for number, row in enumerate(at[0]["policies"]):
            paid = [1 - each["policies"][number]["cost_saved_ratio"] for each in at]
            label = row["name"] if row["ours"] else f"{row['name']} (libcachesim)"
            axes.plot(_PLOTTED, paid, "o-" if row["ours"] else "x:", markersize=3, linewidth=1.2, label=label)
        paid = [1 - each["hindsight_cost_saved_ratio"] for each in at]
        axes.plot(_PLOTTED, paid, "k--", linewidth=1, label="best in hindsight")
        axes.set(xscale="log", yscale="log", xlabel="cache size, share of the bytes of all different queries")
        axes.set_xticks(_PLOTTED, [f"{fraction:g}" for fraction in _PLOTTED], minor=False)
        axes.set_ylabel("cost paid, share of the cost without a cache")
        axes.minorticks_off()
        ticks = (0.05, 0.1, 0.2, 0.4, 0.8)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
    print(f"drawn into {path.name}")


def _table(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    names = ("hit_ratio", "byte_hit_ratio", "cost_saved_ratio", "us_per_request", "gap_closed")
    rows: list[tuple[str, ...]] = [("", *names)]
    for row in figures["policies"]:
        cells = [f"{row[name]:.4g}" if row.get(name) is not None else "" for name in names]
        rows.append((row["name"] if row["ours"] else f"{row['name']} (libcachesim)", *cells))
    rows.append(("best in hindsight", "", "", f"{figures['hindsight_cost_saved_ratio']:.4g}"))
    for row in figures["ceilings"]:
        closed = "" if row["gap_closed"] is None else f"{row['gap_closed']:.4g}"
        rows.append((row["name"], "", "", f"{row['cost_saved_ratio']:.4g}", "", closed))
    rows += _table_over_seeds(figures["over_seeds"]) if "over_seeds" in figures else []
    scale = ("entries", "load_s", "bytes_per_entry", "us_per_request_1m")
    return rows + [(name, f"{figures[name]:.4g}") for name in scale if name in figures]


def _table_over_seeds(over: dict[str, Any]) -> list[tuple[str, ...]]:
    names = ("mean", "standard_error", "least", "at_nine_tenths")
    rows: list[tuple[str, ...]] = [(f"gap_closed over {over['seeds']} seeds", *names)]
    rows += [(name, *(f"{of[each]:.4g}" for each in names)) for name, of in over["gap_closed"].items()]
    return rows + [
        (f"gdsf behind: {name}", *(f"{of[each]:.4g}" for each in names[:3])) for name, of in over["gdsf_behind"].items()
    ]


if __name__ == "__main__":
    main()
