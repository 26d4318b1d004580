"""What goes on beside calls: it follows the answer, delays nobody, and ends with the runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from llm_proxy import beside
from llm_proxy.beside import Tasks, Threads
from llm_proxy.engine.effects import Fetch, Fetched, Late
from llm_proxy.types import Head, Outgoing
from tests.drive_kit import SLOW_S, nothing_is_left_running, until

FETCH = Fetch(Outgoing("https://own.test", (), b"{}"), limit_bytes=10, limit_s=SLOW_S)

leftovers = pytest.fixture(autouse=True)(nothing_is_left_running)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PAUSE_S", 0.0)


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.close()


class Body:
    """Pieces of a body, plain or async; counts what was taken and whether it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.taken, self.is_closed = pieces, 0, False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class TestThreads:
    def test_it_runs_elsewhere_and_says_when_it_ended(self, threads: Threads) -> None:
        ran: list[threading.Thread] = []
        ended = threading.Event()
        threads.start(lambda: ran.append(threading.current_thread()), ended.set)
        assert ended.wait(SLOW_S)
        assert ran[0] is not threading.current_thread()
        assert ran[0].daemon, "a process that ends does not wait for it"

    def test_its_thread_stays_for_the_next(self, threads: Threads) -> None:
        ran: list[threading.Thread] = []
        for count in (1, 2):
            threads.start(lambda: ran.append(threading.current_thread()), lambda: None)
            until(lambda: len(ran) == count and threads._waiting == 1)  # noqa: B023 - called at once
        assert ran[0] is ran[1]

    def test_two_go_on_side_by_side(self, threads: Threads) -> None:
        both, ended = threading.Barrier(3), threading.Semaphore(0)
        for _ in range(2):
            threads.start(lambda: both.wait(SLOW_S), ended.release)
        both.wait(SLOW_S)
        assert all(ended.acquire(timeout=SLOW_S) for _ in range(2))

    def test_what_is_idle_for_long_ends(self, monkeypatch: pytest.MonkeyPatch, threads: Threads) -> None:
        monkeypatch.setattr(beside, "_IDLE_S", 0.0)
        ran: list[threading.Thread] = []
        threads.start(lambda: ran.append(threading.current_thread()), lambda: None)
        until(lambda: ran and not ran[0].is_alive())
        threads.start(lambda: ran.append(threading.current_thread()), lambda: None)
        until(lambda: len(ran) == 2)

    def test_what_is_closed_begins_nothing(self, threads: Threads) -> None:
        ran, ended = [], threading.Event()
        threads.close()
        threads.start(lambda: ran.append(1), ended.set)
        assert ended.wait(SLOW_S)
        assert ran == []

    def test_without_a_thread_it_ends_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        ended: list[int] = []
        threads = Threads()
        threads.start(lambda: ended.append(0), lambda: ended.append(1))
        assert (ended, len(threads._given)) == ([1], 0)

    def test_but_what_another_thread_took_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads, ended = Threads(), []

        def refuse(self: Any) -> None:
            threads._given.clear()
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        threads.start(lambda: None, lambda: ended.append(1))
        assert ended == []

    def test_an_answer_is_read_to_its_end(self) -> None:
        body = Body(b"one", b"two")
        assert Threads().fetch(FETCH, lambda outgoing: Head(200, (), body)) == Fetched(200, (), b"onetwo")
        assert body.is_closed

    def test_but_no_further_than_it_may_be_kept(self) -> None:
        body = Body(b"x" * 11, b"y")
        assert Threads().fetch(FETCH, lambda outgoing: Head(200, (), body)).body == b"x" * 11
        assert (body.taken, body.is_closed) == (1, True)

    def test_a_body_that_cannot_be_closed(self) -> None:
        assert Threads().fetch(FETCH, lambda outgoing: Head(204, (), ())) == Fetched(204, (), b"")

    def test_what_takes_too_long_is_late(self) -> None:
        body = Body(b"one", b"two")
        with pytest.raises(Late):
            Threads().fetch(Fetch(FETCH.outgoing, 10, -1.0), lambda outgoing: Head(200, (), body))
        assert (body.taken, body.is_closed) == (1, True)

    @pytest.mark.parametrize("pieces", [(b"one", b"two"), ()])
    def test_closing_ends_it_with_the_next_piece(self, pieces: tuple[bytes, ...]) -> None:
        threads, ended, after = Threads(), threading.Event(), []
        body = Body(*pieces)

        def send(outgoing: Outgoing) -> Head:
            threads.close()
            return Head(200, (), body)

        threads.start(lambda: after.append(threads.fetch(FETCH, send)), ended.set)
        assert ended.wait(SLOW_S)
        assert (after, body.taken <= 1, body.is_closed) == ([], True, True)


class TestTasks:
    def test_it_runs_in_a_task_and_says_when_it_ended(self) -> None:
        async def main() -> None:
            ended, ran = asyncio.Event(), []

            async def run() -> None:
                ran.append(asyncio.current_task())

            Tasks().start(run, ended.set)
            assert ran == []
            await asyncio.wait_for(ended.wait(), SLOW_S)
            assert ran != [asyncio.current_task()]

        asyncio.run(main())

    def test_closing_cancels_it_from_any_thread(self) -> None:
        async def main() -> None:
            tasks, begun, ended = Tasks(), asyncio.Event(), asyncio.Event()

            async def run() -> None:
                begun.set()
                await asyncio.sleep(SLOW_S)

            tasks.start(run, ended.set)
            await asyncio.wait_for(begun.wait(), SLOW_S)
            await asyncio.to_thread(tasks.close)
            await asyncio.wait_for(ended.wait(), SLOW_S)
            again: list[int] = []
            tasks.start(run, lambda: again.append(1))
            assert again == [1], "nothing more begins"

        asyncio.run(main())

    def test_it_ends_with_its_loop(self) -> None:
        tasks, ended = Tasks(), []

        async def main() -> None:
            async def run() -> None:
                await asyncio.sleep(SLOW_S)

            tasks.start(run, lambda: ended.append(1))

        asyncio.run(main())
        tasks.close()
        assert ended == [1]

    def test_a_loop_that_was_closed_is_left_alone(self) -> None:
        tasks = Tasks()
        loop = asyncio.new_event_loop()

        async def never() -> None:
            await asyncio.sleep(SLOW_S)

        task = loop.create_task(never())
        loop.run_until_complete(asyncio.sleep(0))
        tasks._tasks.add(task)
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        tasks.close()

    def test_without_an_asyncio_loop_it_ends_at_once(self) -> None:
        ended: list[int] = []
        Tasks().start(lambda: pytest.fail("it ran"), lambda: ended.append(1))
        assert ended == [1]

    def test_an_answer_is_read_to_its_end(self) -> None:
        body = Body(b"one", b"two")
        assert asyncio.run(self.fetched(body)) == Fetched(200, (), b"onetwo")
        assert body.is_closed

    def test_but_no_further_than_it_may_be_kept(self) -> None:
        body = Body(b"x" * 11, b"y")
        assert asyncio.run(self.fetched(body)).body == b"x" * 11
        assert (body.taken, body.is_closed) == (1, True)

    def test_what_takes_too_long_is_late(self) -> None:
        class Slow(Body):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"one"
                await asyncio.sleep(SLOW_S)

        body = Slow()
        with pytest.raises(Late):
            asyncio.run(self.fetched(body, limit_s=0.01))
        assert body.is_closed

    def test_a_body_that_cannot_be_closed(self) -> None:
        class Pieces:
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"one"

        assert asyncio.run(self.fetched(Pieces())).body == b"one"

    async def fetched(self, body: Any, *, limit_s: float = SLOW_S) -> Fetched:
        async def send(outgoing: Outgoing) -> Head:
            return Head(200, (), body)

        return await Tasks().fetch(Fetch(FETCH.outgoing, 10, limit_s), send)
