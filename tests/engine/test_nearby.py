"""Steps the flow that has a model nearby write the predicted output of a question without a near miss."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from llm_proxy.draft.prediction import AHEAD, Kind
from llm_proxy.engine.effects import Compute, Forward, Held, Hold, Late, Launch, Stand
from llm_proxy.errors import LimitReached
from llm_proxy.faces._http import httpx
from llm_proxy.types import Head
from tests.engine.flow_kit import Course
from tests.engine.test_near_misses import JSON_TYPE, PRICE, answered, made, near, usage_of
from tests.fakes import Found, Rig, body_of, completion, request

KIND = Kind("main", "m", AHEAD)
SMALL = {"base_url": "http://127.0.0.1:9/v1"}
DRAFT = "What a small model says."
SMALL_USD = (10 * 1 + 10 * 10) / 1e6
_waiting: list[Course] = []  # callers that are dropped have left


def ahead(small: dict[str, Any] | None = None, main: dict[str, Any] | None = None, **draft: Any) -> Rig:
    """An engine whose questions have no near miss, and which knows what plain answers take."""
    backends = {
        "main": {
            "base_url": "https://main.test/v1", "takes_prediction": True, "prices": {"m": PRICE},
            "predict_with": "small/s", **(main or {}),
        },
        "small": {**SMALL, **(small or {})},
    }  # fmt: skip
    rig = made(draft=draft, backends=backends)
    rig.cache.found = Found()
    for _ in range(3):
        rig.near.predictions.answered(KIND, 10, 1.0)
    return rig


def begun(rig: Rig, **fields: Any) -> tuple[Launch, Any]:
    """A call on its way: its flow, or None, and the first effect of that."""
    course = Course(rig, request(model="main/m", **fields))
    course.board()
    course.search()
    _waiting.append(course)
    launch = course.expect(Launch)
    return launch, None if launch.asking is None else next(launch.asking)


def said(value: Any = None, status: int = 200, *, is_whole: bool = True) -> Held:
    counts = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    body = body_of(completion(DRAFT, usage=counts) if value is None else value)
    return Held(Head(status, JSON_TYPE, iter((body,))), body, is_whole)


def on(launch: Launch, value: Any) -> Any:
    """What the flow does next with what the model nearby said."""
    flow: Any = launch.asking
    effect = flow.throw(value) if isinstance(value, Exception) else flow.send(value)
    while isinstance(effect, Compute):
        effect = flow.send(effect.call())
    return effect


def ends(launch: Launch) -> None:
    with pytest.raises(StopIteration):
        launch.asking.send(Head(200, JSON_TYPE, iter(())))  # type: ignore[union-attr]


class TestSent:
    def test_what_the_model_nearby_says_goes_along(self) -> None:
        rig = ahead()
        launch, effect = begun(rig, stream=True, stream_options={"include_usage": True})
        assert isinstance(effect, Hold)
        assert (effect.outgoing.url, effect.wait_s) == ("http://127.0.0.1:9/v1/chat/completions", 2.0)
        assert effect.outgoing.timeout_s == 2.0, "in a thread nothing else ends its wait"
        assert effect.limit_s == math.inf
        asked = json.loads(effect.outgoing.body)
        assert (asked["model"], "stream" in asked, "stream_options" in asked) == ("s", False, False)
        effect = on(launch, said())
        assert isinstance(effect, Forward)
        sent = json.loads(effect.outgoing.body)
        assert sent["prediction"] == {"type": "content", "content": DRAFT}
        assert (sent["model"], sent["stream"]) == ("m", True)
        ends(launch)
        outcome = launch.flight.ticket.outcome
        assert (outcome.detail, outcome.attempts) == ("predicted", "small/s ahead")

    def test_a_near_miss_needs_nobody(self) -> None:
        rig = ahead()
        rig.cache.found = Found(refusal="number", similarity=0.95, near=(near(),))
        _, effect = begun(rig)
        assert isinstance(effect, Forward)
        assert b"prediction" in effect.outgoing.body

    def test_the_key_of_the_request_is_not_used_twice(self) -> None:
        rig = ahead()
        call = request(model="main/m")
        call.headers["idempotency-key"] = "k1"  # type: ignore[index]
        course = Course(rig, call)
        course.board()
        course.search()
        flow: Any = course.expect(Launch).asking
        effect = next(flow)
        assert "idempotency-key" not in dict(effect.outgoing.headers)
        course.flow.close()

    @pytest.mark.parametrize(
        "fields", [{"max_completion_tokens": 5}, {"tools": [{"type": "function"}]}, {"stream": True}]
    )
    def test_only_with_parameters_that_go_with_one(self, fields: dict[str, Any]) -> None:
        _, effect = begun(ahead(), **fields)
        assert effect is None

    def test_off_by_default(self) -> None:
        _, effect = begun(ahead(main={"predict_with": ""}))
        assert effect is None

    def test_not_before_plain_answers_were_seen(self) -> None:
        rig = ahead()
        rig.near.predictions._plain.clear()
        assert begun(rig)[1] is None

    def test_one_of_sixteen_calls_stays_plain(self) -> None:
        rig = ahead()
        known = rig.near.predictions._of(KIND)
        known.accepted = known.answered = 100.0
        plain = [at for at in range(1, 49) if begun(rig, seed=at)[1] is None]
        assert plain == [16, 32, 48]


class TestTheModelNearbyFails:
    @pytest.mark.parametrize(
        "failure",
        [
            Late(),
            ConnectionError(),
            said(status=500),
            said({"error": {"message": "odd"}}),
            said(is_whole=False),
        ],
        ids=["late", "gone", "500", "odd", "too long"],
    )
    def test_the_call_goes_on_without_and_it_is_left_alone(self, failure: Any) -> None:
        rig = ahead()
        launch, _ = begun(rig)
        effect = on(launch, failure)
        assert isinstance(effect, Forward)
        assert b"prediction" not in effect.outgoing.body
        ends(launch)
        assert rig.troubles.counts["draft"] == 1
        assert begun(rig, seed=2)[1] is None
        rig.clock.advance(301)
        assert isinstance(begun(rig, seed=3)[1], Hold)

    def test_one_that_is_busy_is_asked_the_next_time(self) -> None:
        rig = ahead()
        launch, _ = begun(rig)
        assert isinstance(on(launch, LimitReached("too many calls", code="queue_full")), Forward)
        assert not rig.troubles.counts
        assert isinstance(begun(rig, seed=2)[1], Hold)

    @pytest.mark.parametrize(("callers_s", "limit_s"), [(None, 2.0), (600.0, 2.0), (0.5, 0.5)])
    def test_it_is_waited_for_no_longer_in_its_queue(self, callers_s: float | None, limit_s: float) -> None:
        rig = ahead({"concurrency": 1})
        line: Any = rig.gate._lines["small"]
        line.enter(1, "another")
        launch, effect = begun(rig, timeout_s=callers_s)
        assert isinstance(effect, Stand)
        assert effect.limit_s == limit_s
        effect = on(launch, Late())
        assert isinstance(effect, Forward)
        assert b"prediction" not in effect.outgoing.body
        assert line.waiting == 0
        assert begun(rig, seed=2)[1] is None, "it is left alone"

    def test_the_wait_in_its_queue_is_a_part_of_its_time(self) -> None:
        rig = ahead({"concurrency": 1})
        line: Any = rig.gate._lines["small"]
        turn = line.enter(1, "another")
        launch, effect = begun(rig)
        assert isinstance(effect, Stand)
        rig.clock.advance(1.5)
        line.leave(turn)
        effect = on(launch, None)
        assert isinstance(effect, Hold)
        assert (effect.wait_s, effect.outgoing.timeout_s) == (pytest.approx(0.5), pytest.approx(0.5))
        effect.outgoing.permit.dropped()
        launch.asking.close()  # type: ignore[union-attr]

    @pytest.mark.parametrize("answer", [completion(""), completion(None)])
    def test_what_has_no_text_predicts_nothing(self, answer: Any) -> None:
        rig = ahead()
        launch, _ = begun(rig)
        effect = on(launch, said(answer))
        assert b"prediction" not in effect.outgoing.body
        assert not rig.troubles.counts
        assert rig.near.predictions.set_aside_usd == 0.0


class TestWhatItTakes:
    def test_its_cost_is_the_calls_and_in_the_account(self) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        on(launch, said())
        ends(launch)
        ticket = answered(launch, usage_of(accepted=10, rejected=0))
        assert rig.near.predictions.extra_usd - before == pytest.approx(SMALL_USD)
        assert ticket.outcome.cost_usd == pytest.approx(2 * SMALL_USD)

    @pytest.mark.parametrize("late", [Late(), httpx.ReadTimeout("")], ids=["late", "timeout"])
    def test_one_that_is_late_costs_its_prompt(self, late: Exception) -> None:
        """It was sent, and what was made of it nobody tells."""
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        on(launch, late)
        ends(launch)
        prompt_usd = len(launch.flight.ticket.request.raw) // 4 / 1e6
        assert rig.near.predictions.extra_usd - before == pytest.approx(prompt_usd)
        ticket = answered(launch, usage_of(accepted=0, rejected=0))
        assert ticket.outcome.cost_usd == pytest.approx(SMALL_USD + prompt_usd)
        assert ticket.outcome.attempts == "small/s ahead in vain"

    def test_one_that_is_too_large_costs_what_came(self) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        cut = said(is_whole=False)
        on(launch, cut)
        prompt = len(launch.flight.ticket.request.raw) // 4
        assert rig.near.predictions.extra_usd - before == pytest.approx((prompt + len(cut.body) // 4 * 10) / 1e6)

    @pytest.mark.parametrize("body", [b"<html>odd page</html>", b'{"choices": [{"index": 0, "mess'])
    def test_one_that_is_no_answer_costs_what_came(self, body: bytes) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        on(launch, Held(Head(200, JSON_TYPE, iter((body,))), body, True))
        prompt = len(launch.flight.ticket.request.raw) // 4
        assert rig.near.predictions.extra_usd - before == pytest.approx((prompt + len(body) // 4 * 10) / 1e6)

    @pytest.mark.parametrize(
        "failure",
        [httpx.ConnectTimeout(""), httpx.ConnectError(""), httpx.ReadError(""), said(status=500, is_whole=False)],
        ids=["no connection in time", "refused", "reset", "500"],
    )
    def test_one_that_never_had_it_or_says_no_costs_nothing(self, failure: Any) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        on(launch, failure)
        ends(launch)
        assert rig.near.predictions.extra_usd == before
        assert launch.flight.ticket.outcome.attempts == ""

    def test_what_it_may_cost_is_set_aside_before_it_is_asked(self) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        launch, effect = begun(rig)
        at_once_usd = rig.near.predictions.set_aside_usd
        prompt_tokens = len(launch.outgoing.body) // 4
        assert at_once_usd == pytest.approx((prompt_tokens + 300 * 10 + 300 * 10) / 1e6)
        assert isinstance(effect, Hold)
        rig.near.predictions.extra_usd = 0.25 - 1.5 * at_once_usd
        assert begun(rig, seed=2)[1] is None, "there is room for one of them only"

    def test_its_cost_is_in_the_account_where_the_call_fails(self) -> None:
        rig = ahead({"prices": {"s": PRICE}})
        before = rig.near.predictions.extra_usd
        launch, _ = begun(rig)
        on(launch, said())
        with pytest.raises(ConnectionError):
            launch.asking.throw(ConnectionError())  # type: ignore[union-attr]
        assert rig.near.predictions.extra_usd - before == pytest.approx(SMALL_USD)

    def test_where_there_is_no_room_for_what_was_said_it_is_not_sent(self) -> None:
        rig = ahead()
        rig.near.predictions.extra_usd = 0.25 - 310 * 10 / 1e6
        launch, effect = begun(rig)
        assert isinstance(effect, Hold)
        counts = {"prompt_tokens": 10, "completion_tokens": 400, "total_tokens": 410}
        effect = on(launch, said(completion(DRAFT, usage=counts)))
        assert b"prediction" not in effect.outgoing.body
        assert rig.near.predictions.set_aside_usd == 0.0
        assert rig.nearby.usual_tokens("small/s") == 320

    def test_its_wait_counts_against_predictions_and_not_against_plain_answers(self) -> None:
        rig = ahead()
        launch, _ = begun(rig)
        rig.clock.advance(1.5)
        on(launch, said())
        rig.clock.advance(0.5)
        answered(launch, usage_of(accepted=10, rejected=0))
        known = rig.near.predictions._of(KIND)
        assert (known.ratio, known.timed) == (pytest.approx(2.0), 1.0)
        launch, _ = begun(rig, seed=2)
        rig.clock.advance(1.5)
        on(launch, said(completion("")))
        rig.clock.advance(1.0)
        answered(launch, usage_of(accepted=0, rejected=0))
        assert rig.near.predictions._plain_of(KIND).ratio(10, 1.0) == pytest.approx(1.0)

    def test_where_it_makes_answers_later_it_stops(self) -> None:
        rig = ahead()
        asked = 0
        for number in range(40):
            launch, effect = begun(rig, seed=number)
            asked += effect is not None
            rig.clock.advance(1.0)
            if effect is not None:
                rig.clock.advance(0.5)
                on(launch, said())
            answered(launch, usage_of(accepted=10 if effect is not None else 0, rejected=0))
        assert asked <= 10

    def test_what_it_takes_is_known_to_the_estimates(self) -> None:
        rig = ahead()
        seen: list[Any] = []
        rig.settler._appraiser = type("Seen", (), {"observe": staticmethod(seen.append)})()  # type: ignore[assignment]
        launch, _ = begun(rig)
        rig.clock.advance(1.5)
        on(launch, said())
        (finished,) = seen
        assert (finished.backend, finished.model, finished.latency_s) == ("small", "s", pytest.approx(1.5))
