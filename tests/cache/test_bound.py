"""The rule: what it serves without evidence, what it learns, and that its account brings a bad guard under the rate."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.bound import Bound
from llm_proxy.cache.evidence import MOST_OBSERVATIONS, Observation, with_observation
from llm_proxy.cache.weighed import Decision

shares = st.floats(0.0, 1.0)
cosines = st.floats(-1.0, 1.0)
rates = st.floats(0.001, 0.5)
observed = st.builds(
    Observation, st.just(0.0), cosines, st.none() | shares, st.booleans(), st.sampled_from(["explore", "shadow"])
)
evidence = st.lists(observed, max_size=MOST_OBSERVATIONS).map(tuple)
events = st.lists(st.tuples(st.sampled_from(["hit", "asked", "checked", "undone"]), shares, shares, st.booleans()))


def seen(similarity: float, p_same: float | None, *, is_same: bool) -> Observation:
    return Observation(0.0, similarity, p_same, is_same, "explore")


def after(history: list[tuple[str, float, float, bool]], bound: Bound) -> Bound:
    for event, p_same, coin, is_same in history:
        decision = bound.decide(0.9, p_same, coin=coin)
        if event == "hit":
            bound.note_hit(decision)
        elif event == "asked":
            bound.note_asked(decision, p_same, is_same=is_same)
        elif event == "checked":
            bound.note_checked(decision.p_wrong, p_same, is_same=is_same)
        else:
            bound.note_undone(decision.p_wrong, p_same)
    return bound


class TestWithoutEvidence:
    @given(rates, shares, st.floats(0.0, 1.0, exclude_max=True))
    def test_the_guard_alone_decides_and_nothing_is_asked_by_chance(
        self, rate: float, p_same: float, coin: float
    ) -> None:
        decision = Bound(rate).decide(0.9, p_same, coin=coin)
        assert decision.p_wrong == pytest.approx(max(1e-4, 1.0 - p_same))
        assert decision.is_served == (decision.p_wrong <= 0.4 * rate)
        assert decision.ask_probability == float(not decision.is_served)

    def test_hits_alone_never_widen_the_limit(self) -> None:
        bound = Bound(0.01)
        for _ in range(10_000):
            bound.note_hit(bound.decide(0.9, 0.999, coin=0.0))
        assert bound.limit == pytest.approx(0.004)

    @pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
    def test_rates_out_of_range(self, rate: float) -> None:
        with pytest.raises(ValueError, match="max_error_rate is"):
            Bound(rate)

    @pytest.mark.parametrize("name", ["explore_share", "check_share"])
    def test_shares_out_of_range(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} is 1.5: it must be from 0 to 1"):
            Bound(0.01, **{name: 1.5})


class TestPWrong:
    @given(events, cosines, shares, evidence)
    def test_a_probability(
        self,
        history: list[tuple[str, float, float, bool]],
        cosine: float,
        p_same: float,
        known: tuple[Observation, ...],
    ) -> None:
        assert 0.0 <= after(history, Bound(0.05)).p_wrong(cosine, p_same, known) <= 1.0

    @given(events, cosines, st.tuples(shares, shares), evidence)
    def test_falls_with_p_same(
        self,
        history: list[tuple[str, float, float, bool]],
        cosine: float,
        two: tuple[float, float],
        known: tuple[Observation, ...],
    ) -> None:
        known = tuple(each for each in known if each.p_same is not None)
        bound = after(history, Bound(0.05))
        assert bound.p_wrong(cosine, max(two), known) <= bound.p_wrong(cosine, min(two), known) + 1e-9

    @given(events, cosines, shares, evidence, observed, st.integers(0, MOST_OBSERVATIONS))
    def test_a_wrong_answer_never_lowers_it(
        self,
        history: list[tuple[str, float, float, bool]],
        cosine: float,
        p_same: float,
        known: tuple[Observation, ...],
        one: Observation,
        place: int,
    ) -> None:
        known, bound = known[1:], after(history, Bound(0.05))
        wrong = seen(one.similarity, one.p_same, is_same=False)
        more = (*known[:place], wrong, *known[place:])
        assert bound.p_wrong(cosine, p_same, more) >= bound.p_wrong(cosine, p_same, known) - 1e-9

    def test_the_same_question_is_not_answered_wrongly_twice(self) -> None:
        bound, known = Bound(0.05), (seen(0.93, 0.99, is_same=True), seen(0.93, 0.99, is_same=False))
        assert bound.p_wrong(0.93, 0.999, known) == 1.0
        assert bound.p_wrong(0.93, 0.999, (*known, seen(0.93, 0.99, is_same=True))) < 1.0
        assert bound.p_wrong(0.95, 0.999, known) < 1.0

    def test_an_entry_that_misled_a_sure_guard_is_doubted(self) -> None:
        bound = Bound(0.05)
        sure = bound.p_wrong(0.9, 0.995, (seen(0.95, 0.998, is_same=False),))
        expected = bound.p_wrong(0.9, 0.995, (seen(0.95, 0.05, is_same=False),))
        assert sure > 5 * 0.005
        assert 0.005 <= expected < 2 * 0.005

    def test_right_answers_help_by_no_more_than_their_number_allows(self) -> None:
        bound = Bound(0.05)
        for count in (1, 3, 30):
            known = (seen(0.8, 0.1, is_same=True),) * count
            assert bound.p_wrong(0.9, 0.9, known) >= 0.1 / (1 + count) ** 2
            assert bound.p_wrong(0.9, 0.9, known) < 0.1

    def test_an_observation_without_a_probability_counts_as_this_question(self) -> None:
        bound = Bound(0.05)
        for is_same in (True, False):
            known = bound.p_wrong(0.9, 0.99, (seen(0.8, 0.99, is_same=is_same),))
            assert bound.p_wrong(0.9, 0.99, (seen(0.8, None, is_same=is_same),)) == known

    def test_only_the_newest_count(self) -> None:
        kept = (seen(0.8, 0.9, is_same=True),) * MOST_OBSERVATIONS
        older = (seen(0.7, 0.99, is_same=False), *kept)
        assert Bound(0.05).p_wrong(0.9, 0.99, older) == Bound(0.05).p_wrong(0.9, 0.99, kept)

    def test_any_value_of_that_shape_is_evidence(self) -> None:
        @dataclass(frozen=True)
        class Mine:
            similarity: float
            p_same: float
            is_same: bool

        assert Bound(0.05).p_wrong(0.9, 0.99, (Mine(0.8, 0.99, False),)) > 0.01


class TestDecisions:
    @given(events, rates, cosines, shares, evidence, st.floats(0.0, 1.0, exclude_max=True), st.integers(0, 50))
    def test_what_is_served_is_within_the_limit(
        self,
        history: list[tuple[str, float, float, bool]],
        rate: float,
        cosine: float,
        p_same: float,
        known: tuple[Observation, ...],
        coin: float,
        unchecked: int,
    ) -> None:
        bound = after(history, Bound(rate, explore_share=0.1))
        decision = bound.decide(cosine, p_same, known, coin=coin, unchecked=unchecked)
        assert 0.0 <= bound.limit <= 2 * rate
        assert 0.0 <= decision.ask_probability <= 1.0
        if decision.is_served:
            assert decision.p_wrong <= bound.limit
            assert coin >= decision.ask_probability

    def test_more_is_asked_where_risk_is_larger_or_more_hits_are_unchecked(self) -> None:
        bound = Bound(0.05, explore_share=0.1)
        for _ in range(70):
            bound.note_asked(bound.decide(0.9, 0.999, coin=0.0), 0.999, is_same=True)
        for _ in range(150):
            bound.note_hit(Decision(True, 0.001, 0.0))
        asked = [
            bound.decide(0.9, p_same, coin=0.5, unchecked=unchecked).ask_probability
            for p_same, unchecked in ((0.999, 0), (0.99, 0), (0.99, 4))
        ]
        assert asked == sorted(set(asked))
        assert asked[-1] <= 0.9

    def test_where_questions_are_asked_by_chance_only_the_surest_are_served_at_first(self) -> None:
        bound = Bound(0.02, explore_share=0.1)
        limits = [bound.limit]
        for _ in range(250):
            bound.note_hit(Decision(True, 0.02, 0.0))
            limits.append(bound.limit)
        assert limits == sorted(limits)
        assert (limits[0], limits[-1]) == pytest.approx((0.1 * 0.02, 0.4 * 0.02), rel=0.2)

    def test_all_are_asked_until_few_enough_turned_out_wrong(self) -> None:
        bound = Bound(0.01, explore_share=0.1)
        asked = 0
        while not bound.decide(0.9, 0.999, coin=0.99).is_served:
            decision = bound.decide(0.9, 0.999, coin=0.99)
            assert (decision.reason, decision.ask_probability) == ("explored", 1.0)
            bound.note_asked(decision, 0.999, is_same=True)
            asked += 1
        assert 50 <= asked <= 55, "old ones fade a little"
        assert bound.decide(0.9, 0.9, coin=0.99).reason == "unsure", "which is no trial"
        bound.note_asked(bound.decide(0.9, 0.999, coin=0.0), 0.999, is_same=False)
        assert bound.decide(0.9, 0.9995, coin=0.99).reason == "explored"
        assert Bound(0.01, explore_share=0.1).decide(0.9, 0.999, coin=1.0).is_served, "where it can't be asked"

    def test_one_question_is_served_a_few_times_only_fewer_where_that_is_less_sure(self) -> None:
        bound = Bound(0.01)

        def served(p_same: float) -> int:
            return next(n for n in range(200) if not bound.decide(0.9, p_same, coin=0.5, unchecked=n).is_served)

        assert [served(p_same) for p_same in (0.9997, 0.9988, 0.9961)] == [34, 9, 3]
        assert bound.decide(0.9, 0.999, coin=0.5, unchecked=11).reason == "repeated"
        assert Bound(0.05).decide(0.9, 0.999, coin=0.5, unchecked=11).is_served


class TestAccount:
    def test_hits_that_were_compared_widen_the_limit_and_wrong_ones_narrow_it(self) -> None:
        bound = Bound(0.05, check_share=0.5)
        for _ in range(60):
            decision = bound.decide(0.9, 0.999, coin=0.0)
            bound.note_hit(decision)
            bound.note_checked(decision.p_wrong, 0.999, is_same=True)
        assert 0.02 < bound.limit <= 0.1
        for _ in range(3):
            bound.note_checked(0.001, 0.999, is_same=False)
        assert bound.limit < 0.02

    def test_two_wrong_hits_must_be_affordable_before_more_is_risked(self) -> None:
        bound = Bound(0.05, check_share=1.0)
        limits = {}
        for hits in range(1, 61):
            bound.note_hit(Decision(True, 0.0, 0.0))
            bound.note_checked(0.0, 0.999, is_same=True)
            limits[hits] = bound.limit
        assert limits[40] == pytest.approx(0.4 * 0.05), "2 / 0.05 hits"
        assert 0.4 * 0.05 < limits[42] < limits[60]

    def test_a_hit_taken_back_narrows_it(self) -> None:
        bound = Bound(0.05)
        bound.note_undone(0.001, 0.999)
        assert bound.limit == pytest.approx(0.02 / 1.999**2)
        assert bound.p_wrong(0.9, 0.999) > 0.001

    def test_the_debt_is_forgiven_as_questions_are_compared(self) -> None:
        bound = Bound(0.05)
        bound.note_undone(0.0, 0.5)
        before = bound.limit
        for _ in range(2_000):
            bound.note_asked(Decision(False, 0.9, 1.0), 0.1, is_same=True)
        assert before < 0.4 * bound.limit
        assert bound.limit <= 0.02

    @pytest.mark.parametrize("shares", [{}, {"check_share": 0.1}, {"explore_share": 0.1}])
    def test_where_nothing_is_compared_as_questions_are_withheld(self, shares: dict[str, float]) -> None:
        bound = Bound(0.01, **shares)
        for _ in range(4):
            bound.note_undone(0.001, 0.999)
        before = bound.limit
        for _ in range(3_000):
            bound.note_unsure(Decision(False, 0.0041, 1.0, "unsure"))
        assert bound.limit == before, "that would not be served without a debt"
        for _ in range(3_000):
            bound.note_unsure(Decision(False, 0.001, 1.0, "unsure"))
        assert (bound.limit > 0.0025) == (not shares)
        assert bound.limit <= 0.004

    @pytest.mark.parametrize("is_checked", [False, True])
    def test_it_estimates_how_many_were_wrong(self, *, is_checked: bool) -> None:
        """Whatever the guard says: here .999 where .9 is true."""
        rng = random.Random(0)
        bound = Bound(0.9, explore_share=0.0 if is_checked else 1.0, check_share=0.3 if is_checked else 0.0)
        hits = wrong = 0
        for _ in range(1_500):
            decision, is_same = Decision(rng.random() >= 0.2, 0.001, 0.2), rng.random() < 0.9
            if not decision.is_served:
                bound.note_asked(decision, 0.999, is_same=is_same)
                continue
            bound.note_hit(decision)
            hits, wrong = hits + 1, wrong + (not is_same)
            if is_checked and rng.random() < 0.3:
                bound.note_checked(decision.p_wrong, 0.999, is_same=is_same)
        state = bound.to_json()
        remembered, estimated = state["hits"], state["wrong"]
        assert isinstance(remembered, float)
        assert isinstance(estimated, float)
        assert estimated / remembered == pytest.approx(wrong / hits, abs=0.05)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_guard_that_is_far_too_sure_is_brought_under_the_limit(self, seed: int) -> None:
        """It says .9975 where .8 is true. Without checks the bound would go on serving: the check can fail."""
        (hits, wrong), (blind_hits, blind_wrong) = (simulated(seed, check_share=share) for share in (0.2, 0.0))
        assert 0 < hits < 0.05 * 4_000
        assert wrong < 0.01 * 4_000
        assert blind_wrong > 0.15 * blind_hits > 300


def simulated(seed: int, check_share: float) -> tuple[int, int]:
    """Hits, and how many of them were wrong, of 4000 questions."""
    rng, bound = random.Random(seed), Bound(0.02, check_share=check_share)
    kept: dict[int, tuple[Observation, ...]] = {}
    hits = wrong = 0
    for _ in range(4_000):
        entry, cosine, is_same = rng.randrange(300), rng.uniform(0.88, 1.0), rng.random() < 0.8
        decision = bound.decide(cosine, 0.9975, kept.get(entry, ()), coin=0.0)
        hits, wrong = hits + decision.is_served, wrong + (decision.is_served and not is_same)
        if decision.is_served:
            bound.note_hit(decision)
            if rng.random() >= check_share:
                continue
            bound.note_checked(decision.p_wrong, 0.9975, is_same=is_same)
        else:
            bound.note_asked(decision, 0.9975, is_same=is_same)
        kept[entry] = with_observation(kept.get(entry, ()), seen(cosine, 0.9975, is_same=is_same))
    return hits, wrong


class TestKeeping:
    @given(events, shares, evidence)
    def test_restored_it_is_the_same(
        self, history: list[tuple[str, float, float, bool]], p_same: float, known: tuple[Observation, ...]
    ) -> None:
        bound, other = after(history, Bound(0.05, explore_share=0.1)), Bound(0.05, explore_share=0.1)
        other.restore(json.loads(json.dumps(bound.to_json())))
        assert other.to_json() == bound.to_json()
        assert other.limit == bound.limit
        assert other.decide(0.9, p_same, known, coin=0.5) == bound.decide(0.9, p_same, known, coin=0.5)

    @pytest.mark.parametrize(
        "change",
        [
            {"bands": None},
            {"bands": {"7": [1.0, 1.0]}},
            {"bands": {"x": [1.0, 1.0]}},
            {"bands": {"1": [1.0]}},
            {"bands": {"1": 1.0}},
            {"bands": {"1": [1.0, float("inf")]}},
            {"bands": {"1": [True, 1.0]}},
            {"bands": {"1": [10**400, 0]}},
            {"hits": 10**400},
            {"wrong": 1e300},
            {"hits": -1.0},
            {"compared": -1},
            {"checked": -0.5},
            {"checked": None},
            {"hits": "many"},
            {"wrong": float("nan")},
        ],
    )
    def test_something_else_is_refused_and_nothing_changes(self, change: Mapping[str, object]) -> None:
        bound = Bound(0.05)
        bound.note_undone(0.001, 0.999)
        before = bound.to_json()
        with pytest.raises(ValueError, match=r"of a bound|of a population|must have its bands"):
            bound.restore({**before, **change})
        assert bound.to_json() == before
