"""Steps calls that may be sent more than once past the gate: full queues, spent budgets, servers that load a model."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.backends.delays import AT_LEAST
from llm_proxy.engine.effects import Forward, Held, Hold, Mend, Pause, Race, Raced, Read, Stand
from llm_proxy.engine.gate import COLD_PAUSE_S
from llm_proxy.errors import LimitReached
from llm_proxy.types import ChatRequest, Head
from tests.engine.attempts_kit import BROKEN, JSON_TYPE, STREAM_TYPE, Attempting
from tests.engine.flow_kit import Course
from tests.engine.test_gate import REFUSED, reserved, with_purse
from tests.fakes import Rig, body_of, request

FULL = {"concurrency": 1, "queue_length": 0}
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
LOCAL = "http://127.0.0.1:9/v1"
TEXT = b'data: {"id": "c1", "choices": [{"index": 0, "delta": {"content": "All is"}}]}\n\n'
DOLLAR = {"m": {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 0.0}}


def rig(main: Any = None, spare: Any = None, *, is_cold: bool = False, **sections: Any) -> Rig:
    backends = {
        "main": {"base_url": "https://main.test/v1", **(main or {})},
        "spare": {"base_url": "https://spare.test/v1", **(spare or {})},
    }
    return Rig({"cache": {"semantic": False}, "backends": backends, **sections}, encoder=None, has_cold_starts=is_cold)


def occupied(made: Rig, model: str = "main/m") -> Course:
    """A call that has a slot, and goes on having it; whoever holds it keeps it from being given back."""
    course = Course(made, request("earlier", model=model, temperature=2))
    assert isinstance(course.effect, (Forward, Hold))
    vars(made).setdefault("kept", []).append(course)
    return course


def queue(made: Rig, backend: str = "main") -> tuple[int, int]:
    """How many wait, and how many have a slot."""
    line: Any = made.gate._lines[backend]
    return line.waiting, line.under_way


def failures(made: Rig) -> dict[tuple[str, str], int]:
    states = made.selector.health._breakers._states
    return {pair: sum(is_failure for _, is_failure in state.calls) for pair, state in states.items()}


def refused(made: Attempting, why: LimitReached) -> Any:
    """What the caller gets, once the driver has thrown the refusal into its flow."""
    made.flight.fail()
    made.course.throw(why)
    return made.course.answer


class TestRefusedAtFirst:
    def test_without_a_fallback_the_caller_is_told(self) -> None:
        made = rig({**FULL, "retries": 3})
        occupied(made)
        with pytest.raises(LimitReached) as caught:
            Attempting(made, request(model="main/m"))
        assert caught.value.code == "queue_full"
        course = Course(made, request("other", model="main/m", temperature=2))
        assert (course.answer.status, course.answer.outcome.detail) == (429, "queue-full")
        assert course.answer.outcome.attempts == "main/m busy", "a full queue is not asked again"
        assert (queue(made), made.selector.health.under_way("main"), failures(made)) == ((0, 1), 1, {})

    def test_with_a_fallback_that_one_is_asked(self) -> None:
        made = rig({**FULL, "fallbacks": ["spare"]})
        occupied(made)
        call = Attempting(made, request(model="main/m"))
        assert call.forwarded().backend == "spare"
        assert made.selector.health.under_way("main") == 1
        answer = call.answers()
        assert (call.head, call.attempts) == (answer, "main/m busy, spare/m")
        assert failures(made) == {}

    def test_where_the_fallback_fails_the_refusal_is_told(self) -> None:
        made = rig({**FULL, "fallbacks": ["spare"]})
        occupied(made)
        call = Attempting(made, request(model="main/m"))
        with pytest.raises(LimitReached) as caught:
            call.refuses(500)
        assert refused(call, caught.value).status == 429
        assert made.event.outcome.attempts == "main/m busy, spare/m 500"
        assert made.event.outcome.backend == "main"
        assert failures(made) == {("spare", "m"): 1}

    def test_what_is_spent_is_asked_of_the_fallback(self) -> None:
        """A budget may be one of a backend."""
        made = rig({"fallbacks": ["spare"]})
        purse = with_purse(made, REFUSED)
        course = Course(made, request(model="main/m", temperature=2))
        with pytest.raises(LimitReached) as caught:
            course.effect.call()
        course.throw(caught.value)
        course.send(course.effect.call())
        assert course.expect(Forward).outgoing.backend == "spare"
        assert [ask.backend for ask in purse.asked] == ["main", "spare"]

    def test_what_is_spent_is_not_called_busy(self) -> None:
        made = rig({"retries": 1})
        with_purse(made, REFUSED)
        course = Course(made, request(model="main/m", temperature=2))
        reserved(course)
        assert course.answer.outcome.attempts == "main/m over-budget"

    def test_the_candidates_of_a_route_are_tried_once_and_then_those_outside(self) -> None:
        routes = {"auto": {"candidates": ["main/m", "spare/m"], "fallbacks": ["spare/m", "spare/other"]}}
        made = rig(FULL, FULL, routes=routes)
        occupied(made)
        occupied(made, "spare/n")
        tried = watched(made)
        with pytest.raises(LimitReached):
            Attempting(made, request(model="auto"))
        assert tried == ["main/m", "spare/m", "spare/other"]


def watched(made: Rig) -> list[str]:
    """Who is tried at the gate from now on."""
    tried: list[str] = []
    enter = made.gate.enter

    def noted(call: Any, outgoing: Any) -> Any:
        tried.append(f"{outgoing.backend}/{outgoing.model}")
        return enter(call, outgoing)

    made.gate.enter = noted  # type: ignore[method-assign]
    return tried


class TestRefusedLater:
    def test_in_a_retry(self) -> None:
        made = rig({**FULL, "retries": 1})
        call = Attempting(made, request(model="main/m"))
        call.forwarded().permit.dropped()
        call.refuses(500)
        assert queue(made) == (0, 0)
        occupied(made)
        call.expect(Pause)
        with pytest.raises(LimitReached) as caught:
            call.pauses()
        assert refused(call, caught.value).outcome.detail == "queue-full"
        assert made.event.outcome.attempts == "main/m 500, main/m busy"
        assert (failures(made), queue(made)) == ({("main", "m"): 1}, (0, 1))

    def test_a_fallback(self) -> None:
        made = rig({"fallbacks": ["spare", "spare/b"]}, {**FULL, "queue_length": 1})
        earlier = occupied(made, "spare/m")
        call = Attempting(made, request(model="main/m"))
        call.fails()
        call.expect(Stand)
        assert queue(made, "spare") == (1, 1)
        earlier.effect.outgoing.permit.dropped()
        call.send(None)
        assert call.forwarded().backend == "spare"
        call.forwarded().permit.dropped()
        call.answers()
        assert (queue(made, "spare"), call.attempts) == ((0, 0), "main/m broken, spare/m")

    def test_an_error_that_came_as_an_answer_has_no_slot_any_more(self) -> None:
        """Its body may go on: the next request to the same backend would wait for its slot for ever."""
        made = rig({**FULL, "retries": 1})
        call = Attempting(made, request(model="main/m", stream=True))
        permit = call.forwarded().permit
        said, piece = Head(200, STREAM_TYPE, iter(())), b'data: {"error": {"message": "overloaded"}}\n\n'
        call.send(said)
        rest = call.send(Held(said, piece, False))
        assert rest == Read(said, 1 << 20, 10.0, keeps_rest=False)
        permit.dropped()  # as the drivers do where a body came to its end, or is closed
        call.send(Held(said, piece, True))
        call.pauses()
        assert call.forwarded().backend == "main"
        assert queue(made) == (0, 1)


class TestLoading:
    """A server on this machine that loads its model."""

    def made(self, **main: Any) -> Rig:
        return rig({"base_url": LOCAL, "concurrency": 1, "cold_start_s": 10.0, "retries": 2, **main}, is_cold=True)

    def loads(self, call: Attempting) -> Any:
        permit = call.forwarded().permit
        if permit is not None:
            permit.dropped()
        return call.refuses(503, body=LOADING)

    def test_is_asked_again_and_holds_no_slot_meanwhile(self) -> None:
        made = self.made()
        call = Attempting(made, request(model="main/m"))
        for _ in range(4):
            assert queue(made) == (0, 1)
            assert self.loads(call) == Pause(COLD_PAUSE_S)
            assert queue(made) == (0, 0)
            assert made.selector.health.under_way("main") == 0
            call.pauses()
        assert call.flight.ticket.asked_s == made.clock.monotonic(), "the wait is not the model's"
        answer = call.answers()
        assert (call.head, call.attempts, failures(made)) == (answer, "", {})

    def test_is_given_up_once_and_the_next_one_asked(self) -> None:
        made = self.made(fallbacks=["spare"])
        call = Attempting(made, request(model="main/m"))
        self.loads(call)
        made.clock.advance(10.0 - COLD_PAUSE_S)
        call.pauses()
        self.loads(call)
        assert call.forwarded().backend == "spare"
        assert call.attempts == "main/m 503"
        call.fails()
        assert call.head.status == 503, "it was waited for long enough: its retries are not for that"
        call.opens()
        assert made.event.http_status == 503
        assert failures(made) == {("spare", "m"): 1}

    def test_without_a_flight(self) -> None:
        made = self.made()
        course = Course(made, request(model="main/m", temperature=2))
        refusal = Head(503, JSON_TYPE, iter(()))
        course.expect(Forward).outgoing.permit.dropped()
        course.send(refusal)
        course.send(Held(refusal, body_of(LOADING), True))
        course.expect(Pause)
        course.send(None)
        course.expect(Forward)

    def test_a_queue_that_is_full_meanwhile(self) -> None:
        made = self.made(queue_length=0, fallbacks=["spare"])
        call = Attempting(made, request(model="main/m"))
        self.loads(call)
        line: Any = made.gate._lines["main"]
        line.enter(1, "another")
        call.pauses()
        assert call.forwarded().backend == "spare"
        assert (call.attempts, failures(made)) == ("main/m busy", {})


class TestHedging:
    def learnt(self, main: Any = None, spare: Any = None, **more: Any) -> Rig:
        """One whose answers begin after 0.1 s."""
        made = rig({"hedge": True, "fallbacks": ["spare"], **(main or {})}, spare, **more)
        for number in range(AT_LEAST):
            course = Attempting(made, request(str(number), model="main/m"))
            made.clock.advance(0.1)
            permit = course.forwarded().permit
            course.answers()
            if permit is not None:
                permit.dropped()
        return made

    def made(self, call: ChatRequest, main: Any = None, spare: Any = None, **more: Any) -> Attempting:
        """A call that may have a rival; where `spare` has slots, they are taken."""
        made = self.learnt(main, spare, **more)
        if "spare" in made.gate._lines:
            occupied(made, "spare/m")
        return Attempting(made, call)

    @pytest.mark.parametrize("queue_length", [0, 1])
    def test_a_rival_that_may_not_be_sent_costs_nothing(self, queue_length: int) -> None:
        spare = {"concurrency": 1, "queue_length": queue_length, "prices": DOLLAR}
        made = self.made(request("x" * 40, model="main/m"), spare=spare)
        first, second = made.expect(Race).flows
        assert next(first).outgoing.backend == "main"
        if queue_length:
            assert isinstance(next(second), Stand)
            second.close()  # as the drivers do
        else:
            with pytest.raises(StopIteration) as stop:
                next(second)
            assert not made.effect.wins(stop.value.value)
        answer = Head(200, JSON_TYPE, iter(()))
        made.send(Raced(0, answer, True))
        assert (made.head, made.attempts) == (answer, "")
        assert made.flight.ticket.outcome.cost_usd is None
        assert queue(made.rig, "spare") == (0, 1)
        assert made.rig.selector.health.under_way("spare") == 1
        assert failures(made.rig) == {}

    def test_a_rival_that_was_sent_costs_its_prompt(self) -> None:
        made = self.made(request("x" * 40, model="main/m"), main={"concurrency": 1}, spare={"prices": DOLLAR})
        first, second = made.expect(Race).flows
        assert next(first).outgoing.permit is not None, "its slot was waited for before the race"
        next(second)
        made.send(Raced(0, Head(200, JSON_TYPE, iter(())), True))
        assert made.flight.ticket.outcome.cost_usd == 10.0

    def test_where_the_own_queue_is_full_there_is_no_race(self) -> None:
        made = self.learnt(FULL)
        occupied(made, "main/n")
        late = Attempting(made, request(model="main/m"))
        assert late.forwarded().backend == "spare"
        late.answers()
        assert (late.attempts, failures(made), queue(made)) == ("main/m busy, spare/m", {}, (0, 1))

    def test_a_rival_whose_server_loads_leaves_the_clock_of_the_first(self) -> None:
        spare = {"base_url": LOCAL, "cold_start_s": 10.0}
        made = self.made(request("late", model="main/m"), spare=spare, is_cold=True)
        asked_s = made.flight.ticket.asked_s
        _, second = made.expect(Race).flows
        next(second)
        refusal = Head(503, JSON_TYPE, iter(()))
        second.send(refusal)
        assert second.send(Held(refusal, body_of(LOADING), True)) == Pause(COLD_PAUSE_S)
        made.rig.clock.advance(5.0)
        assert isinstance(second.send(None), Forward)
        assert made.flight.ticket.asked_s == asked_s


class TestSplicing:
    def broken(self, spare: Any, *fallbacks: str, is_full: bool = True) -> tuple[Rig, Any, Any]:
        """A stream that breaks off; what keeps it going, and the flow that does."""
        made = rig({"fallbacks": list(fallbacks)}, {"can_prefill": "trailing", **spare})
        if is_full:
            self.earlier = occupied(made, "spare/m")
        call = Attempting(made, request(model="main/m", stream=True))
        answer = call.begins(TEXT)
        mending = call.expect(Mend).mending
        call.send(answer)
        call.opens()
        mending.passed(TEXT)
        self.call = call
        return made, mending, mending.going_on(BROKEN)

    def test_the_rest_has_a_slot_of_its_own(self) -> None:
        made, _, going_on = self.broken(FULL, "spare/m", is_full=False)
        permit = next(going_on).outgoing.permit
        assert queue(made, "spare") == (0, 1)
        rest = Head(200, STREAM_TYPE, iter(()))
        going_on.send(rest)
        with pytest.raises(StopIteration) as stop:
            going_on.send(Held(rest, TEXT, False))
        assert stop.value.value is rest
        permit.dropped()
        assert queue(made, "spare") == (0, 0)

    def test_its_turn_is_waited_for(self) -> None:
        made, _, going_on = self.broken({"concurrency": 1}, "spare/m")
        assert isinstance(next(going_on), Stand)
        self.earlier.effect.outgoing.permit.dropped()
        assert isinstance(going_on.send(None), Forward)
        assert queue(made, "spare") == (0, 1)

    def test_a_full_queue_leaves_the_stream_as_it_is(self) -> None:
        made, mending, going_on = self.broken(FULL, "spare/m", "spare/n")
        tried = watched(made)
        with pytest.raises(StopIteration) as stop:
            next(going_on)
        assert stop.value.value is None
        assert tried == ["spare/m", "spare/n"]
        assert failures(made) == {("main", "m"): 1}, "the refusals say nothing of the spare one"
        assert (mending.is_broken, queue(made, "spare"), made.troubles.counts) == (False, (0, 1), {})
