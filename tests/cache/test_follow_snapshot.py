"""The snapshot: what it spares, what it may not hide, and when it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.cache import follow, snapshot, upkeep
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.stores.base import Stored
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.errors import CacheError

from .helpers import DIM, FakeClock, entry_of, find, key_of, listings, new_cache, priority, remove, vector_of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def is_found(cache: Cache, name: object) -> bool:
    return find(cache, entry_of(name)).entry is not None


class Place:
    """A directory as `build` lays it out, opened as often as wanted."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        self.entries, self.snapshot, self.clock = root / "entries", root / "index.snapshot", clock
        self.scans = 0

    def open(self, **options: object) -> Cache:
        place = self

        class Counting(DiskStore):
            def scan(self) -> Iterator[Stored]:
                place.scans += 1
                return super().scan()

        self.scans = 0
        return new_cache(Counting(self.entries), self.clock, **{"snapshot_path": self.snapshot, **options})


@pytest.fixture
def place(tmp_path: Path, clock: FakeClock) -> Place:
    return Place(tmp_path, clock)


def filled(place: Place, count: int = 20, **options: object) -> None:
    cache = place.open(**options)
    for number in range(count):
        cache.admit(entry_of(number, cost_usd=number + 1))
    cache.admit(entry_of("exact", vector=None, encoder=""))
    cache.hit(key_of(3), 7)
    cache.close()


def test_a_snapshot_spares_the_reading(place: Place) -> None:
    filled(place)
    cache = place.open()
    cache.open()
    assert place.scans == 0
    assert all(is_found(cache, number) for number in range(20))
    assert (cache.stats().entries, cache.stats().vectors) == (21, 20)
    assert cache.check().is_clean
    known = {listing.entry.key: listing for listing in listings(cache)}
    assert known[key_of(3)].hits == 7
    again = place.open(snapshot_path=None)
    again.open()
    assert place.scans == 1
    assert again.stats().used_bytes == cache.stats().used_bytes
    for key in known:
        before, after = (priority(one._view._policy, key) for one in (cache, again))
        assert before == pytest.approx(after)


def test_the_log_fills_up_what_a_snapshot_lacks(place: Place) -> None:
    filled(place)
    other = place.open(snapshot_path=None)
    other.admit(entry_of("new"))
    remove(other, 3, 4)
    other.admit(entry_of(5, scope=key_of("elsewhere")))
    other.close()
    cache = place.open()
    cache.open()
    assert place.scans == 0
    assert is_found(cache, "new")
    assert not is_found(cache, 3)
    assert not is_found(cache, 5)
    assert find(cache, entry_of(5, scope=key_of("elsewhere"))).entry is not None
    assert cache.check().is_clean


def test_writes_that_come_before_the_snapshot_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_RESTORED", 1)
    filled(place)
    before = place.open(snapshot_path=None)
    remove(before, 0)
    before.close()
    cache = place.open()
    with cache._upkeep.writing:
        assert not cache._upkeep.follow(now=True), "one entry is restored, the others are not"
        for number in range(1, 20):
            cache._upkeep.write(entry_of(number, cost_usd=77.0))
    cache.open()
    assert place.scans == 0
    assert cache.check().is_clean
    assert not is_found(cache, 0)
    assert {listing.entry.cost_usd for listing in listings(cache) if listing.entry.key == key_of(1)} == {77.0}


@pytest.mark.parametrize("damage", ["cut", "altered", "a folder", "a pipe", "of another store", "absent"])
def test_a_snapshot_that_is_no_good_is_made_again(place: Place, damage: str) -> None:
    filled(place)
    data = place.snapshot.read_bytes()
    place.snapshot.unlink()
    if damage == "cut":
        place.snapshot.write_bytes(data[:-9])
    elif damage == "altered":
        place.snapshot.write_bytes(data[:200] + b"?" + data[201:])
    elif damage == "a folder":
        place.snapshot.mkdir()
    elif damage == "a pipe":
        os.mkfifo(place.snapshot)
    elif damage == "of another store":
        elsewhere = Place(place.entries.parent / "elsewhere", place.clock)
        filled(elsewhere, 3)
        shutil.copy(elsewhere.snapshot, place.snapshot)
    cache = place.open()
    cache.open()
    assert place.scans == 1
    assert all(is_found(cache, number) for number in range(20))
    assert len(cache.stats().problems) == (damage in ("cut", "altered", "a folder", "a pipe"))
    assert cache.check().is_clean == (damage in ("of another store", "absent"))
    cache.admit(entry_of("new"))
    cache.close()
    if damage != "a folder":
        assert len(snapshot.load(place.snapshot).keys) == 22


def test_a_snapshot_older_than_the_log(place: Place) -> None:
    filled(place)
    store = DiskStore(place.entries, log_steps=1)
    for _ in range(600):
        store.put("same", encode_entry(entry_of("other")))
    store.remove(["same"])
    store.close()
    cache = place.open()
    cache.open()
    assert place.scans == 1
    assert cache.stats().entries == 21


def test_a_snapshot_of_another_encoder(place: Place) -> None:
    filled(place)
    other = place.open()
    new = entry_of("new", encoder="encoder@2", vector=vector_of("new", dim=DIM * 2))
    assert find(other, new).entry is None  # lookups begin with this encoder
    other.admit(new)
    assert find(other, new).entry is not None
    assert other.stats().entries == 22
    other.close()
    assert snapshot.load(place.snapshot).encoder == "encoder@2"


def test_a_snapshot_without_any_vectors(place: Place) -> None:
    cache = place.open()
    cache.admit(entry_of("exact", vector=None, encoder=""))
    cache.close()
    assert snapshot.load(place.snapshot).encoder == ""
    cache = place.open()
    assert not is_found(cache, "a")
    assert place.scans == 0
    cache.admit(entry_of("a"))
    assert is_found(cache, "a")
    cache.close()


def test_vectors_of_a_snapshot_where_none_can_be_searched(place: Place) -> None:
    filled(place)
    cache = place.open(new_index=None)
    cache.open()
    assert (place.scans, cache.stats().entries, cache.stats().vectors) == (0, 21, 0)
    cache.admit(entry_of("new"))
    cache.close()
    assert len(snapshot.load(place.snapshot).keys) == 21  # not overwritten by one without vectors


def test_a_large_snapshot_is_taken_in_slices(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.cache.follow._RESTORED", 8)
    monkeypatch.setattr("llm_proxy.cache.follow._SLICE", 1)
    filled(place)
    cache = place.open()
    cache.open()
    assert place.scans == 0
    assert cache.check().is_clean


def test_snapshots_are_saved_now_and_then(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SAVE_EVERY_CHANGES", 10)
    cache = place.open()
    for number in range(9):
        cache.admit(entry_of(number))
    assert not place.snapshot.exists()
    cache.admit(entry_of("tenth"))
    assert len(snapshot.load(place.snapshot).keys) == 10
    cache.admit(entry_of("x"))
    place.clock.advance(61)
    cache.admit(entry_of("y"))
    assert len(snapshot.load(place.snapshot).keys) == 12
    place.clock.advance(61)
    cache.hit(key_of("y"))
    cache.close()  # nothing has changed but hits, which are in the log
    assert len(snapshot.load(place.snapshot).keys) == 12


def test_large_snapshots_are_left_to_maintain(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SAVE_EVERY_CHANGES", 10)
    monkeypatch.setattr(upkeep, "_SAVE_INLINE", 5)
    cache = place.open()
    for number in range(100):
        cache.admit(entry_of(number))
    saved = len(snapshot.load(place.snapshot).keys) if place.snapshot.exists() else 0
    assert saved <= 10
    cache.maintain()
    assert len(snapshot.load(place.snapshot).keys) == 100
    cache.admit(entry_of("one more"))
    cache.close()  # one of a hundred is not worth it
    assert len(snapshot.load(place.snapshot).keys) == 100
    cache = place.open()
    for number in range(5):
        cache.admit(entry_of(("more", number)))
    cache.close()
    assert len(snapshot.load(place.snapshot).keys) == 106


def test_a_newer_snapshot_of_another_process_is_kept(place: Place) -> None:
    filled(place)
    one, other = place.open(), place.open()
    one.admit(entry_of("a"))
    other.open()
    other.admit(entry_of("b"))
    other.close()
    before = place.snapshot.read_bytes()
    one.close()
    assert place.snapshot.read_bytes() == before


def test_a_snapshot_that_cannot_be_written_is_no_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bool:
        raise CacheError("index snapshot cannot be written: disk full")

    monkeypatch.setattr(snapshot, "save", failing)
    cache = place.open()
    cache.admit(entry_of("a"))
    cache.close()
    assert "disk full" in cache._view.problems[0]


def test_hits_are_not_counted_twice_through_a_snapshot(place: Place) -> None:
    for _ in range(3):
        cache = place.open()
        cache.admit(entry_of(f"new {_}"))
        cache.admit(entry_of("a"))
        cache.hit(key_of("a"), 2)
        cache.close()
    cache = place.open()
    assert {listing.hits for listing in listings(cache) if listing.entry.key == key_of("a")} == {6}
    cache.open()
    known = cache._view.known(key_of("a"))
    assert known is not None
    assert known.hits == 6


def test_sizes_that_the_store_cannot_have_evict_nothing(place: Place) -> None:
    filled(place)
    image = snapshot.load(place.snapshot)
    image.blocks = list(image.blocks)
    image.sizes[0] = 1 << 35
    snapshot.save(place.snapshot, image)
    cache = place.open()
    cache.open()
    assert (cache.stats().entries, place.scans) == (21, 1)
    cache.close()


def test_a_snapshot_of_another_version_is_replaced(place: Place) -> None:
    filled(place)
    place.snapshot.write_bytes(b"LPX9" + place.snapshot.read_bytes()[4:])
    cache = place.open()
    assert cache.check().is_clean
    assert cache.stats().problems == ()
    cache.admit(entry_of("new"))
    cache.close()
    assert place.snapshot.read_bytes()[:4] == b"LPX3"


def test_a_snapshot_from_the_future_is_replaced(place: Place) -> None:
    filled(place)
    image = snapshot.load(place.snapshot)
    image.blocks, image.sequence = list(image.blocks), 1 << 40
    snapshot.save(place.snapshot, image)
    cache = place.open()
    cache.admit(entry_of("new"))
    cache.close()
    assert snapshot.load(place.snapshot).sequence < 1 << 40


def test_the_index_stands_still_while_it_is_saved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def save(path: Path, image: object) -> bool:
        held.append(cache._view.index._changing.locked())  # type: ignore[union-attr]
        return True

    cache = place.open()
    cache.admit(entry_of("a"))
    monkeypatch.setattr(upkeep.snapshot, "save", save)
    cache.maintain()
    cache.close()
    assert held
    assert all(held)
