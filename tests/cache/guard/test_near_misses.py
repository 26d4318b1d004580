"""Questions that a product meets: alike and with different answers, and the same in other words; who is served what.

They were written before any of them was tried. Rules and a threshold that were made since know some of them, so this
shows that the rates do not get worse, not what they are elsewhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks._served import ShippedCache, encode_all, shipped_encoder
from llm_proxy.encode.lazy import LazyEncoder


@pytest.fixture(scope="module")
def encoder() -> LazyEncoder:
    return shipped_encoder()


def pairs(name: str) -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [(kind, one, other) for kind, one, other in (line.split(" | ") for line in lines)]


def served(rows: list[tuple[str, str, str]], encoder: LazyEncoder) -> Counter[tuple[str, str]]:
    """Both ways: the question and the other one whose answer it was served."""
    cache = ShippedCache(encoder)
    encoded = encode_all((text for _, *pair in rows for text in pair), encoder)
    found: Counter[tuple[str, str]] = Counter()
    for at, (_, *pair) in enumerate(rows):
        for one, other in (pair, reversed(pair)):
            cache.store(one, encoded[one], tenant=f"{at} {one}")
            looked = cache.ask(other, encoded[other], tenant=f"{at} {one}")
            found[other, one] += looked is not None and looked.entry is not None
    cache.close()
    return +found


def test_few_are_served_the_answer_to_another(encoder: LazyEncoder) -> None:
    rows = pairs("near_misses.txt")
    found = served(rows, encoder)
    assert len(rows) > 850
    assert found.total() <= 0.004 * 2 * len(rows), found


def test_many_are_served_in_other_words(encoder: LazyEncoder) -> None:
    rows = pairs("rewordings.txt")
    assert len(rows) == 300
    assert served(rows, encoder).total() >= 0.4 * 2 * len(rows)
