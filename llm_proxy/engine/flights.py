"""Answers under way, and the callers who share them.

A flight is one upstream answer. Its bytes are pulled when the first of its callers needs the next chunk and are kept
until the answer is complete, so that an identical request that comes in the meantime gets them from the start. Nobody
depends on the caller who came first: when it leaves, the next one pulls. When the last one leaves, the upstream
call is cancelled.

::

    pending ── open ──> open ── finish ──> finished
       ├────── answer ─────────────────────^
       └────── fail, or the last seat is left ──> failed

Nobody joins any more once the answer is complete and settled (`land`): later callers look into the cache. Nor once
more than a mebibyte of it has passed: what every reader has is given back from then on, so that a long stream that is
read slowly takes no more memory than that, and callers who come that late ask for themselves. A flight and its seats
live as long as somebody holds them: a caller who drops an answer without closing it holds up no other.

This module holds the state and decides; waiting and pulling are the drivers' part (`llm_proxy.pull`), which also
bring the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from llm_proxy.cache.entry import Entry
    from llm_proxy.cache.near import Near
    from llm_proxy.encode.base import Encoding
    from llm_proxy.route.looks import Look
    from llm_proxy.types import JSON, ChatRequest, Fingerprint, Head, HeaderList, Outcome, Usage

    from .call import Grade
    from .effects import Flow
    from .shadow import Doubted

__all__ = ["Failed", "Flight", "Joined", "Lacking", "Landed", "Leading", "Recording", "Seat", "Sharing", "Ticket"]


class Recording(Protocol):
    """Assembles a completion from the bytes of an answer; see `llm_proxy.wire.recorder`. Never raises."""

    @property
    def is_overflowed(self) -> bool:
        """Whether the answer is larger than may be kept."""

    @property
    def is_mixed(self) -> bool:
        """Whether it holds parts of more than one answer."""

    @property
    def reason(self) -> str:
        """Why there is no completion: unfinished, error, damaged, truncated, too-large; empty when there is one."""

    def feed(self, chunk: bytes) -> bool:
        """Take in bytes; True once, when they hold the terminal event."""

    def end(self) -> bool:
        """Take in the clean end of the body; True when the answer became complete only by it."""

    def completion(self) -> JSON | None:
        """The answer as one ``chat.completion`` object; None when it is incomplete or damaged."""

    def raw_completion(self) -> bytes | None:
        """The same as UTF-8 JSON."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Ticket:
    """All that is needed to settle one answer; outlives the flow of the caller who asked.

    Attributes:
        request: The call.
        fingerprint: Where its answer is kept.
        outcome: What is known so far of what was done.
        started_s: Monotonic time of arrival.
        settle: The flow to run once, before the terminal chunk is handed on.
        lost: To be called instead, with a reason, when the answer ends without its terminal event; without effect
            on an answer that is settled.
        encoding: The encoded question, where there was time.
        rivals: Pairs of backend and model that are good enough for it, where a route decided.
        foretold_tokens: Length of the answer as a head foretold it.
        asked_s: Monotonic time when the model that answers was asked, where others were asked before it.
        recorder: What assembles the answer, once the upstream answers.
        head_headers: The upstream's response headers, likewise.
        entry: The answer as an entry, once it is settled and may be stored.
        doubted: The entry that would have been served but for its evidence, where there is one.
        near: Entries of its scope that are near and were not served, nearest first.
        is_predicted: Whether its request was sent with a predicted output that its caller knows nothing of.
        grades: What was found of answers to it, by a cascade.
        is_storable: Whether it may be stored, as far as is known before it is complete.
        is_learnt: Whether the estimates know of it already.
        usage: Token counts of the answer where they are known without its saying them.
        parted: Those of its parts that broke off: its own hold them too, and they are booked at their own price.
        look: What a cascade saw of it, where the last candidate's answer tells more.
        is_settled: Whether it is booked: `settle` or ``lost`` came.
        is_left: Whether its caller left before the upstream answered; the flight then books the call.
        error: Why it was lost; see `llm_proxy.engine.settle.Settler.lost`.
    """

    request: ChatRequest
    fingerprint: Fingerprint
    outcome: Outcome
    started_s: float
    settle: Callable[[Ticket], Flow[None]]
    lost: Callable[[Ticket, str], None]
    encoding: Encoding | None = None
    rivals: tuple[tuple[str, str], ...] = ()
    foretold_tokens: float | None = None
    asked_s: float | None = None
    recorder: Recording | None = None
    head_headers: HeaderList = ()
    entry: Entry | None = None
    doubted: Doubted | None = None
    near: tuple[Near, ...] = ()
    is_predicted: bool = False
    grades: tuple[Grade, ...] = ()
    is_storable: bool = True
    is_learnt: bool = False
    usage: Usage | None = None
    parted: Usage | None = None
    look: Look | None = None
    is_settled: bool = False
    is_left: bool = False
    error: str = ""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Seat:
    """One caller's place in a flight.

    Attributes:
        position: Number of the chunk it reads next.
        left: Called once, when the seat is given up.
    """

    position: int = 0
    left: Callable[[], None] | None = None


class Flight:
    """One shared answer; see the module's text.

    Args:
        ticket: The first caller's.
        lock: Held for moments only, never while waiting or doing I/O.
        on_over: Called when nobody can join any more; perhaps again.

    Attributes:
        head: The upstream's answer, once it is there and may be shared.
        entry: The answer as an entry, once it is settled or was found in the cache.
        error: What broke the body off; every reader gets it.
        has_forerunner: Whether a flight of the same key landed a short while ago, so that a look into the cache that
            was made before may have come too early.
    """

    has_forerunner = False

    def __init__(self, ticket: Ticket, *, lock: AbstractContextManager[Any], on_over: Callable[[Flight], None]) -> None:
        self.ticket = ticket
        self.state: Literal["pending", "open", "finished", "failed"] = "pending"
        self.head: Head | None = None
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self.lock = lock
        self._on_over = on_over
        self._is_landed = False
        self._chunks: list[bytes] = []
        self._dropped = self._passed_bytes = 0
        self._seats: WeakSet[Seat] = WeakSet()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in {"finished", "failed"}

    @property
    def is_left(self) -> bool:
        """Whether nobody has a seat."""
        return not self._seats

    @property
    def is_overflowed(self) -> bool:
        """Whether the answer is larger than may be kept."""
        return self.ticket.recorder is not None and self.ticket.recorder.is_overflowed

    @property
    def _is_long(self) -> bool:
        return self._passed_bytes > _KEPT_BYTES or self.is_overflowed

    def join(self) -> Seat | None:
        """A place at the first byte, or None when it is too late for that."""
        with self.lock:
            if self.is_over or self._is_landed or self._is_long:
                return None
            seat = Seat()
            self._seats.add(seat)
            return seat

    def leave(self, seat: Seat) -> None:
        """Give a seat up; leaving twice is safe. The last one out cancels the upstream call."""
        with self.lock:
            if seat not in self._seats:
                return
            self._seats.discard(seat)
            self._trim()
            is_abort = not self._seats and not self.is_over
            if is_abort:
                self.state = "finished" if self._is_landed else "failed"
        if seat.left is not None:
            seat.left()
        if is_abort:
            self._on_over(self)
            self.ticket.lost(self.ticket, "aborted")
            self._changed()
            self._abort()

    def open(self, head: Head) -> None:
        """The upstream answers: callers can read. Without effect on a flight that is over."""
        with self.lock:
            if not self.is_over:
                self.head, self.state = head, "open"
        self._changed()

    def fail(self) -> None:
        """Nothing to share: whoever waits goes on by itself."""
        self._end("failed")

    def answer(self, entry: Entry) -> None:
        """The leader found the answer in the cache after all."""
        self.entry = entry
        self._end("finished")

    def land(self) -> None:
        """The answer is complete and settled; what follows in the body are its last bytes."""
        with self.lock:
            self.entry, self._is_landed = self.ticket.entry, True
        self._on_over(self)

    def finish(self, error: BaseException | None = None) -> None:
        """The body has ended, cleanly or by ``error``, which every reader then gets."""
        self.error = error
        self._end("finished")

    def take_in(self, chunk: bytes) -> None:
        """Keep a chunk for every seat."""
        with self.lock:
            self._chunks.append(chunk)
            self._passed_bytes += len(chunk)
        self._changed()

    def has_chunk(self, seat: Seat) -> bool:
        """Whether `next_chunk` has something for this seat."""
        return seat.position - self._dropped < len(self._chunks)

    def next_chunk(self, seat: Seat) -> bytes | None:
        """The seat's next chunk, or None when it has read all that is there."""
        with self.lock:
            if not self.has_chunk(seat):
                return None
            chunk = self._chunks[seat.position - self._dropped]
            seat.position += 1
            self._trim()
            return chunk

    def _end(self, state: Literal["finished", "failed"]) -> None:
        with self.lock:
            if self.is_over:
                return
            self.state = state
        self._on_over(self)
        if state == "failed" and self.ticket.is_left:
            self.ticket.lost(self.ticket, "aborted")
        self._changed()

    def _changed(self) -> None:
        """Wake those who wait; drivers override it."""

    def _abort(self) -> None:
        """Cancel the upstream call; drivers override it."""

    def _trim(self) -> None:
        # Nobody can join a long answer any more, so chunks that every seat has read are of no use.
        positions = [seat.position for seat in self._seats] if self._is_long else []
        if positions:
            done = min(positions) - self._dropped
            del self._chunks[:done]
            self._dropped += done


class Leading:
    """Nobody asks the same: this call leads a flight that others can join."""


class Sharing(NamedTuple):
    """The answer of the flight is on its way, in the form that this caller needs."""

    flight: Flight
    seat: Seat
    head: Head


class Landed(NamedTuple):
    """The answer of the flight is complete, or its leader found it in the cache."""

    entry: Entry
    outcome: Outcome


class Lacking:
    """The answer of the flight is good, and lacks the token counts that this caller needs."""


class Failed:
    """The flight brought no answer that can be shared, or not in time."""


_KEPT_BYTES = 1 << 20  # of one answer, for callers who may still join it

Joined = Leading | Sharing | Landed | Lacking | Failed
