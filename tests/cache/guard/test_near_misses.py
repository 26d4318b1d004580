"""Questions that a product meets, alike and with different answers: few enough are served each other's.

They were written before any of them was tried. Rules that were made since know some of them, so this shows that the
rate does not rise, not what it is elsewhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks._served import ShippedCache, encode_all, shipped_encoder

PAIRS = [
    tuple(part.strip() for part in line.split("|"))
    for line in Path(__file__).with_name("near_misses.txt").read_text(encoding="utf-8").splitlines()
]


def test_few_are_served() -> None:
    encoder = shipped_encoder()
    cache = ShippedCache(encoder)
    encoded = encode_all((text for _, *pair in PAIRS for text in pair), encoder)
    served: Counter[str] = Counter()
    for at, (kind, *pair) in enumerate(PAIRS):
        for one, other in (pair, reversed(pair)):
            cache.store(one, encoded[one], tenant=f"{at} {one}")
            found = cache.ask(other, encoded[other], tenant=f"{at} {one}")
            served[kind] += found is not None and found.entry is not None
    cache.close()
    assert len(PAIRS) > 500
    assert served.total() <= 0.004 * 2 * len(PAIRS), served
