"""How many calls a backend has under way, streams whose answers nobody records among them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

__all__ = ["Load"]


class _Body(Protocol):
    @property
    def is_done(self) -> bool: ...


class Load:
    """Calls under way, by backend. Thread-safe, O(those that nobody else counts), no I/O.

    A stream whose answer is not recorded is no longer under way for anybody else once it has begun; here it counts
    until all of it has passed, it broke off or was closed, or nobody holds it.

    Args:
        others: Calls under way at a backend without such streams, see `llm_proxy.route.health.Health.under_way`.
    """

    def __init__(self, others: Callable[[str], int]) -> None:
        self._others = others
        self._bodies: dict[str, WeakSet[_Body]] = {}
        # Reentrant: the garbage collector may come at any place.
        self._lock = threading.RLock()

    def began(self, backend: str, body: _Body) -> None:
        """Count a stream whose answer is not recorded."""
        with self._lock:
            self._bodies.setdefault(backend, WeakSet()).add(body)

    def under_way(self, backend: str) -> int:
        """Calls under way at a backend, >= 0."""
        with self._lock:
            bodies = sum(not body.is_done for body in self._bodies.get(backend, ()))
        return self._others(backend) + bodies
