from __future__ import annotations

import threading

import pytest

from llm_proxy.backends.breaker import Breakers
from llm_proxy.testing import FakeClock

ONE = ("cloud", "one")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breakers(clock: FakeClock) -> Breakers:
    return Breakers(clock.monotonic)


def opened(breakers: Breakers, times: int = 3) -> None:
    for _ in range(times):
        breakers.failed(ONE)


def test_nothing_is_known_at_first(breakers: Breakers) -> None:
    for verb in (breakers.began, breakers.answered, breakers.let_go):
        verb(ONE)
    assert (breakers.resting_s(ONE), len(breakers)) == (0.0, 0)


def test_three_in_a_row_open_it(breakers: Breakers) -> None:
    opened(breakers, 2)
    assert breakers.resting_s(ONE) == 0.0
    opened(breakers, 1)
    assert (breakers.resting_s(ONE), breakers.resting_s(("cloud", "other"))) == (30.0, 0.0)


def test_half_of_ten_open_it(breakers: Breakers, clock: FakeClock) -> None:
    found = []
    for _ in range(5):
        breakers.failed(ONE)
        found.append(breakers.resting_s(ONE))
        breakers.answered(ONE)
        clock.advance(1.0)
    assert found == [0.0] * 5, "nine calls are too few"
    breakers.failed(ONE)
    assert breakers.resting_s(ONE) == 30.0


def test_of_long_ago_nothing_counts(breakers: Breakers, clock: FakeClock) -> None:
    for _ in range(6):
        breakers.failed(ONE)
        breakers.answered(ONE)
        clock.advance(20.0)
    assert breakers.resting_s(ONE) == 0.0


def test_no_connection_opens_it_at_once_and_longer_each_time(breakers: Breakers, clock: FakeClock) -> None:
    found = []
    for _ in range(6):
        breakers.failed(ONE, is_refused=True)
        found.append(breakers.resting_s(ONE))
        breakers.failed(ONE, is_refused=True)  # was under way meanwhile
        clock.advance(found[-1])
        breakers.began(ONE)
    assert found == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_what_the_backend_asks_for(breakers: Breakers) -> None:
    breakers.failed(ONE, asked_s=12.0)
    assert breakers.resting_s(ONE) == 12.0
    breakers.failed(ONE, asked_s=3600.0)
    assert breakers.resting_s(ONE) == 60.0


class TestHalfOpen:
    def test_one_probe(self, breakers: Breakers, clock: FakeClock) -> None:
        opened(breakers)
        breakers.began(ONE)
        clock.advance(29.0)
        assert breakers.resting_s(ONE) == 1.0, "who is sent while it rests is no probe"
        clock.advance(1.0)
        assert breakers.resting_s(ONE) == 0.0
        breakers.began(ONE)
        assert breakers.resting_s(ONE) == 30.0

    def test_it_answers(self, breakers: Breakers, clock: FakeClock) -> None:
        opened(breakers)
        clock.advance(30.0)
        breakers.began(ONE)
        breakers.answered(ONE)
        assert (breakers.resting_s(ONE), len(breakers)) == (0.0, 0)

    def test_it_fails(self, breakers: Breakers, clock: FakeClock) -> None:
        opened(breakers)
        clock.advance(30.0)
        breakers.began(ONE)
        breakers.failed(ONE)
        assert breakers.resting_s(ONE) == 30.0

    def test_it_says_nothing(self, breakers: Breakers, clock: FakeClock) -> None:
        opened(breakers)
        clock.advance(30.0)
        breakers.began(ONE)
        breakers.let_go(ONE)
        assert breakers.resting_s(ONE) == 0.0

    def test_it_never_comes_back(self, breakers: Breakers, clock: FakeClock) -> None:
        opened(breakers)
        clock.advance(30.0)
        breakers.began(ONE)
        clock.advance(30.0)
        assert breakers.resting_s(ONE) == 0.0


def test_answers_alone_are_forgotten(breakers: Breakers) -> None:
    breakers.failed(ONE)
    breakers.answered(("cloud", "other"))
    breakers.let_go(("cloud", "other"))
    for _ in range(20):
        breakers.answered(ONE)
    assert len(breakers) == 0


def test_memory_is_bounded(breakers: Breakers) -> None:
    for number in range(3_000):
        breakers.failed(("cloud", f"m{number}"))
    assert len(breakers) == 1_024


def test_threads(breakers: Breakers) -> None:
    def work() -> None:
        for _ in range(300):
            breakers.failed(ONE)
            breakers.began(ONE)
            breakers.resting_s(ONE)
            breakers.answered(ONE)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    breakers.answered(ONE)
    assert breakers.resting_s(ONE) == 0.0
