from __future__ import annotations

import math
import statistics
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route.arms import ArmCosts, Running

COSTS = st.lists(st.floats(0.0, 1e6), min_size=2, max_size=40)


def seen(*costs: float, **options: float) -> ArmCosts:
    arms = ArmCosts(**options)  # type: ignore[arg-type]
    for cost in costs:
        arms.observe("q", "a", cost)
    return arms


class TestRunning:
    @given(COSTS)
    def test_it_agrees_with_the_textbook(self, costs: list[float]) -> None:
        running = Running()
        grown = sum(running.add(cost) for cost in costs)
        assert running.mean == pytest.approx(statistics.fmean(costs), abs=1e-6)
        assert running.squares == pytest.approx(grown)
        assert running.squares / (len(costs) - 1) == pytest.approx(statistics.variance(costs), rel=1e-6, abs=1e-3)

    def test_a_prior_counts_as_four_observations(self) -> None:
        running = Running()
        assert running.variance(2.0) == 2.0
        for value in (1.0, 3.0):
            running.add(value)
        assert running.variance(7.0) == pytest.approx((2.0 + 4 * 7.0) / 5)


class TestLower:
    def test_the_bound_of_the_paper(self) -> None:
        arms = seen(*[10.0] * 4, scale=2.0)
        # no deviation was seen in 3 degrees of freedom: pooled 4 * 2^2 / (3 + 4), own 4 * pooled / (3 + 4)
        pooled = 16 / 7
        assert arms.variance == pytest.approx(pooled)
        assert arms.lower("q", "a") == pytest.approx(10 - math.sqrt(4 * pooled / 7) * math.sqrt(1 / 4))

    def test_many_queries_make_it_looser(self) -> None:
        arms = seen(10.0, scale=2.0)
        bound = arms.lower("q", "a")
        for other in range(3):
            arms.observe(other, "a", 10.0)
        assert bound == pytest.approx(8.0)
        assert arms.lower("q", "a") == pytest.approx(10.0 - 2.0 * math.sqrt(4 / 1))

    def test_the_floor_holds_and_stands_for_what_was_not_seen(self) -> None:
        arms = seen(1.0, floor=0.5, scale=3.0)
        assert arms.lower("q", "a") == 0.5
        assert arms.lower("q", "b") == arms.lower("other", "a") == 0.5
        assert (arms.mean("q", "b"), arms.knows("q"), arms.knows("other")) == (None, True, False)

    def test_the_floor_may_be_a_share_of_the_mean(self) -> None:
        assert seen(8.0, floor_share=0.5, scale=100.0).lower("q", "a") == 4.0

    def test_the_prior_may_be_a_share_of_all_costs(self) -> None:
        arms = seen(4.0, scale_share=0.5)
        arms.observe("q", "b", 8.0)
        assert arms.variance == pytest.approx((0.5 * 6.0) ** 2)

    @given(COSTS, st.floats(0.0, 10.0), st.floats(0.0, 100.0))
    def test_it_lies_between_floor_and_mean(self, costs: list[float], floor: float, scale: float) -> None:
        arms = seen(*costs, floor=floor, scale=scale)
        mean = arms.mean("q", "a")
        assert mean is not None
        assert floor <= arms.lower("q", "a") <= max(mean, floor) + 1e-6

    def test_what_is_no_number_is_passed_over(self) -> None:
        arms = seen(1.0, math.nan, math.inf, -math.inf, -1.0, 1.1e12, 3.0)
        assert (arms.mean("q", "a"), arms.seen("q", "a").count) == (2.0, 2)

    def test_differences_may_be_negative(self) -> None:
        assert seen(-3.0, 1.0, -1.1e12, least=-1e12).mean("q", "a") == -1.0


class TestChoose:
    def test_what_was_not_seen_is_tried_and_then_the_least_bound(self) -> None:
        arms = seen(5.0)
        assert arms.choose("q", ("a", "b")) == "b"
        arms.observe("q", "b", 7.0)
        assert arms.choose("q", ("a", "b")) == "a"
        assert arms.choose("q", ("b",)) == "b"

    def test_of_equals_the_first(self) -> None:
        assert ArmCosts().choose("q", ("x", "y")) == "x"

    def test_the_more_uncertain_of_two_alike(self) -> None:
        arms = seen(*[5.0] * 9, scale=2.0)
        arms.observe("q", "b", 5.1)
        assert arms.choose("q", ("a", "b")) == "b"


class TestMemory:
    def test_what_was_observed_the_longest_ago_goes(self) -> None:
        arms = ArmCosts(most_arms=2)
        for query in ("one", "two", "one", "three"):
            arms.observe(query, "a", 1.0)
        assert [arms.knows(query) for query in ("one", "two", "three")] == [True, False, True]
        assert len(arms) == 2

    def test_a_query_is_known_as_long_as_one_of_its_arms(self) -> None:
        arms = ArmCosts(most_arms=2)
        arms.observe("q", "a", 1.0)
        arms.observe("q", "b", 1.0)
        arms.observe("r", "a", 1.0)
        assert arms.knows("q")
        assert arms.mean("q", "a") is None

    @given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.0, 100.0)), max_size=60))
    def test_the_pool_is_that_of_the_arms_that_are_left(self, history: list[tuple[int, float]]) -> None:
        arms = ArmCosts(most_arms=3)
        for query, cost in history:
            arms.observe(query, "a", cost)
        left = [arms.seen(query, "a") for query in range(10)]
        squares = sum(running.squares for running in left)
        freedom = sum(running.count - 1 for running in left if running.count)
        assert arms.variance == pytest.approx(squares / (freedom + 4), abs=1e-6)

    def test_the_newest_count(self) -> None:
        arms = seen(*[1.0] * 5000)
        for _ in range(1100):
            arms.observe("q", "a", 9.0)
        mean = arms.mean("q", "a")
        assert mean is not None
        assert mean > 5.0, "of all observations it would be 2.4"
        assert arms.seen("q", "a").count < 1024

    def test_threads(self) -> None:
        arms = ArmCosts(most_arms=50)

        def work(start: int) -> None:
            for number in range(2000):
                arms.observe((start + number) % 80, "a", float(number % 7))

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(arms) == 50
        assert math.isfinite(arms.variance)
