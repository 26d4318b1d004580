"""Requests are made as is said, figures are counted right, and a rule that always serves misses the bar."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks._streams import Near, Questions, questions, requests
from benchmarks.bound import Neighbours, replay
from tests.benchmarks.test_contract import figures, run

KEYS = {"error_rate", "error_upper95", "hit_rate", "asked_upstream"}
CITIES = ("Lyon", "Oslo", "Rome", "Cairo", "Lima", "Paris", "Quito", "Delhi")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Of each topic two wordings of one question, and a trap that sounds like both."""
    rows: list[tuple[str, str, int]] = []
    for city in CITIES:
        rows += [
            (f"what is the weather in {city}", f"what's the weather in {city}", 1),
            (f"what is the weather in {city}", f"what was the weather in {city}", 0),
        ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b, "label": label}) + "\n" for a, b, label in rows))
    return path


class Always:
    """Serves the nearest, whatever it is."""

    looks_at = 1

    def choose(self, text: int, neighbours: Neighbours) -> int | None:
        return neighbours[0][0] if neighbours else None

    def learn(self, text: int, neighbours: Neighbours) -> bool:
        return True


def alike(found: Questions) -> Near:
    """All of a topic are near, in the order of the file."""
    texts = {text: array("l", [other for other in topic if other != text]) for topic in found.topics for text in topic}
    return Near(texts, {text: array("f", [0.9] * len(others)) for text, others in texts.items()})


class TestQuestions:
    def test_answers_topics_and_what_is_not_known(self, pairs: Path) -> None:
        found = questions([pairs])
        one, other, trap = range(3)
        assert (len(found.texts), len(found.topics)) == (24, 8)
        assert found.is_same(one, other) is True
        assert found.is_same(one, trap) is found.is_same(other, trap) is False
        assert found.is_same(one, 3) is None

    def test_a_pair_that_contradicts_its_answer_differs_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.csv"
        path.write_text("a,b,label\nx,y,1\ny,z,1\nx,z,0\n")
        found = questions([path])
        assert [found.is_same(*pair) for pair in ((0, 1), (1, 2), (0, 2))] == [True, True, False]

    def test_topics_arrive_and_files_one_after_another(self, pairs: Path, tmp_path: Path) -> None:
        later = tmp_path / "later.jsonl"
        later.write_text(pairs.read_text().replace("weather", "time"))
        found = questions([pairs, later])
        asked = requests(found, 2_000, 3)
        assert asked == requests(found, 2_000, 3) != requests(found, 2_000, 4)
        first = [asked.index(text) for text in set(asked) if "time" in found.texts[text]]
        assert min(first) > 600
        assert max(first) > 1_200


class TestReplay:
    def test_what_is_counted(self, pairs: Path) -> None:
        found = questions([pairs])
        stream: Sequence[int] = [0, 0, 1, 2, 2, 3]
        counts = replay(found, alike(found), stream, Always())
        assert (counts.exact, counts.served, counts.wrong, counts.asked) == (1, 3, 2, 2)
        row = counts.figures("x_")
        assert row["x_error_rate"] == pytest.approx(2 / 3)
        assert row["x_hit_rate"] == pytest.approx(4 / 6)
        assert row["x_error_rate_of_requests"] == pytest.approx(2 / 6)
        assert row["x_error_rate"] < row["x_error_upper95"] < 1.0

    def test_a_rule_that_always_serves_misses_the_bar(self, pairs: Path) -> None:
        found = questions([pairs])
        for seed in range(5):
            assert replay(found, alike(found), requests(found, 500, seed), Always()).error_rate > 0.05


class TestCommand:
    def test_figures_of_all_rules(self, pairs: Path, tmp_path: Path) -> None:
        plot = tmp_path / "bound.svg"
        found = figures("bound", "--pairs", pairs, "--requests", 300, "--seeds", 2, "--plot", plot)
        prefixes = ("", "vcache_", "static_", "static_every_seed_")
        assert {prefix + key for prefix in prefixes for key in KEYS} <= set(found)
        assert [row["seed"] for row in found["seeds"]] == [0, 1]
        assert found["seeds_above_max_error"] == 0
        assert found["static_error_rate"] <= found["max_error"] == 0.01
        assert found["hit_rate"] + found["asked_upstream"] == pytest.approx(1.0)
        assert found["decide_us"] > 0.0
        assert plot.read_text().count("max_error_rate") >= 1

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "name files of pairs"),
            (("--pairs", "none.jsonl", "--max-error", 1), "--max-error must be"),
            (("--pairs", "none.jsonl", "--plot", "no/such/folder.svg"), "there is no such folder"),
            (("--pairs", "none.jsonl"), "no pairs"),
        ],
    )
    def test_options(self, arguments: tuple[object, ...], said: str) -> None:
        assert said in run("bound", *arguments, code=1).stderr
