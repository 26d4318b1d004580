"""One contract for every policy; golden victims on a fixed trace; a plain model beside GDSF."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.policies.base import Policy, Worth
from llm_proxy.cache.policies.gdsf import COST_FLOOR_USD, GDSF
from llm_proxy.cache.policies.lru import LRU

from .helpers import priority

POLICIES: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lru": LRU}


@pytest.fixture(params=[*POLICIES.values()], ids=[*POLICIES])
def policy(request: pytest.FixtureRequest) -> Policy:
    made: Callable[[], Policy] = request.param
    return made()


class TestContract:
    def test_nothing_to_give_up(self, policy: Policy) -> None:
        assert policy.victim() is None

    def test_the_victim_stays_until_it_is_removed(self, policy: Policy) -> None:
        policy.on_insert("a", Worth(10, 1.0))
        assert [policy.victim(), policy.victim()] == ["a", "a"]
        policy.on_remove("a")
        assert policy.victim() is None

    def test_unknown_keys_are_passed_over(self, policy: Policy) -> None:
        policy.on_hit("a")
        policy.on_remove("a")
        assert policy.victim() is None
        assert priority(policy, "a") is None

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

    def test_a_key_that_comes_back_begins_anew(self, policy: Policy) -> None:
        for key in "ab":
            policy.on_insert(key, Worth(10, 1.0))
        policy.on_remove("a")
        policy.on_insert("a", Worth(10, 1.0))
        assert drained(policy) == ["b", "a"]

    def test_the_victim_has_the_least_priority(self, policy: Policy) -> None:
        for number, key in enumerate("abcdef"):
            policy.on_insert(key, Worth(10 + 7 * number % 5, 1.0 + number % 3))
            policy.on_hit("abcdef"[number // 2], number)
        while (victim := policy.victim()) is not None:
            known = [found for key in "abcdef" if (found := priority(policy, key)) is not None]
            assert priority(policy, victim) == min(known)
            policy.on_remove(victim)

    def test_memory_does_not_grow_with_hits(self, policy: Policy) -> None:
        for key in "ab":
            policy.on_insert(key, Worth(10, 1.0))
        for _ in range(1_000):
            policy.on_hit("a")
        assert len(getattr(policy, "_heap", ())) < 100
        assert len(policy) == 2  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", POLICIES)
    @given(steps=st.lists(st.tuples(st.sampled_from("ihr"), st.sampled_from("abcdefgh"), st.integers(1, 9))))
    def test_the_victim_is_always_live(self, name: str, steps: list[tuple[str, str, int]]) -> None:
        policy, live = POLICIES[name](), set()
        for what, key, number in steps:
            if what == "i":
                policy.on_insert(key, Worth(number, number / 2))
                live.add(key)
            elif what == "h":
                policy.on_hit(key, number)
            else:
                policy.on_remove(key)
                live.discard(key)
            victim = policy.victim()
            assert (victim in live) if live else victim is None
        for key in live:
            policy.on_remove(key)
        assert policy.victim() is None


def drained(policy: Policy) -> list[str]:
    victims = []
    while (victim := policy.victim()) is not None:
        policy.on_remove(victim)
        victims.append(victim)
    return victims


# -- golden victims ----------------------------------------------------------------------------------------------

COSTS = {"a": 0.0001, "b": 0.01, "c": 0.0004, "d": 0.0, "e": 0.002}
SIZES = {"a": 1000, "b": 50_000, "c": 2000, "d": 500, "e": 1000}
TRACE = "abacadaebacdbeaabbccddeecabdecabaaeebcd"
GOLDEN = {
    "gdsf": "dbcbcdccddbcdbccd",
    "lru": "bcdebacdeabdecabdecae",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_victims(name: str) -> None:
    """Three places; every request of a key that is not there puts it there."""
    policy, there, victims = POLICIES[name](), set(), ""
    for key in TRACE:
        if key in there:
            policy.on_hit(key)
            continue
        policy.on_insert(key, Worth(SIZES[key], COSTS[key]))
        there.add(key)
        if len(there) > 3:
            victim = policy.victim()
            assert victim is not None
            policy.on_remove(victim)
            there.discard(victim)
            victims += victim
    assert victims == GOLDEN[name]


# -- GDSF by itself ----------------------------------------------------------------------------------------------


def test_gdsf_weighs_cost_frequency_and_size() -> None:
    policy = GDSF()
    policy.on_insert("large", Worth(10_000, 0.001))
    policy.on_insert("cheap", Worth(1_000, 0.00009))
    policy.on_insert("dear", Worth(1_000, 0.01))
    policy.on_insert("often", Worth(1_000, 0.001, hits=3))
    assert drained(policy) == ["cheap", "large", "often", "dear"]
    assert priority(policy, "dear") is None


def test_gdsf_priority_is_the_formula() -> None:
    policy = GDSF()
    policy.on_insert("a", Worth(100, 0.5, hits=1))
    assert priority(policy, "a") == pytest.approx(2 * 0.5 / 100)
    policy.victim()
    policy.on_remove("a")
    policy.on_insert("b", Worth(50, 0.25))
    assert priority(policy, "b") == pytest.approx(0.01 + 0.25 / 50)


def test_gdsf_ages_only_by_victims() -> None:
    policy = GDSF()
    policy.on_insert("a", Worth(100, 0.5))
    policy.on_insert("b", Worth(100, 0.1))
    policy.on_remove("a")  # removed by a user, not given up
    policy.on_insert("c", Worth(100, 0.1))
    assert priority(policy, "c") == priority(policy, "b")


def test_gdsf_ages_by_the_priority_it_announced() -> None:
    policy = GDSF()
    policy.on_insert("a", Worth(100, 0.1))
    assert policy.victim() == "a"
    policy.on_hit("a", 1000)
    policy.on_remove("a")
    policy.on_insert("b", Worth(100, 0.1))
    assert priority(policy, "b") == pytest.approx(0.002)


def test_gdsf_orders_what_costs_nothing() -> None:
    policy = GDSF()
    policy.on_insert("paid", Worth(1_000_000, 1e-5))
    policy.on_insert("free and large", Worth(2_000, 0.0, hits=1))
    policy.on_insert("free and small", Worth(500, 0.0))
    assert drained(policy) == ["free and large", "free and small", "paid"]
    assert COST_FLOOR_USD > 0


def test_gdsf_keeps_the_frequency_of_a_known_key() -> None:
    policy = GDSF()
    policy.on_insert("a", Worth(100, 0.1))
    policy.on_hit("a", 4)
    policy.on_insert("a", Worth(200, 0.1))
    assert priority(policy, "a") == pytest.approx(5 * 0.1 / 200)
    policy.on_insert("a", Worth(200, 0.1, hits=9))
    assert priority(policy, "a") == pytest.approx(10 * 0.1 / 200)


class Model:
    """GDSF written for reading: every question is answered by looking at all keys."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}  # order, frequency, usd per byte, priority
        self.age = 0.0
        self.count = 0

    def insert(self, key: str, size: int, cost: float) -> None:
        self.count += 1
        row = self.rows.setdefault(key, [self.count, 1, 0, 0])
        row[2] = max(cost, COST_FLOOR_USD) / size
        row[3] = self.age + row[1] * row[2]

    def hit(self, key: str) -> None:
        if key in self.rows:
            row = self.rows[key]
            row[1] += 1
            row[3] = self.age + row[1] * row[2]

    def victim(self) -> str:
        return min(self.rows, key=lambda key: (self.rows[key][3], self.rows[key][0]))

    def give_up(self) -> None:
        victim = self.victim()
        self.age = self.rows.pop(victim)[3]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("ihv"), st.sampled_from("abcdefgh"), st.integers(1, 50), st.integers(0, 9)),
        max_size=200,
    )
)
def test_gdsf_is_its_model(steps: list[tuple[str, str, int, int]]) -> None:
    policy, model = GDSF(), Model()
    last_age = 0.0
    for what, key, size, cost in steps:
        if what == "i":
            policy.on_insert(key, Worth(size, float(cost)))
            model.insert(key, size, float(cost))
        elif what == "h":
            policy.on_hit(key)
            model.hit(key)
        elif model.rows:
            victim = policy.victim()
            assert victim == model.victim()
            policy.on_remove(victim)
            model.give_up()
            assert model.age >= last_age
            last_age = model.age
        assert {key: priority(policy, key) for key in model.rows} == {key: row[3] for key, row in model.rows.items()}
