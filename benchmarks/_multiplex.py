"""The simulated workloads of `benchmarks.multiplex`, and how one is served: the library's policies and estimators.

A workload has queries, each of which can be asked in two ways; a request asks one query, and costs what the way costs
then. Way 0 is model 1, or a cascade that begins with the small model; way 1 is model 2, or the large model at once.

Source: Zhu et al., "On Optimal Caching and Model Multiplexing for Large Model Inference", arXiv 2306.02003, section 5.
The order in which random numbers are drawn is that of the paper's simulation, so that a seed means the same workload.

The library decides what is asked (`ArmCosts.choose`, `Trust.choose`), what that is worth, and what is let in and given
up (`View` with a policy, as its cache runs it). The benchmark's own are the workloads, the perfect or erring selector,
who always asks one model, and what is known in advance (`static`). The paper knows the least mean cost that a way can
have and the noise of a cost, so `ArmCosts` is given both here, as ``floor`` and ``scale``; `Trust` is given nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_proxy.cache.entry import Entry
from llm_proxy.cache.policies.base import Policy, Worth
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC
from llm_proxy.cache.policies.lfu import LFU
from llm_proxy.cache.policies.lru import LRU
from llm_proxy.cache.view import ROW_BYTES, View
from llm_proxy.route.arms import ArmCosts
from llm_proxy.route.trust import Trust

__all__ = ["POLICIES", "WAYS", "Workload", "flops", "heard", "lambada", "missed", "serve", "static", "synthetic"]

POLICIES: dict[str, Callable[[], Policy]] = {"lec": LEC, "lfu": LFU, "lru": LRU, "gdsf": GDSF}
WAYS = (0, 1)

_LEAST_COST = 0.1
_NOISE = 1.0
_LEAST_MEAN = 1.0  # of a query's costs in the synthetic workload
_FAILED_TWICE = 2  # a failed small answer costs the large one, and the wait for it
_SMALL, _LARGE = (24, 2048), (40, 5120)  # layers and width of OPT-1.3B and OPT-13B
_TOKENS = (83.0, 17.0)
_TERA = 1e12


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        asked: Query of each request, shape ``(requests,)``, int.
        costs: What each way costs at each request, shape ``(requests, 2)``, >= 0.
        queries: How many there are.
        places: Entries that the cache holds.
        floor: Least mean cost that a way can have.
        noise: Standard deviation of a way's costs at one query.
    """

    asked: NDArray[np.int64]
    costs: NDArray[np.float64]
    queries: int
    places: int
    floor: float
    noise: float


def synthetic(seed: int, *, alpha: float, ratio: float, requests: int, queries: int = 20, places: int = 8) -> Workload:
    """The paper's synthetic workload.

    Args:
        seed: Of NumPy's legacy generator.
        alpha: Query ``i`` of N has the popularity ``((i + 1) / N) ** alpha - (i / N) ** alpha``.
        ratio: A way's mean cost at a query is 1, or with even chance 1 + ratio.
        requests: How many.
        queries: How many.
        places: Entries that the cache holds.
    """
    random = np.random.RandomState(seed)
    means = np.stack([random.binomial(1, 0.5, queries) * ratio + 1.0 for _ in WAYS], axis=1)
    asked = (random.power(alpha, requests) * queries).astype(int)
    costs = np.maximum(_LEAST_COST, means[asked] + random.normal(0.0, _NOISE, (requests, len(WAYS))))
    return Workload(asked, costs, queries, places, _LEAST_MEAN, _NOISE)


def lambada(seed: int, *, alpha: float, requests: int, queries: int = 100, places: int = 40) -> Workload:
    """The paper's Lambada workload from its prompt lengths alone, in 1e12 FLOPs: way 0 is the cascade.

    The small model is right on half of the queries; elsewhere the cascade costs small + 2 x large.
    """
    random = np.random.RandomState(seed)
    tokens = np.maximum(1.0, random.normal(*_TOKENS, queries))
    fails = random.permutation(np.arange(queries) < queries // 2)
    small, large = flops(tokens, *_SMALL) / _TERA, flops(tokens, *_LARGE) / _TERA
    asked = (random.power(alpha, requests) * queries).astype(int)
    costs = np.stack([small + fails * _FAILED_TWICE * large, large], axis=1)
    return Workload(asked, costs[asked], queries, places, 0.0, 0.0)


def flops(tokens: NDArray[np.float64], layers: int, width: int) -> NDArray[np.float64]:
    """Operations of a decoder-only transformer over a prompt, the inner width being four times the outer."""
    s, h, f = tokens, width, 4 * width
    return layers * (8 * s * h * h + 4 * s * h * f) + 4 * layers * s * s * h


def heard(load: Workload, accuracy: float, seed: int) -> NDArray[np.int64]:
    """The selector's word at each request: the way that costs less then, or with the rest of the chance the other."""
    is_right = np.random.default_rng([seed, 1]).uniform(size=len(load.asked)) < accuracy
    best = load.costs.argmin(axis=1)
    return np.where(is_right, best, 1 - best)


class Chooser(Protocol):
    """Chooses ways online, from what it has seen."""

    def choose(self, query: Hashable, word: int) -> int:
        """The way to ask a query."""

    def observe(self, query: Hashable, word: int, way: int, cost: float) -> None:
        """Take in what it cost."""

    def worth(self, query: Hashable, word: int) -> float:
        """What asking the query again would cost."""


class Fixed:
    """One way always."""

    def __init__(self, load: Workload, way: int) -> None:
        self._way, self._costs = way, _learner(load)

    def choose(self, query: Hashable, word: int) -> int:
        """The way."""
        return self._way

    def observe(self, query: Hashable, word: int, way: int, cost: float) -> None:
        """Take in what it cost."""
        self._costs.observe(query, way, cost)

    def worth(self, query: Hashable, word: int) -> float:
        """The lower bound of what it costs."""
        return self._costs.lower(query, self._way)


class Bandit(Fixed):
    """The way of the least lower bound: a perfect selector's place is taken by what was seen."""

    def __init__(self, load: Workload) -> None:
        super().__init__(load, 0)

    def choose(self, query: Hashable, word: int) -> int:
        """The way of the least bound."""
        return self._costs.choose(query, WAYS)

    def worth(self, query: Hashable, word: int) -> float:
        """The least bound."""
        return min(self._costs.lower(query, way) for way in WAYS)


class Follower(Fixed):
    """Does what the selector says."""

    def __init__(self, load: Workload) -> None:
        super().__init__(load, 0)

    def choose(self, query: Hashable, word: int) -> int:
        """The selector's word."""
        return word

    def observe(self, query: Hashable, word: int, way: int, cost: float) -> None:
        """Take in what it cost, whichever way it was."""
        self._costs.observe(query, self._way, cost)


class Measured:
    """The library's `Trust`: the selector's word weighed by outcomes."""

    def __init__(self) -> None:
        self._trust = Trust()

    def choose(self, query: Hashable, word: int) -> int:
        """The way that is worth trying."""
        return self._trust.choose(query, word, WAYS)

    def observe(self, query: Hashable, word: int, way: int, cost: float) -> None:
        """Take in what it cost."""
        self._trust.observe(query, word, way, cost)

    def worth(self, query: Hashable, word: int) -> float:
        """What it costs at the least, as far as is known."""
        return self._trust.worth(query, word, WAYS)


def chooser(selector: str, load: Workload, accuracy: float) -> Chooser:
    """Who chooses online."""
    made: dict[str, Callable[[], Chooser]] = {
        "model1": lambda: Fixed(load, 0),
        "cascade": lambda: Fixed(load, 0),
        "model2": lambda: Fixed(load, 1),
        "selector": lambda: Bandit(load) if accuracy >= 1.0 else Follower(load),
        "measured": Measured,
    }
    return made[selector]()


def static(load: Workload, policy: str, costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which requests miss where all is known in advance: the policy keeps what it gives up last of all queries.

    Args:
        load: The workload.
        policy: Name of a policy.
        costs: What each request would cost, shape ``(requests,)``.

    Returns:
        Shape ``(requests,)``, bool.
    """
    made = POLICIES[policy]()
    counts = np.bincount(load.asked, minlength=load.queries)
    sums = np.bincount(load.asked, costs, load.queries)
    known = [query for query in range(load.queries) if counts[query]]
    for query in known:
        made.on_insert(str(query), Worth(1, sums[query] / counts[query], int(counts[query]) - 1))
    gone = np.zeros(load.queries, bool)
    for _ in range(len(known) - load.places):
        victim = made.victim()
        assert victim is not None, "fewer were given up than are held"
        gone[int(victim)] = True
        made.on_remove(victim)
    return gone[load.asked]


def missed(load: Workload, policy: str) -> NDArray[np.bool_]:
    """Which requests miss under a policy that is blind to costs, shape ``(requests,)``, bool."""
    return _Cache(load, POLICIES[policy]()).run(lambda at, query: 1.0)


def serve(
    load: Workload, selector: str, words: NDArray[np.int64], *, accuracy: float, cache: str | NDArray[np.bool_]
) -> float:
    """Serve all requests, learning from what is paid.

    Args:
        load: The workload.
        selector: Who chooses the way.
        words: From `heard`.
        accuracy: How often they are right.
        cache: The requests that miss, or the name of the policy that decides it by what they cost.

    Returns:
        What was paid, in all.
    """
    chooses, costs, said, paid = chooser(selector, load, accuracy), load.costs.tolist(), words.tolist(), 0.0

    def ask(at: int, query: int) -> float:
        nonlocal paid
        way = chooses.choose(query, said[at])
        cost = costs[at][way]
        paid += cost
        chooses.observe(query, said[at], way, cost)
        return chooses.worth(query, said[at]) if is_learning else 0.0

    is_learning = isinstance(cache, str)
    if isinstance(cache, str):
        _Cache(load, POLICIES[cache]()).run(ask)
    else:
        for at in np.flatnonzero(cache).tolist():
            ask(at, int(load.asked[at]))
    return paid


class _Cache:
    """Places for some queries, all of one size: the library's view of a cache."""

    def __init__(self, load: Workload, policy: Policy) -> None:
        self._load, self._view = load, View(policy, None)
        self._budget_bytes = (load.places + 1) * ROW_BYTES * 2  # the places are what is scarce
        self._keys = [str(query) for query in range(load.queries)]
        self._counts = [0] * load.queries

    def run(self, ask: Callable[[int, int], float]) -> NDArray[np.bool_]:
        """Serve all requests; ``ask`` is given what misses, and gives its worth."""
        view, keys, counts = self._view, self._keys, self._counts
        misses: list[int] = []
        for at, query in enumerate(self._load.asked.tolist()):
            key = keys[query]
            if key in view:
                view.hit(key, 1)
            else:
                misses.append(at)
                self._offer(Entry(key, "", "", b"", 0.0, cost_usd=ask(at, query)), counts[query])
            counts[query] += 1
        found: NDArray[Any] = np.zeros(len(self._load.asked), bool)
        found[misses] = True
        return found

    def _offer(self, entry: Entry, hits: int) -> None:
        view, places, budget_bytes = self._view, self._load.places, self._budget_bytes
        if view.admits(entry, 0, budget_bytes=budget_bytes, max_entries=places):
            view.evict(budget_bytes=budget_bytes, max_entries=places - 1)
            view.insert(entry, 0, hits)


def _learner(load: Workload) -> ArmCosts:
    return ArmCosts(floor=load.floor, scale=load.noise)
