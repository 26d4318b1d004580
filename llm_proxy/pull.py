"""Who reads the next chunk of a shared answer from the upstream: a thread that needs it, or a task for all readers.

- `SyncFlight`: threads. The thread that needs the next chunk first reads it; the others wait on a condition.
- `AsyncFlight`: one caller, which reads in its own task, under any async library.
- `SharedFlight`: the tasks of one asyncio loop. A task of the flight sends the request and reads the body, one chunk
  each time a reader waits. So a reader can be cancelled without harm to the others, and one task reads the body from
  start to end, which cancel scopes inside the body rely on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import anyio

from .engine.effects import Flow
from .engine.flights import Flight, Seat, Ticket
from .errors import Interrupted

if TYPE_CHECKING:
    from .types import Head

__all__ = ["AsyncFlight", "AsyncReader", "Interrupted", "Reader", "SharedFlight", "SyncFlight"]

Run = Callable[[Flow[None]], None]
AsyncRun = Callable[[Flow[None]], Coroutine[Any, Any, None]]
Opened = Callable[["Head"], None]
OnOver = Callable[[Flight], None]
Broken = Callable[[str], Exception]


class SyncFlight(Flight):
    """A flight shared by threads."""

    def __init__(self, ticket: Ticket, on_over: OnOver, run: Run) -> None:
        self._condition = threading.Condition()
        super().__init__(ticket, lock=self._condition, on_over=on_over)
        self._run = run
        self._is_pulling = False
        self._body: Iterator[bytes] | None = None

    def launch(self, send: Callable[[], Head], opened: Opened) -> Head:
        """Send the request on this thread; an exception fails the flight."""
        try:
            head = send()
            opened(head)
        except BaseException:
            self.fail()
            raise
        return head

    def wait(self, wait_s: float | None, *, to_the_end: bool) -> None:
        """Wait until the flight is open or over, or, ``to_the_end``, until it is settled, over or overflowed."""
        with self._condition:
            self._condition.wait_for(lambda: self.state != "pending", wait_s)
        while to_the_end and self.state == "open" and self.entry is None and not self.is_overflowed:
            self._pull_or_wait(None)

    def read(self, seat: Seat) -> bytes | None:
        """The seat's next chunk, pulled or waited for; None at the end of the body."""
        while True:
            is_over = self.is_over  # read before the chunk: another thread may add the last one and the end
            chunk = self.next_chunk(seat)
            if chunk is not None:
                return chunk
            if is_over:
                if self.error is not None:
                    raise self.error
                return None
            self._pull_or_wait(seat)

    def _pull_or_wait(self, seat: Seat | None) -> None:
        def is_served() -> bool:
            return self.is_over or (self.is_overflowed if seat is None else self.has_chunk(seat))

        with self._condition:
            self._condition.wait_for(lambda: not self._is_pulling or is_served())
            if self._is_pulling or is_served():
                return
            self._is_pulling = True
        try:
            self._pull()
        finally:
            with self._condition:
                self._is_pulling = False
                self._condition.notify_all()

    def _pull(self) -> None:
        try:
            if self._body is None:
                self._body = iter(cast("Head", self.head).body)  # an open flight has one
            chunk = next(self._body, None)
        except Exception as exc:  # noqa: BLE001 - handed to every reader
            self._break_off(exc)
            return
        except BaseException:
            self._break_off(Interrupted(_INTERRUPTED))
            raise
        try:
            self._record(chunk)
        finally:  # an interrupt while the answer is stored ends this caller, and must not cost the others a chunk
            if chunk is not None:
                self.take_in(chunk)
            else:
                self.ticket.lost(self.ticket, "incomplete")
                self.finish()
                self._close()

    def _record(self, chunk: bytes | None) -> None:
        ticket, recorder = self.ticket, self.ticket.recorder
        if recorder is not None and (recorder.end() if chunk is None else recorder.feed(chunk)):
            try:
                self._run(ticket.settle(ticket))
            finally:
                self.land()

    def _break_off(self, error: Exception) -> None:
        self.ticket.lost(self.ticket, type(error).__name__)
        self.finish(error)
        self._close()

    def _close(self) -> None:
        # The body itself, not the iterator over it: on an abort another thread may be inside the iterator.
        close = getattr(self.head.body if self.head else None, "close", None)
        if close is not None:
            close()

    def _changed(self) -> None:
        with self._condition:
            self._condition.notify_all()

    _abort = _close


class Reader:
    """The bytes of a flight as one caller gets them; to be closed when it will not be read to its end.

    Args:
        flight: The shared answer.
        seat: The caller's.
        broken: Makes, of a message, what is raised instead of `Interrupted`.
    """

    def __init__(self, flight: SyncFlight, seat: Seat, broken: Broken = Interrupted) -> None:
        self._flight, self._seat, self._broken = flight, seat, broken
        self.is_closed = False
        """Whether nothing more will come from here."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = None if self.is_closed else self._flight.read(self._seat)
        except Interrupted as exc:
            self.close()
            raise self._broken(str(exc)) from exc
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Leave the flight; safe to repeat."""
        self.is_closed = True
        self._flight.leave(self._seat)


class AsyncFlight(Flight):
    """A flight of one caller, who does everything in its own task."""

    def __init__(self, ticket: Ticket, on_over: OnOver, run: AsyncRun) -> None:
        super().__init__(ticket, lock=nullcontext(), on_over=on_over)
        self._run = run
        self._body: AsyncIterator[bytes] | None = None
        self._is_pulling = self._is_closed = False

    async def launch(self, send: Callable[[], Awaitable[Head]], opened: Opened) -> Head:
        """Send the request; an exception fails the flight."""
        try:
            head = await send()
            opened(head)
        except BaseException:
            self.fail()
            raise
        return head

    async def wait(self, wait_s: float | None, *, to_the_end: bool) -> None:
        """Return at once: nobody else leads this flight. See `SyncFlight.wait`."""

    async def read(self, seat: Seat) -> bytes | None:
        """The seat's next chunk; None at the end of the body."""
        while True:
            is_over = self.is_over
            chunk = self.next_chunk(seat)
            if chunk is not None:
                return chunk
            if is_over:
                if self.error is not None:
                    raise self.error
                return None
            await self._advance()

    async def release(self, seat: Seat) -> None:
        """Leave; the last one waits until the upstream call is cancelled and its body closed."""
        self.leave(seat)
        if self.is_left:
            with anyio.CancelScope(shield=True):
                await self._see_off()

    def drop(self, seat: Seat) -> None:
        """Do nothing for a reader that the garbage collector found, since nothing can be awaited there."""

    async def _advance(self) -> None:
        await self._pull()

    async def _see_off(self) -> None:
        await self._close()

    async def _pull(self) -> None:
        ticket, recorder = self.ticket, self.ticket.recorder
        try:
            chunk = await self._next()
        except Exception as exc:  # noqa: BLE001 - handed to every reader
            ticket.lost(ticket, type(exc).__name__)
            self.finish(exc)
            await self._close()
            return
        if recorder is not None and (recorder.end() if chunk is None else recorder.feed(chunk)):
            await self._run(ticket.settle(ticket))
            self.land()
        if chunk is not None:
            self.take_in(chunk)
        else:
            ticket.lost(ticket, "incomplete")
            self.finish()
            await self._close()

    async def _next(self) -> bytes | None:
        if self._body is None:
            self._body = aiter(cast("Head", self.head).body)  # an open flight has one
        self._is_pulling = True
        try:
            return await anext(self._body, None)
        finally:
            self._is_pulling = False

    async def _close(self) -> None:
        if self._is_closed or self.head is None:
            return
        self._is_closed = True
        if not self._is_pulling and self._body is not self.head.body:  # an iterator that is running can't be closed
            await _aclose(self._body)
        await _aclose(self.head.body)


class SharedFlight(AsyncFlight):
    """A flight shared by the tasks of one asyncio loop, with a task of its own."""

    def __init__(self, ticket: Ticket, on_over: OnOver, run: AsyncRun) -> None:
        super().__init__(ticket, on_over, run)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Head] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._idle: asyncio.Future[None] | None = None

    async def launch(self, send: Callable[[], Awaitable[Head]], opened: Opened) -> Head:
        """Send the request in the flight's task; an exception fails the flight."""
        self._task = task = self._loop.create_task(self._fly(send, opened))
        task.add_done_callback(self._ended)
        try:
            while self.state == "pending":
                await self._change()
            return self.head if self.head is not None else await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._discard)
            raise

    async def wait(self, wait_s: float | None, *, to_the_end: bool) -> None:
        """Wait until the flight is open or over, or, ``to_the_end``, until it is settled, over or overflowed."""
        with anyio.move_on_after(wait_s):
            while self.state == "pending":
                await self._change()
        while to_the_end and self.state == "open" and self.entry is None and not self.is_overflowed:
            await self._change()

    def drop(self, seat: Seat) -> None:
        """Leave for a reader that the garbage collector found, in the loop: the collector may run anywhere."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.leave, seat)

    async def _fly(self, send: Callable[[], Awaitable[Head]], opened: Opened) -> Head:
        head = await super().launch(send, opened)
        try:
            while self.state == "open":
                self._idle = self._loop.create_future()
                await self._idle
                await self._pull()
            if self.head is not None and not self._is_closed:
                # The last caller left in the very turn in which a chunk came: its cancellation has yet to arrive.
                await asyncio.sleep(0)
                await self._close()
        except (Exception, asyncio.CancelledError):  # not on GeneratorExit: a collected coroutine can't await
            await self._close()
            raise
        return head

    async def _change(self) -> None:
        """Ask for the next chunk, and wait until anything changes."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        await waiter

    _advance = _change

    async def _see_off(self) -> None:
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=_SEE_OFF_S)

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done() and not self._loop.is_closed():
                waiter.set_result(None)

    def _abort(self) -> None:
        # The garbage collector may end the last caller in any thread, also after the loop was closed.
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _ended(self, task: asyncio.Task[Head]) -> None:
        """Wake all who wait, whatever ended the task."""
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not log it: the callers got it
        if self.state == "open":
            self.ticket.lost(self.ticket, "cancelled")
            self.finish(Interrupted(_INTERRUPTED))
        self.fail()

    def _discard(self, task: asyncio.Task[Head]) -> None:
        """Close the body when the caller has left and nobody shares the answer."""
        if not task.cancelled() and task.exception() is None and self.head is None:
            closing = self._loop.create_task(_aclose(task.result().body))
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)


class AsyncReader:
    """The bytes of a flight as one caller gets them; see `Reader`."""

    def __init__(self, flight: AsyncFlight, seat: Seat, broken: Broken = Interrupted) -> None:
        self._flight, self._seat, self._broken = flight, seat, broken
        self.is_closed = False
        """Whether nothing more will come from here."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = None if self.is_closed else await self._flight.read(self._seat)
        except Interrupted as exc:
            await self.aclose()
            raise self._broken(str(exc)) from exc
        except BaseException:
            await self.aclose()
            raise
        if chunk is None:
            await self.aclose()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Leave the flight; safe to repeat."""
        self.is_closed = True
        await self._flight.release(self._seat)

    def __del__(self) -> None:
        if not self.is_closed:
            self._flight.drop(self._seat)


_SEE_OFF_S = 5.0
_INTERRUPTED = "the caller or task that read this shared answer was interrupted"
_closing: set[asyncio.Task[None]] = set()


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
