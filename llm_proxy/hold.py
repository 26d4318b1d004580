"""Holds an answer back: reads it for the engine, and gives its bytes again to whoever is to have them."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from .engine.effects import Held, Hold, Late, Read
from .types import Outgoing

if TYPE_CHECKING:
    from .types import Head

__all__ = ["held", "held_async", "read", "read_async"]


def held(effect: Hold, send: Callable[[Outgoing], Head]) -> Held:
    """Perform `Hold` on this thread."""
    began_s = time.monotonic()
    head = send(effect.outgoing)
    pieces = _Pieces(effect, head, began_s)
    is_whole = False
    try:
        body: Iterator[bytes] = iter(head.body)
        while not (is_whole or pieces.are_enough):
            piece = next(body, None)
            is_whole = piece is None
            pieces.add(piece)
    except BaseException:
        _close(head.body)
        raise
    if is_whole or head.status != 200 or not effect.keeps_rest:
        _close(head.body)
        body = iter(())
    return Held(replace(head, body=_Again(pieces.all, body, head.body)), b"".join(pieces.all), is_whole)


async def held_async(effect: Hold, send: Callable[[Outgoing], Awaitable[Head]]) -> Held:
    """Perform `Hold` in this task."""
    with anyio.move_on_after(None if effect.wait_s == math.inf else effect.wait_s):
        return await _held_async(effect, send)
    raise Late


async def _held_async(effect: Hold, send: Callable[[Outgoing], Awaitable[Head]]) -> Held:
    began_s = time.monotonic()
    head = await send(effect.outgoing)
    rest: AsyncIterator[bytes] = aiter(head.body)
    pieces = _Pieces(effect, head, began_s)
    is_whole = False
    try:
        while not (is_whole or pieces.are_enough):
            piece = await anext(rest, None)
            is_whole = piece is None
            pieces.add(piece)
    except BaseException:
        await _aclose(head.body)
        raise
    if is_whole or head.status != 200 or not effect.keeps_rest:
        await _aclose(rest)
        await _aclose(head.body)
        return Held(replace(head, body=_AgainAsync(pieces.all, None, head.body)), b"".join(pieces.all), is_whole)
    return Held(replace(head, body=_AgainAsync(pieces.all, rest, head.body)), b"".join(pieces.all), is_whole)


def read(effect: Read) -> Held:
    """Perform `Read` on this thread."""
    return held(_as_hold(effect), lambda _: effect.head)


async def read_async(effect: Read) -> Held:
    """Perform `Read` in this task."""

    async def begun(_: Outgoing) -> Head:
        return effect.head

    return await held_async(_as_hold(effect), begun)


def _as_hold(effect: Read) -> Hold:
    return Hold(_SENT, effect.limit_bytes, effect.limit_s, effect.keeps_rest)


_SENT = Outgoing("", (), b"")


class _Pieces:
    """What came of a body, and whether that is enough."""

    def __init__(self, effect: Hold, head: Head, began_s: float) -> None:
        self.all: list[bytes] = []
        self._size, self._limit_bytes = 0, effect.limit_bytes
        self._until_s = began_s + (effect.limit_s if head.status == 200 else math.inf)
        self._late_s = began_s + effect.wait_s

    def add(self, piece: bytes | None) -> None:
        if piece is not None:
            self.all.append(piece)
            self._size += len(piece)

    @property
    def are_enough(self) -> bool:
        """Raises `Late` where they are not and nobody waits any longer."""
        now_s = time.monotonic()
        if self.all and (now_s > self._until_s or self._size > self._limit_bytes):
            return True
        if now_s > self._late_s:
            raise Late
        return False


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
        # An iterator that is running can't be closed. One that is its own source, as an answer is that was read in part
        # before, is closed once: twice at each of the readings would be two to the power of their number.
        if not self._is_pulling and self._rest is not self._source:
            await _aclose(self._rest)
        await _aclose(self._source)


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def _aclose(source: Any) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        with anyio.CancelScope(shield=True):
            await aclose()
