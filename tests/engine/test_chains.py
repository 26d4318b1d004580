"""Responses that go on from earlier ones: who is asked, what is remembered, and what is refused; step by step."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from llm_proxy.engine.chains import at_one_server, goes_on_from, servers_of
from llm_proxy.engine.effects import Background, Board, Compute, Forward, Held, Late, Launch, Mend, Pause, Read
from llm_proxy.errors import CacheError
from llm_proxy.route.base import Home
from llm_proxy.route.homes import MemoryHomes, address_of
from llm_proxy.types import ChatRequest, Head
from llm_proxy.wire.apis import parse_call
from tests.apis_kit import response, sse, streamed_response
from tests.engine.attempts_kit import JSON_TYPE, STREAM_TYPE
from tests.engine.flow_kit import Course, flown
from tests.fakes import Rig

NAMED = response({"model": "m"}, id="resp_a")
BACKENDS: dict[str, Any] = {
    "main": {"base_url": "https://main.test/v1", "retries": 0},
    "spare": {"base_url": "https://spare.test/v1", "retries": 0},
    "twin": {"base_url": "https://spare.test/v1", "retries": 0},
}
ROUTES = {
    "auto": {"candidates": ["main/small", "spare/mid", "twin/large"]},
    "here": {"candidates": ["spare/mid", "twin/large"]},
}


def rig(homes: Any = None, **sections: Any) -> Rig:
    made = Rig({"cache": {"semantic": False}, "backends": BACKENDS, "routes": ROUTES, **sections}, encoder=None)
    if homes is None:
        homes = MemoryHomes(time=made.clock.time)
    return Rig(
        {"cache": {"semantic": False}, "backends": BACKENDS, "routes": ROUTES, **sections},
        encoder=None,
        clock=made.clock,
        homes=homes,
    )


def call(model: str = "auto", *, key: str = "k", api: str = "responses", **fields: Any) -> ChatRequest:
    given = {"prompt": "hi"} if api == "completions" else {"input": "hi"}
    body = json.dumps({"model": model, **given, **fields}).encode()
    return parse_call(body, api=api, headers={"authorization": f"Bearer {key}"})


class Trip:
    """One call whose effects are done one by one; ``pieces`` are what its upstream says."""

    def __init__(self, made: Rig, request: ChatRequest, *pieces: bytes, headers: Any = None, status: int = 200) -> None:
        self.made, self.pieces = made, pieces
        self.asked: list[str] = []
        self.done: list[type] = []
        self.pauses: list[float] = []
        self.passed: list[bytes] = []
        rows = headers or (STREAM_TYPE if request.is_stream else JSON_TYPE)
        self.head = Head(status, rows, None)
        self.course = Course(made, request)
        self.flow: Any = self.course.flow
        effect = self.course.effect
        if isinstance(effect, Board):
            flight = flown(effect.ticket)
            effect = self.course.send((flight, flight.join()))
        if isinstance(effect, Launch):
            self.launch, self.flow, self.handed_on = effect, effect.asking, None
            self._drive(next(self.flow))
            return
        self._drive(effect)
        self.answer = self.course.answer

    def _drive(self, effect: Any) -> None:
        while effect is not None:
            self.done.append(type(effect))
            value, error = self._value(effect)
            try:
                effect = self.flow.throw(error) if error is not None else self.flow.send(value)
            except StopIteration as stop:
                self.handed_on = self.course.answer = stop.value
                return

    def _value(self, effect: Any) -> tuple[Any, Exception | None]:
        match effect:
            case Compute() | Background():
                try:
                    return effect.call(), None
                except (CacheError, Late) as exc:
                    return None, exc
            case Pause(seconds):
                self.pauses.append(seconds)
            case Forward(outgoing):
                self.asked.append(f"{outgoing.backend}/{outgoing.model}")
                return self.head, None
            case Read(_, limit_bytes, limit_s, _):
                return self._held(limit_bytes, limit_s), None
            case Mend(head, mending):
                self.passed = [mending.passed(piece) for piece in self.pieces]
                assert not mending.is_broken
                assert (mending.ended(), mending.kept()) == (b"", b"")
                assert not list(mending.going_on(None)), "nobody is asked for the rest"
                mending.left()
                return head, None
        return None, None

    def _held(self, limit_bytes: int, limit_s: float) -> Held:
        body = b""
        for number, piece in enumerate(self.pieces):
            body += piece
            if limit_s == 0.0 or len(body) > limit_bytes:
                return Held(self.head, body, number + 1 == len(self.pieces) and not limit_s)
        return Held(self.head, body, True)


def said(value: Any) -> bytes:
    return json.dumps(value).encode()


def error_of(trip: Trip) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(trip.answer.body)["error"]
    return error


def events(**fields: Any) -> list[bytes]:
    return [sse(one, one["type"]) for one in streamed_response({**NAMED, **fields})]


class TestNames:
    def test_what_a_call_goes_on_from(self) -> None:
        assert goes_on_from(call(previous_response_id="r")) == "previous_response_id"
        assert goes_on_from(call(conversation="c")) == "conversation"
        assert goes_on_from(call(previous_response_id=None)) == goes_on_from(call()) == ""
        assert goes_on_from(call(api="completions", previous_response_id="r")) == ""

    def test_backends_of_one_address_and_account_are_one_server(self) -> None:
        config = rig().config
        pairs = [("main", "small"), ("spare", "mid"), ("twin", "large")]
        assert len(servers_of(config, pairs)) == 2
        assert at_one_server(config, pairs, "twin") == (("spare", "mid"), ("twin", "large"))


class TestRemembered:
    def test_a_plain_answer_is_known_before_it_is_handed_on(self) -> None:
        made = rig()
        trip = Trip(made, call(), said(NAMED))
        assert trip.asked == ["main/small"]
        assert trip.done[-2:] == [Read, Compute]
        again = Trip(made, call(previous_response_id="resp_a"), said(NAMED))
        assert again.asked == ["main/small"]
        assert again.pauses == []

    @pytest.mark.parametrize("before", [0, 1, 300])
    def test_a_stream_is_known_as_it_passes_by(self, before: int) -> None:
        made = rig()
        pieces = [b": keep-alive\n\n"] * before + events()
        trip = Trip(made, call(stream=True), *pieces)
        assert trip.done[-1] is Mend, "nothing is read before its caller gets it"
        assert trip.passed == pieces
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["main/small"]

    def test_an_event_that_comes_in_pieces(self) -> None:
        made = rig()
        first, *rest = events()
        Trip(made, call(stream=True), first[:20], first[20:90], first[90:], *rest)
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["main/small"]

    def test_a_compressed_answer(self) -> None:
        made = rig()
        Trip(made, call(), gzip.compress(said(NAMED)), headers=[*JSON_TYPE, ("content-encoding", "gzip")])
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["main/small"]

    def test_an_answer_that_is_too_long_to_be_read_whole(self) -> None:
        made = rig(cache={"semantic": False, "max_entry_bytes": 1000})
        trip = Trip(made, call(), said({**NAMED, "picture": "x" * 900}), b"y" * 500, b"z" * 500)
        assert trip.done[-1] is Background
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["main/small"]

    def test_a_call_that_names_its_model_is_gone_on_from_by_a_route(self) -> None:
        made = rig()
        Trip(made, call("twin/large"), said(NAMED))
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["twin/large"]

    def test_a_chain_goes_on(self) -> None:
        made = rig()
        Trip(made, call("spare/mid"), said(NAMED))
        trip = Trip(made, call(previous_response_id="resp_a"), said({**NAMED, "id": "resp_b"}))
        assert trip.asked == ["spare/mid"]
        assert Trip(made, call(previous_response_id="resp_b"), said(NAMED)).asked == ["spare/mid"]

    @pytest.mark.parametrize(
        ("fields", "pieces", "more"),
        [
            ({"store": False}, [said(NAMED)], {}),
            ({}, [said(NAMED)], {"status": 404}),
            ({}, [said({"output": []})], {}),
            ({}, [said({"id": 7})], {}),
            ({}, [b"not JSON"], {}),
            ({}, [said(NAMED)], {"headers": [("content-type", "text/plain")]}),
            ({"stream": True}, [sse({"type": "error"}, "error")], {}),
            ({"stream": True}, [sse({"type": "response.output_text.delta", "delta": "x"})], {}),
            ({"stream": True}, [b": nothing\n\n"] * 70, {}),
        ],
    )
    def test_what_can_not_be_gone_on_from_is_not_known(
        self, fields: dict[str, Any], pieces: list[bytes], more: dict[str, Any]
    ) -> None:
        made = rig()
        trip = Trip(made, call(**fields), *pieces, **more)
        assert trip.handed_on is not None
        assert error_of(Trip(made, call(previous_response_id="resp_a")))["code"] == "route_not_possible"
        assert not made.troubles.counts

    def test_without_attempts_the_request_is_sent_from_here(self) -> None:
        made = rig(routes={"auto": {"candidates": ["main/small"]}})
        trip = Trip(made, call("main/m"), said(NAMED))
        assert trip.done == [Forward, Read, Compute]
        assert made.selector.health.under_way("main") == 1

    def test_where_it_need_not_be_known_nothing_is_read(self) -> None:
        made = Rig({"cache": {"semantic": False}, "backends": BACKENDS}, encoder=None)
        course = Course(made, call("main/m"))
        course.board()
        assert course.expect(Launch).asking is None

    def test_a_file_in_trouble_costs_nobody_his_answer(self) -> None:
        class Broken:
            def keep(self, mark: str, home: Home) -> None:
                raise CacheError("full")

        made = rig(Broken())
        assert Trip(made, call(), said(NAMED)).handed_on.status == 200
        assert made.troubles.counts == {"responses": 1}

    def test_a_file_that_is_late(self) -> None:
        class Slow:
            def keep(self, mark: str, home: Home) -> None:
                raise Late

        made = rig(Slow())
        made.chains._keep = lambda homes, mark, home: homes.keep(mark, home)  # type: ignore[method-assign]
        assert Trip(made, call(), said(NAMED)).handed_on.status == 200
        assert made.troubles.counts == {"responses": 1}


class TestSentTo:
    def known(self, made: Rig, backend: str, model: str, **more: Any) -> None:
        mark = made.chains._mark(call(**more), "resp_a")
        address = address_of(BACKENDS[backend]["base_url"]) if backend in BACKENDS else "gone"
        made.homes.keep(mark, Home(backend, model, address))

    def test_it_is_said(self) -> None:
        made = rig()
        self.known(made, "spare", "mid")
        trip = Trip(made, call(previous_response_id="resp_a"), said(NAMED))
        outcome = trip.answer.outcome
        assert outcome.cache_status == 'llm-proxy; fwd=bypass; detail="previous-response; kept-by=spare"'
        assert (outcome.backend, outcome.model, outcome.route) == ("spare", "mid", "auto")
        assert outcome.reason == "goes on from a response of spare/mid"
        assert made.noted == []  # no route has decided, and nothing is to be learnt of that

    def test_another_model_of_the_server_is_no_candidate(self) -> None:
        made = rig()
        self.known(made, "spare", "dear")
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["twin/large"]

    def test_nobody_else_is_asked_where_it_fails(self) -> None:
        made = rig(attempts={"most": 4})
        self.known(made, "main", "small")
        trip = Trip(made, call(previous_response_id="resp_a"), said({"error": {}}), status=503)
        assert trip.asked == ["main/small"]
        assert trip.answer.head.status == 503

    def test_the_same_server_may_be_asked_by_another_name(self) -> None:
        made = rig()
        self.known(made, "spare", "mid")
        trip = Trip(made, call(previous_response_id="resp_a"), said({"error": {}}), status=503)
        assert trip.asked == ["spare/mid", "twin/large"]

    def test_of_one_server_the_route_decides(self) -> None:
        made = rig()
        trip = Trip(made, call("here", previous_response_id="resp_x"), said(NAMED))
        assert trip.asked == ["spare/mid"]
        assert "kept-by" not in trip.answer.outcome.cache_status

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"previous_response_id": "resp_x"}, "it is not known here, or no longer"),
            ({"previous_response_id": ["resp_a"]}, "it is not known here"),
            ({"previous_response_id": "resp_a", "key": "other"}, "it is not known here"),
            ({"conversation": "conv_a"}, "only one knows the conversation: name its model, as BACKEND/MODEL"),
        ],
    )
    def test_what_is_not_known_is_refused(self, fields: dict[str, Any], words: str) -> None:
        made = rig()
        self.known(made, "main", "small")
        trip = Trip(made, call(**fields), said(NAMED))
        assert trip.asked == []
        assert (trip.answer.status, error_of(trip)["code"], error_of(trip)["param"]) == (
            400,
            "route_not_possible",
            "model",
        )
        assert words in error_of(trip)["message"]
        assert trip.pauses == ([0.1] if isinstance(fields.get("previous_response_id"), str) else [])
        [event] = made.events
        assert (event.outcome.status, event.outcome.detail, event.http_status) == ("refused", "route-not-possible", 400)

    def test_it_is_looked_for_again_where_another_process_may_be_writing(self) -> None:
        class Next(MemoryHomes):
            def find(self, mark: str) -> Home | None:
                found.append(mark)
                return super().find(mark) if len(found) > 1 else None

        found: list[str] = []
        made = rig(Next(time=lambda: 0.0))
        self.known(made, "main", "small")
        assert Trip(made, call(previous_response_id="resp_a"), said(NAMED)).asked == ["main/small"]
        assert len(found) == 2

    def test_a_backend_that_is_no_candidate(self) -> None:
        made = rig(routes={**ROUTES, "auto": {"candidates": ["main/small", "other/x"]}}, backends={
            **BACKENDS, "other": {"base_url": "https://other.test/v1"},
        })  # fmt: skip
        self.known(made, "spare", "mid")
        message = error_of(Trip(made, call(previous_response_id="resp_a")))["message"]
        assert message.endswith("it is of spare/mid, which is no candidate")

    @pytest.mark.parametrize("backend", ["gone", "main"])
    def test_a_backend_that_is_another_one_by_now(self, backend: str) -> None:
        made = rig()
        mark = made.chains._mark(call(), "resp_a")
        made.homes.keep(mark, Home(backend, "small", "another address"))
        assert "is not known here" in error_of(Trip(made, call(previous_response_id="resp_a")))["message"]

    def test_a_file_that_can_not_be_read(self) -> None:
        class Broken:
            def find(self, mark: str) -> Home | None:
                raise CacheError("damaged")

        made = rig(Broken())
        assert "is not known here" in error_of(Trip(made, call(previous_response_id="resp_a")))["message"]
        assert made.troubles.counts == {"responses": 1}

    def test_where_none_may_choose(self) -> None:
        made = rig()
        trip = Trip(made, call(api="completions"))
        assert error_of(trip)["message"] == "'auto' leads to the route 'auto'; name a model for /completions"


class TestKeeper:
    """Who is asked about a response: to read it, to delete it, to cancel it."""

    def found(self, made: Rig, named: str = "resp_a", **more: Any) -> tuple[str, list[type]]:
        """The backend, and what was done to find it."""
        flow, done = made.chains.keeper(call(**more), named), []
        try:
            effect = next(flow)
            while True:
                done.append(type(effect))
                effect = flow.send(effect.call() if isinstance(effect, Compute) else None)
        except StopIteration as stop:
            return stop.value, done

    def test_who_answered_keeps_it(self) -> None:
        made = rig()
        Trip(made, call("spare/mid"), said(NAMED))
        assert self.found(made) == ("spare", [Compute])

    @pytest.mark.parametrize(("named", "key"), [("resp_x", "k"), ("resp_a", "other"), ("..", "k"), ("\0", "k")])
    def test_what_is_not_known(self, named: str, key: str) -> None:
        made = rig()
        Trip(made, call("spare/mid"), said(NAMED))
        assert self.found(made, named, key=key) == ("", [Compute, Pause, Compute])

    def test_a_backend_that_is_no_more(self) -> None:
        made = rig()
        made.homes.keep(made.chains._mark(call(), "resp_a"), Home("gone", "m", "address"))
        assert self.found(made) == ("", [Compute])

    def test_where_one_server_makes_all_of_them(self) -> None:
        made = Rig({"cache": {"semantic": False}, "backends": BACKENDS}, encoder=None)
        assert self.found(made) == ("", [])


def test_the_end_releases_what_is_kept_open() -> None:
    class Open(MemoryHomes):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    made = rig(Open(time=lambda: 0.0))
    made.chains.close()
    assert made.homes.is_closed
    Rig({"cache": {"semantic": False}, "backends": BACKENDS}, encoder=None).chains.close()  # there is nothing


def test_a_head_that_is_not_read_is_the_one_that_came() -> None:
    made = rig()
    trip = Trip(made, call("main/m"), b"plain", headers=[("content-type", "text/plain")])
    assert trip.handed_on is trip.head
