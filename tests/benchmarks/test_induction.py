"""The route of the benchmark, with a stand-in for its model: one that is right about dates where it has an example."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.induction import KINDS, routed

RIGHT = {"dates": [0.1, 1.0, 1.0, 1.0], "backwards": [1.0] * 4, "codes": [0.0] * 4}


class StandIn:
    """Reads the form of dates off its examples; says numbers backwards; knows no codes."""

    def answer(self, messages: list[Mapping[str, Any]]) -> str:
        *before, last = [message["content"] for message in messages[1:]]
        words = last.rstrip(".?").split()
        if last.startswith("Say"):
            return "".join(reversed(words[1:3]))
        if not before or not last.startswith("Write"):
            return "0"
        parts = {"d": words[2], "m": words[4], "y": words[6]}
        for question, answer in zip(before[-2::-2], before[::-2], strict=True):
            asked = question.rstrip(".").split()
            named = {asked[2]: "d", asked[4]: "m", asked[6]: "y"}
            mark = next(char for char in answer if not char.isdigit())
            if len(named) == 3:  # else day and month are the same
                return mark.join(parts[named[part]] for part in answer.split(mark))
        return "0"


@pytest.mark.parametrize("examples", [0, 3])
def test_routing_counts_on_examples_where_they_help(examples: int) -> None:
    found = routed(StandIn(), RIGHT, Namespace(questions=300, compare_share=1.0), examples)
    assert all(found[kind]["right_share"] > 0.9 for kind in KINDS), "at about equal quality"
    assert found["backwards"]["tiny_share"] == 1.0
    assert found["codes"]["tiny_share"] == 0.0
    assert (found["dates"]["tiny_share"] > 0.0) == (examples > 0)
