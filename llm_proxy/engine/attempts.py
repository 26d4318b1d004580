"""Step 8 where one request may not be enough: a call is sent again, or to another backend, until an answer begins.

::

    send ── answer begins ──> handed on as it comes                 a plain one once it is all there
      │ no connection, a time-out, a break, a refusal, an error
      v
    next (`llm_proxy.backends.retry`) ── fallback ──> send          at once
      │                               ── again ─────> pause, send
      └ nobody ──> what the first backend said last is handed on, status, headers and body

An answer has begun when its first bytes are there, and those of a plain answer are handed on when all of them are:
until then nobody has seen anything, and a failure costs the caller nothing but time.

The flow runs where a request would be sent from (`llm_proxy.engine.effects.Launch`), so all who share the flight get
the answer that is handed on, whoever of them leaves meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.delays import Delays
from llm_proxy.backends.retry import Attempt, Failure, Tries, failed, failed_by
from llm_proxy.errors import ASKED_ENOUGH, LimitReached
from llm_proxy.types import CHAT, Head, Outcome, Outgoing, Usage
from llm_proxy.wire.failure import Said, error_in_event, said_in
from llm_proxy.wire.splice import may_be_continued

from .call import said_of
from .effects import Flow, Held, forward, mend, pause, race, read
from .gate import COLD_PAUSE_S
from .splicing import Splicing
from .vain import is_late, noted, text_tokens

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles

    from .call import Call
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock
    from .settle import Settler

__all__ = ["Attempts"]

PROXY_RETRIES = 2
"""As many as the openai client's own: how often a call through the proxy is sent again where nothing else is said."""

_ERROR_BYTES, _ERROR_S = 1 << 20, 10.0
_NO_LIMIT_S = float("inf")
_SDK_COUNT, _SDK_TIMEOUT = "x-stainless-retry-count", "x-stainless-read-timeout"
_KEY = "idempotency-key"  # it stands for one request at one backend


class Attempts:
    """Sends calls until one is answered. One a runtime; thread-safe as far as its parts are.

    Args:
        config: ``attempts``, ``backends`` and ``routes`` are read.
        dispatcher: Makes the requests.
        settler: Books what became of them.
        gate: Where each request waits until it may be sent.
        clock: Clocks.
        troubles: Counts what goes wrong.
        chance: Gives a random number in [0, 1).
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
        chance: Callable[[], float],
    ) -> None:
        self._config, self._dispatcher, self._settler, self._gate = config, dispatcher, settler, gate
        self._clock, self._troubles, self._chance = clock, troubles, chance
        self._delays = Delays(config.attempts.hedge_share)
        self._can_splice = any(backend.can_prefill != "no" for backend in config.backends.values())

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call as often as it takes; None where there is nothing to do but to send it once."""
        if self._may_take_more(call, outgoing):
            return self._asking(call, outgoing)
        return None if self._gate.is_open(call, outgoing) else self._gate.asking(call, outgoing)

    def _may_take_more(self, call: Call, outgoing: Outgoing) -> bool:
        """Whether there is anything to do about a request that brings no answer."""
        backend = self._config.backends.get(outgoing.backend)
        if backend is None:
            return False
        route = self._config.routes.get(call.destination.route)
        has_others = bool(backend.fallbacks) or (
            route is not None and (bool(route.fallbacks) or len(route.candidates) > 1)
        )
        has_others = has_others or backend.hedge
        return has_others or backend.can_prefill != "no" or self._retries(call, outgoing.backend) > 0

    def _asking(self, call: Call, outgoing: Outgoing) -> Flow[Head]:
        tries = self._tries(call)
        outgoing, answer = yield from self._first(call, outgoing, tries)
        asked = call.destination
        while True:
            if isinstance(answer, Head):
                if call.attempts:
                    self._note(call, f"{call.outcome.backend}/{call.outcome.model}")
                return (yield from self._kept_going(call, answer))
            now_s = self._clock.monotonic()
            tries.note((outgoing.backend, outgoing.model), answer, now_s)
            if (call.destination.backend, call.outcome.model) != (outgoing.backend, outgoing.model):
                return _handed_on(tries)  # another one has won a race meanwhile: a thread could not be stopped
            call.is_over = True
            self._spend(call, outgoing, answer)
            self._note(call, f"{outgoing.backend}/{outgoing.model} {answer.words}")
            others = self._dispatcher.fallbacks(call.request, call.destination, answer.cause) if answer.cause else ()
            attempt = tries.next(others, now_s, self._chance())
            if attempt is None:
                call.destination = asked
                return _handed_on(tries)
            if attempt.wait_s:
                yield from pause(attempt.wait_s)
            outgoing, call.is_over = self._turned_to(call, attempt, tries.first), False
            answer = yield from self._sent(call, outgoing, call.sent)

    def _first(self, call: Call, outgoing: Outgoing, tries: Tries) -> Flow[tuple[Outgoing, Head | Failure]]:
        """The first request, where others may be in its way perhaps to another candidate, and what it brings."""
        if not self._gate.is_open(call, outgoing):
            self._settler.sent(call.outcome, call.sent)
            try:
                outgoing = yield from self._gate.admitted(call, outgoing)
            except LimitReached as exc:
                busy = self._busy(call.outcome, call.sent, exc)
                for pair in ((outgoing.backend, outgoing.model), *self._gate.others(call)):
                    tries.note(pair, busy, self._clock.monotonic())  # the gate has tried them all
                return outgoing, busy
        return outgoing, (yield from self._hedged(call, outgoing))

    def _hedged(self, call: Call, outgoing: Outgoing) -> Flow[Head | Failure]:
        """Send the first request, and a rival beside it where it takes longer than nearly all do; see `Delays`."""
        settings = self._config.backends[outgoing.backend]
        key = outgoing.backend, outgoing.model, call.request.is_stream
        after_s = self._delays.rival_after_s(key) if settings.hedge and call.request.api == CHAT else None
        first = self._sent(call, outgoing, call.sent)
        if after_s is None:
            return (yield from first)
        others = self._dispatcher.fallbacks(call.request, call.destination, "timeout")
        rival = Attempt(*next(iter(others), key[:2]))
        second = self._outgoing(call, rival)
        second = replace(second, headers=[row for row in second.headers if row[0] != _KEY])
        beside, started_s = _Beside(), self._clock.monotonic()
        came: tuple[list[Any], list[Any]] = [], []
        flows = noted(first, came[0]), noted(self._sent(call, second, beside), came[1])
        raced = yield from race(flows, after_s, _is_answer)
        if raced.is_both:
            self._delays.rivalled(key)
            loser, sent = (second, beside) if raced.index == 0 else (outgoing, call.sent)
            if _is_answer(raced.value):  # else it has failed by itself
                self._settler.let_go(replace(call.outcome, backend=loser.backend, model=loser.model), sent)
            if loser is outgoing or not beside.is_kept_back:
                self._spend(call, loser, *came[1 - raced.index])
        if raced.index == 1:
            self._delays.note(key, self._clock.monotonic() - started_s)  # at least so long
            self._note(call, f"{outgoing.backend}/{outgoing.model} overtaken")
            self._turn(call, rival, key[:2])
        answer: Head | Failure = raced.value
        return answer

    def _spend(self, call: Call, outgoing: Outgoing, came: Head | Failure | None = None) -> None:
        """Book a request whose answer nobody gets: its prompt, since nobody tells what else its backend made of it.

        Nothing where it has failed by itself, and was not given up.
        """
        if isinstance(came, Failure) and not (isinstance(came.brought, Exception) and is_late(came.brought)):
            return
        asked = replace(call.outcome, backend=outgoing.backend, model=outgoing.model)
        call.spent_usd += self._settler.price_usd(Usage(text_tokens(call.request.messages)), asked)
        if call.ticket is not None:
            call.ticket.outcome = call.outcome

    def _sent(self, call: Call, outgoing: Outgoing, sent: object) -> Flow[Head | Failure]:
        """Send one request, and again while its server says that it loads its model: once, then others are asked."""
        began_s = self._clock.monotonic()
        while True:
            answer = yield from self._sent_once(call, outgoing, sent)
            if not isinstance(answer, Failure) or not answer.loading_s:
                return answer
            if self._clock.monotonic() - began_s >= answer.loading_s:
                return replace(answer, may_repeat=False)
            yield from pause(COLD_PAUSE_S)
            outgoing = replace(outgoing, permit=None)
            if call.ticket is not None and sent is call.sent:  # what is learnt of its speed is not to hold the wait
                call.ticket.asked_s = self._clock.monotonic()

    def _sent_once(self, call: Call, outgoing: Outgoing, sent: object) -> Flow[Head | Failure]:
        """The one place where a request of a call that is no cascade's is sent."""
        asked = replace(call.outcome, backend=outgoing.backend, model=outgoing.model)
        self._settler.sent(asked, sent)
        try:
            admitted = outgoing if outgoing.permit is not None else (yield from self._entered(call, outgoing, sent))
            started_s = self._clock.monotonic()
            head = yield from forward(admitted)
            self._gate.saw(outgoing.backend, head.status)
            answer = yield from self._begun(call, outgoing.backend, head)
        except LimitReached as exc:
            return self._busy(asked, sent, exc)
        except Exception as exc:
            failure = failed_by(exc)
            if failure is None:
                raise
            answer = failure
        if isinstance(answer, Failure) and answer.loading_s:
            self._settler.withdrawn(asked, sent)
        elif isinstance(answer, Failure):
            status = 0 if answer.status == 200 else answer.status
            asked_s = (answer.wait_s or 0.0) if status == 429 else 0.0
            self._settler.given_up(asked, sent, status=status, is_refused=answer.is_refused, asked_s=asked_s)
        elif self._config.backends[outgoing.backend].hedge:
            key = outgoing.backend, outgoing.model, call.request.is_stream
            self._delays.note(key, self._clock.monotonic() - started_s)
        return answer

    def _entered(self, call: Call, outgoing: Outgoing, sent: object) -> Flow[Outgoing]:
        beside = sent if isinstance(sent, _Beside) else _Beside()
        beside.is_kept_back = True
        admitted = yield from self._gate.enter(call, outgoing)
        beside.is_kept_back = False
        return admitted

    def _busy(self, asked: Outcome, sent: object, why: LimitReached) -> Failure:
        """What it means that a request may not be sent: that says nothing of its backend."""
        self._settler.withdrawn(asked, sent)
        return Failure(why, "rate_limit", False)

    def _begun(self, call: Call, backend: str, head: Head) -> Flow[Head | Failure]:
        """The answer once nothing speaks against handing it on."""
        if head.status >= 400:
            held = yield from read(head, limit_bytes=_ERROR_BYTES, limit_s=_ERROR_S)
            failure = self._failed(_with_length(held), said_in(head.headers, held.body))
            return replace(failure, loading_s=self._gate.loading_s(backend, head.status, held.body))
        if head.status != 200:
            return head
        if not call.request.is_stream:
            held = yield from read(head, limit_bytes=self._config.cache.max_entry_bytes, limit_s=_NO_LIMIT_S)
            return held.head
        held = yield from read(head, limit_bytes=0, limit_s=0.0)
        said = error_in_event(held.body) if held.body else Said()
        if said is None:
            return held.head
        if not held.is_whole:  # its slot is to be free when the next request is sent
            held = yield from read(held.head, limit_bytes=_ERROR_BYTES, limit_s=_ERROR_S, keeps_rest=False)
        return self._failed(_with_length(held), said)

    def _failed(self, head: Head, said: Said) -> Failure:
        return failed(head, code=said.code, kind=said.type, message=said.message, now_s=self._clock.time())

    def _kept_going(self, call: Call, head: Head) -> Flow[Head]:
        """The answer, which goes on elsewhere where it breaks off, if it can."""
        is_plain = head.status != 200 or head.header("content-encoding") not in ("", "identity")
        is_stream = head.header("content-type").lower().startswith("text/event-stream")
        if is_plain or not is_stream or head.header("content-length") or not self._can_splice:
            return head
        if call.request.api != CHAT or not may_be_continued(call.request.body):
            return head
        first = call.destination.backend, call.outcome.model
        splicing = Splicing(
            self._config,
            call,
            dispatcher=self._dispatcher,
            settler=self._settler,
            gate=self._gate,
            turned_to=partial(self._turned_to, first=first),
            troubles=self._troubles,
        )
        return (yield from mend(head, splicing))

    def _turned_to(self, call: Call, attempt: Attempt, first: tuple[str, str]) -> Outgoing:
        """Turn a call to its next attempt; what is to be sent."""
        outgoing = self._outgoing(call, attempt)
        if attempt.backend != first[0]:
            outgoing = replace(outgoing, headers=[row for row in outgoing.headers if row[0] != _KEY])
        self._turn(call, attempt, first)
        return outgoing

    def _outgoing(self, call: Call, attempt: Attempt) -> Outgoing:
        """The request of an attempt; its backend is given no more time than the caller has left."""
        destination = replace(call.destination, backend=attempt.backend, model=attempt.model)
        outgoing = self._dispatcher.request(call.request, destination)
        left_s = self._deadline_s(call) - self._clock.monotonic()
        own_s = _NO_LIMIT_S if outgoing.timeout_s is None else outgoing.timeout_s
        return replace(outgoing, timeout_s=left_s) if left_s < own_s else outgoing

    def _turn(self, call: Call, attempt: Attempt, first: tuple[str, str]) -> None:
        call.destination = replace(call.destination, backend=attempt.backend, model=attempt.model)
        ticket = call.ticket
        if ticket is not None:
            ticket.asked_s, ticket.outcome = self._clock.monotonic(), call.outcome
            pair = attempt.backend, attempt.model
            ticket.is_storable = ticket.is_storable and self._is_storable(call, pair, first)

    def _is_storable(self, call: Call, pair: tuple[str, str], first: tuple[str, str]) -> bool:
        """Whether the answer may be kept for the question: not one of a model that nobody would have asked for."""
        route = self._config.routes.get(call.destination.route)
        return pair[1] == first[1] or (route is not None and "/".join(pair) in route.candidates)

    def _note(self, call: Call, words: str) -> None:
        call.attempts += (words,)
        if call.ticket is not None:
            call.ticket.outcome = call.ticket.outcome.with_changes(attempts=said_of(call.attempts))

    def _tries(self, call: Call) -> Tries:
        settings = self._config.attempts
        return Tries(
            settings.most,
            {name: self._retries(call, name) for name in self._config.backends},
            longest_wait_s=settings.longest_wait_s,
            deadline_s=self._deadline_s(call),
            before=_count(call.request.headers.get(_SDK_COUNT)) * self._requests_a_time(call),
        )

    def _requests_a_time(self, call: Call) -> int:
        """How many requests each sending of a call by its caller is taken to have been.

        The proxy tells its caller when it should not go on. In a client nothing can be told where no answer came at
        all, so it is taken that everybody was asked each time.
        """
        if not call.request.endpoint:
            return 1
        others = self._dispatcher.fallbacks(call.request, call.destination, "outage")
        return len({(call.destination.backend, call.outcome.model), *others})

    def _retries(self, call: Call, backend: str) -> int:
        """How often a call may be sent to a backend again: never where its caller does that by itself."""
        is_proxied = not call.request.endpoint
        if not is_proxied and _SDK_COUNT in call.request.headers:
            return 0
        said = self._config.backends[backend].retries
        return said if said is not None else PROXY_RETRIES if is_proxied else 0

    def _deadline_s(self, call: Call) -> float:
        limit_s = call.request.timeout_s
        if limit_s is None:
            try:
                limit_s = float(call.request.headers.get(_SDK_TIMEOUT) or "inf")
            except ValueError:
                limit_s = _NO_LIMIT_S
        return call.started_s + limit_s


class _Beside:
    """Stands for a request beside a call's own; ``is_kept_back`` says that it waits to be sent, or may not be."""

    is_kept_back = False


def _is_answer(answer: Head | Failure) -> bool:
    return isinstance(answer, Head)


def _handed_on(tries: Tries) -> Head:
    """What the first backend said last, and whether the caller may send the call once more.

    Raises:
        Exception: What was raised instead.
    """
    brought = tries.said_first.brought
    if isinstance(brought, Exception):
        if tries.is_used_up:
            brought.add_note(ASKED_ENOUGH)
        raise brought
    if not tries.is_used_up:
        return brought
    rows = [row for row in brought.headers if row[0] != "x-should-retry"]
    return replace(brought, headers=[*rows, ("x-should-retry", "false")])


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 4 else 0


def _with_length(held: Held) -> Head:
    """The head of a refusal that was read; where that was too long to be read whole, its length is no longer true."""
    head = held.head
    if held.is_whole:
        return head
    return replace(head, headers=[row for row in head.headers if row[0] != "content-length"])
