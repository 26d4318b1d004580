"""Budget, hits, removal and failures, over the memory store with a clock that stands still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.policies.lru import LRU
from llm_proxy.cache.stores.base import Stored
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.config import Config
from llm_proxy.errors import CacheError, ConfigError

from .helpers import (
    ENCODER,
    CountingStore,
    FakeClock,
    entry_of,
    find,
    key_of,
    listings,
    new_cache,
    priority,
    remove,
    size_of,
    vector_of,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def cache(store: CountingStore, clock: FakeClock) -> Cache:
    return new_cache(store, clock)


# -- budget ------------------------------------------------------------------------------------------------------


def test_too_large_is_not_stored() -> None:
    entry = entry_of("a", completion=b"x" * 5_000)
    assert not new_cache(max_entry_bytes=5_000).admit(entry)
    assert new_cache(max_entry_bytes=6_000).admit(entry)
    assert not new_cache(budget_bytes=size_of(entry) - 1).admit(entry)
    assert new_cache(budget_bytes=size_of(entry)).admit(entry)


def test_the_least_worthy_goes() -> None:
    entries = [entry_of(name, cost_usd=cost) for name, cost in (("a", 0.002), ("b", 0.001), ("c", 0.003))]
    cache = new_cache(budget_bytes=2 * size_of(entries[0]))
    assert [cache.admit(entry) for entry in entries] == [True, True, True]
    assert cache.get(key_of("b")) is None
    assert find(cache, entry_of("b")).entry is None
    assert find(cache, entry_of("a")).entry is not None
    assert (cache.stats().evicted, cache.stats().entries) == (1, 2)
    assert cache.stats().used_bytes <= cache.stats().budget_bytes


def test_the_newcomer_may_be_the_least_worthy() -> None:
    cache = new_cache(max_entries=2)
    assert cache.admit(entry_of("a", cost_usd=0.01))
    assert cache.admit(entry_of("b", cost_usd=0.01))
    assert not cache.admit(entry_of("c", cost_usd=0.0001))
    assert cache.get(key_of("c")) is None


def test_hits_keep_an_entry() -> None:
    cache = new_cache(max_entries=2)
    cache.admit(entry_of("a"))
    cache.admit(entry_of("b"))
    cache.hit(key_of("a"), 3)
    cache.hit(key_of("unknown"))
    assert cache.admit(entry_of("c", cost_usd=0.002))
    assert cache.get(key_of("a")) is not None
    assert cache.get(key_of("b")) is None


def test_lru() -> None:
    cache = new_cache(max_entries=2, policy=LRU())
    for name in "ab":
        cache.admit(entry_of(name))
    cache.hit(key_of("a"))
    cache.admit(entry_of("c"))
    assert [cache.get(key_of(name)) is not None for name in "abc"] == [True, False, True]


def test_an_entry_that_grows_makes_room() -> None:
    entries = [entry_of(name) for name in "abc"]
    cache = new_cache(budget_bytes=sum(map(size_of, entries)))
    for entry in entries:
        cache.admit(entry)
    assert cache.admit(entry_of("c", completion=b"x" * 500, cost_usd=1.0))
    assert cache.stats().entries == 2
    assert cache.stats().used_bytes <= cache.stats().budget_bytes


def test_costs_that_are_none_count_nothing() -> None:
    cache = new_cache(max_entries=1)
    for cost in (float("nan"), float("inf"), -1.0):
        cache.admit(entry_of("a", cost_usd=cost))
    assert cache.admit(entry_of("b", cost_usd=1e-8))


def test_time_is_worth_what_it_costs() -> None:
    """0.001 of money and 0.004 of time stay; 0.002 of money go first, 0.003 of time next."""
    worths = {"slow and cheap": (0.001, 0.004), "dear": (0.002, 0.0), "slow and free": (0.0, 0.003)}
    entries = [
        entry_of(name, text="t", completion=b"{}", cost_usd=usd, wait_usd=w) for name, (usd, w) in worths.items()
    ]
    cache = new_cache(max_entries=3)
    for entry in entries:
        cache.admit(entry)
    gone = []
    for number in range(2):
        cache.admit(entry_of(f"new {number}", text="t", completion=b"{}", cost_usd=1.0))
        gone += [name for name in worths if name not in gone and cache.get(key_of(name)) is None]
    assert gone == ["dear", "slow and free"]


def test_a_policy_that_forgot_its_keys_does_not_stop_the_service() -> None:
    class Forgetful(LRU):
        def victim(self) -> str | None:
            return None

    cache = new_cache(max_entries=1, policy=Forgetful())
    cache.admit(entry_of("a"))
    assert cache.admit(entry_of("b"))


# -- hits --------------------------------------------------------------------------------------------------------


def test_hits_are_written_together(cache: Cache, store: CountingStore, clock: FakeClock) -> None:
    cache.admit(entry_of("a"))
    for _ in range(10):
        cache.hit(key_of("a"))
    assert "touch" not in store.calls
    clock.advance(1.0)
    assert cache.hit(key_of("a"))
    assert not cache.hit(key_of("a"), 0), "one caller a second is told"
    assert "touch" not in store.calls, "a hit writes nothing by itself"
    cache.tend()
    cache.tend()
    assert store.calls.count("touch") == 1
    assert next(store.scan()).hits == 11
    assert [listing.hits for listing in listings(cache)] == [11]
    clock.advance(1.0)
    cache.admit(entry_of("b"))  # nothing is pending
    assert store.calls.count("touch") == 1


def test_many_hits_are_written_in_pieces(
    cache: Cache, store: CountingStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache._upkeep, "_slice_keys", 2)
    for number in range(15):
        cache.admit(entry_of(number))
        cache.hit(key_of(number))
    for expected in (4, 8):
        clock.advance(1.0)
        assert cache.hit(key_of(0))
        cache.tend()
        assert sum(row.hits > 0 for row in store.scan()) == expected
    cache.maintain()
    assert all(row.hits > 0 for row in store.scan())
    assert sum(row.hits for row in store.scan()) == 17


def test_hits_are_written_when_it_closes(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("a"))
    cache.hit(key_of("a"))
    cache.close()
    assert store.calls[-1] == "touch"
    cache.close()


def test_a_hit_does_not_wait_for_a_writer(cache: Cache, store: CountingStore, clock: FakeClock) -> None:
    cache.admit(entry_of("a"))
    clock.advance(5.0)
    with cache._upkeep.writing:
        cache.hit(key_of("a"))
    assert "touch" not in store.calls


def test_hits_that_could_not_be_written_are_kept(cache: Cache, store: CountingStore, clock: FakeClock) -> None:
    cache.admit(entry_of("a"))
    cache.hit(key_of("a"))
    store.failing = {"touch"}
    clock.advance(1.0)
    assert cache.hit(key_of("a"))
    with pytest.raises(CacheError):
        cache.tend()
    assert not cache.hit(key_of("a"))  # not tried again with every hit
    store.failing = set()
    clock.advance(1.0)
    assert cache.hit(key_of("a"))
    cache.tend()
    assert next(store.scan()).hits == 4


# -- waiting -----------------------------------------------------------------------------------------------------


class GatedStore(CountingStore):
    """A scan of it stops where ``gate`` lets no more rows through."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        for number in range(rows):
            super().put(key_of(number), encode_entry(entry_of(number)))
        self.gate, self.begun = threading.Semaphore(0), threading.Event()

    def scan(self) -> Iterator[Stored]:
        for row in super().scan():
            self.begun.set()
            assert self.gate.acquire(timeout=10)
            yield row


def test_an_answer_is_stored_while_another_thread_loads(clock: FakeClock) -> None:
    store = GatedStore(3)
    cache = new_cache(store, clock, max_entries=3)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(cache.open)
        assert store.begun.wait(10)
        began_s = time.monotonic()
        assert cache.admit(entry_of("new", cost_usd=1.0))  # the slice under way is not waited for to its end
        assert time.monotonic() - began_s < 1.0
        assert not cache.admit(entry_of("large", completion=b"x" * (1 << 21)))
        assert cache.get(key_of("new")) is not None
        assert find(cache, entry_of("new")).entry is None
        store.gate.release(100)
        opening.result(10)
    clock.advance(0.05)
    assert find(cache, entry_of("new")).entry is not None
    assert cache.stats().entries == 3
    assert cache.check().is_clean


def test_an_answer_stored_that_way_is_none_to_be_removed(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("a"))
    cache._upkeep._doomed[key_of("a")] = "evicted"
    with cache._upkeep.writing:
        assert cache.admit(entry_of("a"))
    cache.maintain()
    assert cache.get(key_of("a")) is not None


def test_loading_gives_way_after_every_slice(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.cache.follow._SLICE", 1)
    store = GatedStore(3)
    store.gate.release(100)
    cache = new_cache(store, clock)
    steps: list[int] = []

    def others_turn(_: float) -> None:
        before = len(cache._view)
        assert find(cache, entry_of(0)).entry is not None
        assert len(cache._view) == before  # who has a call to answer leaves the slices to the thread that loads
        assert cache.admit(entry_of(("new", before)))
        assert key_of(("new", before)) in cache._view
        steps.append(before)

    monkeypatch.setattr("llm_proxy.cache.upkeep.time.sleep", others_turn)
    cache.open()
    assert len(steps) >= 3
    assert len(cache._view) == 3 + len(steps)
    find(cache, entry_of(0))
    assert cache.check().is_clean


def test_a_caller_saves_no_snapshot_while_the_store_is_being_read(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_proxy.cache.follow._SLICE", 1)
    monkeypatch.setattr("llm_proxy.cache.upkeep.SAVE_EVERY_CHANGES", 2)
    store = GatedStore(9)
    store.gate.release(100)
    cache = new_cache(store, clock, snapshot_path=tmp_path / "index.snapshot")
    for number in range(4):
        cache.admit(entry_of(("new", number)))
    assert cache._upkeep._follower.is_busy
    assert not (tmp_path / "index.snapshot").exists()
    cache.open()
    cache.maintain()
    assert (tmp_path / "index.snapshot").exists()


# -- expiry ------------------------------------------------------------------------------------------------------


def test_what_expired_and_nobody_asks_for_goes_too(
    cache: Cache, store: CountingStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_proxy.cache.upkeep._EXAMINED_KEYS", 4)
    for number in range(10):
        cache.admit(entry_of(number, expires_s=clock.time() + 10))
    cache.admit(entry_of("lasting"))
    cache.maintain()
    assert len(store.keys()) == 11
    clock.advance(10.0)
    for expected in (5, 1):  # the first look has left six to the second and third
        cache.maintain()
        cache.maintain()
        assert len(store.keys()) == expected
    assert store.keys() == [key_of("lasting")]
    store.calls.clear()
    cache.maintain()
    assert "get" not in store.calls, "what never expires is not read"


def test_a_snapshot_does_not_say_what_expires(tmp_path: Path, clock: FakeClock) -> None:
    def new() -> Cache:
        return new_cache(DiskStore(tmp_path / "entries"), clock, snapshot_path=tmp_path / "snapshot")

    cache = new()
    cache.admit(entry_of("a", expires_s=clock.time() + 10))
    cache.admit(entry_of("b"))
    cache.close()
    clock.advance(10.0)
    again = new()
    again.maintain()
    assert again.get(key_of("b")) is not None
    assert DiskStore(tmp_path / "entries").keys() == [key_of("b")]
    again._view.note_expiry("unknown", True)
    assert again._view.expiring() == []
    again.close()


# -- other verbs -------------------------------------------------------------------------------------------------


def test_attach(cache: Cache) -> None:
    cache.admit(entry_of("a", vector=None, encoder="", scope=key_of("wide")))
    vector = vector_of("a")
    assert cache.attach(key_of("a"), scope=key_of("scope"), vector=vector, encoder=ENCODER, seen_chars=1)
    assert find(cache, entry_of("a")).entry is not None
    assert not cache.attach(key_of("gone"), scope=key_of("scope"), vector=vector, encoder=ENCODER, seen_chars=1)
    assert cache.stats().vectors == 1
    assert list(cache.lacking(ENCODER)) == []


def test_what_is_removed_from_the_store_is_gone_at_once(cache: Cache) -> None:
    for number in range(5):
        cache.admit(entry_of(number))
    assert remove(cache, 1, 1, "gone") == 1
    assert cache.get(key_of(1)) is None
    assert find(cache, entry_of(1)).entry is None
    assert remove(cache, *range(5)) == 4
    stats = cache.stats()
    assert (stats.entries, stats.vectors, stats.used_bytes, stats.scopes) == (0, 0, 0, 0)


def test_listings(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("a", cost_usd=0.002))
    cache.admit(entry_of("b", vector=None, encoder=""))
    store.put("damaged", b"")
    cache.hit(key_of("a"))
    found = {listing.entry.text: listing for listing in listings(cache)}
    assert found["what is a"].hits == 1
    assert found["what is b"].hits == 0
    assert found["what is a"].size_bytes == size_of(entry_of("a", cost_usd=0.002))
    one, other = (priority(cache._view._policy, key_of(name)) for name in "ab")
    assert one is not None
    assert other is not None
    assert one > other


def test_lacking(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("has"))
    cache.admit(entry_of("lacks", vector=None, encoder=""))
    cache.admit(entry_of("old", encoder="encoder@0"))
    cache.admit(entry_of("no text", text="", vector=None))
    store.put("damaged", b"")
    assert {entry.text for entry in cache.lacking(ENCODER)} == {"what is lacks", "what is old"}


@pytest.mark.parametrize("verb", ["get", "put", "changes"])
def test_a_failing_store_is_told(cache: Cache, store: CountingStore, clock: FakeClock, verb: str) -> None:
    cache.admit(entry_of("a"))
    clock.advance(0.06)
    store.failing = {verb}
    verbs: dict[str, Callable[[], object]] = {
        "get": lambda: cache.get(key_of("a")),
        "put": lambda: cache.admit(entry_of("b")),
        "changes": lambda: find(cache, entry_of("a")),
    }
    with pytest.raises(CacheError, match=f"{verb} fails"):
        verbs[verb]()
    store.failing = set()
    clock.advance(0.06)
    assert cache.get(key_of("a")) is not None
    assert cache.admit(entry_of("b"))
    assert find(cache, entry_of("a")).entry is not None
    assert cache.check().is_clean


def test_what_could_not_be_removed_stays(store: CountingStore, clock: FakeClock) -> None:
    cache = new_cache(store, clock, max_entries=1)
    cache.admit(entry_of("a"))
    store.failing = {"remove"}
    with pytest.raises(CacheError):
        cache.admit(entry_of("b", cost_usd=0.1))
    assert find(cache, entry_of("a")).entry is None
    store.failing = set()
    cache.maintain()
    assert store.keys() == [key_of("a")], "room is made before the newcomer is written"
    assert cache.check().is_clean


def test_a_write_that_fails_leaves_the_view_as_the_store_is(tmp_path: Path, clock: FakeClock) -> None:
    disk = DiskStore(tmp_path / "entries")
    cache = new_cache(disk, clock, max_entries=1)
    cache.admit(entry_of("a"))
    real = disk.remove

    def failing(_: object) -> int:
        raise CacheError("remove fails")

    disk.remove = failing  # type: ignore[method-assign]
    with pytest.raises(CacheError, match="remove fails"):
        cache.admit(entry_of("b", cost_usd=0.1))
    disk.remove = real  # type: ignore[method-assign]
    clock.advance(0.06)
    assert find(cache, entry_of("b")).entry is None
    assert find(cache, entry_of("a")).entry is not None
    assert (disk.keys(), cache._view.keys()) == ([key_of("a")], [key_of("a")])
    assert cache.check().is_clean
    cache.close()


def test_what_expired_and_could_not_be_removed_is_removed_later(store: CountingStore, clock: FakeClock) -> None:
    cache = new_cache(store, clock)
    cache.admit(entry_of("a", expires_s=clock.now_s + 5))
    clock.advance(5)
    assert cache.get(key_of("a")) is None
    store.failing = {"remove"}
    with pytest.raises(CacheError, match="remove fails"):
        cache.tend()
    store.failing = set()
    clock.advance(1)
    cache.tend()
    assert store.keys() == []


# -- what the store really takes ---------------------------------------------------------------------------------


class Padded(CountingStore):
    """A store whose bookkeeping takes more than is thought."""

    extra_bytes = 0

    def live_bytes(self) -> int:
        return super().live_bytes() + self.extra_bytes


def test_entries_give_way_to_what_the_store_needs_for_itself(clock: FakeClock) -> None:
    store, mib = Padded(), 1 << 20
    cache = new_cache(store, clock, budget_bytes=4 * mib)
    for number in range(200):
        cache.admit(entry_of(number, completion=b"x" * 10_000, vector=None, encoder=""))
    clock.advance(1)
    cache.tend()
    assert cache.stats().entries == 200
    store.extra_bytes = 3 * mib
    clock.advance(1)
    cache.tend()
    assert cache.stats().used_bytes == pytest.approx(2 * mib, rel=0.02), "no less than half of the budget"
    store.extra_bytes = mib
    clock.advance(1)
    cache.tend()
    assert cache._upkeep.room_bytes > 2 * mib
    assert cache.check().is_clean


def test_a_budget_that_became_smaller_is_met_in_slices(tmp_path: Path, clock: FakeClock) -> None:
    store = DiskStore(tmp_path / "entries")
    large = new_cache(store, clock, new_index=None)
    with large._upkeep.writing, large._upkeep.together():
        for number in range(1_000):
            large._upkeep.write(entry_of(number, vector=None, encoder=""))
    small = new_cache(store, clock, max_entries=10, new_index=None)
    small.maintain()
    assert len(store.keys()) == small.stats().entries == 10
    removals = [step for step in store.changes(1_000).steps if step.operation == "remove"]
    assert len({step.sequence for step in removals}) >= 4, "others get their turn in between"
    large.close()


@pytest.mark.parametrize(
    "budget", [{"budget_bytes": 1}, {"max_entries": 1}, {"max_entry_bytes": 1}, {"budget_bytes": 10**30}]
)
def test_absurd_budgets(clock: FakeClock, budget: dict[str, int]) -> None:
    cache = new_cache(clock=clock, **budget)
    fits = budget in ({"max_entries": 1}, {"budget_bytes": 10**30})
    assert cache.admit(entry_of("a")) is fits
    assert (cache.get(key_of("a")) is not None) is fits
    cache.maintain()
    assert cache.stats().used_bytes <= cache.stats().budget_bytes
    assert cache.check().is_clean


@pytest.mark.parametrize("name", ["budget_bytes", "max_entries", "max_entry_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "much", None, True, float("nan"), float("inf")])
def test_budgets_that_are_none(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"cache\.{name}"):
        Config(cache={name: value})


def test_closing_a_broken_store(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("a"))
    cache.hit(key_of("a"))
    store.failing = {"touch"}
    with pytest.raises(CacheError, match="touch fails"):
        cache.close()
    with pytest.raises(CacheError, match="closed"):
        cache.get(key_of("a"))
    cache.close()


def test_closing_what_was_never_used(tmp_path: Path) -> None:
    new_cache(DiskStore(tmp_path / "entries"), snapshot_path=tmp_path / "index.snapshot").close()
    assert list(tmp_path.iterdir()) == []


def test_threads_that_do_everything_at_once(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "entries")
    cache = new_cache(store, budget_bytes=100 * size_of(entry_of("0-0")), snapshot_path=tmp_path / "index.snapshot")

    def work(number: int) -> None:
        for count in range(60):
            entry = entry_of(f"{number}-{count}")
            cache.admit(entry)
            found = find(cache, entry)
            assert found.entry is None or found.entry.key == entry.key
            cache.get(entry.key)
            cache.hit(entry.key)
            if count % 9 == 0:
                store.remove([entry.key])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert cache.check().is_clean
    assert cache.stats().used_bytes <= cache.stats().budget_bytes
    cache.close()
