"""Queues and budgets through both drivers: every slot comes back, whatever becomes of its call."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_proxy.backends.budget import accounts
from llm_proxy.boarding import Flights
from llm_proxy.drive import AsyncDriver, Driver
from llm_proxy.engine.effects import Late, Stand
from llm_proxy.limits import BUDGET_NAME
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeClock
from llm_proxy.types import Head, Outgoing
from tests.drive_kit import (
    PIECES,
    PLAIN,
    Async,
    OnALoop,
    Sync,
    Together,
    aplain,
    astreamed,
    cancelled,
    nothing_is_left_running,
    plain,
    streamed,
    sync,
    turns,
    until,
)
from tests.fakes import body_of, completion, head, request

_quiet = pytest.fixture(autouse=True)(nothing_is_left_running)
SECTIONS: Any = {
    "backends": {"one": {"base_url": "https://b.test/v1", "concurrency": 1}},
    "cache": {"semantic": False, "store": "memory"},
}
BYPASS: Any = {"temperature": 2}


def ask(text: str = "hi", **fields: Any) -> Any:
    return request(text, model="one/m", **fields)


def line(one: Sync | Async) -> tuple[int, int]:
    queue: Any = one.rig.gate._lines["one"]
    return queue.waiting, queue.under_way


class TestThreads:
    @pytest.fixture
    def one(self) -> Iterator[Sync]:
        with sync(streamed, sections=SECTIONS) as found:
            yield found

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    @pytest.mark.parametrize("make", [plain, streamed])
    def test_an_answer_gives_its_slot_back(self, one: Sync, fields: Any, make: Any) -> None:
        one.upstream.answers = [make]
        call = ask(stream=make is streamed, **fields)
        _, body = one.read(call)
        assert body == b"".join(PIECES if make is streamed else PLAIN)
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    def test_the_last_event_is_the_end(self, one: Sync, fields: Any) -> None:
        served = one.serve(ask(stream=True, **fields))
        for _ in PIECES:
            assert line(one) == (0, 1)
            next(served.rest)
        assert line(one) == (0, 0), "clients stop reading here"
        assert served.close is not None
        served.close()

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    def test_a_stream_that_is_left(self, one: Sync, fields: Any) -> None:
        served = one.serve(ask(stream=True, **fields))
        next(served.rest)
        assert line(one) == (0, 1)
        assert served.close is not None
        served.close()
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    def test_a_stream_that_nobody_holds(self, one: Sync, fields: Any) -> None:
        served = one.serve(ask(stream=True, **fields))
        next(served.rest)
        del served
        gc.collect()
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    def test_a_stream_that_breaks(self, one: Sync, fields: Any) -> None:
        one.upstream.answers = [lambda: streamed(PIECES[0], OSError("reset"))]
        with pytest.raises(OSError, match="reset"):
            one.read(ask(stream=True, **fields))
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    def test_no_answer(self, one: Sync, fields: Any) -> None:
        one.upstream.answers = [OSError("refused")]
        with pytest.raises(OSError, match="refused"):
            one.serve(ask(**fields))
        assert line(one) == (0, 0)

    def test_an_error(self, one: Sync) -> None:
        one.upstream.answers = [lambda: head([b"{}"], status=500)]
        served, _ = one.read(ask())
        assert (served.status, line(one)) == (500, (0, 0))

    def test_waiting_for_the_slot(self, one: Sync) -> None:
        first = one.serve(ask("first", stream=True))
        others = Together(*(lambda at=at: one.read(ask(str(at), stream=True)) for at in range(3)))
        until(lambda: line(one) == (3, 1))
        assert len(one.upstream.calls) == 1
        list(first.rest)
        assert [body for _, body in others.results()] == [b"".join(PIECES)] * 3
        assert line(one) == (0, 0)

    def test_a_time_out_while_waiting(self, one: Sync) -> None:
        first = one.serve(ask("first", stream=True))
        served = one.serve(ask("second", timeout_s=0.01))
        assert (served.status, served.outcome.detail) == (429, "queue-timeout")
        assert line(one) == (0, 1)
        list(first.rest)


class TestTasks(OnALoop):
    @pytest.fixture
    def one(self) -> Async:
        return Async(astreamed, sections=SECTIONS)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    @pytest.mark.parametrize("make", [aplain, astreamed])
    async def test_an_answer_gives_its_slot_back(self, one: Async, fields: Any, make: Any) -> None:
        one.upstream.answers = [make]
        _, body = await one.read(ask(stream=make is astreamed, **fields))
        assert body == b"".join(PIECES if make is astreamed else PLAIN)
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_a_stream_that_is_left(self, one: Async, fields: Any) -> None:
        served = await one.serve(ask(stream=True, **fields))
        await anext(aiter(served.rest))
        assert line(one) == (0, 1)
        assert served.close is not None
        await served.close()
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_a_stream_that_nobody_holds(self, one: Async, fields: Any) -> None:
        served = await one.serve(ask(stream=True, **fields))
        await anext(aiter(served.rest))
        del served
        gc.collect()
        await turns()
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_a_stream_that_breaks(self, one: Async, fields: Any) -> None:
        one.upstream.answers = [lambda: astreamed(PIECES[0], OSError("reset"))]
        with pytest.raises(OSError, match="reset"):
            await one.read(ask(stream=True, **fields))
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_no_answer(self, one: Async, fields: Any) -> None:
        one.upstream.answers = [OSError("refused")]
        with pytest.raises(OSError, match="refused"):
            await one.serve(ask(**fields))
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_a_caller_who_is_cancelled_while_waiting(self, one: Async, fields: Any) -> None:
        first = await one.serve(ask("first", stream=True))
        (task,) = one.start(one.serve(ask("second", **fields)))
        await turns()
        assert line(one) == (1, 1)
        await cancelled(task)
        await turns()
        assert line(one) == (0, 1)
        await one.rest(first)
        assert line(one) == (0, 0)

    @pytest.mark.parametrize("fields", [{}, BYPASS])
    async def test_a_caller_who_is_cancelled_while_it_is_sent(self, one: Async, fields: Any) -> None:
        one.shut()
        (task,) = one.start(one.serve(ask(**fields)))
        await turns()
        assert line(one) == (0, 1)
        await cancelled(task)
        await turns()
        assert line(one) == (0, 0)

    async def test_followers_wait_on_when_the_one_who_stands_for_them_leaves(self, one: Async) -> None:
        first = await one.serve(ask("first", stream=True))
        leader, follower = one.start(one.read(ask("same")), one.read(ask("same")))
        await turns()
        assert line(one) == (1, 1)
        await cancelled(leader)
        await one.rest(first)
        served, _ = await follower
        assert served.status == 200
        assert len(one.upstream.calls) == 2

    async def test_a_body_that_is_being_read_is_closed(self, one: Async) -> None:
        one.upstream.answers = [lambda: astreamed(hold=1)]
        served = await one.serve(ask(stream=True, **BYPASS))
        rest = aiter(served.rest)
        await anext(rest)
        (task,) = one.start(anext(rest))
        await turns()
        assert served.close is not None
        await served.close()
        assert line(one) == (0, 0)
        await cancelled(task)

    async def test_waiting_for_the_slot(self, one: Async) -> None:
        first = await one.serve(ask("first", stream=True))
        tasks = one.start(*(one.read(ask(str(at), stream=True)) for at in range(3)))
        await turns()
        assert line(one) == (3, 1)
        await one.rest(first)
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"".join(PIECES)] * 3
        assert line(one) == (0, 0)

    async def test_a_time_out_while_waiting(self, one: Async) -> None:
        first = await one.serve(ask("first", stream=True))
        served = await one.serve(ask("second", timeout_s=0.01))
        assert (served.status, served.outcome.detail) == (429, "queue-timeout")
        await one.rest(first)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_turn_that_a_thread_gives(backend: str) -> None:
    calls: list[Any] = []

    async def go() -> None:
        def flow() -> Any:
            yield Stand(calls.append, None)

        async with anyio.create_task_group() as group:
            group.start_soon(AsyncDriver(Flights(), lambda: None).run, flow())  # type: ignore[arg-type,return-value]
            while not calls:
                await anyio.lowlevel.checkpoint()
            await anyio.to_thread.run_sync(calls[0])

    anyio.run(go, backend=backend)
    with pytest.raises(RuntimeError):  # the loop is over: the queue gives the turn to somebody else
        calls[0]()


def test_a_thread_that_is_too_late() -> None:
    def flow() -> Any:
        yield Stand(lambda called: None, 0.0)

    with pytest.raises(Late):
        Driver(Flights(), lambda: None).run(flow())  # type: ignore[arg-type,return-value]


PRICE = {"m": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6}}  # a dollar a token of the answer


def runtime(folder: Path, **more: Any) -> Runtime:
    from llm_proxy.config import Config

    sections: Any = {
        "cache": {"directory": folder, "semantic": False},
        "backends": {"one": {"base_url": "https://b.test/v1", "prices": PRICE}},
        "budget": {"limits": {"all": {"usd_per_day": 50.0}}},
        "observe": {"ledger": False},
    }
    return Runtime(Config(**{**sections, **more}), clock=FakeClock())


@pytest.mark.parametrize("is_async", [False, True])
def test_sixty_four_calls_against_a_budget_for_ten(tmp_path: Path, is_async: bool) -> None:
    one = runtime(tmp_path)
    calls = [ask(str(at), max_tokens=5, **BYPASS) for at in range(64)]
    sent: list[Outgoing] = []

    async def asend(outgoing: Outgoing) -> Head:
        await turns(5)
        sent.append(outgoing)
        return aplain(body_of(completion()))

    async def aread(call: Any) -> int:
        served = await one.async_driver.serve(one.engine.answer(call), asend)
        if served.rest is not None:
            async for _ in served.rest:
                pass
        return served.status

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*map(aread, calls))

    meet = threading.Barrier(64)

    def send(outgoing: Outgoing) -> Head:
        sent.append(outgoing)
        return plain(body_of(completion()))

    def read(call: Any) -> int:
        meet.wait(30)
        served = one.driver.serve(one.engine.answer(call), send)
        if served.rest is not None:
            list(served.rest)
        return served.status

    if is_async:
        statuses = asyncio.run(all_of_them())
    else:
        statuses = Together(*(lambda call=call: read(call) for call in calls)).results()
    assert sorted(statuses) == [200] * 10 + [429] * 54
    assert len(sent) == 10
    one.close()
    (day,) = accounts(tmp_path / BUDGET_NAME, now_s=one.clock.time())
    assert (day.usd, day.held_usd) == (50.0, 0.0)


def test_hits_cost_nothing(tmp_path: Path) -> None:
    one = runtime(tmp_path)
    for _ in range(20):
        served = one.driver.serve(one.engine.answer(ask(max_tokens=5)), lambda _: plain())
        assert served.status == 200
    one.close()
    (day,) = accounts(tmp_path / BUDGET_NAME, now_s=one.clock.time())
    assert day.usd == 5.0


def test_a_budget_that_cant_be_read_is_out_of_the_way(tmp_path: Path) -> None:
    (tmp_path / BUDGET_NAME).write_bytes(b"no budget, but bytes enough to be taken for one or another file")
    one = runtime(tmp_path)
    served = one.driver.serve(one.engine.answer(ask()), lambda _: plain())
    assert served.status == 200
    assert one.troubles.counts == {"budget": 1}
    one.close()


def test_a_budget_in_memory(tmp_path: Path) -> None:
    cache, budget = {"store": "memory", "semantic": False}, {"limits": {"all": {"usd_per_day": 7.0}}}
    one = runtime(tmp_path, cache=cache, budget=budget)
    calls = [ask(str(at), max_tokens=5) for at in range(3)]
    statuses = [one.driver.serve(one.engine.answer(call), lambda _: plain()).status for call in calls]
    assert statuses == [200, 429, 429]
    one.close()
    assert list(tmp_path.iterdir()) == []
