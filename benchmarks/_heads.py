"""Heads that benchmarks measure, as a proxy loads them: one that was just trained, and the one that ships."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llm_proxy.encode.base import Encoding
from llm_proxy.route.heads import OnnxHead
from llm_proxy.route.tiers import shipped_head
from llm_proxy.route.train.evaluate import group_folds
from llm_proxy.route.train.make import head_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.base import Head
    from llm_proxy.route.train.evaluate import Encoded

__all__ = ["call_times", "encodings", "group_out", "shipped", "trained"]

_CALLS, _WARM = 1000, 50


def trained(log: Encoded, *models: str) -> OnnxHead:
    """The head of some models that is learnt from a log, through its files.

    Raises:
        LLMProxyError: The extra ``train`` is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in head_files(log, name="trained-here", encoder="", models=models).items():
            Path(folder, name).write_bytes(content)
        return OnnxHead(Path(folder))


def shipped() -> OnnxHead:
    """The head in router_models.

    Raises:
        LLMProxyError: It is not there.
    """
    return OnnxHead(shipped_head())


def group_out(
    train: Encoded, test: Encoded, models: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.intp]]] | None:
    """What each row is predicted by a learner that saw no question of the row's group.

    Args:
        train: Rows to learn from.
        test: ``n`` rows.
        models: ``M`` names.

    Returns:
        ``(p_good, log_tokens, folds)``: two arrays of shape ``(n, M)``, and the rows of each learner. None where there
        are no two groups, or all rows to learn from are of one.
    """
    import numpy

    p_good, log_tokens = (numpy.zeros((len(test.outcomes), len(models)), numpy.float32) for _ in range(2))
    folds = []
    for names in group_folds(test.outcomes.groups):
        rows = numpy.flatnonzero([group in names for group in test.outcomes.groups])
        others = train.rows(numpy.flatnonzero([group not in names for group in train.outcomes.groups]))
        if not len(others.outcomes):
            return None
        p_good[rows], log_tokens[rows] = others.fit(models).predict(test.inputs.rows(rows))
        folds.append(rows)
    return (p_good, log_tokens, folds) if folds else None


def encodings(rows: Encoded) -> list[Encoding]:
    """What the encoder gave for each prompt."""
    found = zip(rows.outcomes.prompts, rows.inputs.vectors, rows.inputs.layers, strict=True)
    return [Encoding(vector, len(text), layers if len(layers) else None) for text, vector, layers in found]


def call_times(head: Head, rows: Encoded) -> dict[str, float]:
    """Microseconds from text and vector to what is expected of each model: ``p50`` and ``p99``."""
    calls = list(zip(rows.outcomes.prompts, encodings(rows), strict=True))
    times = []
    for at in range(_WARM + _CALLS):
        text, encoding = calls[at % len(calls)]
        start = time.perf_counter_ns()
        head.predict(text, encoding)
        times.append((time.perf_counter_ns() - start) / 1000)
    cuts = statistics.quantiles(times[_WARM:], n=100)
    return {"p50": cuts[49], "p99": cuts[98]}
