"""Lets a process fork while llm-proxy works in its threads.

A child inherits every lock as it is, without the thread that would release it: a lock of ours, of SQLite, or of a
module that is being imported. So a fork waits until no thread is inside llm-proxy, and threads that want to go in
wait until it is done. Whoever keeps locks of its own makes them anew in the child.

::

    thread:  with working: ...      enters, unless a fork is about to happen; leaves
    fork:    shut ── all threads are out, or the wait is too long ──> fork ──> parent: open; child: all anew

The end of a process is such a moment, too: threads that nobody waits for may be in a compiled library, which aborts
the process where Python ends them there (`end_in_peace`).

Nothing is registered with Python before `heed_forks`, `on_fork` or `end_in_peace` is called, or the number of the
process is asked for.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from threading import get_ident
from typing import Any

__all__ = ["Gate", "Process", "Workers", "end_in_peace", "heed_forks", "on_fork", "process", "working"]

_WAIT_S = 5.0  # for a model that loads; a fork is never held up longer
_TURN_S = 30.0  # a thread held up longer goes on: the fork failed in a way that nobody was told of
_END_S = 2.0  # the same at the end of the process: what else is called there waits for the thread


class Gate:
    """Held by any number of threads that work, or shut by those who fork; reentrant.

    The garbage collector may end a dropped call, and with it enter and leave, at any place in these methods.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside: dict[int, int] = {}
        self._forks = 0
        self._is_ending = False

    def __enter__(self) -> None:
        me = get_ident()
        with self._lock:
            if self._forks and me not in self._inside:
                turn_s = _END_S if self._is_ending else _TURN_S
                if not self._changed.wait_for(lambda: not self._forks, turn_s) and self._is_ending:
                    self._is_ending = False  # nor are others held up, or this thread again
                    self.open()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *exc_info: object) -> None:
        me = get_ident()
        with self._lock:
            depth = self._inside.get(me, 1) - 1  # a child forgets that it was inside
            if depth:
                self._inside[me] = depth
                return
            self._inside.pop(me, None)
            if self._forks:
                self._changed.notify_all()

    def shut(self, wait_s: float) -> None:
        """Let no other thread in any more, and wait until all are out, but no longer than ``wait_s`` seconds."""
        me = get_ident()
        with self._lock:
            self._forks += 1
            self._changed.wait_for(lambda: self._inside.keys() <= {me}, wait_s)

    def end(self, wait_s: float) -> None:
        """`shut` as the process ends. It is taken back where a thread waits for long: somebody may wait for it."""
        self._is_ending = True
        self.shut(wait_s)

    def open(self) -> None:
        """Take one `shut` back."""
        with self._lock:
            self._forks -= 1
            self._changed.notify_all()

    def forget(self) -> bool:
        """Begin anew in a child, where no other thread is; whether all were out at the fork."""
        is_quiet = self._inside.keys() <= {get_ident()}
        self.__init__()  # type: ignore[misc]
        return is_quiet


working = Gate()
"""The one of this process; to be held while working, never while waiting for an upstream."""


class Process:
    """The process that this is. Its number is asked for several times a call, and each system call takes a while."""

    def __init__(self) -> None:
        self._known = 0
        self._is_watched = False

    @property
    def id(self) -> int:
        """Number of this process, a child's own after a fork."""
        return self._known or self._asked()

    def forget(self) -> None:
        """Ask again: this may be another process."""
        self._known = 0

    def _asked(self) -> int:
        if not hasattr(os, "register_at_fork"):
            return os.getpid()
        if not self._is_watched:
            self._is_watched = True
            os.register_at_fork(after_in_child=self.forget)
        self._known = os.getpid()
        return self._known


process = Process()
"""This one."""

_children: list[Callable[[bool], Any]] = []


def on_fork(child: Callable[[bool], Any]) -> None:
    """Have a function called in every child of a fork from now on; the same one is registered once.

    Args:
        child: Called with whether no other thread was inside llm-proxy at the fork. If not, locks of other libraries
            may be held for ever.
    """
    heed_forks()
    if child not in _children:
        _children.append(child)


@cache
def heed_forks() -> None:
    """Have every fork from now on wait for the threads that are `working`."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=working.open, after_in_child=_in_child)


@cache
def end_in_peace() -> None:
    """Have the end of the process wait for threads that are `working`, no longer than a fork does.

    To be called before anything is registered with `atexit` that needs those threads: what came first is called last.
    """
    atexit.register(_end)


def _end() -> None:
    working.__enter__()  # this thread is let in again by whatever comes later
    working.end(_WAIT_S)


def _before() -> None:
    working.shut(_WAIT_S)


def _in_child() -> None:
    process.forget()  # before those who ask who they are
    is_quiet = working.forget()
    for child in _children:
        child(is_quiet)


class Workers(ThreadPoolExecutor):
    """Threads whose work a fork waits for.

    Args:
        max_workers: Most of them.
        thread_name_prefix: What their names begin with.
        is_waited_for: False where they go from work to work, each of which holds `working` by itself.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str, *, is_waited_for: bool = True) -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._perform = _worked if is_waited_for else _called
        self._submitting: set[int] = set()
        self._postponed: deque[Callable[[], Any]] = deque()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called by a worker thread.

        In here the executor holds locks that are not reentrant. When the garbage collector ends a dropped call right
        now, and its event asks for upkeep, that has to wait; so no one must wait for the future that it gets.
        """
        me = threading.get_ident()
        if me in self._submitting:
            self._postponed.append(partial(call, *args, **kwargs))
            return Future()
        self._submitting.add(me)
        try:
            future = super().submit(self._perform, call, *args, **kwargs)
        finally:
            self._submitting.discard(me)
        with suppress(IndexError):
            while True:
                self.submit(self._postponed.popleft())
        return future


def _worked(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with working:
        return call(*args, **kwargs)


def _called(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs)
