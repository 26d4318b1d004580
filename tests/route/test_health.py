from __future__ import annotations

import gc
import threading

import pytest

from llm_proxy.route.health import Health
from llm_proxy.testing import FakeClock

ONE, OTHER = ("cloud", "one"), ("cloud", "other")


class Sent:
    """A call under way."""


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock.monotonic)

    def end(self, *outcomes: bool | None, candidate: tuple[str, str] = ONE, every_s: float = 1.0) -> float:
        """Let calls end one by one; returns for how long the candidate then rests."""
        for is_well in outcomes:
            self.clock.advance(every_s)
            self.health.ended(*candidate, Sent(), is_well=is_well)
        return self.health.resting_s(*candidate)


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestResting:
    @pytest.mark.parametrize(
        ("outcomes", "expected"),
        [
            ([], 0.0),
            ([False, False], 0.0),
            ([False, False, False], 30.0),
            ([False, False, False, False], 30.0),
            ([False, False, True, False, False], 0.0),
            ([False, None, False, None, False], 30.0),
            ([False, False, False, True], 0.0),
            ([False, False, False, None], 29.0),
            ([None] * 9, 0.0),
        ],
    )
    def test_after_three_failures_in_a_row(self, bench: Bench, outcomes: list[bool | None], expected: float) -> None:
        assert bench.end(*outcomes) == expected

    def test_it_ends_by_itself(self, bench: Bench) -> None:
        bench.end(False, False, False)
        bench.clock.advance(29.5)
        assert bench.health.resting_s(*ONE) == 0.5
        bench.clock.advance(0.5)
        assert bench.health.resting_s(*ONE) == 0.0

    def test_one_more_failure_afterwards_is_enough(self, bench: Bench) -> None:
        bench.end(False, False, False)
        assert bench.end(False, every_s=40.0) == 30.0

    def test_one_call_probes_it_afterwards(self, bench: Bench) -> None:
        bench.end(False, False, False)
        bench.clock.advance(30.0)
        call = Sent()
        bench.health.began("cloud", call, model="one")
        assert bench.health.resting_s(*ONE) == 30.0
        bench.health.ended(*ONE, call, is_well=True)
        assert bench.health.resting_s(*ONE) == 0.0

    @pytest.mark.parametrize(("every_s", "expected"), [(15.0, 30.0), (15.5, 0.0)])
    def test_failures_far_apart_are_no_row(self, bench: Bench, every_s: float, expected: float) -> None:
        assert bench.end(False, False, False, every_s=every_s) == expected

    def test_of_its_own_failures(self, bench: Bench) -> None:
        bench.end(False, False, False)
        assert bench.health.resting_s(*OTHER) == 0.0
        bench.end(False, False, candidate=OTHER)
        assert bench.health.resting_s(*OTHER) == 0.0

    def test_memory_is_bounded(self, bench: Bench) -> None:
        for number in range(3_000):
            bench.health.ended("cloud", f"m{number}", Sent(), is_well=False)
        assert len(bench.health._breakers) == 1_024


class TestUnderWay:
    def test_from_its_beginning_to_its_end(self, bench: Bench) -> None:
        calls = [Sent() for _ in range(3)]
        for call in calls:
            bench.health.began("cloud", call)
        assert (bench.health.under_way("cloud"), bench.health.under_way("local")) == (3, 0)
        bench.health.ended(*ONE, calls[0], is_well=None)
        bench.health.ended(*ONE, calls[0], is_well=None)
        assert bench.health.under_way("cloud") == 2

    def test_a_call_that_nobody_holds_is_over(self, bench: Bench) -> None:
        bench.health.began("cloud", Sent())
        gc.collect()
        assert bench.health.under_way("cloud") == 0

    def test_threads(self, bench: Bench) -> None:
        def work() -> None:
            for _ in range(300):
                call = Sent()
                bench.health.began("cloud", call)
                bench.health.under_way("cloud")
                bench.health.ended(*ONE, call, is_well=True)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert bench.health.under_way("cloud") == 0


def test_a_long_name_is_not_kept() -> None:
    bench, pair = Bench(), ("cloud", "m" * 1_000_000)
    assert bench.end(False, False, False, candidate=pair) > 0.0
    assert [len(model) for _, model in bench.health._breakers._states] == [200]
    bench.clock.advance(1_000.0)
    bench.health.began("cloud", Sent(), model=pair[1])
    assert bench.end(True, candidate=pair) == 0.0
    assert not bench.health._breakers._states
