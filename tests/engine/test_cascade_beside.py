"""Second opinions in a cascade, and what is paid for answers that nobody gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Hold
from tests.engine.cascade_kit import JUDGE_USD, SMALL_USD, Steps, held, rig
from tests.fakes import FakeScorer, completion, events_of, request


class TestSecondOpinions:
    def test_a_judge_approves(self) -> None:
        made = rig(cascade_judge="b/judge", scorer=FakeScorer(is_usable=False))
        course = Steps(made)
        course.hold(held())
        effect = course.expect(Hold)
        assert (effect.limit_s, effect.wait_s, effect.keeps_rest) == (60, 60, False)
        asked = json.loads(effect.outgoing.body)["messages"][0]["content"]
        assert '{"question": "2 and 2?", "answer": "hello"}' in asked
        course.hold(held(completion("So it is.\nYes.")), "judge")
        course.compute()
        assert course.effect is None
        course.settle(course.answer)
        assert (made.event.outcome.cascade, made.event.outcome.cost_usd) == ("small approved", SMALL_USD + JUDGE_USD)

    @pytest.mark.parametrize(
        "said", [held(completion("no")), held(completion("")), held({"error": {}}, status=500), ConnectionError()]
    )
    def test_a_judge_does_not(self, said: Any) -> None:
        course = Steps(rig(cascade_judge="b/judge"))
        course.hold(held())
        course.hold(said, "judge")
        while isinstance(course.effect, Compute):
            course.compute()
        course.forwarded()

    def test_two_agree(self) -> None:
        course = Steps(rig(cascade_agree_with="b/other"), stream=True, user="u")
        course.hold(held(events_of("the answer is 4")))
        sent = json.loads(course.expect(Hold).outgoing.body)
        assert "stream" not in sent
        assert sent["user"] == "u"
        course.hold(held(completion("2 + 2 = 4, so the answer is **4**.")), "other")
        course.compute()
        course.compute()
        assert course.effect is None
        assert course.launch.flight.ticket.outcome.cascade == "small agreed"

    def test_the_other_gives_no_answer(self) -> None:
        course = Steps(rig(cascade_agree_with="b/other"))
        course.hold(held(completion("the answer is 4")))
        course.hold(held({"error": {}}, status=500), "other")
        while isinstance(course.effect, Compute):
            course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cascade == "small alone, large"

    def test_two_differ(self) -> None:
        course = Steps(rig(cascade_agree_with="b/other"))
        course.hold(held(completion("the answer is 4")))
        course.hold(held(completion("the answer is 5")), "other")
        course.compute()
        course.compute()
        course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cascade == "small alone, large"


class TestWhatItCost:
    def test_an_answer_that_is_not_stored_costs_as_much(self) -> None:
        made = rig(scorer=FakeScorer(says=0.1))
        course = Steps(made, max_tokens=5)
        course.hold(held())
        while isinstance(course.effect, Compute):
            course.compute()
        course.forwarded()
        ticket = course.launch.flight.ticket
        cut = completion("hello")
        cut["choices"][0]["finish_reason"] = "length"
        spent_usd = ticket.outcome.cost_usd
        assert spent_usd == SMALL_USD
        assert made.settler._all_usd(ticket, cut) > spent_usd
        assert made.settler._all_usd(ticket, None) is None

    @pytest.mark.parametrize(("text", "is_good"), [("", False), ("  ", False), ("cut off he", True)])
    def test_nothing_at_all_is_not_handed_on(self, text: str, is_good: bool) -> None:
        made = rig(scorer=FakeScorer(says=0.9))
        course = Steps(made, max_tokens=5)
        cut = completion(text)
        cut["choices"][0]["finish_reason"] = "length"
        course.hold(held(cut))
        while isinstance(course.effect, Compute):
            course.compute()
        assert (course.effect is None) is is_good


def test_checks_ask_the_last_of_a_cascade() -> None:
    """The answer of the weakest, that nobody looked at, would pass for the right one."""
    made = rig(models="small middle large")
    outgoing, destination = made.dispatcher.routed(request("2 and 2?", model="auto"))
    assert (json.loads(outgoing.body)["model"], destination.model) == ("large", "large")
