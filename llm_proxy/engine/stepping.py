"""The steps of one drafted answer; see `llm_proxy.engine.drafting`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_proxy.draft.confirmed import Confirmed
from llm_proxy.draft.greedy import stops_of
from llm_proxy.errors import Interrupted
from llm_proxy.types import Head, Usage
from llm_proxy.wire.drafted import JSON_HEADERS, STREAM_HEADERS, Frame, Remainder
from llm_proxy.wire.scored import Scored, read_chat, read_echo

from .drafted import Said
from .effects import Flow, hold, read
from .vain import is_late, prompt_of, said_by

if TYPE_CHECKING:
    from llm_proxy.draft.goodput import Goodput
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import Outcome, Outgoing

    from .drafted import Plan
    from .effects import Held
    from .gate import Gate
    from .ports import Clock
    from .settle import Settler

__all__ = ["Stepping"]

_LIMIT_BYTES = 64 << 20  # of a scored text: some fifty bytes a token
_BROKE_OFF = "the answer broke off, and nobody could go on with it"
_MOST_IDLE = 2  # steps in a row that bring nothing
_FIRST_STRETCH, _LAST_STRETCH = 16, 256
_TOKEN_CHARS = 64  # most that a drafted token is taken to have


class _StuckError(Exception):
    """The answer can't go on in steps; ``is_lasting`` says that the next one could not either."""

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting


class Stepping:
    """One answer, step by step; of a stream also what keeps its body going, see `llm_proxy.engine.effects.Mending`.

    Args:
        plan: Who is asked for what.
        settler: Books what the steps cost.
        gate: Where each request waits until it may be sent.
        goodput: Says how much to draft, and learns what came of it.
        load: Calls under way at a backend.
        clock: Clocks.
        troubles: Counts what goes wrong.
        rest: Called with a backend that is to be left alone for a while.
        plainly: Sends the call as ever.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        settler: Settler,
        gate: Gate,
        goodput: Goodput,
        load: Callable[[str], int],
        clock: Clock,
        troubles: Troubles,
        rest: Callable[[str], None],
        plainly: Callable[[], Flow[Head]],
    ) -> None:
        self._plan, self._settler, self._gate = plan, settler, gate
        self._goodput, self._load, self._clock = goodput, load, clock
        self._troubles, self._rest, self._plainly = troubles, rest, plainly
        body = plan.call.request.body
        self._confirmed = Confirmed(stops=stops_of(body), most_tokens=plan.most_tokens)
        self._began_s, self._booked_usd, self._billed_usd = clock.monotonic(), 0.0, 0.0
        self._stretch, self._has_drafts, self._is_alone = _FIRST_STRETCH, True, False
        self._frame = Frame("", "", 0)
        self._handed = ""
        self._drafted = self._kept = self._steps = self._idle = 0
        self._remainder: Remainder | None = None
        self._is_left = False

    # -- the body of a stream --------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """Whether the rest, which is sent as ever, is not the same answer."""
        return self._remainder is not None and self._remainder.is_broken

    @property
    def is_done(self) -> bool:
        """Whether the answer is over, or nobody reads on."""
        is_over = bool(self._confirmed.finish) if self._remainder is None else self._remainder.is_done
        return self._is_left or is_over

    def left(self) -> None:
        """See `llm_proxy.engine.effects.Mending`."""
        self._is_left = True

    def passed(self, piece: bytes) -> bytes:
        """What is to be handed on of the next bytes that came."""
        return piece if self._remainder is None else self._remainder.feed(piece)

    def ended(self) -> bytes | None:
        """Nothing is kept back; None where the answer is not over."""
        return b"" if self.is_done else None

    def kept(self) -> bytes:
        """Nothing is kept back."""
        return b""

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        """The next step, as a body of its own; the rest as ever where there is none; None after an error.

        Raises:
            Interrupted: The rest can't be had.
        """
        if error is not None:
            return None
        if self._remainder is not None:
            raise Interrupted(_BROKE_OFF)
        piece = b""
        try:
            while not piece:
                yield from self._step(self._length())
                piece = self._piece()
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the rest is sent as ever
            self._note(exc)
            return (yield from self._rest_of_it())
        return Head(200, STREAM_HEADERS, Said(piece))

    def _rest_of_it(self) -> Flow[Head]:
        """The same answer sent as ever, of which only the rest will be handed on.

        Raises:
            Interrupted: It can't be had.
        """
        try:
            head = yield from self._plainly()
        except Exception as exc:  # of any HTTP library, and of the gate
            self._troubles.note("draft", exc)
            raise Interrupted(_BROKE_OFF) from exc
        if head.status != 200 or not head.header("content-type").lower().startswith("text/event-stream"):
            yield from read(head, limit_bytes=0, limit_s=0.0, keeps_rest=False)
            raise Interrupted(_BROKE_OFF)
        self._remainder = Remainder(self._frame, self._handed)
        return head

    # -- steps -----------------------------------------------------------------------------------------------------

    def begun(self, length: int) -> Flow[Head | None]:
        """The answer, of a stream its beginning; None where it must be asked for as ever: nothing was handed on.

        Args:
            length: Tokens that the first step is to draft, >= 1.
        """
        is_stream = self._plan.call.request.is_stream
        try:
            yield from self._step(length)
            while not self._confirmed.finish and not (is_stream and self._confirmed.ready):
                yield from self._step(self._length())
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call is sent as ever
            self._note(exc)
            return None
        if is_stream:
            return Head(200, STREAM_HEADERS, Said(self._piece(is_first=True)))
        confirmed = self._confirmed
        body = self._frame.whole(confirmed.text, confirmed.finish, self._usage())
        return Head(200, JSON_HEADERS, Said(body))

    def _length(self) -> int:
        """Tokens that the next step is to draft."""
        if not self._has_drafts or self._is_alone:
            return 0
        left, price = self._left(), self._plan.price
        if price.step and self._extra_usd() > self._plan.most_extra_usd:
            return 0
        length = self._goodput.length(self._plan.way, load=self._load_now(), price=price)
        return length if left is None else min(length, left - 1)

    def _left(self) -> int | None:
        """Tokens that may still come, by the request and by the target's window; None for any number."""
        left, window = self._confirmed.left_tokens, self._plan.context_tokens
        if window is None or not self._confirmed.prompt_tokens:
            return left
        room = window - self._confirmed.prompt_tokens - self._confirmed.tokens
        return room if left is None else min(left, room)

    def _bound(self) -> None:
        """See that an answer without an end comes to where its plain call would end.

        Raises:
            _StuckError: The target's window is full, or nobody would wait longer for an answer in one piece.
        """
        left = self._left()
        if left is not None and left < 1:
            raise _StuckError("the window of the target is full")
        is_whole = not self._plan.call.request.is_stream
        if is_whole and self._clock.monotonic() - self._began_s > self._plan.patience_s:
            raise _StuckError(f"an answer in one piece took longer than {self._plan.patience_s:g} s")

    def _step(self, length: int) -> Flow[None]:
        """Draft, score, take.

        Raises:
            Exception: Nothing more is to be had in steps; `_StuckError`, or the HTTP library's own.
        """
        self._bound()
        plan, confirmed, began_s = self._plan, self._confirmed, self._clock.monotonic()
        draft = (yield from self._draft(length)) if length else None
        drafting_s = self._clock.monotonic() - began_s
        scored = yield from self._scored(draft or "", 1 if draft is not None else self._stretched())
        step = confirmed.take(scored, draft or "")
        is_lost = step.new < 1 and not confirmed.finish
        self._is_alone = is_lost  # what comes next is told without a draft
        self._idle = self._idle + 1 if is_lost else 0
        if draft is not None:
            missed = int(not confirmed.finish) if is_lost or not draft else step.missed
            seconds, load = self._clock.monotonic() - began_s, self._load_now()
            self._goodput.saw(plan.way, kept=step.kept, missed=missed)
            self._goodput.took(plan.way, length, seconds, load=load, drafting_s=drafting_s)
            self._drafted, self._kept = self._drafted + step.kept + missed, self._kept + step.kept
        if self._idle > _MOST_IDLE or (is_lost and not draft and not step.new):
            raise _StuckError("the tokens of the text so far are not those that it was made of")
        self._steps += 1
        self._book()

    def _stretched(self) -> int:
        """How many tokens the target goes on by itself: longer each time, since each request takes a way."""
        left, most = self._left(), self._stretch
        self._stretch = min(2 * most, _LAST_STRETCH)
        return most if left is None else min(most, left)

    def _draft(self, length: int) -> Flow[str | None]:
        """What the small model would go on with, perhaps nothing; None where it says nothing, and is left alone."""
        plan = self._plan
        try:
            asked = plan.drafting(self._confirmed.text, length)
            held = yield from self._held(asked, plan.drafter_outcome, wait_s=plan.wait_s)
            if held.head.status == 200:
                self._bill(said_by(asked, held.body), plan.drafter_outcome)
            said = json.loads(held.body) if held.head.status == 200 else {}
            text: str = said["choices"][0]["text"]
            return text[: length * _TOKEN_CHARS].rstrip("\ufffd")  # whatever it made of `max_tokens`
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the target goes on by itself
            self._troubles.note("draft", exc)
            self._has_drafts = False
            self._rest(plan.drafter.backend)
            return None

    def _scored(self, draft: str, most_tokens: int) -> Flow[Scored]:
        """What the target says of all so far and a draft, and what it goes on with."""
        plan, text = self._plan, self._confirmed.text + draft
        asked = plan.scoring(text, most_tokens)
        held = yield from self._held(asked, plan.target_outcome)
        self._gate.saw(plan.target.backend, held.head.status)
        if held.head.status != 200:
            is_lasting = 400 <= held.head.status < 500 and held.head.status not in (408, 429)
            raise _StuckError(
                f"{plan.target.backend} answers {held.head.status} to a text to score", is_lasting=is_lasting
            )
        scored = read_echo(held.body, plan.prompt + text) if plan.prompt else read_chat(held.body)
        if scored is None:
            echoed_chars = len(plan.prompt + text) if plan.prompt else 0
            self._bill(said_by(asked, held.body, echoed_chars=echoed_chars), plan.target_outcome)
            raise _StuckError(f"{plan.target.backend} does not score the text that it is given", is_lasting=True)
        self._bill(scored.usage, plan.target_outcome)
        if not self._frame.id:
            name = scored.id if scored.id.startswith("chatcmpl-") else f"chatcmpl-{scored.id.removeprefix('cmpl-')}"
            has_usage = plan.call.request.wants_usage
            self._frame = Frame(name, scored.model or plan.target.model, scored.created, has_usage)
        return scored

    def _held(self, outgoing: Outgoing, asked: Outcome, *, wait_s: float | None = None) -> Flow[Held]:
        """What a request brings; of one that is late its prompt is booked."""
        admitted = yield from self._gate.enter(self._plan.call, outgoing, wait_s=wait_s)
        limit_s = math.inf if wait_s is None else wait_s
        try:
            return (
                yield from hold(admitted, limit_bytes=_LIMIT_BYTES, limit_s=math.inf, keeps_rest=False, wait_s=limit_s)
            )
        except Exception as exc:
            if is_late(exc):
                self._bill(prompt_of(outgoing), asked)
            raise

    # -- what comes of them ----------------------------------------------------------------------------------------

    def _piece(self, *, is_first: bool = False) -> bytes:
        """The events that hand on what is new, and the end where it is over.

        Raises:
            _StuckError: What was handed on is not how the answer begins any more.
        """
        ready, finish = self._confirmed.ready, self._confirmed.finish
        if not ready.startswith(self._handed):
            if not finish and self._handed.startswith(ready):  # its last token was given up, and may come again
                return b""
            raise _StuckError("what was handed on is not how the answer begins")
        piece = self._frame.chunks(ready[len(self._handed) :], is_first=is_first)
        self._handed = ready
        return piece + self._frame.end(finish, self._usage()) if finish else piece

    def _usage(self) -> Usage:
        """What the answer would have counted by itself."""
        return Usage(self._confirmed.prompt_tokens, self._confirmed.tokens)

    def _book(self) -> None:
        """Have the call cost what its steps cost: less what its answer is booked at, once that is over."""
        plan, call, spent_usd = self._plan, self._plan.call, self._billed_usd
        if self._confirmed.finish:
            spent_usd = self._extra_usd()
            seconds = self._clock.monotonic() - self._began_s
            self._goodput.finished(plan.way, max(1, self._confirmed.tokens), seconds, load=plan.load, is_drafted=True)
            words = f"drafted={self._drafted} kept={self._kept} steps={self._steps}"
            call.attempts += (f"{plan.target.backend}/{plan.target.model} {words}",)
        self._spend(spent_usd)
        if call.ticket is not None:
            call.ticket.usage = self._usage() if self._confirmed.finish else None

    def _bill(self, usage: Usage, asked: Outcome) -> None:
        """Book a request at once: nothing may come of its step, or of the next one."""
        self._billed_usd += self._settler.price_usd(usage, asked)
        self._spend(self._billed_usd)

    def _spend(self, usd: float) -> None:
        call = self._plan.call
        call.spent_usd += usd - self._booked_usd  # not all of it: what ran beside may have been booked meanwhile
        self._booked_usd = usd
        if call.ticket is not None:
            call.ticket.outcome = call.outcome

    def _extra_usd(self) -> float:
        """What the steps cost more than their answer would by itself, dollars."""
        return self._billed_usd - self._settler.price_usd(self._usage(), self._plan.target_outcome)

    def _note(self, exc: Exception) -> None:
        self._troubles.note("draft", exc)
        if isinstance(exc, _StuckError) and exc.is_lasting:
            self._rest(self._plan.target.backend)

    def _load_now(self) -> int:
        return max(1, self._load(self._plan.target.backend))
