"""Answers with their marks, as the scorer is trained on them: features, vectors, and what part of the data they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.route.answers import features
from llm_proxy.route.base import Reply

Array = NDArray[np.float32]

STRONG = {
    "gpt-4o-mini-2024-07-18": "o1-mini-2024-09-12",
    "claude-3-haiku-20240307": "claude-3-5-sonnet-20241022",
    "Meta-Llama-3.1-8B-Instruct": "Meta-Llama-3.1-70B-Instruct",
    "gemini-1.5-flash-002": "gemini-1.5-pro-002",
}
"""Who is asked, in the figures of the card, where the answer of a cheap model is given up."""

TEST_SHARE = 0.2
"""Share of the questions that no choice was made on: those whose hash is below it."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Answers, one a row.

    Attributes:
        features: Shape ``(n, len(FEATURES))``, float32; NaN where it can't be told.
        questions: Vectors of the questions, shape ``(n, 384)``, float32.
        answers: Vectors of the answers, likewise.
        is_good: Whether the answer is right.
        sources: Name of the data set.
        models: Who answered.
        tasks: Subject or task of the question.
        places: Hash of the question in [0, 1): equal questions have one place, in whatever set.
        strong: What the strong model of `STRONG` scores on the question, in [0, 1]; NaN where that is not known.
    """

    features: Array
    questions: Array
    answers: Array
    is_good: NDArray[np.int64]
    sources: NDArray[np.str_]
    models: NDArray[np.str_]
    tasks: NDArray[np.str_]
    places: NDArray[np.float64]
    strong: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.is_good)

    def rows(self, chosen: NDArray[Any]) -> Marked:
        """Some of them."""
        return Marked(*(getattr(self, field.name)[chosen] for field in fields(self)))


def read(folders: list[Path], vectors: Path | None) -> Marked:
    """All answers of some sets.

    Args:
        folders: Each with ``rows.jsonl.gz`` and ``weak_responses.jsonl.gz``.
        vectors: Folder that keeps vectors for the next run; None: they are made anew.
    """
    encoder = OnnxEncoder()
    parts = [_read(folder, encoder, vectors) for folder in folders]
    return Marked(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Marked)))


def place(prompt: str) -> float:
    """The hash of a question without its options."""
    stem = re.sub(r"\W+", " ", prompt.split("\nA. ")[0].lower()).strip()
    return int(hashlib.sha256(f"answers:{stem}".encode()).hexdigest()[:8], 16) / 2**32


def _read(folder: Path, encoder: OnnxEncoder, vectors: Path | None) -> Marked:
    rows = {row["id"]: row for row in _lines(folder / "rows.jsonl.gz")}
    said = list(_lines(folder / "weak_responses.jsonl.gz"))
    names = json.loads((folder / "models.json").read_text(encoding="utf-8"))["models"]
    asked = [rows[line["id"]] for line in said]
    prompts, texts = [row["prompt"] for row in asked], [line["response"] for line in said]
    known = [features(prompt, Reply(text)) for prompt, text in zip(prompts, texts, strict=True)]
    return Marked(
        np.array(known, np.float32),
        _vectors(prompts, encoder, vectors),
        _vectors(texts, encoder, vectors),
        np.array([int(line["correct"]) for line in said]),
        np.array([folder.name] * len(said)),
        np.array([line["model"] for line in said]),
        np.array([row.get("group") or row["task"] for row in asked]),
        np.array([place(prompt) for prompt in prompts]),
        np.array([_score(row, names.index(STRONG[line["model"]])) for row, line in zip(asked, said, strict=True)]),
    )


def _score(row: dict[str, Any], place: int) -> float:
    score = row["score"][place]
    return float("nan") if score is None else float(score)


def _vectors(texts: list[str], encoder: OnnxEncoder, folder: Path | None) -> Array:
    name = hashlib.sha256("\0".join([encoder.name, *texts]).encode("utf-8", "replace")).hexdigest()[:24]
    file = folder / f"{name}.npy" if folder is not None else None
    if file is not None and file.is_file():
        return np.asarray(np.load(file), np.float32)
    different = list(dict.fromkeys(texts))
    made = dict(zip(different, encoder.encode_batch(different), strict=True))
    found = np.array([made[text] for text in texts], np.float32)
    if file is not None:
        np.save(file, found)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
