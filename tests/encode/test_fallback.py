"""An accelerator that fails, or crawls, is left for the processor, and comes back after a rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from llm_proxy.encode.batching import Batcher
from llm_proxy.encode.fallback import FallbackGraph, Rest
from llm_proxy.encode.providers import Pace
from llm_proxy.errors import CacheError, ConfigError
from llm_proxy.testing import FakeClock

from .graphs import CPU, CUDA, FakeGraph

ROW = [7, 8, 9]
PACE = Pace((4, 20), (0.004, 0.02))


class Bench:
    """A graph that falls back, with all its parts in reach."""

    def __init__(self, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        self.clock = FakeClock()
        self.fast, self.processor = FakeGraph(CUDA, clock=self.clock), FakeGraph(CPU, clock=self.clock)
        self.noted, self.jobs = list[str](), list[Callable[[], None]]()
        self.starts = self.processor_starts = 0
        self.next: list[Any] = []
        self.graph = FallbackGraph(
            self.fast,
            start=self._start,
            processor=self._start_processor,
            compare=self._compare,
            pace=PACE,
            note=lambda part, exc: self.noted.append(f"{part}: {exc}"),
            later=later or self.jobs.append,
            monotonic=self.clock.monotonic,
        )

    def _start(self) -> FakeGraph:
        self.starts += 1
        found = self.next.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, FakeGraph)
        return found

    def _start_processor(self) -> FakeGraph:
        self.processor_starts += 1
        return self.processor

    @staticmethod
    def _compare(graph: Any, processor: Any) -> None:
        if not np.allclose(graph.run([ROW])[0], processor.run([ROW])[0]):
            raise CacheError("other vectors")

    def lose(self) -> None:
        """Have the accelerator fail, and leave it."""
        self.fast.fails_after = len(self.fast.batches)
        self.graph.run([ROW])

    def wait(self, seconds: float) -> int:
        """Let time pass, call once; how many jobs that began."""
        self.clock.advance(seconds)
        self.graph.run([ROW])
        return len(self.jobs)


class TestFailure:
    def test_the_processor_answers_the_call_in_hand_and_those_after(self) -> None:
        bench = Bench()
        bench.fast.fails_after = 2
        found = [bench.graph.run([[number, 1]])[1][0, 0] for number in range(6)]
        assert found == [0, 1, 2, 3, 4, 5]
        assert (len(bench.fast.batches), len(bench.processor.batches)) == (3, 4)
        assert (bench.graph.provider, bench.graph.is_accelerated) == (CPU, False)
        assert bench.noted == [f"encoder: {CUDA}: device lost; the processor encodes for 60 s"], "counted once"
        assert bench.processor_starts == 1

    def test_a_text_that_nobody_can_run_changes_nothing(self) -> None:
        bench = Bench()
        bench.fast.bad_rows = bench.processor.bad_rows = {13}
        with pytest.raises(CacheError, match="device lost"):
            bench.graph.run([[13]])
        assert (bench.graph.provider, bench.graph.is_accelerated, bench.noted) == (CUDA, True, [])

    def test_batches_lose_nothing_while_it_is_left(self) -> None:
        bench = Bench()
        bench.fast.fails_after = 9

        def run(rows: Any) -> list[float]:
            return [float(one[0]) for one in bench.graph.run(rows)[1]]

        batcher = Batcher(run)
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda number: batcher([number, 1, 2]), range(300)))
        assert found == list(range(300))
        assert (bench.graph.provider, len(bench.noted)) == (CPU, 1)

    def test_calls_that_fail_together_leave_it_once(self) -> None:
        bench = Bench()
        meet = threading.Barrier(6)
        run = bench.fast.run

        def fail(rows: Any) -> Any:
            meet.wait(10)
            bench.fast.fails_after = 0
            return run(rows)

        bench.fast.run = fail  # type: ignore[method-assign]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda number: bench.graph.run([[number]])[1][0, 0], range(6)))
        assert found == list(range(6))
        assert (len(bench.noted), bench.processor_starts) == (1, 1)


class TestSlowness:
    def test_fifty_slow_runs_in_a_row(self) -> None:
        bench = Bench()
        bench.fast.took_s = 0.004 * 3.1 / 3  # of three tokens, where the processor takes .004 s for up to four
        for _ in range(49):
            bench.graph.run([ROW])
        assert bench.graph.is_accelerated
        bench.graph.run([ROW])
        assert not bench.graph.is_accelerated
        assert bench.noted == [
            f"encoder: {CUDA}: 50 runs in a row took over 3 times as long as here; the processor encodes for 60 s"
        ]

    def test_a_quick_one_between_them_forgives(self) -> None:
        rest = Rest(PACE, FakeClock().monotonic)
        for _ in range(3):
            assert not any(rest.is_too_slow(4, 1.0) for _ in range(49))
            assert not rest.is_too_slow(4, 0.011)

    def test_longer_texts_may_take_longer(self) -> None:
        rest = Rest(PACE, FakeClock().monotonic)
        assert not any(rest.is_too_slow(20, 0.059) for _ in range(100))
        assert any(rest.is_too_slow(20, 0.061) for _ in range(50))


class TestReturn:
    def test_after_a_rest_with_a_session_that_is_tried_first(self) -> None:
        bench = Bench()
        bench.lose()
        assert bench.wait(59.9) == 0
        assert bench.wait(0.1) == 1
        assert bench.wait(100) == 1, "one at a time"
        again = FakeGraph(CUDA, clock=bench.clock)
        bench.next = [again]
        bench.jobs.pop()()
        bench.graph.run([[5]])
        assert (bench.graph.provider, again.batches) == (CUDA, [[ROW], [[5]]])
        assert len(bench.noted) == 1

    @pytest.mark.parametrize("trouble", ["start", "run", "vectors"])
    def test_what_still_does_not_work_rests_twice_as_long(self, trouble: str) -> None:
        bench = Bench()
        bench.lose()
        bench.wait(60)
        bad = FakeGraph(CUDA)
        bad.fails_after = 0 if trouble == "run" else float("inf")
        bad.turn = 1.0
        bench.next = [ConfigError("no driver") if trouble == "start" else bad]
        bench.jobs.pop()()
        assert bench.graph.provider == CPU
        assert bench.wait(119) == 0
        assert bench.wait(1) == 1
        bench.next = [FakeGraph(CUDA)]
        bench.jobs.pop()()
        assert bench.graph.provider == CUDA

    def test_rests_end_at_an_hour_and_begin_short_again(self) -> None:
        rest = Rest(PACE, FakeClock().monotonic)
        assert [rest.begin() for _ in range(8)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        rest.ended_well()
        assert rest.begin() == 60

    def test_an_error_that_is_a_mistake_ends_the_attempt_too(self) -> None:
        bench = Bench()
        bench.lose()
        bench.wait(60)
        bench.next = [TypeError("a mistake")]
        with pytest.raises(TypeError):
            bench.jobs.pop()()
        assert bench.graph.provider == CPU
        assert bench.wait(120) == 1

    def test_a_pool_that_is_closed(self) -> None:
        def closed(job: Callable[[], None]) -> None:
            raise RuntimeError("closed")

        bench = Bench(closed)
        bench.lose()
        bench.clock.advance(60)
        assert bench.graph.run([ROW])[1][0, 0] == 7


class TestFork:
    def test_a_child_stays_on_the_processor(self) -> None:
        bench = Bench()
        bench.graph.after_fork()
        assert bench.graph.run([ROW])[1][0, 0] == 7
        assert (bench.graph.provider, bench.fast.batches) == (CPU, [])
        assert bench.wait(100_000) == 0
        assert bench.noted == []
