"""Bodies of requests that come in by pieces: what all of them hold together is bounded, and who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Reading", "Unfinished"]


class Reading:
    """One body that comes in.

    Attributes:
        until: Ends the reading when its time is over; None before it has begun.
        held_bytes: What came so far.
        has_given_way: Whether it was ended for others.
    """

    def __init__(self) -> None:
        self.until: asyncio.Timeout | None = None
        self.held_bytes = 0
        self.has_given_way = False


class Unfinished:
    """The unfinished bodies of one event loop.

    Where they hold more than they may, the one that began first gives way: who sends a body in good time is done
    before it is his turn, and who sends slowly makes room for others instead of keeping them out.

    Args:
        most_bytes: Most bytes of all of them together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._readings: dict[Reading, None] = {}  # in the order in which they began
        self.held_bytes = 0
        """Bytes of all."""

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Take part for as long as the block takes."""
        own = Reading()
        self._readings[own] = None
        try:
            yield own
        finally:
            self._leave(own)

    def grow(self, own: Reading, size: int) -> None:
        """Count bytes that came; the oldest readings, perhaps this one, give way until there is room."""
        if own.has_given_way:
            return
        own.held_bytes += size
        self.held_bytes += size
        while self.held_bytes > self._most_bytes and self._readings:
            oldest = next(iter(self._readings))
            oldest.has_given_way = True
            self._leave(oldest)
            if oldest.until is not None:
                oldest.until.reschedule(asyncio.get_running_loop().time())

    def _leave(self, reading: Reading) -> None:
        if reading in self._readings:
            del self._readings[reading]
            self.held_bytes -= reading.held_bytes
