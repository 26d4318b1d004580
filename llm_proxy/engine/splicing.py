"""A stream that breaks off goes on at another backend, from the text already sent; see `llm_proxy.wire.splice`.

Who is asked: the fallbacks for the cause, then the backend itself, as far as each can go on with a text (the setting
``can_prefill``); where no text was sent yet, any of them, for the same once more. Nothing is ever sent twice, and where
nobody goes on the stream ends with the error, as it would have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_proxy.backends.retry import Attempt, failed_by
from llm_proxy.errors import LimitReached
from llm_proxy.types import Head, Outcome, Usage
from llm_proxy.wire.splice import Sent, Splice, body_for_rest

from .effects import Flow, forward, read
from .vain import is_late, less, text_tokens

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import Outgoing

    from .call import Call
    from .gate import Gate
    from .outgoing import Dispatcher
    from .settle import Settler

__all__ = ["Splicing"]

_STREAM_OVERHEAD = 16  # as in `llm_proxy.wire.recorder`


class Splicing:
    """Keeps the stream of one call going; see `llm_proxy.engine.effects.Mending`.

    Args:
        config: ``attempts``, ``backends`` and ``cache.max_entry_bytes`` are read.
        call: The call whose answer has begun.
        dispatcher: Says who may be asked instead.
        settler: Books what was asked.
        gate: Where each request waits until it may be sent.
        turned_to: Turns the call to another backend; what is to be sent there.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        call: Call,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        gate: Gate,
        turned_to: Callable[[Call, Attempt], Outgoing],
        troubles: Troubles,
    ) -> None:
        self._config, self._call, self._dispatcher = config, call, dispatcher
        self._settler, self._gate, self._turned_to, self._troubles = settler, gate, turned_to, troubles
        self._prompt_tokens = text_tokens(call.request.messages)
        limit_bytes = config.cache.max_entry_bytes * _STREAM_OVERHEAD
        self._splice = Splice(limit_bytes=limit_bytes, prompt_tokens=self._prompt_tokens)
        self._left = config.attempts.most - 1
        self._asked: set[tuple[str, str]] = set()

    @property
    def is_broken(self) -> bool:
        """Whether an error came in the place of the rest."""
        return self._splice.is_broken

    def passed(self, piece: bytes) -> bytes:
        """What is to be handed on of the next bytes that came."""
        return self._splice.feed(piece)

    def ended(self) -> bytes | None:
        """What is to be handed on at the end of the body; None where it ended too early."""
        return self._splice.end()

    def kept(self) -> bytes:
        """What was kept back, where nothing follows."""
        return self._splice.kept()

    def left(self) -> None:
        """Nobody counts these."""

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        """Ask for the rest after the body broke off; its head, or None where it can't be had."""
        try:
            sent = self._splice.sent()
            if sent is None:
                return None
            failure = None if error is None else failed_by(error)
            return (yield from self._going_on(sent, failure.cause if failure else "outage"))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the stream ends as it would have
            self._troubles.note("splice", exc)
            return None

    def _going_on(self, sent: Sent, cause: str) -> Flow[Head | None]:
        call = self._call
        broken = call.destination.backend, call.outcome.model
        known = (f"{broken[0]}/{broken[1]}",) if not call.attempts else call.attempts
        call.attempts = (*known[:-1], f"{known[-1]} broke off")
        others = self._dispatcher.fallbacks(call.request, call.destination, cause)
        is_booked = False  # what became of the last request
        for pair in dict.fromkeys((*others, broken)):
            form = self._config.backends[pair[0]].can_prefill
            is_able = form != "no" or not sent.text.strip()
            if not is_able or pair in self._asked or self._left < 1:
                continue
            self._left -= 1
            if pair != broken:
                self._asked.add(pair)
            before = call.outcome
            if not is_booked:
                self._settler.given_up(before, call.sent, status=0)
            begun = yield from self._begun(pair, sent)
            if isinstance(begun, Head):
                self._splice.resume(sent, form)
                self._book(before)
                return begun
            is_booked = not begun
            if is_booked:
                self._settler.withdrawn(call.outcome, call.sent)
                self._turned_to(call, Attempt(*broken))
        return None

    def _begun(self, pair: tuple[str, str], sent: Sent) -> Flow[Head | bool]:
        """The head of the rest; where there is none, whether that says something of its backend."""
        call, backend = self._call, self._config.backends[pair[0]]
        outgoing = self._turned_to(call, Attempt(*pair))
        body = json.loads(outgoing.body)
        rest = body_for_rest(body, sent, backend.can_prefill)
        self._settler.sent(call.outcome, call.sent)
        words = f"{pair[0]}/{pair[1]}"
        try:
            asking = replace(outgoing, body=json.dumps(rest, separators=(",", ":")).encode())
            head = yield from forward((yield from self._gate.enter(call, asking)))
            held = yield from read(head, limit_bytes=0, limit_s=0.0)
        except LimitReached as exc:
            call.attempts += (f"{words} {exc.word}",)
            return False
        except Exception as exc:  # noqa: BLE001 - of any HTTP library: the next one is asked
            failure = failed_by(exc)
            call.attempts += (f"{words} {failure.words if failure else 'broken'}",)
            if is_late(exc):
                call.spent_usd += self._settler.price_usd(Usage(self._prompt_tokens), call.outcome)
                if call.ticket is not None:  # nobody may go on
                    call.ticket.outcome = call.outcome
            return True
        is_stream = head.header("content-type").lower().startswith("text/event-stream")
        if head.status != 200 or not is_stream or head.header("content-encoding") not in ("", "identity"):
            yield from read(held.head, limit_bytes=0, limit_s=0.0, keeps_rest=False)
            call.attempts += (f"{words} {head.status}",)
            return head.status == 429 or not 400 <= head.status < 500  # else it refuses the form of what was asked
        call.attempts += (words,)
        return held.head

    def _book(self, before: Outcome) -> None:
        """Have the call cost what the part that broke off is taken to have cost, too; nobody counted its tokens."""
        call, ticket = self._call, self._call.ticket
        if ticket is None:
            return
        all_parts, parted = Usage(*self._splice.parted), ticket.parted
        call.spent_usd += self._settler.price_usd(less(all_parts, parted), before)
        ticket.parted, ticket.outcome = all_parts, call.outcome
