"""Tells a request's permit what becomes of it: wraps whatever sends requests, for those that have one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .types import Head, Outgoing, Permit

__all__ = ["metered", "metered_async"]


def metered(send: Callable[[Outgoing], Head]) -> Callable[[Outgoing], Head]:
    """The same as ``send``, which runs on this thread, with bodies that tell the permit how they end."""

    def sending(outgoing: Outgoing) -> Head:
        permit = outgoing.permit
        if permit is None:
            return send(outgoing)
        try:
            head = send(outgoing)
        except BaseException as exc:
            permit.dropped(exc)
            raise
        permit.opened(head)
        return replace(head, body=_Metered(head.body, permit))

    return sending


def metered_async(send: Callable[[Outgoing], Awaitable[Head]]) -> Callable[[Outgoing], Awaitable[Head]]:
    """The same as ``send``, which runs in this task; see `metered`."""

    async def sending(outgoing: Outgoing) -> Head:
        permit = outgoing.permit
        if permit is None:
            return await send(outgoing)
        try:
            head = await send(outgoing)
        except BaseException as exc:
            permit.dropped(exc)
            raise
        permit.opened(head)
        return replace(head, body=_MeteredAsync(head.body, permit))

    return sending


class _Metered:
    def __init__(self, source: Any, permit: Permit) -> None:
        self._source, self._permit = source, permit
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            self._pieces = self._pieces or iter(self._source)
            piece = next(self._pieces)
        except StopIteration:
            self._permit.ended()
            raise
        except BaseException:
            self._permit.dropped()
            raise
        self._permit.passed(piece)
        return piece

    def __del__(self) -> None:
        self._permit.dropped()

    def close(self) -> None:
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        finally:
            self._permit.dropped()


class _MeteredAsync:
    def __init__(self, source: Any, permit: Permit) -> None:
        self._source, self._permit = source, permit
        self._pieces: AsyncIterator[bytes] | None = None
        self._is_pulling = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._is_pulling = True
        try:
            self._pieces = self._pieces or aiter(self._source)
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._permit.ended()
            raise
        except BaseException:
            self._permit.dropped()
            raise
        finally:
            self._is_pulling = False
        self._permit.passed(piece)
        return piece

    def __del__(self) -> None:
        self._permit.dropped()

    async def aclose(self) -> None:
        try:
            if not self._is_pulling and self._pieces is not self._source:  # one that is running can't be closed
                await _aclose(self._pieces)
            await _aclose(self._source)
        finally:
            self._permit.dropped()


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
