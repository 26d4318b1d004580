"""Routes that leave it open whether they cascade: what is asked, and what is learnt from it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Forward, Hold
from llm_proxy.errors import RouterError
from llm_proxy.route.base import Amounts, Score
from llm_proxy.route.looks import Burdens, Word
from llm_proxy.route.ways import CHECK_EVERY, LEAST_MEASURED
from tests.engine.cascade_kit import Steps, held, rig, with_message
from tests.fakes import FakeScorer, Rig, body_of, completion, head, request


def auto(**more: Any) -> Rig:
    return rig(cascade="auto", has_costs=True, **more)


def word_of(named: str = "small") -> Word:
    return Word("auto", "rules", f"b/{named}")


def learnt(made: Rig) -> list[tuple[Word, Burdens]]:
    """What is observed from now on."""
    found: list[tuple[Word, Burdens]] = []
    made.selector.ways.observe = lambda word, burdens: found.append((word, burdens))  # type: ignore[method-assign]
    return found


def takes(made: Rig, *models: str) -> Amounts:
    call = request("2 and 2?", model="auto")
    found = made.selector.takes(call, made.selector.resolve(call), [("b", model) for model in models])
    assert found is not None
    return found


def shares(made: Rig, *models: str) -> list[float]:
    """What asking is expected to take, in units of the last."""
    amounts = takes(made, *models).amounts
    return [amount / amounts[-1] for amount in amounts]


def asked(made: Rig, **fields: Any) -> Steps:
    """A call, as far as the answer of the first one."""
    course = Steps(made, **fields)
    course.hold(held())
    while isinstance(course.effect, Compute):
        course.compute()
    return course


def fails(*_: Any) -> Any:
    raise RouterError("x")


class TestWay:
    def test_nothing_is_measured_yet(self) -> None:
        course = Steps(auto())
        course.expect(Hold)
        ticket = course.launch.flight.ticket
        assert course.launch.outgoing.model == "small"
        assert ticket.outcome.reason.endswith("; cascade: 0 of 50 calls measured")
        assert (ticket.rivals, ticket.foretold_tokens) == ((), None)

    def test_selecting_takes_less(self) -> None:
        made = auto()
        for _ in range(LEAST_MEASURED):
            made.selector.ways.observe(word_of(), Burdens(0.1, 0.9))
        course = Steps(made)
        course.alone("small")
        outcome = made.event.outcome
        assert (outcome.model, outcome.cascade) == ("small", "")
        assert outcome.reason.endswith("; selecting takes 0.10 of asking the last, a cascade 0.90")

    def test_the_one_that_was_named_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = auto(models="small middle large")
        router = made.selector._planner._routers["auto"]
        monkeypatch.setattr(type(router), "score", lambda *_: Score(0.5, "half"))
        course = Steps(made)
        course.hold(held(completion("")), "middle")
        course.compute()
        course.forwarded("large")

    def test_trouble_goes_by_the_selector(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = auto()
        monkeypatch.setattr(made.selector.ways, "choose", fails)
        Steps(made).alone("small")
        assert made.event.outcome.cascade == ""
        assert made.troubles.counts == {"cascade": 1}

    def test_a_route_that_always_cascades_measures_nothing(self) -> None:
        made = rig(has_costs=True)
        found = learnt(made)
        assert asked(made).effect is None
        assert found == []


class TestLearnt:
    def test_from_an_answer_that_is_kept(self) -> None:
        made = auto(scorer=FakeScorer(0.85))
        found, (small, _) = learnt(made), shares(made, "small", "large")
        asked(made)
        assert found == [(word_of(), pytest.approx((small + 0.5, small + 0.5)))]

    @pytest.mark.parametrize(
        ("text", "doubt"), [("Hello.", 0.0), ("bye", 1 / 0.3), ("It is not so easy to say. " * 9, 0.6 / 0.3)]
    )
    def test_from_what_the_last_one_says(self, text: str, doubt: float) -> None:
        made = auto(scorer=FakeScorer(0.4))
        found, (small, _) = learnt(made), shares(made, "small", "large")
        course = asked(made)
        assert found == []
        course.last(head([body_of(completion(text, model="large"))]))
        course.settle(course.answer)
        assert found == [(word_of(), pytest.approx((small + doubt, small + 1)))]

    def test_from_a_judge_who_is_paid(self) -> None:
        made = auto(cascade_judge="b/judge")
        found, (small, judge, _) = learnt(made), shares(made, "small", "judge", "large")
        course = Steps(made)
        course.hold(held())
        course.hold(held(completion("yes")), "judge")
        course.compute()
        assert found == [(word_of(), pytest.approx((small, small + judge)))]

    def test_from_a_call_that_is_not_recorded(self) -> None:
        made = auto(scorer=FakeScorer(0.4))
        found, (small, _) = learnt(made), shares(made, "small", "large")
        asked(made, temperature=1.5)
        assert found == [(word_of(), pytest.approx((small + 2, small + 1)))]

    def test_from_an_answer_that_was_none(self) -> None:
        made = auto()
        found, (small, _) = learnt(made), shares(made, "small", "large")
        course = Steps(made)
        course.hold(ConnectionError())
        course.expect(Forward)
        course.send(answer := head([body_of(completion("4"))]))
        course.settle(answer)
        assert found == [(word_of(), pytest.approx((small + 1 / 0.3, small + 1)))]

    def test_by_what_a_right_answer_is_worth(self) -> None:
        made = auto(usd_per_good_answer=3.0, scorer=FakeScorer(0.8))
        found, (small, _) = learnt(made), shares(made, "small", "large")
        large_usd = takes(made, "large").amounts[0]
        asked(made)
        assert found[0][1].cascade == pytest.approx(small + 0.2 * 3.0 / large_usd)

    @pytest.mark.parametrize("answer", ["unseen", "trouble"])
    def test_not_from_what_nobody_could_tell(self, answer: str) -> None:
        made = auto(scorer=FakeScorer(RouterError("no graph")))
        found = learnt(made)
        course = Steps(made, stream=answer == "unseen")
        course.hold(held(is_whole=answer == "trouble"))
        while isinstance(course.effect, Compute):
            course.compute()
        assert (found, course.launch.flight.ticket.look) == ([], None)

    def test_not_where_the_last_one_failed(self) -> None:
        made = auto(scorer=FakeScorer(0.4))
        found = learnt(made)
        course = asked(made)
        course.hold(held({"error": {}}, status=500), "large")
        course.settle(course.answer)
        assert found == []

    def test_not_where_the_last_ones_answer_is_none(self) -> None:
        made = auto(scorer=FakeScorer(0.4))
        found = learnt(made)
        course = asked(made)
        course.last(head([body_of(completion("", model="large"))]))
        course.settle(course.answer)
        assert found == []

    @pytest.mark.parametrize(
        ("text", "is_right"),
        [("Hello.", True), ("bye", False), ("It is hard to say. " * 9, None)],
    )
    def test_from_a_check(self, text: str, is_right: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
        made = auto(scorer=FakeScorer(0.85), long_prompt_chars=4)
        ways, word = made.selector.ways, word_of("large")
        for _ in range(CHECK_EVERY - 1):
            ways.choose(word, 0.95)
        checked: list[Any] = []
        monkeypatch.setattr(ways, "check", lambda word, p_right, is_right: checked.append((word, p_right, is_right)))
        found, (small, _) = learnt(made), shares(made, "small", "large")
        course = asked(made)
        course.forwarded()
        assert found == []
        course.last(head([body_of(completion(text, model="large"))]))
        course.settle(course.answer)
        assert found == [(word, pytest.approx((1.0, small + 0.5)))]
        assert checked == ([] if is_right is None else [(word, 0.85, is_right)])
        outcome = made.event.outcome
        assert (outcome.cascade, outcome.model, outcome.cost_usd) == ("small 0.85, large", "large", 16.5)

    def test_a_check_without_a_record_finds_nothing(self) -> None:
        made = auto(scorer=FakeScorer(0.85), long_prompt_chars=4)
        for _ in range(CHECK_EVERY - 1):
            made.selector.ways.choose(word_of("large"), 0.95)
        found, (small, _) = learnt(made), shares(made, "small", "large")
        asked(made, temperature=1.5).forwarded()
        assert found == [(word_of("large"), pytest.approx((1.0, small + 0.5)))]

    @pytest.mark.parametrize("named", ["small", "large"])
    def test_no_check_where_the_first_was_named_or_the_answer_is_a_call(self, named: str) -> None:
        made = auto(long_prompt_chars=4 if named == "large" else 2000)
        for _ in range(CHECK_EVERY - 1):
            made.selector.ways.choose(word_of(named), 0.95)
        course = Steps(made, **({"tools": [{}]} if named == "large" else {}))
        call = [{"function": {"name": "f", "arguments": "{}"}}]
        course.hold(held(with_message({"tool_calls": call}) if named == "large" else None))
        while isinstance(course.effect, Compute):
            course.compute()
        assert course.effect is None

    def test_not_without_estimates(self) -> None:
        made = rig(cascade="auto")
        found = learnt(made)
        asked(made)
        assert found == []

    def test_not_where_nothing_takes_anything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = auto()
        found = learnt(made)
        monkeypatch.setattr(made.selector, "takes", lambda *_: Amounts((0.0, 0.0), True))
        asked(made)
        assert found == []

    def test_trouble_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = auto(scorer=FakeScorer(0.4))
        monkeypatch.setattr(made.selector.ways, "observe", fails)
        course = asked(made)
        course.last(head([body_of(completion("4", model="large"))]))
        course.settle(course.answer)
        assert made.troubles.counts == {"cascade": 1}
        monkeypatch.setattr(made.selector, "takes", fails)
        assert asked(made, seed=1).effect is not None
        assert made.troubles.counts == {"cascade": 2}


class TestTakes:
    def test_seconds_where_the_route_goes_by_them(self) -> None:
        assert takes(auto(objective="latency"), "small", "large") == ((5.0, 5.0), False)

    def test_seconds_where_a_price_is_not_known(self) -> None:
        found = takes(auto(), "small", "nobody")
        assert not found.is_money
        assert all(math.isfinite(amount) for amount in found.amounts)


@pytest.mark.parametrize(
    ("cascade", "said"),
    [("auto", "cascade: 0 of 50 calls measured"), (True, "cascade, as the route says"), (False, "")],
)
def test_the_way_is_explained(cascade: Any, said: str) -> None:
    made = rig(cascade=cascade)
    call = request("2 and 2?", model="auto")
    assert made.selector.explain(call, made.selector.resolve(call), None).way == said
