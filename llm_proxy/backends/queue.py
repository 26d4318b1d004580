"""Who is next at a backend that answers only so many calls at a time.

::

    enter    a slot is free ── begins at once
             else it waits; where `length` calls wait already: `LimitReached`
    leave    its slot goes to, of those that wait:
               the oldest, where it is due
               else the shortest, by predicted tokens, of the tenants that are not ahead
    due      has waited `bound_s` or longer, and `PATIENCE` times as long as the longest jam since it came, which is
             what all who waited then would take at their usual
    ahead    a tenant that has had more seconds of slots, since anybody began to wait, than `_AHEAD` usual answers
             beyond the one that waits and has had least

The shortest first makes the mean wait least, and lets long answers starve. So who is due is overtaken by nobody who
came later. In a jam every order keeps somebody waiting about as long as all who wait will take: a bound in seconds
alone would make it the order of arrival just where another order is worth most. So the bound grows with the jam. For
who was in it, it stays as the jam ends, when there is time for the long ones at last; for who comes later it is small
again. It grows by how many wait, not by what is predicted of them: where the shortest go first the longest are left,
and the bound would grow with their lengths just when they should be called. With a ``bound_s`` of 0 the order is that
of arrival, with inf nobody is ever due.

What a tenant has had is counted when it begins, as predicted, and put right when it is over; one who comes to wait anew
is given at least what the one with the least has had, so that nobody saves up for later. Order within one process:
other processes that ask the same backend have slots of their own.

Source: shortest predicted first: Fu et al., arXiv 2408.15792; what tenants have had: the virtual token counter of Sheng
et al., "Fairness in Serving Large Language Models", arXiv 2401.00588, with seconds in place of tokens. With
`PATIENCE` the 99th percentile of latency is at most one and a half times that in order of arrival on the mean of four
seeds, with a little to spare, for each of four models at loads of 70, 90 and 120 %: chosen on prompts that
`benchmarks.schedule` does not report (its ``--folds``). To learn how long answers take by their predicted length made
it no better.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush

from llm_proxy.errors import LimitReached

__all__ = ["PATIENCE", "Place", "Queue"]

PATIENCE = 1.7
"""How many times as long as all would take who waited in the longest jam since it came a call waits until it is due."""

_AHEAD = 4.0
_RECENT = 101
_FADING = 0.99  # what is known of a backend's speed, with every answer: half is forgotten after 69
_PRIOR_S, _PRIOR_TOKENS = 5.0, 300.0  # as `llm_proxy.route.costs` expects of a model that was never seen
_MOST_TENANTS = 1024


@dataclass(slots=True, eq=False)
class Place:
    """One call in a queue, waiting or in a slot. Its queue alone changes it.

    Attributes:
        tenant: Whose call it is.
        tokens: Predicted length of its answer, > 0.
        number: Of its arrival.
        entered_s: When it came, on the queue's clock.
        begun_s: When it got a slot; None while it waits.
        expected_s: How long it was expected to keep the slot, when it got it.
        is_over: Whether it has left.
    """

    tenant: str
    tokens: float
    number: int
    entered_s: float
    begun_s: float | None = None
    expected_s: float = 0.0
    is_over: bool = False
    _called: Callable[[], object] | None = None


@dataclass(slots=True)
class _Tenant:
    """Those of one tenant who wait, shortest first, and what it has had, seconds of slots."""

    had_s: float = 0.0
    line: list[tuple[float, int, Place]] = field(default_factory=list)

    def shortest(self) -> Place | None:
        while self.line and not _waits(self.line[0][2]):
            heappop(self.line)
        return self.line[0][2] if self.line else None


class Queue:
    """The queue of one backend; thread-safe, O(tenants + log calls) a call, no I/O.

    Args:
        slots: Calls at a time, > 0.
        bound_s: Least seconds after which a call is due, >= 0, or inf; 0: at once.
        length: Most calls that wait, >= 0.
        monotonic: Clock, seconds.
        patience: See `PATIENCE`; > 0.
    """

    def __init__(
        self,
        *,
        slots: int,
        bound_s: float,
        length: int,
        monotonic: Callable[[], float],
        patience: float = PATIENCE,
    ) -> None:
        self._slots, self._bound_s, self._length, self._monotonic = slots, bound_s, length, monotonic
        self._patience = patience
        # Not reentrant, and `leave` never waits for it: the garbage collector may end a dropped call inside any method.
        self._lock = threading.Lock()
        self._left: deque[Place] = deque()
        self._in_slots: dict[int, Place] = {}
        self._arrivals: deque[Place] = deque()
        self._jams: deque[tuple[int, float]] = deque()  # by number of arrival the seconds, where none since had more
        self._tenants: dict[str, _Tenant] = {}
        self._waiting = self._entered = 0
        self._spent_s, self._spent_tokens, self._spent_calls = _PRIOR_S, _PRIOR_TOKENS, 1.0
        self._recent: deque[float] = deque(maxlen=_RECENT)

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return self._waiting

    @property
    def under_way(self) -> int:
        """Calls that have a slot."""
        return len(self._in_slots)

    def enter(self, tokens: float | None, tenant: str) -> Place:
        """Take a slot, or a place among those who wait.

        Args:
            tokens: Predicted length of the answer, > 0; None where nothing is known: the recent calls' median.
            tenant: Whose call it is.

        Returns:
            To be given to `leave`, in any case; `when_called` tells when it has a slot.

        Raises:
            LimitReached: `length` calls wait; comes again when they will have had their turn, as foretold.
        """
        with self._locked():
            now_s = self._monotonic()
            is_free = len(self._in_slots) < self._slots
            if not is_free and self._waiting >= self._length:
                raise LimitReached(
                    f"{self._length} calls wait already for this backend; raise queue_length, or come again later",
                    code="queue_full",
                    retry_after_s=self._drain_s(now_s),
                )
            if tokens is not None:
                self._recent.append(tokens)
            self._entered += 1
            place = Place(tenant, tokens or self._usual_tokens(), self._entered, now_s)
            if is_free:
                self._begin(place, now_s)
            else:
                self._wait(place)
        return place

    def when_called(self, place: Place, called: Callable[[], object]) -> None:
        """Have a function called once the place has a slot: at once, or by whoever leaves, in any thread.

        It must be quick; a RuntimeError of it says that nobody is there any more, and the place is left.
        """
        with self._locked():
            if _waits(place):
                place._called = called
                return
        called()

    def leave(self, place: Place) -> None:
        """Give the slot or the place up; leaving twice is safe. Also from a finalizer: it waits for no lock."""
        self._left.append(place)
        self._see_off()

    def expected_wait_s(self, tokens: float | None) -> float:
        """How long a call that came now would wait, as far as can be foretold: nobody is overtaken by later ones.

        Args:
            tokens: As for `enter`.

        Returns:
            Seconds, >= 0.
        """
        with self._locked():
            if len(self._in_slots) < self._slots:
                return 0.0
            now_s, own = self._monotonic(), tokens or self._usual_tokens()
            return self._drain_s(now_s, lambda place: place.tokens <= own)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; who left meanwhile, and could not have it, is seen off after it."""
        try:
            with self._lock:
                yield
        finally:
            self._see_off()

    # -- under the lock --------------------------------------------------------------------------------------------

    def _wait(self, place: Place) -> None:
        tenant = self._tenants.get(place.tenant)
        if tenant is None:
            tenant = self._tenants[place.tenant] = _Tenant()
            self._forget_some(but=place.tenant)
        if tenant.shortest() is None:  # else it waits already
            others = [other.had_s for other in self._tenants.values() if other.shortest() is not None]
            tenant.had_s = max([tenant.had_s, *([min(others)] if others else [])])
        heappush(tenant.line, (place.tokens, place.number, place))
        self._arrivals.append(place)
        self._waiting += 1
        jam_s = self._waiting * self._spent_s / self._spent_calls / self._slots
        while self._jams and self._jams[-1][1] <= jam_s:
            self._jams.pop()
        self._jams.append((place.number, jam_s))

    def _begin(self, place: Place, now_s: float) -> None:
        place.begun_s, place.expected_s = now_s, self._expected_s(place.tokens)
        self._in_slots[place.number] = place
        if place.tenant in self._tenants:
            self._tenants[place.tenant].had_s += place.expected_s

    def _end(self, place: Place, now_s: float) -> None:
        place.is_over = True
        if place.begun_s is None:
            self._waiting -= 1
            return
        del self._in_slots[place.number]
        took_s = now_s - place.begun_s
        self._spent_s = self._spent_s * _FADING + took_s
        self._spent_tokens = self._spent_tokens * _FADING + place.tokens
        self._spent_calls = self._spent_calls * _FADING + 1
        if place.tenant in self._tenants:
            self._tenants[place.tenant].had_s += took_s - place.expected_s

    def _next(self, now_s: float) -> Place:
        """Whose turn it is; somebody waits."""
        while not _waits(self._arrivals[0]):
            self._arrivals.popleft()
        if self._is_due(self._arrivals[0], now_s):
            return self._arrivals[0]
        shortest = [(tenant.had_s, place) for tenant in self._tenants.values() if (place := tenant.shortest())]
        most_s = min(had_s for had_s, _ in shortest) + _AHEAD * self._expected_s(self._usual_tokens())
        return min((place for had_s, place in shortest if had_s <= most_s), key=_by_length)

    def _is_due(self, place: Place, now_s: float) -> bool:
        while self._jams[0][0] < place.number:
            self._jams.popleft()
        bound_s = max(self._bound_s, self._patience * self._jams[0][1])
        return not self._bound_s or now_s - place.entered_s >= bound_s

    def _drain_s(self, now_s: float, counts: Callable[[Place], bool] = lambda place: True) -> float:
        """Until all slots are through with what is under way, and with those who wait and count."""
        ends_s = (
            place.expected_s + place.begun_s - now_s for place in self._in_slots.values() if place.begun_s is not None
        )
        work_s = sum(max(0.0, end_s) for end_s in ends_s)
        waiting = (place for place in self._arrivals if _waits(place) and counts(place))
        work_s += sum(self._expected_s(place.tokens) for place in waiting)
        return work_s / self._slots

    def _usual_tokens(self) -> float:
        return statistics.median(self._recent) if self._recent else _PRIOR_TOKENS

    def _expected_s(self, tokens: float) -> float:
        """How long a slot takes for answers that are predicted to be of so many tokens."""
        return tokens * self._spent_s / self._spent_tokens

    def _forget_some(self, *, but: str) -> None:
        """Keep the table small: of those who don't wait, what they have had is forgotten when there are too many."""
        if len(self._tenants) > _MOST_TENANTS:
            kept = {name: one for name, one in self._tenants.items() if name == but or one.shortest() is not None}
            self._tenants = kept

    def _turn(self, now_s: float) -> list[Place]:
        """Have those out who left, and give their slots away; those who got one."""
        while self._left:
            place = self._left.popleft()
            if not place.is_over:
                self._end(place, now_s)
        begun = []
        while self._waiting and len(self._in_slots) < self._slots:
            place = self._next(now_s)
            self._waiting -= 1
            self._begin(place, now_s)
            begun.append(place)
        if not self._waiting:  # nobody is kept waiting, so nobody is behind
            self._tenants.clear()
            self._arrivals.clear()
            self._jams.clear()
        return begun

    # -- outside of it ---------------------------------------------------------------------------------------------

    def _see_off(self) -> None:
        # Whoever finds the lock taken leaves the rest to the one who holds it, who looks again after releasing it.
        while self._left and self._lock.acquire(blocking=False):
            try:
                begun = self._turn(self._monotonic())
            finally:
                self._lock.release()
            for place in begun:
                self._call(place)

    def _call(self, place: Place) -> None:
        called, place._called = place._called, None
        if called is None:
            return
        try:
            called()
        except RuntimeError:  # its event loop is closed
            self._left.append(place)


def _waits(place: Place) -> bool:
    return place.begun_s is None and not place.is_over


def _by_length(place: Place) -> tuple[float, int]:
    return place.tokens, place.number
