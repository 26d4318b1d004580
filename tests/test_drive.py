"""Both drivers, and how callers share an answer under way: between threads, and between the tasks of a loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from llm_proxy.drive import AsyncDriver, Driver, Flights, Served, _within
from llm_proxy.engine.effects import Background, Compute, Flow, Forward
from llm_proxy.engine.flights import Flight
from llm_proxy.pull import SharedFlight
from llm_proxy.testing import FakeEncoder
from llm_proxy.types import ChatRequest, Head, Outgoing
from tests.fakes import FakeCache, Found, Rig, body_of, completion, entry, events_of, head, request

SSE = "text/event-stream"
PIECES = events_of("one ", "two ", "three")
PLAIN = [body_of(completion("one two three"))]
SLOW_S = 5.0  # a test that waits as long has failed


class Body:
    """An upstream's body: chunks and errors, each behind a gate where one is given; counts what is done to it."""

    def __init__(self, steps: list[Any], *, gate: threading.Semaphore | None = None) -> None:
        self.steps, self.gate = list(steps), gate
        self.pulls = self.closes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.pulls += 1
        if self.gate is not None:
            assert self.gate.acquire(timeout=SLOW_S)
        return self._step()

    def _step(self) -> bytes:
        if not self.steps:
            raise StopIteration
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        chunk: bytes = step
        return chunk

    def close(self) -> None:
        self.closes += 1


class Upstream:
    """Answers each request with the next of ``answers`` (the last for ever); an exception is raised instead."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Outgoing] = []
        self.open = threading.Event()
        self.open.set()
        self.meet: threading.Barrier | None = None
        self._lock = threading.Lock()

    def __call__(self, outgoing: Outgoing) -> Head:
        with self._lock:
            self.calls.append(outgoing)
            is_first = len(self.calls) == 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert self.open.wait(SLOW_S)
        if self.meet is not None and not is_first:
            self.meet.wait(SLOW_S)
        if isinstance(answer, BaseException):
            raise answer
        found: Head = answer() if callable(answer) else answer
        return found


def streamed(*steps: Any, gate: Any = None) -> Head:
    return head(Body(list(steps) or PIECES, gate=gate), content_type=SSE)


def plain(*steps: Any, gate: Any = None) -> Head:
    return head(Body(list(steps) or PLAIN, gate=gate))


def until(happens: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SLOW_S
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def aboard(flights: Flights) -> int:
    """How many callers have a seat."""
    return sum(len(flight._seats) for flight in list(flights._table.values()))


def rest_of(served: Served) -> bytes:
    return served.body + b"".join(served.rest or ())


class Sync:
    """The sync driver among stand-ins."""

    def __init__(self, upstream: Upstream, **options: Any) -> None:
        self.rig = Rig(**options)
        self.flights = Flights()
        self.upstream = upstream
        self.pool = ThreadPoolExecutor(4)
        self.driver = Driver(self.flights, lambda: self.pool)

    def serve(self, call: ChatRequest) -> Served:
        return self.driver.serve(self.rig.engine.answer(call), self.upstream)

    def read(self, call: ChatRequest) -> tuple[Served, bytes]:
        served = self.serve(call)
        return served, rest_of(served)


@contextmanager
def sync(*answers: Any, **options: Any) -> Iterator[Sync]:
    found = Sync(Upstream(*answers), **options)
    with found.pool:
        yield found
    gc.collect()
    assert len(found.flights) == 0


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio")}  # it keeps some

    before = threads()
    yield
    gc.collect()
    until(lambda: threads() <= before)


class Together:
    """Several calls at once, in threads."""

    def __init__(self, *work: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(len(work))
        self.futures = [self._pool.submit(call) for call in work]

    def results(self) -> list[Any]:
        try:
            return [future.exception(SLOW_S) or future.result(SLOW_S) for future in self.futures]
        finally:
            self._pool.shutdown()


class TestSync:
    @pytest.mark.parametrize("is_stream", [True, False])
    def test_identical_calls_are_one_upstream(self, is_stream: bool) -> None:
        with sync(streamed() if is_stream else plain()) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(stream=is_stream))] * 8)
            until(lambda: aboard(it.flights) == 8)
            it.upstream.open.set()
            results = calls.results()
            assert {body for _, body in results} == {b"".join(PIECES if is_stream else PLAIN)}
            assert len(it.upstream.calls) == 1
            assert sorted(served.outcome.is_shared for served, _ in results) == [False] + [True] * 7
            assert (len(it.rig.cache.entries), len(it.rig.events)) == (1, 8)
            assert [event.error for event in it.rig.events] == [""] * 8
            assert {event.outcome.is_stored for event in it.rig.events} == {True}

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_the_body_is_closed_at_its_end(self, is_stream: bool) -> None:
        answered = streamed() if is_stream else plain()
        with sync(answered) as it:
            it.read(request(stream=is_stream))
            assert answered.body.closes >= 1, "else its connection is never free again"

    def test_who_leaves_does_not_harm_the_others(self) -> None:
        gate = threading.Semaphore(1)
        with sync(streamed(gate=gate)) as it:
            leader, follower = it.serve(request(stream=True)), it.serve(request(stream=True))
            assert next(leader.rest) == PIECES[0]
            leader.close()
            assert list(leader.rest) == []
            gate.release(9)
            assert rest_of(follower) == b"".join(PIECES)
            assert len(it.rig.cache.entries) == 1
            assert [(event.error, event.outcome.is_shared) for event in it.rig.events] == [("", False), ("", True)]

    def test_when_all_leave_the_call_is_called_off(self) -> None:
        answered = streamed()
        with sync(answered) as it:
            one, two = it.serve(request(stream=True)), it.serve(request(stream=True))
            next(one.rest)
            one.close()
            assert answered.body.closes == 0
            two.close()
            two.close()
            assert answered.body.closes == 1
            assert it.rig.cache.entries == {}
            assert [(event.error, event.outcome.is_stored) for event in it.rig.events] == [
                ("aborted", False if not event.outcome.is_shared else event.outcome.is_stored)
                for event in it.rig.events
            ]
            assert len(it.flights) == 0

    def test_a_body_that_cannot_be_closed_is_left(self) -> None:
        with sync(head(iter(PIECES), content_type=SSE)) as it:
            it.serve(request(stream=True)).close()
            assert it.rig.event.error == "aborted"

    def test_trouble_is_not_shared(self) -> None:
        with sync(OSError("refused"), plain) as it:
            it.upstream.open.clear()
            it.upstream.meet = threading.Barrier(3)  # those who go on do so at the same time
            calls = Together(*[lambda: it.read(request())] * 4)
            until(lambda: aboard(it.flights) == 4)
            it.upstream.open.set()
            results = calls.results()
            assert sum(isinstance(result, OSError) for result in results) == 1
            assert len(it.upstream.calls) == 4
            assert sorted(event.error for event in it.rig.events) == ["", "", "", "OSError"]

    def test_a_plain_answer_that_breaks_off_fails_one_caller(self) -> None:
        gate = threading.Semaphore(0)
        with sync(plain(PLAIN[0][:9], OSError("reset"), gate=gate), plain) as it:
            calls = Together(*[lambda: it.read(request())] * 3)
            until(lambda: aboard(it.flights) == 3)
            gate.release(9)
            results = calls.results()
            assert sum(isinstance(result, OSError) for result in results) == 1
            assert len(it.upstream.calls) in (2, 3), "or the third finds what the second stored"

    def test_a_stream_that_breaks_off_does_so_for_all(self) -> None:
        error = OSError("reset")
        answered = streamed(PIECES[0], error)
        with sync(answered) as it:
            readers = [it.serve(request(stream=True)).rest for _ in range(2)]
            for reader in readers:
                assert next(reader) == PIECES[0]
                with pytest.raises(OSError, match="reset"):
                    next(reader)
                assert list(reader) == []
            assert (it.rig.cache.entries, answered.body.closes) == ({}, 1)
            assert [event.error for event in it.rig.events] == ["OSError"] * 2

    def test_another_form_waits_for_the_entry(self) -> None:
        gate = threading.Semaphore(0)
        call = {"stream_options": {"include_usage": True}}
        with sync(streamed(gate=gate)) as it:
            leader = it.serve(request(stream=True, **call))
            calls = Together(*[lambda: it.read(request())] * 2)
            until(lambda: aboard(it.flights) == 3)
            gate.release(9)
            results = calls.results()
            assert {served.outcome.cache_status for served, _ in results} == {'llm-proxy; hit; detail="exact"'}
            assert b"one two three" in results[0][1]
            assert rest_of(leader) == b"".join(PIECES)
            assert len(it.upstream.calls) == 1

    def test_a_slow_reader_blocks_nobody(self) -> None:
        with sync(streamed()) as it:
            slow, fast = it.serve(request(stream=True)), it.serve(request(stream=True))
            assert next(slow.rest) == PIECES[0]
            assert rest_of(fast) == b"".join(PIECES)
            assert b"".join(slow.rest) == b"".join(PIECES[1:])

    def test_who_waits_gets_its_chunk_while_another_pulls_on(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            eager, other = it.serve(request(stream=True)), it.serve(request(stream=True))
            calls = Together(lambda: rest_of(eager), lambda: next(other.rest))
            until(lambda: answered.body.pulls == 1)
            gate.release()
            assert calls.futures[1].result(SLOW_S) == PIECES[0]
            until(lambda: answered.body.pulls == 2)
            gate.release(9)
            assert calls.results()[0] == b"".join(PIECES)
            assert rest_of(other) == b"".join(PIECES[1:])

    def test_waiting_has_an_end(self) -> None:
        with sync(plain) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(timeout_s=0.02))] * 2)
            until(lambda: len(it.upstream.calls) == 2)
            it.upstream.open.set()
            assert [served.outcome.is_shared for served, _ in calls.results()] == [False, False]

    def test_only_the_equally_patient_share(self) -> None:
        with sync(streamed) as it:
            patient, hasty = it.serve(request(stream=True)), it.serve(request(stream=True, timeout_s=1))
            assert rest_of(patient) == rest_of(hasty)
            assert len(it.upstream.calls) == 2

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_an_answer_too_large_to_keep_is_passed_on(self, is_stream: bool) -> None:
        text = "x" * 400
        steps = events_of(*[text] * 9) if is_stream else [body_of(completion(text))[start::2] for start in (0, 1)]
        steps = steps if is_stream else [b'{"a":"' + b"x" * 200, b"x" * 200, b'"}']
        answered = streamed(*steps) if is_stream else plain(*steps)
        with sync(answered, streamed, sections={"cache": {"max_entry_bytes": 100}}) as it:
            served, other = it.serve(request(stream=is_stream)), None
            if not is_stream:
                assert served.body == steps[0]
            got = [*([served.body] if served.body else []), next(served.rest), *served.rest]
            assert (got, other) == (steps, None)
            assert (it.rig.cache.entries, it.rig.event.outcome.detail) == ({}, "too-large")
            served.close()

    def test_what_overflows_is_not_kept_and_not_joined(self) -> None:
        steps = events_of(*["x" * 400] * 9)
        with sync(streamed(*steps), streamed, sections={"cache": {"max_entry_bytes": 100}}) as it:
            one, two = it.serve(request(stream=True)), it.serve(request(stream=True))
            (flight,) = it.flights._table.values()
            for _ in range(6):
                next(one.rest)
            assert flight.is_overflowed
            assert len(flight._chunks) == 6
            third = it.serve(request(stream=True))
            assert rest_of(third) == b"".join(PIECES)
            for _ in range(6):
                next(two.rest)
            assert flight._chunks == []
            assert b"".join(one.rest) == b"".join(two.rest) == b"".join(steps[6:])

    def test_a_plain_follower_of_what_overflows_reads_on(self) -> None:
        steps = [b'{"a":"' + b"x" * 200, b"x" * 200, b'"}']
        gate = threading.Semaphore(0)
        with sync(plain(*steps, gate=gate), sections={"cache": {"max_entry_bytes": 100}}) as it:
            calls = Together(*[lambda: it.read(request())] * 2)
            until(lambda: aboard(it.flights) == 2)
            gate.release(9)
            assert [body for _, body in calls.results()] == [b"".join(steps)] * 2

    def test_settled_once_although_more_is_read_after_the_end(self) -> None:
        with sync(streamed(*PIECES, b": bye\n\n")) as it:
            served = it.serve(request(stream=True))
            got = [next(served.rest) for _ in PIECES]
            assert (len(it.rig.events), len(it.rig.cache.entries), len(it.flights)) == (1, 1, 0)
            assert [*got, *served.rest] == [*PIECES, b": bye\n\n"]
            served.close()
            assert len(it.rig.events) == 1

    def test_a_client_that_stops_at_the_end_has_its_answer_stored(self) -> None:
        answered = streamed()
        with sync(answered) as it:
            served = it.serve(request(stream=True))
            for _ in PIECES:
                next(served.rest)
            served.close()
            assert (len(it.rig.cache.entries), it.rig.event.error, answered.body.closes) == (1, "", 1)

    def test_a_stream_without_its_end_is_not_stored(self) -> None:
        with sync(streamed(*PIECES[:2])) as it:
            assert it.read(request(stream=True))[1] == b"".join(PIECES[:2])
            assert (it.rig.cache.entries, it.rig.event.error) == ({}, "body-truncated")

    def test_a_plain_body_without_a_length_ends_with_the_body(self) -> None:
        with sync(plain()) as it:
            served, body = it.read(request())
            assert (served.outcome.is_stored, body, served.rest) == (True, PLAIN[0], None)

    def test_a_miss_that_looked_too_early_looks_again(self) -> None:
        class Early(FakeCache):
            looks = 0

            def get(self, key: str) -> Any:
                self.looks += 1
                return None if self.looks in (1, 2) else super().get(key)

        with sync(plain(), cache=Early()) as it:
            it.read(request())
            assert it.read(request())[0].outcome.kind == "exact"
            assert (it.rig.cache.looks, len(it.upstream.calls)) == (3, 1)

    def test_the_memory_of_landings_is_short(self) -> None:
        with sync(plain) as it:
            for number in range(1030):
                it.read(request(str(number)))
            assert len(it.flights._landed) == 1024

    def test_an_answer_that_is_dropped_unread_holds_up_nobody(self) -> None:
        with sync(streamed) as it:
            served = it.serve(request(stream=True))
            del served
            gc.collect()
            assert it.read(request(stream=True))[1] == b"".join(PIECES)
            assert len(it.upstream.calls) == 2

    @pytest.mark.parametrize("is_early", [True, False])
    def test_an_interrupted_thread_does_not_take_the_others_along(self, is_early: bool) -> None:
        answers = [KeyboardInterrupt()] if is_early else [streamed(PIECES[0], KeyboardInterrupt())]
        with sync(*answers, streamed) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(stream=True))] * 2)
            until(lambda: aboard(it.flights) == 2)
            it.upstream.open.set()
            results = calls.results()
            assert sum(isinstance(result, KeyboardInterrupt) for result in results) == 1
            other = next(result for result in results if not isinstance(result, KeyboardInterrupt))
            if isinstance(other, Exception):
                assert isinstance(other, ConnectionAbortedError), "cut, and visibly so"
            else:
                assert other[1] == b"".join(PIECES)
            assert len(it.flights) == 0

    def test_a_reader_may_be_closed_from_another_thread(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            served = it.serve(request(stream=True))
            calls = Together(lambda: list(served.rest))
            until(lambda: answered.body.pulls == 1)
            served.close()
            assert answered.body.closes == 1
            gate.release(9)
            assert calls.results()[0] in ([], [PIECES[0]])
            assert it.rig.event.error == "aborted"

    def test_a_thread_that_waits_for_another_ends_when_both_readers_are_closed(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            readers = [it.serve(request(stream=True)) for _ in range(2)]
            calls = Together(*[lambda served=served: list(served.rest) for served in readers])
            until(lambda: answered.body.pulls == 1)
            for served in readers:
                served.close()
            until(lambda: any(future.done() for future in calls.futures))
            gate.release(9)
            assert [] in calls.results()

    def test_a_late_encoder_is_not_waited_for(self) -> None:
        class Slow(FakeEncoder):
            go = threading.Event()

            def encode(self, text: str) -> Any:
                assert self.go.wait(SLOW_S)
                return super().encode(text)

        with sync(plain(), encoder=Slow(), sections={"encoder": {"wait_s": 0.01}}) as it:
            served, _ = it.read(request())
            assert served.outcome.detail == "encoder-late"
            assert it.rig.cache.entries[served.outcome.key].vector is None
            Slow.go.set()
            until(lambda: it.rig.cache.attached)

    def test_what_comes_at_the_last_moment_counts(self) -> None:
        class Tardy(Future[int]):
            def result(self, timeout: float | None = None) -> int:
                if timeout is not None:
                    self.set_result(7)
                    raise TimeoutError
                return super().result(timeout)

        assert _within(Tardy(), 0.01) == 7

    def test_a_time_out_of_the_work_itself_is_its_own(self) -> None:
        def work() -> None:
            raise TimeoutError("inside")

        def flow() -> Flow[None]:
            yield Compute(work, 1.0)

        with sync() as it, pytest.raises(TimeoutError, match="inside"):
            it.driver.run(flow())

    def test_background_work_is_done(self) -> None:
        done: list[int] = []

        def flow() -> Flow[str]:
            yield Background(lambda: done.append(1))
            return "result"

        with sync() as it:
            assert it.driver.run(flow()) == "result"
            until(lambda: done)

    def test_a_flow_is_closed_whatever_happens(self) -> None:
        closed: list[str] = []

        def flow() -> Flow[None]:
            try:
                yield Compute(lambda: 1 / 0)
            finally:
                closed.append("yes")

        with sync() as it, pytest.raises(ZeroDivisionError):
            it.driver.run(flow())
        assert closed == ["yes"]

    def test_a_flow_that_forwards_needs_a_way_to(self) -> None:
        def flow() -> Flow[Any]:
            yield Forward(Outgoing("", (), b""))

        with sync() as it:
            with pytest.raises(RuntimeError, match="no way to send one was given"):
                it.driver.run(flow())
            with pytest.raises(RuntimeError, match="no way to send one was given"):
                it.driver.run(it.rig.engine.answer(request()))

    def test_what_is_not_recorded_passes(self) -> None:
        answered = head(Body([b"no"]), status=500)
        with sync(answered) as it:
            served = it.serve(request())
            assert (served.status, served.rest, served.outcome.status) == (500, answered.body, "miss")
            served.close()
            assert answered.body.closes == 1

    def test_hits_are_ready(self) -> None:
        with sync(plain()) as it:
            it.read(request())
            served = it.serve(request())
            assert (served.status, served.body, served.rest, served.close) == (200, PLAIN[0], None, None)

    def test_followers_of_a_leader_who_finds_the_answer(self) -> None:
        class Slow(FakeEncoder):
            go = threading.Event()

            def encode(self, text: str) -> Any:
                assert self.go.wait(SLOW_S)
                return super().encode(text)

        with sync(encoder=Slow(), sections={"encoder": {"wait_s": 5}}) as it:
            it.rig.cache.found = Found(entry(), 0.99)
            calls = Together(*[lambda: it.read(request())] * 3)
            until(lambda: aboard(it.flights) == 3)
            Slow.go.set()
            assert {served.outcome.kind for served, _ in calls.results()} == {"semantic"}
            assert len(it.rig.encoder.texts) == 1


class AsyncBody(Body):
    """The same, asynchronous; ``hold`` is how many chunks it gives before it waits for ever."""

    def __init__(self, steps: list[Any], *, hold: int | None = None) -> None:
        super().__init__(steps)
        self.hold = hold
        self.cancels = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.pulls += 1
        try:
            if self.hold is not None and self.pulls > self.hold:
                await anyio.sleep(3600)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancels += 1
            raise
        try:
            return self._step()
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closes += 1


def astreamed(*steps: Any, hold: int | None = None) -> Head:
    return head(AsyncBody(list(steps) or PIECES, hold=hold), content_type=SSE)


def aplain(*steps: Any, hold: int | None = None) -> Head:
    return head(AsyncBody(list(steps) or PLAIN, hold=hold))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


class Async:
    """The async driver among stand-ins; its upstream waits for ``open`` before it answers."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        self.rig = Rig(**options)
        self.flights = Flights()
        self.upstream = Upstream(*answers)
        self.open = anyio.Event()
        self.open.set()
        self.cancelled_sends = 0
        self.driver = AsyncDriver(self.flights, ThreadPoolExecutor)

    async def _send(self, outgoing: Outgoing) -> Head:
        try:
            await self.open.wait()
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancelled_sends += 1
            raise
        return self.upstream(outgoing)

    def shut(self) -> None:
        self.open = anyio.Event()

    async def serve(self, call: ChatRequest) -> Served:
        return await self.driver.serve(self.rig.engine.answer(call), self._send)

    async def read(self, call: ChatRequest) -> tuple[Served, bytes]:
        served = await self.serve(call)
        return served, await self.rest(served)

    async def rest(self, served: Served) -> bytes:
        return served.body + b"".join([chunk async for chunk in served.rest] if served.rest is not None else [])

    def start(self, *calls: Awaitable[Any]) -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(call) for call in calls]


def own_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "SharedFlight" in repr(task) or "_aclose" in repr(task)}


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class TestAsync:
    @pytest.fixture(autouse=True)
    async def _no_task_is_left(self) -> AsyncIterator[None]:
        problems: list[Any] = []
        loop = asyncio.get_running_loop()
        had = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        yield
        gc.collect()
        await turns()
        loop.set_exception_handler(had)
        assert own_tasks() == set()
        assert problems == []

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
