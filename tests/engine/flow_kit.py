"""What the tests of the engine's flow share: a call on its way, and what it meets."""

from __future__ import annotations

import threading
from typing import Any

from llm_proxy.engine.effects import Board, Compute, Forward, Held, Launch, Read
from llm_proxy.engine.flights import Flight, Ticket
from llm_proxy.types import ChatRequest, Head
from tests.fakes import Rig, entry

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


def step_upstream(flow: Any, answer: Head, raw: bytes) -> Any:
    """Let whoever is asked give this answer, which may be read before it is handed on; the first other effect."""
    effect = flow.send(answer)
    while isinstance(effect, (Read, Forward)):
        effect = flow.send(Held(answer, raw, True) if isinstance(effect, Read) else answer)
    return effect


def led_by(rig: Rig, call: ChatRequest) -> tuple[Course, Flight]:
    """A call that misses and leads; it stands before its request is sent."""
    leader = Course(rig, call)
    flight = leader.board()
    if isinstance(leader.effect, Compute):
        leader.search()
    leader.expect(Launch)
    return leader, flight


def stored(rig: Rig, call: ChatRequest, **fields: Any) -> Any:
    """Put an answer to this call into the cache."""
    key = Course(rig, call).expect(Board).ticket.fingerprint.key
    rig.events.clear()
    rig.cache.entries[key] = found = entry(key, **fields)
    return found
