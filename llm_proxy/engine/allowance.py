"""How many checks of semantic hits may be under way, and what they may cost on a day."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .ports import Clock

__all__ = ["MOST_AT_ONCE", "Allowance"]

MOST_AT_ONCE = 2
"""Checks under way in one process: they are no traffic of their own."""

_DAY_S = 86_400
_READ_EVERY_S = 60.0  # what other processes spent is looked up so often


class Allowance:
    """Bounds checks, in number and in dollars; thread-safe by the lock that is given.

    Args:
        usd_per_day: Most dollars on one day of UTC.
        clock: Clocks.
        spent_since: Dollars that checks of this and other processes took since a Unix time, as far as they are
            booked; asked once a minute, and may read a file.
        lock: Held for moments.
    """

    def __init__(
        self,
        usd_per_day: float,
        *,
        clock: Clock,
        spent_since: Callable[[float], float],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._usd_per_day, self._clock, self._spent_since, self._lock = usd_per_day, clock, spent_since, lock
        self._under_way = 0
        self._day = -1
        self._read_s = 0.0
        self._spent_usd = 0.0

    def sit(self) -> bool:
        """Take one of the few seats, if there is one; to be given back with `leave`."""
        with self._lock:
            is_free = self._under_way < MOST_AT_ONCE
            self._under_way += is_free
        return is_free

    def leave(self) -> None:
        """Give a seat back."""
        with self._lock:
            self._under_way -= 1

    def spend(self, usd: float) -> bool:
        """Take dollars of today's, if there are so many left."""
        now_s = self._clock.time()
        day = int(now_s // _DAY_S)
        if day != self._day or abs(now_s - self._read_s) >= _READ_EVERY_S:
            booked_usd = self._spent_since(float(day * _DAY_S))
            with self._lock:  # the newest of this process are not booked yet
                self._spent_usd = max(booked_usd, self._spent_usd if day == self._day else 0.0)
                self._day, self._read_s = day, now_s
        with self._lock:
            is_within = self._spent_usd + usd <= self._usd_per_day
            self._spent_usd += usd if is_within else 0.0
        return is_within

    def correct(self, usd: float) -> None:
        """Add what a check took beyond what was taken for it; negative where it took less."""
        with self._lock:
            self._spent_usd = max(0.0, self._spent_usd + usd)
