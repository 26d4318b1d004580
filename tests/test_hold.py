"""Cascades through both drivers: what is held back, what is given again, and what is closed."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import pytest

from llm_proxy import hold as module
from llm_proxy.boarding import Flights
from llm_proxy.drive import AsyncDriver, Driver
from llm_proxy.engine.effects import Flow, Hold, Late, Read
from llm_proxy.types import Head, Outgoing
from tests.drive_kit import PIECES, PLAIN, AsyncBody, Body, Upstream, aplain, astreamed, plain, streamed, sync, turns
from tests.fakes import FakeScorer, Rig, events_of, head, request

OUTGOING = Outgoing("https://b.test", (), b"")
SECTIONS: Any = {
    "backends": {"b": {"base_url": "https://b.test/v1"}},
    "routes": {"auto": {"candidates": ["b/small", "b/large"], "cascade": True}},
    "cache": {"semantic": False, "store": "memory"},
}
LARGE = events_of("large")


def clock(monkeypatch: pytest.MonkeyPatch, *times_s: float) -> None:
    left = list(times_s)
    monkeypatch.setattr(module.time, "monotonic", lambda: left.pop(0) if len(left) > 1 else left[0])


def run(effect: Hold, answer: Head) -> Any:
    def flow() -> Flow[Any]:
        return (yield effect)

    return Driver(Flights(), lambda: None).run(flow(), lambda _: answer)  # type: ignore[arg-type,return-value]


def arun(effect: Hold, answer: Head) -> Any:
    async def go() -> Any:
        async def send(_: Outgoing) -> Head:
            return answer

        def flow() -> Flow[Any]:
            return (yield effect)

        found = await AsyncDriver(Flights(), lambda: None).run(flow(), send)  # type: ignore[arg-type,return-value]
        again = [piece async for piece in found.head.body] if found.head.status != 418 else []
        await found.head.body.aclose()
        return found, again

    return asyncio.run(go())


class TestHold:
    def test_a_whole_answer_is_read_closed_and_given_again(self) -> None:
        answered = streamed()
        found = run(Hold(OUTGOING, 1 << 20, 9.0), answered)
        assert (found.body, found.is_whole, answered.body.closes) == (b"".join(PIECES), True, 1)
        assert list(found.head.body) == PIECES

    def test_what_is_still_to_come_follows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock(monkeypatch, 0.0, 0.0, 1.0, 4.0)
        answered = streamed()
        found = run(Hold(OUTGOING, 1 << 20, 3.0), answered)
        assert (found.body, found.is_whole, answered.body.closes) == (b"".join(PIECES[:2]), False, 0)
        assert list(found.head.body) == PIECES
        found.head.body.close()
        assert answered.body.closes == 1

    def test_a_long_answer_is_read_so_far(self) -> None:
        found = run(Hold(OUTGOING, 3, 9.0), streamed())
        assert (found.body, found.is_whole) == (PIECES[0], False)

    @pytest.mark.parametrize(("status", "keeps_rest"), [(500, True), (200, False)])
    def test_what_is_of_no_use_is_dropped(self, status: int, keeps_rest: bool) -> None:
        body = Body(list(PIECES))
        found = run(Hold(OUTGOING, 3, 9.0, keeps_rest), head(body, status=status))
        assert (found.is_whole, body.closes, list(found.head.body)) == (False, 1, PIECES[:1])

    @pytest.mark.parametrize("pieces", [0, 2])
    def test_who_takes_too_long_is_given_up(self, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
        clock(monkeypatch, 0.0, *[1.0] * pieces, 10.0)
        body = Body(list(PIECES))
        with pytest.raises(Late):
            run(Hold(OUTGOING, 1 << 20, 99.0, wait_s=9.0), head(body))
        assert (body.closes, len(body.steps)) == (1, len(PIECES) - pieces)

    def test_an_error_is_read_to_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock(monkeypatch, 0.0, 5.0)
        found = run(Hold(OUTGOING, 1 << 20, 0.0), head(Body(list(PIECES)), status=400))
        assert (found.is_whole, found.body) == (True, b"".join(PIECES))

    def test_a_body_that_breaks_is_closed(self) -> None:
        body = Body([PIECES[0], ConnectionError()])
        with pytest.raises(ConnectionError):
            run(Hold(OUTGOING, 1 << 20, 9.0), head(body))
        assert body.closes == 1

    def test_a_body_that_can_not_be_closed(self) -> None:
        found = run(Hold(OUTGOING, 1 << 20, 9.0), head([b"a", b"b"]))
        assert list(found.head.body) == [b"a", b"b"]


class TestHoldAsync:
    def test_a_whole_answer_is_read_closed_and_given_again(self) -> None:
        answered = astreamed()
        found, again = arun(Hold(OUTGOING, 1 << 20, 9.0), answered)
        assert (found.body, found.is_whole, again) == (b"".join(PIECES), True, PIECES)
        assert answered.body.closes > 0

    def test_what_is_still_to_come_follows(self) -> None:
        answered = astreamed()
        found, again = arun(Hold(OUTGOING, 3, 9.0), answered)
        assert (found.body, found.is_whole, again, answered.body.closes) == (PIECES[0], False, PIECES, 1)

    def test_an_answer_that_was_read_piece_by_piece_is_closed_once(self) -> None:
        async def go(body: AsyncBody) -> list[bytes]:
            answer, seen = head(body), 0
            for _ in PIECES[1:]:
                held = await module.read_async(Read(answer, seen, math.inf))
                answer, seen = held.head, len(held.body)
            assert not held.is_whole
            again = [piece async for piece in answer.body]
            await answer.body.aclose()
            return again

        body = AsyncBody(list(PIECES))
        assert (asyncio.run(go(body)), body.closes) == (PIECES, 1)

    @pytest.mark.parametrize(("status", "keeps_rest"), [(500, True), (200, False)])
    def test_what_is_of_no_use_is_dropped(self, status: int, keeps_rest: bool) -> None:
        body = AsyncBody(list(PIECES))
        found, again = arun(Hold(OUTGOING, 3, 9.0, keeps_rest), head(body, status=status))
        assert (found.is_whole, again, body.closes > 0) == (False, PIECES[:1], True)

    def test_a_body_that_breaks_is_closed(self) -> None:
        body = AsyncBody([PIECES[0], ConnectionError()])
        with pytest.raises(ConnectionError):
            arun(Hold(OUTGOING, 1 << 20, 9.0), head(body))
        assert body.closes == 1

    def test_who_is_silent_is_given_up(self) -> None:
        class Silent(AsyncBody):
            async def __anext__(self) -> bytes:
                await asyncio.Event().wait()
                raise AssertionError("nobody sets it")

        body = Silent(list(PIECES))
        with pytest.raises(Late):
            arun(Hold(OUTGOING, 1 << 20, 99.0, wait_s=0.01), head(body))
        assert body.closes > 0

    def test_a_body_that_is_read_by_a_generator(self) -> None:
        class Generated(AsyncBody):
            ended = 0

            def __aiter__(self) -> Any:
                return self.generated()

            async def generated(self) -> Any:
                try:
                    while self.steps:
                        await turns(1)
                        yield self._step()
                finally:
                    self.ended += 1

        body = Generated(list(PIECES))
        found, again = arun(Hold(OUTGOING, 3, 9.0, False), head(body))
        assert (again, body.ended) == (PIECES[:1], 1)
        body = Generated(list(PIECES))
        found, again = arun(Hold(OUTGOING, 3, 9.0), head(body, status=200))
        assert (found.is_whole, again, body.ended) == (False, PIECES, 1)

        async def closed_while_it_is_read() -> None:
            reading = asyncio.create_task(anext(rest))
            await turns(1)
            await rest.aclose()
            assert (await reading, body.closes) == (PIECES[1], 1)

        async def go() -> None:
            nonlocal rest
            rest = (await module.held_async(Hold(OUTGOING, 3, 9.0), sent)).head.body
            await anext(rest)
            await closed_while_it_is_read()
            await rest.aclose()

        async def sent(_: Outgoing) -> Head:
            return head(body)

        rest: Any = None
        body = Generated(list(PIECES))
        asyncio.run(go())
        assert body.ended == 1

    def test_a_body_that_can_not_be_closed(self) -> None:
        class Bare:
            def __init__(self) -> None:
                self.pieces = [b"a", b"b"]

            def __aiter__(self) -> Bare:
                return self

            async def __anext__(self) -> bytes:
                if not self.pieces:
                    raise StopAsyncIteration
                return self.pieces.pop(0)

        _, again = arun(Hold(OUTGOING, 1 << 20, 9.0), head(Bare()))
        assert again == [b"a", b"b"]


class TestCascades:
    def test_threads_get_the_final_answer(self) -> None:
        with sync(plain(), plain(b'{"error": {}}'), sections=SECTIONS, encoder=None, scorer=FakeScorer(0.9)) as it:
            served, body = it.read(request(model="auto"))
            assert (body, served.outcome.cascade) == (PLAIN[0], "small 0.90")
            assert it.read(request(model="auto"))[0].outcome.kind == "exact"
            assert len(it.upstream.calls) == 1

    def test_a_stream_is_given_up_before_anything_of_it_was_seen(self) -> None:
        small, large = streamed(), streamed(*LARGE)
        with sync(small, large, sections=SECTIONS, encoder=None, scorer=FakeScorer(0.1)) as it:
            served, body = it.read(request(model="auto", stream=True))
            assert (body, served.outcome.cascade) == (b"".join(LARGE), "small 0.10, large")
            assert (small.body.closes, large.body.closes) == (1, 1)

    def test_without_a_cache(self) -> None:
        with sync(plain(), plain(), sections=SECTIONS, encoder=None, cache=None, scorer=FakeScorer(0.1)) as it:
            served, body = it.read(request(model="auto"))
            assert (body, served.outcome.cascade) == (PLAIN[0], "small 0.10, large")

    def test_a_stream_too_slow_goes_on_where_it_stood(self) -> None:
        sections = {**SECTIONS, "routes": {"auto": {**SECTIONS["routes"]["auto"], "cascade_buffer_s": 0}}}
        with sync(streamed(), sections=sections, encoder=None) as it:
            served, body = it.read(request(model="auto", stream=True))
            assert (body, served.outcome.cascade) == (b"".join(PIECES), "small unseen")
            assert not it.rig.event.outcome.is_stored, "nobody has looked at it"


class Async:
    def __init__(self, *answers: Head, scorer: FakeScorer | None = None) -> None:
        self.rig = Rig(SECTIONS, encoder=None, scorer=scorer or FakeScorer())
        self.upstream = Upstream(*answers)
        self.driver = AsyncDriver(Flights(), lambda: None)  # type: ignore[arg-type,return-value]

    async def send(self, outgoing: Outgoing) -> Head:
        return self.upstream(outgoing)

    async def read(self, **fields: Any) -> tuple[Any, bytes]:
        served = await self.driver.serve(self.rig.engine.answer(request(model="auto", **fields)), self.send)
        rest = b"".join([piece async for piece in served.rest]) if served.rest is not None else b""
        return served, served.body + rest


class TestCascadesAsync:
    def test_all_who_share_get_the_final_answer(self) -> None:
        async def go() -> None:
            it = Async(aplain(), aplain(b'{"model": "large"}'), scorer=FakeScorer(0.1))
            found = await asyncio.gather(*[it.read() for _ in range(3)])
            assert {body for _, body in found} == {b'{"model": "large"}'}
            assert len(it.upstream.calls) == 2

        asyncio.run(go())

    def test_whoever_came_first_may_leave(self) -> None:
        async def go() -> None:
            it = Async(astreamed(), astreamed(*LARGE), scorer=FakeScorer(0.1))
            first, second = (asyncio.create_task(it.read(stream=True)) for _ in range(2))
            await turns(3)
            first.cancel()
            _, body = await second
            assert body == b"".join(LARGE)
            assert len(it.upstream.calls) == 2

        asyncio.run(go())

    def test_the_last_who_leaves_cancels_what_is_under_way(self) -> None:
        async def go() -> None:
            small = astreamed(hold=1)
            it = Async(small, astreamed(*LARGE))
            call = asyncio.create_task(it.read(stream=True))
            await turns(20)
            assert small.body.pulls == 2
            call.cancel()
            await turns(20)
            assert (small.body.cancels, small.body.closes, len(it.upstream.calls)) == (1, 1, 1)
            assert it.rig.event.error == "aborted"

        asyncio.run(go())
        gc.collect()
