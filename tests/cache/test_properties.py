"""Whatever happens, in whatever order: the budget holds, index and store agree, and what is gone cannot be found."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.policies.base import Policy
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lec import LEC
from llm_proxy.cache.policies.lfu import LFU
from llm_proxy.cache.policies.lru import LRU
from llm_proxy.cache.stores.base import Store
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore

from .helpers import FakeClock, entry_of, find, key_of, listings, new_cache, remove

BUDGET_BYTES = 12_000
NAMES = st.sampled_from([f"name {number}" for number in range(12)])


class Caches(RuleBasedStateMachine):
    """Two caches on one store; one of them may be closed and opened again."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp())
        self.memory = MemoryStore(log_steps=20)
        self.caches: list[Cache] = []

    def store(self) -> Store:
        return self.memory

    def snapshot_path(self) -> Path | None:
        return None

    def opened(self) -> Cache:
        return new_cache(
            self.store(),
            self.clock,
            budget_bytes=BUDGET_BYTES,
            max_entries=8,
            policy=self.policy(),
            snapshot_path=self.snapshot_path(),
        )

    @initialize(policy=st.sampled_from([GDSF, LEC, LFU, LRU]))
    def begin(self, policy: Callable[[], Policy]) -> None:
        self.policy = policy
        self.caches = [self.opened(), self.opened()]

    def teardown(self) -> None:
        for cache in self.caches:
            cache.close()
        shutil.rmtree(self.folder)

    entries = Bundle("entries")

    @rule(target=entries, which=st.integers(0, 1), name=NAMES, size=st.integers(0, 3_000), cost=st.floats(0, 1))
    def admit(self, which: int, name: str, size: int, cost: float) -> object:
        cache = self.caches[which]
        entry = entry_of(name, completion=b"x" * size, cost_usd=cost)
        is_kept = cache.admit(entry)
        found = cache.get(entry.key)
        if not is_kept:
            return multiple()
        assert found is not None
        assert len(found.completion) == size
        assert find(cache, entry).entry is not None
        return name

    @rule(which=st.integers(0, 1), name=NAMES, with_vector=st.booleans())
    def admit_for_a_moment(self, which: int, name: str, with_vector: bool) -> None:
        changes = {} if with_vector else {"vector": None, "encoder": ""}
        self.caches[which].admit(entry_of(name, expires_s=self.clock.time() + 0.5, **changes))

    @rule(which=st.integers(0, 1), name=consumes(entries))
    def remove(self, which: int, name: str) -> None:
        remove(self.caches[which], name)
        for cache in self.caches:
            assert cache.get(key_of(name)) is None
            assert find(cache, entry_of(name)).entry is None

    @rule(which=st.integers(0, 1), name=NAMES, hits=st.integers(1, 5))
    def hit(self, which: int, name: str, hits: int) -> None:
        self.caches[which].hit(key_of(name), hits)

    @rule(which=st.integers(0, 1), name=NAMES)
    def search(self, which: int, name: str) -> None:
        entry = entry_of(name)
        found = find(self.caches[which], entry).entry
        assert found is None or found.key == entry.key

    @rule(seconds=st.sampled_from([0.01, 0.06, 1.1, 70.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=st.integers(0, 1))
    def maintain(self, which: int) -> None:
        self.caches[which].maintain()

    @rule(which=st.integers(0, 1))
    def clear(self, which: int) -> None:
        store = self.caches[which]._store
        store.remove(store.keys())

    @invariant()
    def agree(self) -> None:
        if not self.caches:
            return
        for _ in range(2):  # what one gives up the other has to hear of
            for cache in self.caches:
                cache.maintain()
        for cache in self.caches:
            stats, known = cache.stats(), list(listings(cache))
            assert stats.used_bytes <= BUDGET_BYTES
            assert stats.entries == len(known) <= 8
            assert stats.used_bytes == sum(listing.size_bytes for listing in known)
            assert stats.vectors == sum(listing.entry.vector is not None for listing in known)
            assert cache.check().findings == ()


class DiskCaches(Caches):
    def store(self) -> Store:
        return DiskStore(self.folder / "entries", log_steps=20)

    def snapshot_path(self) -> Path | None:
        return self.folder / "index.snapshot"

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.caches[which].close()
        self.caches[which] = self.opened()

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        self.caches[which]._store.close()  # as a killed process: nothing is flushed or saved
        self.caches[which] = self.opened()

    @rule(data=st.binary(max_size=50))
    def damage_the_snapshot(self, data: bytes) -> None:
        (self.folder / "index.snapshot").write_bytes(data)
        self.caches[0].check(repair=True)


TestCaches = Caches.TestCase
TestCaches.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestDiskCaches = DiskCaches.TestCase
TestDiskCaches.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
