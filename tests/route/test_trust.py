"""Hand-computed estimates, and short worlds in which trust has to be found or lost."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route.trust import Estimate, Trust

WAYS = ("cascade", "large")


class TestEstimate:
    def test_nothing_is_known(self) -> None:
        assert Trust().estimate("q", "large", "large") == Estimate(math.inf, 0.0)
        assert Trust().worth("q", "large", WAYS) == math.inf

    def test_a_new_query_by_the_word(self) -> None:
        trust = Trust()
        for query, cost in (("a", 1.0), ("b", 3.0)):
            trust.observe(query, "cascade", "cascade", cost)
        # between: squares 2 about the mean 2, and 4 observations of 2^2 as the prior: 18 / 5, of two queries
        assert trust.estimate("new", "cascade", "cascade") == (2.0, pytest.approx(math.sqrt(18 / 5 / 2)))

    def test_a_word_that_nobody_followed_there_by_the_way(self) -> None:
        trust = Trust()
        trust.observe("a", "cascade", "cascade", 2.0)
        assert trust.estimate("new", "large", "cascade") == (2.0, pytest.approx(2.0))

    def test_a_way_that_nobody_went_by_all_ways(self) -> None:
        trust = Trust()
        trust.observe("a", "cascade", "cascade", 2.0)
        assert trust.estimate("new", "large", "large").cost == 2.0
        # the query is known, so another of its ways differs from the mean by the spread among queries as well
        assert trust.estimate("a", "large", "large").deviation == pytest.approx(math.sqrt(4 * 2))

    def test_own_outcomes_without_noise_decide_at_once(self) -> None:
        trust = Trust()
        trust.observe("a", "cascade", "cascade", 1.0)
        trust.observe("b", "cascade", "cascade", 5.0)
        assert trust.estimate("b", "cascade", "cascade") == (5.0, 0.0)

    def test_own_outcomes_with_noise_are_drawn_towards_the_prior(self) -> None:
        trust = Trust()
        for cost in (1.0, 3.0):
            trust.observe("a", "x", "cascade", cost)
        # within: squares 2 over 1 + 4; between: 4 * 1^2 / 4 less within; shift: 3 - 1 seen once, times 1 / 11
        within = 2 / 5
        strength = within / (1 - within)
        expected = (strength * 1.0 + 2 * (2.0 + 2 / 11)) / (strength + 2)
        deviation = math.sqrt((1 - within) * strength / (strength + 2))
        assert trust.estimate("a", "x", "cascade") == (pytest.approx(expected), pytest.approx(deviation))

    def test_what_is_no_number_is_passed_over(self) -> None:
        trust = Trust()
        for cost in (math.nan, math.inf, -1.0, 1.1e12):
            trust.observe("a", "x", "cascade", cost)
        assert trust.estimate("a", "x", "cascade") == Estimate(math.inf, 0.0)

    def test_a_word_may_say_that_a_request_costs_less_than_the_mean(self) -> None:
        trust = Trust()
        for cost in (3.0, 1.0):
            trust.observe("a", "x", "cascade", cost)
        # within: squares 2 over 1 + 4; between: 4 * 3^2 / 4 less within; shift: 1 - 3 seen once, times 1 / 11
        within = 2 / 5
        strength = within / (9 - within)
        expected = (strength * 3.0 + 2 * (2.0 - 2 / 11)) / (strength + 2)
        assert trust.estimate("a", "x", "cascade").cost == pytest.approx(expected)

    def test_worth_is_the_least_bound_(self) -> None:
        trust = Trust()
        trust.observe("a", "large", "large", 5.0)
        trust.observe("b", "large", "large", 4.0)
        assert trust.worth("a", "large", ("large",)) == 5.0
        # no query went the cascade: it may cost nothing
        assert trust.worth("a", "large", WAYS) == 0.0


class TestChoose:
    def test_before_anything_is_known_the_word_is_followed(self) -> None:
        assert Trust().choose("q", "large", WAYS) == "large"
        assert Trust().choose("q", "cascade", WAYS) == "cascade"

    def test_without_a_selector_the_first(self) -> None:
        assert Trust().choose("q", None, WAYS) == "cascade"
        assert Trust().choose("q", None, ("only",)) == "only"

    def test_what_is_dear_is_left_once_the_other_may_pay(self) -> None:
        trust = Trust()
        trust.observe("other", "large", "large", 1.0)
        trust.observe("q", "cascade", "cascade", 100.0)
        assert trust.choose("q", "cascade", WAYS) == "large"

    def test_what_costs_the_least_possible_is_not_left(self) -> None:
        trust = Trust()
        trust.observe("other", "large", "large", 100.0)
        for _ in range(50):
            trust.observe("q", "cascade", "cascade", 1.0)
        assert trust.choose("q", "large", WAYS) == "cascade"

    def test_a_query_that_comes_often_pays_for_a_trial(self) -> None:
        trust = Trust()
        for query, cost in (("a", 1.0), ("b", 19.0)):
            trust.observe(query, "cascade", "cascade", cost)
        trust.observe("q", "large", "large", 3.0)
        assert trust.choose("q", "large", WAYS) == "large"
        for _ in range(5):
            trust.observe("q", "large", "large", 3.0)
        assert trust.choose("q", "large", WAYS) == "cascade"

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(WAYS), st.floats(0.0, 1e3)), max_size=60))
    def test_any_history_gives_a_way_and_a_worth(self, history: list[tuple[int, str, float]]) -> None:
        trust = Trust(most_queries=3)
        for query, word, cost in history:
            way = trust.choose(query, word, WAYS)
            assert way in WAYS
            trust.observe(query, word, way, cost)
            assert 0.0 <= trust.worth(query, word, WAYS) < math.inf


def world(accuracy: float, *, seed: int, repeats: int) -> tuple[float, float, float, float]:
    """What trust, the selector, the cascade and perfect choice pay: small 1, large 10, a failed cascade 21."""
    dice = random.Random(seed)
    trust, paid = Trust(), [0.0] * 4
    queries = [dice.random() < 0.5 for _ in range(3000 // repeats)]
    for number in range(3000):
        query = dice.randrange(len(queries)) if repeats > 1 else number
        costs = {"cascade": 1.0 if queries[query] else 21.0, "large": 10.0}
        best = min(WAYS, key=costs.__getitem__)
        word = best if dice.random() < accuracy else next(way for way in WAYS if way != best)
        way = trust.choose(query, word, WAYS)
        trust.observe(query, word, way, costs[way])
        for place, gone in enumerate((way, word, "cascade", best)):
            paid[place] += costs[gone]
    return paid[0], paid[1], paid[2], paid[3]


class TestWorlds:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.8, 1.0])
    def test_queries_that_come_again_are_known_soon(self, accuracy: float, seed: int) -> None:
        trust, selector, cascade, best = world(accuracy, seed=seed, repeats=100)
        assert trust <= 1.02 * min(selector, cascade)
        assert trust <= 1.03 * best

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.8, 0.95])
    def test_new_queries_by_what_the_word_was_worth(self, accuracy: float, seed: int) -> None:
        """A selector that is mostly wrong is as good as one that is mostly right; a coin is worth nothing."""
        trust, selector, cascade, _ = world(accuracy, seed=seed, repeats=1)
        by_word = world(1 - accuracy, seed=seed, repeats=1)[1]
        assert trust <= 1.03 * min(selector, cascade, by_word, 10.0 * 3000)
