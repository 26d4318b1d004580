"""What only the disk store promises: several processes, privacy, and a file that keeps in shape."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_proxy.cache.stores import _migrate
from llm_proxy.cache.stores._migrate import SCHEMA, introduce
from llm_proxy.cache.stores.base import Stored
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.errors import CacheCorruptError, CacheError


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


def test_nothing_is_touched_before_the_first_verb(directory: Path) -> None:
    store = DiskStore(directory)
    store.close()
    with pytest.raises(CacheError, match="closed"):
        store.get("a")
    assert not directory.parent.exists()


def test_prompts_are_private(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    assert {path.name for path in directory.iterdir()} == {"cache.db", "cache.db-wal", "cache.db-shm"}
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == directory.parent.stat().st_mode & 0o777 == 0o700


def test_another_store_of_the_directory_sees_everything_at_once(directory: Path, store: DiskStore) -> None:
    other = DiskStore(directory)
    store.put("a", b"1")
    assert other.get("a") == b"1"
    other.touch({"a": 2})
    other.remove(["a"])
    assert store.get("a") is None
    assert [step.operation for step in store.changes(0).steps] == ["put", "touch", "remove"]
    assert store.changes(0).store == other.changes(0).store
    other.close()


def test_one_row(directory: Path, store: DiskStore) -> None:
    for key in "ab":
        store.put(key, b"1")
    store.touch({"a": 3})
    assert [store.row(key) for key in "abc"] == [Stored("a", b"1", 3), Stored("b", b"1", 0), None]


def test_what_was_acknowledged_outlives_the_process(directory: Path) -> None:
    program = (
        "import os, signal; from llm_proxy.cache.stores.disk import DiskStore\n"
        f"store = DiskStore({str(directory)!r})\n"
        "for number in range(50): store.put(str(number), b'x' * number)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -9
    store = DiskStore(directory)
    assert [len(store.get(str(number)) or b"") for number in range(50)] == list(range(50))
    assert (store.check(), store.changes(0).sequence) == ((), 50)
    store.close()


def test_many_processes_make_one_directory(directory: Path) -> None:
    program = (
        "import sys; from llm_proxy.cache.stores.disk import DiskStore\n"
        f"store = DiskStore({str(directory)!r}); sys.stdin.read(1)\n"
        "for number in range(10): store.put(sys.argv[1] + str(number), b'x')\n"
        "print(store.changes(0).store); store.close()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abcdefgh"
    ]
    outputs = [process.communicate("x")[0] for process in running]
    assert [process.returncode for process in running] == [0] * 8
    assert len(set(outputs)) == 1
    store = DiskStore(directory)
    assert len(list(store.scan())) == 80
    assert (store.check(), store.changes(0).sequence) == ((), 80)
    store.close()


def test_a_forked_child_uses_connections_of_its_own(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    child = os.fork()
    if child == 0:
        try:
            store.put("b", b"2")
            os._exit(0 if store.get("a") == b"1" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    store.put("c", b"3")
    assert sorted(row.key for row in store.scan()) == ["a", "b", "c"]
    assert store.check() == ()


def test_a_fork_leaves_the_parents_connections_alone(
    directory: Path, store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the child sees it, without the fork: coverage does not see into one."""
    store.put("a", b"1")
    parent_rows = store._rows
    assert parent_rows is not None
    parent_rows.pid = -1
    assert store.get("a") == b"1"
    assert store._rows is not parent_rows
    assert parent_rows.read("SELECT 1") == [(1,)]
    parent_rows.shut()
    assert store._rows is not None
    store._rows.pid, pid = -1, store._rows.pid
    store.close()
    store._rows.pid = pid
    store._rows.shut()


def test_a_directory_that_is_removed_is_made_again(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    before = store.changes(0)
    shutil.rmtree(directory)
    after = store.changes(before.sequence)
    assert (after.complete, after.sequence) == (False, 0)
    assert after.store != before.store
    assert store.get("a") is None
    store.put("b", b"2")
    other = DiskStore(directory)
    assert other.get("b") == b"2"
    other.close()


def test_a_directory_that_is_replaced_is_noticed(directory: Path, store: DiskStore, tmp_path: Path) -> None:
    store.put("a", b"1")
    elsewhere = DiskStore(tmp_path / "elsewhere")
    elsewhere.put("b", b"2")
    elsewhere.close()
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "elsewhere", directory)
    assert [step.key for step in store.changes(0).steps] == ["b"]


def test_only_one_thread_opens(directory: Path, store: DiskStore) -> None:
    other = DiskStore(directory)
    other.put("a", b"1")
    faster = other._rows

    class Waited:
        def acquire(self, timeout: float) -> bool:
            store._rows = faster
            return timeout > 0

        def release(self) -> None:
            pass

    opening, store._opening = store._opening, Waited()  # type: ignore[assignment]
    assert store.get("a") == b"1"
    assert store._rows is faster
    store._opening = opening


def test_an_opening_that_takes_long_is_not_waited_for(directory: Path) -> None:
    store = DiskStore(directory, busy_timeout_s=0.02)
    with store._opening, pytest.raises(CacheError, match="still being opened"):
        store.get("a")
    assert store.get("a") is None
    store.close()


def test_free_space_is_given_back(directory: Path, store: DiskStore) -> None:
    keys = [f"{number:04}" for number in range(3_000)]
    for key in keys:
        store.put(key, b"x" * 4_000)
    before = store.size_bytes()
    for start in range(0, 3_000, 100):
        store.remove(keys[start : start + 100])
    assert store.size_bytes() < before / 2
    assert store.check() == ()


def test_two_processes_name_a_store_once(directory: Path) -> None:
    made = DiskStore(directory)
    name = made.changes(0).store
    rows = made._rows
    assert rows is not None
    real = rows.value
    # As before the other process named it.
    rows.value = lambda key: None if key == "n:schema" else real(key)  # type: ignore[method-assign]
    introduce(rows)
    assert made.changes(0).store == name
    made.close()


# -- check -------------------------------------------------------------------------------------------------------


def test_hits_without_an_entry(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    store.touch({"a": 1})
    sql(directory, "DELETE FROM Cache WHERE key = 'e:a'")
    assert store.check() == ("1 count(s) of hits or evidence without an entry",)
    assert store.check(repair=True) == ("1 count(s) of hits or evidence without an entry",)
    assert store.check() == ()


def test_evidence_without_an_entry(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    assert store.put_evidence("a", b"[]")
    assert store.check() == ()
    sql(directory, "DELETE FROM Cache WHERE key = 'e:a'")
    assert store.check(repair=True) == ("1 count(s) of hits or evidence without an entry",)
    assert (store.check(), store.evidence("a")) == ((), b"")


@pytest.mark.parametrize("change", ["value = 'text'", "mode = 4"])
def test_evidence_of_another_make_is_damage(directory: Path, store: DiskStore, change: str) -> None:
    store.put("a", b"1")
    store.put_evidence("a", b"[]")
    sql(directory, f"UPDATE Cache SET {change} WHERE key = 'v:a'")
    with pytest.raises(CacheCorruptError):
        store.evidence("a")
    assert store.check() == ("1 row(s) that this store did not write",)
    assert store.put_evidence("a", b"[1]")
    assert (store.evidence("a"), store.check()) == (b"[1]", ())


def test_evidence_survives_the_process(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    store.put_evidence("a", b"[]")
    store.close()
    again = DiskStore(directory)
    assert again.evidence("a") == b"[]"
    again.close()


def test_an_index_that_lost_a_row_is_built_again(directory: Path, store: DiskStore) -> None:
    for number in range(50):
        store.put(str(number), b"1")
    store.close()
    sql(
        directory,
        "PRAGMA writable_schema=ON",
        "CREATE TABLE copy AS SELECT rootpage FROM sqlite_master WHERE name = 'Cache_expire_time'",
    )
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    ((saved,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'Cache_expire_time'")
    connection.execute("DROP TABLE copy")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'Cache_expire_time'", (saved + " WHERE 0",))
    connection.close()
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    connection.execute("UPDATE Cache SET expire_time = 5")  # the index of another meaning is not kept up
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'Cache_expire_time'", (saved,))
    connection.close()
    again = DiskStore(directory)
    assert again.get("1") == b"1"
    assert any("Cache_expire_time" in finding for finding in again.check())
    again.check(repair=True)
    assert again.check() == ()
    assert again.get("1") == b"1"
    again.close()


# -- one transaction ---------------------------------------------------------------------------------------------


def test_a_block_that_fails_leaves_nothing(store: DiskStore) -> None:
    store.put("a", b"1")

    def half() -> None:
        with store.writing():
            store.put("b", b"2")
            store.remove(["a"])
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert store.keys() == ["a"]
    assert store.changes(0).sequence == 1
    assert store.put("c", b"3") == 2


def test_a_commit_that_fails_is_told(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open()

    class Full:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store._rows, "writing", Full)
    with pytest.raises(CacheError, match=r"could not be written: .* full"), store.writing():
        pass


def test_a_directory_that_goes_in_the_middle_of_a_block(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    with store.writing():
        store.put("b", b"2")
        shutil.rmtree(directory)
        assert store.changes(0).sequence == 2, "the block goes on where it began"
    assert store.changes(0).sequence == 0
    assert store.keys() == []


# -- the log -----------------------------------------------------------------------------------------------------


def test_the_log_is_as_long_as_there_are_entries(directory: Path) -> None:
    store = DiskStore(directory, log_steps=10)
    with store.writing():
        for number in range(2_000):
            store.put(f"{number % 1_000:04}", b"1")
    kept = len(store._read("SELECT 1 FROM Cache WHERE key > 'l:' AND key < 'l;'"))
    assert 256 <= kept <= 768, "about half as many as entries"
    assert not store.changes(0).complete
    assert store.changes(1_900).complete
    store.close()


def test_old_hits_are_left_out_of_the_log(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    with store.writing():
        for _ in range(1_023):
            store.touch({"a": 1})
    found = store.changes(1)
    assert (found.complete, found.sequence) == (True, 1_024)
    assert 16 <= len(found.steps) <= 32
    assert [row.hits for row in store.scan()] == [1_023]


def test_a_count_of_rows_that_is_none(directory: Path) -> None:
    store = DiskStore(directory, log_steps=10)
    store.open()
    sql(directory, "UPDATE Settings SET value = NULL WHERE key = 'count'")
    with store.writing():
        for number in range(512):
            store.put(str(number), b"1")
    assert len(store._read("SELECT 1 FROM Cache WHERE key > 'l:' AND key < 'l;'")) == 10
    store.close()


def wal_bytes(directory: Path) -> int:
    return (directory / "cache.db-wal").stat().st_size


def test_the_write_ahead_log_is_begun_anew(directory: Path, store: DiskStore) -> None:
    other = DiskStore(directory)
    for number in range(20):
        store.put(str(number), b"x" * 4_000)
        other.get(str(number))
    store.tidy(1 << 20)
    assert wal_bytes(directory) > 80_000
    store.tidy(50_000)
    assert wal_bytes(directory) == 0
    for number in range(100):
        store.put(str(number), b"x" * 4_000)
        assert wal_bytes(directory) < 150_000, "twice the limit and one write"
    assert (len(store.keys()), store.check()) == (100, ())
    other.close()


def test_a_reader_in_the_way_holds_nobody_up_for_long(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    reader = sqlite3.connect(directory / "cache.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM Cache").fetchone() is not None
    for number in range(3):
        store.put(str(number), b"x" * 40_000)
    began_s = time.monotonic()
    store.tidy(10_000)
    store.put("b", b"1")
    assert time.monotonic() - began_s < 3
    assert wal_bytes(directory) > 100_000
    reader.close()
    store.tidy(10_000)
    assert wal_bytes(directory) == 0


def test_tidying_leaves_a_writer_alone(directory: Path, store: DiskStore) -> None:
    store.put("a", b"x" * 40_000)
    with store.writing():
        store.put("b", b"1")
        store.tidy(0)
    rows = store._rows
    assert rows is not None
    with ThreadPoolExecutor(1) as another_thread:
        with rows._write_lock:
            another_thread.submit(store.tidy, 0).result()
        assert wal_bytes(directory) > 40_000
    store.tidy(0)
    assert wal_bytes(directory) == 0
    (directory / "cache.db-wal").unlink()
    store.tidy(0)


# -- formats -----------------------------------------------------------------------------------------------------


def schema_of(directory: Path) -> object:
    connection = sqlite3.connect(directory / "cache.db")
    ((found,),) = connection.execute("SELECT value FROM Cache WHERE key = 'n:schema'")
    connection.close()
    return found


@pytest.mark.parametrize("format_", [1, 2])
def test_a_store_of_an_older_format_is_brought_up(directory: Path, store: DiskStore, format_: int) -> None:
    store.put("a", b"1")
    store.touch({"a": 2})
    before = store.changes(0)
    store.close()
    sql(directory, f"UPDATE Cache SET value = {format_} WHERE key = 'n:schema'")
    again = DiskStore(directory)
    assert again.evidence("a") == b""
    assert again.row("a") == Stored("a", b"1", 2)
    assert again.changes(0) == before
    assert again.check() == ()
    again.close()
    assert schema_of(directory) == SCHEMA == 3


def test_a_step_that_fails_leaves_the_format(
    directory: Path, store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"1")
    store.close()
    sql(directory, "UPDATE Cache SET value = 1 WHERE key = 'n:schema'")

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(_migrate, "_STEPS", (full,))
    with pytest.raises(CacheError, match="full"):
        DiskStore(directory).get("a")
    assert schema_of(directory) == 1
    monkeypatch.undo()
    again = DiskStore(directory)
    assert again.get("a") == b"1"
    again.close()


@pytest.mark.parametrize("format_", ["0", "-1", "x'00'"])
def test_a_format_that_never_was(directory: Path, store: DiskStore, format_: str) -> None:
    store.put("a", b"1")
    store.close()
    sql(directory, f"UPDATE Cache SET value = {format_} WHERE key = 'n:schema'")
    with pytest.raises(CacheError, match="set another"):
        DiskStore(directory).get("a")
    assert schema_of(directory) != SCHEMA


def test_a_format_that_is_damaged_after_the_look_at_it(directory: Path, store: DiskStore) -> None:
    store.put("a", b"1")
    rows = store._rows
    assert rows is not None
    sql(directory, "UPDATE Cache SET value = 'two' WHERE key = 'n:schema'")
    with pytest.raises(CacheCorruptError, match="has no format"):
        introduce(rows)


def test_a_database_that_was_cut(directory: Path, store: DiskStore) -> None:
    """It is refused, in words, and nothing is written to it."""
    for number in range(200):
        store.put(f"{number:03}", b"x" * 3_000)
    store.close()
    path = directory / "cache.db"
    path.write_bytes(path.read_bytes()[:200_000])
    before = path.read_bytes()
    cut = DiskStore(directory)
    with pytest.raises(CacheError, match="does not"):
        [cut.get(f"{number:03}") for number in range(200)]
    cut.close()
    assert path.read_bytes()[4096:] == before[4096:]
