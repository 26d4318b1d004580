"""What passes the gate in another way: other candidates of a route, servers that load their model, cascades."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Forward, Held, Hold, Launch, Pause, Read, Stand
from llm_proxy.engine.gate import COLD_PAUSE_S
from llm_proxy.errors import LimitReached
from llm_proxy.types import Head
from tests.engine.flow_kit import Course, led_by
from tests.engine.test_gate import PRICE, REFUSED, URL, asked, line, reserved, rig, with_purse
from tests.fakes import Rig, head, request


def whole(course: Course, answer: Head) -> None:
    """A plain answer comes, and is handed on once it is all there."""
    assert course.send(answer) == Read(answer, course.rig.config.cache.max_entry_bytes, math.inf)
    course.send(Held(answer, b"{}", True))
    assert course.answer.head is answer


class TestOtherCandidates:
    def test_a_full_queue_turns_a_route_to_another(self) -> None:
        one = rig()
        for _ in range(2):
            asked(one)
        course = asked(one, model="auto")
        assert course.expect(Forward).outgoing.backend == "two"
        whole(course, head())
        outcome = one.event.outcome
        assert (outcome.backend, outcome.model) == ("two", "m")
        assert outcome.reason.endswith("; one is at its limit")
        assert one.selector.health.under_way("two") == 0

    def test_a_long_wait_turns_a_route_to_another(self) -> None:
        one = rig(route={"max_wait_s": 0.01})
        asked(one)
        course, flight = led_by(one, request(model="auto"))
        forward = next(course.effect.asking)
        assert forward.outgoing.backend == "two"
        assert flight.ticket.outcome.backend == "two"

    def test_a_short_wait_is_waited(self) -> None:
        one = rig(route={"max_wait_s": 60.0})
        asked(one)
        asked(one, model="auto").expect(Stand)

    def test_where_all_are_busy_the_chosen_one_is_waited_for(self) -> None:
        busy = {"concurrency": 1, "prices": {"m": PRICE}}
        one = rig(
            backends={"one": {**busy, "base_url": URL}, "two": {**busy, "base_url": "https://c.test/v1"}},
            route={"max_wait_s": 0.01},
        )
        asked(one)
        asked(one, model="two/m")
        asked(one, model="auto").expect(Stand)
        assert line(one) == (1, 1)

    def test_the_first_refusal_is_told(self) -> None:
        one = rig()
        with_purse(one, LimitReached("first", code="budget_exceeded"), LimitReached("second", code="budget_exceeded"))
        course = asked(one, model="auto")
        reserved(course)
        reserved(course)
        assert json.loads(course.answer.body)["error"]["message"] == "first"

    def test_a_refusal_after_a_long_wait(self) -> None:
        one = rig(route={"max_wait_s": 0.01})
        asked(one)
        with_purse(one, LimitReached("second", code="budget_exceeded"))
        course = asked(one, model="auto")
        reserved(course)
        assert json.loads(course.answer.body)["error"]["message"] == "second"

    def test_the_good_enough_then_the_stronger_then_the_weaker(self) -> None:
        urls = {name: {"base_url": f"https://{name}.test/v1"} for name in "abcd"}
        one = Rig(
            {
                "cache": {"enabled": False, "store": "memory"},
                "backends": urls,
                "routes": {"auto": {"candidates": [f"{name}/m" for name in "abcd"]}},
            }
        )
        purse = with_purse(one, *[REFUSED] * 4)
        course = asked(one, model="auto")
        first = course.expect(Compute)
        assert first is not None
        for _ in range(4):
            reserved(course)
        assert [ask.backend for ask in purse.asked] == list("abcd")
        assert course.answer.status == 429


LOADING = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'


class TestColdStart:
    """A server on this machine that loads its model."""

    @pytest.fixture
    def one(self) -> Rig:
        local = {"base_url": "http://127.0.0.1:9/v1", "concurrency": 1, "cold_start_s": 10.0}
        sections = {"cache": {"semantic": False, "store": "memory"}, "backends": {"one": local}}
        return Rig(sections, has_cold_starts=True)

    def loading(self, asking: Any, effect: Any) -> Any:
        """The server says that it loads; the driver closes its answer."""
        assert isinstance(effect, Hold)
        effect.outgoing.permit.opened(answer := head(status=503))
        effect.outgoing.permit.dropped()
        return asking.send(Held(answer, LOADING, True))

    def test_is_waited_for_and_holds_no_slot_meanwhile(self, one: Rig) -> None:
        course, flight = led_by(one, request(model="one/m"))
        asking = course.effect.asking
        assert self.loading(asking, next(asking)) == Pause(COLD_PAUSE_S)
        assert line(one) == (0, 0)
        one.clock.advance(2.0)
        again = asking.send(None)
        assert isinstance(again, Hold)
        assert (line(one), flight.ticket.asked_s) == ((0, 1), one.clock.monotonic())
        with pytest.raises(StopIteration) as stop:
            asking.send(Held(answer := head(), b"first", False))
        assert stop.value.value is answer

    def test_not_for_ever(self, one: Rig) -> None:
        course = asked(one)
        assert self.loading(course.flow, course.expect(Hold)) == Pause(COLD_PAUSE_S)
        one.clock.advance(10.0)
        effect = course.send(None)
        effect.outgoing.permit.dropped()
        course.send(Held(answer := head(status=503), LOADING, True))
        assert course.answer.head is answer

    def test_once_it_answers_it_is_asked_as_any(self, one: Rig) -> None:
        course = asked(one)
        course.expect(Hold).outgoing.permit.dropped()
        course.send(Held(head(), b"first", False))
        again = asked(one)
        again.expect(Forward).outgoing.permit.dropped()
        again.send(head(status=503))
        asked(one).expect(Hold)

    def test_what_another_answers_says_nothing_of_it(self) -> None:
        backends = {
            "one": {"base_url": "http://127.0.0.1:9/v1", "concurrency": 1, "queue_length": 0},
            "two": {"base_url": "https://c.test/v1"},
        }
        routes = {"auto": {"candidates": ["one/m", "two/m"]}}
        sections = {"cache": {"semantic": False, "store": "memory"}, "backends": backends, "routes": routes}
        one = Rig(sections, has_cold_starts=True)
        asked(one).expect(Hold)
        other = asked(one, model="auto")
        assert other.expect(Forward).outgoing.backend == "two"
        whole(other, head())
        assert one.gate._cold.wait_s("one") > 0

    def test_another_trouble_is_handed_on(self, one: Rig) -> None:
        course = asked(one)
        course.expect(Hold).outgoing.permit.dropped()
        course.send(Held(answer := head(status=503), b"overloaded", True))
        assert course.answer.head is answer


class TestCascade:
    def test_each_step_enters(self) -> None:
        one = rig(route={"cascade": True})
        course, _ = led_by(one, request(model="auto"))
        asking = course.effect.asking
        hold = next(asking)
        assert isinstance(hold, Hold)
        assert line(one) == (0, 1)
        hold.outgoing.permit.dropped()
        assert line(one) == (0, 0)
        forward = asking.throw(OSError("refused"))
        assert isinstance(forward, Forward)
        assert forward.outgoing.backend == "two"

    def test_a_step_that_is_refused_is_passed_over(self) -> None:
        one = rig(route={"cascade": True})
        for _ in range(2):
            asked(one)
        course, _ = led_by(one, request(model="auto"))
        assert isinstance(course.effect, Launch)
        assert next(course.effect.asking).outgoing.backend == "two"
