"""Loops that end while an answer is under way, and async libraries other than asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from llm_proxy.drive import Served
from llm_proxy.engine.flights import Flight
from llm_proxy.pull import SharedFlight
from llm_proxy.testing import FakeEncoder
from tests.drive_kit import (
    PIECES,
    PLAIN,
    SLOW_S,
    Async,
    Together,
    aplain,
    astreamed,
    nothing_is_left_running,
    turns,
)
from tests.fakes import request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


class TestLoops:
    """What becomes of a flight whose loop ends."""

    def end(self, it: Async, *, is_open: bool) -> None:
        async def main() -> None:
            if is_open:
                served = await it.serve(request(stream=True))
                await anext(served.rest)
            else:
                it.shut()
                it.start(it.read(request(stream=True)))
                await anyio.sleep(0.01)

        asyncio.run(main())
        gc.collect()

    @pytest.mark.parametrize("is_open", [True, False])
    def test_a_later_loop_starts_afresh(self, is_open: bool) -> None:
        async def make() -> Async:
            return Async(astreamed)

        it = asyncio.run(make())
        self.end(it, is_open=is_open)
        it.open.set()

        async def again() -> bytes:
            it.open = anyio.Event()
            it.open.set()
            return (await it.read(request(stream=True)))[1]

        assert asyncio.run(again()) == b"".join(PIECES)
        assert len(it.flights) == 0

    def test_a_coroutine_may_be_collected_after_its_loop_was_closed(self) -> None:
        async def make() -> Async:
            it = Async(astreamed)
            it.shut()
            return it

        loop = asyncio.new_event_loop()
        it = loop.run_until_complete(make())
        task = loop.create_task(it.read(request(stream=True)))
        loop.run_until_complete(asyncio.sleep(0.01))
        tasks = [task, *asyncio.all_tasks(loop)]
        for each in tasks:
            each._log_destroy_pending = False
        loop.close()
        task.get_coro().close()
        assert it.rig.event.error == "aborted"
        assert len(it.flights) == 0
        for each in tasks:
            with suppress(RuntimeError):
                each.get_coro().close()

    def test_an_answer_may_be_dropped_after_its_loop_was_closed(self) -> None:
        async def main() -> Served:
            return await Async(astreamed).serve(request(stream=True))

        served = asyncio.run(main())
        del served
        gc.collect()

    def test_loops_do_not_share(self) -> None:
        async def one() -> bytes:
            it.open = anyio.Event()
            it.open.set()
            return (await it.read(request(stream=True)))[1]

        async def make() -> Async:
            return Async(astreamed)

        it = asyncio.run(make())
        it.rig.cache.keeps = False
        results = Together(*[lambda: asyncio.run(one())] * 4).results()
        assert (set(results), len(it.upstream.calls)) == ({b"".join(PIECES)}, 4)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
class TestAnyLibrary:
    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_misses_and_hits(self, is_stream: bool) -> None:
        answered = astreamed() if is_stream else aplain()
        it = Async(answered)
        assert (await it.read(request(stream=is_stream)))[1] == b"".join(PIECES if is_stream else PLAIN)
        assert (await it.read(request(stream=is_stream)))[0].outcome.kind == "exact"
        assert (len(it.upstream.calls), answered.body.closes) == (1, 1)

    async def test_cancelling_closes_the_body(self) -> None:
        answered = astreamed(hold=1)
        it = Async(answered)
        with anyio.move_on_after(0.05):
            await it.read(request(stream=True))
        assert (answered.body.cancels, answered.body.closes, it.rig.event.error) == (1, 1, "aborted")
        assert len(it.flights) == 0

    async def test_cancelling_before_the_answer_begins(self) -> None:
        it = Async(astreamed())
        it.shut()
        with anyio.move_on_after(0.05):
            await it.read(request(stream=True))
        await turns()
        assert (it.cancelled_sends, it.rig.event.error, len(it.flights)) == (1, "aborted", 0)

    async def test_a_late_encoder_is_not_waited_for(self) -> None:
        class Slow(FakeEncoder):
            go = threading.Event()

            def encode(self, text: str) -> Any:
                assert self.go.wait(SLOW_S)
                return super().encode(text)

        it = Async(aplain(), encoder=Slow(), sections={"encoder": {"wait_s": 0.01}})
        served, _ = await it.read(request())
        Slow.go.set()
        assert served.outcome.detail == "encoder-late"


def test_trio_callers_do_not_share() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> int:
        it = Async(astreamed)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(it.read, request(stream=True, control="max-age=0"))
        return len(it.upstream.calls)

    assert trio.run(main) == 3


async def test_a_shared_flight_is_one_of_its_loop() -> None:
    it = Async(astreamed())
    served = await it.serve(request(stream=True))
    (flight,) = it.flights._table.values()
    assert isinstance(flight, SharedFlight)
    assert isinstance(flight, Flight)
    await served.close()
