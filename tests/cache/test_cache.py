"""Looking up by key and by meaning, over the memory store with a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import encode_entry
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.cache.results import Lookup
from llm_proxy.errors import CacheError, MissingDependencyError

from .helpers import (
    DIM,
    ENCODER,
    CountingStore,
    FakeClock,
    entry_of,
    find,
    key_of,
    new_cache,
    unit,
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


# -- by key ------------------------------------------------------------------------------------------------------


def test_by_key(cache: Cache) -> None:
    assert cache.get(key_of("a")) is None
    assert cache.admit(entry_of("a"))
    found = cache.get(key_of("a"))
    assert found is not None
    assert found.completion == b'{"answer":"a"}'


def test_what_another_process_wrote_is_seen_at_once(cache: Cache, store: CountingStore) -> None:
    entry = entry_of("a")
    store.put(entry.key, encode_entry(entry))
    assert cache.get(entry.key) is not None
    store.remove([entry.key])
    assert cache.get(entry.key) is None


def test_a_lookup_never_writes(cache: Cache, store: CountingStore, clock: FakeClock) -> None:
    cache.admit(entry_of("a", expires_s=clock.time() + 10))
    store.put("damaged", b"no record")
    clock.advance(11)
    store.calls.clear()
    assert cache.get(key_of("a")) is None
    assert cache.get("damaged") is None
    assert find(cache, entry_of("a")).entry is None
    assert set(store.calls) == {"get", "changes"}
    cache.admit(entry_of("b"))
    assert store.remove([key_of("a"), "damaged"]) == 0  # gone with the next write
    assert (cache.stats().expired, cache.stats().corrupt, cache.stats().entries) == (1, 1, 1)


def test_a_record_under_another_key_is_no_answer(cache: Cache, store: CountingStore) -> None:
    store.put("elsewhere", encode_entry(entry_of("a")))
    assert cache.get("elsewhere") is None
    assert cache.stats().corrupt == 1


def test_an_expired_entry_that_was_replaced_stays(cache: Cache, store: CountingStore, clock: FakeClock) -> None:
    cache.admit(entry_of("a", expires_s=clock.time() + 10))
    clock.advance(11)
    assert cache.get(key_of("a")) is None
    store.put(key_of("a"), encode_entry(entry_of("a")))  # by another process
    cache.admit(entry_of("b"))
    assert cache.get(key_of("a")) is not None
    clock.advance(1)
    assert find(cache, entry_of("a")).entry is not None


def test_an_expired_entry_that_is_admitted_again_stays(cache: Cache, clock: FakeClock) -> None:
    cache.admit(entry_of("a", expires_s=clock.time() + 10))
    clock.advance(11)
    assert cache.get(key_of("a")) is None
    cache.admit(entry_of("a"))
    assert cache.get(key_of("a")) is not None


# -- by meaning --------------------------------------------------------------------------------------------------


def near(similarity: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return unit(similarity, (1 - similarity**2) ** 0.5)


def test_by_meaning(cache: Cache) -> None:
    entry = entry_of("a", text="How do I reset my password?", vector=unit(1))
    cache.admit(entry)
    found = cache.nearest(entry.scope, "How can I reset my password?", near(0.97), encoder=ENCODER)
    assert found.entry is not None
    assert found.entry.key == entry.key
    assert found.similarity == pytest.approx(0.97, abs=1e-6)
    assert (found.refused, found.refusal) == ((), "")


def test_nothing_near(cache: Cache) -> None:
    assert find(cache, entry_of("a")) == Lookup()
    cache.admit(entry_of("b"))
    assert find(cache, entry_of("a", text="")) == Lookup()
    assert find(cache, entry_of("a", scope=key_of("elsewhere"))) == Lookup()


@pytest.mark.parametrize(("similarity", "is_served"), [(0.9501, True), (0.9499, False), (0.949, False), (0.5, False)])
def test_the_threshold_is_kept_to_full_precision(cache: Cache, similarity: float, is_served: bool) -> None:
    entry = entry_of("a", vector=unit(1))
    cache.admit(entry)
    found = cache.nearest(entry.scope, entry.text, near(similarity), encoder=ENCODER)
    assert (found.entry is not None) == is_served
    assert found.similarity == pytest.approx(similarity, abs=1e-3)
    assert found.refusal == ("" if is_served else "similarity")


def test_a_threshold_of_one_serves_equal_vectors() -> None:
    cache = new_cache(threshold=1.0)
    for name in range(20):
        cache.admit(entry_of(name))
        assert find(cache, entry_of(name)).entry is not None


def test_the_guard_refuses_and_the_next_neighbour_is_asked(cache: Cache) -> None:
    cache.admit(entry_of("a", text="turn the lights off", vector=near(0.99)))
    cache.admit(entry_of("b", text="turn on the lights", vector=near(0.96)))
    found = cache.nearest(key_of("scope"), "turn the lights on", unit(1), encoder=ENCODER)
    assert found.entry is not None
    assert found.entry.key == key_of("b")
    assert [(refused.key, refused.reason) for refused in found.refused] == [(key_of("a"), "negation")]
    assert found.refusal == ""


def test_what_was_refused_is_told(cache: Cache) -> None:
    cache.admit(entry_of("a", text="2 lights", vector=near(0.99)))
    cache.admit(entry_of("b", text="3 lights", vector=near(0.6)))
    cache.admit(entry_of("c", text="3 lights", vector=near(0.5)))
    found = cache.nearest(key_of("scope"), "3 lights", unit(1), encoder=ENCODER)
    assert [refused.reason for refused in found.refused] == ["numbers", "similarity"]
    assert (found.entry, found.refusal) == (None, "numbers")
    assert found.similarity == pytest.approx(0.99, abs=1e-3)


def test_max_age(cache: Cache, clock: FakeClock) -> None:
    cache.admit(entry_of("a", created_s=clock.time()))
    clock.advance(100)
    assert find(cache, entry_of("a"), max_age_s=100).entry is not None
    assert find(cache, entry_of("a"), max_age_s=99).refusal == "age"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"scope": key_of("other")}, "scope"),
        ({"encoder": "another"}, "encoder"),
        ({"text": "what is not a"}, "negation"),
        ({"vector": -vector_of("a")}, "similarity"),
        ({"vector": None}, ""),
        ({"vector": vector_of("a", dim=DIM * 2)}, ""),
    ],
)
def test_a_neighbour_that_another_process_has_changed(
    cache: Cache, store: CountingStore, changes: dict[str, Any], refusal: str
) -> None:
    cache.admit(entry_of("a"))
    store.put(key_of("a"), encode_entry(entry_of("a", **changes)))  # and this process has not followed yet
    found = find(cache, entry_of("a"))
    assert found.refusal == refusal
    assert (found.entry is None) == bool(refusal)


def test_a_text_longer_than_a_window_is_not_encoded_again(cache: Cache) -> None:
    cache.admit(entry_of("short"))
    cache.admit(entry_of("long", seen_chars=3))  # its scope holds the rest of its text
    assert [entry.key for entry in cache.lacking("encoder@2")] == [key_of("short")]
    assert list(cache.lacking(ENCODER)) == []


def test_another_encoder_begins_anew(cache: Cache) -> None:
    cache.admit(entry_of("a"))
    cache.admit(entry_of("b"))
    assert find(cache, entry_of("a")).entry is not None
    other = entry_of("c", encoder="encoder@2", vector=vector_of("c", dim=DIM * 2))
    assert find(cache, other).entry is None
    cache.admit(other)
    assert find(cache, other).entry is not None
    assert cache.stats().encoder == "encoder@2"
    assert cache.stats().vectors == 1
    assert [entry.key for entry in cache.lacking("encoder@2")] == [key_of("a"), key_of("b")]
    assert find(cache, entry_of("a")).entry is not None  # and back again: read from the store


def test_a_lookup_while_another_thread_turns_to_another_encoder(cache: Cache) -> None:
    cache.admit(entry_of("a"))
    with cache._upkeep.writing:
        assert find(cache, entry_of("a")).entry is not None
        assert find(cache, entry_of("a", encoder="encoder@2")) == Lookup()


def test_vectors_that_are_none(cache: Cache) -> None:
    assert cache.admit(entry_of("a", vector=np.zeros(DIM, np.float32)))
    assert cache.get(key_of("a")) is not None
    assert cache.stats().vectors == 0
    assert "left out of the index" in cache.stats().problems[0]
    for number in range(20):
        cache.admit(entry_of("a", vector=np.full(DIM, number + 2, np.float32)))
    assert len(cache.stats().problems) == 8
    with pytest.raises(CacheError):
        cache.nearest(key_of("scope"), "text", np.zeros(DIM, np.float32), encoder=ENCODER)


def test_a_vector_that_becomes_none(cache: Cache, store: CountingStore) -> None:
    cache.admit(entry_of("a"))
    cache.admit(entry_of("b"))
    nothing = np.full(DIM, np.nan, np.float32)
    store.put(key_of("a"), encode_entry(entry_of("a", vector=nothing)))
    assert find(cache, entry_of("a")).refusal == "similarity"
    cache.admit(entry_of("b", vector=nothing))
    assert find(cache, entry_of("b")).entry is None
    assert cache.stats().vectors == 0
    assert cache.check().findings == ("2 record(s) cannot be read",)


def test_without_text_or_vector_only_the_key_counts(cache: Cache) -> None:
    cache.admit(entry_of("a", text=""))
    cache.admit(entry_of("b", vector=None, encoder=""))
    assert cache.stats().vectors == 0
    assert cache.get(key_of("a")) is not None


def test_exact_only() -> None:
    cache = new_cache(new_index=None, problems=["faiss is missing"])
    cache.admit(entry_of("a"))
    assert cache.get(key_of("a")) is not None
    assert find(cache, entry_of("a")) == Lookup()
    assert cache.stats().problems == ("faiss is missing",)
    assert cache.check(repair=True).is_clean


def missing(_: int) -> FaissIndex:
    raise MissingDependencyError("faiss is missing")


@pytest.mark.parametrize(
    "verb",
    [lambda cache: cache.open(), lambda cache: find(cache, entry_of("a")), lambda cache: cache.admit(entry_of("a"))],
)
def test_a_library_that_turns_out_to_be_missing(verb: Callable[[Cache], object]) -> None:
    cache = new_cache(new_index=missing)
    verb(cache)
    assert cache.admit(entry_of("a"))
    assert find(cache, entry_of("a")) == Lookup()
    assert cache.stats().problems == ("faiss is missing",)
