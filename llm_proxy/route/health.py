"""Which candidates have been failing, and how many calls each backend has under way.

Who rests, and for how long, is what `llm_proxy.backends.breaker` says. What counts as a failure: a status of 500 or
above, 429, a request that could not be sent, an answer that broke off. Of any other refusal nothing is learnt: it may
be the request's fault, or the caller's key's.

Known to this process alone, and forgotten with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from llm_proxy.backends.base import MODEL_CHARS
from llm_proxy.backends.breaker import Breakers

__all__ = ["Health"]


class Health:
    """Failures and calls under way; thread-safe, O(1), bounded memory, no I/O.

    Args:
        monotonic: Clock, seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._breakers = Breakers(monotonic)
        self._under_way: dict[str, WeakSet[Any]] = {}
        # Reentrant: the garbage collector may end a dropped call at any place, and that call comes here.
        self._lock = threading.RLock()

    def began(self, backend: str, call: object, *, model: str = "") -> None:
        """A call is sent.

        Args:
            backend: Where to.
            call: What stands for it; it counts until `ended`, or until nobody holds it.
            model: Model that is asked: where it has rested, this call probes it.
        """
        with self._lock:
            self._under_way.setdefault(backend, WeakSet()).add(call)
        self._breakers.began((backend, model[:MODEL_CHARS]))

    def ended(
        self,
        backend: str,
        model: str,
        call: object,
        *,
        is_well: bool | None,
        is_refused: bool = False,
        asked_s: float = 0.0,
    ) -> None:
        """A call is over.

        Args:
            backend: Where it was sent.
            model: Model that was asked.
            call: As for `began`.
            is_well: Whether it was answered; None where its end says nothing of the backend.
            is_refused: There was no connection.
            asked_s: How long the backend asked to be left alone, seconds; 0 where it said nothing.
        """
        with self._lock:
            self._under_way.get(backend, _NOBODY).discard(call)
        pair = backend, model[:MODEL_CHARS]
        if is_well is None:
            self._breakers.let_go(pair)
        elif is_well:
            self._breakers.answered(pair)
        else:
            self._breakers.failed(pair, is_refused=is_refused, asked_s=asked_s)

    def under_way(self, backend: str) -> int:
        """Calls that were sent to a backend and are not over."""
        return len(self._under_way.get(backend, _NOBODY))

    def resting_s(self, backend: str, model: str) -> float:
        """For how much longer a candidate should be passed over, seconds; 0 where it is well."""
        return self._breakers.resting_s((backend, model[:MODEL_CHARS]))


_NOBODY: WeakSet[Any] = WeakSet()
