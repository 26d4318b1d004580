"""The answers under way, by who can share them: where callers with the same question meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from .engine.flights import Flight, Ticket

__all__ = ["Flights"]

_LANDED = 1024  # keys of answers that were complete a short while ago


class Flights:
    """The answers under way, by who can share them and by key; thread-safe."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end a dropped call at any place, and that call leaves its flight.
        self._lock = threading.RLock()
        self._table: WeakValueDictionary[tuple[Hashable, ...], Flight] = WeakValueDictionary()
        self._landed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._table)

    def board(self, domain: Hashable, ticket: Ticket, make: Callable[[Callable[[Flight], None]], Flight]) -> Any:
        """A seat in the flight of the ticket's key, opened by ``make`` when there is none to join.

        Only callers with the same time-out share an answer: an upstream call that one of them would give up can't be
        waited for by another for longer.

        Args:
            domain: Who can share; None for nobody.
            ticket: The caller's.
            make: Makes a flight from what it calls once nobody can join it any more.
        """
        key = ticket.fingerprint.key
        place = (domain, ticket.request.timeout_s, key)
        with self._lock:
            known = self._table.get(place) if domain is not None else None
            seat = known.join() if known is not None and not known.is_left else None
            if seat is not None:
                return known, seat
            flight = make(lambda over: self._landed_at(place, over))
            flight.has_forerunner = key in self._landed
            seat = flight.join()  # before others see it: they take a flight without seats for one that was left
            if domain is not None:
                self._table[place] = flight
        return flight, seat

    def _landed_at(self, place: tuple[Hashable, ...], flight: Flight) -> None:
        with self._lock:
            if self._table.get(place) is flight:
                del self._table[place]
            self._landed[flight.ticket.fingerprint.key] = None
            if len(self._landed) > _LANDED:
                del self._landed[next(iter(self._landed))]
