"""Sentences of prompts that were reworded, and the same with a fault."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from .data import Pair, labelled
from .faults import FAULTS
from .wordnet import WordNet

__all__ = ["segments"]

_NAME = "pairs_prompt_paraphrase"
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+")
_LEAST, _MOST = 5, 75  # words: of a sentence, of two
_FAULTY = 2


def segments(data: Path, net: WordNet, seed: int, is_held: Callable[[str], bool]) -> Iterator[Pair]:
    """Pairs of sentences, where both prompts have as many lines and sentences; and those with a fault in one of them.

    Args:
        data: Folder of the data sets.
        net: WordNet.
        seed: The same seed gives the same pairs.
        is_held: Whether a prompt is kept for measuring.
    """
    rng = random.Random(seed)
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    for a, b in _sentences(data, is_held):
        yield Pair(a, b, 1, "segment-same", _NAME)
        for _ in range(_FAULTY):
            made = FAULTS[rng.choices(names, weights)[0]][0](b, rng, net)
            if made and made != b:
                yield Pair(a if rng.random() < 0.8 else b, made, 0, "segment-other", _NAME)


def _sentences(data: Path, is_held: Callable[[str], bool]) -> dict[tuple[str, str], None]:
    found: dict[tuple[str, str], None] = {}
    for pair in labelled(data, _NAME):
        if pair.label != 1 or is_held(pair.a):
            continue
        lines = [[line for line in text.lower().splitlines() if line.strip()] for text in (pair.a, pair.b)]
        for one, other in zip(*lines, strict=True) if len(lines[0]) == len(lines[1]) else ():
            a, b = _SENTENCE.split(one.strip()), _SENTENCE.split(other.strip())
            for x, y in zip(a, b, strict=True) if len(a) == len(b) else ():
                n, m = len(x.split()), len(y.split())
                if min(n, m) >= _LEAST and n + m <= _MOST and x != y:
                    found[x, y] = None
    return found
