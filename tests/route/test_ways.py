"""Which way a route asks: what both took on the same calls decides, for each word of the selector."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest

from llm_proxy.route.looks import Burdens, Look, Taken, Word, doubt_of
from llm_proxy.route.ways import CHECK_EVERY, LEAST_MEASURED, LOOK_EVERY, Ways

WORD = Word("auto", "head@1", "b/small")
BAR = 0.7
SMALL = 0.1
"""What the small model takes, where the large one takes 1."""


def measured(ways: Ways, select: float, cascade: float, *, word: Word = WORD, times: int = LEAST_MEASURED) -> Ways:
    for _ in range(times):
        ways.observe(word, Burdens(select, cascade))
    return ways


class TestWays:
    def test_begins_with_the_cascade(self) -> None:
        ways = measured(Ways(), 0.1, 9.0, times=LEAST_MEASURED - 1)
        assert ways.choose(WORD, 0.95)[:2] == ("cascade", "cascade: 49 of 50 calls measured")
        assert measured(ways, 0.1, 9.0, times=1).choose(WORD, 0.95).way == "select"

    @pytest.mark.parametrize(
        ("select", "cascade", "quality", "way"),
        [
            (0.5, 0.5, 0.95, "select"),
            (0.54, 0.5, 0.95, "select"),
            (0.56, 0.5, 0.95, "cascade"),
            (0.56, 0.5, 0.9, "select"),
            (0.5000001, 0.5, 1.0, "cascade"),
        ],
    )
    def test_a_cascade_has_to_save_more_than_the_route_grants(
        self, select: float, cascade: float, quality: float, way: str
    ) -> None:
        assert measured(Ways(), select, cascade).choose(WORD, quality).way == way

    def test_says_why(self) -> None:
        ways = measured(Ways(), 0.9, 0.5)
        assert ways.choose(WORD, 0.95).reason == "cascade: selecting takes 0.90 of asking the last, a cascade 0.50"
        ways = measured(Ways(), 0.5, 0.9)
        assert ways.choose(WORD, 0.95).reason == "selecting takes 0.50 of asking the last, a cascade 0.90"

    def test_goes_on_measuring(self) -> None:
        ways = measured(Ways(), 0.5, 0.9)
        found = [ways.choose(WORD, 0.95) for _ in range(2 * LOOK_EVERY)]
        assert [choice.way for choice in found].count("cascade") == 2
        assert found[LOOK_EVERY - 1].reason.startswith("cascade, to go on measuring: ")

    def test_who_only_asks_changes_nothing(self) -> None:
        ways = measured(Ways(), 0.5, 0.9)
        assert {ways.choose(WORD, 0.95, is_asked=False).way for _ in range(3 * LOOK_EVERY)} == {"select"}

    def test_each_word_has_its_own_measure(self) -> None:
        ways = measured(measured(Ways(), 0.5, 0.9), 0.9, 0.5, word=WORD._replace(named="b/large"))
        assert ways.choose(WORD, 0.95).way == "select"
        assert ways.choose(WORD._replace(named="b/large"), 0.95).way == "cascade"
        assert ways.choose(WORD._replace(by="head@2"), 0.95).reason == "cascade: 0 of 50 calls measured"

    @pytest.mark.parametrize("burdens", [(-1.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (1.0, 1e13)])
    def test_what_is_no_measure_is_passed_over(self, burdens: tuple[float, float]) -> None:
        ways = measured(Ways(), *burdens)
        assert ways.choose(WORD, 0.95).reason == "cascade: 0 of 50 calls measured"

    @pytest.mark.parametrize("count", [0, LEAST_MEASURED])
    def test_one_call_in_ten_of_a_cascade_is_checked(self, count: int) -> None:
        ways = measured(Ways(), 0.9, 0.5, times=count)
        found = [ways.choose(WORD, 0.95) for _ in range(2 * CHECK_EVERY)]
        assert [place for place, choice in enumerate(found, 1) if choice.is_checked] == [CHECK_EVERY, 2 * CHECK_EVERY]
        assert not any(ways.choose(WORD, 0.95, is_asked=False).is_checked for _ in range(CHECK_EVERY))

    def test_later_fewer_are(self) -> None:
        ways = Ways()
        found = [ways.choose(WORD, 0.95).is_checked for _ in range(1000)]
        assert (found[:500].count(True), found[500:].count(True)) == (50, 10)

    def test_nor_are_those_that_go_on_measuring_left_out(self) -> None:
        ways = measured(Ways(), 0.5, 0.9)
        found = [ways.choose(WORD, 0.95) for _ in range(3 * LOOK_EVERY)]
        assert [choice.way for choice in found if choice.is_checked] == ["cascade"] * 3, (
            "they would ask the last anyway"
        )

    def test_what_checks_find(self) -> None:
        ways = Ways()
        assert ways.excess(WORD) == 1.0
        for is_right in (False, True, *[False] * 5):
            ways.check(WORD, 0.9, is_right=is_right)
        assert ways.excess(WORD) == pytest.approx((6 / 2 + 2) / (0.7 + 2))
        for _ in range(50):
            ways.check(WORD, 1.0, is_right=True)
        assert ways.excess(WORD) == pytest.approx((6 / 2 + 2) / (1.7 + 2)), "nobody is ever quite sure"
        for _ in range(50):
            ways.check(WORD, 0.9, is_right=True)
        assert ways.excess(WORD) == 1.0, "never less than said"
        assert ways.excess(WORD._replace(by="other")) == 1.0

    def test_words_are_forgotten(self) -> None:
        ways = measured(Ways(), 0.5, 0.9)
        for number in range(300):
            ways.observe(WORD._replace(by=str(number)), Burdens(1.0, 1.0))
        assert ways.choose(WORD, 0.95).reason == "cascade: 0 of 50 calls measured"

    def test_what_was_long_ago_counts_less(self) -> None:
        ways = measured(measured(Ways(), 0.5, 0.9, times=5000), 0.9, 0.5, times=1500)
        assert ways.choose(WORD, 0.95).way == "cascade"


@pytest.mark.parametrize(
    ("p_right", "bar", "worth", "doubt"),
    [
        (0.7, 0.7, None, 1.0),
        (1.0, 0.7, None, 0.0),
        (0.0, 0.5, None, 2.0),
        (0.5, 1.0, None, 50.0),
        (0.5, 0.999, None, 50.0),
        (0.5, 0.7, 4.0, 2.0),
        (0.0, 0.7, 1e9, 100.0),
    ],
)
def test_doubt(p_right: float, bar: float, worth: float | None, doubt: float) -> None:
    assert doubt_of(p_right, bar=bar, worth=worth) == pytest.approx(doubt)


class TestLook:
    taken = Taken((1.0, 10.0), 2.0, None, BAR)

    def look(self, **changes: object) -> Look:
        known = {"is_last_named": False, "taken": self.taken, "p_right": (0.4,), "is_escalated": True, "read": 0}
        return Look(**{"word": WORD, "text": "4", **known, **changes})  # type: ignore[arg-type]

    def test_the_first_was_named_and_doubted(self) -> None:
        assert self.look().burdens() == pytest.approx((0.1 + 0.6 / 0.3, 1.1))

    @pytest.mark.parametrize(("is_same", "select"), [(True, 0.1), (False, 0.1 + 1 / 0.3)])
    def test_the_last_ones_answer_tells_whether_rightly(self, is_same: bool, select: float) -> None:
        assert self.look().burdens(is_same) == pytest.approx((select, 1.1))

    def test_the_first_was_named_and_kept(self) -> None:
        both = 0.1 + 0.1 / 0.3
        assert self.look(p_right=(0.9,), is_escalated=False).burdens() == pytest.approx((both, both))

    def test_the_last_was_named(self) -> None:
        assert self.look(is_last_named=True).burdens(True) == pytest.approx((1.0, 1.1))
        kept = self.look(is_last_named=True, p_right=(0.9,), is_escalated=False)
        assert kept.burdens() == pytest.approx((1.0, 0.1 + 0.1 / 0.3))

    def test_the_last_was_named_and_such_answers_are_wrong_more_often(self) -> None:
        kept = self.look(is_last_named=True, p_right=(0.9,), is_escalated=False)
        assert kept.burdens(None, 3.0) == pytest.approx((1.0, 0.1 + 0.3 / 0.3))
        assert kept.burdens(None, 50.0) == pytest.approx((1.0, 0.1 + 1.0 / 0.3)), "all of them"
        named = self.look(p_right=(0.9,), is_escalated=False)
        assert named.burdens(None, 3.0) == named.burdens()

    @pytest.mark.parametrize("is_same", [True, False, None])
    def test_the_last_was_named_and_asked_all_the_same(self, is_same: bool | None) -> None:
        checked = self.look(is_last_named=True, p_right=(0.9,), is_escalated=False, is_checked=True)
        assert checked.burdens(is_same) == pytest.approx((1.0, 0.1 + 0.1 / 0.3)), "what it takes where nobody checks"

    def test_three_steps(self) -> None:
        taken = Taken((1.0, 3.0, 10.0), 0.0, None, BAR)
        kept = self.look(taken=taken, p_right=(0.4, 0.7), is_escalated=False)
        assert kept.burdens() == pytest.approx((0.1 + 0.6 / 0.3, 0.4 + 1.0))

    def test_a_judge_is_paid_for(self) -> None:
        assert self.look(read=1).burdens().cascade == pytest.approx(1.3)

    def test_the_worth_of_a_right_answer(self) -> None:
        taken = Taken((1.0, 10.0), 0.0, 50.0, BAR)
        assert self.look(taken=taken).burdens().select == pytest.approx(0.1 + 0.6 * 5)

    @pytest.mark.parametrize(
        ("steps", "beside", "is_known"),
        [
            ((1.0, 2.0), 0.0, True),
            ((1.0, 0.0), 0.0, False),
            ((math.inf, 1.0), 0.0, False),
            ((1.0, 1.0), math.inf, False),
        ],
    )
    def test_what_is_not_known(self, steps: tuple[float, ...], beside: float, is_known: bool) -> None:
        assert Taken(steps, beside, None, BAR).is_known is is_known


class Traffic:
    """Calls to a small and a large model, of which it is known how each would go."""

    def __init__(self, head: Callable[[random.Random, bool], bool], calls: int = 6000) -> None:
        self.head, self.calls = head, calls

    def ask(self, way: str) -> tuple[float, float]:
        """What a call takes and how often it is right, where every call is asked in one way, or in what `Ways` says."""
        chance, ways, taken, right = random.Random(0), Ways(), 0.0, 0
        taken_by = Taken((SMALL, 1.0), 0.0, None, BAR)
        for _ in range(self.calls):
            # The scorer is calibrated: an answer is right as often as it says. The large one is right in 95 %.
            p_right = chance.betavariate(1.0, 0.6)
            is_right, is_large_right = chance.random() < p_right, chance.random() < 0.95
            is_large_named = not self.head(chance, is_right)
            word = WORD._replace(named="b/large" if is_large_named else "b/small")
            choice = ways.choose(word, 0.95)
            asked = choice.way if way == "auto" else way
            if asked == "select":
                taken += 1.0 if is_large_named else SMALL
                right += is_large_right if is_large_named else is_right
                continue
            is_escalated, is_same = p_right < BAR, is_right and is_large_right
            is_checked = way == "auto" and choice.is_checked and is_large_named and not is_escalated
            taken += SMALL + (is_escalated or is_checked)
            right += is_large_right if is_escalated or is_checked else is_right
            look = Look(word, is_large_named, taken_by, (p_right,), is_escalated, 0, "", is_checked)
            if is_checked:
                ways.check(word, p_right, is_right=is_same)
            ways.observe(word, look.burdens(is_same if is_escalated or is_checked else None, ways.excess(word)))
        return taken / self.calls, right / self.calls


def good(chance: random.Random, is_right: bool) -> bool:
    """Right about the small model's answer in 19 of 20 calls."""
    return is_right if chance.random() < 0.95 else not is_right


def blind(chance: random.Random, is_right: bool) -> bool:
    return chance.random() < 0.5


def burden(found: tuple[float, float]) -> float:
    taken, right = found
    return taken + (0.95 - right) / (1 - BAR)


@pytest.mark.parametrize(("head", "better"), [(good, "select"), (blind, "cascade")])
def test_the_better_way_is_found(head: Callable[[random.Random, bool], bool], better: str) -> None:
    found = {way: Traffic(head).ask(way) for way in ("select", "cascade", "auto")}
    worse = "cascade" if better == "select" else "select"
    assert burden(found[better]) < burden(found[worse])
    taken, right = found[better]
    assert found["auto"][0] == pytest.approx(taken, rel=0.05)
    assert found["auto"][1] == pytest.approx(right, abs=0.01)


def test_the_same_state_gives_the_same_choice() -> None:
    runs = [Traffic(good, 500).ask("auto") for _ in range(2)]
    assert all(one == other for one, other in itertools.pairwise(runs))
