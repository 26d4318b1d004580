"""Neighbours that are not served come out of a search as near misses: of its scope, few, and never beside a hit."""

from __future__ import annotations

from typing import Any

from llm_proxy.cache.near import Reach

from .helpers import CountingStore, FakeClock, entry_of, find, key_of, new_cache, unit

ASKED = entry_of("asked", text="what does it cost in 2024", vector=unit(1.0))


def at(name: str, cosine: float, **changes: Any) -> Any:
    return entry_of(name, vector=unit(cosine, (1 - cosine**2) ** 0.5), **changes)


def near_of(*entries: Any, reach: Reach | None = None, **asked: Any) -> list[tuple[str, float]]:
    cache = new_cache(**({} if reach is None else {"reach": reach}))
    for entry in entries:
        assert cache.admit(entry)
    found = find(cache, ASKED, **asked)
    assert found.entry is None
    return [(near.entry.text, round(near.similarity, 3)) for near in found.near]


def test_what_the_guard_refuses_is_near() -> None:
    assert near_of(at("b", 0.9), at("a", 0.95)) == [("what is a", 0.95), ("what is b", 0.9)]


def test_a_hit_has_none() -> None:
    cache = new_cache()
    cache.admit(at("near", 0.9))
    cache.admit(ASKED)
    found = find(cache, ASKED)
    assert (found.entry.key, found.near) == (ASKED.key, ())


def test_what_the_guard_says_goes_with_it() -> None:
    cache = new_cache()
    cache.admit(at("same", 0.99, text="what does it cost in 2025"))
    (near,) = find(cache, ASKED).near
    assert 0.0 <= near.p_same < 1.0


def test_never_of_another_scope() -> None:
    assert near_of(at("other", 0.9, scope=key_of("another tenant"))) == []


def test_a_key_that_moved_to_another_scope_is_left_out() -> None:
    """The index may be behind the store by a moment."""
    store = CountingStore()
    for cosine in (0.9, 0.55):
        one, other = new_cache(store, reach=Reach(0.5)), new_cache(store)
        one.admit(at("moving", cosine))
        other.admit(at("moving", cosine, scope=key_of("another")))
        with one._upkeep.writing:  # so that this search can't follow
            assert find(one, ASKED).near == ()


def test_below_the_threshold_as_far_as_one_reaches() -> None:
    entries = at("a", 0.9), at("b", 0.62), at("c", 0.55), at("d", 0.4)
    assert [text for text, _ in near_of(*entries)] == ["what is a"]
    assert [text for text, _ in near_of(*entries, reach=Reach(0.5))] == ["what is a", "what is b", "what is c"]
    assert [text for text, _ in near_of(*entries, reach=Reach(0.5, most=2))] == ["what is a", "what is b"]


def test_what_is_far_is_read_only_where_one_reaches_for_it() -> None:
    for reach, reads in ((Reach(), 0), (Reach(0.5), 1)):
        store = CountingStore()
        cache = new_cache(store, reach=reach)
        cache.admit(at("far", 0.55))
        store.calls.clear()
        find(cache, ASKED)
        assert store.calls.count("get") == reads


def test_one_that_is_gone_is_passed_over() -> None:
    clock = FakeClock()
    cache = new_cache(clock=clock, reach=Reach(0.5))
    cache.admit(at("gone", 0.6, expires_s=clock.time() + 1))
    cache.admit(at("there", 0.55))
    clock.advance(2)
    assert [near.entry.text for near in find(cache, ASKED).near] == ["what is there"]


def test_one_that_is_older_than_the_caller_wants_is_not_used() -> None:
    clock = FakeClock()
    cache = new_cache(clock=clock, reach=Reach(0.5))
    cache.admit(at("old", 0.9))
    cache.admit(at("old and far", 0.6))
    clock.advance(10)
    assert find(cache, ASKED, max_age_s=5.0).near == ()
    assert len(find(cache, ASKED, max_age_s=15.0).near) == 2
