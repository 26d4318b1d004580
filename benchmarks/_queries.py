"""Texts from data files: JSON lines, tab-separated tables or plain lines, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["content_of", "read_texts", "sample"]

COLUMNS = ("text", "query", "prompt", "question", "utterance")


def content_of(path: Path) -> str:
    """What a file says, which may be gzipped.

    Raises:
        ValueError: It can't be read, or is no text.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error) as exc:
        raise ValueError(str(exc)) from exc


def read_texts(path: Path) -> list[str]:
    """The different texts of a file, in order.

    A table or JSON object gives its first column named text, query, prompt, question or utterance (in any case);
    a JSON list of strings gives its items; any other file gives its lines.

    Raises:
        SystemExit: The file can't be read or has no such column.
    """
    try:
        texts = list(_texts(path.name.removesuffix(".gz"), content_of(path)))
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not all of them are strings")
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as exc:
        raise SystemExit(f"{path}: no texts ({exc}); expected a column out of {', '.join(COLUMNS)}") from exc
    return list(dict.fromkeys(texts))


def _texts(name: str, content: str) -> Iterator[str]:
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in content.split("\n") if line.strip()]
        yield from (row[_column(row)] for row in rows)
    elif name.endswith(".json"):
        yield from json.loads(content)
    elif name.endswith(".tsv"):
        yield from _cells(csv.DictReader(content.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE))
    elif name.endswith(".csv"):
        yield from _cells(csv.DictReader(io.StringIO(content, newline="")))
    else:
        yield from content.splitlines()


def _cells(table: csv.DictReader[str]) -> Iterator[str]:
    column = _column(table.fieldnames or ())
    yield from (row[column] for row in table)


def _column(names: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    for column in COLUMNS:
        if column in by_lower:
            return by_lower[column]
    raise KeyError(f"columns are {', '.join(names)}")


def sample(paths: Sequence[Path], limit: int, seed: int = 0) -> list[str]:
    """At most ``limit`` texts, as nearly as possible the same number from each file, drawn without replacement."""
    rng = random.Random(seed)
    drawn: list[str] = []
    for place, path in enumerate(paths):
        texts, share = read_texts(path), (limit - len(drawn)) // (len(paths) - place)
        drawn += rng.sample(texts, min(share, len(texts)))
    return drawn
