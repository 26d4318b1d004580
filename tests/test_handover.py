"""Work handed to threads by tasks: in turn, within its limit, and given up without harm to the others."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from llm_proxy.engine.effects import Late
from llm_proxy.handover import Handover
from tests.drive_kit import SLOW_S, Together, cancelled

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def handover() -> AsyncIterator[Handover]:
    made = Handover(lambda: 2)
    yield made
    made.close()


class Held:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(SLOW_S)
        return "held"

    async def is_at_work(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, SLOW_S)


@pytest.fixture
def held() -> Iterator[Callable[[], Held]]:
    made: list[Held] = []

    def make() -> Held:
        made.append(Held())
        return made[-1]

    yield make
    for one in made:
        one.go.set()


async def test_work_is_done_in_another_thread_and_its_outcome_comes_back(handover: Handover) -> None:
    assert await handover(threading.get_ident, SLOW_S) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await handover(lambda: 1 // 0, SLOW_S)
    with pytest.raises(RuntimeError, match="StopIteration"):  # which no coroutine may raise
        await handover(lambda: next(iter(())), SLOW_S, SLOW_S)


async def test_work_sees_what_its_task_has_set(handover: Handover) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    name.set("somebody")
    assert await handover(name.get, SLOW_S) == "somebody"


async def test_an_error_leaves_nothing_for_the_collector(handover: Handover) -> None:
    class Lost(Exception):
        pass

    def fail() -> None:
        raise Lost

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Lost):
            await handover(fail, SLOW_S)
        await handover(str, SLOW_S)  # its thread has forgotten the error by now
        assert not [one for one in gc.get_objects() if isinstance(one, Lost)]
    finally:
        gc.enable()


async def test_so_many_are_at_work_and_the_others_come_in_turn(handover: Handover) -> None:
    at_work, most, order = 0, 0, []
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            order.append(number)
        time.sleep(0.002)
        with lock:
            at_work -= 1

    await asyncio.gather(*(handover(lambda number=number: work(number), SLOW_S, SLOW_S) for number in range(20)))
    assert most == 2
    assert all(abs(place - number) <= 1 for place, number in enumerate(order)), order


@pytest.mark.parametrize(("turn_s", "is_begun"), [(0.02, False), (0.0, True)])
async def test_a_turn_that_does_not_come(
    handover: Handover, held: Callable[[], Held], turn_s: float, is_begun: bool
) -> None:
    busy = [held(), held()]
    tasks = [asyncio.ensure_future(handover(one, SLOW_S)) for one in busy]
    for one in busy:
        await one.is_at_work()
    done: list[str] = []
    with pytest.raises(Late) as late:
        await handover(lambda: done.append("too late"), 0.02, turn_s)
    assert late.value.is_begun == is_begun
    for one in busy:
        one.go.set()
    assert await asyncio.gather(*tasks) == ["held", "held"]
    assert await handover(str, SLOW_S) == ""
    assert done == []


async def test_the_place_of_late_work_goes_to_the_next(held: Callable[[], Held]) -> None:
    handover, slow = Handover(lambda: 1), held()
    first = asyncio.ensure_future(handover(slow, 0.05))
    await slow.is_at_work()
    assert await handover(lambda: "next", SLOW_S, SLOW_S) == "next"
    with pytest.raises(Late) as late:
        await first
    assert late.value.is_begun
    slow.go.set()  # what it then brings is for nobody, and frees no place
    for _ in range(3):
        assert await handover(lambda: "free", SLOW_S) == "free"
    handover.close()


async def test_a_task_that_is_cancelled_makes_room(held: Callable[[], Held]) -> None:
    handover, slow, done = Handover(lambda: 1), held(), list[str]()
    first = asyncio.ensure_future(handover(slow, SLOW_S))
    await slow.is_at_work()
    waiting = asyncio.ensure_future(handover(lambda: done.append("never"), SLOW_S, SLOW_S))
    heir = asyncio.ensure_future(handover(lambda: "heir", SLOW_S, SLOW_S))
    await asyncio.sleep(0.01)
    await cancelled(waiting)
    assert not heir.done()
    await cancelled(first)
    assert await heir == "heir"
    assert done == []
    handover.close()


async def test_a_result_that_came_while_the_loop_was_held_up_is_in_time(handover: Handover) -> None:
    task = asyncio.ensure_future(handover(lambda: "in time", 0.05))
    await asyncio.sleep(0)  # it has begun
    time.sleep(0.1)  # noqa: ASYNC251 - the loop is held up on purpose
    assert await task == "in time"


async def test_work_that_begins_after_others_has_its_whole_limit(held: Callable[[], Held]) -> None:
    handover, slow = Handover(lambda: 1), held()
    first = asyncio.ensure_future(handover(slow, SLOW_S))
    await slow.is_at_work()
    second = asyncio.ensure_future(handover(lambda: time.sleep(0.05) or "second", 0.1, SLOW_S))
    await asyncio.sleep(0.15)
    assert not second.done()
    slow.go.set()
    assert await asyncio.gather(first, second) == ["held", "second"]
    handover.close()


async def test_once_closed_it_begins_nothing(held: Callable[[], Held]) -> None:
    handover, slow = Handover(lambda: 1), held()
    first = asyncio.ensure_future(handover(slow, SLOW_S))
    await slow.is_at_work()
    heirs = [asyncio.ensure_future(handover(str, SLOW_S, SLOW_S)) for _ in range(2)]
    await asyncio.sleep(0)
    handover.close()
    handover.close()
    await cancelled(first)  # its place would go to an heir, for which there is no thread
    outcomes: list[Any] = await asyncio.gather(*heirs, handover(str, SLOW_S), return_exceptions=True)
    assert [type(one) for one in outcomes] == [RuntimeError] * 3


def test_loops_share_its_places() -> None:
    handover = Handover(lambda: 1)
    at_work: list[int] = []

    def work() -> int:
        at_work.append(1)
        most = len(at_work)
        time.sleep(0.002)
        at_work.pop()
        return most

    async def some() -> list[int]:
        return list(await asyncio.gather(*(handover(work, SLOW_S, SLOW_S) for _ in range(5))))

    assert Together(*[lambda: asyncio.run(some())] * 4).results() == [[1] * 5] * 4
    handover.close()


def test_a_loop_may_end_before_its_work(held: Callable[[], Held]) -> None:
    handover, slow = Handover(lambda: 1), held()

    async def begin() -> None:
        task = asyncio.ensure_future(handover(slow, SLOW_S))
        await slow.is_at_work()
        await cancelled(task)

    asyncio.run(begin())
    slow.go.set()

    async def again() -> str:
        found: str = await handover(lambda: "again", SLOW_S)
        return found

    assert asyncio.run(again()) == "again"
    handover.close()


async def test_by_default_there_are_as_many_as_cores(monkeypatch: pytest.MonkeyPatch, held: Callable[[], Held]) -> None:
    monkeypatch.setattr("llm_proxy.handover._cores", lambda: 3)
    handover, busy = Handover(), [held() for _ in range(3)]
    tasks = [asyncio.ensure_future(handover(one, SLOW_S)) for one in busy]
    for one in busy:
        await one.is_at_work()
    with pytest.raises(Late) as late:
        await handover(str, SLOW_S, 0.02)
    assert not late.value.is_begun
    for one in busy:
        one.go.set()
    assert await asyncio.gather(*tasks) == ["held"] * 3
    handover.close()
