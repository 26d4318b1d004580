"""Graphs that stand in for ONNX Runtime's: each row's vector tells its tokens, and runs fail or take time as told."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from llm_proxy.encode.graph import Vectors
from llm_proxy.errors import CacheError
from llm_proxy.testing import FakeClock

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class FakeGraph:
    """A `llm_proxy.encode.graph.Graph`.

    Args:
        provider: What it says it runs on.
        took_s: How long a token takes, seconds of ``clock``.
        clock: Is advanced by a run.
    """

    def __init__(self, provider: str = CUDA, took_s: float = 0.0, clock: FakeClock | None = None) -> None:
        self.provider, self.took_s, self.clock = provider, took_s, clock or FakeClock()
        self.batches: list[list[list[int]]] = []
        self.fails_after = float("inf")
        self.bad_rows: set[int] = set()
        self.turn = 0.0
        self._lock = threading.Lock()

    def run(self, rows: Sequence[list[int]]) -> Vectors:
        with self._lock:
            self.batches.append([list(row) for row in rows])
            runs = len(self.batches)
        self.clock.advance(self.took_s * len(rows) * max(map(len, rows)))
        if runs > self.fails_after or any(row[0] in self.bad_rows for row in rows):
            raise CacheError("device lost")
        angles = np.array([sum(row) / 1000 + self.turn for row in rows])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), np.array(
            [[float(row[0])] for row in rows], np.float32
        )
