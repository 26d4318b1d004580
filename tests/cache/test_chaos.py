"""The chaos of `tests.cache.chaos`, short and small; ``python -m tests.cache.chaos`` is the long form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from . import chaos


def test_processes_that_are_killed_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = chaos.main(["--processes", "4", "--seconds", "3", "--directory", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    assert (status, told["ok"]) == (0, True), told
    for run in told["runs"]:
        assert run["killed"] >= 2
        assert run["acknowledged"] > 0


def test_the_chaos_notices_a_loss(tmp_path: Path) -> None:
    """The judge itself is judged: an acknowledged entry that is not there, an error, and a miss are told."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "1.log").write_text("+ lost\n+ withdrawn\n- withdrawn\n! missed\n")
    (notes / "1.errors").write_text("CacheError: no\n")
    verdict = chaos.Verdict("keeping", 1, 1.0)
    chaos._count(tmp_path / "cache", notes, verdict)
    assert (verdict.lost, verdict.acknowledged) == (1, 2)
    assert verdict.errors == ["missed was not found while its writer ran", "CacheError: no"]


def test_a_worker_in_this_process(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    worker = chaos.Worker(tmp_path / "cache", notes, 1, is_evicting=False)
    for _ in range(60):
        worker.step()
    worker.cache.close()
    assert (notes / f"{worker.name}.log").read_text().count("!") == 0
    assert worker.count > 10
    os.close(worker.log)
