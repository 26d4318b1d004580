"""Steps what is learnt from routed calls through every path: what is noted, asked, compared, and what it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.cache.judge import normalised
from llm_proxy.engine.allowance import MOST_AT_ONCE
from llm_proxy.engine.effects import Aside, Board, Compute, Fetch, Fetched, Forward, Launch
from llm_proxy.engine.fingerprint import owner_of, tenant_of
from llm_proxy.observe.events import GradeEvent, HitEvent, RoutedEvent
from llm_proxy.route.second import AsGood
from llm_proxy.types import ChatRequest
from tests.engine.cascade_kit import Steps
from tests.engine.cascade_kit import held as held_back
from tests.engine.flow_kit import flown, step_upstream
from tests.engine.test_shadow import answered, drive, served
from tests.fakes import Rig, body_of, completion, head, request

PRICES = {
    name: {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": price}
    for name, price in {"small": 1e3, "middle": 2e3, "large": 1e4, "judge": 1e4}.items()
}
BACKENDS = {"b": {"base_url": "https://b.test/v1", "api_key": "k", "prices": PRICES}}
SMALL_USD, LARGE_USD = 0.005, 0.05  # five tokens each


def rig(*, models: str = "small large", cache: Any = None, more: Any = None, **route: Any) -> Rig:
    settings = {
        "candidates": [f"b/{model}" for model in models.split()],
        "compare_share": 0.5,
        "compare_usd_per_day": 1.0,
        **route,
    }
    sections = {"backends": BACKENDS, "routes": {"auto": settings}, "cache": {"semantic": False, **(cache or {})}}
    return Rig(sections, **{"chance": 0.0, **(more or {})})


class Routed:
    """A call that a route decides, from its first step until its answer is settled."""

    def __init__(self, rig: Rig, call: ChatRequest | None = None, said: Any = "hello", status: int = 200) -> None:
        self.rig, self.call = rig, call or request("2 and 2?", model="auto")
        self.aside: Aside | None = None
        flow = rig.engine.answer(self.call)
        effect: Any = next(flow)
        if isinstance(effect, Board):
            flight = flown(effect.ticket)
            effect = flow.send((flight, flight.join()))
        value = completion(said) if said is None or isinstance(said, str) else said
        raw = value if isinstance(value, bytes) else body_of(value)
        opened = head((raw,), status=status)
        assert isinstance(effect, (Launch, Forward))
        if isinstance(effect, Launch):
            effect.opened(opened)
        self.outgoing = effect.outgoing
        with pytest.raises(StopIteration) as stop:
            step_upstream(flow, opened, raw)
        self.answer = stop.value.value
        if isinstance(effect, Launch) and status == 200:
            self.settle(effect.flight.ticket, raw)

    def settle(self, ticket: Any, body: bytes) -> None:
        self.ticket = ticket
        ticket.recorder.feed(body)
        ticket.recorder.end()
        drive(ticket.settle(ticket), self.perform)

    def perform(self, effect: Any) -> Any:
        if isinstance(effect, Aside):
            self.aside = effect
            return None
        assert isinstance(effect, Compute), effect
        return effect.call()

    def compared(self, *answers: Any) -> list[dict[str, Any]]:
        """Drive the comparison; each answer is fetched, or raised. The bodies of what was asked."""
        assert self.aside is not None, "it was not drawn"
        left, asked = list(answers), []

        def perform(effect: Any) -> Any:
            if isinstance(effect, Compute):
                return effect.call()
            assert isinstance(effect, Fetch)
            asked.append(effect)
            answer = left.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        drive(self.aside.flow, perform)
        self.aside.ended()
        assert not left
        self.fetched = asked
        return [json.loads(effect.outgoing.body) for effect in asked]


def reply(text: str | None = "hello", status: int = 200, **fields: Any) -> Fetched:
    return answered(completion(text, **fields), status)


def routed_in(rig: Rig) -> list[RoutedEvent]:
    return [event for event in rig.noted if isinstance(event, RoutedEvent)]


def grades_in(rig: Rig) -> dict[str, float | None]:
    """Scores by model; what was spent under the empty name."""
    return {event.model: event.score for event in rig.noted if isinstance(event, GradeEvent)}


def spent_in(rig: Rig) -> float:
    return sum(event.spent_usd for event in rig.noted if isinstance(event, GradeEvent))


class TestNoted:
    def test_a_routed_call(self) -> None:
        bench = rig(compare_share=0.0)
        call = Routed(bench)
        (event,) = routed_in(bench)
        assert (event.call_id, event.route, event.backend, event.model) == ("r1", "auto", "b", "small")
        assert event.candidates == ("b/small", "b/large")
        assert event.question == "2 and 2?"
        assert event.usage is not None
        assert (event.usage.completion_tokens, event.cost_usd) == (5, SMALL_USD)
        assert event.owner == owner_of("r1", tenant_of(call.call, "api_key"))
        assert call.answer.outcome.id == "r1"
        assert ("x-llm-proxy-id", "r1") in call.answer.outcome.headers
        assert call.aside is None

    def test_its_vector_where_there_is_one(self) -> None:
        bench = rig(cache={"semantic": True}, compare_share=0.0)
        flow = bench.engine.answer(request("2 and 2?", model="auto"))
        effect: Any = next(flow)
        flight = flown(effect.ticket)
        effect = flow.send((flight, flight.join()))
        effect = flow.send(effect.call())
        effect.opened(head((body_of(completion()),)))
        ticket = flight.ticket
        ticket.recorder.feed(body_of(completion()))
        ticket.recorder.end()
        drive(ticket.settle(ticket), lambda effect: effect.call())
        (event,) = routed_in(bench)
        assert event.encoder == "fake"
        assert event.vector is ticket.encoding.vector

    def test_a_model_that_was_named_is_not(self) -> None:
        bench = rig()
        call = Routed(bench, request(model="b/small"))
        assert bench.noted == []
        assert call.answer.outcome.id == ""

    def test_the_model_that_was_asked_counts_whatever_the_upstream_calls_it(self) -> None:
        bench = rig(compare_share=0.0)
        Routed(bench, said=completion(model="small-2024-07-18"))
        assert routed_in(bench)[0].model == "small"

    def test_who_wants_nothing_stored_is_obeyed(self) -> None:
        bench = rig()
        call = Routed(bench, request(model="auto", control="no-store"))
        assert bench.noted == []
        assert call.answer.outcome.id == ""

    @pytest.mark.parametrize(("status", "count"), [(200, 1), (500, 0)])
    def test_a_call_whose_answer_is_not_recorded(self, status: int, count: int) -> None:
        bench = rig()
        Routed(bench, request(model="auto", temperature=2), status=status)
        assert [event.usage for event in bench.noted] == [None] * count

    def test_without_a_cache(self) -> None:
        bench = rig(cache={"enabled": False})
        Routed(bench)
        assert [event.model for event in routed_in(bench)] == ["small"]

    def test_an_answer_that_can_not_be_read_is_none(self) -> None:
        bench = rig()
        Routed(bench, said=b"{")
        assert bench.noted == []

    @pytest.mark.parametrize("said", [{"object": "list"}, completion(finish="length")])
    def test_one_that_is_not_whole_is_noted_and_not_compared(self, said: Any) -> None:
        bench = rig()
        assert Routed(bench, said=said).aside is None
        assert len(bench.noted) == 1

    def test_nothing_is_where_no_log_is_kept(self) -> None:
        bench = rig(more={"keeps_outcomes": False})
        call = Routed(bench)
        Routed(bench, request(model="auto", temperature=2))
        assert (bench.noted, call.answer.outcome.id) == ([], "")
        bench.learner.close()

    def test_who_got_a_semantic_hit(self) -> None:
        bench = Rig()
        course = served(bench)
        (event,) = bench.noted
        assert event == HitEvent(bench.clock.time(), course.answer.outcome.id, event.owner)
        assert event.owner == owner_of(event.call_id, tenant_of(course.call, "api_key"))

    def test_not_where_no_log_is_kept(self) -> None:
        assert served(Rig(keeps_outcomes=False)).answer.status == 200

    def test_trouble_is_no_concern_of_the_caller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = rig()

        def broken(event: Any) -> None:
            raise OSError

        monkeypatch.setattr(bench.learner, "_log", broken)
        Routed(bench)
        Routed(bench, request(model="auto", temperature=2))
        assert bench.troubles.counts == {"outcomes": 2}
        hits = Rig()
        monkeypatch.setattr(hits.learner, "_log", broken)
        assert served(hits).answer.status == 200
        assert hits.troubles.counts == {"outcomes": 1}


class TestDrawn:
    @pytest.mark.parametrize(("chance", "is_drawn"), [(0.0, True), (0.499, True), (0.5, False)])
    def test_a_share(self, chance: float, is_drawn: bool) -> None:
        assert (Routed(rig(more={"chance": chance})).aside is not None) is is_drawn

    @pytest.mark.parametrize(
        "fields", [{"tools": [{"type": "function", "function": {"name": "f"}}]}, {"n": 2}, {"functions": [{}]}]
    )
    def test_not_what_may_have_effects_or_has_several_answers(self, fields: Any) -> None:
        bench = rig()
        assert Routed(bench, request(model="auto", **fields)).aside is None
        assert len(routed_in(bench)) == 1

    def test_not_what_is_no_text(self) -> None:
        assert Routed(rig(), said=None).aside is None

    def test_few_at_a_time(self) -> None:
        bench = rig()
        calls = [Routed(bench, request(str(at), model="auto")) for at in range(MOST_AT_ONCE + 1)]
        assert [call.aside is not None for call in calls] == [True] * MOST_AT_ONCE + [False]
        calls[0].aside.ended()  # type: ignore[union-attr]
        assert Routed(bench, request("again", model="auto")).aside is not None


class TestCompared:
    @pytest.mark.parametrize(("text", "score"), [("hello", 1.0), ("Hello.", 1.0), ("bye", 0.0)])
    def test_a_cheap_answer_with_the_strongest(self, text: str, score: float) -> None:
        bench = rig()
        call = Routed(bench, request("2 and 2?", model="auto", temperature=0.3, stream=False, metadata={"a": "b"}))
        (asked,) = call.compared(reply(text))
        assert (asked["model"], asked["temperature"]) == ("large", 0.3)
        assert not {"stream", "metadata"} & set(asked)
        assert grades_in(bench) == {"small": score, "large": 1.0, "": None}
        events = {event.model: event for event in bench.noted if isinstance(event, GradeEvent)}
        assert {(event.call_id, event.route, event.source) for event in events.values()} == {
            ("r1", "auto", "comparison")
        }
        assert (events["small"].completion_tokens, events["small"].cost_usd) == (5, SMALL_USD)
        assert (events["large"].completion_tokens, events["large"].cost_usd) == (5, LARGE_USD)
        assert spent_in(bench) == pytest.approx(LARGE_USD)

    def test_an_answer_of_the_strongest_with_a_cheaper_one(self) -> None:
        bench = rig(models="small middle large", more={"chance": 0.49})
        call = Routed(bench, request("x" * 9000, model="auto"))
        assert call.outgoing.model == "large"
        (asked,) = call.compared(reply("bye"))
        assert asked["model"] == "small"
        assert grades_in(bench) == {"small": 0.0, "large": 1.0, "": None}

    def test_one_of_the_middle_with_the_strongest(self) -> None:
        bench = rig(models="small middle large", long_prompt_chars=10_000)
        call = Routed(bench, request("x" * 9000, model="auto"))
        assert call.outgoing.model == "middle"
        (asked,) = call.compared(reply("hello"))
        assert asked["model"] == "large"
        assert grades_in(bench) == {"middle": 1.0, "large": 1.0, "": None}

    def test_nobody_else_can_take_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for ladder in ((), (("b", "small"),)):
            bench = rig()
            call = Routed(bench)
            monkeypatch.setattr(bench.dispatcher, "ladder", lambda request, destination, ladder=ladder: ladder)
            assert call.compared() == []
            assert grades_in(bench) == {}

    @pytest.mark.parametrize(
        "answer",
        [
            OSError("refused"),
            reply(status=500),
            reply(None, finish="tool_calls"),
            reply(finish="length"),
            answered(b"{"),
            reply(choices=[{"index": 0, "message": {"content": ["x"]}, "finish_reason": "stop"}]),
        ],
    )
    def test_no_answer_tells_nothing_and_is_paid_for(self, answer: Any) -> None:
        bench = rig()
        Routed(bench).compared(answer)
        assert grades_in(bench) == {"": None}
        assert spent_in(bench) > 0
        assert not bench.troubles.counts

    def test_nobody_can_tell(self) -> None:
        bench = rig()
        long = "one thing and another, " * 10
        Routed(bench, said=long).compared(reply(long + "and more"))
        assert grades_in(bench) == {"": None}

    def test_no_more_than_the_days_dollars(self) -> None:
        bench = rig(compare_usd_per_day=0.0)
        assert Routed(bench).compared() == []
        assert bench.noted == routed_in(bench)

    def test_a_price_that_is_not_known(self) -> None:
        bench = rig(models="small nameless")
        assert Routed(bench).compared() == []
        assert bench.troubles.counts == {"comparison": 1}

    def test_what_was_under_way_at_the_end_is_booked_once(self) -> None:
        bench = rig()
        call = Routed(bench)
        assert call.aside is not None
        effect = next(call.aside.flow)
        while isinstance(effect, Compute):
            effect = call.aside.flow.send(effect.call())
        bench.learner.close()
        spent_usd = spent_in(bench)
        assert spent_usd > 0
        call.aside.flow.close()
        assert spent_in(bench) == spent_usd
        assert grades_in(bench) == {"": None}


class TestByAModel:
    def bench(self) -> Rig:
        return rig(compare_judge="b/judge", more={"judge": AsGood("b/judge", normalised)})

    @pytest.mark.parametrize(
        ("said", "found"),
        [("Both do. yes", {"small": 1.0, "large": 1.0, "": None}), ("**No.**", {"small": 0.0, "large": 1.0, "": None})],
    )
    def test_is_asked(self, said: str, found: Any) -> None:
        bench = self.bench()
        _, asked = Routed(bench).compared(reply("bye"), reply(said))
        assert asked["model"] == "judge"
        told = json.loads(asked["messages"][0]["content"].partition("\n\n")[2])
        assert told == {"question": "2 and 2?", "answer_1": "hello", "answer_2": "bye"}
        assert grades_in(bench) == found
        assert spent_in(bench) == pytest.approx(2 * LARGE_USD)

    def test_not_where_both_are_the_same(self) -> None:
        bench = self.bench()
        assert len(Routed(bench).compared(reply("Hello"))) == 1
        assert grades_in(bench)["small"] == 1.0

    @pytest.mark.parametrize("said", [reply("perhaps"), OSError("refused"), reply(None, finish="tool_calls")])
    def test_does_not_tell(self, said: Any) -> None:
        bench = self.bench()
        Routed(bench).compared(reply("bye"), said)
        assert grades_in(bench) == {"": None}


class TestCascades:
    def ended(self, bench: Rig) -> Steps:
        """A call in a cascade whose first answer was held back and looked at."""
        steps = Steps(bench)
        steps.hold(held_back(completion()))
        while isinstance(steps.effect, Compute):
            steps.compute()
        return steps

    def test_what_the_scorer_said(self) -> None:
        bench = rig(cascade=True, compare_share=0.0)
        steps = self.ended(bench)
        steps.settle(steps.answer)
        assert [(one.model, one.cost_usd) for one in routed_in(bench)] == [("small", None)]
        assert grades_in(bench) == {"small": 0.9}
        event = next(event for event in bench.noted if isinstance(event, GradeEvent))
        assert (event.source, event.completion_tokens) == ("score", 5)

    def test_an_answer_that_was_given_up(self) -> None:
        bench = rig(cascade=True, compare_share=0.0)
        bench.scorer.says = 0.25
        steps = self.ended(bench)
        answer = held_back(completion())
        steps.hold(answer, "large")
        steps.settle(answer.head)
        assert [one.model for one in routed_in(bench)] == ["large"]
        assert grades_in(bench) == {"small": 0.25}

    def test_those_that_it_looked_at_are_not_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = rig(cascade=True)
        call = Routed(rig(), request("x" * 9000, model="auto"))
        monkeypatch.setattr(bench.dispatcher, "ladder", lambda request, destination: (("b", "small"), ("b", "large")))
        known = {("b", "small")}
        assert bench.learner._other(call.call, call.answer.outcome.with_changes(model="large"), known) is None
        assert bench.learner._other(call.call, call.answer.outcome.with_changes(model="elsewhere"), known) is None
