"""The log of outcomes under several writers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from llm_proxy.observe.outcome_rows import logged
from tests.observe.test_outcome_log import Desk


def _write_many(path: Path, number: int, start: Any) -> None:
    desk = Desk(path)
    start.wait(30)
    for at in range(50):
        desk.call(f"r{number}-{at}")
        desk.grade(f"r{number}-{at}")
        desk.log.flush()
    desk.log.close()
    raise SystemExit(sum(desk.troubles.counts.values()))


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite3"
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_write_many, args=(path, number, start)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(list(logged(path))) == 150
