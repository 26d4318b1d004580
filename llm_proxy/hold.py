"""Holds an answer back: reads it for the engine, and gives its bytes again to whoever is to have them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from .engine.effects import Held, Hold

if TYPE_CHECKING:
    from .types import Head, Outgoing

__all__ = ["held", "held_async"]


def held(effect: Hold, send: Callable[[Outgoing], Head]) -> Held:
    """Perform `Hold` on this thread."""
    until_s = time.monotonic() + effect.limit_s
    head = send(effect.outgoing)
    body: Iterator[bytes] = iter(head.body)
    pieces: list[bytes] = []
    is_whole = False
    try:
        while not (is_whole or _is_enough(pieces, effect, until_s)):
            piece = next(body, None)
            is_whole = piece is None
            pieces += [] if piece is None else [piece]
    except BaseException:
        _close(head.body)
        raise
    if is_whole or head.status != 200 or not effect.keeps_rest:
        _close(head.body)
        body = iter(())
    return Held(replace(head, body=_Again(pieces, body, head.body)), b"".join(pieces), is_whole)


async def held_async(effect: Hold, send: Callable[[Outgoing], Awaitable[Head]]) -> Held:
    """Perform `Hold` in this task."""
    until_s = time.monotonic() + effect.limit_s
    head = await send(effect.outgoing)
    rest: AsyncIterator[bytes] = aiter(head.body)
    pieces: list[bytes] = []
    is_whole = False
    try:
        while not (is_whole or _is_enough(pieces, effect, until_s)):
            piece = await anext(rest, None)
            is_whole = piece is None
            pieces += [] if piece is None else [piece]
    except BaseException:
        await _aclose(head.body)
        raise
    if is_whole or head.status != 200 or not effect.keeps_rest:
        await _aclose(rest)
        await _aclose(head.body)
        return Held(replace(head, body=_AgainAsync(pieces, None, head.body)), b"".join(pieces), is_whole)
    return Held(replace(head, body=_AgainAsync(pieces, rest, head.body)), b"".join(pieces), is_whole)


class _Again:
    """The pieces of a body that were read, then the others."""

    def __init__(self, pieces: list[bytes], rest: Iterator[bytes], source: object) -> None:
        self._pieces, self._rest, self._source = iter(pieces), rest, source

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces, None)
        return next(self._rest) if piece is None else piece

    def close(self) -> None:
        _close(self._source)


class _AgainAsync:
    """The pieces of a body that were read, then the others."""

    def __init__(self, pieces: list[bytes], rest: AsyncIterator[bytes] | None, source: object) -> None:
        self._pieces, self._rest, self._source = iter(pieces), rest, source
        self._is_pulling = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is not None:
            return piece
        if self._rest is None:
            raise StopAsyncIteration
        self._is_pulling = True
        try:
            return await anext(self._rest)
        finally:
            self._is_pulling = False

    async def aclose(self) -> None:
        if not self._is_pulling:  # an iterator that is running can't be closed
            await _aclose(self._rest)
        await _aclose(self._source)


def _is_enough(pieces: list[bytes], effect: Hold, until_s: float) -> bool:
    return bool(pieces) and (time.monotonic() > until_s or sum(map(len, pieces)) > effect.limit_bytes)


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        with anyio.CancelScope(shield=True):
            await aclose()
