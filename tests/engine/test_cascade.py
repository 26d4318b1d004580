"""Steps a cascade through what is asked, thought of it, handed on and booked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_proxy.engine.attempts import Attempts
from llm_proxy.engine.effects import Compute, Held, Hold, Late, Launch
from llm_proxy.engine.ports import Live
from llm_proxy.errors import RouterError
from tests.engine.cascade_kit import LARGE_USD, SMALL_USD, Appraiser, Steps, choice, held, rig, with_message
from tests.engine.flow_kit import TEXT, Course
from tests.fakes import FakeScorer, Rig, body_of, completion, events_of, head, request


class TestKept:
    def test_a_good_answer_is_handed_on(self) -> None:
        made = rig()
        course = Steps(made)
        effect = course.expect(Hold)
        assert (effect.limit_bytes, effect.limit_s, effect.keeps_rest) == (1 << 20, math.inf, True)
        course.hold(held())
        course.score()
        assert course.effect is None
        assert course.answer.status == 200
        course.settle(course.answer)
        (question, reply, encoding) = made.scorer.asked[0]
        assert (question, reply.text, reply.finish_reason, reply.logprobs, encoding) == (
            "2 and 2?",
            "hello",
            "stop",
            (),
            None,
        )
        outcome = made.event.outcome
        assert (outcome.cascade, outcome.backend, outcome.cost_usd) == ("small 0.90", "b", SMALL_USD)
        (entry,) = made.cache.entries.values()
        assert entry.cost_usd == SMALL_USD

    def test_a_stream_is_held_back_for_a_while(self) -> None:
        course = Steps(rig(cascade_buffer_s=3), stream=True)
        effect = course.expect(Hold)
        assert (effect.limit_bytes, effect.limit_s) == (16 << 20, 3)
        course.hold(held(events_of("he", "llo")))
        course.score()
        assert course.rig.scorer.asked[0][1].text == "hello"
        assert course.answer.header("content-type") == TEXT

    def test_what_is_not_whole_is_passed_on_unseen(self) -> None:
        made = rig()
        course = Steps(made, stream=True)
        course.hold(held(events_of("he", is_done=False), is_whole=False))
        assert course.effect is None
        assert made.scorer.asked == []
        assert course.launch.flight.ticket.outcome.cascade == "small unseen"

    def test_without_a_flight_the_head_is_the_answer(self) -> None:
        made = rig(cascade_bar=0.9)
        course = Steps(made, temperature=1.5)
        course.hold(held())
        course.score()
        assert isinstance(course.answer, Live)
        assert made.event.outcome.headers[-1] == ("x-llm-proxy-cascade", '"small 0.90"')

    @pytest.mark.parametrize(
        ("message", "thought"),
        [
            ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "call"),
            ({"content": None, "tool_calls": [{"custom": {"name": "f", "input": "x"}}]}, "call"),
            ({"content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}, "call"),
        ],
    )
    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [{"type": "function"}]},  # whatever its name is
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
            {"functions": [{"name": "f"}]},
        ],
    )
    def test_calls_of_tools(self, message: Any, thought: str, fields: Any) -> None:
        course = Steps(rig(), **fields)
        course.hold(held(with_message(message)))
        assert course.effect is None
        assert course.launch.flight.ticket.outcome.cascade == f"small {thought}"

    def test_json_where_it_was_asked_for(self) -> None:
        course = Steps(rig(), response_format={"type": "json_object"})
        course.hold(held(completion('{"a": 1}')))
        assert course.launch.flight.ticket.outcome.cascade == "small json"

    def test_a_cut_answer_is_read_where_its_caller_wanted_it_short(self) -> None:
        made = rig()
        course = Steps(made, max_tokens=5, response_format={"type": "text"})
        course.hold(
            held(completion(finish="length", choices=[choice("hello", finish="length", logprobs=[-0.5, -1.5])]))
        )
        course.score()
        assert course.effect is None
        assert made.scorer.asked[0][1].logprobs == (-0.5, -1.5)


class TestGivenUp:
    def test_both_answers_are_paid_for(self) -> None:
        made = rig(scorer=FakeScorer(0.31))
        course = Steps(made)
        made.clock.advance(1)
        course.hold(held())
        course.score()
        course.compute()
        course.forwarded()
        course.last(head([body_of(completion("4", model="large"))]))
        made.clock.advance(2)
        course.settle(course.answer)
        outcome = made.event.outcome
        assert (outcome.cascade, outcome.model, outcome.cost_usd) == (
            "small 0.31, large",
            "large",
            SMALL_USD + LARGE_USD,
        )
        (entry,) = made.cache.entries.values()
        assert (entry.cost_usd, entry.latency_s) == (SMALL_USD + LARGE_USD, 3)
        assert b'"4"' in entry.completion

    def test_the_estimates_learn_of_each(self) -> None:
        made = rig(scorer=FakeScorer(0.31))
        seen: list[Any] = []
        made.settler._appraiser = Appraiser(seen)
        course = Steps(made)
        course.hold(held())
        course.score()
        course.compute()
        course.last(head([body_of(completion("4", model="large"))]))
        made.clock.advance(2)
        course.settle(course.answer)
        assert [(call.model, call.completion_tokens, call.latency_s) for call in seen] == [
            ("small", 5, 0),
            ("large", 5, 2),
        ]

    @pytest.mark.parametrize(
        ("answer", "thought"),
        [
            (ConnectionError("gone"), "failed"),
            ("status", "status-500"),
            ("page", "incomplete"),
            (completion(""), "empty"),
            (completion("I am", finish="length"), "finish-length"),
            (completion("no", choices=[choice("no", refusal="I will not")]), "refusal"),
            (completion("x", choices=[]), "no-choices"),
        ],
    )
    def test_what_is_no_answer_is_not_read(self, answer: Any, thought: str) -> None:
        made = rig()
        course = Steps(made)
        if answer == "status":
            answer = held({"error": {"message": "x"}}, status=500)
        elif answer == "page":
            answer = Held(head([b"<p>"], content_type="text/html"), b"<p>", True)
        course.hold(answer if isinstance(answer, (Held, Exception)) else held(answer))
        if isinstance(course.effect, Compute):
            course.compute()
        course.forwarded()
        assert made.scorer.asked == []
        assert course.launch.flight.ticket.outcome.cascade == f"small {thought}, large"

    @pytest.mark.parametrize("arguments", ["{", "", "[" * 100_000])
    def test_a_damaged_call_of_a_tool(self, arguments: str) -> None:
        course = Steps(rig(), functions=[{"name": "f"}])
        course.hold(held(with_message({"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]})))
        course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cascade == "small bad-call, large"

    @pytest.mark.parametrize("fields", [{}, {"tools": [{"type": "function", "function": {"name": "g"}}]}])
    @pytest.mark.parametrize(
        "message",
        [
            {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"tool_calls": [{"custom": {"name": "f", "input": "x"}}]},
            {"function_call": {"name": "f", "arguments": "{}"}},
        ],
    )
    def test_a_call_of_a_tool_that_was_not_offered(self, message: Any, fields: Any) -> None:
        course = Steps(rig(), **fields)
        course.hold(held(with_message(message)))
        course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cascade == "small bad-call, large"

    def test_no_json_where_it_was_asked_for(self) -> None:
        course = Steps(rig(), response_format={"type": "json_schema"})
        course.hold(held(completion("Sure: {")))
        course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cascade == "small bad-json, large"

    @pytest.mark.parametrize("trouble", [RouterError("no graph"), Late()])
    def test_trouble_with_the_scorer_asks_the_next(self, trouble: Exception) -> None:
        made = rig(scorer=FakeScorer(trouble))
        course = Steps(made)
        course.hold(held())
        course.compute()
        course.compute()
        course.forwarded()
        assert made.troubles.counts == {"cascade": 1}
        assert course.launch.flight.ticket.outcome.cascade == "small trouble, large"

    def test_trouble_with_the_bill_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = rig(scorer=FakeScorer(0.1))
        course = Steps(made)
        course.hold(held())
        course.score()
        course.throw(RuntimeError("prices"))
        course.forwarded()
        assert made.troubles.counts == {"cascade": 1}

    def test_an_answer_without_counts_and_estimates(self) -> None:
        made = rig(scorer=FakeScorer(0.1))
        course = Steps(made)
        course.hold(held(completion(usage=None)))
        course.score()
        course.compute()
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd > SMALL_USD  # estimated by its length

    def test_the_error_of_the_last_one_is_the_callers(self) -> None:
        made = rig(scorer=FakeScorer(0.1))
        course = Steps(made, temperature=1.5)
        course.hold(held(completion("")))
        course.compute()
        with pytest.raises(ConnectionError):
            course.throw(ConnectionError())
        assert (made.event.error, made.event.outcome.cost_usd) == ("ConnectionError", SMALL_USD)

    def test_a_key_of_the_request_stays_with_the_last(self) -> None:
        made = rig(scorer=FakeScorer(0.1))
        call = request("hi", model="auto")
        call.headers["idempotency-key"] = "1"  # type: ignore[index]
        course = Steps.__new__(Steps)
        Course.__init__(course, made, call)
        course.board()
        course.launch = course.effect
        course.flow = course.launch.asking
        course._step(lambda: next(course.flow))
        assert "idempotency-key" not in dict(course.expect(Hold).outgoing.headers)
        course.hold(held())
        course.score()
        course.compute()
        assert dict(course.expect(Hold).outgoing.headers)["idempotency-key"] == "1"


class TestSteps:
    def test_the_last_of_them_is_the_strongest(self) -> None:
        course = Steps(rig(models="small middle large", scorer=FakeScorer(0.1)))
        course.hold(held())
        course.score()
        course.compute()
        course.forwarded("large")

    def test_three_of_them(self) -> None:
        course = Steps(rig(models="small middle large", scorer=FakeScorer(0.1), cascade_steps=5))
        for model in ("small", "middle"):
            course.hold(held(), model)
            course.score()
            course.compute()
        course.forwarded("large")
        assert course.launch.flight.ticket.outcome.cascade == "small 0.10, middle 0.10, large"

    def test_where_there_is_none(self) -> None:
        for made, fields in (
            (rig(cascade=False), {}),
            (rig(), {"n": 2}),
            (rig(scorer=FakeScorer(is_usable=False)), {}),
        ):
            course = Course(made, request(model="auto", **fields))
            course.board()
            assert course.expect(Launch).asking.gi_code is Attempts._asking.__code__

    def test_a_router_in_trouble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = rig()

        def fails(*_: Any) -> Any:
            raise RouterError("x")

        monkeypatch.setattr(made.selector, "ladder", fails)
        course = Course(made, request(model="auto"))
        course.board()
        assert course.expect(Launch).asking.gi_code is Attempts._asking.__code__
        assert made.troubles.counts == {"router": 1}

    def test_a_candidate_that_can_not_take_the_request_is_passed_over(self) -> None:
        backends = {name: {"base_url": f"https://{name}.test/v1", "has_tools": name != "a"} for name in "abc"}
        routes = {"auto": {"candidates": ["a/x", "b/y", "c/z"], "cascade": True}}
        made = Rig({"backends": backends, "routes": routes}, encoder=None)
        assert made.dispatcher.ladder(request(tools=[{}]), made.selector.resolve(request(model="auto"))) == (
            ("b", "y"),
            ("c", "z"),
        )
