"""A pickle runs code when it is loaded. Planted anywhere in the directory, it is refused, counted and never loaded."""

from __future__ import annotations

import os
import pickle
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import diskcache
import pytest

import llm_proxy.cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.errors import CacheCorruptError, CacheError

from .helpers import entry_of, find, key_of, listings, new_cache


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "entries"


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    marker = tmp_path / "it-ran"
    yield marker
    assert not marker.exists(), "a planted pickle was loaded"


@pytest.fixture
def evil(marker: Path) -> bytes:
    data = pickle.dumps(Evil(marker))
    pickle.loads(data)
    assert marker.exists(), "the trap itself must work"
    marker.rmdir()
    return data


@pytest.fixture
def store(directory: Path) -> Iterator[DiskStore]:
    store = DiskStore(directory)
    for name in ("good", "bad", "other"):
        entry = entry_of(name)
        store.put(entry.key, encode_entry(entry))
    yield store
    store.close()


def sql(directory: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    assert connection.execute(statement, values).rowcount > 0
    connection.close()


def test_diskcache_itself_would_load_it(directory: Path, tmp_path: Path) -> None:
    with diskcache.Cache(str(directory)) as cache:
        cache["a"] = Evil(tmp_path / "ran")
    with diskcache.Cache(str(directory)) as cache:
        cache["a"]
    assert (tmp_path / "ran").exists()


BAD = "e:" + key_of("bad")


def as_value(directory: Path, evil: bytes) -> None:
    sql(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key = ?", evil, BAD)


def as_raw_value(directory: Path, evil: bytes) -> None:
    sql(directory, "UPDATE Cache SET value = ? WHERE key = ?", evil, BAD)


def as_text(directory: Path, evil: bytes) -> None:
    sql(directory, "UPDATE Cache SET value = 'text' WHERE key = ?", BAD)


def as_file(directory: Path, evil: bytes) -> None:
    (directory / "planted.val").write_bytes(evil)
    sql(directory, "UPDATE Cache SET mode = 4, value = NULL, filename = 'planted.val' WHERE key = ?", BAD)


def as_raw_file(directory: Path, evil: bytes) -> None:
    (directory / "planted.val").write_bytes(evil)
    sql(directory, "UPDATE Cache SET mode = 2, value = NULL, filename = 'planted.val' WHERE key = ?", BAD)


@pytest.mark.parametrize("plant", [as_value, as_raw_value, as_text, as_file, as_raw_file])
@pytest.mark.usefixtures("marker")
class TestAValue:
    def test_is_a_miss_and_is_removed(self, directory: Path, store: DiskStore, evil: bytes, plant: object) -> None:
        plant(directory, evil)  # type: ignore[operator]
        cache = new_cache(DiskStore(directory))
        assert cache.get(key_of("bad")) is None
        assert cache.get(key_of("good")) is not None
        assert find(cache, entry_of("good")).entry is not None
        assert find(cache, entry_of("bad")).entry is None
        assert {listing.entry.key for listing in listings(cache)} == {key_of("good"), key_of("other")}
        assert cache.stats().corrupt > 0
        assert not cache.check().is_clean
        assert cache.get(key_of("bad")) is None  # a check only looks: what a lookup meets goes with the next write
        cache.admit(entry_of("new"))
        assert cache.check().is_clean
        cache.close()

    def test_can_be_repaired(self, directory: Path, store: DiskStore, evil: bytes, plant: object) -> None:
        plant(directory, evil)  # type: ignore[operator]
        cache = new_cache(DiskStore(directory))
        report = cache.check(repair=True)
        assert (report.is_clean, report.is_repaired) == (False, True)
        assert cache.check().is_clean
        assert len(list(listings(cache))) == 2
        cache.close()

    def test_can_be_replaced(self, directory: Path, store: DiskStore, evil: bytes, plant: object) -> None:
        plant(directory, evil)  # type: ignore[operator]
        cache = new_cache(DiskStore(directory))
        assert cache.get(key_of("bad")) is None
        assert cache.admit(entry_of("bad"))
        assert cache.get(key_of("bad")) is not None
        assert cache.check().is_clean
        cache.close()


@pytest.mark.usefixtures("marker")
class TestElsewhere:
    def test_keys(self, directory: Path, store: DiskStore, evil: bytes) -> None:
        for number, raw in enumerate([0, 1, None]):
            sql(
                directory,
                "INSERT INTO Cache (key, raw, mode, value) VALUES (?, ?, 1, ?)",
                evil + bytes([number]) if raw is not None else BAD,
                raw,
                evil,
            )
        assert sorted(row.key for row in store.scan()) == sorted(key_of(name) for name in ("good", "bad", "other"))
        assert store.refused == 3
        assert store.check() == ("3 row(s) that this store did not write",)
        store.check(repair=True)
        assert store.check() == ()

    def test_the_log(self, directory: Path, store: DiskStore, evil: bytes) -> None:
        sql(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key LIKE 'l:%2'", evil)
        found = store.changes(0)
        assert (found.steps, found.complete, found.sequence, store.refused) == ((), False, 3, 1)
        assert store.changes(2).complete
        cache = new_cache(DiskStore(directory))
        assert find(cache, entry_of("bad")).entry is not None  # everything was read instead
        cache.close()

    @pytest.mark.parametrize(
        "value",
        [
            "[",
            "{}",
            "[]",
            "7",
            '["put"',
            '["burn","a"]',
            '["touch",["a"]]',
            '["touch",["a","b"]]',
            '["touch",[1]]',
            '["touch",["a",1e999]]',
            '["touch",["a",-1]]',
            '["touch",["a",9007199254740993]]',
            '["put",7]',
            '["put","\\ud800"]',
            "[" * 100_000,
        ],
        ids=lambda value: value[:16],
    )
    def test_a_log_of_another_make(self, directory: Path, store: DiskStore, value: str) -> None:
        sql(directory, "UPDATE Cache SET value = ? WHERE key LIKE 'l:%2'", value)
        assert not store.changes(0).complete
        assert store.changes(2).complete

    def test_a_log_with_a_hole(self, directory: Path, store: DiskStore) -> None:
        sql(directory, "DELETE FROM Cache WHERE key LIKE 'l:%2'")
        assert not store.changes(0).complete
        sql(directory, "DELETE FROM Cache WHERE key LIKE 'l:%3'")
        assert not store.changes(2).complete

    def test_hits(self, directory: Path, store: DiskStore, evil: bytes) -> None:
        store.touch({key_of("good"): 1, key_of("bad"): 1, key_of("other"): 1})
        sql(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key = ?", evil, "h:" + key_of("good"))
        sql(directory, "UPDATE Cache SET value = ? WHERE key = ?", evil, "h:" + key_of("bad"))
        sql(directory, "UPDATE Cache SET value = -7 WHERE key = ?", "h:" + key_of("other"))
        assert {row.key: row.hits for row in store.scan()} == {
            key_of("good"): 0,
            key_of("bad"): 0,
            key_of("other"): 0,
        }
        found = store.row(key_of("other"))
        assert found is not None
        assert found.hits == 0
        assert store.check() == ("3 row(s) that this store did not write",)
        store.touch({key_of("good"): 2, key_of("bad"): 3, key_of("other"): 4})
        assert {row.key: row.hits for row in store.scan()} == {key_of("good"): 2, key_of("bad"): 3, key_of("other"): 4}

    def test_the_counter_of_the_log(self, directory: Path, store: DiskStore, evil: bytes) -> None:
        sql(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key = 'n:sequence'", evil)
        with pytest.raises(CacheCorruptError):
            store.changes(0)
        assert store.put("new", b"1") == 4  # counted on from the newest step
        assert store.changes(3).steps[0].key == "new"
        sql(directory, "UPDATE Cache SET value = 'x' WHERE key = 'n:sequence'")
        sql(directory, "DELETE FROM Cache WHERE key LIKE 'l:%'")
        assert store.put("new", b"1") == 1

    def test_a_counter_beyond_all_numbers(self, directory: Path, store: DiskStore) -> None:
        sql(directory, "UPDATE Cache SET value = 9223372036854775807 WHERE key = 'n:sequence'")
        with pytest.raises(CacheError):
            store.put("new", b"1")
        assert store.get(key_of("good")) is not None

    def test_settings(self, directory: Path, store: DiskStore, evil: bytes) -> None:
        store.close()
        rows: list[tuple[object, object]] = [
            ("disk_pickle_protocol", evil),
            ("disk_min_file_size", 1),
            ("eviction_policy", "least-recently-stored"),
            ("cull_limit", 1_000),
            ("size_limit", 1),
            ("statistics", 1),
            ("tag_index", 1),
            ("count", evil),
            ("sqlite_mmap_size", 1 << 40),
            ("_disk", evil),
            ("close", "x"),
            ("sqlite_trusted_schema", 1),
            ("disk_evil", evil),
            (evil, evil),
            (7, 7),
        ]
        for key, value in rows:
            sql(directory, "INSERT OR REPLACE INTO Settings (key, value) VALUES (?, ?)", key, value)
        again = DiskStore(directory)
        for number in range(50):
            again.put(str(number), b"x" * 1_000)
        assert len(list(again.scan())) == 53  # nothing was culled
        assert {path.name for path in directory.iterdir()} == {"cache.db", "cache.db-wal", "cache.db-shm"}
        assert again.refused == 6
        found = again._rows
        assert found is not None
        assert (found.eviction_policy, found.cull_limit, found.statistics) == ("none", 0, 0)
        assert found.read("PRAGMA mmap_size") in ([], [(0,)])
        assert found.run("PRAGMA trusted_schema").fetchone() == (0,)
        again.close()

    def test_a_file_name_that_points_elsewhere(self, directory: Path, store: DiskStore, tmp_path: Path) -> None:
        victim = tmp_path / "precious"
        victim.write_text("mine")
        for how in (store.put, lambda key, _: store.remove([key]), lambda *_: store.check(repair=True)):
            store.put(key_of("bad"), b"1")
            sql(directory, "UPDATE Cache SET mode = 2, value = NULL, filename = ? WHERE key = ?", str(victim), BAD)
            with pytest.raises(CacheCorruptError):
                store.get(key_of("bad"))
            how(key_of("bad"), b"2")
            assert victim.read_text() == "mine"

    def test_the_snapshot(self, directory: Path, store: DiskStore, evil: bytes, tmp_path: Path) -> None:
        path = tmp_path / "index.snapshot"
        path.write_bytes(evil)
        cache = new_cache(DiskStore(directory), snapshot_path=path, new_index=FaissIndex)
        assert find(cache, entry_of("good")).entry is not None
        assert any("snapshot" in finding for finding in cache.check().findings)
        cache.check(repair=True)
        assert not path.exists()
        cache.close()

    def test_what_the_disk_refuses_to_write(self, store: DiskStore) -> None:
        rows = store._rows
        assert rows is not None
        disk = rows._disk
        with pytest.raises(CacheCorruptError, match="tuple"):
            disk.put(("a", 1))
        with pytest.raises(CacheCorruptError, match="list"):
            disk.store([1], False)
        with pytest.raises(CacheCorruptError):
            disk.store(b"a file", True)
        assert disk.get("key", 1) == "key"
        for key, raw in ((b"key", 1), ("key", 0), ("key", None)):
            with pytest.raises(CacheCorruptError):
                disk.get(key, raw)


def test_no_source_of_the_cache_imports_pickle() -> None:
    folder = Path(llm_proxy.cache.__file__).parent
    sources = [path.read_text() for path in folder.rglob("*.py")]
    assert len(sources) > 10
    assert not [text for text in sources if re.search(r"^\s*(import|from)\s+\S*pickle", text, re.MULTILINE)]
