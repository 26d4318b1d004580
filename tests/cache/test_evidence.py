"""Observations, what follows from them, and the limits of an error rate."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.cache.cache import Cache
from llm_proxy.cache.evidence import (
    MARGIN,
    MOST_OBSERVATIONS,
    OUTWEIGHED_BY,
    SURE,
    Observation,
    decode_evidence,
    encode_evidence,
    interval,
    is_against,
    upper_limit,
    with_observation,
)
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.errors import CacheCorruptError, CacheError

from .helpers import CountingStore, entry_of, find, key_of, new_cache, unit


def seen(similarity: float, is_same: bool, **changes: Any) -> Observation:
    values: dict[str, Any] = {"at_s": 1.0, "p_same": None, "source": "shadow", **changes}
    return Observation(similarity=similarity, is_same=is_same, **values)


# -- limits ------------------------------------------------------------------------------------------------------


def tail(wrong: int, checked: int, rate: float) -> float:
    """Probability of at most so many errors, in exact arithmetic."""
    exact = Fraction(rate)
    return float(sum(comb(checked, k) * exact**k * (1 - exact) ** (checked - k) for k in range(wrong + 1)))


# Clopper and Pearson's limits as published in tables and by R's binom.test.
@pytest.mark.parametrize(
    ("wrong", "checked", "low", "high"),
    [
        (0, 10, 0.0, 0.30850),
        (1, 10, 0.00253, 0.44502),
        (5, 10, 0.18709, 0.81291),
        (10, 10, 0.69150, 1.0),
        (0, 312, 0.0, 0.01175),
        (3, 1000, 0.00062, 0.00874),
    ],
)
def test_the_interval(wrong: int, checked: int, low: float, high: float) -> None:
    assert interval(wrong, checked) == pytest.approx((low, high), abs=1e-5)


def test_nothing_checked_says_nothing() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert upper_limit(0, 0) == 1.0


def test_no_error_so_far() -> None:
    assert upper_limit(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda checked: st.tuples(st.integers(0, checked - 1), st.just(checked))))
def test_the_limit_is_where_so_few_errors_become_unlikely(counts: tuple[int, int]) -> None:
    wrong, checked = counts
    limit = upper_limit(wrong, checked)
    assert wrong / checked < limit <= 1
    assert tail(wrong, checked, limit) == pytest.approx(0.05, rel=1e-6)


def test_large_counts() -> None:
    low, high = interval(20_000, 4_000_000)
    assert low < 0.005 < high
    assert high - low == pytest.approx(2 * 1.96 * (0.005 * 0.995 / 4e6) ** 0.5, rel=0.01)


# -- the rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("similarity", "is_forbidden"), [(0.95, True), (0.96, True), (0.96 + MARGIN, True), (0.96 + MARGIN + 1e-6, False)]
)
def test_after_a_wrong_answer(similarity: float, is_forbidden: bool) -> None:
    assert is_against(similarity, (seen(0.96, False),)) is is_forbidden
    assert not is_against(similarity, ())


def test_a_wrong_answer_of_which_the_guard_had_warned_forbids_nothing() -> None:
    assert is_against(0.9, (seen(0.96, False, p_same=SURE),))
    assert not is_against(0.9, (seen(0.96, False, p_same=SURE - 0.01),))


def test_later_right_answers_outweigh_it() -> None:
    wrong, right = seen(0.96, False), seen(0.96, True)
    enough = (wrong, *[right] * OUTWEIGHED_BY)
    assert is_against(0.96, enough[:-1])
    assert not is_against(0.96, enough)
    assert is_against(0.96, (*[right] * OUTWEIGHED_BY, wrong)), "earlier ones do not"
    assert is_against(0.96, (wrong, wrong, *[right] * (2 * OUTWEIGHED_BY - 1)))


def test_right_answers_to_nearer_questions_outweigh_nothing() -> None:
    nearer = seen(0.96 + 2 * MARGIN, True)
    assert is_against(0.96, (seen(0.96, False), *[nearer] * OUTWEIGHED_BY))


# -- bytes -------------------------------------------------------------------------------------------------------

OBSERVATIONS = st.builds(
    Observation,
    at_s=st.integers(0, 2_000_000_000).map(float),
    similarity=st.integers(-1000, 1000).map(lambda thousandth: thousandth / 1000),
    p_same=st.none() | st.integers(0, 1000).map(lambda thousandth: thousandth / 1000),
    is_same=st.booleans(),
    source=st.sampled_from(["shadow", "undo", "explore"]),
)


@given(st.lists(OBSERVATIONS, max_size=MOST_OBSERVATIONS).map(tuple))
def test_what_is_written_is_read(evidence: tuple[Observation, ...]) -> None:
    data = encode_evidence(evidence)
    assert decode_evidence(data) == evidence
    assert len(data) <= 2 + 64 * len(evidence)


def test_no_bytes_are_no_evidence() -> None:
    assert decode_evidence(b"") == ()


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"\xff", b"1", b"[1]", b"[[1, 0.9, null, 1]]", b'[["1", 0.9, null, 1, "undo"]]',
        b'[[1, NaN, null, 1, "undo"]]', b'[[1, 0.9, "x", 1, "undo"]]', b'[[1, 0.9, null, 2, "undo"]]',
        b'[[1, 0.9, null, 1, "guess"]]', b'[[1, 0.9, null, 1, []]]', b"[" * 100_000,
        b"[" + b", ".join([b'[1, 0.9, null, 1, "undo"]'] * 1_000) + b"]",
        b"[[1" + b"0" * 400 + b', 0.9, null, 1, "undo"]]',
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(CacheCorruptError, match="can't be read"):
        decode_evidence(data)


def test_the_oldest_go() -> None:
    evidence: tuple[Observation, ...] = ()
    for number in range(MOST_OBSERVATIONS + 3):
        evidence = with_observation(evidence, seen(0.9, True, at_s=float(number)))
    assert [one.at_s for one in evidence] == [float(number) for number in range(3, MOST_OBSERVATIONS + 3)]


def test_right_ones_never_push_out_a_wrong_one() -> None:
    evidence: tuple[Observation, ...] = (seen(0.9, True), seen(0.95, False))
    for number in range(2 * MOST_OBSERVATIONS):
        evidence = with_observation(evidence, seen(0.99, True, at_s=float(number)))
    assert evidence[0] == seen(0.95, False)
    assert (len(evidence), evidence[-1].at_s) == (MOST_OBSERVATIONS, 2.0 * MOST_OBSERVATIONS - 1)
    wrong = [seen(0.9, False, at_s=float(number)) for number in range(MOST_OBSERVATIONS)]
    assert with_observation(tuple(wrong), seen(0.8, False))[0].at_s == 1.0, "of wrong ones alone the oldest goes"


# -- in the cache ------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def cache(store: CountingStore) -> Cache:
    cache = new_cache(store)
    cache.admit(entry_of("a", vector=unit(1.0), text="what is it"))
    return cache


QUESTION = entry_of("q", vector=unit(1.0, 0.2), text="what is it")
SIMILARITY = pytest.approx(0.98058, abs=1e-5)


def test_a_hit_says_what_guard_and_evidence_say(cache: Cache) -> None:
    first = find(cache, QUESTION).weighed.decision.p_wrong
    assert 0 < first <= 0.004, "what the guard says"
    assert cache.observe(key_of("a"), seen(0.97, True))
    found = find(cache, QUESTION)
    assert (found.entry.key, found.weighed.key) == (key_of("a"), key_of("a"))
    assert found.weighed.decision.p_wrong == first, "that it was right makes it no surer"
    assert cache.evidence(key_of("a")) == (seen(0.97, True),)


def test_wrong_answers_to_questions_further_away_make_it_unsure(cache: Cache) -> None:
    cache.observe(key_of("a"), seen(0.9, False, p_same=0.999))
    found = find(cache, QUESTION)
    assert (found.entry, found.refusal) == (None, "evidence")
    assert found.weighed.decision.p_wrong > 0.004


def test_a_wrong_hit_is_not_served_again(cache: Cache) -> None:
    cache.observe(key_of("a"), seen(0.97, False))
    found = find(cache, QUESTION)
    assert (found.entry, found.refusal, found.similarity) == (None, "evidence", SIMILARITY)
    assert (found.doubted.key, found.weighed.similarity) == (key_of("a"), SIMILARITY)
    own = entry_of("a", vector=unit(1.0), text="what is it")
    assert find(cache, own).entry is None, "the same text in other words is doubted with it"
    assert cache.get(key_of("a")) is not None, "its own question is served by key"


def test_the_next_neighbour_may_be_served(cache: Cache) -> None:
    cache.admit(entry_of("b", vector=unit(1.0, 0.5), text="what is it"))
    cache.admit(entry_of("c", vector=unit(1.0, 0.48), text="what is it not"))
    cache.observe(key_of("a"), seen(0.99, False))
    found = find(cache, QUESTION)
    assert (found.entry.key, found.doubted) == (key_of("b"), None)
    assert [(one.key, one.reason) for one in found.refused] == [
        (key_of("a"), "evidence"),
        (key_of("c"), "negation"),
    ]


def test_evidence_that_cannot_be_read_serves_nothing_and_is_written_anew(cache: Cache, store: CountingStore) -> None:
    store.put_evidence(key_of("a"), b"[")
    found = find(cache, QUESTION)
    assert (found.refusal, found.doubted.key) == ("evidence", key_of("a"))
    assert "can't be read" in str(found.damage)
    with pytest.raises(CacheCorruptError):
        cache.evidence(key_of("a"))
    assert cache.observe(key_of("a"), seen(0.97, True))
    assert find(cache, QUESTION).entry is not None


def test_no_evidence_of_what_is_not_there(cache: Cache) -> None:
    assert not cache.observe(key_of("z"), seen(0.97, False))
    assert cache.evidence(key_of("z")) == ()


def test_caches_share_it_through_the_store() -> None:
    store = MemoryStore()
    one, other = new_cache(store), new_cache(store)
    one.admit(entry_of("a", vector=unit(1.0), text="what is it"))
    other.open()
    assert find(other, QUESTION).entry is not None
    one.observe(key_of("a"), seen(0.98, False))
    assert find(other, QUESTION).refusal == "evidence"


def test_an_answer_that_is_asked_anew_keeps_it(cache: Cache) -> None:
    cache.observe(key_of("a"), seen(0.98, False))
    cache.admit(entry_of("a", vector=unit(1.0), text="what is it", completion=b'{"answer":"new"}'))
    assert find(cache, QUESTION).refusal == "evidence"


def test_the_budget_covers_it(tmp_path: Path) -> None:
    cache = new_cache(DiskStore(tmp_path), budget_bytes=1 << 20)
    for number in range(20):
        cache.admit(entry_of(number))
    cache.maintain()
    before = cache._upkeep.room_bytes
    for number in range(20):
        for _ in range(MOST_OBSERVATIONS):
            cache.observe(key_of(number), seen(0.971234, True, at_s=1_700_000_000.123, p_same=0.123456))
    cache.maintain()
    assert before - cache._upkeep.room_bytes > 20 * MOST_OBSERVATIONS * 40
    cache.close()


def test_a_closed_cache_takes_none(cache: Cache) -> None:
    cache.close()
    with pytest.raises(CacheError, match="closed"):
        cache.observe(key_of("a"), seen(0.97, True))


def test_check_finds_evidence_that_cannot_be_read_and_removes_its_entry(cache: Cache, store: CountingStore) -> None:
    store.put_evidence(key_of("a"), b"\xff[")
    assert cache.check().findings == ("1 entr(ies) have evidence that cannot be read",)
    assert cache.check(repair=True).findings == ("1 entr(ies) have evidence that cannot be read",)
    assert cache.check().findings == ()
    assert find(cache, QUESTION).entry is None
