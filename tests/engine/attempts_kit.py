"""Steps the flow that sends a call more than once."""

from __future__ import annotations

from typing import Any

from llm_proxy.engine.effects import Forward, Held, Launch, Pause, Read
from llm_proxy.faces._http import httpx
from llm_proxy.types import ChatRequest, Head, Outgoing
from tests.engine.test_flow import Course
from tests.fakes import Rig, body_of, completion, request

__all__ = ["BACKENDS", "BROKEN", "JSON_TYPE", "STREAM_TYPE", "Attempting", "proxied", "rig"]

BACKENDS: dict[str, Any] = {name: {"base_url": f"https://{name}.test/v1"} for name in ("main", "spare")}
BROKEN = httpx.ReadError("reset")
JSON_TYPE = [("content-type", "application/json")]
STREAM_TYPE = [("content-type", "text/event-stream")]


def rig(main: dict[str, Any] | None = None, spare: dict[str, Any] | None = None, **sections: Any) -> Rig:
    backends = {"main": {**BACKENDS["main"], **(main or {})}, "spare": {**BACKENDS["spare"], **(spare or {})}}
    return Rig({"cache": {"semantic": False}, "backends": backends, **sections}, encoder=None)


def proxied(model: str = "main/m", *, headers: dict[str, str] | None = None, **fields: Any) -> ChatRequest:
    """A call through the proxy, which has no address of its own."""
    call = request(model=model, endpoint="", **fields)
    return ChatRequest(call.body, call.raw, {**call.headers, **(headers or {})})


class Attempting:
    """One call whose flow is stepped."""

    def __init__(self, made: Rig, call: ChatRequest) -> None:
        self.rig = made
        self.course = Course(made, call)
        self.course.board()
        launch = self.course.expect(Launch)
        self.flight, self.opened = launch.flight, launch.opened
        self.flow = launch.asking
        self.head: Any = None
        self.effect: Any = None
        if self.flow is not None:
            self.step(lambda: next(self.flow))

    def step(self, step: Any) -> Any:
        try:
            self.effect = step()
        except StopIteration as stop:
            self.effect, self.head = None, stop.value
        return self.effect

    def send(self, value: Any) -> Any:
        return self.step(lambda: self.flow.send(value))

    def expect(self, kind: type) -> Any:
        assert isinstance(self.effect, kind), self.effect
        return self.effect

    def forwarded(self) -> Outgoing:
        return self.expect(Forward).outgoing

    def fails(self, error: Exception = BROKEN) -> Any:
        self.expect(Forward)
        return self.step(lambda: self.flow.throw(error))

    def refuses(self, status: int, *headers: tuple[str, str], body: Any = None, is_whole: bool = True) -> Any:
        """Let the upstream refuse."""
        self.expect(Forward)
        refusal = Head(status, [*JSON_TYPE, *headers], iter(()))
        raw = body_of(body or {"error": {"message": f"said {status}"}})
        assert self.send(refusal) == Read(refusal, 1 << 20, 10.0)
        return self.send(Held(refusal, raw, is_whole))

    def answers(self) -> Head:
        """Let the upstream answer a plain call."""
        self.expect(Forward)
        answer = Head(200, JSON_TYPE, iter(()))
        assert self.send(answer).limit_s == float("inf")
        self.send(Held(answer, body_of(completion()), True))
        return answer

    def begins(self, piece: bytes, headers: Any = STREAM_TYPE) -> Head:
        """Let the upstream begin a stream."""
        self.expect(Forward)
        answer = Head(200, headers, iter(()))
        assert self.send(answer) == Read(answer, 0, 0.0)
        self.send(Held(answer, piece, not piece))
        if self.effect == Read(answer, 1 << 20, 10.0, keeps_rest=False):  # an error: its slot is to be free
            self.send(Held(answer, piece, True))
        return answer

    def pauses(self) -> float:
        seconds: float = self.expect(Pause).seconds
        self.rig.clock.advance(seconds)
        self.send(None)
        return seconds

    @property
    def attempts(self) -> str:
        return self.flight.ticket.outcome.attempts

    def opens(self) -> None:
        """Hand the head on."""
        self.opened(self.head)
        self.course.send(self.head)
