"""How one call is drafted, what it is asked with, and what is seen of calls that are not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_proxy.draft.goodput import FREE, Price, Way
from llm_proxy.draft.greedy import most_tokens_of
from llm_proxy.types import JSON, Outcome, Usage
from llm_proxy.wire.chat import usage_of
from llm_proxy.wire.recorder import recorder_for
from llm_proxy.wire.scored import TOPS

if TYPE_CHECKING:
    from llm_proxy.types import Head, Outgoing

    from .call import Call
    from .effects import Flow, Held

__all__ = ["Meter", "Plan", "Said", "whole_usage"]

_EVENT, _DONE = b"data:", b"data: [DONE]"
_FRAME_EVENTS = 3  # of a stream: its role, its end, and the mark behind it
_NOT_OURS = ("accept-encoding", "idempotency-key")
_NOT_SENT = ("stream", "stream_options", "stop", "max_completion_tokens", "store", "metadata")


@dataclass(slots=True)
class Plan:
    """How one call is drafted: who is asked for what.

    ``target`` is the call's own request, ``drafter`` the same for the model that drafts, ``prompt`` and
    ``draft_prompt`` are what each of them reads; where ``prompt`` is empty, the target scores chats. ``wait_s`` is the
    longest wait for a draft, ``patience_s`` that for a whole answer in one piece; ``context_tokens`` is the target's
    window, where the settings say it; ``most_extra_usd`` is what the steps may cost more than their answer.
    """

    call: Call
    target: Outgoing
    drafter: Outgoing
    prompt: str
    draft_prompt: str
    way: Way
    greedy: Mapping[str, float]
    draft_greedy: Mapping[str, float]
    wait_s: float
    patience_s: float = math.inf
    context_tokens: int | None = None
    price: Price = FREE
    most_extra_usd: float = 0.0
    load: int = 1

    @property
    def most_tokens(self) -> int | None:
        """Longest answer, tokens."""
        return most_tokens_of(self.call.request.body)

    @property
    def target_outcome(self) -> Outcome:
        """Names the target, for prices."""
        return Outcome("miss", backend=self.target.backend, model=self.target.model)

    @property
    def drafter_outcome(self) -> Outcome:
        """Names the model that drafts, for prices."""
        return Outcome("miss", backend=self.drafter.backend, model=self.drafter.model)

    def scoring(self, text: str, most_tokens: int) -> Outgoing:
        """The request that has the target score a text, and go on with it."""
        if self.prompt:
            asked: JSON = {"prompt": self.prompt + text, "echo": True, "logprobs": TOPS}
            return _to(self.target, "/completions", {**asked, **self.greedy, "max_tokens": most_tokens})
        body = {name: value for name, value in self.call.request.body.items() if name not in _NOT_SENT}
        if text:
            said = {"role": "assistant", "content": text}
            body |= {"messages": [*self.call.request.messages, said]}
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        body |= {"prompt_logprobs": 1, "logprobs": True, "max_tokens": most_tokens}
        return _to(self.target, "/chat/completions", body)

    def drafting(self, text: str, length: int) -> Outgoing:
        """The request that has the small model go on with a text."""
        asked: JSON = {"prompt": self.draft_prompt + text, **self.draft_greedy, "max_tokens": length}
        outgoing = _to(self.drafter, "/completions", asked)
        return replace(outgoing, timeout_s=min(self.wait_s, outgoing.timeout_s or self.wait_s))


class Said:
    """Bytes that are there already, as a body for callers of either kind."""

    def __init__(self, piece: bytes) -> None:
        self._pieces = iter((piece,))

    def __iter__(self) -> Said:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def __aiter__(self) -> Said:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""


class Meter:
    """Counts the tokens of a stream while it passes by; see `llm_proxy.engine.effects.Mending`.

    The stream is over with its last event: many clients read no further.

    Args:
        over: Called with the tokens of a stream that came to its end.
    """

    is_broken = False

    def __init__(self, over: Callable[[int], object]) -> None:
        self._over, self._events, self._tail = over, 0, b""
        self.is_done = False
        """Whether the last event has passed, or nobody reads on."""

    def passed(self, piece: bytes) -> bytes:
        """The same bytes."""
        seen = self._tail + piece  # shorter than the last event, so that none is seen twice
        self._events += seen.count(_EVENT) - self._tail.count(_EVENT)
        self._tail = seen[1 - len(_DONE) :]
        if _DONE in seen:
            self.is_done = True
            if self._events > _FRAME_EVENTS:
                self._over(self._events - _FRAME_EVENTS)
        return piece

    def ended(self) -> bytes:
        """Nothing is kept back."""
        self.is_done = True
        return b""

    def kept(self) -> bytes:
        """Nothing is kept back."""
        return b""

    def left(self) -> None:
        """See `llm_proxy.engine.effects.Mending`."""
        self.is_done = True

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        """Nobody goes on."""
        yield from ()
        return None


def whole_usage(held: Held, limit_bytes: int) -> Usage | None:
    """Token counts of a plain answer that was read to its end; None where it says none."""
    recorder = recorder_for(held.head.headers, limit_bytes=limit_bytes) if held.is_whole else None
    if recorder is None:
        return None
    recorder.feed(held.body)
    recorder.end()
    completion = recorder.completion()
    return None if completion is None else usage_of(completion)


def _to(outgoing: Outgoing, path: str, body: JSON) -> Outgoing:
    """A request to another path of the same server, for an answer in one piece."""
    rows = [(name, value) for name, value in outgoing.headers if name not in _NOT_OURS]
    return replace(
        outgoing,
        url=outgoing.url.removesuffix("/chat/completions") + path,
        headers=[*rows, ("accept-encoding", "identity")],
        body=json.dumps({**body, "model": outgoing.model}, separators=(",", ":")).encode(),
    )
