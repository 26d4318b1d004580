"""Tasks of one loop that ask the same share an answer, and no one of them depends on another."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from tests.drive_kit import (
    PIECES,
    PLAIN,
    SSE,
    Async,
    AsyncBody,
    OnALoop,
    aboard,
    aplain,
    astreamed,
    cancelled,
    nothing_is_left_running,
    own_tasks,
    turns,
)
from tests.fakes import head, request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


class TestSharing(OnALoop):
    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_identical_calls_are_one_upstream(self, is_stream: bool) -> None:
        it = Async(astreamed() if is_stream else aplain())
        it.shut()
        tasks = it.start(*[it.read(request(stream=is_stream)) for _ in range(8)])
        await anyio.sleep(0.05)
        assert aboard(it.flights) == 8
        it.open.set()
        results = [await task for task in tasks]
        assert {body for _, body in results} == {b"".join(PIECES if is_stream else PLAIN)}
        assert len(it.upstream.calls) == 1
        assert sorted(served.outcome.is_shared for served, _ in results) == [False] + [True] * 7
        assert (len(it.rig.cache.entries), len(it.rig.events), len(it.flights)) == (1, 8, 0)
        assert {event.outcome.is_stored for event in it.rig.events} == {True}

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_the_body_is_closed_at_its_end(self, is_stream: bool) -> None:
        answered = astreamed() if is_stream else aplain()
        it = Async(answered)
        await it.read(request(stream=is_stream))
        assert answered.body.closes == 1

    async def test_the_leader_is_cancelled_before_the_answer_begins(self) -> None:
        it = Async(astreamed())
        it.shut()
        leader, follower = it.start(it.read(request(stream=True)), it.read(request(stream=True)))
        await anyio.sleep(0.02)
        await cancelled(leader)
        it.open.set()
        _, body = await follower
        assert body == b"".join(PIECES)
        assert (len(it.upstream.calls), it.cancelled_sends, len(it.rig.cache.entries)) == (1, 0, 1)
        assert [(event.error, event.outcome.is_shared) for event in it.rig.events] == [("", False), ("", True)]

    async def test_the_only_caller_is_cancelled_before_the_answer_begins(self) -> None:
        it = Async(astreamed())
        it.shut()
        (leader,) = it.start(it.read(request(stream=True)))
        await anyio.sleep(0.02)
        await cancelled(leader)
        await turns()
        assert (it.cancelled_sends, it.upstream.calls, len(it.flights)) == (1, [], 0)
        assert it.rig.event.error == "aborted"

    @pytest.mark.parametrize("is_early", [True, False])
    async def test_an_answer_that_nobody_takes_is_closed(self, is_early: bool) -> None:
        refused = head(AsyncBody([b"busy"]), status=429)
        it = Async(refused, aplain)
        it.shut()
        leader, follower = it.start(it.read(request()), it.read(request()))
        await anyio.sleep(0.02)
        if is_early:
            await cancelled(leader)
            it.open.set()
        else:
            it.open.set()
            until_sent = anyio.Event()
            sent, it.upstream.answers[0] = it.upstream.answers[0], lambda: (until_sent.set(), refused)[1]
            await until_sent.wait()
            assert sent is refused
            await cancelled(leader)
        assert (await follower)[1] == PLAIN[0]
        await turns()
        assert refused.body.closes == 1

    async def test_a_reader_is_cancelled_in_mid_stream(self) -> None:
        answered = astreamed(hold=1)
        it = Async(answered)
        leader, follower = await it.serve(request(stream=True)), await it.serve(request(stream=True))
        (reading,) = it.start(it.rest(leader))
        assert await anext(follower.rest) == PIECES[0]
        await anyio.sleep(0.02)
        await cancelled(reading)
        assert answered.body.cancels == 0
        answered.body.hold = None
        (task,) = own_tasks()
        assert not task.done()
        await follower.close()
        assert (answered.body.cancels, answered.body.closes, task.done()) == (1, 1, True)
        assert it.rig.cache.entries == {}

    async def test_who_leaves_does_not_harm_the_others(self) -> None:
        it = Async(astreamed())
        leader, follower = await it.serve(request(stream=True)), await it.serve(request(stream=True))
        assert await anext(leader.rest) == PIECES[0]
        await leader.close()
        assert [chunk async for chunk in leader.rest] == []
        assert await it.rest(follower) == b"".join(PIECES)
        assert len(it.rig.cache.entries) == 1

    async def test_when_all_leave_the_call_is_called_off(self) -> None:
        answered = astreamed()
        it = Async(answered)
        one, two = await it.serve(request(stream=True)), await it.serve(request(stream=True))
        await anext(one.rest)
        await one.close()
        assert answered.body.closes == 0
        await two.close()
        await two.close()
        assert (answered.body.closes, it.rig.cache.entries, len(it.flights)) == (1, {}, 0)
        assert [event.error for event in it.rig.events] == ["aborted"] * 2

    async def test_the_last_one_leaves_in_the_turn_in_which_a_chunk_comes(self) -> None:
        class Handed(AsyncBody):
            came = asyncio.get_running_loop().create_future()

            async def __anext__(self) -> bytes:
                await self.came
                return self._step()

        body = Handed(PIECES)
        it = Async(head(body, content_type=SSE))
        (reading,) = it.start(it.rest(await it.serve(request(stream=True))))
        await turns()
        (task,) = own_tasks() - {reading}
        reading.cancel()  # it runs first, then the flight's task with its chunk, and only then is that cancelled
        body.came.set_result(None)
        await turns()
        assert (body.closes, task.done(), it.rig.event.error) == (1, True, "aborted")

    async def test_a_body_that_cannot_be_closed_is_left(self) -> None:
        class Bare:
            def __aiter__(self) -> Any:
                return AsyncBody(PIECES).__aiter__()

        it = Async(head(Bare(), content_type=SSE))
        await (await it.serve(request(stream=True))).close()
        assert it.rig.event.error == "aborted"

    async def test_nobody_pulls_ahead_of_the_readers(self) -> None:
        answered = astreamed()
        it = Async(answered)
        served = await it.serve(request(stream=True))
        await anext(served.rest)
        await turns()
        assert answered.body.pulls == 1
        await served.close()

    async def test_trouble_is_not_shared(self) -> None:
        it = Async(OSError("refused"), aplain)
        it.shut()
        tasks = it.start(*[it.read(request()) for _ in range(4)])
        await anyio.sleep(0.02)
        it.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, OSError) for result in results) == 1
        assert len(it.upstream.calls) == 4
        assert sorted(event.error for event in it.rig.events) == ["", "", "", "OSError"]

    async def test_a_plain_answer_that_breaks_off_fails_one_caller(self) -> None:
        it = Async(aplain(PLAIN[0][:9], OSError("reset")), aplain)
        it.shut()
        tasks = it.start(*[it.read(request()) for _ in range(3)])
        await anyio.sleep(0.02)
        it.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, OSError) for result in results) == 1

    async def test_a_stream_that_breaks_off_does_so_for_all(self) -> None:
        answered = astreamed(PIECES[0], OSError("reset"))
        it = Async(answered)
        readers = [(await it.serve(request(stream=True))).rest for _ in range(2)]
        for reader in readers:
            assert await anext(reader) == PIECES[0]
            with pytest.raises(OSError, match="reset"):
                await anext(reader)
            assert [chunk async for chunk in reader] == []
        assert (it.rig.cache.entries, answered.body.closes) == ({}, 1)
        assert [event.error for event in it.rig.events] == ["OSError"] * 2

    async def test_another_form_waits_for_the_entry(self) -> None:
        it = Async(astreamed())
        leader = await it.serve(request(stream=True, stream_options={"include_usage": True}))
        results = await asyncio.gather(*[it.read(request()) for _ in range(2)])
        assert {served.outcome.cache_status for served, _ in results} == {'llm-proxy; hit; detail="exact"'}
        assert await it.rest(leader) == b"".join(PIECES)
        assert len(it.upstream.calls) == 1

    async def test_waiting_has_an_end(self) -> None:
        it = Async(aplain)
        it.shut()
        tasks = it.start(*[it.read(request(timeout_s=0.02)) for _ in range(2)])
        await anyio.sleep(0.1)
        it.open.set()
        assert [(await task)[0].outcome.is_shared for task in tasks] == [False, False]
        assert len(it.upstream.calls) == 2

    async def test_a_slow_reader_blocks_nobody(self) -> None:
        it = Async(astreamed())
        slow, fast = await it.serve(request(stream=True)), await it.serve(request(stream=True))
        assert await anext(slow.rest) == PIECES[0]
        assert await it.rest(fast) == b"".join(PIECES)
        assert await it.rest(slow) == b"".join(PIECES[1:])

    async def test_an_answer_too_large_to_keep_is_passed_on(self) -> None:
        steps = [b'{"a":"' + b"x" * 200, b"x" * 200, b'"}']
        it = Async(aplain(*steps), sections={"cache": {"max_entry_bytes": 100}})
        served = await it.serve(request())
        assert served.body == steps[0]
        assert await it.rest(served) == b"".join(steps)
        assert (it.rig.cache.entries, it.rig.event.outcome.detail) == ({}, "too-large")

    async def test_settled_once_although_it_is_drained_after_the_end(self) -> None:
        it = Async(astreamed(*PIECES, b": bye\n\n"))
        served = await it.serve(request(stream=True))
        got = [await anext(served.rest) for _ in PIECES]
        assert (len(it.rig.events), len(it.rig.cache.entries), len(it.flights)) == (1, 1, 0)
        got += [chunk async for chunk in served.rest]
        assert got == [*PIECES, b": bye\n\n"]
        await served.close()
        assert len(it.rig.events) == 1
