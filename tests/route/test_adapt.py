"""The scorer corrected by marked answers of one's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.checks import scorer_for
from llm_proxy.config import Config
from llm_proxy.errors import ConfigError, RouterError
from llm_proxy.observe.events import Troubles
from llm_proxy.route.adapt import OWN_NAME, Adaptation, MarkedAnswer, adapted_to, fit, read_marked
from llm_proxy.route.answers import FEATURES, features
from llm_proxy.route.base import Reply
from llm_proxy.route.scorer import AnswerScorer
from llm_proxy.testing import FakeEncoder

HEDGES = FEATURES.index("hedges")


def answers(count: int, *, turned: bool = False) -> tuple[Any, Any, Any]:
    """Logits, what is shown, and marks: here, hedging answers are the right ones."""
    chance = np.random.default_rng(0)
    shown = np.full((count, len(FEATURES)), np.nan)
    shown[:, HEDGES] = chance.integers(0, 2, count)
    shown[::7, HEDGES] = np.nan
    logits = chance.standard_normal(count)
    is_right = np.nan_to_num(shown[:, HEDGES]) > 0 if not turned else logits < 0
    return logits, shown, is_right


def test_it_learns_what_the_scorer_does_not_know() -> None:
    logits, shown, is_right = answers(400)
    found = fit("s", logits, shown, is_right)
    assert found.weights[HEDGES] > 1
    assert sum(abs(weight) for weight in found.weights) == pytest.approx(abs(found.weights[HEDGES]))
    sure = [
        found.logit(0.0, [hedges if at == HEDGES else math.nan for at in range(len(FEATURES))]) for hedges in (0, 1, 99)
    ]
    assert sure[0] < 0 < sure[1] < sure[2] < 40
    assert (found.scorer, found.answers) == ("s", 400)


def test_it_can_turn_the_scorer_round() -> None:
    assert fit("s", *answers(3000, turned=True)).slope < 0


def test_few_answers_change_little() -> None:
    logits, shown, is_right = answers(20)
    assert fit("s", logits, shown, is_right).slope == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("count", "right"), [(0, 0), (19, 9), (50, 0), (50, 50)])
def test_too_few(count: int, right: int) -> None:
    marks = np.arange(count) < right
    with pytest.raises(RouterError, match=f"{count} marked answers, {right} of them right"):
        fit("s", np.zeros(count), np.zeros((count, len(FEATURES))), marks)


class TestFiles:
    def test_there_and_back(self, tmp_path: Path) -> None:
        found = fit("s", *answers(100))
        found.save(tmp_path / "own.json")
        assert Adaptation.load(tmp_path / "own.json") == found

    @pytest.mark.parametrize(
        "change",
        [{"features": ["x"]}, {"slope": math.nan}, {"weights": [1.0]}, {"means": "x"}, {"other": 1}, {"spreads": None}],
    )
    def test_damage(self, tmp_path: Path, change: Any) -> None:
        path = tmp_path / "own.json"
        fit("s", *answers(100)).save(path)
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ConfigError, match="fit it anew"):
            Adaptation.load(path)

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff", None])
    def test_no_file_of_ours(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "own.json").write_bytes(content)
        with pytest.raises(ConfigError, match="fit it anew"):
            Adaptation.load(tmp_path / "own.json")

    def test_marked_answers(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        rows = [{"question": "q", "answer": "a", "good": True}, {"question": "q", "answer": "b", "good": 0.4}]
        path.write_text("\n\n".join(map(json.dumps, rows)))
        assert read_marked(path) == [MarkedAnswer("q", "a", True), MarkedAnswer("q", "b", False)]

    @pytest.mark.parametrize(
        "line",
        [
            *('{"question": "q", "answer": 1, "good": 1}', '{"question": "q"}', "[]", "{"),
            *('{"question": "", "answer": "", "good": "x"}', '{"question": "", "answer": "", "good": 2}'),
            *('{"question": "", "answer": "", "good": NaN}', "[" * 100_000, '"question"'),
        ],
    )
    def test_lines_that_are_wrong(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "a.jsonl").write_text("\n" + line)
        with pytest.raises(RouterError, match=r"a\.jsonl line 2: (not JSON$|must be |\"good\" must be )"):
            read_marked(tmp_path / "a.jsonl")

    def test_with_a_byte_order_mark(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "a", "good": 1}', encoding="utf-8-sig")
        assert read_marked(tmp_path / "a.jsonl") == [MarkedAnswer("q", "a", True)]

    def test_an_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(RouterError, match="can't be read"):
            read_marked(tmp_path / "absent")


class TestInUse:
    def test_the_scorer_is_corrected(self) -> None:
        scorer, encoder = AnswerScorer(), FakeEncoder(384)
        rows = [MarkedAnswer(f"{at}?", "perhaps" if at % 2 else "surely", bool(at % 2)) for at in range(60)]
        own = adapted_to(rows, scorer, encoder.encode)
        corrected = AnswerScorer(own=own)
        before, after = (made.score("7?", Reply("perhaps")) for made in (scorer, corrected))
        assert after > max(before, 0.5)
        assert corrected.logit(features("7?", Reply("x"))) == scorer.logit(features("7?", Reply("x")))
        other = AnswerScorer(own=Adaptation("another", 0.0, 9.0, own.means, own.weights, own.spreads, 60))
        assert other.score("7?", Reply("perhaps")) == before

    def test_a_file_in_the_caches_directory(self, tmp_path: Path) -> None:
        troubles, path = Troubles(), tmp_path / OWN_NAME
        backends = {"a": {"base_url": "http://127.0.0.1/v1"}}
        routes = {"auto": {"candidates": ["a/small", "a/large"], "cascade": True}}
        config = Config(cache={"directory": tmp_path}, backends=backends, routes=routes)

        def scored() -> float:
            scorer = scorer_for(config, None, troubles)
            assert scorer is not None
            return scorer.score("q", Reply("a"), None)

        plain = scored()
        path.write_text("damaged")
        assert (scored(), troubles.counts) == (plain, {"cascade": 1})
        zeros = (0.0,) * len(FEATURES)
        Adaptation(AnswerScorer().name, 0.0, 0.0, zeros, zeros, (1.0,) * len(FEATURES), 20).save(path)
        assert scored() == 0.5
