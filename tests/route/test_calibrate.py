"""What a tolerance does, worked out by hand, and the tolerances that do what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_proxy.errors import ConfigError
from llm_proxy.route.calibrate import (
    Calibrated,
    expected_usd,
    for_score,
    for_share,
    mean_tokens,
    read_prices,
    true_usd,
    within,
    worth,
)
from llm_proxy.route.outcomes import read_outcomes

P = np.array([[0.9, 0.9], [0.5, 1.0], [0.8, 0.9], [0.1, 0.2]], np.float32)
USD = np.array([[1.0, 5.0]] * 4)


class TestWithin:
    @pytest.mark.parametrize(
        ("quality", "chosen"), [(1.0, [0, 1, 1, 1]), (0.85, [0, 1, 0, 1]), (0.5, [0, 0, 0, 0]), (0.0, [0, 0, 0, 0])]
    )
    def test_by_hand(self, quality: float, chosen: list[int]) -> None:
        assert within(P, USD, quality).tolist() == chosen

    def test_of_equal_cost_the_first(self) -> None:
        assert within(P, USD * 0, 0.5).tolist() == [0, 0, 0, 0]

    def test_a_dearer_one_is_taken_only_for_what_it_is_worth(self) -> None:
        assert worth(P, USD, 7.0).tolist() == [0, 0, 0, 0]
        assert worth(P, USD, 9.0).tolist() == [0, 1, 0, 0]
        assert worth(P, USD, 50.0).tolist() == [0, 1, 1, 1]


class TestFor:
    def test_share(self) -> None:
        found = for_share(P, USD, 0.5)
        assert found == Calibrated(
            setting="quality",
            value=pytest.approx(0.8888),
            shares=(0.5, 0.5),
            score=pytest.approx(0.725),
            best_score=pytest.approx(0.75),
            usd=3.0,
            best_usd=5.0,
        )
        assert within(P, USD, found.value).tolist() == [0, 1, 0, 1] != within(P, USD, 0.89).tolist()
        assert for_share(P, USD, 0.0).value == 0.0001, "above 0, as the setting must be"
        assert for_share(P, USD, 1.0).shares == (0.25, 0.75), "the nearest there is"

    def test_score(self) -> None:
        assert for_score(P, USD, 0.96).value == pytest.approx(0.8888)
        assert for_score(P, USD, 0.7).usd == 1.0
        assert for_score(P, USD, 1.0).score == pytest.approx(0.75)

    @given(arrays(np.float32, (12, 3), elements=st.floats(0, 1, width=32)), st.floats(0.05, 1))
    def test_what_was_asked_for_is_kept(self, p_good: np.ndarray, part: float) -> None:
        usd = np.array([[1.0, 2.0, 4.0]] * 12)
        found = for_score(p_good, usd, part)
        rows = within(p_good, usd, found.value)
        assert 0 < found.value <= 1
        assert p_good[np.arange(12), rows].mean() == pytest.approx(found.score)
        assert found.score >= part * found.best_score - 1e-6
        assert sum(found.shares) == pytest.approx(1)

    def test_by_what_a_good_answer_is_worth(self) -> None:
        half = for_share(P, USD, 0.25, "usd_per_good_answer")
        assert half.setting == "usd_per_good_answer"
        assert half.shares == (0.75, 0.25)
        assert 8 < half.value < 8 * 10 ** (6 / 999) + 0.005, "half a good answer for four dollars, to a step"
        assert float(f"{half.value:.3g}") == half.value
        assert for_score(P, USD, 0.96, "usd_per_good_answer").score >= 0.96 * 0.75
        assert for_score(P, USD, 0.93, "usd_per_good_answer").usd == 2.0
        assert for_score(P, USD, 0.93).usd == 3.0, "two rows have one ratio, but not one difference"
        assert for_share(P, USD * 0, 1.0, "usd_per_good_answer").score == pytest.approx(0.75)

    def test_a_worth_that_no_sum_reaches(self) -> None:
        p_good = np.array([[0.5, 0.5 + 1e-6]] * 4, np.float32)
        found = for_score(p_good, USD, 1.0, "usd_per_good_answer")
        assert found.shares == (1.0, 0.0), "the most that there is"

    def test_more_rows_than_steps(self) -> None:
        random = np.random.default_rng(0)
        p_good = np.stack([random.random(5_000) * 0.5, 0.5 + random.random(5_000) * 0.5], axis=1).astype(np.float32)
        found = for_share(p_good, np.array([[1.0, 9.0]] * 5_000), 0.3)
        assert found.shares[1] == pytest.approx(0.3, abs=0.005)


class TestCost:
    def test_by_hand(self) -> None:
        found = expected_usd(np.array([1e6], np.float32), np.array([[1e6, 5e5]], np.float32), [(1, 2), (3, 4)])
        assert found.tolist() == [[3.0, 5.0]]

    def test_of_a_log(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        rows = [
            {"prompt": "p", "scores": {"a": 1, "b": 0}, "tokens": {"a": 10}, "usd": {"a": 0.5, "b": 0.25}, "ptok": 100},
            {"prompt": "q", "scores": {"a": 1, "b": 0}, "tokens": {"a": 30}, "usd": {"a": 0.5, "b": 0.25}, "ptok": 100},
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        found = read_outcomes(path)
        assert mean_tokens(found).tolist() == [20, 20], "of a model whose lengths nobody knows: as of the others"
        usd = true_usd(found, [(1, 1), (1, 1)], mean_tokens(found))
        assert (usd * 1e6).tolist() == [[110, 120], [130, 120]]
        assert true_usd(found, [], mean_tokens(found)).tolist() == [[0.5, 0.25], [0.5, 0.25]]

    def test_nothing_known(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text('{"prompt": "p", "scores": {"a": 1, "b": 0}}')
        found = read_outcomes(path)
        assert mean_tokens(found).tolist() == [256, 256]
        with pytest.raises(ConfigError, match="no prices: name them"):
            true_usd(found, [], mean_tokens(found))


class TestPrices:
    def test_typed_and_from_a_file(self, tmp_path: Path) -> None:
        assert read_prices("a=.1/2, b=3/4,", ["b", "a"]) == [(3, 4), (0.1, 2)]
        (tmp_path / "prices.json").write_text('{"a": [1, 2], "x": [0, 0]}')
        assert read_prices(str(tmp_path / "prices.json"), ["a"]) == [(1, 2)]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a=1/x", "prices must be NAME=IN/OUT"),
            ("absent.json", "prices must be"),
            ("b=1/2", "no price of 'a'"),
            ("a=1", "two numbers >= 0"),
            ("a=1/-2", "two numbers >= 0"),
            ("a=1/inf", "two numbers >= 0"),
        ],
    )
    def test_wrong(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            read_prices(text, ["a"])
