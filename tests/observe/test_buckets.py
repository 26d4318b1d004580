"""Latencies on a logarithmic scale, and sums that add up."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.observe.buckets import EDGES_S, Part, Sums, percentile, place_of


@given(st.lists(st.floats(2e-5, 900), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_six_percent_off_at_most(latencies: list[float], share: float):
    found = percentile(Counter(map(place_of, latencies)), share)
    ordered = sorted(latencies)
    true = next(value for rank, value in enumerate(ordered, 1) if rank >= share * len(ordered) - 1e-9)
    assert found == pytest.approx(true, rel=0.062)


def test_beyond_the_ends():
    assert percentile(Counter(), 0.5) is None
    assert place_of(0.0) == 0
    assert place_of(5_000.0) == len(EDGES_S)
    assert percentile(Counter([len(EDGES_S)]), 0.5) == pytest.approx(EDGES_S[-1], rel=0.062)


def test_sums_add_up():
    one = Sums(exact=1, saved_usd=0.5, hits=Counter({3: 1}), mix={("auto", "m"): Part(1, 1, 0.5, 0.0)})
    other = Sums(miss=2, hits=Counter({3: 2}), mix={("auto", "m"): Part(2, 0, 0.0, 1.0), ("", "n"): Part(1)})
    one.add(other)
    assert one.calls == 3
    assert one.hits == {3: 3}
    assert one.mix == {("auto", "m"): Part(3, 1, 0.5, 1.0), ("", "n"): Part(1)}
    assert one.numbers()["calls"] == 3
    assert "mix" not in one.numbers()
