"""A lock that many readers or one writer may hold; a writer who waits is passed by no new reader."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SharedLock"]


class SharedLock:
    """Many at once read, or one writes. Not reentrant: who reads must not read or write again inside."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # held by a writer until it is done, and by a reader while it comes in
        self._gate = threading.Condition(threading.Lock())
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold it beside other readers."""
        with self._turn, self._gate:
            self._readers += 1
        try:
            yield
        finally:
            with self._gate:
                self._readers -= 1
                if not self._readers:
                    self._gate.notify()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold it alone."""
        with self._turn:
            with self._gate:
                while self._readers:
                    self._gate.wait()
            yield
