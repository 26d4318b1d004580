"""The newest calls, in memory: what the dashboard's list begins with, and where it looks a call up again."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import CallEvent

__all__ = ["MOST_CALLS", "Recent", "call_id"]

MOST_CALLS = 200


def call_id(at_s: float, latency_s: float) -> str:
    """Names a call by when it came and how long it took: the same in memory and in the ledger's row.

    Args:
        at_s: Unix time of arrival.
        latency_s: From arrival to the terminal event.
    """
    return f"{at_s:.6f}-{latency_s:.6f}"


class Recent:
    """Keeps the newest calls; a sink, thread-safe.

    Args:
        most: How many are kept, > 0.
    """

    def __init__(self, most: int = MOST_CALLS) -> None:
        self._calls: deque[tuple[int, CallEvent]] = deque(maxlen=most)
        self._number = 0
        # Reentrant: the garbage collector may end a dropped call, whose event comes here, at any place.
        self._lock = threading.RLock()

    def __call__(self, event: CallEvent) -> None:
        """Take one event; never raises."""
        with self._lock:
            self._number += 1
            self._calls.append((self._number, event))

    def since(self, number: int) -> tuple[int, Sequence[CallEvent]]:
        """What came after a moment.

        Args:
            number: What this returned before; 0 for all that is kept.

        Returns:
            The number to ask with the next time, and the events that are still there, oldest first.
        """
        with self._lock:
            return self._number, [event for at, event in self._calls if at > number]

    def find(self, name: str) -> CallEvent | None:
        """The call of a `call_id`, or None when it is no longer kept."""
        with self._lock:
            calls = list(self._calls)
        return next((event for _, event in reversed(calls) if call_id(event.at_s, event.latency_s) == name), None)
