"""Drives flows: `Driver` calls, `AsyncDriver` awaits. With `llm_proxy.pull` the only place where the two differ.

Sync callers share answers between threads, async callers within one event loop; the two never wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from .beside import Tasks, Threads
from .boarding import Flights
from .engine.effects import (
    Aside,
    Await,
    Background,
    Board,
    Compute,
    Effect,
    Fetch,
    Flow,
    Forward,
    Hold,
    Late,
    Launch,
    Mend,
    Pause,
    Race,
    Read,
    Stand,
    Upstream,
    forward,
)
from .engine.flights import Flight
from .engine.ports import Live, Ready
from .forking import working
from .handover import Handover, in_thread
from .hold import held, held_async, read, read_async
from .mend import Mended, MendedAsync
from .metered import metered, metered_async
from .pull import AsyncFlight, AsyncReader, Interrupted, Reader, SharedFlight, SyncFlight
from .race import raced, raced_async
from .standing import stood, stood_async
from .types import Head, Outcome, Outgoing
from .values import value

if TYPE_CHECKING:
    from .engine.ports import Answer
    from .types import HeaderList

__all__ = ["AsyncDriver", "Driver", "Served"]

T = TypeVar("T")
Send = Callable[[Outgoing], Head]
AsyncSend = Callable[[Outgoing], Awaitable[Head]]
Later = Callable[[Callable[[], Any]], object]
Broken = Callable[[str], Exception]


@value
class Served:
    """An answer as a face hands it on.

    Attributes:
        status: HTTP status code.
        headers: All response headers, names in lower case.
        body: The whole body, or what of it is there when ``rest`` follows.
        rest: The body still to come, an iterator (sync) or async iterator of bytes; None when ``body`` is all.
        close: To be called (sync) or awaited (async) when ``rest`` will not be read any further; safe to repeat.
        outcome: What was done.
        extensions: What the face's HTTP library attached to the upstream's response.
    """

    status: int
    headers: HeaderList
    outcome: Outcome
    body: bytes = b""
    rest: Any = None
    close: Callable[[], Any] | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)


class Driver:
    """Drives flows on the calling thread.

    Args:
        flights: Table of the answers under way.
        pool: Where work with a time limit is done.
        background: Has a function called some time soon; must not raise. In the pool by default.
    """

    def __init__(self, flights: Flights, pool: Callable[[], Executor], background: Later | None = None) -> None:
        self._flights, self._pool = flights, pool
        self._background = background or (lambda call: pool().submit(call))
        self._beside = Threads()

    def close(self) -> None:
        """Have what goes on beside calls stop with its next step, and begin nothing more of the kind."""
        self._beside.close()

    def run(self, flow: Flow[T], send: Send | None = None) -> T:
        """The flow's result; ``send`` forwards requests and raises what its HTTP library raises."""
        try:
            with working:
                effect = next(flow)
            while True:
                try:
                    result = self._perform(effect, send)
                except BaseException as exc:  # noqa: BLE001 - every outcome belongs to the flow
                    with working:
                        effect = flow.throw(exc)
                else:
                    with working:
                        effect = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    def serve(self, flow: Flow[Answer], send: Send, broken: Broken = Interrupted) -> Served:
        """Drive `Engine.answer` and give what a face can hand on; a plain answer is read to its end first.

        Args:
            flow: The call.
            send: Forwards requests and raises what its HTTP library raises.
            broken: Makes, of a message, the error of an answer that broke off because the caller who read it was
                interrupted: the HTTP library's own, where the face's callers know that one.
        """
        answer = self.run(flow, send)
        if isinstance(answer, Ready):
            return _ready(answer)
        if answer.flight is None or answer.seat is None:
            return _live(answer, rest=answer.head.body, close=getattr(answer.head.body, "close", None))
        flight = _sync(answer.flight)
        reader = Reader(flight, answer.seat, broken)
        if _comes_in_pieces(answer.head, flight):
            return _live(answer, rest=reader, close=reader.close)
        body = b"".join(_until_overflow(flight, reader))
        return _live(answer, body, None if reader.is_closed else reader, reader.close)

    def _computed(self, effect: Compute) -> Any:
        if effect.limit_s is None or effect.is_quick:
            return _worked(effect.call)
        return _within(_in_turn(self._pool(), effect), effect.limit_s)

    def _perform(self, effect: Effect, send: Send | None) -> Any:
        match effect:
            case Compute():
                return self._computed(effect)
            case Background(call):
                return self._background(call)
            case Board(ticket, is_shareable):
                domain = "threads" if is_shareable else None
                run = partial(self.run, send=send)  # what settles an answer may ask on, beside the call
                return self._flights.board(domain, ticket, lambda on_over: SyncFlight(ticket, on_over, run))
            case Await(flight, to_the_end, wait_s):
                return _sync(flight).wait(wait_s, to_the_end=to_the_end)
            case Launch(outgoing, flight, opened, asking):
                ask = partial(self.run, asking or forward(outgoing), send)
                return _sync(flight).launch(ask, opened)
            case _:
                return self._ask(effect, send)

    def _ask(self, effect: Upstream, send: Send | None) -> Any:
        match effect:
            case Forward(outgoing):
                return metered(_given(send))(outgoing)
            case Hold():
                return held(effect, metered(_given(send)))
            case Read():
                return read(effect)
            case Pause(seconds):
                return time.sleep(seconds)
            case Mend(head, mending):
                return replace(head, body=Mended(head, mending, partial(self.run, send=send)))
            case Race():
                return raced(effect, partial(self.run, send=send))
            case Fetch():
                return self._beside.fetch(effect, metered(_given(send)))
            case Stand():
                return stood(effect)
            case Aside(flow, ended):
                return self._beside.start(partial(self.run, flow, send), ended)


class AsyncDriver:
    """Drives flows in the calling task; see `Driver`. Under trio, answers are not shared."""

    def __init__(self, flights: Flights, pool: Callable[[], Executor], background: Later | None = None) -> None:
        self._flights = flights
        self._background = background or (lambda call: pool().submit(call))
        self._beside, self._handover = Tasks(), Handover()

    def close(self) -> None:
        """Have what goes on beside calls cancelled, and begin nothing more of the kind; from any thread."""
        self._beside.close()
        self._handover.close()

    async def run(self, flow: Flow[T], send: AsyncSend | None = None) -> T:
        """The flow's result; see `Driver.run`."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = await self._perform(effect, send)
                except BaseException as exc:  # noqa: BLE001 - every outcome belongs to the flow
                    effect = flow.throw(exc)
                else:
                    effect = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    async def serve(self, flow: Flow[Answer], send: AsyncSend, broken: Broken = Interrupted) -> Served:
        """Drive `Engine.answer`; see `Driver.serve`."""
        answer = await self.run(flow, send)
        if isinstance(answer, Ready):
            return _ready(answer)
        if answer.flight is None or answer.seat is None:
            return _live(answer, rest=answer.head.body, close=getattr(answer.head.body, "aclose", None))
        flight = _async(answer.flight)
        reader = AsyncReader(flight, answer.seat, broken)
        if _comes_in_pieces(answer.head, flight):
            return _live(answer, rest=reader, close=reader.aclose)
        parts: list[bytes] = []
        async for chunk in reader:
            parts.append(chunk)
            if flight.is_overflowed:
                break
        return _live(answer, b"".join(parts), None if reader.is_closed else reader, reader.aclose)

    async def _computed(self, effect: Compute) -> Any:
        call = partial(_worked, effect.call)  # in a thread even if it is quick: nothing may hold up the event loop
        if effect.limit_s is None or _asyncio_loop() is None:
            return await in_thread(call, effect.limit_s, effect.turn_s)
        return await self._handover(call, effect.limit_s, effect.turn_s)

    async def _perform(self, effect: Effect, send: AsyncSend | None) -> Any:
        match effect:
            case Compute():
                return await self._computed(effect)
            case Background(call):
                return self._background(call)
            case Board(ticket, is_shareable):
                loop = _asyncio_loop() if is_shareable else None
                kind = AsyncFlight if loop is None else SharedFlight
                run = partial(self.run, send=send)  # what settles an answer may ask on, beside the call
                return self._flights.board(loop, ticket, lambda on_over: kind(ticket, on_over, run))
            case Await(flight, to_the_end, wait_s):
                return await _async(flight).wait(wait_s, to_the_end=to_the_end)
            case Launch(outgoing, flight, opened, asking):
                ask = partial(self.run, asking or forward(outgoing), send)
                return await _async(flight).launch(ask, opened)
            case _:
                return await self._ask(effect, send)

    async def _ask(self, effect: Upstream, send: AsyncSend | None) -> Any:
        match effect:
            case Forward(outgoing):
                return await metered_async(_given(send))(outgoing)
            case Hold():
                return await held_async(effect, metered_async(_given(send)))
            case Read():
                return await read_async(effect)
            case Pause(seconds):
                return await anyio.sleep(seconds)
            case Mend(head, mending):
                return replace(head, body=MendedAsync(head, mending, partial(self.run, send=send)))
            case Race():
                return await raced_async(effect, partial(self.run, send=send))
            case Fetch():
                return await self._beside.fetch(effect, metered_async(_given(send)))
            case Stand():
                return await stood_async(effect)
            case Aside(flow, ended):
                return self._beside.start(partial(self.run, flow, send), ended)


def _ready(answer: Ready) -> Served:
    return Served(answer.status, answer.headers, answer.outcome, answer.body)


def _live(answer: Live, body: bytes = b"", rest: Any = None, close: Callable[[], Any] | None = None) -> Served:
    head, outcome = answer.head, answer.outcome
    return Served(head.status, (*head.headers, *outcome.headers), outcome, body, rest, close, head.extensions)


def _comes_in_pieces(head: Head, flight: Flight) -> bool:
    """Whether the caller gets the body as it comes: whoever asks for a stream does, whatever the upstream calls it.

    So a broken body raises while it is iterated, where clients don't retry. Callers of one flight ask for one form.
    """
    return flight.ticket.request.is_stream or head.header("content-type").lower().startswith("text/event-stream")


def _until_overflow(flight: Flight, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        if flight.is_overflowed:
            return


def _worked(call: Callable[[], T]) -> T:
    with working:
        return call()


def _in_turn(pool: Executor, effect: Compute) -> Future[Any]:
    begun = Event()
    future = pool.submit(_begun, begun, effect.call)
    if effect.turn_s and not begun.wait(effect.turn_s) and future.cancel():
        raise Late(is_begun=False)
    return future


def _within(future: Future[Any], limit_s: float) -> Any:
    try:
        return future.result(limit_s)
    except TimeoutError as exc:
        if future.done():  # the result came at the last moment, or the error is the function's own
            return future.result()
        future.cancel()
        raise Late from exc


def _begun(begun: Event, call: Callable[[], T]) -> T:
    begun.set()
    return call()


def _given(send: T | None) -> T:
    if send is None:
        raise RuntimeError("this flow forwards a request, and no way to send one was given")
    return send


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running asyncio loop, or None under another async library."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _sync(flight: Flight) -> SyncFlight:
    return cast("SyncFlight", flight)  # `board` on this side makes no other


def _async(flight: Flight) -> AsyncFlight:
    return cast("AsyncFlight", flight)
