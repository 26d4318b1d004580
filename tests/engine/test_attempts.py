"""Steps the flow that sends a call more than once: look at the effect, send its outcome."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.engine.call import Call
from llm_proxy.engine.effects import Forward, Held, Mend, Pause
from llm_proxy.errors import ASKED_ENOUGH, BackendTimeout, BackendUnavailable
from llm_proxy.faces._http import httpx
from llm_proxy.types import ChatRequest, Head
from tests.engine.attempts_kit import BROKEN, JSON_TYPE, STREAM_TYPE, Attempting, proxied, rig
from tests.engine.test_flow import Course
from tests.fakes import request


class TestWhere:
    @pytest.mark.parametrize(
        ("call", "settings", "is_asked_again"),
        [
            (request(model="gpt"), {}, False),
            (request(model="main/m"), {}, False),
            (request(model="main/m"), {"retries": 1}, True),
            (request(model="main/m"), {"fallbacks": ["spare"]}, True),
            (request(model="main/m"), {"hedge": True}, True),
            (request(model="main/m"), {"can_prefill": "prefix"}, True),
            (proxied(), {}, True),
            (proxied(), {"retries": 0}, False),
        ],
    )
    def test_only_where_there_is_something_to_do(
        self, call: ChatRequest, settings: dict[str, Any], is_asked_again: bool
    ) -> None:
        assert (Attempting(rig(settings), call).flow is not None) is is_asked_again

    def test_a_route_of_several(self) -> None:
        routes = {"one": {"candidates": ["main/m"]}, "two": {"candidates": ["main/m", "spare/m"]}}
        routes["named"] = {"candidates": ["main/m"], "fallbacks": ["spare/m"]}  # type: ignore[dict-item]
        found = {name: Attempting(rig(routes=routes), request(model=name)).flow is not None for name in routes}
        assert found == {"one": False, "two": True, "named": True}


class TestRetries:
    def test_an_answer_is_handed_on_as_it_came(self) -> None:
        made = Attempting(rig(), proxied())
        answer = made.answers()
        assert made.head is answer
        assert made.attempts == ""

    def test_a_call_through_the_proxy_is_sent_three_times(self) -> None:
        made = Attempting(rig(), proxied())
        made.refuses(500)
        waits = [made.pauses()]
        made.fails()
        waits.append(made.pauses())
        made.refuses(503)
        assert waits == [0.5, 1.0]
        assert made.head.status == 503
        assert made.head.header("x-should-retry") == "false"
        assert made.attempts == "main/m 500, main/m broken, main/m 503"
        made.opens()
        assert made.rig.event.http_status == 503
        assert made.rig.event.outcome.backend == "main"
        assert made.rig.selector.health.resting_s("main", "m") > 0, "three failures, each counted once"
        assert made.rig.selector.health.under_way("main") == 0

    def test_two_failures_count_as_two(self) -> None:
        made = Attempting(rig({"retries": 1}), proxied())
        made.refuses(500)
        made.pauses()
        made.refuses(500)
        made.opens()
        assert made.rig.selector.health.resting_s("main", "m") == 0.0
        assert made.rig.selector.health.under_way("main") == 0

    def test_what_was_raised_last_is_raised(self) -> None:
        made = Attempting(rig({"retries": 1}), proxied())
        made.refuses(500)
        made.pauses()
        gone = BackendUnavailable("gone")
        with pytest.raises(BackendUnavailable):
            made.fails(gone)
        assert gone.__notes__ == [ASKED_ENOUGH]

    def test_the_retries_of_a_client_are_its_own(self) -> None:
        call = request(model="main/m")
        made = ChatRequest(call.body, call.raw, {**call.headers, "x-stainless-retry-count": "0"}, call.endpoint)
        assert Attempting(rig({"retries": 5}), made).flow is None

    @pytest.mark.parametrize(("before", "sent"), [("0", 3), ("2", 2), ("3", 1), ("odd", 3), ("9999", 3)])
    def test_what_the_caller_of_the_proxy_sent_before_counts(self, before: str, sent: int) -> None:
        made = Attempting(rig(), proxied(headers={"x-stainless-retry-count": before}))
        for _ in range(sent - 1):
            made.refuses(500)
            made.pauses()
        made.refuses(500)
        assert made.head.status == 500

    def test_the_server_may_forbid_it(self) -> None:
        made = Attempting(rig(), proxied())
        made.refuses(500, ("x-should-retry", "false"))
        assert made.head.header("x-should-retry") == "false"

    def test_as_long_as_the_server_asks_for(self) -> None:
        made = Attempting(rig(), proxied())
        made.refuses(429, ("retry-after", "7"))
        assert made.rig.selector.health.resting_s("main", "m") == 7.0
        assert made.pauses() == 7.0
        made.answers()
        assert made.rig.selector.health.resting_s("main", "m") > 0, "it is well once its answer is whole"

    def test_longer_is_for_the_caller_to_wait(self) -> None:
        made = Attempting(rig(), proxied())
        made.refuses(429, ("retry-after", "70"))
        assert made.head.status == 429
        assert made.head.header("x-should-retry") == ""

    @pytest.mark.parametrize("status", [400, 401, 404, 422])
    def test_the_fault_of_the_request_is_handed_on(self, status: int) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), proxied())
        made.refuses(status)
        assert made.head.status == status

    def test_a_redirect_is_handed_on(self) -> None:
        made = Attempting(rig(), proxied())
        made.forwarded()
        made.send(Head(304, [], iter(())))
        assert made.head.status == 304

    def test_a_refusal_that_is_too_long_has_no_length_any_more(self) -> None:
        made = Attempting(rig(), proxied())
        made.refuses(400, ("content-length", "9"), is_whole=False)
        assert made.head.header("content-length") == ""

    def test_another_exception_is_raised_at_once(self) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), proxied())
        with pytest.raises(ValueError, match="ours"):
            made.fails(ValueError("ours"))


class TestTime:
    def test_nothing_begins_after_the_callers_time_out(self) -> None:
        call = proxied(headers={"x-stainless-read-timeout": "30"})
        made = Attempting(rig({"fallbacks": ["spare"], "timeout_s": 20}), call)
        made.rig.clock.advance(20.0)
        made.fails(BackendTimeout("late"))
        assert made.forwarded().timeout_s == pytest.approx(10.0)
        made.rig.clock.advance(10.0)
        with pytest.raises(BackendTimeout):
            made.fails(BackendTimeout("late, too"))

    @pytest.mark.parametrize("said", ["", "odd"])
    def test_a_caller_who_says_nothing_waits(self, said: str) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), proxied(headers={"x-stainless-read-timeout": said}))
        made.fails()
        assert made.forwarded().timeout_s is None

    def test_a_client_says_it_itself(self) -> None:
        call = request(model="main/m", timeout_s=5.0)
        made = Attempting(rig({"fallbacks": ["spare"]}, {"timeout_s": 3}), call)
        made.fails()
        assert made.forwarded().timeout_s == 3


class TestFallbacks:
    def test_who_is_asked_instead(self) -> None:
        made = Attempting(rig({"fallbacks": ["spare/other"]}), proxied(headers={"idempotency-key": "k1"}))
        first = made.forwarded()
        made.refuses(500)
        second = made.forwarded()
        answer = made.answers()
        assert (first.url, second.url) == tuple(f"https://{at}.test/v1/chat/completions" for at in ("main", "spare"))
        assert json.loads(second.body)["model"] == "other"
        assert [("idempotency-key", "k1") in sent.headers for sent in (first, second)] == [True, False]
        assert (made.head, made.attempts) == (answer, "main/m 500, spare/other")
        ticket = made.flight.ticket
        assert (ticket.outcome.backend, ticket.outcome.model) == ("spare", "other")
        assert not ticket.is_storable, "it is not the answer of the model that was named"

    def test_a_key_is_kept_for_its_backend(self) -> None:
        made = Attempting(rig(), proxied(headers={"idempotency-key": "k1"}))
        made.refuses(500)
        made.pauses()
        assert ("idempotency-key", "k1") in made.forwarded().headers

    @pytest.mark.parametrize(("settings", "is_storable"), [({"fallbacks": ["spare"]}, True), ({}, True)])
    def test_the_same_model_elsewhere_is_stored(self, settings: dict[str, Any], is_storable: bool) -> None:
        routes = {"auto": {"candidates": ["main/m", "spare/n"]}}
        model = "main/m" if settings else "auto"
        made = Attempting(rig(settings, routes=routes), proxied(model))
        made.refuses(500)
        made.answers()
        assert made.flight.ticket.is_storable is is_storable

    def test_by_cause(self) -> None:
        settings = {"fallbacks": {"context_length": ["spare/long"]}}
        made = Attempting(rig(settings), request(model="main/m"))
        made.refuses(400, body={"error": {"code": "context_length_exceeded"}})
        assert json.loads(made.forwarded().body)["model"] == "long"
        made = Attempting(rig(settings), request(model="main/m"))
        made.refuses(500)
        assert made.head.status == 500

    def test_the_error_of_the_first_is_handed_on(self) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), request(model="main/m"))
        made.refuses(503)
        made.refuses(401)
        assert made.head.status == 503
        made.opens()
        assert made.rig.event.outcome.backend == "main"
        assert made.rig.event.outcome.attempts == "main/m 503, spare/m 401"

    def test_a_router_in_trouble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), request(model="main/m"))

        def fails(*_: Any) -> Any:
            raise ValueError("x")

        monkeypatch.setattr(made.rig.selector, "fallbacks", fails)
        made.refuses(503)
        assert made.head.status == 503
        assert made.rig.troubles.counts == {"router": 1}

    def test_no_connection_opens_the_breaker(self) -> None:
        made = Attempting(rig({"fallbacks": ["spare"]}), request(model="main/m"))
        made.fails(httpx.ConnectError("refused"))
        assert made.rig.selector.health.resting_s("main", "m") == 2.0
        assert made.attempts == "main/m refused"

    def test_without_a_flight(self) -> None:
        made = rig({"fallbacks": ["spare/other"]}, cache={"enabled": False})
        course = Course(made, request(model="main/m"))
        course.expect(Forward)
        course.throw(BROKEN)
        course.expect(Forward)
        answer = Head(200, JSON_TYPE, iter(()))
        course.send(answer)
        course.send(Held(answer, b"{}", True))
        assert course.answer.outcome.attempts == "main/m broken, spare/other"
        assert made.selector.health.under_way("spare") == 0

    def test_without_a_flight_nobody_answers(self) -> None:
        made = rig(cache={"enabled": False})
        course = Course(made, request(model="main/m"))
        assert course.expect(Forward)
        made = rig({"fallbacks": ["spare"]}, cache={"enabled": False})
        course = Course(made, request(model="main/m"))
        course.throw(BROKEN)
        with pytest.raises(httpx.ReadError):
            course.throw(httpx.ConnectError("x"))
        assert made.event.error == "ReadError"
        assert made.selector.health.under_way("main") == 0


class TestStreams:
    def stream(self, settings: dict[str, Any] | None = None, **fields: Any) -> Attempting:
        return Attempting(
            rig({"fallbacks": ["spare"], **(settings or {})}), request(model="main/m", stream=True, **fields)
        )

    def test_it_has_begun_when_a_piece_is_there(self) -> None:
        made = self.stream()
        answer = made.begins(b"data: {}\n\n")
        assert made.head is answer

    def test_before_that_another_one_is_asked(self) -> None:
        made = self.stream()
        made.forwarded()
        made.send(Head(200, STREAM_TYPE, iter(())))
        made.step(lambda: made.flow.throw(BROKEN))
        assert made.forwarded().backend == "spare"

    @pytest.mark.parametrize(("piece", "words"), [(b"", "error"), (b'data: {"error": {"code": "x"}}\n\n', "error")])
    def test_an_error_instead_of_it(self, piece: bytes, words: str) -> None:
        made = self.stream()
        made.begins(piece)
        assert made.forwarded().backend == "spare"
        assert made.attempts == f"main/m {words}"

    def test_an_error_that_all_have(self) -> None:
        made = self.stream()
        first = made.begins(b'data: {"error": {"code": "x"}}\n\n')
        made.begins(b"")
        assert made.head is first

    @pytest.mark.parametrize(
        ("fields", "headers", "is_mended"),
        [
            ({}, STREAM_TYPE, True),
            ({"n": 2}, STREAM_TYPE, False),
            ({}, JSON_TYPE, False),
            ({}, [*STREAM_TYPE, ("content-encoding", "gzip")], False),
            ({}, [*STREAM_TYPE, ("content-length", "9")], False),
        ],
    )
    def test_one_that_can_go_on_is_mended(self, fields: dict[str, Any], headers: Any, is_mended: bool) -> None:
        made = self.stream({"can_prefill": "prefix"}, **fields)
        answer = made.begins(b"data: {}\n\n", headers)
        if is_mended:
            assert made.expect(Mend).head is answer
            made.send(answer)
        assert made.head is answer


def test_a_caller_who_leaves_while_it_waits() -> None:
    made = rig(cache={"enabled": False})
    course = Course(made, proxied())
    refusal = Head(500, JSON_TYPE, iter(()))
    course.send(refusal)
    course.send(Held(refusal, b"{}", True))
    course.expect(Pause)
    course.flow.close()
    assert made.event.error == "aborted"
    assert made.selector.health.under_way("main") == 0


def test_a_call_stands_for_itself() -> None:
    call = Call(request(), rig().selector.resolve(request()), 0.0)
    assert call.sent is call
