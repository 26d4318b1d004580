"""Lengths that queues and budgets go by."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.route.costs import PRIOR_COMPLETION_TOKENS, CostEstimator
from llm_proxy.route.foresight import Foresight
from tests.fakes import request


class Unpriced:
    """Prices nobody may ask for."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


def test_no_price_is_asked_for() -> None:
    """A client without backends has none, and its upstream is not known here: asking would log that."""
    prices: Any = Unpriced()
    foresight = Foresight(CostEstimator(prices), {})
    assert foresight.size(request(), "", "m", None).expected_tokens == PRIOR_COMPLETION_TOKENS
    assert foresight.size(request(max_tokens=20), "", "m", None).expected_tokens == 20
    assert foresight.size(request(), "", "m", 50.0).expected_tokens == 50


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [], "n": "4", "best_of": -1}, 1),
    ],
)
def test_all_answers_that_are_paid_for_count(fields: dict[str, Any], answers: int) -> None:
    prices: Any = Unpriced()
    foresight = Foresight(CostEstimator(prices), {})
    assert foresight.size(request(max_tokens=20, **fields), "", "m", None).most_tokens == 20 * answers
