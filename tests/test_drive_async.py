"""The async driver: callers who leave, bodies that break off, work in threads, and flows that are always closed."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from llm_proxy.engine.effects import Compute, Flow, Forward, Late
from llm_proxy.testing import FakeEncoder
from llm_proxy.types import Outgoing
from tests.drive_kit import (
    PIECES,
    PLAIN,
    SLOW_S,
    SSE,
    Async,
    AsyncBody,
    OnALoop,
    aplain,
    astreamed,
    cancelled,
    nothing_is_left_running,
    own_tasks,
    turns,
)
from tests.fakes import FakeCache, head, request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


class TestAsync(OnALoop):
    async def test_a_caller_who_leaves_while_the_store_writes(self) -> None:
        class Slow(FakeCache):
            go, began = threading.Event(), threading.Event()

            def admit(self, entry: Any) -> bool:
                self.began.set()
                assert self.go.wait(SLOW_S)
                return super().admit(entry)

        answered = aplain()
        it = Async(answered, cache=Slow())
        (task,) = it.start(it.read(request()))
        assert await anyio.to_thread.run_sync(Slow.began.wait, SLOW_S)
        await cancelled(task)
        Slow.go.set()
        assert (len(it.rig.events), answered.body.closes, len(it.flights)) == (1, 1, 0)

    @pytest.mark.parametrize("content_type", ["Text/Event-Stream", "application/json"])
    async def test_a_stream_is_handed_on_as_it_comes_whatever_its_type(self, content_type: str) -> None:
        answered = head(AsyncBody(PIECES, hold=1), content_type=content_type)
        it = Async(answered)
        served = await it.serve(request(stream=True))
        assert await anext(served.rest) == PIECES[0]
        await served.close()

    async def test_a_broken_body_to_who_asked_for_a_stream_raises_while_it_is_read(self) -> None:
        it = Async(aplain(b"{", ConnectionError("cut")))
        served = await it.serve(request(stream=True))
        assert await anext(served.rest) == b"{"
        with pytest.raises(ConnectionError):
            await anext(served.rest)
        assert len(it.upstream.calls) == 1

    async def test_asked_anew_there_is_no_task(self) -> None:
        answered = astreamed()
        it = Async(answered)
        served = await it.serve(request(stream=True, control="no-cache"))
        await anext(served.rest)
        assert own_tasks() == set()
        assert await it.rest(served) == b"".join(PIECES[1:])
        assert (len(it.rig.cache.entries), answered.body.closes) == (1, 1)

    async def test_a_lone_caller_is_cancelled(self) -> None:
        answered = astreamed(hold=1)
        it = Async(answered)
        served = await it.serve(request(stream=True, control="no-cache"))
        (task,) = it.start(it.rest(served))
        await anyio.sleep(0.02)
        await cancelled(task)
        assert (answered.body.cancels, answered.body.closes, it.rig.event.error) == (1, 1, "aborted")

    @pytest.mark.parametrize("control", ["", "no-cache"])
    @pytest.mark.parametrize("kind", ["object", "generator"])
    async def test_a_reader_may_be_closed_by_another_task(self, control: str, kind: str) -> None:
        closed: list[str] = []

        class Generated:
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield PIECES[0]
                await anyio.sleep(0.1)
                yield PIECES[1]

            async def aclose(self) -> None:
                closed.append("yes")

        answered = astreamed(hold=1) if kind == "object" else head(Generated(), content_type=SSE)
        it = Async(answered)
        served = await it.serve(request(stream=True, control=control))
        assert await anext(served.rest) == PIECES[0]
        (reading,) = it.start(it.rest(served))
        await anyio.sleep(0.02)
        await served.close()
        assert (closed or answered.body.closes) in (["yes"], 1)
        if control and kind == "object":
            await cancelled(reading)  # its body does not notice
        else:
            assert await reading in (b"", PIECES[1])

    async def test_a_lone_stream_breaks_off(self) -> None:
        answered = astreamed(PIECES[0], OSError("reset"))
        it = Async(answered)
        with pytest.raises(OSError, match="reset"):
            await it.read(request(stream=True, control="no-cache"))
        assert (answered.body.closes, it.rig.event.error) == (1, "OSError")

    async def test_a_lone_request_fails(self) -> None:
        it = Async(OSError("refused"))
        with pytest.raises(OSError, match="refused"):
            await it.read(request(control="no-cache"))
        assert it.rig.event.error == "OSError"

    async def test_somebody_cancels_the_flights_own_task(self) -> None:
        it = Async(astreamed(hold=1), astreamed)
        served = await it.serve(request(stream=True))
        assert await anext(served.rest) == PIECES[0]
        (task,) = own_tasks()
        task.cancel()
        with pytest.raises(ConnectionAbortedError):
            await anext(served.rest)
        assert it.rig.event.error == "cancelled"
        assert (await it.read(request(stream=True)))[1] == b"".join(PIECES)

    async def test_somebody_cancels_the_flights_own_task_before_the_answer_begins(self) -> None:
        it = Async(astreamed)
        it.shut()
        leader, follower = it.start(it.read(request(stream=True)), it.read(request(stream=True)))
        await anyio.sleep(0.02)
        (task,) = own_tasks()
        task.cancel()
        it.open.set()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert (await follower)[1] == b"".join(PIECES)

    async def test_a_body_that_will_not_end_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stubborn(AsyncBody):
            async def aclose(self) -> None:
                await asyncio.shield(asyncio.sleep(0.2))
                await super().aclose()

        monkeypatch.setattr("llm_proxy.pull._SEE_OFF_S", 0.01)
        body = Stubborn(PIECES)
        it = Async(head(body, content_type=SSE))
        served = await it.serve(request(stream=True))
        await anext(served.rest)
        await served.close()
        assert body.closes == 0
        await anyio.sleep(0.25)
        assert body.closes == 1

    async def test_an_answer_that_is_dropped_unread_holds_up_nobody(self) -> None:
        it = Async(astreamed)
        served = await it.serve(request(stream=True))
        (task,) = own_tasks()
        del served
        gc.collect()
        await turns()
        assert (await it.read(request(stream=True)))[1] == b"".join(PIECES)
        assert (len(it.upstream.calls), task.cancelled(), it.rig.events[0].error) == (2, True, "aborted")

    async def test_a_lone_answer_that_is_dropped_unread(self) -> None:
        it = Async(astreamed)
        await it.serve(request(stream=True, control="no-cache"))
        gc.collect()
        assert (await it.read(request(stream=True)))[1] == b"".join(PIECES)

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

    async def test_the_limit_holds_for_work_that_is_said_to_be_quick(self) -> None:
        go = threading.Event()

        def flow() -> Flow[str]:
            try:
                yield Compute(lambda: go.wait(SLOW_S), 0.01, is_quick=True)
            except Late:
                return "late"
            return "in time"

        assert await Async().driver.run(flow()) == "late"
        go.set()

    async def test_the_wait_for_a_turn_is_not_part_of_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.handover._cores", lambda: 2)  # so there are two threads
        go, found = threading.Event(), []

        def flow(call: Callable[[], Any], turn_s: float, limit_s: float = 0.05) -> Flow[None]:
            try:
                found.append((yield Compute(call, limit_s, turn_s=turn_s)))
            except Late as late:
                found.append("late" if late.is_begun else "busy")

        it = Async()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(it.driver.run, flow(lambda: go.wait(SLOW_S), SLOW_S, SLOW_S))
            await anyio.sleep(0.02)
            await it.driver.run(flow(str, 0.0))
            await it.driver.run(flow(str, 0.02))
            assert found == ["late", "busy"]
            group.start_soon(it.driver.run, flow(lambda: "in time", SLOW_S))
            await anyio.sleep(0.1)  # twice the limit
            assert len(found) == 2
            go.set()
        assert sorted(map(str, found[2:])) == ["True", "True", "in time"]
        await it.driver.run(flow(lambda: "free", 0.02))
        assert found[-1] == "free"

    async def test_work_is_done_in_threads_of_its_own(self) -> None:
        here = threading.get_ident()

        def flow() -> Flow[int]:
            found: int = yield Compute(threading.get_ident)
            return found

        it = Async()
        busy = anyio.to_thread.current_default_thread_limiter()
        async with anyio.create_task_group() as group:
            go = threading.Event()
            for _ in range(int(busy.total_tokens)):
                group.start_soon(anyio.to_thread.run_sync, go.wait, SLOW_S)
            await anyio.sleep(0.05)
            assert busy.available_tokens == 0
            assert await it.driver.run(flow()) != here
            assert await it.driver.run(flow()) != here
            go.set()

    async def test_a_flow_is_closed_whatever_happens(self) -> None:
        closed: list[str] = []

        def flow(call: Callable[[], Any]) -> Flow[None]:
            try:
                yield Compute(call, 5.0)
            finally:
                closed.append("yes")

        it = Async()
        with pytest.raises(ZeroDivisionError):
            await it.driver.run(flow(lambda: 1 / 0))
        go = threading.Event()
        (task,) = it.start(it.driver.run(flow(lambda: go.wait(SLOW_S))))
        await anyio.sleep(0.02)
        await cancelled(task)
        go.set()
        assert closed == ["yes", "yes"]

    async def test_a_flow_that_forwards_needs_a_way_to(self) -> None:
        def flow() -> Flow[Any]:
            yield Forward(Outgoing("", (), b""))

        it = Async()
        for made in (flow, lambda: it.rig.engine.answer(request())):
            with pytest.raises(RuntimeError, match="no way to send one was given"):
                await it.driver.run(made())

    async def test_what_is_not_recorded_passes(self) -> None:
        answered = head(AsyncBody([b"no"]), status=500)
        it = Async(answered)
        served = await it.serve(request())
        assert (served.status, served.rest) == (500, answered.body)
        assert served.close is not None
        await served.close()
        assert answered.body.closes == 1

    async def test_hits_are_ready(self) -> None:
        it = Async(aplain())
        await it.read(request())
        served = await it.serve(request())
        assert (served.status, served.body, served.rest, served.close) == (200, PLAIN[0], None, None)
