"""What a cascade saw of one call, and what it tells of the two ways to ask: values for `llm_proxy.route.ways`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, Protocol

__all__ = ["MOST_BURDEN", "Burdens", "Choice", "Look", "Taken", "Way", "Weigher", "Word", "doubt_of", "wrong_of"]

Way = Literal["select", "cascade"]
MOST_BURDEN = 1e12
"""Above it none is believed."""

_MOST_DOUBT = 100.0
_LEAST_WRONG = 0.02


class Word(NamedTuple):
    """What a selector says of a request.

    Attributes:
        route: Name of the route.
        by: Who says it: the head's name, or ``rules``.
        named: ``BACKEND/MODEL`` that it would ask.
    """

    route: str
    by: str
    named: str


class Burdens(NamedTuple):
    """What the two ways took for one call, in units of what the last candidate is expected to take, >= 0."""

    select: float
    cascade: float


class Choice(NamedTuple):
    """A way to ask a call.

    Attributes:
        way: Which.
        reason: Why, in a few words.
        word: What the selector says of it.
        is_checked: Whether, in a cascade of a call for which the last candidate was named, that one is asked even if
            the first one's answer is taken for right.
    """

    way: Way
    reason: str
    word: Word
    is_checked: bool = False


class Weigher(Protocol):
    """See `llm_proxy.route.ways.Ways`."""

    def choose(self, word: Word, quality: float, *, is_asked: bool = True) -> Choice:
        """The way to ask."""

    def observe(self, word: Word, burdens: Burdens) -> None:
        """Take in what the ways took for one call."""

    def check(self, word: Word, p_right: float, *, is_right: bool) -> None:
        """Take in whether an answer was right that was taken for it."""

    def excess(self, word: Word) -> float:
        """By how much more often than said such answers are wrong."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What asking is expected to take, in one unit, dollars or seconds.

    Attributes:
        steps: Of each candidate of the cascade, the last at the end.
        beside: Of the judging or agreeing model; 0 without one.
        worth: Of a right answer; None where the bar says.
        bar: ``cascade_bar``.
    """

    steps: tuple[float, ...]
    beside: float
    worth: float | None
    bar: float

    @property
    def is_known(self) -> bool:
        """Whether ways can be compared by it."""
        return 0.0 < self.steps[-1] < inf and all(one < inf for one in (*self.steps, self.beside))


@dataclass(frozen=True, slots=True)
class Look:
    """The answers of one call that a cascade looked at.

    Attributes:
        word: What the selector said.
        is_last_named: Whether that was the last candidate.
        taken: What asking is expected to take.
        p_right: Of each answer that was looked at, in the order of the steps.
        is_escalated: Whether the last candidate had to be asked.
        read: How many answers the judging or agreeing model was asked for.
        text: What the first answer said.
        is_checked: Whether the last candidate was asked although the first one's answer was good enough.
    """

    word: Word
    is_last_named: bool
    taken: Taken
    p_right: Sequence[float]
    is_escalated: bool
    read: int
    text: str
    is_checked: bool = False

    def burdens(self, is_same: bool | None = None, excess: float = 1.0) -> Burdens:
        """What the ways took, in units of what the last candidate is expected to take.

        Args:
            is_same: Whether the last candidate's answer comes to the same as the first; None where nobody can tell.
            excess: By how much more often than said such answers as were handed on are wrong, >= 1.
        """
        unit, steps = self.taken.steps[-1], self.taken.steps
        asked = steps if self.is_escalated else steps[: len(self.p_right)]
        cascade = (sum(asked) + self.read * self.taken.beside) / unit
        if not self.is_escalated and self.is_last_named:  # else both ways hand the same answer on
            cascade += self._doubt(1.0 - min(1.0, wrong_of(self.p_right[-1]) * excess))
        elif not self.is_escalated:
            cascade += self._doubt(self.p_right[-1])
        if self.is_last_named:
            return Burdens(1.0, cascade)
        return Burdens(steps[0] / unit + self._doubt(self.p_right[0] if is_same is None else float(is_same)), cascade)

    def _doubt(self, p_right: float) -> float:
        worth = None if self.taken.worth is None else self.taken.worth / self.taken.steps[-1]
        return doubt_of(p_right, bar=self.taken.bar, worth=worth)


def wrong_of(p_right: float) -> float:
    """Probability that an answer is wrong, where nobody is ever quite sure: in [.02, 1]."""
    return max(1.0 - p_right, _LEAST_WRONG)


def doubt_of(p_right: float, *, bar: float, worth: float | None = None) -> float:
    """What a doubtful answer burdens a way with.

    Args:
        p_right: Probability that it is right, in [0, 1].
        bar: ``cascade_bar``, in [0, 1].
        worth: Of a right answer, in units of what the last candidate is expected to take; None: as the bar says.

    Returns:
        In [0, 100].
    """
    most = _MOST_DOUBT if bar >= 1.0 else min(1.0 / (1.0 - bar), _MOST_DOUBT)
    return (1.0 - p_right) * (most if worth is None else min(worth, _MOST_DOUBT))
