"""Which answers are worth asking again: by hand, and against every choice there is."""

from __future__ import annotations

import itertools
import random

import pytest

from llm_proxy.draft.replay import Weak, expected_uses, planned

DAY_S = 86_400.0


def weak(key: str, uses: float = 10, rise: float = 0.5, cost_usd: float = 0.01, worth_usd: float = 0.01) -> Weak:
    return Weak(key, uses, rise, cost_usd, worth_usd)


def test_what_it_gains() -> None:
    assert weak("a").gain_usd == pytest.approx(0.05)
    assert expected_uses(6, 3 * DAY_S, 30 * DAY_S) == pytest.approx(60)
    assert expected_uses(6, 0.0, 3600.0) == pytest.approx(6), "a young one promises no thousands"
    assert expected_uses(0, DAY_S, DAY_S) == 0


def test_only_what_pays_and_the_best_first() -> None:
    rows = [weak("poor", uses=1), weak("good", uses=30), weak("fair", uses=10), weak("worse", rise=-0.5)]
    assert [one.key for one in planned(rows, 1.0)] == ["good", "fair"]


def test_no_more_than_the_budget() -> None:
    rows = [weak("a", uses=100, cost_usd=0.06), weak("b", uses=90, cost_usd=0.06), weak("c", uses=10, cost_usd=0.03)]
    assert [one.key for one in planned(rows, 0.1)] == ["a", "c"], "what is too dear is passed over"
    assert planned(rows, 0.0) == []


def test_what_is_free_comes_first() -> None:
    assert [one.key for one in planned([weak("b"), weak("a", cost_usd=0.0)], 0.0)] == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_it_is_within_one_entry_of_the_best_choice(seed: int) -> None:
    """By gain for a dollar, what is lost against the best choice is never more than the one that found no room."""
    chance = random.Random(seed)
    rows = [Weak(str(at), chance.uniform(0, 50), chance.random(), chance.uniform(0.01, 0.1), 0.02) for at in range(9)]
    budget = 0.2
    found = planned(rows, budget)
    assert sum(one.cost_usd for one in found) <= budget
    paying = [one for one in rows if one.gain_usd > one.cost_usd]
    best = max(
        sum(one.gain_usd for one in some)
        for size in range(len(paying) + 1)
        for some in itertools.combinations(paying, size)
        if sum(one.cost_usd for one in some) <= budget
    )
    assert sum(one.gain_usd for one in found) >= best - max((one.gain_usd for one in paying), default=0)
