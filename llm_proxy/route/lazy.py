"""Heads that load in the background: until one is there, and while it can't be loaded, its route goes by the rules."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Head

__all__ = ["LazyHeads"]

Submit = Callable[[Callable[[], None]], object]


class LazyHeads:
    """The head of a route by its name, as `llm_proxy.route.plan.Heads`; safe to share between threads.

    Nothing is loaded before `start`. A head that can't be loaded is counted and tried again after a while, by the next
    call of its route.

    Args:
        folders: Of the heads, by route.
        load: Makes a head of a folder; may take seconds.
        note: Takes the name of a part and its trouble.
        retry_after_s: Rest after a failed load, seconds, > 0.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Head],
        *,
        note: Callable[[str, Exception], None],
        retry_after_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders, self._load, self._note = dict(folders), load, note
        self._retry_after_s, self._monotonic = retry_after_s, monotonic
        self._heads: dict[str, Head] = {}
        self._retry_at_s: dict[str, float] = {}
        self._submit: Submit | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """Take a new lock in a child, where nobody would release the old one; what has loaded stays.

        What was loading begins anew with the next call, as the thread that was at it is not in the child.
        """
        self._lock = RLock()
        self._loading: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._folders)

    def __call__(self, route: str) -> Head | None:
        """The head of a route; None where it has none, or where it has not loaded."""
        head = self._heads.get(route)
        if head is None and route in self._folders and self._monotonic() >= self._retry_at_s.get(route, 0.0):
            self._begin(route)
        return head

    def start(self, submit: Submit) -> None:
        """Load all of them in the background.

        Args:
            submit: Runs a function later in another thread, e.g. ``pool.submit``.
        """
        self._submit = submit
        for route in self._folders:
            self._begin(route)

    def load(self) -> None:
        """Load now what has not loaded, in this thread.

        Raises:
            LLMProxyError: One can't be loaded; the message says why.
        """
        for route, folder in self._folders.items():
            if route not in self._heads:
                self._heads[route] = self._load(folder)

    def _begin(self, route: str) -> None:
        with self._lock:
            if self._submit is None or route in self._loading or route in self._heads:
                return
            self._loading.add(route)
        self._submit(partial(self._try, route))

    def _try(self, route: str) -> None:
        try:
            self._heads[route] = self._load(self._folders[route])
        finally:  # counted here, also what nobody foresaw: the pool drops what is raised
            failure = sys.exc_info()[1]
            if isinstance(failure, Exception):
                self._note("router", failure)
            self._retry_at_s[route] = self._monotonic() + self._retry_after_s
            self._loading.discard(route)
