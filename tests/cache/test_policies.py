"""One contract for every policy, and golden counts on a fixed trace, which other programs reproduce."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.policies.base import Policy, Worth
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC
from llm_proxy.cache.policies.lfu import LFU
from llm_proxy.cache.policies.lru import LRU

from .helpers import priority

POLICIES: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lec": LEC, "lfu": LFU, "lru": LRU}


@pytest.fixture(params=[*POLICIES.values()], ids=[*POLICIES])
def policy(request: pytest.FixtureRequest) -> Policy:
    made: Callable[[], Policy] = request.param
    return made()


class TestContract:
    def test_nothing_to_give_up(self, policy: Policy) -> None:
        assert policy.victim() is None
        assert policy.admits("a", Worth(10, 0.0))
        assert len(policy) == 0

    def test_the_victim_stays_until_it_is_removed(self, policy: Policy) -> None:
        policy.on_insert("a", Worth(10, 1.0))
        assert [policy.victim(), policy.victim()] == ["a", "a"]
        policy.on_remove("a")
        assert policy.victim() is None

    def test_unknown_keys_are_passed_over(self, policy: Policy) -> None:
        policy.on_hit("a")
        policy.on_remove("a")
        assert policy.victim() is None
        assert policy.slot("a") is None

    def test_of_equals_the_oldest_goes_first(self, policy: Policy) -> None:
        for key in "abc":
            policy.on_insert(key, Worth(10, 1.0))
        assert drained(policy) == ["a", "b", "c"]

    def test_a_hit_keeps_a_key_longer(self, policy: Policy) -> None:
        for key in "abc":
            policy.on_insert(key, Worth(10, 1.0))
        before = priority(policy, "a")
        policy.on_hit("a")
        after = priority(policy, "a")
        assert before is not None
        assert after is not None
        assert after > before
        assert drained(policy) == ["b", "c", "a"]

    def test_hits_of_the_store_count(self, policy: Policy) -> None:
        policy.on_insert("a", Worth(10, 1.0, hits=2))
        policy.on_insert("b", Worth(10, 1.0))
        policy.on_hit("b")
        assert policy.victim() == ("a" if isinstance(policy, LRU) else "b")

    def test_slots_are_given_out_again(self, policy: Policy) -> None:
        slots = [policy.on_insert(key, Worth(10, 1.0)) for key in "abc"]
        assert slots == [policy.slot(key) for key in "abc"] == [0, 1, 2]
        policy.on_remove("b")
        assert policy.slot("b") is None
        assert policy.on_insert("d", Worth(10, 1.0)) == 1
        assert policy.on_insert("d", Worth(20, 2.0)) == 1, "a new worth moves no key"
        assert sorted(policy) == ["a", "c", "d"]
        assert len(policy) == 3

    def test_the_victim_has_the_least_priority(self, policy: Policy) -> None:
        for number, key in enumerate("abcdef"):
            policy.on_insert(key, Worth(10 + 7 * number % 5, 1.0 + number % 3))
            policy.on_hit("abcdef"[number // 2], number)
        while (victim := policy.victim()) is not None:
            assert priority(policy, victim) == min(found for key in policy if (found := priority(policy, key)))
            policy.on_remove(victim)

    def test_what_is_held_is_admitted(self, policy: Policy) -> None:
        policy.on_insert("a", Worth(10, 1.0))
        policy.on_insert("b", Worth(10, 1.0))
        assert policy.admits("a", Worth(1_000, 0.0))

    def test_memory_does_not_grow_with_use(self, policy: Policy) -> None:
        for key in "ab":
            policy.on_insert(key, Worth(10, 1.0))
        for number in range(1_000):
            policy.on_hit("a")
            policy.on_insert("b", Worth(10, 1.0 / (number + 1)))
            policy.on_insert("c", Worth(1, 9.0))
            policy.on_remove("c")
        assert len(policy._ranking._heap) < 100  # type: ignore[attr-defined]
        assert len(policy) == 2

    @pytest.mark.parametrize("name", POLICIES)
    @given(steps=st.lists(st.tuples(st.sampled_from("ihar"), st.sampled_from("abcdefgh"), st.integers(1, 9))))
    def test_nothing_that_is_held_is_forgotten(self, name: str, steps: list[tuple[str, str, int]]) -> None:
        policy, live = POLICIES[name](), set()
        for what, key, number in steps:
            if what == "i":
                policy.on_insert(key, Worth(number, number / 2))
                live.add(key)
            elif what == "h":
                policy.on_hit(key, number)
            elif what == "a":
                policy.admits(key, Worth(number, number / 2))
            else:
                policy.on_remove(key)
                live.discard(key)
            victim = policy.victim()
            assert (victim in live) if live else victim is None
            assert set(policy) == live
            with closing(policy.order()) as order:
                assert next(order, None) == victim
        assert sorted(drained(policy)) == sorted(live)


def drained(policy: Policy) -> list[str]:
    victims = []
    while (victim := policy.victim()) is not None:
        policy.on_remove(victim)
        victims.append(victim)
    return victims


# -- golden counts -----------------------------------------------------------------------------------------------

PLACES = 20
BUDGET_BYTES = 30_000


class Asked(NamedTuple):
    key: str
    worth: Worth


def trace() -> Iterator[Asked]:
    """5,000 requests of 300 keys, few of them often and many seldom; half-way, all change places."""
    rng = random.Random(3)
    worths = [Worth(rng.randrange(500, 5_000), rng.choice([0.0001, 0.001, 0.02])) for _ in range(300)]
    for number in range(5_000):
        rank = min(299, int(rng.paretovariate(0.7)) - 1)
        key = rank if number < 2_500 else 299 - rank
        yield Asked(f"{key:03}", worths[key])


def counted(policy: Policy, *, is_unit: bool) -> tuple[int, int, float]:
    """Hits, keys given up, and dollars paid for misses; room is made before a key is taken in."""
    free = PLACES if is_unit else BUDGET_BYTES
    hits = given_up = 0
    paid_usd = 0.0
    sizes: dict[str, int] = {}
    for key, worth in trace():
        sizes[key] = 1 if is_unit else worth.size_bytes
        if policy.slot(key) is not None:
            policy.on_hit(key)
            hits += 1
            continue
        paid_usd += worth.cost_usd
        if free < sizes[key] and not policy.admits(key, worth):
            continue
        while free < sizes[key]:
            victim = policy.victim()
            assert victim is not None
            policy.on_remove(victim)
            free += sizes[victim]
            given_up += 1
        policy.on_insert(key, worth)
        free -= sizes[key]
    return hits, given_up, round(paid_usd, 4)


GOLDEN = {
    ("gdsf", True): (3473, 68, 3.778),
    ("gdsf", False): (3221, 293, 5.6462),
    ("lec", True): (2943, 28, 4.8308),
    ("lec", False): (2632, 454, 8.2429),
    ("lfu", True): (3642, 1338, 9.0338),
    ("lfu", False): (3467, 1522, 10.5311),
    ("lru", True): (4148, 832, 7.2689),
    ("lru", False): (3678, 1310, 12.3038),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("is_unit", [True, False], ids=["places", "bytes"])
def test_golden_counts(name: str, is_unit: bool) -> None:
    assert counted(POLICIES[name](), is_unit=is_unit) == GOLDEN[name, is_unit]


def test_those_that_know_costs_pay_less() -> None:
    paid = {name: GOLDEN[name, False][2] for name in POLICIES}
    assert paid["gdsf"] < paid["lec"] < min(paid["lfu"], paid["lru"])


@pytest.mark.parametrize(("name", "theirs"), [("lru", "LRU"), ("lfu", "LFU")])
def test_other_programs_count_the_same(name: str, theirs: str) -> None:
    """Cachetools by places, libcachesim by places and by bytes."""
    cachetools, libcachesim = pytest.importorskip("cachetools"), pytest.importorskip("libcachesim")
    kept = getattr(cachetools, f"{theirs}Cache")(PLACES)
    hits = 0
    for key, _ in trace():
        hits += key in kept
        kept[key] = kept.get(key, 0)
    assert hits == GOLDEN[name, True][0]
    for is_unit in (True, False):
        cache = getattr(libcachesim, theirs)(PLACES if is_unit else BUDGET_BYTES, hashpower=10)
        request, hits = libcachesim.Request(), 0
        for key, worth in trace():
            request.obj_id, request.obj_size = int(key) + 1, 1 if is_unit else worth.size_bytes
            hits += cache.get(request)
        assert hits == GOLDEN[name, is_unit][0]


# -- admission ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [LEC, GDSF])
class TestAdmission:
    def test_a_cheaper_newcomer_is_refused_until_it_is_asked_for_more(self, make: Callable[[], Policy]) -> None:
        policy = make()
        policy.on_insert("dear", Worth(100, 0.4))
        assert [policy.admits("cheap", Worth(100, 0.15)) for _ in range(4)] == [False, False, True, True]
        assert policy.victim() == "dear", "it was not taken in by that"

    def test_an_equal_is_refused(self, make: Callable[[], Policy]) -> None:
        policy = make()
        policy.on_insert("a", Worth(100, 0.1))
        assert not policy.admits("b", Worth(100, 0.1))

    def test_hits_of_the_store_count(self, make: Callable[[], Policy]) -> None:
        policy = make()
        policy.on_insert("a", Worth(100, 0.3))
        assert policy.admits("b", Worth(100, 0.1, hits=3))

    def test_against_a_named_victim(self, make: Callable[[], Policy]) -> None:
        policy = make()
        for key, cost_usd in (("a", 0.1), ("b", 0.3)):
            policy.on_insert(key, Worth(100, cost_usd))
        assert policy.admits("c", Worth(100, 0.2))
        assert not policy.admits("c", Worth(100, 0.2), "b")
        assert policy.admits("c", Worth(100, 0.2), "gone")

    def test_the_frequency_outlives_the_place(self, make: Callable[[], Policy]) -> None:
        policy = make()
        policy.on_insert("a", Worth(100, 0.1))
        policy.on_hit("a", 4)
        policy.on_remove("a")
        policy.on_insert("b", Worth(100, 0.5))
        assert policy.admits("a", Worth(100, 0.1))
        policy.on_insert("a", Worth(100, 0.1))
        assert priority(policy, "a") == pytest.approx(6 / 5 * (priority(policy, "b") or 0.0))

    def test_what_costs_nothing_goes_first_and_is_ordered(self, make: Callable[[], Policy]) -> None:
        policy = make()
        policy.on_insert("paid", Worth(1_000, 1e-4))
        policy.on_insert("free and asked twice", Worth(1_000, 0.0, hits=1))
        policy.on_insert("free", Worth(1_000, 0.0))
        assert drained(policy) == ["free", "free and asked twice", "paid"]

    @given(asked=st.lists(st.integers(0, 30), max_size=200))
    def test_what_goes_is_never_worth_less_than_what_went(self, make: Callable[[], Policy], asked: list[int]) -> None:
        """Five places and worths that do not change: the bar for newcomers rises."""
        policy, bar = make(), 0.0
        for number in asked:
            key, worth = str(number), Worth(1, 1.0 + number % 7)
            if policy.slot(key) is not None:
                policy.on_hit(key)
            elif len(policy) < 5:
                policy.on_insert(key, worth)
            elif policy.admits(key, worth):
                victim = policy.victim()
                assert victim is not None
                value = priority(policy, victim) or 0.0
                assert value >= bar
                bar = value
                policy.on_remove(victim)
                policy.on_insert(key, worth)


@pytest.mark.parametrize("name", ["lfu", "lru"])
def test_who_is_blind_to_costs_lets_all_in(name: str) -> None:
    policy = POLICIES[name]()
    policy.on_insert("a", Worth(1, 1.0, hits=9))
    assert policy.admits("b", Worth(1_000, 0.0))


def test_lec_is_blind_to_size_and_gdsf_is_not() -> None:
    for make, victim in ((LEC, "cheap and small"), (GDSF, "dear and large")):
        policy = make()
        policy.on_insert("dear and large", Worth(10_000, 0.2))
        policy.on_insert("cheap and small", Worth(100, 0.1))
        assert policy.victim() == victim
