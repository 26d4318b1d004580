"""What is counted: another conversation's answer, one's own in other words, and a wrong one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.followups import Conversation, measure
from tests.benchmarks.test_contract import figures, run

ROWS = [
    {
        "main": f"what is the weather in {city}",
        "main_response": "Mild.",
        "followup": "and in winter?",
        "main_paraphrase": f"what's the weather in {city}",
        "followup_paraphrase": None,
    }
    for city in ("Lyon", "Oslo", "Rome")
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    return path


def test_own_answers_in_other_words_and_never_another_s() -> None:
    mains = [row["main"] or "" for row in ROWS]
    reworded = [main.replace("what is", "What's") for main in mains]
    asked = [
        Conversation(main, "Mild.", "and in winter?", other, "And in winter?")
        for main, other in zip(mains, reworded, strict=True)
    ]
    found = measure(asked, 2, 0)
    assert (found["n"], found["n_other"], found["other_served"]) == (3, 6, 0.0)
    assert (found["n_reworded"], found["reworded_served"], found["reworded_question_served"]) == (3, 1.0, 1.0)
    assert found["reworded_wrong"] == 0


def test_a_row_that_is_served_another_s_answer_is_counted() -> None:
    """The other words ask for another row: as wrong as can be."""
    one, other = (Conversation(row["main"] or "", "Mild.", "and in winter?") for row in ROWS[:2])
    swapped = Conversation(one.main, one.response, one.followup, other.main, "And in winter?")
    found = measure([swapped, other], 1, 0)
    assert (found["reworded_served"], found["reworded_wrong"]) == (0.0, 2)


def test_the_command(rows: Path) -> None:
    found: dict[str, Any] = figures("followups", "--rows", rows, "--others", 2)
    assert (found["n"], found["n_reworded"], found["other_served"], found["reworded_wrong"]) == (3, 0, 0.0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a file"),
        (("--rows", "none.jsonl", "--others", 0), "--others must be"),
        (("--rows", "none.jsonl"), "none.jsonl can't be read"),
    ],
)
def test_options(arguments: tuple[object, ...], said: str) -> None:
    assert said in run("followups", *arguments, code=1).stderr
