"""Waits for a turn, on a thread or in a task of any event loop; whoever gives the turn may be in another one."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from .engine.effects import Late

if TYPE_CHECKING:
    from .engine.effects import Stand

__all__ = ["stood", "stood_async"]


_COLLECT_S = 1.0
"""After so long a wait, what was dropped is collected: a stream that nobody reads any more may hold the slot."""


def stood(effect: Stand) -> None:
    """Perform `Stand` on this thread."""
    called = threading.Event()
    effect.when_called(called.set)
    first_s, limit_s = _COLLECT_S, effect.limit_s
    if limit_s is not None:
        first_s, limit_s = min(first_s, limit_s), max(0.0, limit_s - first_s)
    if called.wait(first_s):
        return
    gc.collect()
    if not called.wait(limit_s):
        raise Late


async def stood_async(effect: Stand) -> None:
    """Perform `Stand` in this task."""
    called = anyio.Event()
    effect.when_called(_in_this_loop(called.set))
    with anyio.move_on_after(effect.limit_s):
        with anyio.move_on_after(_COLLECT_S):
            await called.wait()
            return
        gc.collect()
        await called.wait()
        return
    raise Late


def _in_this_loop(call: Callable[[], object]) -> Callable[[], object]:
    """What has a function called in the running loop, from any thread; raises RuntimeError once the loop is over."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # the other library that anyio runs under
        import trio

        return partial(trio.lowlevel.current_trio_token().run_sync_soon, call)
    return partial(loop.call_soon_threadsafe, call)
