"""Steps `Engine.answer` where several callers ask the same: who leads, who follows, who leaves."""

from __future__ import annotations

import pytest

from llm_proxy.engine.effects import Await, Board, Compute, Forward, Launch
from llm_proxy.engine.ports import Live
from llm_proxy.types import Head
from tests.engine.flow_kit import TEXT, Course, flown, led_by
from tests.fakes import Found, Rig, entry, head, request


@pytest.fixture
def rig() -> Rig:
    return Rig()


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
