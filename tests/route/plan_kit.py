"""What the tests of plans share: a route of three models whose lengths and latencies are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_proxy.backends.prices import Prices
from llm_proxy.config import Config
from llm_proxy.encode.base import Encoding
from llm_proxy.route.base import Decision, Destination, Finished
from llm_proxy.route.costs import CostEstimator
from llm_proxy.route.select import Selector
from llm_proxy.testing import FakeClock, FakeHead
from tests.fakes import request

AUTO = Destination("x", route="auto")


VECTOR = Encoding(np.ones(1, np.float32), 9)


# a million tokens of prompt, of answer, of a cached prompt
RATES = {"mini": (1.0, 4.0, 0.5), "mid": (3.0, 12.0, 0.3), "big": (10.0, 40.0, 5.0)}


PRICES = {
    model: {"input_usd_per_mtok": prompt, "output_usd_per_mtok": answer, "cached_usd_per_mtok": cached}
    for model, (prompt, answer, cached) in RATES.items()
}


LONG = "x" * 40_000  # 10,000 tokens


P_GOOD = {"mini": 0.5, "mid": 0.9, "big": 0.92}


def unpriced(*models: str) -> Config:
    candidates = [f"cloud/{model}" for model in models]
    return Config(backends={"cloud": {"base_url": "https://c.test/v1"}}, routes={"auto": {"candidates": candidates}})


class Bench:
    """A route of three models whose lengths and latencies are known."""

    def __init__(self, said: Any = None, *, route: Any = None, is_tried: bool = True, **cloud: Any) -> None:
        backends = {
            "cloud": {"base_url": "https://cloud.test/v1", "prices": PRICES, **cloud},
            "free": {"base_url": "http://localhost:1/v1", "has_tools": False},
        }
        settings = {"candidates": ["cloud/mini", "cloud/mid", "cloud/big"], **(route or {})}
        config = Config(backends=backends, routes={"auto": settings})
        self.clock, self.troubles = FakeClock(), []
        self.head = FakeHead(P_GOOD if said is None else said)
        self.costs = CostEstimator(Prices(config.backends))
        for model in RATES:
            for _ in range(200 * is_tried):
                self.costs.observe(Finished("cloud", model, 100, 250, 2.0))
        self.selector = Selector(
            config,
            costs=self.costs,
            heads={"auto": self.head},
            note=lambda part, exc: self.troubles.append((part, str(exc))),
            monotonic=self.clock.monotonic,
        )

    def decide(self, text: str = "why?", *, conversation: str = "", encoding: Any = VECTOR, **fields: Any) -> Decision:
        return self.selector.decide(request(text, **fields), AUTO, encoding, conversation)

    def explain(self, text: str = "why?", *, conversation: str = "", encoding: Any = VECTOR, **fields: Any) -> Any:
        return self.selector.explain(request(text, **fields), AUTO, encoding, conversation)

    def fail(self, model: str, times: int = 3) -> None:
        for _ in range(times):
            self.selector.health.ended("cloud", model, self, is_well=False)
