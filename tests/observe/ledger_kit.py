"""A ledger with a clock and timers that tests move."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.testing import FakeClock
from llm_proxy.types import Outcome, Usage

MISS = CallEvent(1_700_000_000.0, Outcome("miss", model="m"), 0.25, usage=Usage(10, 20))


class Later:
    """Timers that go off when told."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.delays: list[float] = []
        self.error: RuntimeError | None = None

    def __call__(self, after_s: float, function: Callable[[], None]) -> Any:
        if self.error is not None:
            raise self.error
        self.delays.append(after_s)
        self.waiting.append(function)
        later = self

        class Timer:
            def cancel(self) -> None:
                if function in later.waiting:
                    later.waiting.remove(function)

        return Timer()

    def go_off(self) -> None:
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


class Bench:
    """A ledger with its clock, timers and troubles."""

    def __init__(self, path: Path, *, max_rows: int = 1000) -> None:
        self.path, self.clock, self.later, self.troubles = path, FakeClock(), Later(), Troubles()
        self.ledger = Ledger(
            path, monotonic=self.clock.monotonic, max_rows=max_rows, troubles=self.troubles, later=self.later
        )

    def rows(self, what: str = "*") -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(f"SELECT {what} FROM calls ORDER BY id").fetchall()
