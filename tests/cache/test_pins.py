"""Pinned entries: kept whatever the budget, by every process, until they expire or are let go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import _MAGIC, _PREFIX, _crc, decode_entry, encode_entry, fields_of
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.errors import CacheError

from .helpers import CountingStore, FakeClock, entry_of, find, key_of, new_cache, remove, size_of, vector_of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def cache(store: MemoryStore, clock: FakeClock) -> Iterator[Cache]:
    with_cache = new_cache(store, clock, max_entries=3)
    for name in "abc":
        with_cache.admit(entry_of(name, cost_usd=1e-6))
    yield with_cache
    with_cache.close()


def is_pinned(cache: Cache, name: str) -> bool:
    entry = cache.get(key_of(name))
    return entry is not None and entry.is_pinned


def test_a_record_of_before_is_not_pinned() -> None:
    entry = entry_of("a")
    head = {name: value for name, value in fields_of(entry).items() if name != "is_pinned"}
    assert entry.vector is not None
    parts = json.dumps(head).encode(), entry.vector.tobytes(), entry.completion
    tail = b"".join(parts)
    record = _PREFIX.pack(_MAGIC, _crc(tail, len(parts[0]), len(parts[1])), len(parts[0]), len(parts[1])) + tail
    assert decode_entry(record).is_pinned is False
    assert encode_entry(decode_entry(record)) == encode_entry(entry)


def test_it_is_never_given_up(cache: Cache) -> None:
    assert cache.pin([key_of("a"), key_of("a")]) == 1
    assert cache.pin([key_of("a")]) == 0
    for number in range(10):
        cache.admit(entry_of(number, cost_usd=1.0))
    assert is_pinned(cache, "a")
    assert cache.get(key_of("b")) is None
    assert cache.pin([key_of("a")], is_pinned=False) == 1
    for number in range(10, 20):
        cache.admit(entry_of(number, cost_usd=1.0))
    assert cache.get(key_of("a")) is None


def test_nobody_else_gives_it_up(cache: Cache, store: MemoryStore, clock: FakeClock) -> None:
    other = new_cache(store, clock, max_entries=3)
    other.open()
    cache.pin([key_of("a")])
    clock.advance(1)
    for number in range(10):
        other.admit(entry_of(number, cost_usd=1.0))
    assert is_pinned(other, "a")
    assert is_pinned(new_cache(store, clock), "a")


def test_an_answer_asked_anew_keeps_the_pin(cache: Cache) -> None:
    cache.pin([key_of("a")])
    assert cache.admit(entry_of("a", completion=b'{"new": 1}'))
    entry = cache.get(key_of("a"))
    assert entry is not None
    assert (entry.is_pinned, entry.completion) == (True, b'{"new": 1}')
    assert cache.attach(key_of("a"), scope=key_of("s"), vector=vector_of("x"), encoder="encoder@1", seen_chars=3)
    assert is_pinned(cache, "a")


def test_an_answer_that_another_thread_only_stores_keeps_the_pin(cache: Cache) -> None:
    cache.pin([key_of("a")])
    with cache._upkeep.writing:
        assert cache.admit(entry_of("a", completion=b'{"new": 1}'))
    assert is_pinned(cache, "a")


def test_it_may_expire(cache: Cache, clock: FakeClock) -> None:
    cache.admit(entry_of("a", expires_s=clock.now_s + 10))
    cache.pin([key_of("a")])
    clock.advance(10)
    assert cache.get(key_of("a")) is None
    cache.maintain()
    assert cache._store.keys(key_of("a")) == []
    cache.admit(entry_of("a"))
    assert not is_pinned(cache, "a"), "what comes after is another entry"


def test_it_may_be_removed(cache: Cache) -> None:
    cache.pin([key_of("a")])
    assert remove(cache, "a") == 1
    cache.maintain()
    assert cache.stats().entries == 2


def test_it_is_found_by_meaning(cache: Cache) -> None:
    cache.pin([key_of("a")])
    assert find(cache, entry_of("a")).entry.key == key_of("a")
    assert cache.check().is_clean


def test_all_or_none(cache: Cache) -> None:
    with pytest.raises(CacheError, match=f"entry {key_of('gone')} is not there"):
        cache.pin([key_of("a"), key_of("gone")])
    assert not is_pinned(cache, "a")


@pytest.mark.parametrize("limit", ["bytes", "entries"])
def test_no_more_than_the_budget(store: MemoryStore, limit: str) -> None:
    two_bytes = 2 * size_of(entry_of("a", is_pinned=True)) + 10
    cache = new_cache(store, **({"max_entries": 2} if limit == "entries" else {"budget_bytes": 10 * two_bytes}))
    for name in "ab":
        cache.admit(entry_of(name))
    assert cache.pin([key_of("a")], budget_bytes=two_bytes) == 1
    if limit == "entries":
        cache._chosen._bounds = replace(cache._bounds, max_entries=1)
    else:
        cache.admit(entry_of("b", completion=b"x" * 1_000))
    with pytest.raises(CacheError, match=f"more than the budget of {two_bytes} bytes: unpin some"):
        cache.pin([key_of("b")], budget_bytes=two_bytes)
    assert not is_pinned(cache, "b")


def test_where_all_is_pinned_nothing_else_is_stored(cache: Cache) -> None:
    cache.pin(map(key_of, "abc"))
    assert not cache.admit(entry_of("new", cost_usd=9.0))
    assert cache.get(key_of("new")) is None
    assert cache.stats().entries == 3


def test_a_process_with_a_smaller_budget_leaves_it(cache: Cache, store: MemoryStore, clock: FakeClock) -> None:
    cache.pin(map(key_of, "ab"))
    small = new_cache(store, clock, max_entries=1)
    small.maintain()
    assert sorted(store.keys()) == sorted(map(key_of, "ab"))


def test_a_pin_that_can_not_be_written(clock: FakeClock) -> None:
    store = CountingStore()
    cache = new_cache(store, clock)
    cache.admit(entry_of("a"))
    store.failing = {"put"}
    with pytest.raises(CacheError, match="put fails"):
        cache.pin([key_of("a")])
    store.failing = set()
    cache.maintain()
    assert cache.check().is_clean
    assert not cache._view.is_pinned(key_of("a"))


def test_pins_outlive_the_process(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "index.snapshot"
    with_pin = new_cache(DiskStore(tmp_path / "entries"), clock, snapshot_path=path)
    for name in "ab":
        with_pin.admit(entry_of(name))
    with_pin.pin([key_of("a")])
    with_pin.close()
    again = new_cache(DiskStore(tmp_path / "entries"), clock, snapshot_path=path, max_entries=1)
    again.admit(replace(entry_of("c"), cost_usd=9.0))
    again.maintain()
    assert again._store.keys() == [key_of("a")]
    again.close()
