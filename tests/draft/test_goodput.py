"""How much is drafted: against every length tried out, under load, while acceptance drifts, and within its price."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.draft.goodput import FREE, Goodput, Price, Way, expected_tokens

WAY = Way("big", "m", "verified")
MOST = 10


def taught(
    acceptance: float, step_s: tuple[float, float], token_s: float, *, load: int = 1, most: int = MOST, **more: float
) -> Goodput:
    """A controller that has seen plain calls, and steps of all lengths with this share kept."""
    goodput = Goodput(most=most, **more)
    for tokens in (10, 50, 100):
        goodput.finished(WAY, tokens, 0.1 + token_s * tokens, load=load)
    for length in range(1, most + 1):
        goodput.took(WAY, length, step_s[0] + step_s[1] * length, load=load)
    for _ in range(200):
        goodput.saw(WAY, kept=round(20 * acceptance), missed=round(20 * (1 - acceptance)))
    return goodput


def simulated_rate(acceptance: float, step_s: float, length: int, rng: random.Random) -> float:
    """Tokens a second of so many steps, drawn one token at a time."""
    tokens, steps = 0, 20_000
    for _ in range(steps):
        kept = 0
        while kept < length and rng.random() < acceptance:
            kept += 1
        tokens += kept + 1
    return tokens / (steps * step_s)


class TestFormula:
    @pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.8, 0.95])
    def test_expected_tokens_are_those_of_a_simulation(self, acceptance: float) -> None:
        rate = simulated_rate(acceptance, 1.0, 5, random.Random(1))
        assert rate == pytest.approx(expected_tokens(acceptance, 5), rel=0.02)

    def test_all_are_kept(self) -> None:
        assert expected_tokens(1.0, 7) == 8.0


class TestLength:
    @given(
        acceptance=st.floats(0.01, 0.99),
        start_s=st.floats(0.001, 0.2),
        slope_s=st.floats(0.0001, 0.05),
        token_s=st.floats(0.005, 0.1),
    )
    def test_it_is_that_of_an_exhaustive_search(
        self, acceptance: float, start_s: float, slope_s: float, token_s: float
    ) -> None:
        goodput = taught(acceptance, (start_s, slope_s), token_s)
        known = goodput.acceptance(WAY)
        rates = [1.05 / token_s]
        rates += [expected_tokens(known, length) / (start_s + slope_s * length) for length in range(1, MOST + 1)]
        chosen = goodput.length(WAY)
        assert rates[chosen] == pytest.approx(max(rates), rel=1e-3)

    def test_nothing_is_drafted_while_nothing_is_known(self) -> None:
        assert Goodput().begin(WAY) == 0
        assert Goodput().length(WAY) == 0
        assert Goodput().acceptance(WAY) == 0.5

    def test_a_single_length_is_taken_for_as_long_below_and_in_proportion_above(self) -> None:
        goodput = taught(0.9, (0.0, 0.0), 0.1, most=1)
        wide = Goodput(most=MOST)
        for tokens in (10, 50):
            wide.finished(WAY, tokens, 0.1 * tokens)
        wide.took(WAY, 4, 0.1)
        for _ in range(50):
            wide.saw(WAY, kept=9, missed=1)
        assert goodput.length(WAY) == 1
        assert wide.length(WAY) == 2, "half of the best, to find out what a token takes"
        wide.took(WAY, 2, 0.09)
        assert wide.length(WAY) > 4

    def test_a_busy_server_is_given_less(self) -> None:
        goodput = taught(0.7, (0.02, 0.001), 0.03)
        for length in range(1, MOST + 1):
            goodput.took(WAY, length, 0.02 + 0.05 * length, load=32)
        for tokens in (10, 50):
            goodput.finished(WAY, tokens, 0.04 * tokens, load=32)
        assert goodput.length(WAY, load=32) < goodput.length(WAY)

    def test_at_a_load_that_was_never_measured_nothing_is_drafted(self) -> None:
        goodput = taught(0.9, (0.02, 0.001), 0.03)
        assert goodput.length(WAY, load=1) > 0
        assert goodput.length(WAY, load=64) == 0

    def test_ways_are_learnt_of_apart(self) -> None:
        goodput = taught(0.9, (0.02, 0.001), 0.03)
        assert goodput.length(WAY._replace(kind="code")) == 0

    def test_times_that_fall_with_length_are_no_line(self) -> None:
        goodput = Goodput(most=4)
        goodput.finished(WAY, 10, 1.0)
        goodput.took(WAY, 1, 0.3)
        goodput.took(WAY, 4, 0.1)
        goodput.saw(WAY, kept=99, missed=1)
        assert goodput.length(WAY) == 4

    def test_times_steeper_than_in_proportion_begin_at_nothing(self) -> None:
        goodput = Goodput(most=4)
        goodput.finished(WAY, 10, 10.0)
        goodput.took(WAY, 1, 0.001)
        goodput.took(WAY, 4, 4.0)
        goodput.saw(WAY, kept=99, missed=1)
        assert goodput.length(WAY) == 1, "each token takes the same, so the first is the best"

    def test_memory_is_bounded(self) -> None:
        goodput = Goodput()
        for number in range(3000):
            goodput.saw(WAY._replace(kind=str(number)), kept=1, missed=0)
        assert len(goodput._known) == 1024


class TestTrials:
    def dull(self, **more: float) -> Goodput:
        return taught(0.0, (0.05, 0.01), 0.03, **more)

    def test_they_become_rare_where_nothing_comes_of_them(self) -> None:
        goodput = self.dull()
        tried = [at for at in range(2000) if goodput.begin(WAY)]
        assert tried[:4] == [0, 8, 24, 56], "twice as far apart each time"
        assert {later - earlier for earlier, later in itertools.pairwise(tried[4:])} == {64}

    def test_loads_are_not_tried_one_right_after_the_other(self) -> None:
        goodput = self.dull()
        assert [goodput.begin(WAY, load=load) for load in (1, 8, 32, 64)] == [6, 0, 0, 0]

    def test_both_lengths_are_tried(self) -> None:
        goodput = self.dull()
        assert {goodput.begin(WAY) for _ in range(100)} == {0, 3, 6}

    def test_none_before_plain_calls_were_seen(self) -> None:
        goodput = Goodput()
        goodput.finished(WAY, 10, 1.0)
        goodput.finished(WAY, 10, 1.0)
        assert not any(goodput.begin(WAY) for _ in range(100))

    def test_acceptance_that_rises_is_found_out(self) -> None:
        goodput, found = self.dull(), None
        for call in range(1000):
            length = goodput.begin(WAY)
            if length:
                goodput.saw(WAY, kept=length, missed=0)
                goodput.took(WAY, length, 0.05 + 0.01 * length)
            if goodput.length(WAY):
                found = call
                break
        assert found is not None
        assert found <= 128
        assert goodput.begin(WAY) > 0

    def test_acceptance_that_falls_stops_it(self) -> None:
        goodput, steps = taught(0.9, (0.05, 0.002), 0.03), 0
        while goodput.begin(WAY) and steps < 1000:
            goodput.saw(WAY, kept=0, missed=1)
            steps += 1
        assert steps <= 150

    def test_calls_that_took_longer_than_plain_ones_stop_it_whatever_the_model_says(self) -> None:
        goodput = taught(0.9, (0.02, 0.001), 0.03)
        for _ in range(2):
            assert goodput.begin(WAY) > 0
            goodput.finished(WAY, 50, 2.0, is_drafted=True)  # plain: 1.6 s
        assert [goodput.begin(WAY) for _ in range(4)] == [0, 0, 0, 6], "only a trial"
        for _ in range(4):
            goodput.finished(WAY, 50, 0.8, is_drafted=True)
        assert goodput.begin(WAY) > 6

    def test_a_drafted_call_before_any_plain_one_is_nothing_to_compare(self) -> None:
        goodput = Goodput()
        goodput.finished(WAY, 50, 2.0, is_drafted=True)
        assert goodput._known[WAY].drafted == 0


class TestPrice:
    def test_what_costs_too_much_is_not_drafted(self) -> None:
        goodput = taught(0.9, (0.02, 0.001), 0.03)
        cheap = Price(step=0.0001, token=0.0, tokens=100)
        dear = Price(step=0.5, token=0.0, tokens=100)
        assert goodput.length(WAY, price=cheap) == goodput.length(WAY, price=FREE) > 0
        assert goodput.length(WAY, price=dear) == 0

    def test_the_length_is_that_of_most_goodput_within_the_price(self) -> None:
        goodput = taught(0.5, (0.02, 0.0001), 0.03)
        price = Price(step=0.0, token=0.002, tokens=100)
        chosen = goodput.length(WAY, price=price)
        assert 0 < chosen < goodput.length(WAY)
        assert price.share(goodput.acceptance(WAY), chosen) <= 0.25
        assert price.share(goodput.acceptance(WAY), chosen + 1) > 0.25

    def test_no_trial_costs_more_than_is_allowed(self) -> None:
        goodput = taught(0.0, (0.05, 0.01), 0.03)
        dear = Price(step=0.3, token=0.0, tokens=100)
        assert not any(goodput.begin(WAY, price=dear) for _ in range(200))

    def test_where_nothing_may_be_added_only_what_is_free_is_drafted(self) -> None:
        goodput = taught(0.9, (0.02, 0.001), 0.03, max_extra_cost=0.0)
        assert goodput.length(WAY) > 0
        assert goodput.length(WAY, price=Price(1e-6, 0.0, 100)) == 0


def test_it_says_what_it_reckons_with() -> None:
    goodput = taught(0.8, (0.02, 0.001), 0.03)
    length, acceptance = goodput.chosen(WAY)
    assert (length, acceptance) == (goodput.length(WAY), pytest.approx(0.8, abs=0.01))


def test_it_counts_what_comes_between_plain_answers() -> None:
    goodput = taught(0.9, (0.02, 0.001), 0.03)
    before = goodput.steps("big")
    goodput.begin(WAY)
    goodput.took(WAY, 4, 0.1)
    assert goodput.steps("big") == before + 2
    assert goodput.steps("other") == 0
