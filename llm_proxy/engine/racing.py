"""Step 7: a model nearby answers beside a slow one, and the first good answer is taken.

::

    remote   sent as ever; it has answered once its first bytes are there, a plain answer once all of it is
    local    begins `race_after_s` later, by default when the remote one is slower than 95 % of its calls were
             its answer is read whole and scored ── below `race_bar`, or nobody can tell: the remote one is waited for
               └─ good enough, and the remote one has not begun: it is handed on, and the remote one is cancelled

The loser's cost is booked with the call: of one that was cancelled the prompt, since nobody tells what was made of it.

Source: Dean and Barroso, "The Tail at Scale", 2013, "hedged requests".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.backends.delays import Delays
from llm_proxy.errors import LimitReached
from llm_proxy.types import CHAT, Head, Usage
from llm_proxy.wire.recorder import recorder_for

from .cascade import SCORING_S
from .copies import without_key
from .effects import Flow, compute, forward, hold, race, read
from .sight import at_sight, reply_of, text_of
from .vain import came_of, counted, is_late, noted, text_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import BackendConfig, Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import JSON, Outcome, Outgoing

    from .call import Call
    from .effects import Held, Raced
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock, Scorer, Sends
    from .settle import Settler

__all__ = ["Racing"]

_STREAM_OVERHEAD = 16  # as in `llm_proxy.wire.recorder`


@dataclass(eq=False)
class _Local:
    """The request beside a call's own: who is asked, whether he is by now, and what that has cost so far."""

    outgoing: Outgoing
    asked: Outcome
    is_begun: bool = False
    is_answered: bool = False
    usd: float = 0.0


class Racing:
    """Sends calls beside a local model. One a runtime; thread-safe as far as its parts are.

    Args:
        config: ``backends``, ``attempts.hedge_share`` and ``cache.max_entry_bytes`` are read.
        sends: What sends a call to the backend that it is for.
        dispatcher: Makes the requests.
        settler: Books what became of them.
        gate: Where each request waits until it may be sent.
        scorer: Says how likely an answer is right.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        sends: Sends,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        gate: Gate,
        scorer: Scorer,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._sends, self._dispatcher = config, sends, dispatcher
        self._settler, self._gate, self._scorer = settler, gate, scorer
        self._clock, self._troubles = clock, troubles
        self._delays = Delays(config.attempts.hedge_share)

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call; see `Attempts.asking`, which it is for backends without a rival."""
        plain = self._sends.asking(call, outgoing)
        backend = self._config.backends.get(outgoing.backend)
        is_one = call.request.api == CHAT and call.request.body.get("n") in (None, 1)
        if backend is None or not backend.race_with or not is_one or not self._scorer.is_usable:
            return plain
        return self._asking(call, outgoing, plain, backend)

    def _asking(self, call: Call, outgoing: Outgoing, plain: Flow[Head] | None, backend: BackendConfig) -> Flow[Head]:
        key = outgoing.backend, outgoing.model, call.request.is_stream
        after_s = self._delays.rival_after_s(key) if backend.race_after_s is None else backend.race_after_s
        came: list[Head | BaseException] = []  # of the remote one, if that
        remote = noted(self._remote(call, outgoing, plain), came)
        local = None if after_s is None else self._local(call, backend)
        if local is None or after_s is None:
            return (yield from remote)
        began_s = self._clock.monotonic()
        try:
            raced = yield from race((remote, self._answered(call, local, backend.race_bar)), after_s, _is_answer)
        except BaseException:  # of the remote one, and the local one is not good enough; or the caller has left
            if local.is_begun:
                self._lost(call, local)
            raise
        if raced.is_both:
            self._delays.rivalled(key)
        if raced.index == 1:
            self._delays.note(key, self._clock.monotonic() - began_s)  # at least so long
            self._turn(call, outgoing, local, came)
        elif raced.is_both:
            self._lost(call, local)
        return _head_of(raced)

    def _remote(self, call: Call, outgoing: Outgoing, plain: Flow[Head] | None) -> Flow[Head]:
        """The call's own request, once its answer has begun."""
        key = outgoing.backend, outgoing.model, call.request.is_stream
        began_s = self._clock.monotonic()
        if plain is None:
            self._settler.sent(call.outcome, call.sent)
            head = yield from forward(outgoing)
            limits = (0, 0.0) if call.request.is_stream else (self._config.cache.max_entry_bytes, math.inf)
            head = (yield from read(head, limit_bytes=limits[0], limit_s=limits[1])).head
        else:
            head = yield from plain
        if head.status == 200:
            self._delays.note(key, self._clock.monotonic() - began_s)
        return head

    def _local(self, call: Call, backend: BackendConfig) -> _Local | None:
        name, _, model = backend.race_with.partition("/")
        try:
            destination = replace(call.destination, backend=name, model=model)
            outgoing = self._dispatcher.request(call.request, destination)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the remote one answers
            self._troubles.note("race", exc)
            return None
        return _Local(without_key(outgoing), replace(call.outcome, backend=name, model=model))

    def _answered(self, call: Call, local: _Local, bar: float) -> Flow[Head | None]:
        """The local answer; None where it is not good enough, or there is none."""
        local.is_begun = True
        self._settler.sent(local.asked, local)
        limit_bytes = self._config.cache.max_entry_bytes * (_STREAM_OVERHEAD if call.request.is_stream else 1)
        try:
            admitted = yield from self._gate.enter(call, local.outgoing)
            local.usd = self._prompt_usd(call, local.asked)
            held = yield from hold(admitted, limit_bytes=limit_bytes, limit_s=math.inf, keeps_rest=False)
            local.is_answered = True
            self._gate.saw(local.asked.backend, held.head.status)
            is_whole = held.is_whole and held.head.status == 200
            completion = self._completion(held) if is_whole else None
            local.usd = self._local_usd(call, local, held, completion)
            return held.head if (yield from self._is_good(call, completion, bar)) else None
        except LimitReached:
            self._settler.withdrawn(local.asked, local)
            return None
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the remote one answers
            if not local.is_answered and not is_late(exc):
                local.usd = 0.0
            self._troubles.note("race", exc)
            return None

    def _local_usd(self, call: Call, local: _Local, held: Held, completion: JSON | None) -> float:
        """What the local answer cost, whether or not it is of use; an error costs nothing."""
        if held.head.status != 200:
            return 0.0
        if completion is None:
            return self._settler.price_usd(came_of(local.outgoing, held.head, held.body), local.asked)
        usage = counted(completion, text_tokens(call.request.messages))
        return self._settler.price_usd(usage, local.asked)

    def _is_good(self, call: Call, completion: JSON | None, bar: float) -> Flow[bool]:
        if completion is None:
            return False
        seen = at_sight(call.request, 200, completion)
        if seen is not None:
            return seen.is_good
        encoding = call.ticket.encoding if call.ticket is not None else None
        reply = reply_of(completion, text_of(completion))
        score = partial(self._scorer.score, call.request.question, reply, encoding)
        return (yield from compute(score, SCORING_S)) >= bar

    def _completion(self, held: Held) -> JSON | None:
        recorder = recorder_for(held.head.headers, limit_bytes=self._config.cache.max_entry_bytes)
        if recorder is None:
            return None
        recorder.feed(held.body)
        recorder.end()
        return recorder.completion()

    def _turn(self, call: Call, outgoing: Outgoing, local: _Local, came: Sequence[Head | BaseException]) -> None:
        """The local answer is taken: the call is its own from here on."""
        asked = replace(call.outcome, backend=outgoing.backend, model=outgoing.model)
        self._settler.let_go(asked, call.sent)
        call.attempts += (
            f"{outgoing.backend}/{outgoing.model} overtaken",
            f"{local.asked.backend}/{local.asked.model}",
        )
        call.destination = replace(call.destination, backend=local.asked.backend, model=local.asked.model)
        is_paid = not call.is_over and all(map(_is_paid, came))  # what is over is booked
        self._book(call, self._prompt_usd(call, asked) if is_paid else 0.0)
        if call.ticket is not None:
            route = self._config.routes.get(call.destination.route)
            named = f"{local.asked.backend}/{local.asked.model}"
            is_candidate = route is not None and named in route.candidates
            call.ticket.is_storable = call.ticket.is_storable and is_candidate

    def _lost(self, call: Call, local: _Local) -> None:
        """The local answer is not taken."""
        self._settler.let_go(local.asked, local)
        self._book(call, local.usd)

    def _book(self, call: Call, usd: float) -> None:
        call.spent_usd += usd
        if call.ticket is not None:
            call.ticket.outcome = call.outcome

    def _prompt_usd(self, call: Call, asked: Outcome) -> float:
        return self._settler.price_usd(Usage(text_tokens(call.request.messages)), asked)


def _is_paid(came: Head | BaseException) -> bool:
    """Whether the remote one has its price, which came to an end beside the one that is taken."""
    return is_late(came) if isinstance(came, BaseException) else came.status == 200


def _is_answer(value: Head | None) -> bool:
    return value is not None and value.status == 200


def _head_of(raced: Raced) -> Head:
    head: Head = raced.value
    return head
