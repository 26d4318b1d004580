from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from llm_proxy.engine.flights import Flight, Seat, Ticket
from llm_proxy.types import Fingerprint, Outcome
from tests.fakes import entry, head, request


@dataclass
class Recorder:
    is_overflowed: bool = False
    reason: str = "unfinished"


@dataclass
class Log:
    """What a flight told those around it."""

    over: int = 0
    lost: list[str] = field(default_factory=list)
    aborts: int = 0
    changes: int = 0


class Told(Flight):
    def __init__(self) -> None:
        self.log = log = Log()
        ticket = Ticket(
            request(),
            Fingerprint("k", "s", "hi"),
            Outcome("miss"),
            0.0,
            self._settle,
            lambda _, why: log.lost.append(why),
        )
        super().__init__(ticket, lock=threading.RLock(), on_over=self._count_over)

    def _settle(self, ticket: Ticket) -> Iterator[Any]:
        raise AssertionError("drivers do that")

    def _count_over(self, flight: Flight) -> None:
        assert flight is self
        self.log.over += 1

    def _changed(self) -> None:
        self.log.changes += 1

    def _abort(self) -> None:
        self.log.aborts += 1


def joined(flight: Flight) -> Seat:
    seat = flight.join()
    assert seat is not None
    return seat


def rest(flight: Flight, seat: Seat) -> list[bytes]:
    chunks = []
    while (chunk := flight.next_chunk(seat)) is not None:
        chunks.append(chunk)
    return chunks


def test_the_usual_course() -> None:
    flight = Told()
    seat = joined(flight)
    answer = head()
    flight.open(answer)
    assert (flight.state, flight.head, flight.is_over) == ("open", answer, False)
    flight.take_in(b"a")
    late = joined(flight)
    flight.take_in(b"b")
    assert flight.has_chunk(late)
    assert rest(flight, seat) == rest(flight, late) == [b"a", b"b"]
    assert not flight.has_chunk(late)
    flight.finish()
    flight.leave(seat)
    flight.leave(late)
    assert flight.state == "finished"
    assert flight.log == Log(over=1, lost=[], aborts=0, changes=4)


def test_a_landed_flight_takes_nobody_in_but_ends_for_those_aboard() -> None:
    flight = Told()
    seat = joined(flight)
    flight.open(head())
    flight.ticket.entry = stored = entry()
    flight.land()
    assert (flight.join(), flight.entry, flight.state, flight.log.over) == (None, stored, "open", 1)
    flight.take_in(b"last")
    assert rest(flight, seat) == [b"last"]
    flight.leave(seat)
    assert (flight.state, flight.log.aborts) == ("finished", 1), "what follows in the body is not worth a wait"


def test_the_last_one_out_aborts() -> None:
    flight = Told()
    first, second = joined(flight), joined(flight)
    flight.open(head())
    flight.leave(first)
    flight.leave(first)
    assert (flight.state, flight.is_left) == ("open", False)
    flight.leave(second)
    assert (flight.state, flight.is_left) == ("failed", True)
    assert (flight.log.lost, flight.log.aborts, flight.log.over) == (["aborted"], 1, 1)
    assert flight.join() is None


def test_nothing_happens_to_a_flight_that_is_over() -> None:
    flight = Told()
    seat = joined(flight)
    flight.fail()
    flight.open(head())
    flight.fail()
    flight.answer(entry())
    flight.leave(seat)
    assert (flight.state, flight.head, flight.log.over, flight.log.lost, flight.log.aborts) == (
        "failed",
        None,
        1,
        [],
        0,
    )


def test_an_error_is_there_for_every_reader() -> None:
    flight = Told()
    seat = joined(flight)
    flight.open(head())
    flight.take_in(b"a")
    error = OSError("reset")
    flight.finish(error)
    assert (flight.state, flight.error, rest(flight, seat)) == ("finished", error, [b"a"])


def test_the_leader_may_find_the_answer() -> None:
    flight, found = Told(), entry()
    joined(flight)
    flight.answer(found)
    assert (flight.state, flight.entry, flight.head) == ("finished", found, None)


def test_leaving_is_told_once() -> None:
    flight, left = Told(), []
    seat, other = joined(flight), joined(flight)
    seat.left = lambda: left.append(flight.is_over)
    flight.leave(seat)
    flight.leave(seat)
    flight.leave(other)
    assert left == [False]


def test_a_dropped_seat_holds_up_nobody() -> None:
    flight = Told()
    kept, dropped = joined(flight), joined(flight)
    flight.ticket.recorder = recorder = Recorder()
    for chunk in (b"a", b"b"):
        flight.take_in(chunk)
    assert rest(flight, kept) == [b"a", b"b"]
    recorder.is_overflowed = True
    watch = weakref.ref(dropped)
    del dropped
    gc.collect()
    assert watch() is None
    flight.take_in(b"c")
    assert rest(flight, kept) == [b"c"]
    assert flight._chunks == []
    flight.leave(kept)
    assert flight.log.aborts == 1


def test_nobody_joins_a_long_answer_and_what_all_have_is_given_back() -> None:
    flight = Told()
    quick, slow = joined(flight), joined(flight)
    flight.open(head())
    piece = b"x" * (1 << 18)
    for _ in range(4):
        flight.take_in(piece)
    assert joined(flight) is not None, "a mebibyte is not long"
    assert rest(flight, quick) == [piece] * 4
    flight.take_in(b"more")
    assert flight.join() is None
    assert rest(flight, quick) == [b"more"]
    assert len(flight._chunks) == 5, "the slow one lacks it all"
    assert rest(flight, slow) == [*[piece] * 4, b"more"]
    assert flight._chunks == []


def test_the_hooks_do_nothing_by_themselves() -> None:
    bare = Flight(Told().ticket, lock=threading.RLock(), on_over=lambda flight: None)
    seat = joined(bare)
    bare.take_in(b"a")
    bare.leave(seat)
    assert bare.state == "failed"


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class AnyCourse(RuleBasedStateMachine):
    """Whatever happens in whatever order: each caller gets exactly the bytes from its first on, in order."""

    seats = Bundle("seats")

    def __init__(self) -> None:
        super().__init__()
        self.flight = Told()
        self.flight.ticket.recorder = self.recorder = Recorder()
        self.sent: list[bytes] = []
        self.got: dict[Seat, list[bytes]] = {}
        self.is_aborted = False

    @rule(target=seats)
    def join(self) -> Seat:
        seat = self.flight.join()
        if seat is None:
            assert self.flight.is_over or self.recorder.is_overflowed or self.flight._is_landed
            return Seat()
        assert not self.flight.is_over
        self.got[seat] = []
        return seat

    @precondition(lambda self: not self.flight.is_over)
    @rule(chunk=st.binary(min_size=1, max_size=3))
    def take_in(self, chunk: bytes) -> None:
        self.sent.append(chunk)
        self.flight.take_in(chunk)

    @rule(seat=seats)
    def read(self, seat: Seat) -> None:
        if seat not in self.got:
            return
        had = self.flight.has_chunk(seat)
        chunk = self.flight.next_chunk(seat)
        assert had == (chunk is not None)
        if chunk is not None:
            self.got[seat].append(chunk)
        else:
            assert len(self.got[seat]) == len(self.sent)

    @rule(seat=consumes(seats))
    def leave(self, seat: Seat) -> None:
        was_over = self.flight.is_over
        had_seats = not self.flight.is_left
        self.got.pop(seat, None)
        self.flight.leave(seat)
        if had_seats and not self.got and not was_over:
            self.is_aborted = True

    @precondition(lambda self: self.flight.state == "pending")
    @rule()
    def open(self) -> None:
        self.flight.open(head())

    @rule()
    def overflow(self) -> None:
        self.recorder.is_overflowed = True

    @precondition(lambda self: self.flight.state == "open")
    @rule()
    def land(self) -> None:
        self.flight.land()

    @precondition(lambda self: self.got)
    @rule(error=st.none() | st.just(OSError()))
    def finish(self, error: OSError | None) -> None:
        self.flight.finish(error)

    @invariant()
    def bytes_are_in_order(self) -> None:
        for chunks in self.got.values():
            assert chunks == self.sent[: len(chunks)]

    @invariant()
    def nothing_unread_is_dropped(self) -> None:
        kept = len(self.flight._chunks)
        assert self.flight._dropped + kept == len(self.sent)
        assert self.flight._dropped == 0 or self.recorder.is_overflowed
        assert all(len(chunks) >= self.flight._dropped for chunks in self.got.values())

    @invariant()
    def the_last_one_out_aborts(self) -> None:
        assert self.flight.log.aborts == self.is_aborted
        assert self.flight.is_left == (not self.got)


TestAnyCourse = AnyCourse.TestCase
