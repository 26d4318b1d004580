"""Bodies that go on where they break off: what is handed on, and what is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from llm_proxy.mend import Mended, MendedAsync
from llm_proxy.pull import Interrupted
from llm_proxy.types import Head

pytestmark = pytest.mark.anyio


class Body:
    """Pieces, then an error where one is given; counts how often it is closed."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error, self.closed = pieces, error, 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Mending:
    """Passes all on, in upper case; a body is whole that ends with a full stop."""

    def __init__(self, *rests: Body) -> None:
        self.rests, self.last, self.errors = list(rests), b"", []
        self.is_left = False

    @property
    def is_broken(self) -> bool:
        return self.last == b"!"

    def passed(self, piece: bytes) -> bytes:
        self.last = piece
        return b"" if piece in (b"!", b"-") else piece.upper()

    def ended(self) -> bytes | None:
        return b"(end)" if self.last.endswith(b".") else None

    def kept(self) -> bytes:
        return b"(kept)"

    def left(self) -> None:
        self.is_left = True

    def going_on(self, error: Exception | None) -> Any:
        self.errors.append(error)
        self.last = b""
        return Head(200, (), self.rests.pop(0)) if self.rests else None


async def read(kind: str, body: Any, mending: Mending) -> tuple[bytes, Any]:
    """All that comes, and the body that was read; raises what it raises."""
    head, out = Head(200, (), body), b""
    if kind == "sync":
        made = Mended(head, mending, lambda flow: flow)  # type: ignore[arg-type,return-value]
        for piece in made:
            out += piece
        made.close()
        return out, made

    async def run(flow: Any) -> Any:
        return flow

    made_async = MendedAsync(head, mending, run)
    async for piece in made_async:
        out += piece
    await made_async.aclose()
    return out, made_async


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_whole_body(kind: str) -> None:
    body, mending = Body(b"a", b"-", b"b."), Mending()
    assert (await read(kind, body, mending))[0] == b"AB.(end)"
    assert (body.closed, mending.errors) == (1, [])


async def test_one_that_breaks_off_and_goes_on(kind: str) -> None:
    error = OSError("reset")
    body, second, third = Body(b"a", error=error), Body(b"b"), Body(b"c.")
    mending = Mending(second, third)
    assert (await read(kind, body, mending))[0] == b"ABC.(end)"
    assert mending.errors == [error, None]
    assert (body.closed, second.closed) == (1, 1)


async def test_an_error_in_the_place_of_the_rest(kind: str) -> None:
    body, mending = Body(b"a", b"!", b"never"), Mending(Body(b"b."))
    assert (await read(kind, body, mending))[0] == b"AB.(end)"
    assert body.closed == 1


async def test_nobody_goes_on_after_an_error(kind: str) -> None:
    body = Body(b"a", error=OSError("reset"))
    with pytest.raises(OSError, match="reset"):
        await read(kind, body, Mending())
    assert body.closed == 1


@pytest.mark.parametrize(
    "body", [Body(b"a."), Body(b"a"), Body(b"a", error=OSError("reset"))], ids=["whole", "early", "broken"]
)
async def test_it_is_told_when_nobody_reads_on(kind: str, body: Body) -> None:
    mending = Mending()
    with suppress(OSError):
        await read(kind, body, mending)
    assert mending.is_left


async def test_it_is_told_when_nobody_can_be_asked_for_the_rest(kind: str) -> None:
    class Raising(Mending):
        def going_on(self, error: Exception | None) -> Any:
            raise Interrupted("no rest")

    mending = Raising()
    with pytest.raises(Interrupted, match="no rest"):
        await read(kind, Body(b"a"), mending)
    assert mending.is_left


async def test_nobody_goes_on_after_an_early_end(kind: str) -> None:
    assert (await read(kind, Body(b"a"), Mending()))[0] == b"A(kept)"


@pytest.mark.parametrize("piece", [b"b", b"!"])
async def test_what_has_gone_on_never_ends_as_if_it_were_whole(kind: str, piece: bytes) -> None:
    second = Body(piece)
    mending = Mending(second)
    with pytest.raises(Interrupted, match="broke off again"):
        await read(kind, Body(b"a"), mending)
    assert (mending.errors, second.closed) == ([None, None], 1)


async def test_a_body_without_anything_to_close(kind: str) -> None:
    class Bare:
        def __init__(self) -> None:
            self._pieces = iter([b"a."])

        def __iter__(self) -> Any:
            return self

        __aiter__ = __iter__

        def __next__(self) -> bytes:
            return next(self._pieces)

        async def __anext__(self) -> bytes:
            try:
                return next(self._pieces)
            except StopIteration:
                raise StopAsyncIteration from None

    assert (await read(kind, Bare(), Mending()))[0] == b"A.(end)"


def test_closed_while_the_rest_is_asked_for() -> None:
    body, rest = Body(b"a", error=OSError("reset")), Body(b"b.")

    def run(flow: Any) -> Any:
        made.close()  # another thread
        return flow

    made = Mended(Head(200, (), body), Mending(rest), run)
    assert next(made) == b"A"
    with pytest.raises(StopIteration):
        next(made)
    assert rest.closed == 1


def test_closed_while_it_is_read() -> None:
    """Closing breaks the read off, in the other thread: nobody is asked for the rest."""
    mending = Mending(Body(b"b."))
    made = Mended(Head(200, (), Body(b"a", error=OSError("closed"))), mending, lambda flow: flow)  # type: ignore[arg-type,return-value]
    assert next(made) == b"A"
    made._is_closed = True
    with pytest.raises(OSError, match="closed"):
        next(made)
    assert mending.errors == []


async def test_closed_while_a_task_reads_it() -> None:
    async def run(flow: Any) -> Any:
        return flow

    made = MendedAsync(Head(200, (), Body(b"a")), Mending(), run)
    assert await anext(made) == b"A"
    made._is_pulling = True
    await made.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(made)


Made = Callable[..., Any]
