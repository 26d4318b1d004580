"""The queue and the memory that policies are made of, beside plain models of them."""

from __future__ import annotations

import random
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.policies.history import History
from llm_proxy.cache.policies.ranking import Ranking


def drained(ranking: Ranking) -> list[str]:
    keys = []
    while (slot := ranking.least()) is not None:
        keys.append(ranking.key(slot))
        ranking.remove(keys[-1])
    return keys


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("amlrosk"), st.sampled_from("abcdef"), st.floats(0, 1e9, allow_subnormal=False)),
        max_size=120,
    )
)
def test_ranking_is_its_model(steps: list[tuple[str, str, float]]) -> None:
    ranking = Ranking()
    model: dict[str, tuple[float, int]] = {}
    for turn, (what, key, value) in enumerate(steps):
        slot = ranking.slot(key)
        assert (slot is not None) == (key in model)
        if slot is None:
            if what == "a":
                ranking.add(key, value)
                model[key] = (value, turn)
            assert ranking.remove("nothing") is None
        elif what in "aml":
            ranking.move(slot, value, is_last=what == "l")
            model[key] = (value, turn if what == "l" else model[key][1])
        elif what == "r":
            assert ranking.remove(key) == slot
            del model[key]
        elif what == "s":
            ranking.scale(0.5)
            model = {name: (number / 2, at) for name, (number, at) in model.items()}
        in_order = sorted(model, key=model.__getitem__)
        if what == "o":
            assert list(ranking.order()) == in_order
        with closing(ranking.order()) as order:
            assert next(order, None) == (in_order[0] if in_order else None)
        assert sorted(ranking) == sorted(model)
        assert len(ranking) == len(model)
    assert drained(ranking) == sorted(model, key=model.__getitem__)


def test_a_key_that_is_in_the_queue_twice_comes_once() -> None:
    ranking = Ranking()
    slot = ranking.add("a", 5.0)
    ranking.add("b", 9.0)
    ranking.move(slot, 1.0)
    ranking.move(slot, 5.0)
    assert list(ranking.order()) == ["a", "b"]
    assert drained(ranking) == ["a", "b"]


def test_an_order_passes_over_what_a_fallen_key_left_behind() -> None:
    ranking = Ranking()
    slot = ranking.add("a", 5.0)
    ranking.add("b", 9.0)
    ranking.move(slot, 1.0)
    assert list(ranking.order()) == ["a", "b"]
    assert len(ranking._heap) == 2
    assert drained(ranking) == ["a", "b"]


def test_the_queue_does_not_grow_with_what_falls_or_goes() -> None:
    ranking = Ranking()
    slot = ranking.add("a", 1e6)
    ranking.add("first", 0.0)
    for number in range(1_000):
        ranking.move(slot, 1e6 - number)
        ranking.add("b", 5.0)
        ranking.remove("b")
    assert len(ranking._heap) <= 2 * 2 + 64
    assert drained(ranking) == ["first", "a"]


class TestHistory:
    def test_nothing_is_known_at_first(self) -> None:
        assert History().count("a") == 0

    def test_the_last_count_is_kept(self) -> None:
        history = History()
        history.keep("a", 3.0)
        history.keep("b", 1.0)
        history.keep("a", 4.0)
        assert [history.count(key) for key in "abc"] == [4.0, 1.0, 0.0]
        history.scale(0.5)
        assert [history.count(key) for key in "abc"] == [2.0, 0.5, 0.0]

    def test_it_is_kept_when_there_is_more_room(self) -> None:
        history = History()
        for number in range(5_000):
            history.keep(f"key {number}", number + 1.0)
        before = [history.count(f"key {number}") for number in range(5_000)]
        history.widen(50_000)
        assert [history.count(f"key {number}") for number in range(5_000)] == before
        assert sum(count > 0 for count in before) > 4_900
        for number in range(50_000):
            history.keep(f"other {number}", 1.0)
        assert sum(history.count(f"key {number}") > 1 for number in range(5_000)) > 4_800

    def test_a_flood_drives_out_itself(self) -> None:
        """Three of four places of a group stay with those that were asked for most."""
        history, rng = History(), random.Random(0)
        known = [f"known {number}" for number in range(3_000)]
        for key in known:
            history.keep(key, 5.0)
        for _ in range(200_000):
            history.keep(f"{rng.getrandbits(64):x}", 1.0)
        assert sum(history.count(key) == 5.0 for key in known) / len(known) == pytest.approx(1.0, abs=0.03)

    @given(counts=st.dictionaries(st.text(max_size=4), st.floats(0.125, 1e30), max_size=40))
    def test_counts_come_back(self, counts: dict[str, float]) -> None:
        history = History()
        for key, count in counts.items():
            history.keep(key, count)
        for key, count in counts.items():
            assert history.count(key) in (0.0, pytest.approx(count, rel=1e-6))
