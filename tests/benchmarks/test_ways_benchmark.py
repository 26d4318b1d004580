"""The benchmark of ways: what it says of calls whose answers are known."""

from __future__ import annotations

import random
from argparse import Namespace

import pytest

from benchmarks import ways
from benchmarks.ways import Call

OPTIONS = Namespace(share=0.1, bar=0.7, quality=0.95, calls=1500, seeds=2)


def calls() -> list[Call]:
    chance = random.Random(0)
    found = []
    for _ in range(500):
        p_right = chance.betavariate(1.0, 0.6)
        is_right = chance.random() < p_right
        found.append(Call(p_right, 0.9 if is_right else 0.2, float(is_right), float(chance.random() < 0.95)))
    return found


def test_the_better_way_is_found() -> None:
    found = ways.measured(calls(), OPTIONS)
    assert found["knowing"]["select"]["burden"] < found["knowing"]["cascade"]["burden"]
    assert found["blind"]["cascade"]["burden"] < found["blind"]["select"]["burden"]
    for name, better in (("knowing", "select"), ("blind", "cascade"), ("ridge", "select")):
        assert found[name]["auto"]["right"] == pytest.approx(found[name][better]["right"], abs=0.02)
        assert found[name]["auto"]["takes"] == pytest.approx(found[name][better]["takes"], rel=0.12)
    assert len(ways._table(found)) == 11


def test_the_same_seeds_give_the_same_figures() -> None:
    assert ways.measured(calls(), OPTIONS) == ways.measured(calls(), OPTIONS)
