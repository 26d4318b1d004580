"""A small world for routers: two topics, of which the weak model knows one, and an encoder that tells them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from llm_proxy.encode.base import Encoding
from llm_proxy.route.outcomes import Outcomes
from llm_proxy.route.train.evaluate import Encoded
from llm_proxy.route.train.make import encode

__all__ = ["TopicEncoder", "lines", "log_of", "written"]

_DIM, _LAYERS = 8, 3


class TopicEncoder:
    """Vectors near one of two directions, by the first word, with a little of the text's own."""

    name = "topics-8"
    dim = _DIM

    def encode(self, text: str) -> Encoding:
        own = np.random.default_rng(abs(hash_of(text))).normal(size=_DIM) * 0.05
        own[0 if text.startswith("easy") else 1] += 1.0
        vector = (own / np.linalg.norm(own)).astype(np.float32)
        return Encoding(vector, len(text), 20 * vector[2 : 2 + _LAYERS])


def hash_of(text: str) -> int:
    """The same in every process."""
    return int.from_bytes(text.encode()[-6:], "big")


def lines(n: int = 120, *, noise: float = 0.1, is_random: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Outcomes: the weak model is right on easy questions, the strong one on all, each but for noise."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(n):
        is_easy = at % 2 == 0
        knows = {"weak": random.random() < 0.5 if is_random else is_easy, "strong": True}
        scores = {name: int(right != (random.random() < noise)) for name, right in knows.items()}
        found.append(
            {
                # As long as the others, so that the length of the prompt tells nothing.
                "prompt": f"{'easy' if is_easy else 'hard'} question {at:04}",
                "scores": scores,
                "tokens": {"weak": 20 if is_easy else 60 + at % 7, "strong": 30 + at % 5},
                "group": f"kind {at % 3}",
            }
        )
    return found


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def log_of(outcomes: Outcomes) -> Encoded:
    return encode(outcomes, TopicEncoder())
