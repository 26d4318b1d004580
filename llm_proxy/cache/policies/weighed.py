"""What LEC and GDSF share: a priority that is frequency times a value, and a frequency that outlives the place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING

from .history import History
from .ranking import Ranked

if TYPE_CHECKING:
    from .base import Worth

__all__ = ["Weighed"]


class Weighed(Ranked, ABC):
    """Orders keys by ``frequency * value``; a subclass says what the value is, and how the past fades.

    Frequencies are in requests as heavy as the present weight says; it may grow, but for when all is scaled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._history = History()
        self._seen = array("d")
        self._value = array("d")
        self._weight = 1.0
        self._held_seen = 0.0

    @abstractmethod
    def _value_usd(self, worth: Worth) -> float:
        """What one request of a key is worth, > 0."""

    def _note(self, seen: float, hits: int, requests: int = 1) -> None:
        """Take note of requests that were just counted.

        Args:
            seen: What frequencies grew by, in all.
            hits: How many of the requests were hits.
            requests: How many there were, >= 1.
        """

    def admits(self, key: str, worth: Worth, victim: str | None = None) -> bool:
        """Whether a key is worth more than a victim; if not, the request is counted here."""
        other = self._ranking.least() if victim is None else self._ranking.slot(victim)
        if other is None or self._ranking.slot(key) is not None:
            return True
        seen = max(self._history.count(key), worth.hits * self._weight) + self._weight
        if seen * self._value_usd(worth) > self._ranking.value(other):
            return True
        self._history.keep(key, seen)
        self._note(self._weight, 0)
        return False

    def on_insert(self, key: str, worth: Worth) -> int:
        """Take in a key, or give a known one a new worth, which leaves its frequency as it is; returns its slot."""
        value = self._value_usd(worth)
        slot = self._ranking.slot(key)
        if slot is not None:
            self._value[slot] = value
            self._ranking.move(slot, self._seen[slot] * value)
            return slot
        before = self._history.count(key)
        seen = max(before, worth.hits * self._weight) + self._weight
        slot = self._ranking.add(key, seen * value)
        if slot == len(self._seen):
            self._seen.append(seen)
            self._value.append(value)
            self._history.widen(slot + 1)
        else:
            self._seen[slot], self._value[slot] = seen, value
        self._held_seen += seen
        self._note(seen - before, 0)
        return slot

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""
        slot = self._ranking.slot(key)
        if slot is not None and hits > 0:
            seen = hits * self._weight
            self._seen[slot] += seen
            self._ranking.move(slot, self._seen[slot] * self._value[slot])
            self._held_seen += seen
            self._note(seen, hits, hits)

    def on_remove(self, key: str) -> None:
        """Forget that a key is held, though not how often it was asked for; an unknown key is passed over."""
        slot = self._ranking.remove(key)
        if slot is not None:
            self._history.keep(key, self._seen[slot])
            self._held_seen -= self._seen[slot]

    def _scale(self, factor: float) -> None:
        """Multiply all frequencies, which keeps their order."""
        self._weight *= factor
        self._held_seen *= factor
        self._seen = array("d", (seen * factor for seen in self._seen))
        self._history.scale(factor)
        self._ranking.scale(factor)
