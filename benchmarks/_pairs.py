"""Pairs of questions with a label, from data files: JSON lines or tables with the columns a, b and label."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._queries import content_of

__all__ = ["Pair", "read_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer does for both."""

    a: str
    b: str
    is_equal: bool


def read_pairs(path: Path, *, limit: int = 0, seed: int = 0) -> list[Pair]:
    """The pairs of a file, in order.

    Args:
        path: ``.jsonl``, ``.tsv`` or ``.csv``, perhaps gzipped, with the columns a, b (texts) and label (0 or 1).
        limit: Pairs to draw without replacement, >= 0; 0 for all.
        seed: Seed of the draw.

    Raises:
        SystemExit: The file can't be read, holds no pair, or lacks a column.
    """
    try:
        pairs = [_pair(row) for row in _rows(path.name.removesuffix(".gz"), content_of(path))]
    except (ValueError, KeyError, TypeError, csv.Error) as exc:
        raise SystemExit(f"{path}: no pairs ({exc}); expected the columns a, b and label") from exc
    if not pairs:
        raise SystemExit(f"{path} holds no pairs")
    if not 0 < limit < len(pairs):
        return pairs
    return [pairs[at] for at in sorted(random.Random(seed).sample(range(len(pairs)), limit))]


def _rows(name: str, content: str) -> Iterable[Mapping[str, Any]]:
    if name.endswith(".tsv"):
        return csv.DictReader(content.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
    if name.endswith(".csv"):
        return csv.DictReader(io.StringIO(content, newline=""))
    return _lines(content)


def _lines(content: str) -> Iterator[Mapping[str, Any]]:
    for line in content.split("\n"):
        if line.strip():
            yield json.loads(line)


def _pair(row: Mapping[str, Any]) -> Pair:
    a, b, label = row["a"], row["b"], row["label"]
    if not (isinstance(a, str) and isinstance(b, str)):
        raise TypeError("not all of them are texts")
    if str(label) not in {"0", "1"}:
        raise ValueError(f"label {label!r} is neither 0 nor 1")
    return Pair(a, b, str(label) == "1")
