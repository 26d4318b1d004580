"""How many bytes hold how much."""

from __future__ import annotations

import math
from array import array

from llm_proxy.cache import fill
from llm_proxy.cache.fill import EDGES_USD, by_worth


def test_entries_by_what_they_spare():
    sizes, costs = array("q", [10, 20, 0, 30, 40]), array("d", [0.0, 0.005, 5.0, 0.01, 5.0])
    found = by_worth(sizes, costs)
    assert [edge for edge, _, _ in found] == [*EDGES_USD, math.inf]
    assert {edge: (entries, held) for edge, entries, held in found if entries} == {
        0.0: (1, 10),
        0.01: (2, 50),
        math.inf: (1, 40),
    }


def test_nothing_is_there():
    assert sum(held for *_, held in by_worth(array("q"), array("d"))) == 0


def test_of_many_a_part_is_looked_at(monkeypatch):
    monkeypatch.setattr(fill, "_MOST_LOOKED_AT", 10)
    found = by_worth(array("q", [7] * 100), array("d", [1.0] * 100))
    assert found[-1] == (math.inf, 100, 700)
