"""What staying with a model saves in conversations: ``python -m benchmarks.conversations``.

Conversations between two models, both good enough but for turns that only the stronger one can take, are routed twice
by the real selector: as conversations, and each turn as if nothing were cached. What they cost is summed by the tokens
that each model's provider really has cached: what it read of the conversation at most five minutes before, from 1,024
tokens on. Nothing is asked; lengths and difficulties are drawn, the same for both.

- ``rows``: one object per setting and number of turns: ``stay_usd`` and ``stay_moves`` (a conversation), and the same
  with ``each_`` in front for each turn by itself; ``saved``: the share of ``each_usd`` that staying spares, below 0
  where it costs more.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_proxy.backends.prices import Prices
from llm_proxy.config import Config
from llm_proxy.encode.base import Encoding
from llm_proxy.route.base import Destination, Finished, Prediction
from llm_proxy.route.costs import CostEstimator
from llm_proxy.route.select import Selector
from llm_proxy.testing import FakeClock, FakeHead
from llm_proxy.types import CHARS_PER_TOKEN, ChatRequest, Usage

from ._report import arguments, report

__all__ = ["SETTINGS", "Setting", "main", "measure"]

_AUTO = Destination("", route="auto")
_VECTOR = Encoding(np.ones(1, np.float32), 0)
_USUAL_TOKENS, _TURN_TOKENS, _TURN_S = 250, 300, 20.0
_LENGTHS = (100, 250, 600)
_LEAST_CACHED_TOKENS, _CACHED_S = 1_024, 300.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Two models: dollars a million tokens of prompt, answer and cached prompt; and how turns differ.

    Attributes:
        name: In words.
        weak: Prices of the weaker one.
        strong: Prices of the stronger one.
        hard_share: Share of turns that only the stronger one can take.
        is_varied: Whether the head foretells another length for every turn and model.
    """

    name: str
    weak: tuple[float, float, float]
    strong: tuple[float, float, float]
    hard_share: float = 0.3
    is_varied: bool = False


SETTINGS = (
    Setting("even prices, lengths vary, cached at a tenth", (1.0, 4.0, 0.1), (1.2, 4.0, 0.1), 0.0, is_varied=True),
    Setting("twice as dear, cached at a tenth", (1.0, 4.0, 0.1), (2.0, 8.0, 0.2)),
    Setting("17 times as dear, cached at half", (0.15, 0.6, 0.075), (2.5, 10.0, 1.25)),
)


def main() -> None:
    """Run and report."""
    options = arguments(
        "conversations",
        __doc__,
        n=(int, 100, "conversations of each kind"),
        seeds=(int, 3, "seeds, from 0 on"),
        system_tokens=(int, 8_000, "length of the system prompt"),
    )
    if min(options.n, options.seeds) < 1 or options.system_tokens < 0:
        sys.exit("--n and --seeds must be at least 1, --system-tokens at least 0")
    rows = [
        measure(setting, turns, n=options.n, seeds=options.seeds, system_tokens=options.system_tokens)
        for setting in SETTINGS
        for turns in (3, 12)
    ]
    figures = {"n": options.n, "seeds": options.seeds, "system_tokens": options.system_tokens, "rows": rows}
    table = [list(rows[0])] + [
        [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows
    ]
    report("conversations", figures, options, table=table)


def measure(setting: Setting, turns: int, *, n: int, seeds: int, system_tokens: int) -> dict[str, Any]:
    """The figures of one row; money and moves are those of one conversation.

    Args:
        setting: The models.
        turns: Of a conversation.
        n: Conversations for each seed.
        seeds: How many.
        system_tokens: Length of the system prompt.
    """
    sums = {}
    for name, stays in (("stay", True), ("each", False)):
        runs = [_run(setting, turns, n, seed, system_tokens, stays=stays) for seed in range(seeds)]
        sums[name] = tuple(sum(part) / (n * seeds) for part in zip(*runs, strict=True))
    return {
        "setting": setting.name,
        "turns": turns,
        "stay_usd": sums["stay"][0],
        "stay_moves": sums["stay"][1],
        "each_usd": sums["each"][0],
        "each_moves": sums["each"][1],
        "saved": 1.0 - sums["stay"][0] / sums["each"][0],
    }


def _run(setting: Setting, turns: int, n: int, seed: int, system_tokens: int, *, stays: bool) -> tuple[float, float]:
    """Dollars and moves of some conversations."""
    rng, clock = random.Random(seed), FakeClock()
    head = FakeHead({"weak": 0.9, "strong": 0.92})
    selector, prices = _selector(setting, head, clock)
    spent, moves = 0.0, 0
    for number in range(n):
        read: dict[str, tuple[int, float]] = {}
        tokens, last = system_tokens, ""
        for _ in range(turns):
            tokens += _TURN_TOKENS
            lengths = {
                model: rng.choice(_LENGTHS) if setting.is_varied else _USUAL_TOKENS for model in ("weak", "strong")
            }
            p_weak = 0.2 if rng.random() < setting.hard_share else 0.9
            head.predictions = {
                "weak": Prediction(p_weak, lengths["weak"]),
                "strong": Prediction(0.92, lengths["strong"]),
            }
            asked = ChatRequest({"messages": [{"role": "user", "content": "x" * tokens * CHARS_PER_TOKEN}]}, b"", {})
            model = selector.decide(asked, _AUTO, _VECTOR, f"{number}" if stays else "").model
            known, at_s = read.get(model, (0, 0.0))
            is_cached = known >= _LEAST_CACHED_TOKENS and clock.monotonic() - at_s <= _CACHED_S
            usage = Usage(tokens, lengths[model], known if is_cached else 0)
            spent += prices.quote_usd(usage, model=model, backend="cloud") or 0.0
            moves += last not in ("", model)
            read[model], last = (tokens, clock.monotonic()), model
            tokens += _USUAL_TOKENS
            clock.advance(_TURN_S)
        clock.advance(2 * _CACHED_S)
    return spent, float(moves)


def _selector(setting: Setting, head: FakeHead, clock: FakeClock) -> tuple[Selector, Prices]:
    names = ("input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok")
    rates = {"weak": setting.weak, "strong": setting.strong}
    own = {model: dict(zip(names, rate, strict=True)) for model, rate in rates.items()}
    config = Config(
        backends={"cloud": {"base_url": "https://cloud.example/v1", "prices": own}},
        routes={"auto": {"candidates": ["cloud/weak", "cloud/strong"]}},
    )
    prices = Prices(config.backends)
    costs = CostEstimator(prices)
    for model in own:
        costs.observe_all([Finished("cloud", model, 100, _USUAL_TOKENS, 1.0)] * 200)
    return Selector(config, costs=costs, heads={"auto": head}, monotonic=clock.monotonic), prices


if __name__ == "__main__":
    main()
