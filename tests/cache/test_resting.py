"""A cache that fails is left alone for a while, and is asked again afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_proxy.cache.base import AnswerCache, Attachable
from llm_proxy.cache.evidence import Observation
from llm_proxy.cache.resting import RestingCache
from llm_proxy.cache.results import Lookup
from llm_proxy.cache.turns import NO_TURNS
from llm_proxy.errors import CacheCorruptError, CacheError
from llm_proxy.testing import FakeClock

from .helpers import ENCODER, entry_of, key_of, new_cache, vector_of

SEEN = Observation(1.0, 0.97, None, True, "shadow")


class Sick:
    """A cache whose every verb fails while it is ill."""

    def __init__(self) -> None:
        self.cache = new_cache()
        self.error: Exception | None = None
        self.calls = 0

    @property
    def is_open(self) -> bool:
        return self.error is None

    @property
    def state(self) -> str:
        return "ok"

    def __getattr__(self, name: str) -> Any:
        def verb(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.error is not None:
                raise self.error
            return getattr(self.cache, name)(*args, **kwargs)

        return verb


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sick() -> Sick:
    return Sick()


@pytest.fixture
def resting(sick: Sick, clock: FakeClock) -> RestingCache:
    return RestingCache(sick, monotonic=clock.monotonic, rest_s=5.0)  # type: ignore[arg-type]


def test_a_well_cache_is_asked(resting: RestingCache) -> None:
    entry = entry_of("a", vector=None, encoder="")
    assert resting.admit(entry)
    vector = vector_of("a")
    assert resting.attach(entry.key, scope=entry.scope, vector=vector, encoder=ENCODER, seen_chars=9)
    resting.hit(entry.key)
    found = resting.get(entry.key)
    assert found is not None
    assert found.text == entry.text
    near = resting.nearest(entry.scope, entry.text, vector, encoder=ENCODER, max_age_s=None, turns=NO_TURNS)
    assert near.entry is not None
    assert resting.observe(entry.key, SEEN)


@pytest.mark.parametrize(
    ("verb", "nothing"),
    [
        (lambda cache: cache.get(key_of("a")), None),
        (lambda cache: cache.admit(entry_of("a")), False),
        (
            lambda cache: cache.attach(key_of("a"), scope="", vector=vector_of("a"), encoder=ENCODER, seen_chars=1),
            False,
        ),
        (lambda cache: cache.tend(), None),
        (lambda cache: cache.open_store(), None),
        (
            lambda cache: cache.nearest("", "", vector_of("a"), encoder=ENCODER, max_age_s=None, turns=NO_TURNS),
            Lookup(),
        ),
    ],
    ids=["get", "admit", "attach", "tend", "open", "nearest"],
)
def test_an_error_is_raised_once_and_then_there_is_nothing(
    resting: RestingCache, sick: Sick, clock: FakeClock, verb: Callable[[Any], Any], nothing: Any
) -> None:
    sick.error = CacheError("the disk is full")
    with pytest.raises(CacheError, match="disk is full"):
        verb(resting)
    assert resting.is_resting
    assert verb(resting) == nothing
    assert sick.calls == 1
    clock.advance(5.0)
    assert not resting.is_resting
    with pytest.raises(CacheError):
        verb(resting)
    assert sick.calls == 2


def test_what_the_engine_asks_of_a_cache(resting: RestingCache) -> None:
    asked = [name for name in vars(AnswerCache) | vars(Attachable) if not name.startswith("_")]
    assert [name for name in asked if not hasattr(RestingCache, name)] == []
    found: AnswerCache = resting
    assert found.is_open


def test_its_state(resting: RestingCache, sick: Sick, clock: FakeClock) -> None:
    assert (resting.state, resting.is_open) == ("ok", True)
    sick.error = CacheError("the disk is full")
    with pytest.raises(CacheError):
        resting.get(key_of("a"))
    assert (resting.state, resting.is_open, resting.hit(key_of("a"))) == ("failing", True, False)
    clock.advance(5.0)
    assert resting.state == "failing", "until it works again"
    sick.error = None
    resting.tend()
    assert resting.state == "ok"
    resting.note_timeout()
    assert (resting.state, resting.is_resting, sick.calls) == ("failing", True, 2)
    clock.advance(5.0)
    calls = sick.calls
    resting.hit(key_of("a"))
    assert sick.calls == calls + 1


def test_one_damaged_record_is_no_reason_to_rest(resting: RestingCache, sick: Sick) -> None:
    sick.error = CacheCorruptError("this record is cut")
    with pytest.raises(CacheCorruptError):
        resting.get(key_of("a"))
    assert not resting.is_resting


def test_what_is_found_out_is_never_lost_without_a_word(resting: RestingCache, sick: Sick) -> None:
    sick.error = CacheError("the disk is full")
    with pytest.raises(CacheError, match="disk is full"):
        resting.observe(key_of("a"), SEEN)
    with pytest.raises(CacheError, match="left alone for some seconds"):
        resting.observe(key_of("a"), SEEN)
    assert sick.calls == 1
