from __future__ import annotations

import threading

import pytest

from llm_proxy.route.sessions import Sessions, Stay
from llm_proxy.testing import FakeClock

MINI, BIG = ("cloud", "mini"), ("cloud", "big")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        self.sessions = Sessions(monotonic=self.clock.monotonic)

    def cached(self, conversation: str = "c") -> dict[tuple[str, str], int]:
        stay = self.sessions.current(conversation)
        assert stay is not None
        return self.sessions.cached_tokens(stay)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_conversation_is_where_its_last_call_went(bench: Bench) -> None:
    assert bench.sessions.current("c") is None
    bench.sessions.note("c", MINI, 5, {})
    bench.sessions.note("d", BIG, 6, {})
    bench.clock.advance(1)
    bench.sessions.note("c", BIG, 7, {MINI: 0.5})
    assert bench.sessions.current("c") == Stay(BIG, ((BIG, 7, 101.0), (MINI, 5, 100.0)), {MINI: 0.5})
    assert bench.sessions.current("d") == Stay(BIG, ((BIG, 6, 100.0),), {})


@pytest.mark.parametrize(
    ("tokens", "after_s", "expected"),
    [(1_023, 0, {}), (1_024, 0, {MINI: 1_024}), (5_000, 300, {MINI: 5_000}), (5_000, 301, {})],
)
def test_what_the_provider_has_cached(
    bench: Bench, tokens: int, after_s: float, expected: dict[tuple[str, str], int]
) -> None:
    bench.sessions.note("c", MINI, tokens, {})
    bench.clock.advance(after_s)
    assert bench.cached() == expected


def test_each_model_has_cached_what_it_read_itself(bench: Bench) -> None:
    bench.sessions.note("c", MINI, 2_000, {})
    bench.clock.advance(200)
    bench.sessions.note("c", BIG, 3_000, {})
    assert bench.cached() == {MINI: 2_000, BIG: 3_000}
    bench.sessions.note("c", MINI, 4_000, {})
    assert bench.cached() == {MINI: 4_000, BIG: 3_000}
    bench.clock.advance(101)
    bench.sessions.note("c", BIG, 5_000, {})
    bench.clock.advance(200)
    assert bench.cached() == {BIG: 5_000}


def test_the_last_four_models_are_remembered(bench: Bench) -> None:
    for number in range(6):
        bench.sessions.note("c", ("cloud", f"m{number}"), 2_000, {})
    assert [model for _, model in bench.cached()] == ["m5", "m4", "m3", "m2"]


def test_the_one_that_rested_longest_is_forgotten() -> None:
    sessions = Sessions(most=2)
    for name in ("a", "b", "a", "c"):
        sessions.note(name, MINI, 1, {})
    assert len(sessions) == 2
    assert sessions.current("b") is None
    assert sessions.current("a") is not None


def test_memory_is_bounded_and_threads_may_share_it() -> None:
    sessions = Sessions()

    def work(first: int) -> None:
        for number in range(first, first + 4_000):
            sessions.note(number, MINI, 1, {})

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 4_000, 8_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(sessions) == 10_000
