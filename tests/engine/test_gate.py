"""Steps what passes the gate: budgets, queues, other candidates, and what is given back on each way out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Forward, Late, Stand
from llm_proxy.engine.ports import Live, Ready
from llm_proxy.errors import CacheError, LimitReached
from llm_proxy.holders import Holder
from tests.engine.flow_kit import Course, led_by
from tests.fakes import Rig, body_of, completion, head, request

PRICE = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}  # a dollar a token
URL = "https://b.test/v1"


def rig(**sections: Any) -> Rig:
    backends = {
        "one": {"base_url": URL, "concurrency": 1, "queue_length": 1, "prices": {"m": PRICE}},
        "two": {"base_url": "https://c.test/v1", "prices": {"m": PRICE}},
    }
    routes = {"auto": {"candidates": ["one/m", "two/m"], **sections.pop("route", {})}}
    return Rig({"cache": {"semantic": False, "store": "memory"}, "backends": backends, "routes": routes, **sections})


def asked(rig: Rig, text: str = "hi", **fields: Any) -> Course:
    """A call that bypasses the cache, at its first effect; it is kept, as one that nobody holds has left."""
    course = Course(rig, request(text, **{"model": "one/m", "temperature": 2, "max_tokens": 9, **fields}))
    vars(rig).setdefault("kept", []).append(course)
    return course


def answered(course: Course, **more: Any) -> Live:
    """Let the upstream answer, as the driver does, and the body come to its end."""
    permit = course.expect(Forward).outgoing.permit
    course.send(answer := head(**more))
    permit.opened(answer)
    permit.passed(body_of(completion()))
    permit.ended()
    assert isinstance(course.answer, Live)
    return course.answer


def line(rig: Rig) -> tuple[int, int]:
    queue: Any = rig.gate._lines["one"]
    return queue.waiting, queue.under_way


class Purse:
    """A budget that says what it is told to."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[Any] = []
        self.settled: list[Any] = []
        self.closed = 0

    def reserve(self, ask: Any) -> Any:
        self.asked.append(ask)
        reply = self.replies.pop(0) if self.replies else f"r{len(self.asked)}"
        if isinstance(reply, Exception):
            raise reply
        return reply

    def settle(self, reservation: Any, usd: float, tokens: int) -> None:
        if reservation == "broken":
            raise OSError("disk")
        self.settled.append((reservation, usd, tokens))

    def close(self) -> None:
        self.closed += 1


def with_purse(rig: Rig, *replies: Any) -> Purse:
    purse: Any = Purse(*replies)
    rig.gate._purse = purse
    return purse


def reserved(course: Course) -> Any:
    """Do what the gate asks to have done for the budget."""
    try:
        found = course.expect(Compute).call()
    except (LimitReached, CacheError) as exc:
        return course.throw(exc)
    return course.send(found)


REFUSED = LimitReached("spent", code="budget_exceeded")


class TestQueue:
    def test_a_free_slot_is_taken_and_given_back(self) -> None:
        one = rig()
        course = asked(one)
        assert line(one) == (0, 1)
        answered(course)
        assert line(one) == (0, 0)

    def test_without_a_limit_nothing_is_entered(self) -> None:
        one = rig()
        course = asked(one, model="two/m")
        assert course.expect(Forward).outgoing.permit is None

    def test_the_second_waits_and_is_timed_from_its_turn(self) -> None:
        one = rig()
        first = asked(one)
        second, flight = led_by(one, request(model="one/m"))
        asking = second.effect.asking
        stand = next(asking)
        assert isinstance(stand, Stand)
        assert stand.limit_s is None
        called: list[int] = []
        stand.when_called(lambda: called.append(1))
        assert (called, line(one)) == ([], (1, 1))
        one.clock.advance(60.0)
        answered(first)
        assert (called, line(one)) == ([1], (0, 1))
        forward = asking.send(None)
        assert isinstance(forward, Forward)
        assert flight.ticket.asked_s == one.clock.monotonic()
        forward.outgoing.permit.dropped()
        assert line(one) == (0, 0)
        asking.close()

    def test_a_bypass_waits_too(self) -> None:
        one = rig()
        first, second = asked(one), asked(one)
        second.expect(Stand)
        answered(first)
        second.send(None)
        answered(second)
        assert line(one) == (0, 0)

    def test_a_full_queue_is_a_429_to_come_again(self) -> None:
        one = rig()
        courses = [asked(one) for _ in range(3)]
        answer = courses[2].answer
        assert isinstance(answer, Ready)
        headers = dict(answer.headers)
        assert (answer.status, headers["x-should-retry"], headers["retry-after"]) == (429, "true", "1")
        assert headers["cache-status"] == 'llm-proxy; detail="queue-full"'
        error = json.loads(answer.body)["error"]
        assert (error["type"], error["code"], error["param"]) == ("rate_limit_exceeded", "queue_full", None)
        assert (one.event.http_status, one.event.outcome.detail) == (429, "queue-full")
        assert one.event.outcome.status == "refused", "it is no miss: nobody was asked"
        assert one.selector.health.under_way("one") == 2
        assert one.selector.health.resting_s("one", "m") == 0.0

    def test_retry_after_is_never_longer_than_clients_heed(self) -> None:
        one = rig()
        asked(one, max_tokens=1_000_000, n=2)
        asked(one)
        queue: Any = one.gate._lines["one"]
        queue._spent_s = 1e9
        assert dict(asked(one).answer.headers)["retry-after"] == "60"

    def test_a_caller_waits_no_longer_than_its_time_out(self) -> None:
        one = rig()
        asked(one)
        course = Course(one, request(model="one/m", temperature=2, timeout_s=3.0))
        assert course.expect(Stand).limit_s == 3.0
        course.throw(Late())
        assert (course.answer.status, course.answer.outcome.detail) == (429, "queue-timeout")
        assert line(one) == (0, 1)

    def test_a_caller_who_leaves_is_taken_out(self) -> None:
        one = rig()
        asked(one)
        course = asked(one)
        assert line(one) == (1, 1)
        course.flow.close()
        assert line(one) == (0, 1)
        assert one.event.error == "aborted"

    def test_a_refused_leader_fails_its_flight(self) -> None:
        one = rig()
        for _ in range(2):
            asked(one)
        course, flight = led_by(one, request(model="one/m"))
        with pytest.raises(LimitReached) as caught:
            next(course.effect.asking)
        flight.fail()  # as the drivers do
        course.throw(caught.value)
        assert course.answer.status == 429
        assert [event.http_status for event in one.events] == [429]


class TestBudget:
    def test_reserved_and_settled(self) -> None:
        one = rig()
        purse = with_purse(one)
        course = asked(one, model="two/m", max_tokens=50)
        reserved(course)
        (ask,) = purse.asked
        assert (ask.backend, ask.route, ask.usd, ask.tokens, ask.is_free) == ("two", "", 51.0, 51, False)
        assert ask.tenant.startswith("key:")
        answered(course)
        assert purse.settled == [("r1", 15.0, 15)]
        one.gate.close()
        assert purse.closed == 1

    def test_a_gate_without_a_budget_has_nothing_to_close(self) -> None:
        rig().gate.close()

    def test_a_key_with_a_budget_of_its_own_is_counted_alone(self) -> None:
        one, purse = rig(), Purse()
        vars(one.gate)["_own_purse"] = purse
        holders = [None, Holder("1", "a", "a"), Holder("2", "b", "team", usd_per_month=5.0)]
        for holder in holders:
            call = request("hi", model="two/m", temperature=2, max_tokens=50)
            course = Course(one, replace(call, holder=holder))
            if holder is not None and holder.has_budget:
                reserved(course)
                answered(course)
            else:
                assert course.expect(Forward).outgoing.permit is None
        (ask,) = purse.asked
        assert (ask.holder, ask.tenant, ask.usd) == (holders[2], "tenant:team", 51.0)
        assert purse.settled == [("r1", 15.0, 15)]
        one.gate.close()
        assert purse.closed == 1

    def test_no_limit_on_the_answer(self) -> None:
        one = rig()
        purse = with_purse(one)
        reserved(asked(one, model="two/m", max_tokens=None))
        assert purse.asked[0].tokens == 1 + 4 * 300
        reserved(asked(one, model="two/m", max_tokens=None, n=3))
        assert purse.asked[1].tokens == 1 + 3 * 4 * 300

    def test_an_answer_of_unknown_length_took_what_was_reserved(self) -> None:
        one = rig()
        purse = with_purse(one)
        course = asked(one, model="two/m")
        reserved(course)
        permit = course.expect(Forward).outgoing.permit
        permit.opened(head(content_type="text/plain"))
        permit.ended()
        assert purse.settled == [("r1", 10.0, 10)]

    def test_a_request_that_fails_gives_it_back(self) -> None:
        one = rig()
        purse = with_purse(one)
        course = asked(one, model="two/m")
        reserved(course)
        course.expect(Forward).outgoing.permit.dropped()
        with pytest.raises(OSError, match="refused"):
            course.throw(OSError("refused"))
        assert purse.settled == [("r1", 0.0, 0)]

    def test_a_full_queue_gives_it_back(self) -> None:
        one = rig()
        for _ in range(2):
            asked(one)
        purse = with_purse(one)
        course = asked(one)
        reserved(course)
        assert course.answer.status == 429
        assert purse.settled == [("r1", 0.0, 0)]

    def test_what_is_spent_is_a_429_not_to_be_tried_again(self) -> None:
        one = rig()
        with_purse(one, REFUSED)
        course = asked(one, model="two/m")
        reserved(course)
        headers = dict(course.answer.headers)
        assert (course.answer.status, headers["x-should-retry"]) == (429, "false")
        assert "retry-after" not in headers
        error = json.loads(course.answer.body)["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")

    def test_what_no_limit_is_for_is_not_settled(self) -> None:
        one = rig()
        purse = with_purse(one, None)
        purse.replies = [None]
        course = asked(one, model="two/m")
        reserved(course)
        answered(course)
        assert purse.settled == []

    @pytest.mark.parametrize("is_strict", [False, True])
    def test_trouble_counts_and_lets_pass_unless_strict(self, is_strict: bool) -> None:
        one = rig(budget={"strict": is_strict})
        with_purse(one, CacheError("locked"))
        course = asked(one, model="two/m")
        reserved(course)
        assert one.troubles.counts == {"budget": 1}
        if is_strict:
            assert json.loads(course.answer.body)["error"]["code"] == "budget_unavailable"
        else:
            answered(course)

    def test_trouble_while_settling_counts(self) -> None:
        one = rig()
        with_purse(one, "broken")
        course = asked(one, model="two/m")
        reserved(course)
        answered(course)
        assert one.troubles.counts == {"budget": 1}

    def test_models_without_a_price(self) -> None:
        one = rig(budget={"unpriced_usd_per_mtok": 2e6})
        purse = with_purse(one)
        reserved(asked(one, model="two/unheard-of"))
        assert (purse.asked[0].usd, purse.asked[0].is_free) == (20.0, False)

    def test_free_models(self) -> None:
        free = {"base_url": "http://127.0.0.1:9/v1"}
        one = Rig({"cache": {"enabled": False, "store": "memory"}, "backends": {"local": free}})
        purse = with_purse(one)
        reserved(asked(one, model="local/m"))
        assert (purse.asked[0].usd, purse.asked[0].is_free) == (0.0, True)

    def test_a_caller_who_leaves_while_it_is_reserved_gets_it_back(self) -> None:
        one = rig()
        purse = with_purse(one)
        course = asked(one, model="two/m")
        reserving = course.expect(Compute).call
        course.flow.close()
        assert purse.settled == []
        reserving()  # the thread that is at it goes on
        assert purse.settled == [("r1", 0.0, 0)]
