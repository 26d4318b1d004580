"""Golden numbers worked out by hand, ties in expectation, and what scipy says of the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route import metrics

# Ten rows, the strong model is right in eight, the weak in three: a gap of five rows, six won and one lost.
WEAK = [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
STRONG = [1, 0, 0, 1, 1, 1, 1, 1, 1, 1]
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30)
RISING = list(range(10))  # the last row needs the strong model most


class TestPgr:
    def test_by_hand(self) -> None:
        # From the last row on: 0 for the tie, then six wins, a draw, a loss, a draw; in fifths of the gap.
        expected = [0, 0, 1, 2, 3, 4, 5, 6, 6, 5, 5]
        assert metrics.pgr(RISING, WEAK, STRONG).tolist() == pytest.approx([one / 5 for one in expected])
        assert metrics.apgr(RISING, WEAK, STRONG) == pytest.approx((sum(expected) - 2.5) / 5 / 10)

    def test_one_score_for_all_is_chance_in_whatever_order(self) -> None:
        order = [3, 4, 5, 6, 7, 8, 0, 1, 2, 9]  # the rows that win first
        weak, strong = [WEAK[at] for at in order], [STRONG[at] for at in order]
        assert metrics.apgr([0.5] * 10, weak, strong) == pytest.approx(0.5)
        assert metrics.cpt(0.8, [0.5] * 10, weak, strong) == pytest.approx(0.8)

    def test_ties_are_straight_lines(self) -> None:
        score = [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]
        curve = metrics.pgr(score, WEAK, STRONG)
        assert curve[:7].tolist() == pytest.approx([one / 5 for one in range(7)])
        assert curve[6:].tolist() == pytest.approx([1.2, 1.15, 1.1, 1.05, 1.0]), "one row lost among four"

    def test_rows_that_are_no_multiple_of_ten(self) -> None:
        assert metrics.pgr([2, 1, 0], [0, 0, 0], [1, 0, 0]).tolist() == pytest.approx([0, 0.3, 0.6, 0.9, *[1] * 7])

    @given(ROWS, st.randoms(use_true_random=False))
    def test_neither_the_order_nor_the_scale_counts(self, rows: list[tuple[int, int, int]], random: Any) -> None:
        shuffled = random.sample(rows, len(rows))
        one, other = (metrics.apgr(*map(list, zip(*side, strict=True))) for side in (rows, shuffled))
        assert one == pytest.approx(other, nan_ok=True)
        score, weak, strong = zip(*rows, strict=True)
        assert metrics.apgr(np.exp(score), weak, strong) == pytest.approx(one, nan_ok=True)

    @pytest.mark.parametrize("strong", [WEAK, [0] * 10], ids=["no gap", "the weak one is better"])
    def test_without_a_gap(self, strong: list[int]) -> None:
        assert math.isnan(metrics.apgr(RISING, WEAK, strong))
        assert math.isnan(metrics.cpt(0.5, RISING, WEAK, strong))
        assert all(map(math.isnan, metrics.apgr_interval(RISING, WEAK, strong, draws=20)))
        assert metrics.share_above(RISING, RISING, WEAK, strong, draws=20) == 0

    def test_graded_scores_without_a_gap(self) -> None:
        assert math.isnan(metrics.apgr([1, 2, 3], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])), "but for a rest of rounding"


class TestCpt:
    def test_by_hand(self) -> None:
        assert metrics.cpt(0.5, RISING, WEAK, STRONG) == pytest.approx(0.35)
        assert metrics.cpt(0.8, RISING, WEAK, STRONG) == pytest.approx(0.5)
        assert metrics.cpt(0.0, RISING, WEAK, STRONG) == 0.0
        assert metrics.cpt(1.0, RISING, WEAK, STRONG) == pytest.approx(0.6)

    @given(ROWS)
    def test_the_curve_is_at_the_target_there(self, rows: list[tuple[int, int, int]]) -> None:
        score, weak, strong = zip(*rows, strict=True)
        curve = metrics.pgr(score, weak, strong)
        share = metrics.cpt(0.5, score, weak, strong)
        if math.isnan(share):
            assert sum(strong) <= sum(weak)
        else:
            assert np.interp(share * 10, range(11), curve) == pytest.approx(0.5)


class TestInterval:
    def test_it_holds_the_figure_and_shrinks_with_rows(self) -> None:
        random = np.random.default_rng(1)
        widths = []
        for n in (200, 5_000):
            weak = random.integers(0, 2, n)
            strong = np.maximum(weak, random.random(n) < 0.6)
            score = strong - weak + random.normal(size=n)
            low, high = metrics.apgr_interval(score, weak, strong, draws=200)
            assert low < metrics.apgr(score, weak, strong) < high
            widths.append(high - low)
        assert widths[1] < widths[0] / 3

    def test_repeatable(self) -> None:
        one, again = (metrics.apgr_interval(RISING, WEAK, STRONG, draws=50, seed=3) for _ in range(2))
        assert one == again != metrics.apgr_interval(RISING, WEAK, STRONG, draws=50, seed=4)


class TestShareAbove:
    def test_a_better_score_a_worse_one_and_itself(self) -> None:
        random = np.random.default_rng(2)
        weak, strong = random.integers(0, 2, 1_000), np.ones(1_000)
        knows, chance = strong - weak + 0.1 * random.random(1_000), random.random(1_000)
        assert metrics.share_above(knows, chance, weak, strong, draws=100) == 1
        assert metrics.share_above(chance, knows, weak, strong, draws=100) == 0
        assert metrics.share_above(knows, knows, weak, strong, draws=100) == 0

    def test_worse_than_chance_is_not_above_what_is_worse_still(self) -> None:
        random = np.random.default_rng(3)
        weak, strong = random.integers(0, 2, 1_000), np.ones(1_000)
        wrong = weak + 3 * random.random(1_000)
        assert metrics.share_above(wrong, weak, weak, strong, draws=100) == 0


class TestAuc:
    def test_by_hand(self) -> None:
        assert metrics.auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
        assert metrics.auc([1, 1, 1], [0, 1, 1]) == 0.5
        assert metrics.auc([3, 2], [False, True]) == 0.0

    @pytest.mark.parametrize("label", [[1, 1], [0, 0]])
    def test_one_label(self, label: list[int]) -> None:
        assert math.isnan(metrics.auc([1, 2], label))


class TestKendall:
    def test_by_hand(self) -> None:
        assert metrics.kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
        assert metrics.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
        # Five pairs agree, none differs, one is tied on one side: 5 / sqrt(6 * 5).
        assert metrics.kendall_tau([1, 2, 3, 4], [1, 2, 3, 3]) == pytest.approx(5 / 30**0.5)

    def test_nothing_to_order(self) -> None:
        assert math.isnan(metrics.kendall_tau([1, 1], [1, 2]))
        assert math.isnan(metrics.kendall_tau([], []))

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
    def test_as_pair_by_pair(self, rows: list[tuple[int, int]]) -> None:
        pairs = [(a, b) for at, a in enumerate(rows) for b in rows[:at]]
        signs = [((a[0] > b[0]) - (a[0] < b[0])) * ((a[1] > b[1]) - (a[1] < b[1])) for a, b in pairs]
        apart = [sum(a[side] != b[side] for a, b in pairs) for side in (0, 1)]
        found = metrics.kendall_tau(*zip(*rows, strict=True))
        if not all(apart):
            assert math.isnan(found)
        else:
            assert found == pytest.approx(sum(signs) / (apart[0] * apart[1]) ** 0.5)


class TestReliability:
    def test_bins_of_as_many_rows(self) -> None:
        p = np.arange(100) / 100
        bins = metrics.reliability(p, p > 0.495, bins=4)
        assert [one.n for one in bins] == [25, 25, 25, 25]
        assert bins[0].predicted == pytest.approx(0.12)
        assert [one.observed for one in bins] == [0, 0, 1, 1]
        assert metrics.calibration_error(bins) == pytest.approx((0.12 + 0.37 + 0.38 + 0.13) / 4)

    def test_rows_of_one_prediction_stay_together(self) -> None:
        bins = metrics.reliability([0.2] * 6 + [0.9] * 4, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
        assert [(one.n, round(one.observed, 3)) for one in bins] == [(6, 0.167), (4, 1.0)]

    def test_no_rows(self) -> None:
        assert metrics.reliability([], []) == ()
        assert metrics.calibration_error(()) == 0
