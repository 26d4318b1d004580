"""What the tests of the drivers share: an upstream of stand-ins, both drivers among them, and checks for leftovers."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from llm_proxy.boarding import Flights
from llm_proxy.drive import AsyncDriver, Driver, Served
from llm_proxy.types import ChatRequest, Head, Outgoing
from tests.fakes import Rig, body_of, completion, events_of, head

SSE = "text/event-stream"
PIECES = events_of("one ", "two ", "three")
PLAIN = [body_of(completion("one two three"))]
SLOW_S = 5.0  # a test that waits as long has failed


class Body:
    """An upstream's body: chunks and errors, each behind a gate where one is given; counts what is done to it."""

    def __init__(self, steps: list[Any], *, gate: threading.Semaphore | None = None) -> None:
        self.steps, self.gate = list(steps), gate
        self.pulls = self.closes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.pulls += 1
        if self.gate is not None:
            assert self.gate.acquire(timeout=SLOW_S)
        return self._step()

    def _step(self) -> bytes:
        if not self.steps:
            raise StopIteration
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        chunk: bytes = step
        return chunk

    def close(self) -> None:
        self.closes += 1


class Upstream:
    """Answers each request with the next of ``answers`` (the last for ever); an exception is raised instead."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Outgoing] = []
        self.open = threading.Event()
        self.open.set()
        self.meet: threading.Barrier | None = None
        self._lock = threading.Lock()

    def __call__(self, outgoing: Outgoing) -> Head:
        with self._lock:
            self.calls.append(outgoing)
            is_first = len(self.calls) == 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert self.open.wait(SLOW_S)
        if self.meet is not None and not is_first:
            self.meet.wait(SLOW_S)
        if isinstance(answer, BaseException):
            raise answer
        found: Head = answer() if callable(answer) else answer
        return found


def streamed(*steps: Any, gate: Any = None) -> Head:
    return head(Body(list(steps) or PIECES, gate=gate), content_type=SSE)


def plain(*steps: Any, gate: Any = None) -> Head:
    return head(Body(list(steps) or PLAIN, gate=gate))


def until(happens: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SLOW_S
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def aboard(flights: Flights) -> int:
    """How many callers have a seat."""
    return sum(len(flight._seats) for flight in list(flights._table.values()))


def rest_of(served: Served) -> bytes:
    return served.body + b"".join(served.rest or ())


class Sync:
    """The sync driver among stand-ins."""

    def __init__(self, upstream: Upstream, **options: Any) -> None:
        self.rig = Rig(**options)
        self.flights = Flights()
        self.upstream = upstream
        self.pool = ThreadPoolExecutor(4)
        self.driver = Driver(self.flights, lambda: self.pool)

    def serve(self, call: ChatRequest) -> Served:
        return self.driver.serve(self.rig.engine.answer(call), self.upstream)

    def read(self, call: ChatRequest) -> tuple[Served, bytes]:
        served = self.serve(call)
        return served, rest_of(served)


@contextmanager
def sync(*answers: Any, **options: Any) -> Iterator[Sync]:
    found = Sync(Upstream(*answers), **options)
    with found.pool:
        yield found
    gc.collect()
    assert len(found.flights) == 0


def nothing_is_left_running() -> Iterator[None]:
    """Fail a test that leaves a thread; to be made an autouse fixture."""

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio")}  # it keeps some

    def are_gone() -> bool:
        gc.collect()  # a driver that a thread held until now ends its own threads when it is collected
        return threads() <= before

    before = threads()
    yield
    until(are_gone)


class Together:
    """Several calls at once, in threads."""

    def __init__(self, *work: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(len(work))
        self.futures = [self._pool.submit(call) for call in work]

    def results(self) -> list[Any]:
        try:
            return [future.exception(SLOW_S) or future.result(SLOW_S) for future in self.futures]
        finally:
            self._pool.shutdown()


class AsyncBody(Body):
    """The same, asynchronous; ``hold`` is how many chunks it gives before it waits for ever."""

    def __init__(self, steps: list[Any], *, hold: int | None = None) -> None:
        super().__init__(steps)
        self.hold = hold
        self.cancels = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.pulls += 1
        try:
            if self.hold is not None and self.pulls > self.hold:
                await anyio.sleep(3600)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancels += 1
            raise
        try:
            return self._step()
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closes += 1


def astreamed(*steps: Any, hold: int | None = None) -> Head:
    return head(AsyncBody(list(steps) or PIECES, hold=hold), content_type=SSE)


def aplain(*steps: Any, hold: int | None = None) -> Head:
    return head(AsyncBody(list(steps) or PLAIN, hold=hold))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


class Async:
    """The async driver among stand-ins; its upstream waits for ``open`` before it answers."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        self.rig = Rig(**options)
        self.flights = Flights()
        self.upstream = Upstream(*answers)
        self.open = anyio.Event()
        self.open.set()
        self.cancelled_sends = 0
        self.driver = AsyncDriver(self.flights, ThreadPoolExecutor)

    async def _send(self, outgoing: Outgoing) -> Head:
        try:
            await self.open.wait()
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancelled_sends += 1
            raise
        return self.upstream(outgoing)

    def shut(self) -> None:
        self.open = anyio.Event()

    async def serve(self, call: ChatRequest) -> Served:
        return await self.driver.serve(self.rig.engine.answer(call), self._send)

    async def read(self, call: ChatRequest) -> tuple[Served, bytes]:
        served = await self.serve(call)
        return served, await self.rest(served)

    async def rest(self, served: Served) -> bytes:
        return served.body + b"".join([chunk async for chunk in served.rest] if served.rest is not None else [])

    def start(self, *calls: Awaitable[Any]) -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(call) for call in calls]


def own_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "SharedFlight" in repr(task) or "_aclose" in repr(task)}


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class OnALoop:
    """Tests on an asyncio loop, which leave no task of ours behind."""

    @pytest.fixture(autouse=True)
    async def _no_task_is_left(self) -> AsyncIterator[None]:
        problems: list[Any] = []
        loop = asyncio.get_running_loop()
        had = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        yield
        gc.collect()
        await turns()
        loop.set_exception_handler(had)
        assert own_tasks() == set()
        assert problems == []
