"""Plain vCache, on cases that can be worked out by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.bound.vcache import ask_probability, fit

observations = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), max_size=12).map(tuple)


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


class TestFit:
    def test_what_mirrors_itself_has_its_threshold_in_the_middle(self) -> None:
        """(0, 0), (1, 1), (.4, 1), (.6, 0): any fit of it is that of its mirror image."""
        found = fit(((0.4, True), (0.6, False)))
        assert found.threshold == pytest.approx(0.5, abs=1e-6)
        assert found.gamma > 0.0
        # The slope of the likelihood is 0: the errors at 0 and 1 are e, those at .4 and .6 the other way.
        e, f = sigmoid(-0.5 * found.gamma), sigmoid(-0.1 * found.gamma)
        assert 1.0 * e == pytest.approx(0.2 * (1 - f) + 1e-3 * found.gamma, abs=1e-5)

    def test_the_variance_is_the_delta_method_s(self) -> None:
        seen = ((0.4, True), (0.6, False))
        found = fit(seen)
        offset = -found.gamma * found.threshold
        weights = [(s, sigmoid(offset + found.gamma * s)) for s in (0.0, 1.0, 0.4, 0.6)]
        a = sum(p * (1 - p) for _, p in weights)
        b = sum(p * (1 - p) * s for s, p in weights)
        d = sum(p * (1 - p) * s * s for s, p in weights) + 1e-3
        by_offset, by_gamma = -1 / found.gamma, offset / found.gamma**2
        variance = (by_offset**2 * d - 2 * by_offset * by_gamma * b + by_gamma**2 * a) / (a * d - b * b)
        assert found.threshold_sd == pytest.approx(math.sqrt(variance), rel=1e-4)

    def test_similarity_that_says_nothing(self) -> None:
        found = fit(((0.0, True), (1.0, False)))
        assert (abs(found.gamma) < 1e-6, found.threshold, found.threshold_sd) == (True, 1.0, 1e6)

    def test_similarity_that_misleads(self) -> None:
        seen = (*[(0.9, False)] * 10, *[(0.5, True)] * 10)
        assert fit(seen).gamma == 0.0
        assert ask_probability(0.1, seen, 0.01) > 0.9, "nothing is known of questions so far away"

    @given(observations)
    def test_finite(self, seen: tuple[tuple[float, bool], ...]) -> None:
        found = fit(seen)
        assert all(map(math.isfinite, (found.gamma, found.threshold, found.threshold_sd)))


class TestAskProbability:
    def test_the_formula(self) -> None:
        seen = ((0.4, True), (0.6, False), (0.3, False), (0.9, True), (0.95, True))
        found = fit(seen)
        taus = []
        for power in range(26):
            eps = 0.5 * 0.7**power
            at = found.threshold + NormalDist().inv_cdf(1 - eps) * found.threshold_sd
            sure = (1 - eps) * sigmoid(found.gamma * (0.92 - min(1.0, max(0.0, at))))
            taus.append(1 - 0.2 / (1 - sure))
        assert ask_probability(0.92, seen, 0.2) == pytest.approx(max(0.0, min(taus)))

    def test_without_slope_half_of_the_half_is_sure(self) -> None:
        """The least tau is at eps = .5: a = .5 * .5, so 1 - .05 / .75 at the most."""
        assert ask_probability(0.9, ((0.0, True), (1.0, False)), 0.05) == pytest.approx(1 - 0.05 / 0.5, abs=0.05)

    @given(observations, st.floats(0.0, 1.0), st.floats(0.001, 0.5))
    def test_a_probability_that_keeps_the_rate(
        self, seen: tuple[tuple[float, bool], ...], similarity: float, rate: float
    ) -> None:
        assert 0.0 <= ask_probability(similarity, seen, rate) <= 1.0 - rate

    def test_a_new_entry_is_asked_about(self) -> None:
        assert ask_probability(0.97, (), 0.01) > 0.9

    def test_many_right_ones_are_served(self) -> None:
        assert ask_probability(0.99, ((0.7, True),) * 100 + ((0.2, False),) * 100, 0.1) == 0.0
