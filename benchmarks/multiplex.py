"""Caching and choice of model together: the paper's simulation, served by the library's own policies and estimators.

::

    offline     what each query costs and how often it comes is known: the policy keeps what it values most of all
                queries (LRU, which values nothing, runs as it does online), and a perfect selector knows both costs
    online      nothing is known but what was asked and paid; "selector" at accuracy 1 is then the bandit, which takes
                the way of the least lower bound
    model1, model2      always that model
    cascade     small first, large where it fails. In the synthetic workload a model's cost is that of all that asking
                it leads to, so there the cascade is model 1
    selector    does what a selector says that is right at each request with the chance ``accuracy``
    measured    hears the same selector, and trusts it as far as outcomes allow (`llm_proxy.route.trust`)

Costs are sums over all requests, in thousands. The Lambada table is in 1e15 FLOPs. What of this is the library and what
the benchmark's own, `benchmarks._multiplex` says; the least mean and the noise of costs, which the paper knows, are
given to `ArmCosts`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._multiplex import POLICIES, Workload, heard, lambada, missed, serve, static, synthetic
from ._report import arguments, report

__all__ = ["main", "rows_of"]

Row = dict[str, Any]
_ALPHAS, _RATIOS, _ACCURACIES = (0.5, 0.8), (100.0, 1.5), (1.0, 0.8)
_LAMBADA_ALPHAS = (0.2, 0.8)
_SELECTORS = ("model1", "model2", "cascade", "selector", "measured")
_BLIND = ("lfu", "lru")
_THOUSAND = 1000.0
_PLOTTED = (("lru", "model2"), ("lfu", "model2"), ("lfu", "selector"), ("lec", "model2"), ("lec", "selector"))
_PLOTTED_SEEDS = 20
_PLOTTED_PLACES = range(2, 19, 2)
_SEEDS = 2**32  # that NumPy's legacy generator takes


class Cells:
    """What one workload costs in each cell; what several cells share is worked out once."""

    def __init__(self, load: Workload, seed: int) -> None:
        self._load = load
        self._words = {accuracy: heard(load, accuracy, seed) for accuracy in _ACCURACIES}
        self._blind = {policy: missed(load, policy) for policy in _BLIND}
        self._known: dict[tuple[Any, ...], float] = {}

    def cost(self, policy: str, selector: str, *, accuracy: float, online: bool) -> float:
        """What all requests cost, in thousands."""
        selector = "cascade" if selector == "model1" else selector
        is_heard = selector in ("selector", "measured")
        cell = policy, selector, accuracy if is_heard else None, online
        if cell not in self._known:
            self._known[cell] = self._cost(policy, selector, accuracy, online) / _THOUSAND
        return self._known[cell]

    def _cost(self, policy: str, selector: str, accuracy: float, online: bool) -> float:
        load, words = self._load, self._words[accuracy]
        is_learning = selector == "measured" or (online and selector == "selector" and accuracy >= 1.0)
        if online and policy not in _BLIND:
            return serve(load, selector, words, accuracy=accuracy, cache=policy)
        misses = self._blind[policy] if online or policy == "lru" else static(load, policy, self._planned(selector))
        if is_learning:
            served = selector, accuracy, misses.tobytes()
            if served not in self._known:
                self._known[served] = serve(load, selector, words, accuracy=accuracy, cache=misses)
            return self._known[served]
        way = {"cascade": 0, "model2": 1}.get(selector, words)
        return float(load.costs[np.arange(len(words)), way][misses].sum())

    def _planned(self, selector: str) -> NDArray[np.float64]:
        """What each request would cost, where that is known in advance."""
        costs = self._load.costs
        return (
            costs[:, 0] if selector in ("model1", "cascade") else costs[:, 1] if selector == "model2" else costs.min(1)
        )


def rows_of(options: argparse.Namespace, *, is_lambada: bool) -> list[Row]:
    """One row per (settings, accuracy, online, policy, selector), over the seeds."""
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    work = [(seed, options.requests, is_lambada) for seed in seeds]
    if options.jobs > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            found = list(pool.map(_one_seed, work))
    else:
        found = [_one_seed(seed) for seed in work]
    rows = []
    for number, (named, _) in enumerate(found[0]):
        costs = np.array([rows_of_seed[number][1] for rows_of_seed in found])
        rows.append({**named, **_summary(costs), "costs": costs})
    return rows


def _one_seed(work: tuple[int, int, bool]) -> list[tuple[Row, float]]:
    """Every cell of one seed's workloads, and what it costs in thousands."""
    seed, requests, is_lambada = work
    settings: list[Row] = [{"alpha": alpha, "ratio": ratio} for alpha, ratio in product(_ALPHAS, _RATIOS)]
    if is_lambada:
        settings = [{"alpha": alpha} for alpha in _LAMBADA_ALPHAS]
    found = []
    for chosen in settings:
        make: Callable[..., Workload] = lambada if is_lambada else synthetic
        cells = Cells(make(seed, requests=requests, **chosen), seed)
        selectors = _SELECTORS[is_lambada:]  # the small model alone fails on half of Lambada
        for accuracy, online, policy, selector in product(_ACCURACIES, (False, True), POLICIES, selectors):
            named = {"accuracy": accuracy, "online": online, "policy": policy, "selector": selector}
            cost = cells.cost(policy, selector, accuracy=accuracy, online=online)
            found.append(({**chosen, **named}, cost))
    return found


def _summary(costs: NDArray[np.float64]) -> Row:
    error = float(costs.std(ddof=1) / np.sqrt(len(costs))) if len(costs) > 1 else 0.0
    return {"mean": float(costs.mean()), "median": float(np.median(costs)), "se": error}


def _found(rows: list[Row], **named: Any) -> Row:
    return next(row for row in rows if all(row[name] == value for name, value in named.items()))


def _gains(rows: list[Row]) -> list[Row]:
    """How many times LFU and one model cost what LEC and the perfect selector cost, median over seeds."""
    gains = []
    for alpha, online in product(_ALPHAS, (False, True)):
        named = {"alpha": alpha, "ratio": _RATIOS[0], "accuracy": 1.0, "online": online}
        best = _found(rows, **named, policy="lec", selector="selector")["costs"]
        over = {
            f"over_lfu_{model}": float(np.median(_found(rows, **named, policy="lfu", selector=model)["costs"] / best))
            for model in ("model1", "model2")
        }
        gains.append({**named, **over})
    return gains


def _trusted(rows: list[Row]) -> list[Row]:
    """Each cell of a selector that is right only some of the time: measured against the better of the two."""
    cells = []
    for row in rows:
        if row["selector"] != "measured" or row["accuracy"] >= 1.0:
            continue
        named = {name: row[name] for name in row if name in ("alpha", "ratio", "accuracy", "online", "policy")}
        both = [_found(rows, **named, selector=other) for other in ("cascade", "selector")]
        better = {what: min(other[what] for other in both) for what in ("mean", "median")}
        # Few requests may all fit into the cache, and cost nothing.
        cells.append({**named, **{f"{what}_ratio": row[what] / cost if cost else 1.0 for what, cost in better.items()}})
    return cells


def _table(rows: list[Row], selectors: tuple[str, ...]) -> Iterator[list[object]]:
    settings = [name for name in ("alpha", "ratio") if name in rows[0]]
    yield [*settings, "accuracy", "online", "policy", *selectors]
    seen: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        key = (*(row[name] for name in settings), row["accuracy"], row["online"], row["policy"])
        seen.setdefault(key, {})[row["selector"]] = row
    for key, by_selector in seen.items():
        yield [*key, *(f"{by_selector[name]['mean']:.2f} ({by_selector[name]['median']:.2f})" for name in selectors)]


def _plot(path: Path, options: argparse.Namespace) -> None:
    """Cost against cache size, offline and online, at the first alpha and ratio."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    seeds = range(options.first_seed, options.first_seed + min(options.seeds, _PLOTTED_SEEDS))
    curves: dict[tuple[str, str, bool], list[float]] = {}
    for places in _PLOTTED_PLACES:
        settings: Any = {"alpha": _ALPHAS[0], "ratio": _RATIOS[0], "requests": options.requests, "places": places}
        cells = [Cells(synthetic(seed, **settings), seed) for seed in seeds]
        for (policy, selector), online in product(_PLOTTED, (False, True)):
            costs = [cell.cost(policy, selector, accuracy=1.0, online=online) for cell in cells]
            curves.setdefault((policy, selector, online), []).append(float(np.median(costs)))
    for (policy, selector, online), costs in curves.items():
        name = f"{policy.upper()} + {'model 2' if selector == 'model2' else selector}"
        axes[int(online)].plot(_PLOTTED_PLACES, costs, marker="o", markersize=3, label=name)
    for ax, title in zip(axes, ("all known in advance", "learnt while serving"), strict=True):
        ax.set(title=title, xlabel="entries that the cache holds, of 20 queries", yscale="log")
        ax.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel(f"cost of {options.requests:,} requests, thousands (median)")
    axes[1].legend(fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):  # text stays text, and the file the same
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run all cells; ``--plot`` draws cost against cache size as well."""
    options = arguments(
        "multiplex",
        __doc__,
        seeds=(int, 100, "how many distinct seeds"),
        requests=(int, 10_000, "requests of each seed"),
        first_seed=(int, 0, "the first of them"),
        jobs=(int, 1, "processes that share the seeds"),
        plot=(Path, None, "draw cost against cache size into this file"),
    )
    if min(options.seeds, options.requests, options.jobs) < 1 or options.first_seed < 0:
        raise SystemExit("multiplex: --seeds, --requests and --jobs must be at least 1, --first-seed at least 0")
    if options.first_seed + options.seeds > _SEEDS:
        raise SystemExit(f"multiplex: --first-seed {options.first_seed}: seeds go up to {_SEEDS - 1}")
    if options.plot and not options.plot.absolute().parent.is_dir():
        raise SystemExit(f"multiplex: --plot {options.plot}: there is no such folder")
    rows, table = rows_of(options, is_lambada=False), rows_of(options, is_lambada=True)
    if options.plot:
        _plot(options.plot, options)
    figures = {
        "seeds": options.seeds,
        "first_seed": options.first_seed,
        "requests": options.requests,
        "gains": _gains(rows),
        "trusted": _trusted(rows),
        "trusted_lambada": _trusted(table),
        "rows": [_plain(row) for row in rows],
        "lambada": [_plain(row) for row in table],
    }
    lines: list[list[object]] = [["mean (median) cost / 1000"], *_table(rows, _SELECTORS)]
    lines += [["Lambada, 1e15 FLOPs"], *_table(table, _SELECTORS[1:])]
    report("multiplex", figures, options, table=lines)


def _plain(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "costs"}


if __name__ == "__main__":
    main()
