"""Directories that are no good, disks that are full, locks that are held: clear words, and no harm."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diskcache
import pytest

from llm_proxy.cache.stores._migrate import SCHEMA
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.errors import CacheCorruptError, CacheError
from tests.privileges import unprivileged

from .helpers import new_cache


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "entries"


@pytest.fixture
def store(directory: Path) -> Iterator[DiskStore]:
    with_store = DiskStore(directory)
    yield with_store
    with_store.close()


def sql(directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def raises_clearly(store: DiskStore, words: str) -> None:
    for verb in (lambda: store.get("a"), lambda: store.put("a", b"1"), lambda: store.changes(0), store.check):
        with pytest.raises(CacheError, match=words):
            verb()


def test_a_file_in_the_place_of_the_directory(directory: Path) -> None:
    directory.parent.mkdir()
    directory.write_text("a file")
    store = DiskStore(directory)
    assert (store.is_open, store.failure) == (False, "")
    raises_clearly(store, "does not (work|open).*exists")
    assert not store.is_open
    assert "does not open" in store.failure
    assert new_cache(store).state == "failing"
    with pytest.raises(CacheError, match=r"does not (work|open)"):
        new_cache(store).open_store()
    assert not new_cache(store).is_open
    assert (new_cache(DiskStore(directory)).state, new_cache().state) == ("opening", "ok")


@pytest.mark.parametrize(
    "content", [b"not a database, but a text of some length " * 50, b"SQLite format 3\0" + b"\7" * 5_000]
)
def test_a_file_that_is_no_database(directory: Path, content: bytes) -> None:
    directory.mkdir(parents=True)
    (directory / "cache.db").write_bytes(content)
    raises_clearly(DiskStore(directory), "(not a database|malformed|unsupported).*")
    assert (directory / "cache.db").read_bytes() == content


def test_a_directory_without_permission(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o500)
    directory.parent.chmod(0o755)
    with unprivileged():
        raises_clearly(DiskStore(directory), r"does not (work|open)")


def test_a_directory_that_may_only_be_read(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    store.close()
    (directory / "cache.db").chmod(0o444)
    directory.chmod(0o555)
    for path in (directory, *directory.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    with unprivileged():
        raises_clearly(DiskStore(directory), "does not (work|open)")
    directory.chmod(0o700)


def test_another_programs_diskcache(directory: Path) -> None:
    with diskcache.Cache(str(directory), eviction_policy="least-recently-used", cull_limit=7) as foreign:
        foreign["mine"] = [1, 2]
    raises_clearly(DiskStore(directory), "another program")
    with diskcache.Cache(str(directory)) as foreign:
        assert foreign["mine"] == [1, 2]
        assert (foreign.eviction_policy, foreign.cull_limit) == ("least-recently-used", 7)


def test_an_empty_diskcache_is_taken(directory: Path) -> None:
    diskcache.Cache(str(directory)).close()
    store = DiskStore(directory)
    store.put("a", b"1")
    assert store.get("a") == b"1"
    store.close()


def test_another_programs_database(directory: Path) -> None:
    directory.mkdir(parents=True)
    sql(directory, "CREATE TABLE bookmarks (url TEXT)")
    raises_clearly(DiskStore(directory), "another program")


def test_a_table_of_another_shape(directory: Path) -> None:
    directory.mkdir(parents=True)
    sql(directory, "CREATE TABLE Settings (name TEXT)")
    raises_clearly(DiskStore(directory), "no such column")


def test_a_newer_format_is_refused(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    store.close()
    sql(directory, f"UPDATE Cache SET value = {SCHEMA + 1} WHERE key = 'n:schema'")
    before = (directory / "cache.db").read_bytes()
    raises_clearly(DiskStore(directory), f"format {SCHEMA + 1} and this version knows {SCHEMA}: update llm-proxy")
    assert (directory / "cache.db").read_bytes() == before


def test_a_store_without_its_name(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    sql(directory, "UPDATE Cache SET value = 7 WHERE key = 'n:store'")
    with pytest.raises(CacheCorruptError, match="lost its name"):
        store.changes(0)
    assert store.get("a") == b"1"


def test_a_failure_is_remembered_for_a_while(directory: Path) -> None:
    now_s = [0.0]
    directory.parent.mkdir()
    directory.write_text("a file")
    store = DiskStore(directory, retry_s=5.0, monotonic=lambda: now_s[0])
    with pytest.raises(CacheError):
        store.get("a")
    directory.unlink()
    now_s[0] = 4.9
    with pytest.raises(CacheError, match="exists"):
        store.get("a")
    now_s[0] = 5.0
    assert store.get("a") is None
    store.close()


def test_a_full_disk(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None
    (pages,) = rows.run("PRAGMA page_count").fetchone()
    rows.run(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):
        with pytest.raises(CacheError, match="full"):
            store.put("b", b"x" * 1_000_000)
    assert store.get("a") == b"1"
    assert store.get("b") is None
    assert store.changes(0).sequence == 1
    rows.run(f"PRAGMA max_page_count = {pages + 10_000}")
    store.put("b", b"x" * 1_000_000)
    assert store.changes(0).sequence == 2


def test_a_commit_that_fails_leaves_no_transaction_behind(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None
    writer = rows._writer

    class Failing:
        @property
        def in_transaction(self) -> bool:
            return bool(writer.in_transaction)  # type: ignore[union-attr]

        def execute(self, statement: str, values: tuple[str | int, ...] = ()) -> object:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return writer.execute(statement, values)  # type: ignore[union-attr]

    rows._writer = Failing()  # type: ignore[assignment]
    with pytest.raises(CacheError, match="disk I/O error"):
        store.put("b", b"2")
    rows._writer = writer
    assert store.get("b") is None
    store.put("c", b"3")
    assert sorted(row.key for row in store.scan()) == ["a", "c"]


def test_a_rollback_that_fails_leaves_no_lock_behind(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None

    class Broken:
        """A connection that was lost in the middle of a transaction."""

        in_transaction = True

        def execute(self, statement: str, *_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    good, rows._writer = rows._writer, Broken()
    with pytest.raises(CacheError):
        store.put("b", b"1")
    rows._writer = good
    with ThreadPoolExecutor(1) as another_thread:
        another_thread.submit(store.put, "c", b"1").result()
    assert store.keys() == ["a", "c"]


def test_another_process_that_never_lets_go(directory: Path) -> None:
    store = DiskStore(directory, busy_timeout_s=0.05)
    store.put("a", b"1")
    other = sqlite3.connect(directory / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started_s = time.monotonic()
    with pytest.raises(CacheError, match="locked"):
        store.put("b", b"2")
    assert time.monotonic() - started_s < 2
    assert store.get("a") == b"1"  # reading goes on
    new = DiskStore(directory, busy_timeout_s=0.02)
    with pytest.raises(CacheError, match="locked"):
        new.get("a")
    other.execute("ROLLBACK")
    other.close()
    store.put("b", b"2")
    store.close()


def test_a_thread_that_never_lets_go(directory: Path) -> None:
    store = DiskStore(directory, busy_timeout_s=0.05)
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with rows.writing():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with pytest.raises(CacheError, match="other threads"):
        store.put("b", b"2")
    done.set()
    thread.join()
    store.put("b", b"2")
    store.close()


def test_verbs_that_were_under_way_when_it_closed(store: DiskStore) -> None:
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None
    store.close()
    with pytest.raises(CacheError, match="closed"):
        rows.read("SELECT 1")
    with pytest.raises(CacheError, match="closed"), rows.writing():
        pass


def test_a_key_that_is_no_text_in_utf8(store: DiskStore) -> None:
    with pytest.raises(CacheError):
        store.put("\ud800", b"1")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")])
def test_only_its_own_errors_leave_a_transaction(store: DiskStore, error: Exception) -> None:
    with pytest.raises(CacheError, match="could not be written"), store.writing():
        raise error
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_a_count_of_hits_has_an_end(store: DiskStore) -> None:
    store.put("a", b"1")
    for _ in range(3):
        store.touch({"a": (1 << 63) - 1})
    assert [row.hits for row in store.scan()] == [1 << 53]


def test_the_log_of_many_hits_stays_short(directory: Path, store: DiskStore) -> None:
    keys = [f"{number:064x}" for number in range(128)]
    for key in keys:
        store.put(key, b"1")
    with store.writing():
        for _ in range(100):
            store.touch(dict.fromkeys(keys, 1))
    ((taken,),) = store._read("SELECT sum(length(value)) FROM Cache WHERE key > 'l:' AND key < 'l;'")
    assert taken < 400_000
