"""Two flows for one answer: which is taken, and what becomes of the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from llm_proxy.engine.effects import Race, Raced
from llm_proxy.race import _SyncRace, raced, raced_async
from llm_proxy.types import Head

pytestmark = pytest.mark.anyio
SOON_S, NEVER_S = 0.02, 60.0


class Body:
    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def close(self) -> None:
        self.is_closed.set()

    async def aclose(self) -> None:
        self.is_closed.set()


def answer() -> Head:
    return Head(200, (), Body())


def is_answer(value: Any) -> bool:
    return isinstance(value, Head)


class Lane:
    """One of two flows: what it brings, once it may."""

    def __init__(self, value: Any, *, may_end: bool = True) -> None:
        self.value, self.begun = value, threading.Event()
        self.may_end = threading.Event()
        if may_end:
            self.may_end.set()

    def run(self) -> Any:
        self.begun.set()
        assert self.may_end.wait(30)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    async def arun(self) -> Any:
        self.begun.set()
        await anyio.to_thread.run_sync(self.may_end.wait, 5, abandon_on_cancel=True)  # none may outlive the tests
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


async def run(kind: str, first: Lane, second: Lane, after_s: float) -> Raced:
    effect = Race((first, second), after_s, is_answer)  # type: ignore[arg-type]
    if kind == "sync":
        call: Callable[[], Raced] = lambda: raced(effect, lambda flow: flow.run())  # type: ignore[attr-defined]  # noqa: E731
        return await anyio.to_thread.run_sync(call)
    return await raced_async(effect, lambda flow: flow.arun())  # type: ignore[attr-defined]


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_the_first_alone(kind: str) -> None:
    first, second = Lane(answer()), Lane(answer())
    assert await run(kind, first, second, NEVER_S) == Raced(0, first.value, False)
    assert not second.begun.is_set()


async def test_a_failure_before_the_second_begins(kind: str) -> None:
    assert await run(kind, Lane("failed"), Lane(answer()), NEVER_S) == Raced(0, "failed", False)
    with pytest.raises(OSError, match="x"):
        await run(kind, Lane(OSError("x")), Lane(answer()), NEVER_S)


async def test_the_second_overtakes(kind: str) -> None:
    first, second = Lane(answer(), may_end=False), Lane(answer())
    assert await run(kind, first, second, SOON_S) == Raced(1, second.value, True)
    assert not second.value.body.is_closed.is_set()
    first.may_end.set()
    if kind == "sync":  # the thread goes on; what it brings is closed
        assert first.value.body.is_closed.wait(30)


@pytest.mark.parametrize("failure", ["failed", OSError("x")])
async def test_the_first_where_the_second_fails(kind: str, failure: Any) -> None:
    first = Lane(answer(), may_end=False)

    class Second(Lane):
        def run(self) -> Any:
            first.may_end.set()
            return super().run()

        async def arun(self) -> Any:
            first.may_end.set()
            return await super().arun()

    assert await run(kind, first, Second(failure), SOON_S) == Raced(0, first.value, True)


async def test_nobody_wins(kind: str) -> None:
    first = Lane("one", may_end=False)

    class Second(Lane):
        def run(self) -> Any:
            first.may_end.set()
            return super().run()

        async def arun(self) -> Any:
            first.may_end.set()
            return await super().arun()

    assert await run(kind, first, Second("other"), SOON_S) == Raced(0, "one", True)


async def test_a_caller_who_leaves() -> None:
    first, second = Lane(answer(), may_end=False), Lane(answer(), may_end=False)
    with anyio.move_on_after(0.1) as scope:
        await run("async", first, second, SOON_S)
    assert scope.cancelled_caught
    assert second.begun.is_set()


def test_a_thread_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lane(answer(), may_end=False)

    class Interrupted(Exception):
        pass

    def wins(value: Any) -> bool:
        raise Interrupted

    effect = Race((Lane(answer()), first), NEVER_S, wins)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        raced(effect, lambda flow: flow.run())  # type: ignore[attr-defined]


async def test_a_caller_who_leaves_after_a_failure() -> None:
    first, second = Lane("failed", may_end=False), Lane(answer(), may_end=False)
    with anyio.move_on_after(0.3) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(run, "async", first, second, SOON_S)
            await anyio.to_thread.run_sync(second.begun.wait)
            first.may_end.set()
    assert scope.cancelled_caught


@pytest.mark.parametrize("value", [answer(), "failed"])
def test_what_came_beside_the_winner_is_closed(value: Any) -> None:
    race = _SyncRace(Race((Lane(value), Lane(value)), NEVER_S, is_answer), lambda flow: flow.run())  # type: ignore[arg-type,attr-defined]
    race._came.put((1, value))
    race.end()
    race._work(0)
    assert race._came.empty()
    assert value == "failed" or value.body.is_closed.is_set()
