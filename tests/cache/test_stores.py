"""One contract for every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.cache.stores.base import Change, Store, Stored
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.errors import CacheError

Make = Callable[..., Store]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Store] = []

    def new(*, log_steps: int = 100_000) -> Store:
        path = tmp_path / f"store{len(made)}"
        is_memory = request.param == "memory"
        made.append(MemoryStore(log_steps=log_steps) if is_memory else DiskStore(path, log_steps=log_steps))
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> Store:
    return make()


def rows(store: Store) -> dict[str, tuple[bytes, int]]:
    return {row.key: (row.record, row.hits) for row in store.scan()}


def steps(store: Store, since: int = 0) -> list[tuple[int, str, str, int]]:
    return [(step.sequence, step.operation, step.key, step.hits) for step in store.changes(since).steps]


def test_an_empty_store(store: Store) -> None:
    assert store.get("a") is None
    assert list(store.scan()) == []
    assert store.remove(["a"]) == 0
    assert store.touch({"a": 1}) == 0
    found = store.changes(0)
    assert (found.steps, found.sequence, found.complete) == ((), 0, True)
    assert (store.refused, store.check(), store.check(repair=True)) == (0, (), ())


def test_put_replaces(store: Store) -> None:
    assert store.put("a", b"one") == 1
    assert store.put("a", b"two") == 2
    assert store.get("a") == b"two"
    assert list(store.scan()) == [Stored("a", b"two", 0)]
    assert steps(store) == [(1, "put", "a", 0), (2, "put", "a", 0)]


@pytest.mark.parametrize("record", [b"", b"\0", bytes(range(256)), b"x" * 2_000_000], ids=len)
def test_any_bytes_come_back(store: Store, record: bytes) -> None:
    store.put("a", record)
    assert store.get("a") == record
    assert rows(store) == {"a": (record, 0)}


def test_hits_add_up_and_are_one_step(store: Store) -> None:
    store.put("a", b"1")
    store.put("b", b"2")
    assert store.touch({"a": 2, "gone": 5, "b": 1}) == 3
    assert store.touch({"a": 3}) == 4
    assert rows(store) == {"a": (b"1", 5), "b": (b"2", 1)}
    assert steps(store, 2) == [(3, "touch", "a", 2), (3, "touch", "b", 1), (4, "touch", "a", 3)]


def test_a_new_record_keeps_the_hits(store: Store) -> None:
    store.put("a", b"1")
    store.touch({"a": 2})
    store.put("a", b"2")
    assert rows(store) == {"a": (b"2", 2)}


def test_remove_forgets_record_and_hits(store: Store) -> None:
    for key in "abc":
        store.put(key, b"1")
    store.touch({"a": 2})
    assert store.remove(["a", "b", "a", "gone"]) == 2
    assert rows(store) == {"c": (b"1", 0)}
    assert steps(store, 4) == [(5, "remove", "a", 0), (5, "remove", "b", 0)]
    store.put("a", b"2")
    assert rows(store)["a"] == (b"2", 0)


def test_evidence_lies_beside_the_entry(store: Store) -> None:
    assert not store.put_evidence("a", b"[]")
    assert store.evidence("a") == b""
    store.put("a", b"one")
    before, log = store.size_bytes(), steps(store)
    assert store.put_evidence("a", b"[1]")
    assert store.put_evidence("a", b"[1,2]")
    assert store.evidence("a") == b"[1,2]"
    assert steps(store) == log, "no step of the log speaks of it"
    assert rows(store) == {"a": (b"one", 0)}
    assert store.keys() == ["a"]
    assert store.size_bytes() >= before
    store.put("a", b"two")
    assert store.evidence("a") == b"[1,2]"
    store.remove(["a"])
    store.put("a", b"three")
    assert store.evidence("a") == b""


def test_notes_lie_apart_from_the_entries(store: Store) -> None:
    assert store.note("bounds") == b""
    store.put_note("bounds", b"{}")
    store.put_note("bounds", b'{"a":1}')
    assert store.note("bounds") == b'{"a":1}'
    assert (store.note("others"), list(store.scan()), store.keys(), store.changes(0).sequence) == (b"", [], [], 0)
    assert store.check() == ()
    store.close()
    with pytest.raises(CacheError):
        store.put_note("bounds", b"{}")


def test_evidence_counts_and_is_given_back(store: Store) -> None:
    store.put("a", b"one")
    before = store.live_bytes()
    store.put_evidence("a", bytes(100_000))
    assert store.live_bytes() >= before + 90_000  # the entry's page has some room
    store.put_evidence("a", b"")
    assert store.live_bytes() <= before + 20_000
    store.remove(["a"])
    assert store.evidence("a") == b""


def test_removing_many(store: Store) -> None:
    keys = [f"{number:04}" for number in range(1_200)]
    for key in keys:
        store.put(key, b"1")
    assert store.remove(keys[:1_100]) == 1_100
    assert sorted(rows(store)) == keys[1_100:]


def test_keys(store: Store) -> None:
    for key in ("b", "a", "ab", "abc", "a\uffff", "a\U0010ffff"):
        store.put(key, b"1")
    store.touch({"a": 1})
    assert store.keys() == ["a", "ab", "abc", "a\uffff", "a\U0010ffff", "b"]
    assert store.keys("ab") == ["ab", "abc"]
    assert store.keys("a\uffff") == ["a\uffff"]
    assert store.keys("c") == []


def test_opening(store: Store) -> None:
    store.open()
    assert (store.is_open, store.failure) == (True, "")
    store.open()


def test_changes_since(store: Store) -> None:
    for key in "abc":
        store.put(key, b"1")
    found = store.changes(1)
    assert found.steps == (Change(2, "put", "b"), Change(3, "put", "c"))
    assert (found.sequence, found.complete) == (3, True)
    assert store.changes(3).steps == ()
    assert store.changes(3).complete


@pytest.mark.parametrize("since", [4, 1_000, -1])
def test_a_sequence_that_is_not_its_own_is_not_complete(store: Store, since: int) -> None:
    for key in "abc":
        store.put(key, b"1")
    found = store.changes(since)
    assert (found.steps, found.sequence, found.complete) == ((), 3, False)


def test_the_log_is_trimmed(make: Make) -> None:
    store = make(log_steps=10)
    for number in range(1_000):
        store.put(str(number % 7), b"1")
    assert not store.changes(0).complete
    assert not store.changes(500).complete
    assert [step.sequence for step in store.changes(990).steps] == list(range(991, 1_001))
    assert len(rows(store)) == 7


def test_every_store_has_a_name_of_its_own(make: Make) -> None:
    names = [make().changes(0).store for _ in range(2)]
    assert names[0] != names[1]
    assert all(names)


def test_size(store: Store) -> None:
    before = store.size_bytes()
    store.put("a", b"x" * 100_000)
    assert store.size_bytes() - before >= 90_000  # a file has some pages free at first
    store.remove(["a"])
    assert store.size_bytes() < before + 300_000


def test_closed(make: Make) -> None:
    store = make()
    store.put("a", b"1")
    store.close()
    store.close()
    verbs: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.put("a", b"1"),
        lambda: store.touch({"a": 1}),
        lambda: store.remove(["a"]),
        lambda: list(store.scan()),
        lambda: store.changes(0),
        lambda: store.size_bytes(),
        lambda: store.check(),
    ]
    for verb in verbs:
        with pytest.raises(CacheError, match="closed"):
            verb()


def test_many_threads(store: Store) -> None:
    def work(number: int) -> None:
        for count in range(40):
            key = f"{number}-{count}"
            store.put(key, key.encode())
            assert store.get(key) == key.encode()
            store.touch({key: 1})
            if count % 2:
                store.remove([key])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = rows(store)
    assert len(found) == 8 * 20
    assert all(hits == 1 and record == key.encode() for key, (record, hits) in found.items())
    assert store.changes(0).sequence == 8 * 100
    assert store.check() == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    history=st.lists(
        st.tuples(st.sampled_from(["put", "touch", "remove"]), st.lists(st.sampled_from("abcd"), min_size=1)),
        max_size=30,
    )
)
def test_the_log_tells_the_whole_story(make: Make, history: list[tuple[str, list[str]]]) -> None:
    store = make()
    for what, keys in history:
        if what == "put":
            store.put(keys[0], b"".join(key.encode() for key in keys))
        elif what == "touch":
            store.touch({key: keys.count(key) for key in keys})
        else:
            store.remove(keys)
    told: dict[str, int] = {}
    for step in store.changes(0).steps:
        if step.operation == "remove":
            del told[step.key]
        else:
            told[step.key] = told.get(step.key, 0) + step.hits
    assert told == {row.key: row.hits for row in store.scan()}


# -- several verbs as one ----------------------------------------------------------------------------------------


def test_a_block_reads_what_it_wrote(store: Store) -> None:
    with store.writing():
        assert store.put("a", b"1") == 1
        assert store.get("a") == b"1"
        with store.writing():
            store.put("b", b"2")
            assert store.remove(["a"]) == 1
        assert store.keys() == ["b"]
        assert [step.operation for step in store.changes(0).steps] == ["put", "put", "remove"]
    assert rows(store) == {"b": (b"2", 0)}


def test_nobody_else_writes_meanwhile(store: Store) -> None:
    store.open()
    with ThreadPoolExecutor(1) as another_thread:
        with store.writing():
            later = another_thread.submit(store.put, "a", b"theirs")
            store.put("a", b"1")
            assert store.get("a") == b"1"
            assert not later.done()
        later.result(5)
    assert store.get("a") == b"theirs"


def test_sizes(store: Store) -> None:
    store.put("a", b"x" * 100_000)
    assert store.size_bytes() >= store.live_bytes() >= 100_000
    store.tidy(0)
    assert store.get("a") == b"x" * 100_000


def test_a_closed_store_writes_nothing(store: Store) -> None:
    store.put("a", b"1")
    store.close()
    with pytest.raises(CacheError, match="closed"), store.writing():
        raise AssertionError
