"""Steps the flow that puts examples before a weak model's question, and what outcomes make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.cache.near import Near
from llm_proxy.draft.examples import Group
from llm_proxy.engine.effects import Compute, Held, Hold, Launch, Read
from llm_proxy.faces._http import httpx
from llm_proxy.observe.events import GradeEvent
from llm_proxy.testing import FakeHead
from llm_proxy.types import Head
from tests.engine.flow_kit import Course
from tests.fakes import FakeScorer, Found, Rig, body_of, completion, entry, request

PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10}
BACKENDS = {
    "local": {"base_url": "http://127.0.0.1:1/v1"},
    "cloud": {"base_url": "https://cloud.test/v1", "prices": {"big": PRICE, "mid": PRICE}},
}
CANDIDATES = ["local/tiny", "cloud/mid", "cloud/big"]
JSON_TYPE = [("content-type", "application/json")]
WEAK = {"tiny": 0.9, "mid": 0.9, "big": 0.9}


def near(number: int = 1, backend: str = "cloud", model: str = "big-2026-01-01", **fields: Any) -> Near:
    stored = {"text": f"q{number}", "completion": body_of(completion(f"a{number}")), "cost_usd": 0.01, **fields}
    return Near(entry(f"{number}" * 64, backend=backend, model=model, **stored), 0.95 - number / 100, 0.0)


def made(heads: Any = None, backends: Any = None, scorer: Any = None, **route: Any) -> Rig:
    settings = {"candidates": CANDIDATES, "examples": 2, "quality": 0.9, **route}
    heads = heads or {"auto": FakeHead(WEAK, models=("tiny", "mid", "big"))}
    sections = {"backends": {**BACKENDS, **(backends or {})}, "routes": {"auto": settings}}
    rig = Rig(sections, heads=heads, has_costs=True, scorer=scorer or FakeScorer())
    rig.cache.found = Found(refusal="number", similarity=0.94, near=(near(1), near(2), near(3)))
    return rig


def launched(rig: Rig, text: str = "q") -> tuple[Course, Launch]:
    course = Course(rig, request(text, model="auto"))
    course.board()
    course.search()
    return course, course.expect(Launch)


def sent(rig: Rig, text: str = "q") -> tuple[str, list[str]]:
    """Who is asked, and what the messages say."""
    course, launch = launched(rig, text)
    outgoing = launch.outgoing if launch.asking is None else next(launch.asking).outgoing
    said = [message["content"] for message in json.loads(outgoing.body)["messages"]]
    course.flow.close()
    return outgoing.model, said


def group(rig: Rig) -> Group:
    course, launch = launched(rig, "another")
    scope = launch.flight.ticket.fingerprint.scope
    course.flow.close()
    return Group("local", "tiny", scope, 0)


def teach(rig: Rig, gain: float) -> None:
    exemplars = rig.dispatcher.exemplars
    assert exemplars is not None
    of = group(rig)
    for _ in range(60):
        exemplars.helpfulness.learn(of, gain, has_examples=True)
        exemplars.helpfulness.learn(of, 0.0, has_examples=False)


class TestSent:
    def test_strong_answers_come_before_a_weak_models_question(self) -> None:
        assert sent(made()) == ("tiny", ["q2", "a2", "q1", "a1", "q"])

    def test_the_answer_is_for_the_question_alone(self) -> None:
        rig = made()
        plain = Course(
            Rig({"backends": BACKENDS, "routes": {"auto": {"candidates": CANDIDATES}}}), request("q", model="auto")
        )
        course, launch = launched(rig)
        assert launch.flight.ticket.fingerprint == plain.effect.ticket.fingerprint
        assert launch.flight.ticket.outcome.detail.endswith("; examples")
        assert course.answer is None

    @pytest.mark.parametrize(
        "stored",
        [
            {"backend": "local", "model": "tiny"}, {"backend": "cloud", "model": "unheard-of"},
            {"backend": "elsewhere", "model": "big"}, {"completion": b"{}"}, {"text": "x" * 9_000},
        ],
    )  # fmt: skip
    def test_only_stronger_candidates_answers_that_are_short_enough(self, stored: dict[str, Any]) -> None:
        rig = made()
        rig.cache.found.near = (near(1, **stored),)
        assert sent(rig) == ("tiny", ["q"])

    def test_the_strongest_has_nobody_to_learn_from(self) -> None:
        heads = {"auto": FakeHead({"tiny": 0.1, "mid": 0.1, "big": 0.9}, models=("tiny", "mid", "big"))}
        assert sent(made(heads)) == ("big", ["q"])

    def test_one_in_between_learns_from_those_above(self) -> None:
        heads = {"auto": FakeHead({"tiny": 0.1, "mid": 0.9, "big": 0.9}, models=("tiny", "mid", "big"))}
        rig = made(heads)
        rig.cache.found.near = (near(1, model="mid"), near(2, model="big"))
        model, said = sent(rig)
        assert (model, said) == ("mid", ["q2", "a2", "q"])

    def test_off_by_default(self) -> None:
        rig = made(examples=0)
        assert rig.dispatcher.exemplars is None
        assert sent(rig) == ("tiny", ["q"])
        rig.dispatcher.without_examples("", launched(rig)[1].outgoing)
        rig.dispatcher.heard(grade("none", 1.0))

    def test_a_model_that_is_no_candidate_gets_none(self) -> None:
        rig = made()
        _, launch = launched(rig)
        outgoing = replace(launch.outgoing, backend="cloud", model="stranger")
        assert rig.dispatcher.with_examples(launch.flight.ticket, outgoing, "c1") is None

    def test_a_window_without_room_gets_none(self) -> None:
        rig = made(backends={"local": {**BACKENDS["local"], "context_tokens": 12}})
        assert sent(rig) == ("tiny", ["q"])
        rig = made(backends={"local": {**BACKENDS["local"], "limits": {"tiny": {"context_tokens": 300}}}})
        assert len(sent(rig)[1]) == 5

    def test_a_model_without_a_price_gets_none(self) -> None:
        rig = made(backends={"local": {"base_url": "https://far.test/v1"}})
        _, launch = launched(rig)
        outgoing = replace(launch.outgoing, backend="local", model="tiny")
        assert rig.dispatcher.with_examples(launch.flight.ticket, outgoing, "c1") is None
        assert rig.troubles.counts == {}

    def test_trouble_is_counted_and_the_call_goes_on(self) -> None:
        rig = made()
        rig.dispatcher.exemplars._prices = None  # type: ignore[union-attr,assignment]
        assert sent(rig) == ("tiny", ["q"])
        assert rig.troubles.counts["draft"] == 1

    def test_what_is_refused_is_sent_as_it_came(self) -> None:
        rig = made()
        course, launch = launched(rig)
        flow: Any = launch.asking
        next(flow)
        refusal = Head(400, JSON_TYPE, iter(()))
        effect = flow.send(refusal)
        while isinstance(effect, Read):
            effect = flow.send(Held(refusal, b'{"error":{"message":"too long"}}', True))
        said = [message["content"] for message in json.loads(effect.outgoing.body)["messages"]]
        assert said == ["q"]
        answer = Head(200, JSON_TYPE, iter(()))
        assert isinstance(flow.send(answer), Read)
        with pytest.raises(StopIteration):
            flow.send(Held(answer, body_of(completion()), True))
        assert launch.flight.ticket.outcome.detail == "refused=number; similarity=0.940"
        assert rig.dispatcher.exemplars.helpfulness._asked == {}  # type: ignore[union-attr]
        assert course.answer is None

    def test_another_attempt_has_no_examples(self) -> None:
        rig = made(candidates=["local/tiny", "cloud/big"])
        course, launch = launched(rig)
        flow: Any = launch.asking
        assert len(json.loads(next(flow).outgoing.body)["messages"]) == 5
        effect = flow.throw(httpx.ConnectError("gone"))
        assert (effect.outgoing.backend, len(json.loads(effect.outgoing.body)["messages"])) == ("cloud", 1)
        with pytest.raises(httpx.ConnectError):
            flow.throw(httpx.ConnectError("gone too"))
        assert course.answer is None


class TestCascades:
    """All but the last may get examples, of those who stand behind them."""

    def asking(self, says: float = 0.9, **route: Any) -> tuple[Rig, Launch, Any, Any]:
        """A call whose first candidate is asked: the flow that asks, and what it does first."""
        rig = made(cascade=True, scorer=FakeScorer(says), **route)
        _, launch = launched(rig)
        flow: Any = launch.asking
        return rig, launch, flow, next(flow)

    def said(self, effect: Any) -> tuple[str, list[str]]:
        asked = json.loads(effect.outgoing.body)
        return asked["model"], [message["content"] for message in asked["messages"]]

    def scored(self, flow: Any, text: str = "so") -> Any:
        """The candidate that is asked answers, and its answer is scored."""
        body = body_of(completion(text))
        effect = flow.send(Held(Head(200, JSON_TYPE, iter((body,))), body, True))
        while isinstance(effect, Compute):
            effect = flow.send(effect.call())
        return effect

    def test_the_first_gets_them_and_its_answer_is_handed_on(self) -> None:
        rig, launch, flow, effect = self.asking()
        assert isinstance(effect, Hold)
        assert self.said(effect) == ("tiny", ["q2", "a2", "q1", "a1", "q"])
        with pytest.raises(StopIteration):
            self.scored(flow)
        ticket = launch.flight.ticket
        assert ticket.outcome.detail == "refused=number; similarity=0.940; examples"
        assert [asked.model for asked in self.remembered(rig)] == ["tiny"]

    def remembered(self, rig: Rig) -> list[Any]:
        exemplars = rig.dispatcher.exemplars
        assert exemplars is not None
        return list(exemplars.helpfulness._asked)

    def test_one_in_between_gets_those_of_who_is_stronger_and_the_last_none(self) -> None:
        rig, launch, flow, _ = self.asking(0.2, cascade_steps=3)
        rig.cache.found = Found()
        launch.flight.ticket.near = (near(1, model="mid"), near(2))
        effect = self.scored(flow)
        assert self.said(effect) == ("mid", ["q2", "a2", "q"])
        effect = self.scored(flow)
        assert self.said(effect) == ("big", ["q"])
        assert "examples" not in launch.flight.ticket.outcome.detail

    def test_what_an_answer_was_scored_teaches_what_they_help(self) -> None:
        rig, launch, flow, _ = self.asking(0.2)
        self.scored(flow)
        call_id = launch.flight.ticket.outcome.call_id
        exemplars = rig.dispatcher.exemplars
        assert exemplars is not None
        for given in launch.flight.ticket.grades:
            rig.dispatcher.heard(grade(call_id, given.score))
        (known,) = exemplars.helpfulness._known.values()
        assert (known.with_.outcomes, known.without.outcomes) == (1, 0)

    @pytest.mark.parametrize("failure", [ConnectionError(), 400], ids=str)
    def test_where_no_answer_came_nothing_is_learnt_of_them(self, failure: Exception | int) -> None:
        rig, launch, flow, _ = self.asking()
        if isinstance(failure, int):
            effect = flow.send(Held(Head(failure, JSON_TYPE, iter(())), b'{"error":{"message":"too long"}}', True))
        else:
            effect = flow.throw(failure)
        assert self.said(effect) == ("big", ["q"])
        assert self.remembered(rig) == []
        assert "examples" not in launch.flight.ticket.outcome.detail

    def test_a_doubtful_answer_that_is_handed_on_after_all_says_that_it_had_some(self) -> None:
        _, launch, flow, _ = self.asking(0.2)
        effect = self.scored(flow)
        assert self.said(effect) == ("big", ["q"])
        with pytest.raises(StopIteration):
            flow.throw(ConnectionError())
        assert launch.flight.ticket.outcome.detail.endswith("; examples")

    def test_a_bypassed_call_has_none(self) -> None:
        rig = made(cascade=True, scorer=FakeScorer())
        course = Course(rig, request("q", model="auto", control="no-store"))
        assert self.said(course.effect) == ("tiny", ["q"])
        course.flow.close()


def grade(call_id: str, score: float | None, backend: str = "local", model: str = "tiny") -> GradeEvent:
    return GradeEvent(0.0, call_id, "auto", backend, model, "feedback", score)


class TestOutcomes:
    def test_grades_are_put_to_what_was_sent(self) -> None:
        rig = made()
        for _ in range(30):
            course, launch = launched(rig)
            has_examples = launch.flight.ticket.outcome.detail.endswith("examples")
            rig.dispatcher.heard(grade(launch.flight.ticket.outcome.call_id, float(has_examples)))
            rig.dispatcher.heard(grade(launch.flight.ticket.outcome.call_id, None))
            rig.dispatcher.heard(grade("unknown", 0.0))
            course.flow.close()
        exemplars = rig.dispatcher.exemplars
        assert exemplars is not None
        assert (exemplars.helpfulness.gain(group(rig)) or 0) > 0.5

    def test_nothing_is_remembered_without_an_id(self) -> None:
        rig = made()
        rig.keeps_outcomes = False
        _, launch = launched(rig)
        exemplars = rig.dispatcher.exemplars
        assert exemplars is not None
        exemplars.helpfulness._asked.clear()
        assert exemplars.dressed(launch.flight.ticket, launch.outgoing, "") is not None
        assert not exemplars.helpfulness._asked


class TestRouting:
    HEADS = {"auto": FakeHead({"tiny": 0.2, "mid": 0.2, "big": 0.9}, models=("tiny", "mid", "big"))}  # noqa: RUF012

    def test_it_counts_on_examples_that_help(self) -> None:
        rig = made(self.HEADS)
        assert sent(rig)[0] == "big"
        teach(rig, 1.0)
        assert sent(rig) == ("tiny", ["q2", "a2", "q1", "a1", "q"])

    def test_not_where_they_do_not(self) -> None:
        rig = made(self.HEADS)
        teach(rig, 0.0)
        assert sent(rig)[0] == "big"

    def test_not_where_there_are_none(self) -> None:
        rig = made(self.HEADS)
        teach(rig, 1.0)
        rig.cache.found.near = ()
        assert sent(rig)[0] == "big"
