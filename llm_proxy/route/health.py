"""Which candidates have been failing, and how many calls each backend has under way.

A candidate rests after three failures in a row, none more than 30 seconds after the first: for 30 seconds after the
last one it is passed over while another can take the call. One answer makes it well again. What counts as a failure:
a status of 500 or above, 429, a request that could not be sent, an answer that broke off. Of any other refusal nothing
is learnt: it may be the request's fault, or the caller's key's.

Known to this process alone, and forgotten with it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

__all__ = ["Health"]

_IN_A_ROW = 3
_WITHIN_S = _REST_S = 30.0
_MOST_FAILING = 1024  # any model may be named in a call


class Health:
    """Failures and calls under way; thread-safe, O(1), bounded memory, no I/O.

    Args:
        monotonic: Clock, seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed_s: OrderedDict[tuple[str, str], tuple[float, ...]] = OrderedDict()
        self._under_way: dict[str, WeakSet[Any]] = {}
        # Reentrant: the garbage collector may end a dropped call at any place, and that call comes here.
        self._lock = threading.RLock()

    def began(self, backend: str, call: object) -> None:
        """A call is sent.

        Args:
            backend: Where to.
            call: What stands for it; it counts until `ended`, or until nobody holds it.
        """
        with self._lock:
            self._under_way.setdefault(backend, WeakSet()).add(call)

    def ended(self, backend: str, model: str, call: object, *, is_well: bool | None) -> None:
        """A call is over.

        Args:
            backend: Where it was sent.
            model: Model that was asked.
            call: As for `began`.
            is_well: Whether it was answered; None where its end says nothing of the backend.
        """
        with self._lock:
            self._under_way.get(backend, _NOBODY).discard(call)
            if is_well:
                self._failed_s.pop((backend, model), None)
            elif is_well is not None:
                self._fail((backend, model))

    def under_way(self, backend: str) -> int:
        """Calls that were sent to a backend and are not over."""
        return len(self._under_way.get(backend, _NOBODY))

    def resting_s(self, backend: str, model: str) -> float:
        """For how much longer a candidate should be passed over, seconds; 0 where it is well."""
        if not self._failed_s:  # as a rule
            return 0.0
        failed_s = self._failed_s.get((backend, model), ())
        if len(failed_s) < _IN_A_ROW or failed_s[-1] - failed_s[0] > _WITHIN_S:
            return 0.0
        return max(0.0, failed_s[-1] + _REST_S - self._monotonic())

    def _fail(self, candidate: tuple[str, str]) -> None:
        before = self._failed_s.pop(candidate, ())
        self._failed_s[candidate] = (*before[1 - _IN_A_ROW :], self._monotonic())
        if len(self._failed_s) > _MOST_FAILING:
            self._failed_s.popitem(last=False)


_NOBODY: WeakSet[Any] = WeakSet()
