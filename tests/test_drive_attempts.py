"""The effects of a call that is sent more than once, through both drivers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from llm_proxy.boarding import Flights
from llm_proxy.drive import AsyncDriver, Driver
from llm_proxy.engine.effects import Flow, Mend, Pause, Race, Raced, Read, forward
from llm_proxy.types import Head, Outgoing
from tests.drive_kit import PIECES, AsyncBody, Body

OUTGOING = Outgoing("https://b.test", (), b"")


def yielding(effect: Any) -> Flow[Any]:
    return (yield effect)


def body(kind: str) -> Any:
    return Body(PIECES) if kind == "sync" else AsyncBody(PIECES)


def perform(kind: str, effect: Any, answer: Head | None = None) -> Any:
    if kind == "sync":
        return Driver(Flights(), lambda: None).run(yielding(effect), lambda _: answer)  # type: ignore[arg-type,return-value]

    async def send(_: Outgoing) -> Head:
        return answer  # type: ignore[return-value]

    return asyncio.run(AsyncDriver(Flights(), lambda: None).run(yielding(effect), send))  # type: ignore[arg-type]


def rest_of(kind: str, head: Head) -> list[bytes]:
    if kind == "sync":
        return list(head.body)

    async def go() -> list[bytes]:
        return [piece async for piece in head.body]

    return asyncio.run(go())


class Mending:
    """Goes on once."""

    is_broken = False

    def passed(self, piece: bytes) -> bytes:
        return piece

    def ended(self) -> bytes | None:
        return None

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        self.ended = lambda: b"."  # type: ignore[method-assign]
        return forward(OUTGOING)  # type: ignore[return-value]

    def kept(self) -> bytes:
        raise AssertionError

    def left(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["sync", "async"])
class TestEffects:
    def test_a_piece_is_read_and_given_again(self, kind: str) -> None:
        answer = Head(200, (), body(kind))
        found = perform(kind, Read(answer, 0, 0.0))
        assert (found.body, found.is_whole) == (PIECES[0], False)
        assert rest_of(kind, found.head) == PIECES

    def test_the_rest_is_dropped(self, kind: str) -> None:
        answer = Head(200, (), body(kind))
        perform(kind, Read(answer, 0, 0.0, keeps_rest=False))
        assert answer.body.closes >= 1

    def test_a_pause(self, kind: str) -> None:
        began_s = time.monotonic()
        assert perform(kind, Pause(0.05)) is None
        assert time.monotonic() - began_s >= 0.045

    def test_a_body_is_mended(self, kind: str) -> None:
        second = Head(200, (), body(kind))
        answer = Head(200, (), body(kind))

        def flow() -> Flow[list[bytes]]:
            mended = yield Mend(answer, Mending())
            if kind == "sync":
                return list(mended.body)
            return mended  # type: ignore[no-any-return]

        if kind == "sync":
            found = Driver(Flights(), lambda: None).run(flow(), lambda _: second)  # type: ignore[arg-type,return-value]
        else:

            async def go() -> list[bytes]:
                async def send(_: Outgoing) -> Head:
                    return second

                mended: Any = await AsyncDriver(Flights(), lambda: None).run(flow(), send)  # type: ignore[arg-type]
                return [piece async for piece in mended.body]

            found = asyncio.run(go())
        assert found == [*PIECES, *PIECES, b"."]
        assert answer.body.closes >= 1

    def test_a_race(self, kind: str) -> None:
        answer = Head(200, (), ())
        effect = Race((forward(OUTGOING), forward(OUTGOING)), 30.0, lambda value: True)
        assert perform(kind, effect, answer) == Raced(0, answer, False)


def test_a_pause_ends_when_its_caller_leaves() -> None:
    async def go() -> None:
        driver = AsyncDriver(Flights(), lambda: None)  # type: ignore[arg-type,return-value]
        task = asyncio.create_task(driver.run(yielding(Pause(60.0))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(go(), 30))
