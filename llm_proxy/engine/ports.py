"""What the engine needs of its surroundings, as protocols; and the two kinds of answer it gives to a face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import Head, HeaderList, Outcome

    from .flights import Flight, Seat

__all__ = ["Answer", "Clock", "Live", "QuestionEncoder", "Ready", "as_shared"]


class Clock(Protocol):
    """The time, injected."""

    def time(self) -> float:
        """Unix time, seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""


class QuestionEncoder(Protocol):
    """See `llm_proxy.encode.lazy.LazyEncoder`."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    @property
    def is_open(self) -> bool:
        """Whether it has been failing or late so often that it is left alone for a while."""

    @property
    def slowest_s(self) -> float:
        """The longest that one text has taken, seconds; inf while that is not known."""

    def encode(self, text: str) -> Encoding:
        """Encode one text."""

    def note_timeout(self) -> None:
        """Count an encoding that came too late."""

    def note_success(self) -> None:
        """Count an encoding that came in time."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that is all there: a hit, or a refusal to ask upstream."""

    status: int
    headers: HeaderList
    body: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Live:
    """An upstream's answer.

    Attributes:
        head: Its status and headers; its body is read from here when there is no flight.
        known: What was known when the upstream answered.
        flight: Where to read the body from, when it is recorded.
        seat: This caller's place in the flight.
        is_shared: Whether the flight is led by another caller.
    """

    head: Head
    known: Outcome
    flight: Flight | None = None
    seat: Seat | None = None
    is_shared: bool = False

    @property
    def outcome(self) -> Outcome:
        """What was done, as far as it is known by now: more than ``known`` once the answer is settled."""
        outcome = self.known if self.flight is None else self.flight.ticket.outcome
        return as_shared(outcome) if self.is_shared else outcome


Answer = Ready | Live


def as_shared(outcome: Outcome) -> Outcome:
    """The outcome of an answer as it is for a caller who shares it: what it cost is saved, for it was paid once."""
    return outcome.with_changes(is_shared=True, saved_usd=outcome.cost_usd or 0.0, cost_usd=0.0)
