"""Several caches on one store, and the snapshot: every road to the same view."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.stores.base import Changes, Stored
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.errors import CacheError

from .helpers import ENCODER, FakeClock, entry_of, find, key_of, listings, new_cache, priority, remove


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def pair(clock: FakeClock) -> tuple[Cache, Cache, MemoryStore]:
    store = MemoryStore()
    return new_cache(store, clock), new_cache(store, clock), store


def is_found(cache: Cache, name: object) -> bool:
    return find(cache, entry_of(name)).entry is not None


# -- the log -----------------------------------------------------------------------------------------------------


def test_entries_of_others_are_found_after_a_moment(clock: FakeClock) -> None:
    one, other, _ = pair(clock)
    one.admit(entry_of("a"))
    assert is_found(other, "a")
    one.admit(entry_of("b"))
    assert not is_found(other, "b")  # it looked a moment ago
    clock.advance(0.05)
    assert is_found(other, "b")


def test_removals_of_others_count_at_once(clock: FakeClock) -> None:
    one, other, _ = pair(clock)
    one.admit(entry_of("a"))
    assert is_found(other, "a")
    remove(one, "a")
    assert not is_found(other, "a")
    clock.advance(0.05)
    assert not is_found(other, "a")
    assert (other.stats().entries, other.stats().vectors) == (0, 0)


def test_hits_of_others_count_once(clock: FakeClock) -> None:
    one, other, store = pair(clock)
    one.admit(entry_of("a"))
    one.hit(key_of("a"), 2)
    other.open()
    other.hit(key_of("a"), 3)
    for cache in (one, other, one, other):
        cache.maintain()
    assert next(store.scan()).hits == 5
    for cache in (one, other):
        assert [listing.hits for listing in listings(cache)] == [5]
    one_, other_ = (priority(cache._view._policy, key_of("a")) for cache in (one, other))
    assert one_ == pytest.approx(other_)


def test_a_key_that_comes_and_goes_while_nobody_looks(clock: FakeClock) -> None:
    one, other, store = pair(clock)
    one.admit(entry_of("a"))
    other.open()
    remove(one, "a")
    other.admit(entry_of("a"))  # its own step comes after the removal that it has not seen
    clock.advance(0.05)
    assert is_found(other, "a")
    one.admit(entry_of("b"))
    store.remove([key_of("b")])
    one.admit(entry_of("b"))
    clock.advance(0.05)
    assert is_found(other, "b")
    assert is_found(one, "a")
    assert one.check().is_clean
    assert other.check().is_clean


def test_damage_in_the_log_and_in_a_scan(clock: FakeClock) -> None:
    one, other, store = pair(clock)
    store.put("scanned", b"damaged")
    one.open()
    other.open()
    store.put("logged", b"damaged")
    store.put("elsewhere", encode_entry(entry_of("a")))
    one.open()
    assert one.stats().corrupt == 3
    one.maintain()
    assert list(store.scan()) == []


class Corrupt(MemoryStore):
    def get(self, key: str) -> bytes | None:
        from llm_proxy.errors import CacheCorruptError

        if key == key_of("bad"):
            raise CacheCorruptError("refused")
        return super().get(key)


def test_a_row_that_the_store_refuses(clock: FakeClock) -> None:
    store = Corrupt()
    one, other = new_cache(store, clock), new_cache(store, clock)
    other.open()
    one.admit(entry_of("bad"))
    other.open()
    assert other.stats().corrupt == 1
    assert one.get(key_of("bad")) is None
    other.maintain()
    one.maintain()
    assert list(store.scan()) == []


def test_a_log_that_was_trimmed_is_replaced_by_a_scan(clock: FakeClock) -> None:
    store = MemoryStore(log_steps=5)
    one, other = new_cache(store, clock), new_cache(store, clock)
    for number in range(10):
        one.admit(entry_of(number))
    other.open()
    for number in range(5, 20):
        one.admit(entry_of(number))
    remove(one, 0, 1)
    other.open()
    assert other.stats().entries == 18
    assert not is_found(other, 0)
    assert is_found(other, 19)
    assert other.check().is_clean


def test_a_scan_that_misses_what_is_written_meanwhile(clock: FakeClock) -> None:
    class Racing(MemoryStore):
        def scan(self) -> Iterator[Stored]:
            yield from [row for row in super().scan() if row.key != key_of("late")]

    store = Racing(log_steps=1)
    cache = new_cache(store, clock)
    cache.admit(entry_of("late"))
    store.put("x", encode_entry(entry_of("y")))
    store.remove(["x"])
    cache.open()
    assert is_found(cache, "late")


def test_a_long_log_is_taken_in_slices(clock: FakeClock) -> None:
    one, other, store = pair(clock)
    other.open()
    for number in range(600):
        store.put(key_of(number), encode_entry(entry_of(number)))
    clock.advance(0.05)
    found = [is_found(other, 599) for _ in range(4)]
    assert found == [False, False, True, True]  # 256 steps each, without waiting for the clock
    one.open()
    assert one.stats().entries == other.stats().entries == 600


def test_a_long_scan_is_taken_in_slices(clock: FakeClock) -> None:
    store = MemoryStore(log_steps=1)
    one = new_cache(store, clock)
    for number in range(300):
        one.admit(entry_of(number))
    other = new_cache(store, clock)
    assert [is_found(other, 299), is_found(other, 299)] == [False, True]
    keys = [key_of(number) for number in range(300)]
    store.remove(keys)
    store.put("z", encode_entry(entry_of("y")))
    other.open()
    assert other.stats().entries == 0


def test_a_store_that_breaks_in_mid_scan_is_read_again(clock: FakeClock) -> None:
    class Breaking(MemoryStore):
        is_broken = True

        def scan(self) -> Iterator[Stored]:
            for number, row in enumerate(super().scan()):
                if number == 5 and self.is_broken:
                    raise CacheError("broken")
                yield row

    store = Breaking()
    for number in range(10):
        store.put(key_of(number), encode_entry(entry_of(number)))
    cache = new_cache(store, clock)
    with pytest.raises(CacheError, match="broken"):
        cache.open()
    store.is_broken = False
    cache.open()
    assert cache.stats().entries == 10


def test_over_budget_by_others(clock: FakeClock) -> None:
    store = MemoryStore()
    one, other = new_cache(store, clock), new_cache(store, clock, max_entries=3)
    for number in range(10):
        one.admit(entry_of(number))
    other.maintain()
    assert len(list(store.scan())) == 3
    one.open()
    assert one.stats().entries == 3


def test_the_follower_asks_for_what_it_lacks(clock: FakeClock) -> None:
    asked: list[int] = []

    class Asked(MemoryStore):
        def changes(self, since: int) -> Changes:
            asked.append(since)
            return super().changes(since)

    cache = new_cache(Asked(), clock)
    for number in range(3):
        clock.advance(0.05)
        cache.admit(entry_of(number))
    assert asked == [0, 0, 0, 1, 1, 2], "before the store is locked for the write, and once more when it is"
    assert cache.stats().encoder == ENCODER


def test_steps_of_a_store_that_was_replaced_are_not_taken_for_own(clock: FakeClock) -> None:
    cache = new_cache(MemoryStore(), clock)
    cache.open()
    cache._upkeep._follower.note_own(3)
    other = MemoryStore()
    for name in "ab":
        other.put(key_of(name), encode_entry(entry_of(name)))
    cache._upkeep._follower._store = cache._store = cache._upkeep._store = other
    cache.open()
    other.put(key_of("c"), encode_entry(entry_of("c")))
    cache.open()
    assert cache.stats().entries == 3
