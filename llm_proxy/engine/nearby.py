"""A model nearby answers first, and what it says goes along as predicted output (`llm_proxy.engine.near`).

::

    ask     the model that ``predict_with`` names, the same request for an answer in one piece, for ``draft.wait_s``,
            the wait for a slot of its backend included
              │ late, too large, an error: the call goes on without, and that model is left alone for five minutes
    draft   its answer; what it cost is the call's

Nobody else gets that answer, and it is not stored. What was made of a late one nobody tells: its prompt is booked.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.draft.prediction import Draft, draft_in
from llm_proxy.errors import LimitReached, WireError
from llm_proxy.route.base import Destination
from llm_proxy.types import CHARS_PER_TOKEN, Outcome, Usage
from llm_proxy.wire.recorder import recorder_for

from .copies import plainly, within, without_key
from .effects import Flow, Held, compute, hold
from .vain import is_late, sent_tokens

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import JSON, Outgoing
    from llm_proxy.wire.recorder import Recorder

    from .call import Call
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock
    from .settle import Settler

__all__ = ["Foretold", "Nearby"]

_REST_S, _LEAST_S = 300.0, 1e-3
_USUAL_TOKENS, _KEPT = 300.0, 0.8


class Foretold(NamedTuple):
    """What a model nearby said, if anything that may be predicted, and what it cost, dollars."""

    draft: Draft | None = None
    usd: float = 0.0


class Nearby:
    """Asks models nearby what an answer may come to. One a runtime; thread-safe as far as its parts are.

    Args:
        config: ``backends``, ``draft.wait_s`` and ``cache.max_entry_bytes`` are read.
        dispatcher: Makes the requests.
        settler: Says what they cost.
        gate: Where each request waits until it may be sent.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        gate: Gate,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._dispatcher, self._settler, self._gate = config, dispatcher, settler, gate
        self._clock, self._troubles = clock, troubles
        self._resting: dict[str, float] = {}
        self._tokens: dict[str, float] = {}

    def named(self, backend: str) -> str:
        """Who answers first for a backend, as ``BACKEND/MODEL``; empty where nobody does, or has to rest."""
        settings = self._config.backends.get(backend)
        name = settings.predict_with if settings is not None else ""
        return "" if self._clock.monotonic() < self._resting.get(name, 0.0) else name

    def usual_tokens(self, name: str) -> int:
        """About how long its answers are, tokens, > 0."""
        return math.ceil(self._tokens.get(name, _USUAL_TOKENS))

    def draft(self, call: Call, name: str) -> Flow[Foretold]:
        """What a model says to a call, whose cost is then booked; never raises."""
        before_usd = call.spent_usd
        try:
            return (yield from self._answer(call, name))
        except LimitReached as exc:
            if exc.code == "queue_timeout":
                self._rest(name)
            return Foretold()
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on without
            self._troubles.note("draft", exc)
            self._rest(name)
            return Foretold(usd=call.spent_usd - before_usd)

    def _rest(self, name: str) -> None:
        self._resting[name] = self._clock.monotonic() + _REST_S

    def _answer(self, call: Call, name: str) -> Flow[Foretold]:
        backend, _, model = name.partition("/")
        wait_s, began_s = self._config.draft.wait_s, self._clock.monotonic()
        limit_bytes = self._config.cache.max_entry_bytes
        outgoing = self._dispatcher.request(plainly(call.request), Destination("", backend=backend, model=model))
        admitted = yield from self._gate.enter(call, without_key(outgoing), wait_s=wait_s)
        left_s = max(_LEAST_S, began_s + wait_s - self._clock.monotonic())  # the slot was waited for, too
        asked = within(admitted, left_s, call.request.timeout_s)
        try:
            held = yield from hold(asked, limit_bytes=limit_bytes, limit_s=math.inf, keeps_rest=False, wait_s=left_s)
        except Exception as exc:
            if is_late(exc):
                self._in_vain(call, outgoing, b"")
            raise
        self._gate.saw(backend, held.head.status)
        try:
            recorder = self._recorded(name, held)
        except WireError:
            if held.head.status == 200:
                self._in_vain(call, outgoing, held.body)
            raise
        usd = yield from self._booked(call, outgoing, recorder.completion() or {}, self._clock.monotonic() - began_s)
        draft = draft_in(recorder.raw_completion() or b"")
        if draft is not None:
            self._tokens[name] = _KEPT * self._tokens.get(name, _USUAL_TOKENS) + (1 - _KEPT) * draft.tokens
        return Foretold(draft, usd)

    def _recorded(self, name: str, held: Held) -> Recorder:
        """Its whole answer; raises WireError where there is none."""
        limit_bytes = self._config.cache.max_entry_bytes
        recorder = recorder_for(held.head.headers, limit_bytes=limit_bytes) if held.head.status == 200 else None
        if recorder is None:
            raise WireError(f"{name} answers {held.head.status} where it was to answer first")
        recorder.feed(held.body)
        recorder.end()
        if not recorder.is_complete or not held.is_whole:
            raise WireError(f"{name} does not answer as it should: {recorder.reason or 'too-large'}")
        return recorder

    def _in_vain(self, call: Call, outgoing: Outgoing, body: bytes) -> None:
        """Book what nobody counts: the prompt, and what came of an answer."""
        asked = Outcome("miss", backend=outgoing.backend, model=outgoing.model)
        usage = Usage(sent_tokens(call.request.raw), len(body) // CHARS_PER_TOKEN)
        call.spent_usd += self._settler.price_usd(usage, asked)
        call.attempts += (f"{outgoing.backend}/{outgoing.model} ahead in vain",)

    def _booked(self, call: Call, outgoing: Outgoing, completion: JSON, took_s: float) -> Flow[float]:
        asked = Outcome("miss", backend=outgoing.backend, model=outgoing.model)
        usd = yield from compute(partial(self._settler.tried, call.request, asked, completion, took_s))
        call.spent_usd += usd
        call.attempts += (f"{outgoing.backend}/{outgoing.model} ahead",)
        return usd
