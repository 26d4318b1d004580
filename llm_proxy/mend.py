"""Bodies that go on where they break off: the bytes of one answer, then those of the request for its rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio

from .errors import Interrupted

if TYPE_CHECKING:
    from .engine.effects import Flow, Mending
    from .types import Head

__all__ = ["Mended", "MendedAsync"]


class Mended:
    """A body that is read by one thread at a time, and may be closed by another.

    One that ends too early and has gone on before raises `Interrupted` where nobody goes on any more, since its parts
    would pass for a whole; one that never went on ends as it came.

    Args:
        head: The answer that has begun.
        mending: Says what is handed on, and asks for the rest.
        run: Drives a flow that sends requests.
    """

    def __init__(self, head: Head, mending: Mending, run: Callable[[Flow[Head | None]], Head | None]) -> None:
        self._source, self._mending, self._run = head.body, mending, run
        self._pieces: Iterator[bytes] | None = None
        self._is_over = self._is_closed = self._has_gone_on = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._is_over:
            passed = self._passed()
            if passed:
                return passed
        raise StopIteration

    def close(self) -> None:
        """Close the answer that is read; safe to repeat."""
        self._is_closed = self._is_over = True
        self._mending.left()
        _close(self._source)

    def _passed(self) -> bytes:
        """The next bytes to hand on; empty where there are none yet."""
        if self._mending.is_broken:
            return self._go_on(None)
        if self._pieces is None:
            self._pieces = iter(self._source)
        try:
            piece = next(self._pieces, None)
        except Exception as exc:  # noqa: BLE001 - of any HTTP library: the answer broke off
            return self._go_on(exc)
        if piece is not None:
            return self._mending.passed(piece)
        last = self._mending.ended()
        if last is None:
            return self._go_on(None)
        self._is_over = True
        return last

    def _go_on(self, error: Exception | None) -> bytes:
        _close(self._source)
        try:
            head = None if self._is_closed else self._run(self._mending.going_on(error))
        except BaseException:
            self._mending.left()
            raise
        if head is None:
            self._is_over = True
            self._mending.left()
            if error is not None:
                raise error
            if self._has_gone_on and not self._is_closed:
                raise Interrupted(_LEFT_OFF)
            return self._mending.kept()
        self._source, self._pieces, self._has_gone_on = head.body, None, True
        if self._is_closed:  # by another thread, meanwhile
            self.close()
        return b""


class MendedAsync:
    """The same for async callers; see `Mended`."""

    def __init__(
        self, head: Head, mending: Mending, run: Callable[[Flow[Head | None]], Awaitable[Head | None]]
    ) -> None:
        self._source, self._mending, self._run = head.body, mending, run
        self._pieces: AsyncIterator[bytes] | None = None
        self._is_over = self._is_pulling = self._has_gone_on = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            passed = await self._passed()
            if passed:
                return passed
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the answer that is read; safe to repeat."""
        self._is_over = True
        self._mending.left()
        if self._pieces is not self._source and not self._is_pulling:  # an iterator that is running can't be closed
            await _aclose(self._pieces)
        await _aclose(self._source)

    async def _passed(self) -> bytes:
        """The next bytes to hand on; empty where there are none yet."""
        if self._mending.is_broken:
            return await self._go_on(None)
        if self._pieces is None:
            self._pieces = aiter(self._source)
        self._is_pulling = True
        try:
            piece = await anext(self._pieces, None)
        except Exception as exc:  # noqa: BLE001 - of any HTTP library: the answer broke off
            self._is_pulling = False
            return await self._go_on(exc)
        finally:
            self._is_pulling = False
        if piece is not None:
            return self._mending.passed(piece)
        last = self._mending.ended()
        if last is None:
            return await self._go_on(None)
        self._is_over = True
        return last

    async def _go_on(self, error: Exception | None) -> bytes:
        await _aclose(self._source)
        try:
            head = await self._run(self._mending.going_on(error))
        except BaseException:
            self._mending.left()
            raise
        if head is None:
            self._is_over = True
            self._mending.left()
            if error is not None:
                raise error
            if self._has_gone_on:
                raise Interrupted(_LEFT_OFF)
            return self._mending.kept()
        self._source, self._pieces, self._has_gone_on = head.body, None, True
        return b""


_LEFT_OFF = "the answer broke off again, and nobody could go on with it"


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        with anyio.CancelScope(shield=True):
            await aclose()
