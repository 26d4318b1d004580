"""Values: what dataclasses promise, without the price of frozen ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from llm_proxy.types import Outcome
from llm_proxy.values import value


@value
class Point:
    """Where something is."""

    x: int
    y: int = 0


def test_values_compare_and_hash_by_their_fields() -> None:
    assert Point(1, 2) == Point(x=1, y=2) != Point(1)
    assert Counter([Point(1), Point(1, 0), Point(2)])[Point(1)] == 2


def test_a_copy_leaves_the_first_as_it_was() -> None:
    first = Point(1)
    assert (replace(first, y=3), first) == (Point(1, 3), Point(1, 0))
    assert Outcome("miss").with_changes(status="hit", kind="exact") == Outcome("hit", "exact")


def test_nothing_else_can_be_kept_in_one() -> None:
    with pytest.raises(AttributeError):
        setattr(Point(1), "z", 3)  # noqa: B010 - the type checker would not let it be said otherwise
    assert repr(Point(1)) == "Point(x=1, y=0)"
