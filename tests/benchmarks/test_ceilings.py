"""Policies that know more than a cache can, and the bound for all: by hand, and against each other."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks._ceilings import any_policy, foretold, of_all, of_each
from benchmarks._traces import Trace
from benchmarks.eviction import replay
from llm_proxy.cache.policies.base import Policy
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lru import LRU

EACH_FITS_ALONE = 2_000


def drawn(seed: int, requests: int = 4_000) -> Trace:
    """Three hundred queries, few of them popular, costs over two orders of magnitude."""
    rng = random.Random(seed)
    popularity = [1 / (number + 1) for number in range(300)]
    sizes = [rng.randrange(1_400, 6_000) for _ in popularity]
    asked = rng.choices(range(300), popularity, k=requests)
    return Trace(asked, [10 ** rng.uniform(-4, -2) for _ in popularity], sizes, popularity)


def saved(policy: Policy, found: Trace, capacity: int) -> float:
    hits = zip(found.requests, replay(policy, found, capacity), strict=True)
    return sum(found.costs_usd[query] for query, is_hit in hits if is_hit) / found.cost_usd


class TestAnyPolicy:
    def test_by_hand(self) -> None:
        found = Trace([0, 1, 1, 0, 0], [1.0, 2.0], [100, 100])
        # 0 waits for three requests and for one, 1 for one: 500 bytes times requests are needed, and there are 500
        assert any_policy(found, 100) == pytest.approx(4 / 7)
        # 50 bytes hold neither of them
        assert any_policy(found, 50) == 0

    def test_part_of_the_last_one(self) -> None:
        found = Trace([0, 1, 2, 3, 3, 2, 1, 0], [1.0, 1.0, 1.0, 1.0], [100, 100, 100, 100])
        # 100 + 300 + 500 + 700 bytes times requests would be needed, of which there are 800
        assert any_policy(found, 100) == pytest.approx((2 + 400 / 500) / 8)

    def test_what_never_comes_again_saves_nothing(self) -> None:
        assert any_policy(Trace([0, 1, 2], [1.0] * 3, [100] * 3), 1_000) == 0

    @pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 1.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_exceeds_it(self, seed: int, fraction: float) -> None:
        found = drawn(seed)
        capacity = found.capacity(fraction)
        most = any_policy(found, capacity) + 1e-12
        assert found.hindsight(capacity) <= most
        for policy in (LRU(), GDSF(), of_each(found.popularity), of_all(found.popularity)):
            assert 0 < saved(policy, found, capacity) <= most

    def test_it_is_met_where_all_fits(self) -> None:
        found = drawn(0)
        assert saved(LRU(), found, found.capacity(1.0)) == pytest.approx(any_policy(found, found.capacity(1.0)))


class TestForetold:
    def test_it_is_bayes_rule(self) -> None:
        rate = foretold([3.0, 0.0, 1.0, 1.0])
        requests = 1.05 ** round(math.log(20) / math.log(1.05))
        for count in (1, 4, 9, 100):
            odds = [share**count * math.exp(-requests * share) for share in (0.6, 0.2, 0.2)]
            mean = sum(odd * share for odd, share in zip(odds, (0.6, 0.2, 0.2), strict=True)) / sum(odds)
            assert rate(7, count, 20) == pytest.approx(mean)

    def test_equal_queries_are_all_the_same(self) -> None:
        rate = foretold([2.0] * 50)
        assert rate(0, 1, 1) == pytest.approx(rate(1, 30, 9_000)) == pytest.approx(0.02)

    def test_silence_counts_against_a_query(self) -> None:
        rate = foretold([1 / (number + 1) for number in range(300)])
        rates = [rate(0, 3, requests) for requests in (10, 100, 1_000, 10_000)]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] > 2 * rates[-1]


class TestInformed:
    def test_it_knows_before_anything_was_asked(self) -> None:
        # two of equal size and cost, room for one: the rare one comes often at first, and goes at once all the same
        found = Trace([0, 0, 0, 1, 0, 1, 0], [1.0, 1.0], [2_000, 2_000], [0.1, 0.9])
        hits = list(replay(of_each(found.popularity), found, EACH_FITS_ALONE))
        assert hits == [False, True, True, False, False, True, False]

    def test_what_counts_is_money_for_bytes(self) -> None:
        found = Trace([0, 1, 0, 1], [1.0, 5.0], [1_500, 2_000], [0.6, 0.4])
        assert list(replay(of_each(found.popularity), found, EACH_FITS_ALONE)) == [False, False, False, True]

    def test_refused_requests_are_remembered(self) -> None:
        # 1 is asked for as often as 0 was, but is let in only when it is ahead
        found = Trace([0, 0, 1, 1, 1, 1], [1.0, 1.0], [2_000, 2_000], [2.0, 1.0, 1.0])
        hits = list(replay(of_all(found.popularity), found, EACH_FITS_ALONE))
        assert hits == [False, True, False, False, False, True]

    def test_the_least_of_all_is_named_by_default(self) -> None:
        found = drawn(0)
        policy = of_each(found.popularity)
        list(replay(policy, found, found.capacity(0.1)))
        victim = policy.victim()
        assert victim is not None
        least = min(found.popularity[int(key)] * found.costs_usd[int(key)] / found.sizes[int(key)] for key in policy)
        at = int(victim)
        assert found.popularity[at] * found.costs_usd[at] / found.sizes[at] == pytest.approx(least)

    def test_who_knows_more_saves_more(self) -> None:
        means = dict.fromkeys(("each", "all", "gdsf"), 0.0)
        for seed in range(8):
            found = drawn(seed)
            capacity = found.capacity(0.1)
            means["each"] += saved(of_each(found.popularity), found, capacity) / 8
            means["all"] += saved(of_all(found.popularity), found, capacity) / 8
            means["gdsf"] += saved(GDSF(), found, capacity) / 8
        assert means["each"] > means["all"] > means["gdsf"] - 0.002
