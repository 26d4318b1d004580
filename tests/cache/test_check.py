"""Faults are found, told and repaired."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from llm_proxy.cache import check
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.stores.base import Stored
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.errors import CacheError

from .helpers import entry_of, find, key_of, new_cache, vector_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def cache(store: MemoryStore, tmp_path: Path) -> Cache:
    cache = new_cache(store, snapshot_path=tmp_path / "index.snapshot")
    for number in range(5):
        cache.admit(entry_of(number))
    cache.admit(entry_of("exact", vector=None, encoder=""))
    cache.admit(entry_of("old", encoder="encoder@0"))
    return cache


def test_clean(cache: Cache) -> None:
    find(cache, entry_of(0))
    report = cache.check()
    assert (report.is_clean, report.entries, report.damaged, report.findings) == (True, 7, 0, ())
    assert cache.check(repair=True).is_clean


def test_damaged_records(cache: Cache, store: MemoryStore) -> None:
    store.put("x", b"damaged")
    store.put("y", encode_entry(entry_of("z")))
    report = cache.check(repair=True)
    assert (report.entries, report.damaged) == (9, 2)
    assert report.findings == ("2 record(s) cannot be read",)
    assert report.is_repaired
    assert sorted(row.key for row in store.scan()) == sorted(key_of(n) for n in (*range(5), "exact", "old"))


def test_vectors_that_cannot_be_searched(cache: Cache) -> None:
    cache.admit(entry_of("bad", vector=np.full(8, np.nan, np.float32)))
    assert cache.check(repair=True).findings == ("1 record(s) cannot be read",)
    assert cache.check().is_clean
    assert cache.get(key_of("bad")) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda view: view.discard(key_of(1)), "1 entr(ies) of the store are not known in memory"),
        (lambda view: view.restore("ghost", 10, 0.1, 0), "1 entr(ies) in memory are not in the store"),
        (lambda view: view.index.remove(key_of(1)), "1 entr(ies) with a vector are not in the index"),
        (
            lambda view: view.index.add(key_of("exact"), "s", vector_of(1)),
            "1 vector(s) in the index belong to no entry",
        ),
    ],
)
def test_memory_that_is_out_of_step(cache: Cache, fault: object, words: str) -> None:
    find(cache, entry_of(0))
    fault(cache._view)  # type: ignore[operator]
    assert cache.check().findings == (words,)
    report = cache.check(repair=True)
    assert report.findings == (words,)
    assert report.is_repaired
    assert cache.check().is_clean
    assert all(find(cache, entry_of(number)).entry is not None for number in range(5))


def test_a_snapshot_that_cannot_be_read(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "index.snapshot"
    path.write_bytes(b"nothing of the kind")
    assert "is damaged" in cache.check().findings[0]
    assert cache.check(repair=True).is_repaired
    assert not path.exists()


@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_the_snapshot(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "index.snapshot"
    os.mkfifo(path)
    assert "no regular file" in cache.check().findings[0]
    assert cache.check(repair=True).is_repaired
    assert not path.exists()


def test_a_directory_in_place_of_the_snapshot_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "index.snapshot"
    path.mkdir()
    report = cache.check(repair=True)
    assert (len(report.findings), report.is_repaired, path.is_dir()) == (1, False, True)


def test_writes_of_others_are_no_faults(cache: Cache, store: MemoryStore) -> None:
    find(cache, entry_of(0))
    cache.open()
    scan = store.scan

    def racing() -> list[Stored]:
        rows = list(scan())
        store.remove([key_of(0)])
        store.put(key_of("late"), encode_entry(entry_of("late")))
        store.put(key_of(1), encode_entry(entry_of(1, vector=None, encoder="")))
        return rows

    store.scan = racing  # type: ignore[method-assign, assignment]
    assert cache.check().is_clean


def test_a_repair_that_does_not_help(cache: Cache, store: MemoryStore) -> None:
    store.check = lambda repair=False: ("it is broken",)  # type: ignore[method-assign, misc]
    report = cache.check(repair=True)
    assert (report.findings, report.is_repaired) == (("it is broken",), False)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_vector_of_another_length_harms_nobody_else(store: MemoryStore, tmp_path: Path, is_first: bool) -> None:
    odd = entry_of("odd", vector=vector_of("odd", dim=3))
    store.put(odd.key, encode_entry(odd))
    cache = new_cache(store, snapshot_path=tmp_path / "index.snapshot")
    if is_first:
        cache.open()  # the index is made for the odd one
    assert all(cache.admit(entry_of(number)) for number in range(5))
    cache.merge([(odd, 0)])
    report = cache.check()
    assert report.findings[-1] == "1 entr(ies) have a vector of another length than most of encoder@1"
    assert all(find(cache, entry_of(number)).entry for number in range(5))
    assert cache.check(repair=True).is_repaired
    assert cache.check().is_clean
    assert all(find(cache, entry_of(number)).entry for number in range(5))
    kept = cache.get(odd.key)
    assert kept is not None
    assert kept.vector is None


def test_a_repair_is_right_though_the_index_is_not(store: MemoryStore) -> None:
    odd = entry_of("odd", vector=vector_of("odd", dim=3))
    for entry in (odd, entry_of(1), entry_of(2)):
        store.put(entry.key, encode_entry(entry))
    cache = new_cache(store)
    cache._view.adopt("encoder@1", 3)
    assert cache.check(repair=True).is_repaired
    assert cache.stats().vectors == 2
    assert find(cache, entry_of(1)).entry is not None


def test_a_search_while_the_index_is_of_another_length(cache: Cache) -> None:
    cache._view.adopt("encoder@1", 3)
    with cache._upkeep.writing:
        assert find(cache, entry_of(0)).entry is None


def test_an_entry_that_goes_while_its_vector_is_taken_off(store: MemoryStore) -> None:
    check._drop_vectors(store, [key_of("gone")], 8)
    assert store.keys() == []


def test_evidence_is_looked_at_once_the_store_can_be_read() -> None:
    class Late(MemoryStore):
        is_readable = True

        def keys(self, prefix: str = "") -> list[str]:
            if not self.is_readable:
                raise CacheError("needs to be repaired")
            return super().keys(prefix)

        def check(self, *, repair: bool = False) -> tuple[str, ...]:
            self.is_readable = True
            return super().check(repair=repair)

    store = Late()
    cache = new_cache(store)
    cache.admit(entry_of("a"))
    store.put_evidence(key_of("a"), b"[")
    store.is_readable = False
    assert cache.check().findings == ("1 entr(ies) have evidence that cannot be read",)
