from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.backends.prices import Prices
from llm_proxy.config import Config
from llm_proxy.route.base import Expected, Finished
from llm_proxy.route.costs import PRIOR_COMPLETION_TOKENS, PRIOR_LATENCY_S, Asked, CostEstimator
from llm_proxy.route.quality import Terms, choose

PRICES = {
    "big": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 100.0},
    "mid": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 100.0},
    "small": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0},
}
BACKENDS: Any = {
    "cloud": {"base_url": "https://cloud.test/v1", "prices": PRICES, "usd_per_second": 0.001},
    "free": {"base_url": "http://localhost:1/v1"},
    "slow": {"base_url": "http://localhost:2/v1", "usd_per_second": 0.01},
    "dark": {"base_url": "https://dark.test/v1"},
}
BIG, SMALL, FREE, DARK = ("cloud", "big"), ("cloud", "small"), ("free", "any"), ("dark", "any")


def estimator(*calls: Finished) -> CostEstimator:
    costs = CostEstimator(Prices(Config(backends=BACKENDS).backends))
    costs.observe_all(calls)
    return costs


def call(
    model: str = "big", *, prompt: int = 100, completion: int = 50, latency_s: float = 2.0, backend: str = "cloud"
) -> Finished:
    return Finished(backend, model, prompt, completion, latency_s)


def steady(count: int, **fields: Any) -> list[Finished]:
    return [call(**fields)] * count


class Choice(NamedTuple):
    place: int
    expected: Expected | None
    is_trial: bool


def cheapest(costs: CostEstimator, candidates: Any, prompt_tokens: int) -> Choice:
    """The choice that a route makes by cost alone."""
    asked = [Asked(*candidate) for candidate in candidates]
    verdict, estimates = costs.choose(asked, prompt_tokens, lambda found: choose(found, Terms()))
    estimate = estimates[verdict.place]
    return Choice(verdict.place, estimate.expected, estimate.is_on_trial)


class TestExpected:
    def test_an_unknown_model_by_the_prior(self) -> None:
        found = estimator().expected(*BIG, 100)
        assert found is not None
        assert found.cost_usd == pytest.approx((100 * 10 + PRIOR_COMPLETION_TOKENS * 100) / 1e6)
        assert found.wait_usd == pytest.approx(PRIOR_LATENCY_S * 0.001)
        assert found.usd == pytest.approx(found.cost_usd + found.wait_usd)

    def test_a_model_that_was_seen_by_its_bucket(self) -> None:
        """No spread in 2 x 199 degrees of freedom: the bound is the mean, but for the prior's small rest."""
        costs = estimator(*steady(200))
        found = costs.expected(*BIG, 100)
        assert found is not None
        # all = any prompt + one bucket: pooled = 4 * 50^2 / (398 + 4), own = 4 * pooled / (199 + 4), 2 queries
        scale = (4 * (4 * 50**2 / 402) / 203) ** 0.5
        tokens = round(50 - scale * (2 / 200) ** 0.5)
        assert found.cost_usd == pytest.approx((100 * 10 + tokens * 100) / 1e6)
        assert tokens == 50

    def test_long_prompts_have_answers_of_their_own(self) -> None:
        costs = estimator(*steady(50, completion=10), *steady(50, prompt=4000, completion=900))
        short, long = costs.expected(*BIG, 100), costs.expected(*BIG, 4000)
        assert short is not None
        assert long is not None
        assert short.cost_usd < (100 * 10 + 11 * 100) / 1e6
        assert long.cost_usd > (4000 * 10 + 700 * 100) / 1e6

    def test_a_prompt_of_new_length_by_the_model(self) -> None:
        found = estimator(*steady(50, completion=1000)).expected(*BIG, 100_000)
        assert found is not None
        assert found.cost_usd > (100_000 * 10 + 800 * 100) / 1e6

    def test_two_calls_say_nothing_yet_and_three_do(self) -> None:
        two, three = estimator(*steady(2, completion=2)), estimator(*steady(3, completion=2))
        assert two.expected(*BIG, 100) == estimator().expected(*BIG, 100) != three.expected(*BIG, 100)

    @pytest.mark.parametrize("answered", ["big-2026-01-31", "big-20260131", "big@20260131", "big-0613", "big-latest"])
    def test_a_dated_snapshot_is_the_model(self, answered: str) -> None:
        assert estimator(*steady(9, model=answered)).expected(*BIG, 100) == estimator(*steady(9)).expected(*BIG, 100)

    def test_another_model_or_backend_is_not(self) -> None:
        costs = estimator(*steady(9, model="bigger"), *steady(9, backend="slow"))
        assert costs.expected(*BIG, 100) == estimator().expected(*BIG, 100)

    def test_no_price(self) -> None:
        assert estimator().expected(*DARK, 100) is None
        assert estimator().expected("", "gpt-4o-mini", 100, base_url="https://api.openai.com/v1") is not None

    @given(st.lists(st.integers(0, 10_000), min_size=3, max_size=50), st.integers(0, 100_000))
    def test_it_is_never_above_the_mean_nor_below_half_of_it(self, lengths: list[int], prompt: int) -> None:
        costs = estimator(*(call(prompt=prompt, completion=length) for length in lengths))
        found = costs.expected(*BIG, prompt)
        assert found is not None
        tokens = (found.cost_usd * 1e6 - prompt * 10) / 100
        mean = sum(lengths) / len(lengths)
        assert mean / 2 - 1 <= tokens <= mean + 1


class TestCheapest:
    def test_the_least_expected_cost(self) -> None:
        costs = estimator(*steady(9), *steady(9, model="small"))
        assert cheapest(costs, [BIG, SMALL], 100) == (1, costs.expected(*SMALL, 100), False)

    def test_of_equals_the_first(self) -> None:
        for costs in (estimator(), estimator(*steady(9), *steady(9, model="mid"))):
            assert cheapest(costs, [("cloud", "mid"), BIG], 100).place == 0

    def test_a_terse_model_may_be_cheaper_than_a_cheap_one(self) -> None:
        costs = estimator(*steady(50, completion=2, prompt=10), *steady(50, model="small", completion=2000, prompt=10))
        assert cheapest(costs, [SMALL, BIG], 10).place == 1

    def test_time_counts_where_it_is_worth_something(self) -> None:
        costs = estimator(*steady(9, model="any", backend="slow"), *steady(9, model="small"))
        assert cheapest(costs, [("slow", "any"), SMALL], 10).place == 1

    def test_an_unknown_price_goes_last_and_is_not_tried(self) -> None:
        costs = estimator()
        assert cheapest(costs, [DARK, BIG], 10).place == 1
        assert cheapest(costs, [DARK, ("dark", "other")], 10) == (0, None, False)

    def test_the_only_one_is_no_trial(self) -> None:
        costs = estimator()
        assert cheapest(costs, [BIG], 10) == (0, costs.expected(*BIG, 10), False)


class TestTrial:
    """`small` was seen to take 1,000 tokens, .0041 dollars; `big` costs .001 for the prompt, and by the prior .031."""

    def seen(self) -> CostEstimator:
        return estimator(*steady(50, model="small", completion=1000))

    def test_a_model_that_was_never_seen_is_tried_and_kept_when_it_is_terse(self) -> None:
        costs = self.seen()
        prior = costs.expected(*BIG, 100)
        assert prior is not None
        assert prior.cost_usd == pytest.approx(0.031)
        for _ in range(3):
            assert cheapest(costs, [SMALL, BIG], 100) == (1, prior, True)
            costs.observe(call(completion=2))
        place, expected, is_trial = cheapest(costs, [SMALL, BIG], 100)
        assert (place, is_trial) == (1, False)
        assert expected is not None
        assert expected.cost_usd < 0.0013

    def test_it_is_left_when_it_is_not(self) -> None:
        costs, places = self.seen(), []
        for _ in range(20):
            places.append(cheapest(costs, [SMALL, BIG], 100).place)
            if places[-1]:
                costs.observe(call(completion=500))
        assert places == [1] * 3 + [0] * 17

    def test_three_times_even_when_nothing_comes_of_it(self) -> None:
        """It may fail, or not say what it took, or many may ask before the first answer is there."""
        costs = self.seen()
        assert [cheapest(costs, [SMALL, BIG], 100).place for _ in range(20)] == [1] * 3 + [0] * 17

    def test_not_where_the_prompt_alone_costs_more(self) -> None:
        costs = estimator(*steady(50, model="small", completion=10, prompt=4000))
        assert cheapest(costs, [SMALL, BIG], 4000).place == 0

    def test_what_was_seen_before_counts(self) -> None:
        costs = self.seen()
        costs.observe_all(steady(2, completion=500))
        assert [cheapest(costs, [SMALL, BIG], 100).is_trial for _ in range(4)] == [True] * 3 + [False]
        costs = self.seen()
        costs.observe_all(steady(3, completion=500))
        assert not cheapest(costs, [SMALL, BIG], 100).is_trial

    def test_what_an_answer_is_worth_keeps_to_the_prior(self) -> None:
        costs = self.seen()
        assert costs.again(call(), 9.0, [("cloud", "mid")]) == costs.expected("cloud", "mid", 100)

    def test_names_without_end_are_cut(self) -> None:
        costs = estimator(*steady(9, model="m" * 100_000))
        assert costs._tokens.seen(-1, ("cloud", "m" * 200)).count == 9


class TestAgain:
    def test_a_named_model_costs_what_it_did(self) -> None:
        costs = estimator(*steady(50, completion=9))
        assert costs.again(call(completion=400, latency_s=3.0), 0.25) == Expected(0.25, 0.003)
        assert costs.again(call(), None) == Expected(0.0, 0.002)

    def test_a_cheaper_candidate_that_is_good_enough_would_be_asked(self) -> None:
        costs = estimator()
        assert costs.again(call(), 0.25, [SMALL]) == costs.expected(*SMALL, 100)
        assert costs.again(call(), 0.25, [FREE, SMALL]).cost_usd == 0.0

    def test_a_dearer_one_would_not(self) -> None:
        assert estimator().again(call("small"), 0.0001, [BIG]) == Expected(0.0001, 0.002)

    def test_a_long_answer_is_long_at_another_model_too(self) -> None:
        costs = estimator(*steady(400, completion=100), *steady(400, model="small", completion=50))
        usual, twice = (costs.again(call(completion=tokens), 9.0, [SMALL]).cost_usd for tokens in (100, 200))
        assert (usual * 1e6 - 100) / 4 == pytest.approx(50, abs=1)
        assert (twice * 1e6 - 100) / 4 == pytest.approx(100, abs=2)

    def test_but_never_more_than_four_times(self) -> None:
        costs = estimator(*steady(400, completion=10), *steady(400, model="small", completion=50))
        assert (costs.again(call(completion=10_000), 9.0, [SMALL]).cost_usd * 1e6 - 100) / 4 == pytest.approx(
            200, abs=4
        )

    def test_a_model_that_never_says_anything(self) -> None:
        costs = estimator(*steady(9, completion=0))
        assert costs.again(call(completion=0), 9.0, [SMALL]) == costs.expected(*SMALL, 100)

    def test_without_a_price(self) -> None:
        costs = estimator()
        assert costs.again(call(), None, [SMALL]) == costs.expected(*SMALL, 100)
        assert costs.again(call(), None, [DARK]) == Expected(0.0, 0.002)


def test_memory_is_bounded() -> None:
    costs = estimator()
    for number in range(20_000):
        costs.observe(call(f"m{number}"))
    assert len(costs._tokens) == len(costs._latency_s) == 16_384
