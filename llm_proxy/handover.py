"""Has work done in threads for tasks of event loops, at most so much at a time, each within its limit.

::

    a call comes, fewer are at work than may be     a thread begins it
    a call comes, so many are at work               it waits for its turn; the thread that is free first takes it
    its turn does not come in time                  it is given up: `Late`, not begun
    it takes longer than it may, or its task is cancelled
                                                    its thread works on for nobody; its place goes to the next call

That is `Handover`, for asyncio. A hand-over by anyio, with its limiters and cancel scopes, takes some 60 µs more of a
processor, and about twice that in a semantic hit, where a run of the encoder has just emptied the processor's caches.
`in_thread` goes by anyio, for other libraries, and for work without a limit.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from .engine.effects import Late
from .forking import Workers

__all__ = ["Handover", "in_thread"]

_THREADS = 16  # most threads that work for async callers at a time; the application's own are counted apart


class _Job:
    """A call, and the task that waits for it."""

    __slots__ = (
        "begun_s", "call", "context", "error", "is_over", "joined_s", "landed", "limit_s", "loop", "timer", "turn_s",
        "value",
    )  # fmt: skip

    def __init__(self, call: Callable[[], Any], limit_s: float, turn_s: float, loop: AbstractEventLoop) -> None:
        self.call, self.limit_s, self.turn_s, self.loop = call, limit_s, turn_s, loop
        self.context = copy_context()
        self.landed: Future[None] = loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None
        self.joined_s, self.begun_s = time.monotonic(), 0.0
        self.timer: TimerHandle | None = None
        self.is_over = False  # it was done, or given up

    @property
    def left_s(self) -> float:
        """Time until it is late, as things stand."""
        if self.turn_s and not self.begun_s:
            since_s, most_s = self.joined_s, self.turn_s
        else:
            since_s, most_s = self.begun_s if self.turn_s else self.joined_s, self.limit_s
        return since_s + most_s - time.monotonic()

    def run(self) -> None:
        """Do the work, and hand the outcome over."""
        try:
            value = self.context.run(self.call)
        except BaseException as exc:  # noqa: BLE001 - it belongs to the task
            self.hand(None, exc)
        else:
            self.hand(value, None)

    def hand(self, value: Any, error: BaseException | None) -> None:
        """Hand an outcome over; without effect once the loop is closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._land, value, error)

    def _land(self, value: Any, error: BaseException | None) -> None:
        if not self.landed.done():
            self.value, self.error = value, error
            self.landed.set_result(None)


class Handover:
    """Does work for the tasks of any number of asyncio loops; from any thread.

    Args:
        most: How many calls at most are at work at a time; asked once. By default as many as there are cores: what has
            a limit computes, and does not wait. With one more, a busy core served fewer calls, and each of them later.
    """

    def __init__(self, most: Callable[[], int] | None = None) -> None:
        self._asked, self._most = most or _cores, 0
        # Reentrant: the garbage collector may end a dropped call, which then leaves, at any place.
        self._lock = threading.RLock()
        self._waiting: deque[_Job] = deque()
        self._at_work = 0
        self._threads: Workers | None = None
        self._is_closed = False

    def close(self) -> None:
        """Take nothing more; what waits is still done. From any thread, and safe to repeat."""
        with self._lock:
            self._is_closed, threads, self._threads = True, self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    async def __call__(self, call: Callable[[], Any], limit_s: float, turn_s: float = 0.0) -> Any:
        """What a call returns.

        Args:
            call: The work.
            limit_s: Longest wait for it, seconds.
            turn_s: See `llm_proxy.engine.effects.Compute`.

        Raises:
            Late: It took too long, or was not begun in time.
            RuntimeError: Closed, or no thread can be had.
            Exception: What the call raises.
        """
        job = _Job(call, limit_s, turn_s, asyncio.get_running_loop())
        try:
            self._join(job)
            self._look(job)
            await job.landed
        except BaseException:
            self._leave(job)
            raise
        finally:
            if job.timer is not None:
                job.timer.cancel()
        if job.error is None:
            return job.value
        try:
            raise job.error
        finally:
            job.error = None  # its traceback holds the job

    def _join(self, job: _Job) -> None:
        with self._lock:
            self._most = self._most or min(_THREADS, self._asked())
            if self._at_work >= self._most:
                self._waiting.append(job)
                return
            self._at_work += 1
            job.begun_s = time.monotonic()
        self._begin(job)

    def _look(self, job: _Job) -> None:
        """See whether a job is late now, in its loop; else look again in time."""
        if job.is_over or job.landed.done():  # the result may have come at the last moment, and not be here yet
            return
        left_s = job.left_s
        if left_s > 0:  # one that waits may begin at once, and is then late after its limit
            job.timer = job.loop.call_later(min(left_s, job.limit_s), self._look, job)
            return
        with self._lock:
            is_begun = bool(job.begun_s) or not job.turn_s
            self._leave(job)
        job.landed.set_exception(Late(is_begun=is_begun))

    def _leave(self, job: _Job) -> None:
        """Give a job up that is not over; its place goes to the next one."""
        with self._lock:
            if job.is_over:
                return
            if not job.begun_s:
                job.is_over = True
                self._waiting.remove(job)
                return
            heir = self._next(job)
        self._begin(heir)

    def _next(self, job: _Job) -> _Job | None:
        """The job that takes the place of one that is over; None where nobody waits, or somebody has taken it."""
        with self._lock:
            if job.is_over:
                return None
            job.is_over = True
            if not self._waiting:
                self._at_work -= 1
                return None
            heir = self._waiting.popleft()
            heir.begun_s = time.monotonic()
            return heir

    def _begin(self, job: _Job | None) -> None:
        while job is not None:
            try:
                self._pool().submit(self._work, job)
                return
            except RuntimeError as exc:
                job.hand(None, exc)
                job = self._next(job)

    def _work(self, job: _Job | None) -> None:
        while job is not None:
            job.run()
            job = self._next(job)

    def _pool(self) -> Workers:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this runtime is closed; make a new one")
            if self._threads is None:
                made = Workers(_THREADS, "llm-proxy-search", is_waited_for=False)
                self._threads = self._threads or made  # a call that was collected meanwhile may have made one
            return self._threads


_limiters: RunVar[tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]] = RunVar("llm_proxy_threads")


async def in_thread(call: Callable[[], Any], limit_s: float | None, turn_s: float) -> Any:
    """What a call returns, under any async library.

    Args:
        call: The work.
        limit_s: As for `Handover`; None to wait as long as it takes, even if the task is cancelled.
        turn_s: As for `Handover`.

    Raises:
        Late: It took too long, or was not begun in time.
        Exception: What the call raises.
    """
    limiters = _limiters.get(None)
    if limiters is None:
        limiters = anyio.CapacityLimiter(_THREADS), anyio.CapacityLimiter(min(_THREADS, _cores() + 1))
        _limiters.set(limiters)
    limiter = limiters[limit_s is not None]
    if turn_s and limit_s is not None:
        await _turn(limiter, turn_s)
        try:
            return await _in_free_thread(call, limit_s, anyio.CapacityLimiter(1))
        finally:
            limiter.release()
    return await _in_free_thread(call, limit_s, limiter)


async def _turn(limiter: anyio.CapacityLimiter, turn_s: float) -> None:
    with anyio.move_on_after(turn_s):
        return await limiter.acquire()
    raise Late(is_begun=False)


async def _in_free_thread(call: Callable[[], Any], limit_s: float | None, limiter: anyio.CapacityLimiter) -> Any:
    with anyio.move_on_after(limit_s):
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=limit_s is not None, limiter=limiter)
    raise Late


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
