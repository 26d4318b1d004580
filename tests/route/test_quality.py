from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import RouterError
from llm_proxy.route.base import Expected, Prediction
from llm_proxy.route.costs import Estimate
from llm_proxy.route.quality import Terms, choose, least_good, lifted, needed, predictions_for

INF = math.inf


def estimate(usd: float, latency_s: float = 1.0) -> Estimate:
    expected = None if usd == INF else Expected(usd, 0.0)
    return Estimate(expected, 100.0, latency_s, usd, latency_s)


def estimates(*usd: float) -> list[Estimate]:
    return [estimate(one) for one in usd]


class TestGoodEnough:
    @pytest.mark.parametrize(
        ("p_good", "quality", "expected"),
        [
            ([0.5, 0.9, 0.95], 0.95, (2,)),
            ([0.5, 0.91, 0.95], 0.95, (1, 2)),
            ([0.5, 0.9, 0.95], 0.5, (0, 1, 2)),
            ([0.9, 0.3, 0.9], 1.0, (0, 2)),
            ([0.0, 0.0], 0.95, (0, 1)),
            ([0.3], 1.0, (0,)),
        ],
    )
    def test_by_a_share_of_the_best(self, p_good: list[float], quality: float, expected: tuple[int, ...]) -> None:
        least = least_good(quality, p_good)
        assert tuple(place for place, p in enumerate(p_good) if p >= least) == expected

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 1))
    def test_the_best_always_is_and_the_weakest_by_what_is_needed(self, p_good: list[float], quality: float) -> None:
        least = least_good(quality, p_good)
        assert max(p_good) >= least
        assert 0.0 <= needed(p_good) <= 1.0
        if abs(1.0 - quality - needed(p_good)) > 1e-9:
            assert (p_good[0] >= least) is (needed(p_good) < 1.0 - quality)

    def test_where_nobody_is_any_good_nothing_is_needed(self) -> None:
        assert needed([0.0, 0.0]) == 0.0


class TestByCost:
    @pytest.mark.parametrize(
        ("usd", "current", "expected"),
        [
            ([3.0, 2.0, 1.0], None, 2),
            ([1.0, 1.0, 2.0], None, 0),
            ([1.0, 1.0, 2.0], 1, 1),
            ([1.0, 1.0, 2.0], 2, 0),
            ([INF, 5.0], None, 1),
            ([INF, INF], None, 0),
            ([INF, INF], 1, 1),
            ([0.0, INF], 1, 0),
        ],
    )
    def test_the_cheapest_then_the_current_then_the_first(
        self, usd: list[float], current: int | None, expected: int
    ) -> None:
        verdict = choose(estimates(*usd), Terms(), current=current)
        assert (verdict.place, verdict.rivals, verdict.why) == (expected, tuple(range(len(usd))), "cheapest")

    def test_a_probability_changes_nothing_among_those_that_are_good_enough(self) -> None:
        assert choose(estimates(1.0, 2.0), Terms(), p_good=[0.95, 1.0]).place == 0


class TestForgone:
    @pytest.mark.parametrize(
        ("forgone", "expected"), [((), 0), ((0.0, 0.9), 0), ((0.0, 1.1), 1), ((0.0, 99.0), 1), ((9.0, 1.1), 1)]
    )
    def test_what_was_forgone_pays_for_reading_a_conversation_again(
        self, forgone: tuple[float, ...], expected: int
    ) -> None:
        known = [estimate(3.0), estimate(4.0)._replace(reread_usd=2.0)]
        assert choose(known, Terms(), forgone=forgone).place == expected

    def test_but_for_no_more_than_that(self) -> None:
        known = [estimate(1.0), estimate(4.0)._replace(reread_usd=2.0)]
        assert choose(known, Terms(), forgone=(0.0, 99.0)).place == 0


class TestByLatency:
    def test_the_fastest_of_equals_the_cheaper(self) -> None:
        known = [estimate(1.0, 3.0), estimate(9.0, 1.0), estimate(2.0, 1.0), estimate(2.0, 1.0)]
        verdict = choose(known, Terms(objective="latency"))
        assert (verdict.place, verdict.why) == (2, "fastest")
        assert choose(known, Terms(objective="latency"), current=3).place == 3

    def test_asking_again_would_ask_the_same(self) -> None:
        """A cheaper but slower one would not be asked: it says nothing of what the answer is worth."""
        verdict = choose([estimate(1.0, 3.0), estimate(9.0, 1.0)], Terms(objective="latency"))
        assert verdict.rivals == (1,)


class TestByWorth:
    @pytest.mark.parametrize(
        ("worth", "expected"),
        [(0.001, 0), (0.01, 1), (0.1, 2)],
    )
    def test_the_most_is_made_of_it(self, worth: float, expected: int) -> None:
        # .5 at 0, .8 at .001, .9 at .004 dollars: worth it from .0033 and .03 dollars a good answer on
        verdict = choose(estimates(0.0, 0.001, 0.004), Terms(usd_per_good_answer=worth), p_good=[0.5, 0.8, 0.9])
        assert (verdict.place, verdict.why) == (expected, "worth the most")

    def test_rivals_are_those_that_are_no_worse(self) -> None:
        verdict = choose(estimates(0.0, 0.002, 0.001), Terms(usd_per_good_answer=0.05), p_good=[0.5, 0.9, 0.8])
        assert (verdict.place, verdict.rivals) == (1, (1,))
        verdict = choose(estimates(0.0, 0.2, 0.001), Terms(usd_per_good_answer=0.05), p_good=[0.5, 0.9, 0.8])
        assert (verdict.place, verdict.rivals) == (2, (1, 2))

    def test_without_any_price_the_best(self) -> None:
        assert choose(estimates(INF, INF), Terms(usd_per_good_answer=0.05), p_good=[0.5, 0.6]).place == 1

    def test_an_unknown_price_beside_known_ones_is_never_worth_it(self) -> None:
        assert choose(estimates(INF, 3.0), Terms(usd_per_good_answer=0.05), p_good=[1.0, 0.1]).place == 1

    def test_without_a_head_it_has_no_effect(self) -> None:
        assert choose(estimates(2.0, 1.0), Terms(usd_per_good_answer=0.05)).why == "cheapest"

    def test_of_equals_the_cheaper(self) -> None:
        assert choose(estimates(0.5, 0.25), Terms(usd_per_good_answer=1.0), p_good=[1.0, 0.75]).place == 1


class TestPredictions:
    def test_in_the_order_of_the_candidates(self) -> None:
        said = {"a": Prediction(0.1), "b": Prediction(1.0, 5.0), "c": Prediction(0.0)}
        assert predictions_for(["b", "a"], said) == (Prediction(1.0, 5.0), Prediction(0.1))

    @pytest.mark.parametrize(
        "wrong",
        [
            Prediction(math.nan),
            Prediction(math.inf),
            Prediction(1.0001),
            Prediction(-0.1),
            Prediction(0.5, math.nan),
            Prediction(0.5, math.inf),
            Prediction(0.5, 0.0),
            Prediction(0.5, -3.0),
        ],
    )
    def test_what_is_no_probability_or_no_length(self, wrong: Prediction) -> None:
        with pytest.raises(RouterError, match="head 'h' gives 'a' p_good="):
            predictions_for(["b", "a"], {"a": wrong, "b": Prediction(0.5)}, head="h")

    def test_one_that_is_missing(self) -> None:
        with pytest.raises(RouterError, match="head 'h' says nothing of 'a'"):
            predictions_for(["b", "a"], {"b": Prediction(0.5)}, head="h")


class TestLifted:
    def test_by_no_more_than_to_the_best_without(self) -> None:
        pairs = (("a", "x"), ("b", "y"), ("c", "z"))
        said = (Prediction(0.2, 5.0), Prediction(0.5), Prediction(0.9))
        found = lifted(said, pairs, {("a", "x"): 0.8, ("b", "y"): 0.3, ("c", "z"): 0.5})
        assert [one.p_good for one in found] == pytest.approx([0.72, 0.5, 0.9])
        assert found[0].completion_tokens == 5.0
        assert lifted(said, pairs, {}) is said
