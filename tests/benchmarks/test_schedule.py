"""``benchmarks.schedule``: a queue on a clock of its own, against figures that can be told by hand."""

from __future__ import annotations

import gzip
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _outcomes, schedule
from benchmarks.schedule import Job
from llm_proxy.backends.queue import PATIENCE
from tests.benchmarks.test_contract import run
from tests.benchmarks.test_router import Topics
from tests.route.route_kit import lines, written

SPEED = 1.0


def served(jobs: list[Job], *, slots: int = 1, bound_s: float = math.inf, is_perfect: bool = False) -> list[float]:
    """When each began."""
    ended = schedule.run(jobs, slots=slots, bound_s=bound_s, tokens_per_second=SPEED, is_perfect=is_perfect)
    for job, arrived_s, begun_s, over_s in zip(jobs, *ended, strict=True):
        assert arrived_s == job.arrives_s <= begun_s
        assert over_s == begun_s + job.tokens
    return ended.begun_s


def test_one_slot() -> None:
    jobs = [Job(0.0, 10.0, 10.0), Job(1.0, 5.0, 50.0), Job(2.0, 3.0, 4.0), Job(3.0, 1.0, 6.0)]
    assert served(jobs, bound_s=0.0) == [0.0, 10.0, 15.0, 18.0]
    assert served(jobs) == [0.0, 14.0, 10.0, 13.0], "by what was predicted"
    assert served(jobs, is_perfect=True) == [0.0, 14.0, 11.0, 10.0], "by what is"


def test_two_slots() -> None:
    jobs = [Job(0.0, 10.0, 10.0), Job(0.0, 4.0, 4.0), Job(1.0, 1.0, 1.0), Job(30.0, 1.0, 1.0)]
    assert served(jobs, slots=2) == [0.0, 0.0, 4.0, 30.0]


def test_a_bound_ends_starving() -> None:
    jobs = [Job(float(at), 1.0, 1.0) for at in range(300)]  # how long an answer takes is known by then
    jobs += [Job(300.0, 10.0, 10.0), Job(300.0, 10.0, 10.0)]
    jobs += [Job(float(at), 1.0, 1.0) for at in range(301, 500)]
    starving, bounded = served(jobs)[301] - 300.0, served(jobs, bound_s=30.0)[301] - 300.0
    assert starving > 190.0
    assert bounded < 60.0


@pytest.fixture
def _topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "OnnxEncoder", Topics)


def options(train: Path, trace: Path | None, **changes: Any) -> Namespace:
    plain: dict[str, Any] = {
        "train": train, "test": None, "models": None, "vectors_cache": None, "trace": trace, "slots": 2,
        "model": "weak", "bound": 60.0, "tokens_per_second": 10.0, "loads": [0.7, 0.9, 1.2], "seed": 0,
        "patience": PATIENCE, "folds": 0,
    }  # fmt: skip
    return Namespace(**{**plain, **changes})


def traced(path: Path, count: int = 1500) -> Path:
    rng = np.random.default_rng(0)
    at_s = np.cumsum(rng.exponential(0.5, count))
    stamps = [str(np.datetime64("2023-11-16T18:15:46", "us") + np.timedelta64(int(s * 1e6), "us")) for s in at_s]
    rows = [f"{stamp.replace('T', ' ')}0,374,44" for stamp in stamps]
    path.write_bytes(gzip.compress("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]).encode()))
    return path


@pytest.mark.usefixtures("_topics")
def test_side_by_side(tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", lines(400))
    found = schedule._measure(options(train, traced(tmp_path / "trace.csv.gz")))
    assert (found["n_requests"], found["slots"], list(found["loads"])) == (1500, 2, ["0.7", "0.9", "1.2"])
    assert found["kendall_tau"] > 0.4
    for policies in found["loads"].values():
        assert list(policies) == ["first_come", "predicted", "bounded", "perfect", "ceiling"]
        for row in policies.values():
            assert {"mean", "p50", "p99", "throughput_rps"} <= set(row)
            assert row["p50"] <= row["p99"]
        assert policies["perfect"]["mean"] <= policies["first_come"]["mean"]
        assert policies["first_come"]["past_bound"] == policies["bounded"]["past_bound"] == 0
        assert policies["perfect"]["mean"] <= policies["ceiling"]["mean"] <= policies["first_come"]["mean"]
        assert policies["ceiling"]["p99"] <= 1.5 * policies["first_come"]["p99"]
    busy, idle = found["loads"]["1.2"]["first_come"], found["loads"]["0.7"]["first_come"]
    assert busy["mean"] > 2 * idle["mean"]
    assert schedule._table(found)


@pytest.mark.usefixtures("_topics")
def test_what_is_chosen_is_chosen_on_other_prompts_than_are_reported(tmp_path: Path) -> None:
    train, trace = written(tmp_path / "train.jsonl", lines(400)), traced(tmp_path / "trace.csv.gz", 300)
    reported = schedule._measure(options(train, trace))
    chosen = schedule._measure(options(train, trace, folds=4))
    assert reported["n_train"] == chosen["n_train"] == chosen["n_test"] == 400 - reported["n_test"]
    assert 0.4 < chosen["kendall_tau"] < 0.95  # nobody saw the lengths that it foretells
    hasty = schedule._measure(options(train, trace, patience=1e-3, bound=1e-3, loads=[1.2]))["loads"]["1.2"]
    assert hasty["bounded"] == hasty["first_come"]
    line = ["--train", str(train), "--trace", str(trace), "--folds", "2", "--record"]
    assert "leave --folds out" in run("schedule", *line, code=1).stderr


def test_what_is_wrong(tmp_path: Path) -> None:
    assert "name a file of outcomes" in run("schedule", code=1).stderr
    for content in ("TIMESTAMP\nyesterday", "WHEN\n1", "TIMESTAMP\n2023-11-16 18:15:46"):
        (tmp_path / "trace.csv").write_text(content)
        with pytest.raises(SystemExit, match=r"trace\.csv"):
            schedule._arrivals(tmp_path / "trace.csv")
    with pytest.raises(SystemExit, match="name a trace"):
        schedule._arrivals(None)
