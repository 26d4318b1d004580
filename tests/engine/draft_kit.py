"""Calls that are drafted, before simulated servers that know their answers by heart; no model runs here."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks._knowing import FORM, Knowing
from llm_proxy.boarding import Flights
from llm_proxy.drive import Driver, Served
from llm_proxy.engine.drafting import Drafting
from llm_proxy.types import ChatRequest, Head, Outgoing
from llm_proxy.wire.recorder import recorder_for
from tests.fakes import Rig, request

__all__ = ["ANSWER", "BIG", "Servers", "ask", "drafting_rig", "said"]

ANSWER = "one two three four five six seven eight nine ten."
BIG: dict[str, Any] = {"base_url": "https://big.test/v1", "draft_with": "small/s", "scores": "echo", "template": FORM}
SMALL: dict[str, Any] = {"base_url": "https://small.test/v1", "template": FORM}


class Body:
    """Pieces of an answer; counts how often it is closed."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces, self.closes = iter(pieces), 0

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self.closes += 1


class Servers:
    """Both servers; each request takes as long as it says, of a clock that stands still else."""

    def __init__(self, rig: Rig, *, acceptance: float = 1.0, answer: str = ANSWER, **kinds: Any) -> None:
        self.rig, self.big = rig, Knowing({"Count.": answer})
        self.small = Knowing({"Count.": answer}, acceptance=acceptance, **kinds)
        self.asked: list[str] = []
        self.bodies: list[Body] = []
        self.meddle: Callable[[str, Outgoing], Head | None] = lambda path, outgoing: None
        self.step_s, self.token_s = 0.05, 0.05

    def __call__(self, outgoing: Outgoing) -> Head:
        host, _, path = outgoing.url.removeprefix("https://").partition("/v1/")
        name = host.removesuffix(".test")
        self.asked.append(f"{name} {path}")
        meddled = self.meddle(f"{name} {path}", outgoing)
        if meddled is not None:
            return meddled
        model, body = getattr(self, name), json.loads(outgoing.body)
        if path == "completions":
            self.rig.clock.advance(self.step_s if name == "big" else 0.001)
            return self.answer([json.dumps(model.complete(body)).encode()])
        pieces = model.chunks(body) if body.get("stream") else [json.dumps(model.chat(body)).encode()]
        self.rig.clock.advance(self.token_s * len(model.split(model.answer("Count."))))
        return self.answer(pieces, "text/event-stream" if body.get("stream") else "application/json")

    def answer(self, pieces: list[bytes], kind: str = "application/json", status: int = 200) -> Head:
        self.bodies.append(Body(pieces))
        return Head(status, [("content-type", kind)], self.bodies[-1])


def drafting_rig(big: dict[str, Any] | None = None, small: dict[str, Any] | None = None, **sections: Any) -> Rig:
    """An engine whose controller has seen that drafting pays."""
    backends = {"big": {**BIG, **(big or {})}, "small": {**SMALL, **(small or {})}}
    rig = Rig({"cache": {"semantic": False}, "backends": backends, **sections}, encoder=None)
    return rig


def teach(rig: Rig, servers: Servers, *, is_worth_it: bool = True) -> None:
    """Let plain calls be seen, and steps."""
    assert isinstance(rig.drafting, Drafting)
    for _ in range(3):
        ask(rig, servers, control="no-store")
    goodput, way = rig.drafting._goodput, next(iter(rig.drafting._goodput._known))
    for length in (2, 4, 6):
        goodput.took(way, length, 0.051 if is_worth_it else 9.0)
    goodput.saw(way, kept=30, missed=1)
    servers.asked.clear()
    rig.events.clear()


def ask(rig: Rig, servers: Servers, *, control: str = "", **fields: Any) -> Served:
    """One call to the large model."""
    call: ChatRequest = request("Count.", model="big/b", control=control, **{"temperature": 0, **fields})
    with ThreadPoolExecutor(1) as pool:
        served = Driver(Flights(), lambda: pool).serve(rig.engine.answer(call), servers)
        return served


def said(served: Served) -> dict[str, Any]:
    """The completion that a caller gets, streamed or not."""
    recorder = recorder_for(served.headers, limit_bytes=1 << 20)
    assert recorder is not None
    recorder.feed(served.body + b"".join(served.rest or ()))
    recorder.end()
    found = recorder.completion()
    assert found is not None, recorder.reason
    return found
