"""Write the training pairs: ``pairs.jsonl``, one JSON object a line."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .data import Maker, Pair, Slotted, labelled
from .mine import neighbours
from .net import Tokens, encode_texts
from .orders import Orders
from .pools import read_pools, rows
from .questions import Questions
from .segments import segments
from .wordnet import WordNet

__all__ = ["is_held", "write_corpus"]

_SLOTTED = ("slots_snips", "slots_hwu64")
_HELD_SHARE = 0.25
_NEAR_SHARE = 0.4
_MOST_LABELLED, _FEW_LABELLED = 10_000, 3_000


def is_held(text: str) -> bool:
    """Whether a pair with this first text is kept for measuring."""
    digest = hashlib.sha256(" ".join(text.lower().split()).encode()).digest()
    return digest[0] < 256 * _HELD_SHARE


def write_corpus(
    data: Path, folder: Path, encoder: Path, weights: Path, *, n: int, without: frozenset[str], seed: int
) -> None:
    """Write all pairs.

    Args:
        data: Folder of the data sets.
        folder: Where to write.
        encoder: Folder of the shipped encoder.
        weights: ``model.safetensors`` of all-MiniLM-L6-v2.
        n: Pairs of each of the makers, of general questions twice as many; the others come on top.
        without: Data sets that nothing may come from.
        seed: The same seed writes the same pairs.
    """
    tokens = Tokens(encoder / "tokenizer.json")

    def encode(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return encode_texts(weights, tokens, texts)

    net, rng = WordNet(), random.Random(seed)
    pools = read_pools(data, net, without=without)
    pairs = list(Maker(pools, net, seed).pairs(n))
    pairs += Orders(pools, net, seed).pairs(n)
    pairs += Questions(pools, net, seed).pairs(2 * n)
    if "pairs_prompt_paraphrase" not in without:
        pairs += segments(data, net, seed, is_held)
    pairs += (pair for pair in neighbours(pools.texts, encode, seed=seed) if rng.random() < _NEAR_SHARE)
    for name in sorted(set(_SLOTTED) - without):
        pairs += (pair for pair in Slotted(data, name, seed).pairs(n // 8) if not _has_held(pair))
        pairs += _labelled(data, name, rng)
    pairs += _given(data, without, rng, n)
    random.Random(seed).shuffle(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(pair.as_row()) + "\n" for pair in pairs)
    print(f"{len(pairs):,} pairs")


def _labelled(data: Path, name: str, rng: random.Random) -> Iterator[Pair]:
    """Pairs of a labelled set; small ones three times."""
    known = [pair for pair in labelled(data, name) if not _has_held(pair)]
    for label in (0, 1):
        chosen = [pair for pair in known if pair.label == label]
        yield from rng.sample(chosen, min(len(chosen), _MOST_LABELLED)) * (3 if len(chosen) < _FEW_LABELLED else 1)


def _has_held(pair: Pair) -> bool:
    return is_held(pair.a) or is_held(pair.b)


def _given(data: Path, without: frozenset[str], rng: random.Random, n: int) -> Iterator[Pair]:
    for pair in labelled(data, "pairs_negation"):
        is_many = pair.kind == "wikifactcheck-english"
        if not is_held(pair.a) and (not is_many or rng.random() < _NEAR_SHARE):
            yield pair
    if "context_followups" in without:
        return
    for row in rows(data / "context_followups" / "rows.jsonl.gz"):
        for key in ("main", "followup"):
            if row[f"{key}_paraphrase"]:
                for _ in range(max(n // 20_000, 1)):
                    yield Pair(row[key], row[f"{key}_paraphrase"], 1, "followup-paraphrase", "context_followups")
