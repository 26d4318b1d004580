"""What goes on beside calls: flows that begin once an answer was handed on, and that nobody waits for.

- `Threads`: a thread each, which ends with the process, at whatever it is. It waits for an upstream, and a process
  that has nothing else to do must not wait for that; the stores bear to be left by a killed process. It stays a while
  for the next flow: on a busy machine, starting one may take the caller some milliseconds.
- `Tasks`: a task of the caller's event loop each, which the loop cancels when it ends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from .engine.effects import Fetch, Fetched, Late

if TYPE_CHECKING:
    from .types import Head, Outgoing

__all__ = ["Tasks", "Threads"]

PAUSE_S = 0.05
"""Before a flow begins: the caller, whose answer it follows, has the processor first."""

_IDLE_S = 60.0


class _Closing(BaseException):
    """Ends a flow; no error, so that none takes it for one."""


class Threads:
    """Flows beside calls of threads."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._wake = threading.Condition()
        self._waiting = 0
        self._given: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()

    def start(self, run: Callable[[], object], ended: Callable[[], object]) -> None:
        """Have ``run`` called a moment later, and then ``ended``, or only that where there is no thread to be had."""
        flow = run, ended
        with self._wake:
            self._given.append(flow)
            if self._waiting >= len(self._given):
                self._wake.notify()
                return
        try:
            threading.Thread(target=self._work, name="llm-proxy-beside", daemon=True).start()
        except RuntimeError:
            with self._wake:
                if flow not in self._given:  # another thread has it
                    return
                self._given.remove(flow)
            ended()

    def fetch(self, effect: Fetch, send: Callable[[Outgoing], Head]) -> Fetched:
        """Send a request and read its answer on this thread."""
        deadline_s = time.monotonic() + effect.limit_s
        head = send(effect.outgoing)
        body = b""
        try:
            for chunk in head.body:
                body += chunk
                self._go_on_until(deadline_s)
                if len(body) > effect.limit_bytes:
                    break
        finally:
            close = getattr(head.body, "close", None)
            if close is not None:
                close()
        self._go_on_until(deadline_s)
        return Fetched(head.status, head.headers, body)

    def close(self) -> None:
        """Begin no more, and end what reads an answer once its next piece is there."""
        self._closing.set()
        with self._wake:
            self._wake.notify_all()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._waiting += 1
                self._wake.wait_for(lambda: self._given or self._closing.is_set(), _IDLE_S)
                self._waiting -= 1
                if not self._given:
                    return
                run, ended = self._given.popleft()
            try:
                with suppress(_Closing):
                    if not self._closing.wait(PAUSE_S):
                        run()
            finally:
                ended()
            del run, ended  # what they hold is not kept while there is nothing to do

    def _go_on_until(self, deadline_s: float) -> None:
        if self._closing.is_set():
            raise _Closing
        if time.monotonic() > deadline_s:
            raise Late


class Tasks:
    """Flows beside calls of tasks; under trio there are none."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self, run: Callable[[], Coroutine[Any, Any, object]], ended: Callable[[], object]) -> None:
        """Have ``run`` awaited a moment later, and then ``ended`` called, or only that where it can't be."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or self._is_closed:
            ended()
            return

        async def go() -> None:
            await asyncio.sleep(PAUSE_S)
            await run()

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ended()

        task = loop.create_task(go())
        self._tasks.add(task)
        task.add_done_callback(over)

    async def fetch(self, effect: Fetch, send: Callable[[Outgoing], Awaitable[Head]]) -> Fetched:
        """Send a request and read its answer in this task."""
        with anyio.move_on_after(effect.limit_s):
            head = await send(effect.outgoing)
            body = b""
            try:
                async for chunk in head.body:
                    body += chunk
                    if len(body) > effect.limit_bytes:
                        break
            finally:
                aclose = getattr(head.body, "aclose", None)
                if aclose is not None:
                    with anyio.CancelScope(shield=True):
                        await aclose()
            return Fetched(head.status, head.headers, body)
        raise Late

    def close(self) -> None:
        """Begin no more, and cancel what is under way; from any thread."""
        self._is_closed = True
        for task in list(self._tasks):
            with suppress(RuntimeError):  # its loop is closed, perhaps just now: the task is over
                task.get_loop().call_soon_threadsafe(task.cancel)
