"""GDSF by itself: its formula, how the past fades, and what it saves when the popular questions change."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.policies import gdsf
from llm_proxy.cache.policies.base import COST_FLOOR_USD, Policy, Worth
from llm_proxy.cache.policies.drift import Drift
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC

from .helpers import priority


def test_it_weighs_cost_frequency_and_size() -> None:
    policy = GDSF()
    policy.on_insert("large", Worth(10_000, 0.001))
    policy.on_insert("cheap", Worth(1_000, 0.00009))
    policy.on_insert("dear", Worth(1_000, 0.01))
    policy.on_insert("often", Worth(1_000, 0.001, hits=3))
    assert list(policy.order()) == ["cheap", "large", "often", "dear"]


def test_the_priority_is_the_formula() -> None:
    policy = GDSF()
    policy.on_insert("a", Worth(100, 0.5, hits=1))
    assert priority(policy, "a") == pytest.approx(2 * 0.5 / 100)
    policy.on_hit("a", 3)
    assert priority(policy, "a") == pytest.approx(5 * 0.5 / 100)
    policy.on_insert("a", Worth(50, 0.1, hits=99))
    assert priority(policy, "a") == pytest.approx(5 * 0.1 / 50), "a new worth, the same frequency"
    policy.on_hit("a", 0)
    assert priority(policy, "a") == pytest.approx(5 * 0.1 / 50)


class Model:
    """GDSF written for reading: every question is answered by looking at all keys. Too short a story to fade."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.held: dict[str, tuple[int, float]] = {}
        self.turn = 0

    def priority(self, key: str) -> float:
        return self.seen[key] * self.held[key][1]

    def insert(self, key: str, size: int, cost: float) -> None:
        self.turn += key not in self.held
        self.seen[key] = self.seen.get(key, 0) + (key not in self.held)
        turn = self.held.get(key, (self.turn, 0.0))[0]
        self.held[key] = (turn, max(cost, COST_FLOOR_USD) / size)

    def hit(self, key: str) -> None:
        if key in self.held:
            self.seen[key] += 1

    def admits(self, key: str, size: int, cost: float) -> bool:
        victim = self.victim()
        if victim is None or key in self.held:
            return True
        seen = self.seen.get(key, 0) + 1
        if seen * max(cost, COST_FLOOR_USD) / size > self.priority(victim):
            return True
        self.seen[key] = seen
        return False

    def victim(self) -> str | None:
        return min(self.held, key=lambda key: (self.priority(key), self.held[key][0]), default=None)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("iahv"), st.sampled_from("abcdefgh"), st.sampled_from([1, 2, 4]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_it_is_its_model(steps: list[tuple[str, str, int, int]]) -> None:
    policy, model = GDSF(), Model()
    for what, key, size, cost in steps:
        if what == "i":
            policy.on_insert(key, Worth(size, float(cost)))
            model.insert(key, size, float(cost))
        elif what == "a":
            assert policy.admits(key, Worth(size, float(cost))) == model.admits(key, size, float(cost))
        elif what == "h":
            policy.on_hit(key)
            model.hit(key)
        victim = policy.victim()
        assert victim == model.victim()
        if what == "v" and victim is not None:
            policy.on_remove(victim)
            del model.held[victim]
        for held in model.held:
            assert priority(policy, held) == pytest.approx(model.priority(held))


# -- the past fades ----------------------------------------------------------------------------------------------


def test_a_request_counts_half_after_a_half_life() -> None:
    policy = GDSF()
    policy.on_insert("then", Worth(1, 1.0))
    policy.on_insert("other", Worth(1, 1e9))
    policy.on_hit("other", gdsf.LEAST_HALF_LIFE)
    policy.on_insert("now", Worth(1, 1.0))
    then, now = (priority(policy, key) or 0.0 for key in ("then", "now"))
    assert now / then == pytest.approx(2.0, rel=0.001)


def test_it_fades_without_end() -> None:
    """Numbers are brought back to size in time, and neither order nor ratio is lost."""
    policy = GDSF()
    policy.on_insert("a", Worth(1, 1.0))
    policy.on_insert("b", Worth(1, 1.0))
    policy.on_insert("gone", Worth(1, 1.0))
    policy.on_remove("gone")
    for _ in range(2_000):
        policy.on_hit("a", 2 * gdsf.LEAST_HALF_LIFE)
        policy.on_hit("b", 4 * gdsf.LEAST_HALF_LIFE)
    a, b = (priority(policy, key) or 0.0 for key in "ab")
    assert 1.0 < b / a < 8.0
    assert b < 1e30
    assert policy.victim() == "a"
    assert policy.admits("new", Worth(1, 1e18))


def saved(policy: Policy, requests: list[int], costs: list[float], places: int) -> float:
    """Share of the cost that hits save, with so many places of one size."""
    total = won = 0.0
    for number in requests:
        key, worth = str(number), Worth(1, costs[number])
        total += costs[number]
        if policy.slot(key) is not None:
            won += costs[number]
            policy.on_hit(key)
        elif len(policy) < places:
            policy.on_insert(key, worth)
        elif policy.admits(key, worth):
            victim = policy.victim()
            assert victim is not None
            policy.on_remove(victim)
            policy.on_insert(key, worth)
    return won / total


@pytest.mark.parametrize("seed", [0, 1])
def test_it_follows_when_the_popular_ones_change(seed: int) -> None:
    """Others become popular: soon it saves as much as one that knows nothing of before; LEC never forgets."""
    rng = random.Random(seed)
    costs = [rng.choice([0.001, 0.01, 0.1]) for _ in range(400)]
    weights = [1 / (number + 1) for number in range(400)]
    before = rng.choices(range(400), weights, k=20_000)
    after = [399 - number for number in rng.choices(range(400), weights, k=20_000)]
    policy, steadfast, unbiased = GDSF(), LEC(), GDSF()
    for each in (policy, steadfast):
        assert saved(each, before, costs, 40) > 0.6
    soon, later = after[:10_000], after[10_000:]
    at_once = [saved(each, soon, costs, 40) for each in (policy, unbiased, steadfast)]
    assert at_once[1] - 0.04 < at_once[0] > at_once[2] + 0.1
    assert saved(policy, later, costs, 40) > saved(unbiased, later, costs, 40) - 0.01


class TestDrift:
    @pytest.mark.parametrize("bias", [0.0, 0.2, -0.2])
    def test_a_steady_error_is_no_change(self, bias: float) -> None:
        rng, drift = random.Random(1), Drift()
        chances = (drift.has_changed(0.7 + bias, hits=rng.random() < 0.7, requests=1) for _ in range(200_000))
        assert not any(chances)

    @pytest.mark.parametrize(("drop", "most"), [(0.6, 150), (0.1, 1_500)])
    def test_a_drop_is_noticed(self, drop: float, most: int) -> None:
        rng, drift = random.Random(1), Drift()
        for _ in range(20_000):
            assert not drift.has_changed(0.8, hits=rng.random() < 0.8, requests=1)
        waited = next(
            number for number in range(100_000) if drift.has_changed(0.8, hits=rng.random() < 0.8 - drop, requests=1)
        )
        assert waited < most
        assert not drift.has_changed(0.8, hits=0, requests=1), "said once"

    def test_the_first_requests_say_nothing(self) -> None:
        drift = Drift()
        assert not any(drift.has_changed(1.0, hits=number < 500, requests=1) for number in range(1_000))

    def test_many_hits_at_once(self) -> None:
        drift = Drift()
        assert not drift.has_changed(0.5, hits=10_000, requests=10_000)
        assert not drift.has_changed(0.5, hits=0, requests=20)
        assert drift.has_changed(0.5, hits=0, requests=60)
