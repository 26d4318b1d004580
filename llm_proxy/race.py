"""Two requests for one answer: the second begins a while after the first, and the one that answers first is taken."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from .engine.effects import Race, Raced

if TYPE_CHECKING:
    from .engine.effects import Flow

__all__ = ["raced", "raced_async"]


def raced(effect: Race, run: Callable[[Flow[Any]], Any]) -> Raced:
    """Perform `Race`, each request on a thread of its own: a thread can't be made to stop waiting for an upstream.

    The loser's answer is closed as soon as it begins.
    """
    race = _SyncRace(effect, run)
    try:
        return race.decide()
    finally:
        race.end()


class _SyncRace:
    """One race; what comes after its end is closed."""

    def __init__(self, effect: Race, run: Callable[[Flow[Any]], Any]) -> None:
        self._effect, self._run = effect, run
        self._came: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_over = False

    def decide(self) -> Raced:
        self._start(0)
        try:
            results = [self._came.get(timeout=self._effect.after_s)]
            is_both = False
        except queue.Empty:
            self._start(1)
            results, is_both = [self._came.get()], True
            if not self._wins(results[0][1]):
                results.append(self._came.get())
        index, value = next((row for row in results if self._wins(row[1])), min(results, key=lambda row: row[0]))
        if isinstance(value, BaseException):
            raise value
        return Raced(index, value, is_both)

    def end(self) -> None:
        """Close what comes later, and what came and is not taken."""
        with self._lock:
            self._is_over = True
            left = [self._came.get_nowait()[1] for _ in range(self._came.qsize())]
        for value in left:
            self._drop(value)

    def _wins(self, value: Any) -> bool:
        return not isinstance(value, BaseException) and self._effect.wins(value)

    def _start(self, index: int) -> None:
        threading.Thread(target=self._work, args=(index,), name="llm-proxy-race", daemon=True).start()

    def _work(self, index: int) -> None:
        try:
            value = self._run(self._effect.flows[index])
        except BaseException as exc:  # noqa: BLE001 - raised where the race is decided
            value = exc
        with self._lock:
            if not self._is_over:
                self._came.put((index, value))
                return
        self._drop(value)

    def _drop(self, value: Any) -> None:
        close = getattr(getattr(value, "body", None), "close", None)
        if close is not None:
            close()


async def raced_async(effect: Race, run: Callable[[Flow[Any]], Awaitable[Any]]) -> Raced:
    """Perform `Race` in two tasks; the loser is cancelled."""
    came: list[tuple[int, Any]] = []
    changed = anyio.Event()

    async def work(index: int) -> None:
        nonlocal changed
        try:
            value = await run(effect.flows[index])
        except Exception as exc:  # noqa: BLE001 - raised where the race is decided
            value = exc
        came.append((index, value))
        changed.set()

    def wins(value: Any) -> bool:
        return not isinstance(value, BaseException) and effect.wins(value)

    is_both = False
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(work, 0)
            with anyio.move_on_after(effect.after_s):
                await changed.wait()
            if not came:
                is_both = True
                group.start_soon(work, 1)
                await changed.wait()
                if not wins(came[0][1]) and len(came) == 1:
                    changed = anyio.Event()
                    await changed.wait()
            group.cancel_scope.cancel()
        index, value = next((row for row in came if wins(row[1])), min(came, key=lambda row: row[0]))
    except BaseException:
        await _drop([value for _, value in came])
        raise
    await _drop([other for _, other in came if other is not value])
    if isinstance(value, BaseException):
        raise value
    return Raced(index, value, is_both)


async def _drop(values: list[Any]) -> None:
    for value in values:
        aclose = getattr(getattr(value, "body", None), "aclose", None)
        if aclose is not None:
            with anyio.CancelScope(shield=True):
                await aclose()
