"""What the tests of cascades share: a rig with a route that cascades, and a call on its way."""

from __future__ import annotations

import json
import math
from typing import Any

from llm_proxy.config import Config
from llm_proxy.engine.cascade import SCORING_S
from llm_proxy.engine.effects import Background, Compute, Forward, Held, Hold, Late, Launch, Read
from llm_proxy.errors import RouterError
from llm_proxy.types import Head
from tests.engine.flow_kit import TEXT, Course
from tests.fakes import FakeScorer, Rig, body_of, completion, head, request

__all__ = ["JUDGE_USD", "LARGE_USD", "SMALL_USD", "Appraiser", "Steps", "choice", "held", "rig", "with_message"]

PRICES = {
    name: {"input_usd_per_mtok": price, "output_usd_per_mtok": price}
    for name, price in {"small": 1e5, "middle": 2e5, "large": 1e6, "judge": 4e5, "other": 8e5}.items()
}
LIMIT_BYTES = Config().cache.max_entry_bytes
SMALL_USD, JUDGE_USD, LARGE_USD = 1.5, 6.0, 15.0  # 15 tokens each


def rig(*, models: str = "small large", scorer: FakeScorer | None = None, has_costs: bool = False, **route: Any) -> Rig:
    backends = {"b": {"base_url": "https://b.test/v1", "api_key": "k", "prices": PRICES}}
    candidates = [f"b/{model}" for model in models.split()]
    sections = {"backends": backends, "routes": {"auto": {"candidates": candidates, "cascade": True, **route}}}
    settings = {**sections, "cache": {"semantic": False, "store": "memory"}}
    return Rig(settings, encoder=None, scorer=scorer or FakeScorer(), has_costs=has_costs)


def held(value: Any = None, *, status: int = 200, is_whole: bool = True, **more: Any) -> Held:
    body = b"".join(value) if isinstance(value, list) else body_of(completion() if value is None else value)
    kind = TEXT if isinstance(value, list) else "application/json"
    return Held(head([body], status=status, content_type=kind), body, is_whole)


class Steps(Course):
    """A call in a cascade: its flow up to the launch, then the flow that asks."""

    def __init__(self, rig: Rig, **fields: Any) -> None:
        super().__init__(rig, request("2 and 2?", model="auto", **fields))
        self.flight = None
        if rig.config.cache.enabled and fields.get("n") is None and "temperature" not in fields:
            self.flight = self.board()
        self.launch = self.effect
        self.asked: list[str] = []
        self.head: Head | None = None
        if isinstance(self.launch, Launch) and self.launch.asking is not None:
            self.caller, self.flow = self.flow, self.launch.asking  # a caller who is dropped leaves
            self._step(lambda: next(self.flow))

    def hold(self, answer: Held | Exception, model: str = "small") -> Any:
        effect = self.expect(Hold)
        assert json.loads(effect.outgoing.body)["model"] == model
        return self.throw(answer) if isinstance(answer, Exception) else self.send(answer)

    def score(self) -> Any:
        assert self.expect(Compute).limit_s == SCORING_S
        return self.compute()

    def compute(self) -> Any:
        try:
            found = self.expect(Compute).call()
        except (RouterError, Late) as exc:
            return self.throw(exc)
        return self.send(found)

    def forwarded(self, model: str = "large") -> None:
        """The last one is asked; what was held before may still be handed on if it fails."""
        assert isinstance(self.effect, (Forward, Hold))
        assert json.loads(self.effect.outgoing.body)["model"] == model

    def last(self, answer: Head) -> None:
        """The last one answers."""
        body = b"".join(answer.body)
        whole = Head(answer.status, answer.headers, [body])
        self.send(whole if isinstance(self.effect, Forward) else Held(whole, body, True))

    def alone(self, model: str) -> None:
        """This one is asked in no cascade: nothing is held back, and its answer is handed on and settled."""
        assert json.loads(self.expect(Forward).outgoing.body)["model"] == model
        answer = head([body_of(completion("4", model=model))])
        assert self.send(answer) == Read(answer, LIMIT_BYTES, math.inf)
        self.send(Held(answer, b"".join(answer.body), True))
        assert (self.effect, self.answer) == (None, answer)
        self.settle(answer)

    def settle(self, value: Any) -> None:
        """The answer that is handed on comes to its end in the flight."""
        ticket = self.launch.flight.ticket
        self.launch.opened(value)
        ticket.recorder.feed(b"".join(value.body))
        ticket.recorder.end()
        flow = ticket.settle(ticket)
        result = None
        try:
            while True:
                effect = flow.send(result)
                result = effect.call() if isinstance(effect, (Background, Compute)) else None
        except StopIteration:
            pass


class Appraiser:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def observe(self, call: Any) -> None:
        self.seen.append(call)

    def again(self, *_: Any) -> None:
        return None


def choice(text: str, *, finish: str = "stop", logprobs: list[float] | None = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": text, **message}
    given = {"content": [{"logprob": value} for value in logprobs]} if logprobs else None
    return {"index": 0, "message": said, "finish_reason": finish, "logprobs": given}


def with_message(message: Any) -> dict[str, Any]:
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "tool_calls"}]
    return completion(choices=choices)
