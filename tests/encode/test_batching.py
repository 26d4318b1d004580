"""Texts that come together are run together: none is lost, each gets its own vector, a batch that fails is undone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.encode import batching
from llm_proxy.encode.batching import MOST_TEXTS, MOST_TOKENS, Batcher, taken
from llm_proxy.errors import CacheError

_LONG_S = 20.0


class Runs:
    """Results are sums of rows; the first run waits until it may go on."""

    def __init__(self, *, holds_first: bool = False) -> None:
        self.batches: list[list[list[int]]] = []
        self.bad: set[int] = set()
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        if not holds_first:
            self.may_go_on.set()
        self.lock = threading.Lock()

    def __call__(self, rows: Sequence[list[int]]) -> list[int]:
        with self.lock:
            self.batches.append([list(row) for row in rows])
        self.begun.set()
        assert self.may_go_on.wait(_LONG_S)
        if any(row[0] in self.bad for row in rows):
            raise CacheError("no memory")
        return [sum(row) for row in rows]


class TestTaken:
    @given(st.lists(st.integers(1, 600), min_size=1, max_size=300))
    def test_the_oldest_first_and_within_the_bounds(self, lengths: list[int]) -> None:
        places = taken(lengths)
        assert places[0] == 0
        assert places == sorted(set(places))
        assert len(places) <= MOST_TEXTS
        longest = max(lengths[place] for place in places)
        assert longest <= max(16, 2 * min(lengths[place] for place in places))
        assert len(places) == 1 or len(places) * longest <= MOST_TOKENS

    def test_only_texts_of_like_length(self) -> None:
        assert taken([10, 256, 16, 17, 1]) == [0, 2, 4]
        assert taken([200, 10, 256, 129, 128]) == [0, 2, 3]

    def test_no_more_tokens_than_fit(self) -> None:
        assert len(taken([256] * 100)) == MOST_TOKENS // 256
        assert len(taken([16] * 100)) == MOST_TEXTS
        assert taken([MOST_TOKENS + 1] * 2) == [0]


class TestBatcher:
    def test_an_idle_one_runs_at_once(self) -> None:
        runs = Runs()
        batcher = Batcher(runs)
        assert [batcher([n, 1]) for n in range(3)] == [1, 2, 3]
        assert runs.batches == [[[0, 1]], [[1, 1]], [[2, 1]]]

    def test_what_comes_during_a_run_goes_together(self) -> None:
        runs = Runs(holds_first=True)
        batcher = Batcher(runs)
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(batcher, [100])
            assert runs.begun.wait(_LONG_S)
            rest = [pool.submit(batcher, [n, n]) for n in range(8)]
            self.until(lambda: len(batcher._waiting) == 8)
            runs.may_go_on.set()
            assert first.result(_LONG_S) == 100
            assert [one.result(_LONG_S) for one in rest] == [2 * n for n in range(8)]
        assert runs.batches[0] == [[100]]
        assert sorted(runs.batches[1]) == [[n, n] for n in range(8)]
        assert len(runs.batches) == 2

    def test_a_batch_that_fails_is_run_one_by_one(self) -> None:
        runs = Runs(holds_first=True)
        runs.bad = {3}
        batcher = Batcher(runs)
        with ThreadPoolExecutor(7) as pool:
            pool.submit(batcher, [100])
            assert runs.begun.wait(_LONG_S)
            rest = {n: pool.submit(batcher, [n]) for n in range(6)}
            self.until(lambda: len(batcher._waiting) == 6)
            runs.may_go_on.set()
            for n, one in rest.items():
                if n == 3:
                    with pytest.raises(CacheError, match="no memory"):
                        one.result(_LONG_S)
                else:
                    assert one.result(_LONG_S) == n
        assert batcher([5]) == 5, "and goes on"

    def test_results_that_are_too_few_are_nobody_s(self) -> None:
        runs = Runs(holds_first=True)

        def forgetful(rows: Sequence[list[int]]) -> list[int]:
            return runs(rows)[: 1 if len(rows) > 1 else None]

        batcher = Batcher(forgetful)
        with ThreadPoolExecutor(4) as pool:
            pool.submit(batcher, [100])
            assert runs.begun.wait(_LONG_S)
            rest = [pool.submit(batcher, [n]) for n in range(3)]
            self.until(lambda: len(batcher._waiting) == 3)
            runs.may_go_on.set()
            assert [one.result(_LONG_S) for one in rest] == [0, 1, 2]

    @given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=70), min_size=1, max_size=40), st.integers(1, 8))
    @settings(max_examples=25, deadline=None)
    def test_everybody_gets_their_own(self, rows: list[list[int]], threads: int) -> None:
        runs = Runs()
        runs.bad = {50}
        batcher = Batcher(runs)

        def call(row: list[int]) -> int:
            try:
                return batcher(row)
            except CacheError:
                return -1

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(call, rows))
        assert found == [-1 if row[0] == 50 else sum(row) for row in rows]
        assert not batcher._waiting
        assert not batcher._is_running

    def test_a_leader_that_is_interrupted_wakes_the_others(self) -> None:
        runs = Runs(holds_first=True)
        interrupted = threading.Event()

        def run(rows: Sequence[list[int]]) -> list[int]:
            found = runs(rows)
            if len(rows) > 1 and not interrupted.is_set():
                interrupted.set()
                raise KeyboardInterrupt
            return found

        batcher = Batcher(run)
        outcomes: list[object] = []

        def call(n: int) -> None:
            try:
                outcomes.append(batcher([n]))
            except KeyboardInterrupt:
                outcomes.append("interrupted")

        threads = [threading.Thread(target=call, args=(n,)) for n in range(5)]
        threads[0].start()
        assert runs.begun.wait(_LONG_S)
        for thread in threads[1:]:
            thread.start()
        self.until(lambda: len(batcher._waiting) == 4)
        runs.may_go_on.set()
        for thread in threads:
            thread.join(_LONG_S)
        assert outcomes.count("interrupted") == 1
        assert len(outcomes) == 5
        assert batcher([9]) == 9

    @pytest.mark.parametrize("has_been_chosen", [False, True])
    def test_one_that_is_interrupted_while_it_waits(
        self, monkeypatch: pytest.MonkeyPatch, has_been_chosen: bool
    ) -> None:
        runs = Runs()
        batcher = Batcher(runs)
        batcher._is_running = True

        def wait(self: threading.Event, timeout: float | None = None) -> bool:
            if has_been_chosen:
                batcher._hand_on()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(batching, "Event", type("Interrupted", (), {"wait": wait, "set": lambda self: None}))
            with pytest.raises(KeyboardInterrupt):
                batcher([1])
        assert batcher._waiting == []
        assert batcher._is_running is not has_been_chosen, "leadership goes on, or to nobody"

    def test_nobody_waits_for_a_leader_that_has_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "_PATIENCE_S", 0.01)
        batcher = Batcher(Runs())
        batcher._is_running = True  # as by a thread that was interrupted before it led
        assert batcher([1]) == 1
        assert not batcher._is_running

    def test_one_whose_batch_takes_long_goes_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = Runs()
        batcher = Batcher(runs)
        batcher._is_running = True

        def wait(self: threading.Event, timeout: float | None = None) -> bool:
            batcher._waiting.clear()  # a leader takes it, and its run does not end
            return False

        monkeypatch.setattr(batching, "Event", type("Slow", (), {"wait": wait, "set": lambda self: None}))
        assert batcher([2]) == 2
        assert batcher._is_running, "somebody else leads"

    def test_a_child_forgets_the_parent_s_callers(self) -> None:
        batcher = Batcher(Runs())
        batcher._is_running = True
        batcher.after_fork()
        assert batcher([4]) == 4

    @staticmethod
    def until(is_so: Callable[[], bool]) -> None:
        tick, left = threading.Event(), _LONG_S
        while not is_so():
            assert left > 0
            tick.wait(0.005)
            left -= 0.005
