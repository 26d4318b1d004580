"""The index benchmark at a small size: its keys, and where its vectors come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.index", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("kind", ["drawn", "grown"])
def test_the_index_benchmark(kind: str, tmp_path: Path) -> None:
    options: list[Any] = ["--n", 3000, "--dim", 32, "--queries", 60, "--worst", 2000, "--json"]
    if kind == "grown":
        rows = np.random.default_rng(0).standard_normal((1500, 32)).astype(np.float32)
        np.save(tmp_path / "real.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
        options += ["--vectors", tmp_path / "real.npy"]
    *table, last = run(*options).stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == "index"
    assert found["n"] == 3000
    for key in ("search_p50", "search_p99", "insert_us", "delete_us", "rss_gib", "cache_rss_gib", "restart_s"):
        assert found[key] > 0
    assert found["recall_at_1"] > 0.95
    assert found["recall_at_1_above_90"] > 0.95
    assert found["scopes"] == 1001
    assert len(table) > 20


def test_vectors_of_another_length(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", np.ones((10, 3), np.float32))
    assert "--dim says 8" in run("--dim", 8, "--vectors", tmp_path / "real.npy", code=1).stderr
