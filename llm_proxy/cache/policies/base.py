"""The eviction seam: which entry to give up when the budget is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Policy", "Worth"]


@dataclass(frozen=True, slots=True)
class Worth:
    """What a policy may weigh.

    Attributes:
        size_bytes: Bytes that the entry takes in the store, > 0.
        cost_usd: What asking again is expected to cost, >= 0.
        hits: How often it was served, >= 0.
    """

    size_bytes: int
    cost_usd: float
    hits: int = 0


class Policy(Protocol):
    """An order of eviction over keys; not thread-safe, its owner holds the lock. Every verb is O(log n) or better."""

    def on_insert(self, key: str, worth: Worth) -> None:
        """Take in a key, or give a known one a new worth (its history is kept)."""

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""

    def on_remove(self, key: str) -> None:
        """Forget a key; an unknown key is passed over."""

    def victim(self) -> str | None:
        """The key to give up next, of equals the oldest, left in place; None when there are none."""
