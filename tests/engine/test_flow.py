"""Steps `Engine.answer` through every path: look at the effect, send its outcome."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.engine.effects import Await, Background, Board, Compute, Forward, Late, Launch
from llm_proxy.engine.flights import Flight, Ticket
from llm_proxy.engine.ports import Live, Ready
from llm_proxy.errors import BackendUnavailable, CacheCorruptError, CacheError, LLMProxyError, RouterError
from llm_proxy.testing import FakeEncoder
from llm_proxy.types import ChatRequest, Head
from tests.fakes import ENDPOINT, Found, Rig, entry, head, request

TEXT = "text/event-stream; charset=utf-8"


class Course:
    """One call on its way: steps its flow, and keeps what an effect asked for."""

    def __init__(self, rig: Rig, call: ChatRequest) -> None:
        self.rig, self.call = rig, call
        self.flow = rig.engine.answer(call)
        self.answer: Any = None
        self.effect: Any = self._step(lambda: next(self.flow))

    def _step(self, step: Any) -> Any:
        try:
            self.effect = step()
        except StopIteration as stop:
            self.effect, self.answer = None, stop.value
        return self.effect

    def send(self, value: Any) -> Any:
        return self._step(lambda: self.flow.send(value))

    def throw(self, exc: BaseException) -> Any:
        return self._step(lambda: self.flow.throw(exc))

    def expect(self, kind: type) -> Any:
        assert isinstance(self.effect, kind), self.effect
        return self.effect

    def search(self) -> Any:
        """Do the work that a `Compute` asks for."""
        return self.send(self.expect(Compute).call())

    def board(self, flight: Flight | None = None, *, is_shareable: bool = True) -> Flight:
        """Board this flight, or a new one that this call leads."""
        effect = self.expect(Board)
        assert effect.is_shareable is is_shareable
        flight = flight or flown(effect.ticket)
        self.send((flight, flight.join()))
        return flight

    def launch(self, answered: Head) -> Head:
        """Let the upstream answer."""
        effect = self.expect(Launch)
        effect.opened(answered)
        self.send(answered)
        return answered


def flown(ticket: Ticket) -> Flight:
    return Flight(ticket, lock=threading.RLock(), on_over=lambda flight: None)


def led_by(rig: Rig, call: ChatRequest) -> tuple[Course, Flight]:
    """A call that misses and leads; it stands before its request is sent."""
    leader = Course(rig, call)
    flight = leader.board()
    if isinstance(leader.effect, Compute):
        leader.search()
    leader.expect(Launch)
    return leader, flight


@pytest.fixture
def rig() -> Rig:
    return Rig()


def stored(rig: Rig, call: ChatRequest, **fields: Any) -> Any:
    """Put an answer to this call into the cache."""
    key = Course(rig, call).expect(Board).ticket.fingerprint.key
    rig.events.clear()
    rig.cache.entries[key] = found = entry(key, **fields)
    return found


class TestBypass:
    def test_is_forwarded_as_it_came(self, rig: Rig) -> None:
        course = Course(rig, request(control="no-store"))
        effect = course.expect(Forward)
        assert (effect.outgoing.url, effect.outgoing.headers, effect.outgoing.body) == ("", (), course.call.raw)
        answered = head(status=418)
        course.send(answered)
        assert course.answer == Live(answered, course.answer.outcome)
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=bypass; detail="no-store"'
        assert (rig.event.http_status, rig.event.error, rig.event.outcome.status) == (418, "", "bypass")
        assert rig.cache.searches == []

    def test_without_a_cache(self) -> None:
        course = Course(Rig(cache=None), request())
        course.expect(Forward)
        course.send(head())
        assert course.answer.outcome.detail == "disabled"

    def test_only_if_cached_is_never_forwarded(self, rig: Rig) -> None:
        course = Course(rig, request(control="no-store, only-if-cached"))
        assert (course.answer.status, course.answer.outcome.detail) == (504, "no-store")

    def test_a_failing_request_is_booked_and_raised(self, rig: Rig) -> None:
        course = Course(rig, request(temperature=2))
        with pytest.raises(OSError, match="refused"):
            course.throw(OSError("refused"))
        assert (rig.event.http_status, rig.event.error, rig.event.outcome.detail) == (0, "OSError", "temperature")

    def test_what_has_no_key_is_forwarded(self, rig: Rig) -> None:
        call = request()
        course = Course(rig, replace(call, body={**call.body, "seed": float("inf")}))
        course.expect(Forward)
        course.send(head())
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=bypass; detail="trouble"'
        assert rig.troubles.counts == {"engine": 1}


class TestExactHit:
    def test_plain(self, rig: Rig) -> None:
        call = request()
        found = stored(rig, call)
        answer = Course(rig, call).answer
        assert (answer.status, answer.body) == (200, found.completion)
        assert dict(answer.headers) == {
            "content-type": "application/json",
            "cache-status": 'llm-proxy; hit; detail="exact"',
            "age": "60",
            "x-llm-proxy-saved-usd": "0.25000000",
        }
        assert (answer.outcome.key, answer.outcome.similarity, answer.outcome.model) == (found.key, 1.0, "gpt-4o-mini")
        assert rig.cache.hits == [found.key]
        assert (rig.event.outcome, rig.event.latency_s, rig.event.saved_s) == (answer.outcome, 0.0, 2.0)

    def test_streamed(self, rig: Rig) -> None:
        stored(rig, request())
        answer = Course(rig, request(stream=True)).answer
        assert dict(answer.headers)["content-type"] == TEXT
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert rig.event.is_stream

    @pytest.mark.parametrize(
        ("fields", "options"),
        [
            ({"expires_s": Rig().clock.time()}, {}),
            ({}, {"control": "max-age=59"}),
            ({"has_usage": False}, {}),
            ({"has_usage": False}, {"stream": True, "stream_options": {"include_usage": True}}),
        ],
        ids=["expired", "too old", "no usage", "no usage in the stream"],
    )
    def test_what_may_not_be_served_is_a_miss(self, rig: Rig, fields: Any, options: Any) -> None:
        stored(rig, request(), **fields)
        Course(rig, request(**options)).expect(Board)

    @pytest.mark.parametrize(
        ("fields", "options"),
        [({"expires_s": Rig().clock.time() + 1}, {"control": "max-age=60"}), ({"has_usage": False}, {"stream": True})],
        ids=["just young enough", "usage not asked for"],
    )
    def test_what_may_just_be_served(self, rig: Rig, fields: Any, options: Any) -> None:
        stored(rig, request(), **fields)
        assert Course(rig, request(**options)).answer.outcome.kind == "exact"

    def test_a_count_that_fails_is_no_trouble_for_the_caller(self, rig: Rig) -> None:
        stored(rig, request())
        rig.cache.failing = {"hit"}
        assert Course(rig, request()).answer.status == 200
        assert rig.troubles.counts == {"cache": 1}

    @pytest.mark.parametrize("broken", ["get", "replay"])
    def test_an_entry_that_cannot_be_read_is_asked_for_again_and_replaced(self, rig: Rig, broken: str) -> None:
        call = request(stream=True)
        stored(rig, call, completion=b"[]")
        rig.cache.failing = {broken}
        course = Course(rig, call)
        course.board()
        course.search()
        course.launch(head(content_type=TEXT))
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=miss; detail="trouble"'
        assert course.answer.flight.ticket.recorder is not None
        assert rig.troubles.counts == {"cache": 1}


class TestControls:
    def test_no_cache_asks_alone_and_replaces(self, rig: Rig) -> None:
        stored(rig, request())
        course = Course(rig, request(control="no-cache"))
        course.board(is_shareable=False)
        course.launch(head())
        assert (course.answer.flight.state, course.answer.outcome.status) == ("open", "miss")

    def test_only_if_cached_finds_an_exact_answer(self, rig: Rig) -> None:
        stored(rig, request())
        assert Course(rig, request(control="only-if-cached")).answer.outcome.kind == "exact"

    def test_only_if_cached_finds_an_equivalent_one(self, rig: Rig) -> None:
        rig.cache.found = Found(entry(), 0.98)
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        assert course.answer.outcome.kind == "semantic"

    def test_only_if_cached_says_so_when_there_is_none(self, rig: Rig) -> None:
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        answer = course.answer
        assert (answer.status, dict(answer.headers)["x-should-retry"]) == (504, "false")
        assert json.loads(answer.body)["error"]["code"] == "not_cached"
        assert (rig.event.http_status, rig.event.outcome.status) == (504, "miss")


class TestSemantic:
    @pytest.mark.parametrize(("slowest_s", "is_quick"), [(0.025, True), (0.026, False), (float("inf"), False)])
    def test_an_encoder_that_was_never_slow_is_quick(self, rig: Rig, slowest_s: float, is_quick: bool) -> None:
        rig.encoder.slowest_s = slowest_s
        course = Course(rig, request())
        course.board()
        effect = course.expect(Compute)
        assert (effect.limit_s, effect.is_quick) == (rig.config.encoder.wait_s, is_quick)

    def test_hit(self, rig: Rig) -> None:
        course = Course(rig, request())
        flight = course.board()
        rig.cache.found = Found(entry(), 0.971)
        assert course.expect(Compute).limit_s == rig.config.encoder.wait_s
        course.search()
        answer = course.answer
        assert isinstance(answer, Ready)
        assert (
            dict(answer.headers)["cache-status"] == 'llm-proxy; hit; detail="semantic; similarity=0.971; p_wrong=0.002"'
        )
        assert (flight.state, flight.is_left, flight.ticket.outcome) == ("finished", True, answer.outcome)
        assert (rig.event.outcome.kind, len(rig.events)) == ("semantic", 1)

    def test_a_vector_that_stands_for_a_part_searches_where_the_rest_is_equal(self) -> None:
        rig = Rig(encoder=FakeEncoder(window_chars=5))
        for text in ("hello world", "hello there", "other world"):
            course = Course(rig, request(text))
            course.board()
            course.search()
        (one, _), (two, _), (three, _) = rig.cache.searches
        assert one == three
        assert one != two

    @pytest.mark.parametrize(
        ("found", "why"),
        [(Found(), "uri-miss"), (Found(entry(has_usage=False), 0.99), "miss")],
        ids=["none", "not servable"],
    )
    def test_miss(self, rig: Rig, found: Found, why: str) -> None:
        course = Course(rig, request())
        course.board()
        rig.cache.found = found
        course.search()
        course.expect(Launch)
        course.launch(head())
        assert course.answer.outcome.cache_status == f"llm-proxy; fwd={why}"

    def test_a_refused_neighbour_is_named(self, rig: Rig) -> None:
        course = Course(rig, request())
        course.board()
        rig.cache.found = Found(None, 0.96, "numbers")
        course.search()
        course.launch(head())
        assert course.answer.outcome.detail == "refused=numbers; similarity=0.960"

    def test_a_late_encoder_is_a_miss(self) -> None:
        class Counting(FakeEncoder):
            late = 0

            def note_timeout(self) -> None:
                self.late += 1

        rig = Rig(encoder=Counting())
        course = Course(rig, request())
        course.board()
        course.throw(Late())
        course.launch(head())
        assert (course.answer.outcome.detail, rig.encoder.late) == ("encoder-late", 1)
        assert rig.troubles.counts == {}

    def test_evidence_that_cannot_be_read_is_counted(self) -> None:
        rig = Rig()
        rig.cache.found = Found(None, 0.97, "evidence", damage=CacheCorruptError("cut"))
        course = Course(rig, request())
        course.board()
        course.search()
        course.launch(head())
        assert course.answer.outcome.detail == "refused=evidence; similarity=0.970"
        assert rig.troubles.counts == {"evidence": 1}

    def test_a_failing_encoder_is_a_miss(self) -> None:
        rig = Rig(encoder=FakeEncoder(error=LLMProxyError("no model")))
        course = Course(rig, request())
        course.board()
        course.search()
        course.launch(head())
        assert (course.answer.outcome.detail, course.answer.flight.state) == ("encoder-failed", "open")
        assert rig.troubles.counts == {"encoder": 1}

    @pytest.mark.parametrize("encoder", [None, "open"])
    def test_without_an_encoder_nothing_is_searched(self, encoder: Any) -> None:
        if encoder == "open":
            encoder = FakeEncoder()
            encoder.is_open = True
        course = Course(Rig(encoder=encoder), request())
        course.board()
        course.expect(Launch)

    def test_what_has_no_text_is_not_searched(self, rig: Rig) -> None:
        course = Course(rig, request(n=2))
        course.board()
        course.expect(Launch)

    def test_a_failing_search_does_not_end_the_flight(self, rig: Rig) -> None:
        course = Course(rig, request())
        flight = course.board()
        rig.cache.failing = {"nearest"}
        course.throw(CacheError("index"))
        course.launch(head())
        assert (course.answer.outcome.detail, course.answer.flight) == ("trouble", flight)
        assert rig.troubles.counts == {"cache": 1}


class TestLeading:
    def test_a_stream_is_handed_on_while_it_comes(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request(stream=True))
        answered = leader.launch(head(content_type=TEXT))
        assert leader.answer == Live(answered, leader.answer.known, flight, leader.answer.seat)
        assert (flight.state, flight.head, flight.ticket.head_headers) == ("open", answered, answered.headers)
        assert rig.events == [], "it is booked when it ends"

    @pytest.mark.parametrize(
        "answered",
        [head(status=429), head(status=500), head(content_type="text/html"), head(content_encoding="unheard-of")],
        ids=["429", "500", "html", "unknown coding"],
    )
    def test_what_cannot_be_recorded_is_not_shared(self, rig: Rig, answered: Head) -> None:
        leader, flight = led_by(rig, request())
        leader.launch(answered)
        assert (leader.answer.flight, leader.answer.head) == (None, answered)
        assert (flight.state, flight.head) == ("failed", None)
        assert (rig.event.http_status, rig.event.outcome.status) == (answered.status, "miss")

    def test_a_failing_request_is_booked_once_and_raised(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        with pytest.raises(OSError, match="refused"):
            leader.throw(OSError("refused"))
        assert (flight.state, flight.is_left) == ("failed", True)
        assert (rig.event.error, rig.event.http_status, rig.event.outcome.status) == ("OSError", 0, "miss")

    def test_leaving_before_the_request_is_sent_sets_the_others_free(self, rig: Rig) -> None:
        leader = Course(rig, request())
        flight = leader.board()
        other = flight.join()
        leader.expect(Compute)
        leader.flow.close()
        assert (flight.state, flight.is_left) == ("failed", False)
        assert (rig.event.error, other is not None) == ("aborted", True)

    def test_leaving_while_others_wait_for_the_answer_changes_nothing_for_them(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        flight.join()
        kept = flight.join()
        leader.flow.close()
        assert flight.state == "pending"
        assert rig.events == [], "its flight books it"
        assert kept is not None

    def test_the_last_one_to_leave_cancels_the_request(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        leader.flow.close()
        assert flight.state == "failed"
        assert (rig.event.error, rig.event.outcome.status, rig.event.outcome.is_stored) == ("aborted", "miss", False)

    def test_leaving_a_flight_that_has_been_booked(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        other = flight.join()
        leader.expect(Launch).opened(head())
        flight.ticket.lost(flight.ticket, "ReadError")
        flight.finish(OSError())
        leader.flow.close()
        assert (rig.event.error, other is not None) == ("ReadError", True)

    def test_a_missed_landing_is_made_up_for(self, rig: Rig) -> None:
        call = request()
        course = Course(rig, call)
        rig.cache.entries[course.expect(Board).ticket.fingerprint.key] = entry()
        flight = flown(course.effect.ticket)
        flight.has_forerunner = True
        course.board(flight)
        assert (course.answer.outcome.kind, flight.state) == ("exact", "finished")

    def test_a_forerunner_may_have_left_nothing(self, rig: Rig) -> None:
        course = Course(rig, request())
        flight = flown(course.expect(Board).ticket)
        flight.has_forerunner = True
        course.board(flight)
        course.expect(Compute)


class TestFollowing:
    def test_a_stream_is_shared_while_it_comes(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request(stream=True))
        follower = Course(rig, request(stream=True, user="another", timeout_s=7))
        follower.board(flight)
        assert follower.expect(Await) == Await(flight, to_the_end=False, wait_s=7)
        answered = leader.launch(head(content_type=TEXT))
        follower.send(None)
        answer = follower.answer
        assert (answer.head, answer.flight, answer.seat is leader.answer.seat) == (answered, flight, False)
        assert answer.outcome.cache_status == "llm-proxy; fwd=uri-miss; collapsed"
        flight.leave(answer.seat)
        assert (rig.event.error, rig.event.outcome.is_shared, rig.event.is_stream) == ("aborted", True, True)

    def test_a_plain_answer_is_seen_to_its_end_first(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        follower = Course(rig, request())
        follower.board(flight)
        assert follower.expect(Await).to_the_end
        leader.launch(head())
        flight.ticket.is_settled = True
        flight.ticket.outcome = flight.ticket.outcome.with_changes(is_stored=True, cost_usd=0.5)
        flight.finish()
        rig.clock.advance(2)
        follower.send(None)
        assert follower.answer.outcome.cache_status == "llm-proxy; fwd=uri-miss; stored; collapsed"
        assert (follower.answer.outcome.saved_usd, follower.answer.outcome.cost_usd) == (0.5, 0.0)
        flight.leave(follower.answer.seat)
        assert (rig.event.outcome, rig.event.error, rig.event.latency_s) == (follower.answer.outcome, "", 2)

    def test_a_stream_that_breaks_off_is_booked_for_each(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request(stream=True))
        follower = Course(rig, request(stream=True))
        follower.board(flight)
        leader.launch(head(content_type=TEXT))
        follower.send(None)
        flight.ticket.lost(flight.ticket, "ReadError")
        flight.finish(OSError())
        flight.leave(follower.answer.seat)
        assert [(event.error, event.outcome.is_shared) for event in rig.events] == [
            ("ReadError", False), ("ReadError", True),
        ]  # fmt: skip

    def test_another_form_gets_the_entry(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request(stream=True))
        follower = Course(rig, request())
        follower.board(flight)
        assert follower.expect(Await).to_the_end
        leader.launch(head(content_type=TEXT))
        flight.ticket.entry = entry()
        flight.land()
        follower.send(None)
        assert follower.answer.outcome.cache_status == 'llm-proxy; hit; detail="exact"'
        assert (follower.answer.outcome.is_shared, follower.answer.outcome.similarity) == (True, 1.0)

    def test_an_answer_that_the_leader_found_is_what_it_was_for_the_leader(self, rig: Rig) -> None:
        leader = Course(rig, request())
        flight = leader.board()
        follower = Course(rig, request())
        follower.board(flight)
        rig.cache.found = Found(entry(), 0.97)
        leader.search()
        follower.send(None)
        outcome = follower.answer.outcome
        assert (outcome.kind, outcome.similarity, outcome.is_shared) == ("semantic", 0.97, True)

    def test_an_answer_without_the_counts_it_needs_is_asked_for_together_with_all_who_need_them(self, rig: Rig) -> None:
        _, flight = led_by(rig, request(stream=True))
        follower, other = Course(rig, request()), Course(rig, request())
        for course in (follower, other):
            course.board(flight)
        flight.answer(entry(has_usage=False))
        follower.send(None)
        again = follower.board()
        other.send(None)
        other.board(again)
        follower.search()
        follower.expect(Launch)
        again.answer(entry(has_usage=False))
        other.send(None)
        other.board(is_shareable=False)
        other.search()
        other.expect(Launch)

    @pytest.mark.parametrize("trouble", ["failed", "broken", "pending"])
    def test_trouble_is_not_shared(self, rig: Rig, trouble: str) -> None:
        leader, flight = led_by(rig, request())
        follower = Course(rig, request())
        follower.board(flight)
        if trouble == "failed":
            leader.launch(head(status=500))
        elif trouble == "broken":
            leader.launch(head())
            flight.finish(OSError("reset"))
        follower.send(None)
        own = follower.board(is_shareable=False)
        follower.search()
        follower.launch(head())
        assert follower.answer.flight is own
        assert not follower.answer.outcome.is_shared

    def test_leaving_while_waiting(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        follower = Course(rig, request())
        follower.board(flight)
        follower.expect(Await)
        follower.flow.close()
        assert (flight.state, rig.event.error, rig.event.http_status) == ("pending", "aborted", 0)
        leader.expect(Launch)

    def test_trouble_while_waiting_is_forwarded(self, rig: Rig) -> None:
        _, flight = led_by(rig, request())
        follower = Course(rig, request())
        follower.board(flight)
        follower.throw(RuntimeError("driver"))
        follower.expect(Forward)
        follower.send(head())
        assert (follower.answer.outcome.detail, follower.answer.flight, flight.state) == ("trouble", None, "pending")
        assert rig.troubles.counts == {"engine": 1}


ROUTED: Any = {
    "backends": {
        "cloud": {"base_url": "https://cloud.test/v1", "api_key": "secret", "models": ["big"]},
        "local": {"base_url": "http://localhost:1/v1", "timeout_s": 9},
    },
    "routes": {"auto": {"candidates": ["local/small", "cloud/big"], "long_prompt_chars": 100}},
    "aliases": {"gpt-4o": "auto", "mini": "gpt-4o-mini"},
}


class TestRouting:
    @pytest.mark.parametrize(
        ("model", "text", "backend", "asked"),
        [
            ("auto", "hi", "local", "small"),
            ("gpt-4o", "hi" * 100, "cloud", "big"),
            ("big", "hi", "cloud", "big"),
            ("local/x", "hi", "local", "x"),
        ],
    )
    def test_a_name_leads_to_a_backend(self, model: str, text: str, backend: str, asked: str) -> None:
        rig = Rig(ROUTED)
        course, _ = led_by(rig, request(text, model=model))
        outgoing = course.effect.outgoing
        assert (outgoing.backend, outgoing.model, json.loads(outgoing.body)["model"]) == (backend, asked, asked)
        assert outgoing.url.startswith(rig.config.backends[backend].base_url)
        course.launch(head())
        is_route = model in ("auto", "gpt-4o")
        outcome = course.answer.outcome
        assert (outcome.backend, outcome.route, outcome.model) == (backend, "auto" if is_route else "", asked)

    def test_bypassed_calls_are_routed_too(self) -> None:
        course = Course(Rig(ROUTED), request(model="auto", control="no-store"))
        assert course.expect(Forward).outgoing.backend == "local"

    def test_an_alias_renames_where_the_call_would_go_anyway(self) -> None:
        course, _ = led_by(Rig(ROUTED), request(model="mini"))
        outgoing = course.effect.outgoing
        assert (outgoing.url, json.loads(outgoing.body)["model"]) == ("", "gpt-4o-mini")

    def test_who_is_good_enough_is_remembered_for_the_answer_s_worth(self) -> None:
        rig = Rig(ROUTED)
        _, flight = led_by(rig, request(model="auto"))
        names = [f"{backend}/{model}" for backend, model in flight.ticket.rivals]
        assert names == list(rig.config.routes["auto"].candidates)
        assert led_by(Rig(ROUTED), request(model="mini"))[1].ticket.rivals == ()

    @pytest.mark.parametrize("error", [RouterError("no"), KeyError("bug")])
    def test_a_failing_router_means_the_strongest_candidate(self, error: Exception) -> None:
        class Failing:
            def score(self, request: ChatRequest, encoding: Any) -> Any:
                raise error

        rig = Rig(ROUTED)
        rig.selector._planner._routers["auto"] = Failing()
        course, _ = led_by(rig, request(model="auto"))
        assert course.effect.outgoing.backend == "cloud"
        assert rig.troubles.counts == {"router": 1}

    def test_without_a_backend_it_says_so(self, rig: Rig) -> None:
        course = Course(rig, request(endpoint="", model="m"))
        flight = course.board()
        with pytest.raises(BackendUnavailable, match=r"no backend serves the model 'm'; configure one"):
            course.search()
        assert (flight.state, rig.event.error, rig.event.http_status) == ("failed", "BackendUnavailable", 0)


def test_the_base_url_is_the_address_without_path_and_query() -> None:
    assert request(endpoint=f"{ENDPOINT}?api-version=1").base_url == "https://api.openai.com/v1"
    assert request(endpoint="").base_url == ""


class TestOpening:
    """A store that is not open yet is opened off the event loop, and within bounds."""

    def test_the_lookup_waits_for_it(self, rig: Rig) -> None:
        stored(rig, request())
        rig.cache.is_open = False
        course = Course(rig, request())
        effect = course.expect(Compute)
        assert (effect.call, effect.limit_s, effect.is_quick) == (rig.cache.open_store, 1.0, True)
        course.search()
        assert course.answer.outcome.kind == "exact"

    @pytest.mark.parametrize(
        ("outcome", "detail", "troubles"),
        [(Late(), "cache-late", {}), (CacheError("locked"), "trouble", {"cache": 1})],
    )
    def test_a_call_goes_on_without_it(self, rig: Rig, outcome: Exception, detail: str, troubles: Any) -> None:
        stored(rig, request())
        rig.cache.is_open = False
        course = Course(rig, request())
        course.throw(outcome)
        flight = flown(course.expect(Board).ticket)
        flight.has_forerunner = True
        course.board(flight)
        course.launch(head())
        assert course.answer.outcome.cache_status == f'llm-proxy; fwd=miss; detail="{detail}"'
        assert (course.answer.flight, rig.troubles.counts) == (flight, troubles)
        assert rig.cache.timeouts == isinstance(outcome, Late)

    def test_nothing_is_found_in_it(self, rig: Rig) -> None:
        rig.cache.is_open = False
        course = Course(rig, request(control="only-if-cached"))
        course.throw(Late())
        assert (course.answer.status, course.answer.outcome.detail) == (504, "cache-late")


class TestTending:
    """What hits changed is written in the background."""

    def tended(self, rig: Rig) -> Course:
        rig.cache.is_tending_due = True
        stored(rig, request())
        return Course(rig, request())

    def test_a_hit_waits_for_no_disk(self, rig: Rig) -> None:
        course = self.tended(rig)
        effect = course.expect(Background)
        assert (len(rig.events), rig.cache.tended) == (1, 0)
        course.send(None)
        assert course.answer.status == 200
        effect.call()
        assert rig.cache.tended == 1

    def test_its_trouble_is_counted(self, rig: Rig) -> None:
        effect = self.tended(rig).expect(Background)
        rig.cache.failing = {"tend"}
        effect.call()
        assert rig.troubles.counts == {"cache": 1}

    def test_no_threads_are_no_trouble_for_the_caller(self, rig: Rig) -> None:
        course = self.tended(rig)
        course.throw(RuntimeError("can't start new thread"))
        assert (course.answer.status, len(rig.events), rig.troubles.counts) == (200, 1, {"cache": 1})

    def test_without_a_cache_there_is_nothing_to_write(self) -> None:
        for effect in Rig(cache=None).settler.tend():
            effect.call()  # type: ignore[union-attr]


class TestForwarded:
    """Why a call went upstream. Source: RFC 9211 section 2.2."""

    def status(self, rig: Rig, **options: Any) -> str:
        course = Course(rig, request(**options))
        if isinstance(course.effect, Board):
            course.board(is_shareable=course.effect.is_shareable)
        if isinstance(course.effect, Compute):
            course.search()
        if isinstance(course.effect, Forward):
            course.send(head())
        elif course.effect is not None:
            course.launch(head())
        found: str = course.answer.outcome.cache_status
        return found

    def test_the_reasons(self, rig: Rig) -> None:
        assert self.status(rig) == "llm-proxy; fwd=uri-miss"
        assert self.status(rig, control="no-store") == 'llm-proxy; fwd=bypass; detail="no-store"'
        stored(rig, request())
        assert self.status(rig, control="no-cache") == "llm-proxy; fwd=request"
        assert self.status(rig, control="max-age=1") == "llm-proxy; fwd=request"

    def test_an_entry_that_does_not_do(self, rig: Rig) -> None:
        stored(rig, request(), has_usage=False)
        assert self.status(rig) == "llm-proxy; fwd=miss"
        stored(rig, request(), expires_s=1.0)
        assert self.status(rig) == "llm-proxy; fwd=stale"

    def test_what_went_nowhere(self, rig: Rig) -> None:
        assert self.status(rig, control="only-if-cached") == "llm-proxy"


class TestTheLeaderLeaves:
    """It is booked once, whatever becomes of the answer that others wait for."""

    @pytest.mark.parametrize("end", ["500", "error"])
    def test_before_the_upstream_fails(self, rig: Rig, end: str) -> None:
        leader, flight = led_by(rig, request())
        opened = leader.effect.opened
        follower = Course(rig, request())
        follower.board(flight)
        leader.flow.close()
        assert (flight.state, rig.events) == ("pending", [])
        if end == "500":
            opened(head(status=500))
        flight.fail()
        assert (flight.state, rig.event.error, rig.event.http_status) == ("failed", "aborted", 0)
        follower.send(None)
        follower.board(is_shareable=False)

    def test_before_it_answers(self, rig: Rig) -> None:
        leader, flight = led_by(rig, request())
        opened = leader.effect.opened
        follower = Course(rig, request())
        follower.board(flight)
        leader.flow.close()
        opened(head())
        assert (flight.state, rig.events) == ("open", []), "it is booked when it ends"


def test_the_state_of_the_cache(rig: Rig) -> None:
    assert rig.engine.cache_state == "ok"
    rig.cache.state = "failing"
    assert rig.engine.cache_state == "failing"
    assert Rig(cache=None).engine.cache_state is None


def test_answers_of_one_kind_have_one_key_and_of_two_have_two(rig: Rig) -> None:
    def key(**options: Any) -> str:
        course = Course(rig, request(**options))
        found: str = course.expect(Board).ticket.fingerprint.key
        return found

    assert key() == key(stream=True)
    assert len({key(), key(model="other"), key(endpoint="https://other.test/v1/chat/completions")}) == 3
