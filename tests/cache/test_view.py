"""What a process knows of its store: sizes and hits in columns, pinned entries beside, admission before eviction."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.entry import Entry
from llm_proxy.cache.policies.base import Policy
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC
from llm_proxy.cache.policies.lfu import LFU
from llm_proxy.cache.policies.lru import LRU
from llm_proxy.cache.view import ROW_BYTES, Known, View

from .helpers import CountingStore, entry_of, find, key_of, new_cache

POLICIES: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lec": LEC, "lfu": LFU, "lru": LRU}
RECORD = 1_000 - ROW_BYTES  # of an entry that takes a thousand bytes of the budget
PLENTY = 1_000


def plain(name: object, **changes: Any) -> Entry:
    return entry_of(name, vector=None, encoder="", **changes)


def view_of(names: str = "", policy: Callable[[], Policy] = GDSF, **changes: Any) -> View:
    """A view of entries of a thousand bytes."""
    view = View(policy(), None)
    for name in names:
        view.insert(plain(name, **changes), RECORD)
    return view


def admits(view: View, entry: Entry, budget_bytes: int, max_entries: int = PLENTY) -> bool:
    return view.admits(entry, RECORD, budget_bytes=budget_bytes, max_entries=max_entries)


# -- what is known -----------------------------------------------------------------------------------------------


def test_an_entry_is_known_with_all_that_was_said_of_it() -> None:
    view = view_of()
    view.insert(plain("a", expires_s=2e6), RECORD, 3)
    view.hit(key_of("a"), 2)
    assert view.known(key_of("a")) == Known(1_000, 0.001, 5, is_pinned=False, can_expire=True)
    assert view.known(key_of("b")) is None
    assert not view.is_pinned(key_of("a"))
    assert view.keys() == view.expiring() == [key_of("a")]
    view.note_expiry(key_of("a"), False)
    view.note_expiry(key_of("b"), False)
    assert view.expiring() == []


def test_a_new_form_keeps_hits_and_may_bring_more() -> None:
    view = view_of("a")
    view.hit(key_of("a"), 2)
    view.restore(key_of("a"), 1_500, 0.5, 1)
    assert view.known(key_of("a")) == Known(1_500, 0.5, 2, can_expire=False)
    view.restore(key_of("a"), 1_500, 0.5, 7)
    assert view.known(key_of("a")) == Known(1_500, 0.5, 7, can_expire=False)
    assert (len(view), view.used_bytes) == (1, 1_500)


def test_columns_are_used_again() -> None:
    view = view_of("abc")
    view.discard(key_of("b"))
    view.restore(key_of("d"), 70, 0.1, 4)
    assert view.known(key_of("d")) == Known(70, 0.1, 4)
    assert view.known(key_of("b")) is None
    assert (len(view), view.used_bytes) == (3, 2_070)


@pytest.mark.parametrize("name", POLICIES)
def test_memory_of_an_entry(name: str) -> None:
    """Beside its key at most 250 bytes, whatever the policy; a step of growth may lie just behind or ahead."""
    count = 40_000
    keys = [key_of(number) for number in range(count)]
    tracemalloc.start()
    try:
        view = View(POLICIES[name](), None)
        for number, key in enumerate(keys):
            view.restore(key, 1_000, 0.001 * number, 0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(view) == count
    assert taken / count <= 250


# -- admission and eviction --------------------------------------------------------------------------------------


def test_columns_tell_what_is_held() -> None:
    view = view_of("abc", cost_usd=0.5)
    view.discard(key_of("b"))
    view.insert(plain("d", cost_usd=0.5, is_pinned=True), RECORD)
    view.insert(plain("a", cost_usd=0.5, is_pinned=True), RECORD)
    sizes, costs = view.columns()
    assert sorted(sizes) == [0, 0, 1_000], "one that went, one that was pinned, and one that is left"
    assert {cost for size, cost in zip(sizes, costs, strict=True) if size} == {0.5}


@pytest.mark.parametrize("name", POLICIES)
def test_while_there_is_room_all_are_let_in(name: str) -> None:
    view = view_of("ab", POLICIES[name], cost_usd=1.0)
    assert admits(view, plain("c", cost_usd=0.0), 3_000)
    assert admits(view, plain("c", cost_usd=0.0), 3_000, 3)
    assert admits(view, plain("a", cost_usd=0.0), 1_000, 1), "a new form of what is held"
    assert admits(view, plain("c", cost_usd=0.0), 2_999) == (name in ("lfu", "lru"))
    assert admits(view, plain("c", cost_usd=0.0), 3_000, 2) == (name in ("lfu", "lru"))


@pytest.mark.parametrize("policy", [GDSF, LEC])
def test_a_newcomer_must_be_worth_more_than_all_that_would_go_for_it(policy: Callable[[], Policy]) -> None:
    view = view_of("a", policy, cost_usd=0.001)
    view.insert(plain("b", cost_usd=0.004), RECORD)
    newcomer, record_bytes = plain("c", cost_usd=0.002 if policy is LEC else 0.004), 1_500 - ROW_BYTES
    assert view.admits(newcomer, record_bytes, budget_bytes=2_500, max_entries=PLENTY), "one goes"
    assert not view.admits(newcomer, record_bytes, budget_bytes=2_499, max_entries=PLENTY), "both would"


def test_a_refusal_is_remembered() -> None:
    view = view_of("a", cost_usd=0.0025)
    assert [admits(view, plain("b"), 1_000) for _ in range(3)] == [False, False, True]


def test_costs_that_are_none_are_worth_nothing() -> None:
    view = view_of("a")
    assert not any(admits(view, plain("b", cost_usd=cost), 1_000) for cost in (float("nan"), float("inf"), -1.0))


def test_room_is_made_for_those_let_in() -> None:
    view = view_of("ab", LFU)
    for name in "ab":
        view.hit(key_of(name), 1)
    newcomer = plain("c")
    assert (view.lacks(newcomer, RECORD), view.lacks(plain("a"), RECORD)) == (1_000, 0)
    assert view.evict(budget_bytes=1_000, max_entries=PLENTY) == [key_of("a")]
    view.insert(newcomer, RECORD)
    assert view.evict(budget_bytes=2_000, max_entries=PLENTY) == []


def test_who_is_refused_costs_the_disk_nothing() -> None:
    store = CountingStore()
    cache = new_cache(store, max_entries=1)
    assert cache.admit(entry_of("a", cost_usd=1.0))
    before = list(store.calls)
    assert not cache.admit(entry_of("b"))
    assert not {"put", "remove"} & set(store.calls[len(before) :])
    assert cache.get(key_of("a")) is not None


def test_a_victim_is_unfindable_at_once() -> None:
    store = CountingStore()
    cache = new_cache(store, max_entries=1)
    cache.admit(entry_of("a"))
    assert cache.admit(entry_of("b", cost_usd=1.0))
    assert cache.get(key_of("a")) is None
    assert find(cache, entry_of("a")).entry is None
    assert store.keys() == [key_of("b")]


# -- pinned entries ----------------------------------------------------------------------------------------------


class TestPinned:
    def test_they_are_never_given_up(self) -> None:
        view = view_of("ab", is_pinned=True)
        view.insert(plain("c", cost_usd=9.0), RECORD)
        assert (len(view), view.used_bytes) == (3, 3_000)
        assert view.evict(budget_bytes=1, max_entries=1) == [key_of("c")]
        assert view.evict(budget_bytes=1, max_entries=1) == []
        assert sorted(view.keys()) == sorted(map(key_of, "ab"))
        assert [view.is_pinned(key_of(name)) for name in "abc"] == [True, True, False]

    def test_they_are_always_let_in_and_nothing_is_let_in_for_them(self) -> None:
        view = view_of("ab", is_pinned=True)
        assert admits(view, plain("c", is_pinned=True), 2_000)
        assert not admits(view, plain("c", cost_usd=9.0), 2_000)
        assert not admits(view, plain("c", cost_usd=9.0), 9_000, 2)
        view.insert(plain("d"), RECORD)
        assert not view.admits(plain("c", cost_usd=9.0), RECORD + 1, budget_bytes=3_000, max_entries=PLENTY)

    def test_hits_and_expiry_are_kept(self) -> None:
        view = view_of("a", is_pinned=True)
        assert view.expiring() == []
        view.note_expiry(key_of("a"), True)
        view.hit(key_of("a"), 3)
        assert view.expiring() == [key_of("a")]
        assert view.known(key_of("a")) == Known(1_000, 0.001, 3, is_pinned=True, can_expire=True)

    def test_they_may_be_freed_and_pinned_again(self) -> None:
        view = view_of("ab")
        view.hit(key_of("a"), 3)
        for is_pinned in (True, False, True):
            view.insert(plain("a", is_pinned=is_pinned), RECORD)
            assert view.known(key_of("a")) == Known(1_000, 0.001, 3, is_pinned=is_pinned, can_expire=False)
            assert (len(view), view.used_bytes) == (2, 2_000)
        assert view.evict(budget_bytes=0, max_entries=PLENTY) == [key_of("b")]

    def test_they_may_be_removed(self) -> None:
        view = view_of("a", is_pinned=True)
        view.discard(key_of("a"))
        assert (len(view), view.used_bytes, view.known(key_of("a"))) == (0, 0, None)

    def test_an_image_says_which_they_are(self) -> None:
        view = view_of("ab", is_pinned=True)
        view.insert(plain("c"), RECORD)
        image = view.image("store", 7)
        pinned = dict(zip(image.keys, image.pinned, strict=True))
        assert pinned == {key_of("a"): 1, key_of("b"): 1, key_of("c"): 0}
        again = view_of()
        for row in zip(image.keys, image.sizes, image.costs, image.hits, image.pinned, strict=True):
            again.restore(*row[:4], is_pinned=bool(row[4]))
        assert again.evict(budget_bytes=0, max_entries=PLENTY) == [key_of("c")]


# -- whatever happens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("aaahdp"), st.sampled_from("abcdefghij"), st.integers(1, 2_500), st.sampled_from([0, 1, 9])
        ),
        max_size=80,
    )
)
def test_the_budget_holds(name: str, steps: list[tuple[str, str, int, int]]) -> None:
    """Bytes and entries stay within their bounds, pinned ones aside, and are counted right."""
    view, sizes, pinned = View(POLICIES[name](), None), dict[str, int](), set[str]()
    budget_bytes, most = 5_000, 4
    for what, letter, size, cost in steps:
        entry = plain(letter, cost_usd=float(cost), is_pinned=what == "p")
        key, record_bytes = entry.key, size - ROW_BYTES
        if what == "h":
            view.hit(key, 1)
        elif what == "d":
            view.discard(key)
            sizes.pop(key, None)
            pinned.discard(key)
        elif view.admits(entry, record_bytes, budget_bytes=budget_bytes, max_entries=most):
            lacking = view.lacks(entry, record_bytes)
            gone = view.evict(budget_bytes=budget_bytes - lacking, max_entries=most - bool(lacking))
            view.insert(entry, record_bytes)
            sizes[key] = size
            pinned = pinned | {key} if what == "p" else pinned - {key}
            for victim in gone + view.evict(budget_bytes=budget_bytes, max_entries=most):
                assert victim not in pinned
                assert victim not in view
                del sizes[victim]
        assert set(view.keys()) == set(sizes)
        assert view.used_bytes == sum(sizes.values())
        assert {key for key in sizes if view.is_pinned(key)} == pinned
        if sizes.keys() - pinned:
            assert view.used_bytes <= budget_bytes
            assert len(view) <= most


def test_hits_stay_within_what_a_column_holds() -> None:
    view = view_of()
    for name, hits in (("a", -5), ("b", 1 << 62)):
        view.restore(key_of(name), 1_000, 0.1, hits)
        view.hit(key_of(name), 1 << 62)
        view.hit(key_of(name), 1 << 62)
        known = view.known(key_of(name))
        assert known is not None
        assert known.hits == 1 << 53
    view.restore(key_of("c"), 1_000, 0.1, -5)
    known = view.known(key_of("c"))
    assert known is not None
    assert known.hits == 0
