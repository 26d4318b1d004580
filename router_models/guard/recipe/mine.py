"""Pairs that people made: near neighbours among their questions, with what the data sets say of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .data import Pair
from .pools import Text

__all__ = ["neighbours"]

_LEAST, _MOST = 0.45, 0.999
_DISTINCT = frozenset(
    {"router_llmrouter9", "router_mmlu_pro", "router_routellm", "context_followups", "router_arenabench"}
)


def neighbours(
    texts: Sequence[Text],
    encode: Callable[[list[str]], NDArray[np.float32]],
    *,
    per_text: int = 3,
    seed: int = 0,
    unlabelled: float = 0.12,
) -> Iterator[Pair]:
    """Each text with some of its nearest.

    Texts of different intents are taken for different questions; texts of the same intent may be either, and get the
    label -1. Questions of examinations and quizzes differ unless they are very near.

    Args:
        texts: Texts in any order.
        encode: Texts to unit vectors ``(n, d)``.
        per_text: Neighbours of each.
        seed: Decides which of the nearest are taken.
        unlabelled: Share of the pairs without a label that are kept.
    """
    rng = random.Random(seed)
    vectors = encode([text.text for text in texts])
    for start in range(0, len(texts), 1_024):
        similar = vectors[start : start + 1_024] @ vectors.T
        nearest = np.argpartition(-similar, 12, axis=1)[:, :12]
        for row, found in enumerate(nearest):
            at = start + row
            near = [int(i) for i in found if i != at and _LEAST < similar[row, i] < _MOST]
            for i in rng.sample(near, min(per_text, len(near))):
                pair = _pair(texts[at], texts[i], float(similar[row, i]))
                pair.cosine = float(similar[row, i])
                if pair.label >= 0 or rng.random() < unlabelled:
                    yield pair


def _pair(a: Text, b: Text, cosine: float) -> Pair:
    source = a.source if a.source == b.source else "mixed"
    if a.source != b.source:
        return Pair(a.text, b.text, 0 if cosine < 0.8 else -1, "near:other-source", source, 0.7)
    if source in _DISTINCT:
        return Pair(a.text, b.text, 0 if cosine < 0.93 else -1, "near:distinct", source, 1.0)
    if a.topic and b.topic and a.topic != b.topic:
        return Pair(a.text, b.text, 0 if cosine < 0.9 else -1, "near:other-intent", source, 0.7)
    return Pair(a.text, b.text, -1, "near:same-intent", source)
