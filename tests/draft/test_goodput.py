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


class TestOthersUnderWay:
    """A server whose passes take longer the more tokens all calls have in them, up to some room."""

    def taught(self, load: int, room: int, acceptance: float = 0.8, drafting_s: float = 0.0) -> Goodput:
        goodput = Goodput(most=MOST)
        for tokens in (10, 50, 100):
            goodput.finished(WAY, tokens, 0.05 + 0.1 * tokens, load=load)
        for length in (4, 2) * 3:
            seconds = 0.05 + 0.1 * max(1.0, (load + length) / room)
            goodput.took(WAY, length, seconds + drafting_s * length, load=load, drafting_s=drafting_s * length)
        goodput.saw(WAY, kept=round(100 * acceptance), missed=round(100 * (1 - acceptance)))
        return goodput

    @pytest.mark.parametrize("load", [4, 8, 31])
    def test_a_server_without_room_is_not_drafted_for(self, load: int) -> None:
        goodput = self.taught(load, room=load)
        assert goodput.length(WAY, load=load) == 0
        assert expected_tokens(0.8, 4) / (0.05 + 0.1 * (load + 4) / load) > 10.5, "though it pays for the call itself"

    @pytest.mark.parametrize("load", [2, 8, 31])
    def test_one_with_room_is_drafted_for_as_when_it_is_idle(self, load: int) -> None:
        assert self.taught(load, room=64).length(WAY, load=load) == self.taught(1, room=64).length(WAY) > 2

    @given(
        load=st.integers(2, 40),
        acceptance=st.floats(0.05, 0.99),
        fixed_s=st.floats(0.001, 0.2),
        token_s=st.floats(0.00001, 0.02),
    )
    def test_the_length_is_the_one_that_brings_all_calls_together_most(
        self, load: int, acceptance: float, fixed_s: float, token_s: float
    ) -> None:
        goodput = Goodput(most=MOST)
        for tokens in (10, 50):
            goodput.finished(WAY, tokens, (fixed_s + token_s * load) * tokens, load=load)
        for length in (2, 6) * 3:
            goodput.took(WAY, length, fixed_s + token_s * (load + length), load=load)
        goodput.saw(WAY, kept=round(1000 * acceptance), missed=round(1000 * (1 - acceptance)))
        known = goodput.acceptance(WAY)
        rates = [
            load * expected_tokens(known, length) / (fixed_s + token_s * load * (length + 1))
            for length in range(MOST + 1)
        ]
        rates[0] *= 1.05
        assert rates[goodput.length(WAY, load=load)] == pytest.approx(max(rates), rel=1e-3)

    def test_nobody_else_waits_for_the_drafting(self) -> None:
        goodput = self.taught(8, room=64, drafting_s=0.004)
        alone = self.taught(1, room=64, drafting_s=0.004)
        assert goodput.length(WAY, load=8) == alone.length(WAY) > 2

    @pytest.mark.parametrize("room", [8, 64])
    def test_a_trial_goes_on_in_short_steps_until_it_can_be_told_what_others_wait(self, room: int) -> None:
        goodput, tried = Goodput(most=MOST), list[int]()
        for tokens in (10, 50, 100):
            goodput.finished(WAY, tokens, 0.05 + 0.1 * tokens, load=8)
        length = goodput.begin(WAY, load=8)
        while length and len(tried) < 10:
            tried.append(length)
            goodput.saw(WAY, kept=length, missed=0)
            goodput.took(WAY, length, 0.05 + 0.1 * max(1.0, (8 + length) / room), load=8)
            length = goodput.length(WAY, load=8)
            assert (goodput.begin(WAY, load=8) > 0) is (len(tried) >= 6 and room == 64), "no other call begins before"
        assert tried[:6] == [4, 2, 4, 2, 4, 2], "of which others have less to wait for than of longer ones"
        assert len(tried) == (6 if room == 8 else 10)
        assert tried[6:] == [MOST] * (len(tried) - 6)

    def test_a_trial_of_what_is_not_accepted_is_one_step(self) -> None:
        goodput = self.taught(8, room=64, acceptance=0.0)
        untold = Goodput(most=MOST)
        for tokens in (10, 50, 100):
            untold.finished(WAY, tokens, 0.05 + 0.1 * tokens, load=8)
        assert untold.begin(WAY, load=8) == 4
        untold.saw(WAY, kept=0, missed=1)
        untold.took(WAY, 4, 0.15, load=8)
        assert untold.length(WAY, load=8) == goodput.length(WAY, load=8) == 0

    def test_what_was_told_holds_while_all_steps_are_of_one_length(self) -> None:
        goodput = self.taught(8, room=8)
        for _ in range(200):
            goodput.took(WAY, 6, 0.225, load=8)
        assert goodput.length(WAY, load=8) == 0
        roomy = self.taught(8, room=64)
        for _ in range(200):
            roomy.took(WAY, 6, 0.15, load=8)
        assert roomy.begin(WAY, load=8) > 0


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

    def test_a_heavier_load_is_tried_as_rarely_as_the_next_lighter_one(self) -> None:
        goodput = self.dull()
        for _ in range(200):
            goodput.begin(WAY)
        tried = [at for at in range(300) if goodput.begin(WAY, load=32)]
        assert [later - earlier for earlier, later in itertools.pairwise([-1, *tried])] == [64] * len(tried)
        assert len(tried) == 4

    def test_a_trial_makes_those_of_heavier_loads_as_rare(self) -> None:
        goodput = self.dull()
        goodput.begin(WAY, load=32)
        for _ in range(200):
            goodput.begin(WAY)
        assert not any(goodput.begin(WAY, load=32) for _ in range(63))
        assert goodput.begin(WAY, load=32) > 0

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
