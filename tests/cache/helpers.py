"""What several tests of the cache need: a clock that stands still, entries, vectors, and a cache made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import Entry, encode_entry, readable
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.cache.policies.base import Policy
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.ranking import Ranked
from llm_proxy.cache.stores.base import Store
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.cache.view import stored_bytes
from llm_proxy.errors import CacheError

DIM = 8
ENCODER = "encoder@1"


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def key_of(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def unit(*values: float, dim: int = DIM) -> NDArray[np.float32]:
    vector = np.zeros(dim, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def vector_of(name: object, dim: int = DIM) -> NDArray[np.float32]:
    vector = np.random.default_rng(int(key_of(name)[:12], 16)).standard_normal(dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def entry_of(name: object, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "key": key_of(name),
        "scope": key_of("scope"),
        "text": f"what is {name}",
        "completion": b'{"answer":"' + str(name).encode() + b'"}',
        "created_s": 1_000_000.0,
        "cost_usd": 0.001,
        "encoder": ENCODER,
        "vector": vector_of(name),
    }
    fields.update(changes)
    fields.setdefault("seen_chars", len(fields["text"]))
    return Entry(**fields)


def new_cache(store: Store | None = None, clock: FakeClock | None = None, **changes: Any) -> Cache:
    options: dict[str, Any] = {
        "policy": GDSF(),
        "budget_bytes": 1 << 30,
        "max_entries": 1_000_000,
        "max_entry_bytes": 1 << 20,
        "clock": clock or FakeClock(),
        "new_index": FaissIndex,
    }
    options.update(changes)
    return Cache(store if store is not None else MemoryStore(), **options)


def find(cache: Cache, entry: Entry, **changes: Any) -> Any:
    options: dict[str, Any] = {"encoder": entry.encoder, **changes}
    return cache.nearest(entry.scope, entry.text, entry.vector, **options)  # type: ignore[arg-type]


def sizes_of(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def size_of(entry: Entry) -> int:
    return stored_bytes(len(encode_entry(entry)), entry)


@dataclass(frozen=True)
class Listing:
    """An entry with what store and memory together know of it."""

    entry: Entry
    hits: int
    size_bytes: int


def listings(cache: Cache) -> Iterator[Listing]:
    """All entries of a cache that can be read."""
    cache.open()
    for row in cache._store.scan():
        entry = readable(row.record)
        if entry is not None:
            known = cache._view.known(row.key)
            yield Listing(entry, max(row.hits, known.hits if known else 0), stored_bytes(len(row.record), entry))


def remove(cache: Cache, *names: object) -> int:
    """Remove entries as the command line does: from the store, whose log the cache follows."""
    return cache._store.remove([key_of(name) for name in names])


def priority(policy: Policy, key: str) -> float | None:
    """What a policy orders a key by: the least goes first."""
    assert isinstance(policy, Ranked)
    slot = policy.slot(key)
    return None if slot is None else policy._ranking.value(slot)


class CountingStore(MemoryStore):
    """A memory store that counts verbs and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def _note(self, verb: str) -> None:
        self.calls.append(verb)
        if verb in self.failing:
            raise CacheError(f"{verb} fails")

    def get(self, key: str) -> bytes | None:
        self._note("get")
        return super().get(key)

    def put(self, key: str, record: bytes) -> int:
        self._note("put")
        return super().put(key, record)

    def touch(self, hits: Any) -> int:
        self._note("touch")
        return super().touch(hits)

    def remove(self, keys: Any) -> int:
        self._note("remove")
        return super().remove(keys)

    def changes(self, since: int) -> Any:
        self._note("changes")
        return super().changes(since)
