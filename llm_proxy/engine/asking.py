"""Asks an upstream beside a call: what checks of hits and comparisons of models share.

::

    plain request ── guess of its price ── within the day's dollars? ── fetch ── whole? ──> `Fresh`
                                             no: None                     what it took is counted, whatever came
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.errors import ConfigError
from llm_proxy.types import API_PATHS, CHARS_PER_TOKEN, CHAT, ChatRequest, Usage
from llm_proxy.wire.apis import recorder_for
from llm_proxy.wire.chat import usage_of
from llm_proxy.wire.responses import said_in

from . import admission
from .effects import Flow, compute, fetch

if TYPE_CHECKING:
    from llm_proxy.types import JSON, HeaderList, Outgoing

    from .allowance import Allowance
    from .flights import Recording
    from .ports import Clock, Pricer

__all__ = ["LIMIT_S", "Asking", "Bill", "Fresh", "chatting", "is_plain", "plainly", "raw", "says", "without_key"]

LIMIT_S = 60.0
"""Longest time that one request may take; where a thread reads, what it waits for last comes on top."""

_NOT_SENT = ("stream", "stream_options", "store", "metadata")
_NOT_OURS = "idempotency-key"  # it stands for the caller's own request
_TEXTS = (CHAT, "responses")
_EFFECTS = ("tools", "functions", "web_search_options")


@dataclass(slots=True)
class Bill:
    """What was asked for one purpose took so far, dollars; None before anything was sent."""

    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Fresh:
    """A whole answer, and how it came; ``cost_usd`` is what it took, dollars."""

    completion: JSON
    recorder: Recording
    headers: HeaderList
    outgoing: Outgoing
    took_s: float
    cost_usd: float


class Asking:
    """Asks within an allowance. Thread-safe as far as its parts are.

    Args:
        limit_bytes: A longer answer is of no use.
        allowance: What may be spent.
        prices: Tells what answers cost.
        clock: Clocks.
    """

    def __init__(self, limit_bytes: int, *, allowance: Allowance, prices: Pricer, clock: Clock) -> None:
        self._limit_bytes, self._allowance, self._prices, self._clock = limit_bytes, allowance, prices, clock

    def answer(self, request: ChatRequest, outgoing: Outgoing, bill: Bill, *, expected: bytes) -> Flow[Fresh | None]:
        """The answer to a request, where it may be paid for, comes, and is whole.

        Args:
            request: What is asked.
            outgoing: The same as it is sent.
            bill: What it takes is added here.
            expected: An answer of about the length to be expected.

        Raises:
            ConfigError: No price is known.
        """
        cost_usd = partial(self._cost_usd, request, outgoing)
        guess_usd = yield from compute(partial(cost_usd, _guess(outgoing.body, expected)))
        if guess_usd is None:
            raise ConfigError(f"no price is known for {outgoing.model!r}, so what checks cost can't be bounded: set it")
        if not (yield from compute(partial(self._allowance.spend, guess_usd))):
            return None
        bill.usd = (bill.usd or 0.0) + guess_usd
        limit_bytes, wait_s = self._limit_bytes, min(outgoing.timeout_s or LIMIT_S, LIMIT_S)
        started_s = self._clock.monotonic()
        try:
            answer = yield from fetch(replace(outgoing, timeout_s=wait_s), limit_bytes=limit_bytes, limit_s=LIMIT_S)
        except Exception:  # noqa: BLE001 - of any HTTP library: an upstream's trouble is none of ours
            return None
        api = request.api
        recorder = recorder_for(answer.headers, limit_bytes=limit_bytes, api=api) if answer.status == 200 else None
        if recorder is None:
            return None
        recorder.feed(answer.body)
        recorder.end()
        completion = recorder.completion()
        guess = _guess(outgoing.body, answer.body)
        usage = usage_of(completion, prompt_tokens=guess.prompt_tokens) if completion is not None else None
        took_usd = yield from compute(partial(cost_usd, usage or guess))
        further_usd = (took_usd or 0.0) - guess_usd
        if usage is not None or further_usd > 0:  # it took less than the guess only where it says so itself
            self._allowance.correct(further_usd)
            bill.usd += further_usd
        if completion is None or admission.rejection_for(request, completion):
            return None
        took_s = self._clock.monotonic() - started_s
        return Fresh(completion, recorder, answer.headers, outgoing, took_s, took_usd or 0.0)

    def _cost_usd(self, request: ChatRequest, outgoing: Outgoing, usage: Usage) -> float | None:
        return self._prices.cost_usd(usage, model=outgoing.model, backend=outgoing.backend, base_url=request.base_url)


def is_plain(request: ChatRequest) -> bool:
    """Whether a chat or a response may be asked once more: it can have no effect, and its caller did not forbid it."""
    has_effect = request.api not in _TEXTS or any(request.body.get(name) for name in _EFFECTS)
    return not has_effect and not request.controls.only_if_cached


def plainly(request: ChatRequest) -> ChatRequest:
    """The same request for an answer in one piece, that leaves nothing behind upstream."""
    request = without_key(request)
    if request.api == CHAT and not any(name in request.body for name in _NOT_SENT):
        return request
    body = {name: value for name, value in request.body.items() if name not in _NOT_SENT}
    if request.api != CHAT:
        body["store"] = False  # a response is stored where nothing is said
    return replace(request, body=body, raw=raw(body))


def without_key(request: ChatRequest) -> ChatRequest:
    """The same request without what stands for the caller's own."""
    return replace(request, headers={name: value for name, value in request.headers.items() if name != _NOT_OURS})


def chatting(request: ChatRequest, body: JSON) -> ChatRequest:
    """A chat request with this body, asked where and by whom another request is, without what stands for that one."""
    endpoint = request.endpoint.replace(request.path, API_PATHS[CHAT])
    return replace(without_key(request), body=body, raw=raw(body), api=CHAT, view=None, endpoint=endpoint)


def raw(body: Mapping[str, object]) -> bytes:
    """A request's body as bytes."""
    return json.dumps(body, separators=(",", ":")).encode()


def says(completion: JSON) -> str | None:
    """What an answer says, in its first choice where it has choices, where that is text."""
    if "choices" not in completion:
        return said_in(completion)
    message = completion["choices"][0]["message"]
    content = message.get("content")
    return content if isinstance(content, str) and not message.get("tool_calls") else None


def _guess(body: bytes, expected: bytes) -> Usage:
    return Usage(len(body) // CHARS_PER_TOKEN, len(expected) // CHARS_PER_TOKEN)
