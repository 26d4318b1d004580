"""The benchmark of the scorer: its measures on numbers known, and one run over a few answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.answers import auc
from tests.benchmarks.test_contract import figures, run


@pytest.mark.parametrize(
    ("is_right", "score", "area"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 1], [0.5, 0.5], 0.5),
        ([1, 0, 1], [3, 1, 2], 1.0),
        ([1, 1], [1, 2], None),
        ([0, 0], [1, 2], None),
    ],
)
def test_area(is_right: list[int], score: list[float], area: float | None) -> None:
    assert auc(np.array(is_right, bool), np.array(score)) == area


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    rows, said = [], []
    for number in range(12):
        rows.append({"id": f"q{number}", "task": "sums", "prompt": f"What is {number} + 1?", "score": [1.0, 0.5]})
        for model, off in (("one", 0), ("other", number % 2)):
            answer = f"We have {number} + 1 = {number + 1 + off}. The answer is {number + 1 + off}"
            said.append({"id": f"q{number}", "model": model, "correct": int(not off), "response": answer})
    write(tmp_path / "rows.jsonl.gz", rows)
    (tmp_path / "models.json").write_text(json.dumps({"models": ["large", "middle"]}))
    return write(tmp_path / "weak_responses.jsonl.gz", said)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def test_a_run(responses: Path) -> None:
    found = figures("answers", "--responses", responses, "--strong", "middle")
    (file,) = found["files"]
    assert (file["n"], file["right"], file["has_vectors"]) == (24, 0.75, True)
    assert file["auc"] > 0.8, "wrong sums show"
    assert set(file["models"]) == {"one", "other"}
    assert file["models"]["one"]["auc"] is None
    assert set(file["tasks"]) == {"sums"}
    for bar in file["bars"]:
        assert bar["accuracy_strong"] == 0.5
        assert bar["kept"] + bar["strong_share"] == pytest.approx(1)
    assert all(file[f"{part}_p50"] > 0 for part in ("vector", "features", "graph"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--responses: name at least one file"),
        (("--responses", "absent.jsonl"), "absent.jsonl can't be read"),
    ],
)
def test_what_is_missing(arguments: tuple[str, ...], said: str) -> None:
    assert said in run("answers", *arguments, code=1).stderr


def test_a_model_that_is_not_there(responses: Path) -> None:
    assert "no such model" in run("answers", "--responses", responses, "--strong", "giant", code=1).stderr
    (responses.parent / "rows.jsonl.gz").write_bytes(gzip.compress(b""))
    assert "can't be read" in run("answers", "--responses", responses, code=1).stderr
