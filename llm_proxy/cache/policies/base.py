"""The eviction seam: which entry to give up when the budget is spent, and which not to take in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["COST_FLOOR_USD", "Policy", "Worth"]

COST_FLOOR_USD = 1e-9
"""Cost of an entry that costs nothing (a local model's): far below any price, so that frequency and size order such
entries among themselves, after all that cost money."""


class Worth(NamedTuple):
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
    """An order of eviction over keys; not thread-safe, its owner holds the lock. Every verb is O(log n) or better.

    A request of a key is told by one of three: `on_hit` where it is held; `on_insert` where it is taken in, after
    `admits` said so or because there is room; `admits` alone where that says no.
    """

    def __len__(self) -> int:
        """How many keys are held."""

    def __iter__(self) -> Iterator[str]:
        """All keys held, in no order that counts."""

    def slot(self, key: str) -> int | None:
        """A number that is the key's as long as it is held, for columns beside the policy's own; None when it is not.

        Numbers are given out again, so that the largest stays below the most keys that were held at once.
        """

    def admits(self, key: str, worth: Worth, victim: str | None = None) -> bool:
        """Whether a key is worth a victim's place, asked when there is no room; a refusal counts as a request.

        Args:
            key: The key; one that is held has its place.
            worth: What it is worth.
            victim: A key that is held; None: the one that `victim` names.
        """

    def on_insert(self, key: str, worth: Worth) -> int:
        """Take in a key, or give a known one a new worth, whose hits are not looked at; returns its `slot`."""

    def on_hit(self, key: str, hits: int = 1) -> None:
        """Count hits of a key; an unknown key is passed over."""

    def on_remove(self, key: str) -> None:
        """Forget that a key is held; an unknown key is passed over."""

    def order(self) -> Generator[str]:
        """The keys as `victim` would name them one after the other, left in place; close it before any other verb."""

    def victim(self) -> str | None:
        """The key to give up next, of equals the oldest, left in place; None when there are none."""
