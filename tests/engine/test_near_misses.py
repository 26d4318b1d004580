"""Steps the flow that sends a near miss's answer along as predicted output."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.cache.near import Near
from llm_proxy.draft.prediction import Kind
from llm_proxy.engine.effects import Compute, Forward, Held, Launch, Read
from llm_proxy.types import ChatRequest, Head, Outgoing, Usage
from tests.engine.flow_kit import Course
from tests.fakes import Found, Rig, body_of, completion, entry, request

PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 10}
PRICES = {"m": PRICE, "other": PRICE}
JSON_TYPE = [("content-type", "application/json")]
KIND = Kind("main", "m", 0)
NEAR = "The answer to almost the same."
EARNED_USD = 1.0

_waiting: list[Course] = []  # callers that are dropped have left


@pytest.fixture(autouse=True)
def _all_leave() -> Iterator[None]:
    yield
    _waiting.clear()


def made(main: dict[str, Any] | None = None, draft: dict[str, Any] | None = None, **sections: Any) -> Rig:
    """An engine whose searches end near a question, and whose calls have earned predictions."""
    backends = {
        "main": {"base_url": "https://main.test/v1", "takes_prediction": True, "prices": PRICES, **(main or {})},
        "spare": {"base_url": "https://spare.test/v1", "takes_prediction": True, "prices": PRICES},
    }
    rig = Rig({"backends": backends, "draft": {"predicted": True, **(draft or {})}, **sections})
    rig.cache.found = Found(refusal="number", similarity=0.95, near=(near(),))
    rig.near.predictions.earned(EARNED_USD)
    return rig


def near(text: str | None = NEAR, similarity: float = 0.95, **fields: Any) -> Near:
    return Near(entry("n" * 64, completion=body_of(completion(text)), **fields), similarity, 0.3)


def led(rig: Rig, call: ChatRequest | None = None) -> tuple[Course, Launch]:
    course = Course(rig, call or request(model="main/m"))
    course.board()
    course.search()
    _waiting.append(course)
    return course, course.expect(Launch)


def asked(rig: Rig, call: ChatRequest | None = None) -> tuple[Course, Launch, Any]:
    """A call whose flow stands before its request is sent; its first effect."""
    course, launch = led(rig, call)
    assert launch.asking is not None
    return course, launch, next(launch.asking)


def ends(flow: Any, value: Any) -> Any:
    """What a flow returns that ends with this."""
    with pytest.raises(StopIteration) as stop:
        flow.send(value)
    return stop.value.value


def answered(launch: Launch, usage: dict[str, Any] | None = None, text: str = "hello", **fields: Any) -> Any:
    """Let the upstream answer and the call be settled; its ticket."""
    body = completion(text, **({"usage": usage} if usage else {}), model="m", **fields)
    answer = Head(200, JSON_TYPE, iter(()))
    launch.opened(answer)
    ticket = launch.flight.ticket
    ticket.recorder.feed(body_of(body))
    ticket.recorder.end()
    flow = ticket.settle(ticket)
    value = None
    while True:
        try:
            effect = flow.send(value)
        except StopIteration:
            return ticket
        value = effect.call() if isinstance(effect, Compute) else None


def usage_of(accepted: int, rejected: int, answer: int = 10) -> dict[str, Any]:
    details = {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected}
    tokens = answer + rejected
    return {
        "prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens,
        "completion_tokens_details": details,
    }  # fmt: skip


def is_plain(rig: Rig, call: ChatRequest | None = None) -> bool:
    """Whether a call is sent as it would be without near misses."""
    _, launch = led(rig, call)
    return launch.asking is None and b"prediction" not in launch.outgoing.body


class TestSent:
    def test_the_nearest_one_with_a_text(self) -> None:
        rig = made()
        rig.cache.found.near = (near(None), near("second", 0.93), near("third", 0.92))
        course, launch, effect = asked(rig)
        sent = json.loads(effect.outgoing.body)
        assert sent.pop("prediction") == {"type": "content", "content": "second"}
        assert sent == json.loads(course.call.raw_for("m"))
        assert (effect.outgoing.url, effect.outgoing.model) == ("https://main.test/v1/chat/completions", "m")
        assert launch.flight.ticket.outcome.detail == "refused=number; similarity=0.950; predicted"
        head = Head(200, JSON_TYPE, iter(()))
        assert ends(launch.asking, head) is head

    def test_the_detail_stands_alone_where_nothing_else_is_said(self) -> None:
        rig = made()
        rig.cache.found.refusal = ""
        _, launch, _ = asked(rig)
        assert launch.flight.ticket.outcome.detail == "predicted"

    def test_off_by_default(self) -> None:
        rig = made(draft={"predicted": False})
        assert rig.chains._sends is rig.attempts
        assert is_plain(rig)
        assert rig.near._takes_prediction(Outgoing("", (), b"", "main", "m")) is False

    @pytest.mark.parametrize(
        "main",
        [
            {"takes_prediction": False}, {"limits": {"m": {"takes_prediction": False}}},
            {"prices": {}},
        ],
    )  # fmt: skip
    def test_only_to_who_takes_it_at_a_known_price(self, main: dict[str, Any]) -> None:
        assert is_plain(made(main))

    def test_one_model_may_take_it_alone(self) -> None:
        rig = made({"takes_prediction": False, "limits": {"m": {"takes_prediction": True}, "other": {}}})
        assert is_plain(rig, request(model="main/other"))
        asked(rig)

    @pytest.mark.parametrize(
        "fields", [{"n": 2}, {"tools": [{"type": "function"}]}, {"prediction": {"type": "content", "content": "x"}}]
    )
    def test_only_with_parameters_that_go_with_one(self, fields: dict[str, Any]) -> None:
        _, launch = led(made(), request(model="main/m", **fields)) if "n" not in fields else led_exact(made(), fields)
        assert launch.asking is None

    def test_not_without_a_near_miss(self) -> None:
        rig = made()
        rig.cache.found.near = ()
        assert is_plain(rig)

    def test_not_before_it_is_earned(self) -> None:
        rig = made(draft={"max_extra_cost": 0.0})
        assert is_plain(rig)

    def test_the_callers_own_upstream_is_left_alone(self) -> None:
        rig = Rig({"draft": {"predicted": True}})
        rig.cache.found = Found(near=(near(),))
        assert is_plain(rig, request())

    def test_a_bypassed_call_has_none(self) -> None:
        course = Course(made(), request(model="main/m", control="no-store"))
        assert course.expect(Forward).outgoing.body == course.call.raw_for("m")

    def test_trouble_is_counted_and_the_call_goes_on(self) -> None:
        rig = made()
        rig.cache.found.near = (replace(near(), entry=None),)  # type: ignore[arg-type]
        assert is_plain(rig)
        assert rig.troubles.counts["draft"] == 1


def led_exact(rig: Rig, fields: dict[str, Any]) -> tuple[Course, Launch]:
    """A call that is found by its exact key only, with near misses all the same."""
    course = Course(rig, request(model="main/m", **fields))
    flight = course.board()
    flight.ticket.near = (near(),)
    return course, course.expect(Launch)


class TestSettled:
    def test_what_is_accepted_and_what_is_rejected(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        assert rig.near.predictions.set_aside_usd == pytest.approx(5 * 10e-6)
        rig.clock.advance(0.5)
        ticket = answered(launch, usage_of(8, 3))
        predictions = rig.near.predictions
        assert predictions.accepted_share(KIND) == pytest.approx(0.8)
        assert predictions.set_aside_usd == 0.0
        assert predictions.extra_usd == pytest.approx(3 * 10e-6)
        assert predictions.plain_usd == pytest.approx(EARNED_USD + 10e-6 + 10 * 10e-6)
        assert rig.event.usage == Usage(10, 13, accepted_tokens=8, rejected_tokens=3)
        assert rig.event.outcome.cost_usd == pytest.approx(10e-6 + 13 * 10e-6), "what the server bills"
        assert ticket.outcome.is_stored

    def test_the_answer_is_stored_as_if_it_had_come_without(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        ticket = answered(launch, usage_of(8, 3), "fresh")
        stored = rig.cache.entries[ticket.fingerprint.key]
        found = json.loads(stored.completion)
        assert found["choices"][0]["message"]["content"] == "fresh"
        assert found["usage"] == usage_of(0, 0)
        assert stored.cost_usd == pytest.approx(10e-6 + 10 * 10e-6), "what asking again costs"

    def test_the_callers_own_prediction_is_its_own(self) -> None:
        rig = made()
        call = request(model="main/m", prediction={"type": "content", "content": "x"})
        _, launch = led(rig, call)
        ticket = answered(launch, usage_of(8, 3))
        assert json.loads(rig.cache.entries[ticket.fingerprint.key].completion)["usage"] == usage_of(8, 3)

    def test_lengths_are_learnt_without_what_was_rejected(self) -> None:
        rig = made()
        seen: list[Any] = []
        rig.settler._appraiser = type("Seen", (), {"observe": seen.append, "again": lambda *_: None})
        for usage in (usage_of(8, 3), usage_of(0, 0)):
            _, launch = led(rig, request(str(len(seen)), model="main/m"))
            answered(launch, usage)
        assert [one.completion_tokens for one in seen] == [10, 10]

    def test_plain_calls_earn_and_are_timed(self) -> None:
        rig = made()
        rig.cache.found.near = ()
        _, launch = led(rig)
        rig.clock.advance(2.0)
        answered(launch, usage_of(0, 0))
        predictions = rig.near.predictions
        assert predictions.plain_usd == pytest.approx(EARNED_USD + 110e-6)
        assert predictions._plain_of(KIND).ratio(10, 1.0) == pytest.approx(0.5)

    def test_an_answer_that_says_nothing_teaches_nothing(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        answered(launch, {"total_tokens": 3})
        assert rig.near.predictions.plain_usd == EARNED_USD

    def test_another_backends_answer_teaches_nothing(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        ticket = launch.flight.ticket
        ticket.outcome = ticket.outcome.with_changes(backend="spare")
        answered(launch, usage_of(8, 3))
        assert rig.near.predictions.accepted_share(KIND) == 0.0
        assert rig.near.predictions.set_aside_usd == 0.0

    def test_trouble_is_counted_and_what_was_set_aside_is_free(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        rig.near._prices = None  # type: ignore[assignment]
        answered(launch, usage_of(8, 3))
        assert rig.troubles.counts["draft"] == 1
        assert rig.near.predictions.set_aside_usd == 0.0
        assert rig.event.http_status == 200

    def test_an_answer_that_never_ends_gives_back_too(self) -> None:
        rig = made()
        course, launch, _ = asked(rig)
        assert rig.near.predictions.set_aside_usd > 0.0
        _waiting.clear()
        launch.asking.close()  # type: ignore[union-attr]
        course.flow.close()
        del course, launch
        gc.collect()
        assert rig.near.predictions.set_aside_usd == 0.0


class TestRefused:
    def refused(self, rig: Rig, status: int = 400, message: str = "Unrecognized argument: prediction") -> Any:
        course, launch, _ = asked(rig)
        refusal = Head(status, JSON_TYPE, iter(()))
        flow: Any = launch.asking
        assert flow.send(refusal) == Read(refusal, 1 << 20, 10.0, keeps_rest=False)
        effect = flow.send(Held(refusal, body_of({"error": {"message": message}}), True))
        return course, launch, effect

    def test_it_is_sent_without_at_once_and_never_again_with_one(self) -> None:
        rig = made()
        course, launch, effect = self.refused(rig)
        assert effect.outgoing.body == course.call.raw_for("m")
        assert launch.flight.ticket.outcome.detail == "refused=number; similarity=0.950"
        head = Head(200, JSON_TYPE, iter(()))
        assert ends(launch.asking, head) is head
        ticket = answered(launch, usage_of(0, 0))
        assert rig.near.predictions.set_aside_usd == 0.0
        assert not ticket.is_predicted
        assert is_plain(rig, request("next", model="main/m"))

    def test_also_where_it_does_not_say_why(self) -> None:
        rig = made()
        _, launch, _ = self.refused(rig, 422, "no")
        ends(launch.asking, Head(200, JSON_TYPE, iter(())))
        assert is_plain(rig, request("next", model="main/m"))

    def test_what_is_wrong_without_it_too_is_handed_on(self) -> None:
        rig = made()
        _, launch, _ = self.refused(rig, 400, "temperature is too high")
        head = Head(400, JSON_TYPE, iter(()))
        assert ends(launch.asking, head) is head
        assert ("main", "m") not in rig.near.predictions._refusing

    def test_the_key_of_the_request_is_not_used_twice(self) -> None:
        call = request(model="main/m")
        keyed = ChatRequest(call.body, call.raw, {**call.headers, "idempotency-key": "k"}, call.endpoint)
        rig = made()
        _, launch, effect = asked(rig, keyed)
        assert ("idempotency-key", "k") in effect.outgoing.headers
        refusal = Head(400, JSON_TYPE, iter(()))
        flow: Any = launch.asking
        flow.send(refusal)
        effect = flow.send(Held(refusal, b"prediction", True))
        assert ("idempotency-key", "k") not in effect.outgoing.headers

    @pytest.mark.parametrize("status", [401, 429, 500])
    def test_other_errors_are_handed_on_and_count_against_it(self, status: int) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        head = Head(status, JSON_TYPE, iter(()))
        assert ends(launch.asking, head) is head
        assert is_plain(rig, request("next", model="main/m"))

    def test_so_do_those_that_bring_no_answer(self) -> None:
        rig = made()
        _, launch, _ = asked(rig)
        with pytest.raises(OSError, match="gone"):
            launch.asking.throw(OSError("gone"))  # type: ignore[union-attr]
        assert is_plain(rig, request("next", model="main/m"))


class TestElsewhere:
    def test_another_attempt_has_no_prediction(self) -> None:
        rig = made({"fallbacks": ["spare"]})
        course, launch, effect = asked(rig)
        assert b"prediction" in effect.outgoing.body
        flow: Any = launch.asking
        broken = Head(503, JSON_TYPE, iter(()))
        flow.send(broken)
        effect = flow.send(Held(broken, b"{}", True))
        assert (effect.outgoing.backend, b"prediction" in effect.outgoing.body) == ("spare", False)
        head = Head(200, JSON_TYPE, iter(()))
        flow.send(head)
        assert ends(flow, Held(head, body_of(completion()), True)) is head
        answered(launch, usage_of(0, 0))
        assert rig.near.predictions.set_aside_usd == 0.0
        assert course.answer is None

    def test_a_refused_prediction_is_booked_once(self) -> None:
        rig = made({"retries": 1})
        _, launch, _ = asked(rig)
        flow: Any = launch.asking
        refusal = Head(400, JSON_TYPE, iter(()))
        flow.send(refusal)
        assert isinstance(flow.send(Held(refusal, b'{"error":{"message":"prediction?"}}', True)), Read)
        effect = flow.send(Held(refusal, b'{"error":{"message":"prediction?"}}', True))
        assert b"prediction" not in effect.outgoing.body
        head = Head(200, JSON_TYPE, iter(()))
        flow.send(head)
        assert ends(flow, Held(head, body_of(completion()), True)) is head
        answered(launch)
        assert rig.event.outcome.attempts == "main/m 400, main/m"
