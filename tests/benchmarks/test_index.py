"""The index benchmark at a small size: its keys, and where its vectors come from."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._vectors import ask, seeds

ROOT = Path(__file__).parents[2]


def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.index", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("kind", ["drawn", "grown"])
def test_the_index_benchmark(kind: str, tmp_path: Path) -> None:
    options: list[Any] = ["--n", 9000, "--dim", 32, "--queries", 60, "--worst", 2000, "--json"]
    if kind == "grown":
        rows = np.random.default_rng(0).standard_normal((1500, 32)).astype(np.float32)
        np.save(tmp_path / "real.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
        options += ["--vectors", tmp_path / "real.npy"]
    *table, last = run(*options).stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == "index"
    assert found["n"] == 9000
    assert found["lists"] > 10, "so many vectors are no longer one list"
    searches = [f"{prefix}search_{part}" for prefix in ("", "untended_", "restart_") for part in ("p50", "p99")]
    memory = ("rss_gib", "restart_rss_gib", "cache_rss_gib")
    for key in (*searches, *memory, "insert_us", "delete_us", "restart_s", "cache_restart_s", "tend_s"):
        assert found[key] > 0
    assert found["recall_at_1"] > 0.95
    assert found["untended_recall_at_1"] > 0.9
    assert found["restart_recall_at_1"] == found["recall_at_1"], "the snapshot holds the lists as they were"
    assert found["recall_at_1_above_90"] > 0.95
    assert found["scopes"] == 1001
    assert len(table) > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--n", 0), "--n 0: at least 50"),
        (("--dim", -1), "--dim -1: at least 2"),
        (("--queries", 0), "--queries 0: at least 1"),
        (("--worst", 3), "--worst 3: 0, or at least 50"),
        (("--seed", -1), "--seed -1: at least 0"),
        (("--vectors", "absent.npy"), "absent.npy: no vectors"),
        (("--texts", "absent.txt"), "absent.txt: no texts"),
    ],
)
def test_what_makes_no_sense(arguments: tuple[Any, ...], said: str) -> None:
    ended = run(*arguments, code=1).stderr
    assert said in ended
    assert ended.count("\n") == 1, "one line, and no traceback"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.ones((0, 8), np.float32), "has 0 vectors"),
        (np.zeros((200, 8), np.float32), "zero or not finite"),
        (np.full((200, 8), np.nan, np.float32), "zero or not finite"),
        (np.ones((200, 8), np.int64), "floats are expected"),
        (np.ones(8, np.float32), "--dim says 8"),
    ],
)
def test_vectors_that_are_none(rows: Any, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", rows)
    with pytest.raises(SystemExit, match=said):
        seeds(Namespace(vectors=tmp_path / "real.npy", texts=[], dim=8, seed=0))


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    for name in ("real.npy", "texts.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SystemExit, match="no vectors"):
        seeds(Namespace(vectors=tmp_path / "real.npy", texts=[], dim=8, seed=0))
    with pytest.raises(SystemExit, match="0 different texts in all"):
        seeds(Namespace(vectors=None, texts=[tmp_path / "texts.txt"], dim=8, seed=0))


def test_questions_among_equal_vectors(tmp_path: Path) -> None:
    """Nothing lies between two equal vectors, so the direction is drawn."""
    np.save(tmp_path / "rows.npy", np.tile(np.eye(4, dtype=np.float16)[0], (60, 1)))
    found = ask(tmp_path / "rows.npy", np.empty((0, 4), np.float32), Namespace(seed=0, n=60, dim=4, queries=9))
    assert np.isfinite(found["near"].vectors).all()
    assert 0.79 < found["near"].cosines.min() < found["near"].cosines.max() < 1.0


def test_vectors_of_another_length(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", np.ones((10, 3), np.float32))
    assert "--dim says 8" in run("--dim", 8, "--vectors", tmp_path / "real.npy", code=1).stderr
