"""What is known of one call while `llm_proxy.engine.flow.Engine.answer` is at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.types import Forward, Outcome

if TYPE_CHECKING:
    from llm_proxy.observe.events import GradeSource
    from llm_proxy.route.base import Destination
    from llm_proxy.route.looks import Word
    from llm_proxy.types import ChatRequest, Fingerprint

    from .flights import Flight, Seat, Ticket
    from .shadow import Hit

__all__ = ["Call", "Grade", "said_of"]

_ATTEMPT_CHARS, _END_CHARS = 200, 60


class Grade(NamedTuple):
    """How good one model's answer was found to be, in [0, 1], and who says so; ``completion_tokens`` where known."""

    backend: str
    model: str
    source: GradeSource
    score: float
    completion_tokens: int | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """One call on its way through `Engine.answer`.

    Of a cascade, ``spent_usd`` is what was paid for answers that nobody gets, ``tried`` what was thought of those that
    were looked at, and ``grades`` the same for the log of outcomes, where ``call_id`` names the call.
    ``by`` is who named its destination, where a route decided; ``word`` says the same where the
    call tells which way to ask takes less, and ``is_checked`` whether the last candidate is asked in any case.
    ``spent_usd`` is what was paid for answers that nobody gets; ``tried`` is what a cascade thought of those that were
    looked at, and ``attempts`` what became of each request, where there was more than one.
    ``is_over`` says that what became of the last one is known, and booked. ``kept_by`` is the backend that keeps the
    response which the call goes on from, where its route would have chosen else.
    """

    request: ChatRequest
    destination: Destination
    started_s: float
    bypass: str = ""
    detail: str = ""
    forward: Forward | None = None
    fingerprint: Fingerprint | None = None
    ticket: Ticket | None = None
    flight: Flight | None = None
    seat: Seat | None = None
    is_sent: bool = False
    is_encoded: bool = False
    reason: str = ""
    is_tending_due: bool = False
    served: Hit | None = None
    spent_usd: float = 0.0
    tried: tuple[str, ...] = ()
    grades: tuple[Grade, ...] = ()
    call_id: str = ""
    by: str = ""
    word: Word | None = None
    is_checked: bool = False
    attempts: tuple[str, ...] = ()
    is_over: bool = False
    kept_by: str = ""

    @property
    def outcome(self) -> Outcome:
        """What there is to say while nothing was found."""
        detail = self.bypass or self.detail
        return Outcome(
            "bypass" if self.bypass else "miss",
            forward=None if self.bypass else self.forward,
            detail=f"{detail}; kept-by={self.kept_by}" if self.kept_by else detail,
            key=self.fingerprint.key if self.fingerprint else "",
            backend=self.destination.backend,
            route=self.destination.route,
            model=self.destination.model or self.request.model,
            reason=self.reason,
            cost_usd=self.spent_usd or None,
            cascade=", ".join(self.tried),
            call_id=self.call_id,
            attempts=said_of(self.attempts),
        )

    @property
    def sent(self) -> Call | Ticket:
        """What stands for the request that is sent: what lives until its answer is over."""
        return self.led.ticket if self.led is not None else self

    @property
    def led(self) -> Flight | None:
        """The flight that this call leads, if it leads one."""
        return self.flight if self.flight is not None and self.flight.ticket is self.ticket else None

    def add(self, word: str) -> None:
        """Say something more of it in ``detail``."""
        self.detail = f"{self.detail}; {word}" if self.detail else word

    def leave(self) -> None:
        """Give the seat up, if there is one."""
        if self.flight is not None and self.seat is not None:
            self.flight.leave(self.seat)
        self.flight = self.seat = None


def said_of(attempts: tuple[str, ...]) -> str:
    """What became of each request, for a header as well: of a name as long as its caller pleases, both ends."""
    return ", ".join(
        words if len(words) <= _ATTEMPT_CHARS else f"{words[: _ATTEMPT_CHARS - _END_CHARS]}...{words[-_END_CHARS:]}"
        for words in attempts
    )
