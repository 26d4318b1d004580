"""Outcomes of several sets, each in terms of its own models: how hard a question is for them, and for which of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.route.outcomes import Outcomes, models_of, read_outcomes
from llm_proxy.route.train.evaluate import Encoded, features_of
from llm_proxy.route.train.fit import Inputs

Column = NDArray[np.float64]

PAIRS = {
    "router_routellm": [("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")],
    "router_mmlu_pro": [("gemini-1.5-flash-002", "gemini-1.5-pro-002")],
    "router_zeroeval": [
        ("claude-3-haiku-20240307", "claude-3-5-sonnet-20240620"),
        ("gpt-4o-mini-2024-07-18", "o1-mini-2024-09-12"),
    ],
    "router_arena809": [("claude-3-haiku-20240307", "gemini-2.0-flash-001")],
    "router_llmrouter9": [("llama3-chatqa-1.5-8b", "llama-3.1-nemotron-51b-instruct")],
}
"""Whom the figures of the card are about: a cheap and a dear model of one maker, or the worst and the best of a set."""

_FILES = {"router_routellm": "mmlu_gsm8k.jsonl.gz"}
_TIER = 1 / 3


@dataclass(frozen=True, slots=True)
class Rated:
    """The questions of one set.

    Attributes:
        name: Of its folder.
        log: What models scored, and what a head sees; ``n`` rows.
        hardness: By how much a question is above its set's mean in what models get wrong, shape ``(n,)``.
        weak: Mean score of the worst third of its models, shape ``(n,)``; NaN where none of them was asked.
        strong: Likewise of the best third.
    """

    name: str
    log: Encoded
    hardness: Column
    weak: Column
    strong: Column

    def __len__(self) -> int:
        return len(self.hardness)

    def rows(self, chosen: NDArray[np.intp]) -> Rated:
        """The same with some rows only; they stay above or below the mean of the whole set."""
        return Rated(self.name, self.log.rows(chosen), self.hardness[chosen], self.weak[chosen], self.strong[chosen])


def read(folders: list[Path], vectors: Path | None) -> list[Rated]:
    """The sets in some folders.

    Args:
        folders: Each with ``rows.jsonl.gz``, or what `_FILES` says, and ``models.json``.
        vectors: Folder that keeps vectors for the next run; None: they are made anew.
    """
    return [_rated(folder, vectors) for folder in folders]


def _rated(folder: Path, vectors: Path | None) -> Rated:
    path = folder / _FILES.get(folder.name, "rows.jsonl.gz")
    outcomes = read_outcomes(path, models=models_of(path), clip=True)
    scores = outcomes.scores.astype(np.float64)
    means = np.nanmean(scores, axis=0)
    order, size = np.argsort(means), max(1, int(len(means) * _TIER))
    return Rated(
        folder.name,
        Encoded(outcomes, _inputs(outcomes, vectors)),
        -_row_means(scores - means),
        _row_means(scores[:, order[:size]]),
        _row_means(scores[:, order[-size:]]),
    )


def _row_means(scores: NDArray[np.float64]) -> Column:
    known = ~np.isnan(scores)
    counts = known.sum(axis=1)
    sums = np.where(known, scores, 0.0).sum(axis=1)
    found: Column = np.where(counts > 0, sums / counts.clip(1), np.nan)
    return found


def _inputs(outcomes: Outcomes, folder: Path | None) -> Inputs:
    encoder = OnnxEncoder()
    name = hashlib.sha256("\0".join([encoder.name, *outcomes.prompts]).encode()).hexdigest()[:24]
    file = folder / f"{name}.npz" if folder is not None else None
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            vectors, layers = kept["vectors"], kept["layers"]
    else:
        vectors, layers = encoder.encode_layers(outcomes.prompts)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, vectors=vectors, layers=layers)
    return Inputs(vectors, features_of(outcomes.prompts), layers)
