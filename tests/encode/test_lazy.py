import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_proxy.config import EncoderConfig
from llm_proxy.encode.base import Encoder, Encoding
from llm_proxy.encode.lazy import LazyEncoder, build
from llm_proxy.errors import CacheError, ConfigError, LLMProxyError, MissingDependencyError
from llm_proxy.shipped import silence_onnxruntime
from llm_proxy.testing import FakeClock, FakeEncoder


class Loader:
    """Counts loads; fails with ``error`` while there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.loads = error, 0
        self.encoder = FakeEncoder(dim=8)

    def __call__(self) -> Encoder:
        self.loads += 1
        if self.error is not None:
            raise self.error
        return self.encoder


def lazy(loader: Callable[[], Encoder], clock: FakeClock | None = None) -> LazyEncoder:
    return LazyEncoder(loader, monotonic=(clock or FakeClock()).monotonic)


class TestLoading:
    def test_nothing_happens_before_the_first_use(self) -> None:
        loader = Loader()
        encoder = lazy(loader)
        assert (loader.loads, encoder.is_ready, encoder.is_open) == (0, False, False)
        for read in (lambda: encoder.name, lambda: encoder.dim):
            with pytest.raises(CacheError, match="has not loaded yet"):
                read()

    def test_the_first_text_loads_it_once(self) -> None:
        loader = Loader()
        encoder = lazy(loader)
        assert encoder.encode("hello there").seen_chars == 11
        encoder.encode("again")
        assert (loader.loads, encoder.is_ready, encoder.name, encoder.dim) == (1, True, "fake-8", 8)

    def test_start_loads_and_warms_it_once(self) -> None:
        loader, jobs = Loader(), list[Callable[[], None]]()
        encoder = lazy(loader)
        encoder.start(jobs.append)
        encoder.start(jobs.append)
        assert (len(jobs), encoder.is_ready) == (1, False)
        jobs[0]()
        assert (loader.loads, encoder.is_ready) == (1, True)
        assert set(map(len, loader.encoder.texts)) == {2900}  # a text as long as the window, the second one is timed

    def test_it_knows_how_long_a_text_may_take(self) -> None:
        clock, loader, jobs = FakeClock(), Loader(), list[Callable[[], None]]()
        took_s = iter([9.0, 3.0, 0.02, 0.025, 0.01, 0.04, 0.01, 0.01])
        slow = loader.encoder.encode

        def encode(text: str) -> Encoding:
            clock.advance(next(took_s))
            return slow(text)

        loader.encoder.encode = encode  # type: ignore[method-assign]
        encoder = lazy(loader, clock)
        encoder.start(jobs.append)
        assert encoder.slowest_s == float("inf")
        jobs[0]()
        known = [encoder.slowest_s]
        for _ in range(4):
            encoder.encode("hello")
            known.append(encoder.slowest_s)
        assert known == pytest.approx([0.02, 0.02, 0.04, 0.036, 0.0324], rel=1e-3)

    def test_a_hiccup_is_forgotten_after_some_tens_of_texts(self) -> None:
        clock, loader = FakeClock(), Loader()
        took_s = [0.01]
        real = loader.encoder.encode

        def encode(text: str) -> Encoding:
            clock.advance(took_s[0])
            return real(text)

        loader.encoder.encode = encode  # type: ignore[method-assign]
        encoder = lazy(loader, clock)
        encoder.start(lambda job: job())
        took_s[0] = 3.0
        encoder.encode("hello")
        assert encoder.slowest_s == pytest.approx(3.0)
        took_s[0], texts = 0.001, 0
        while encoder.slowest_s > 0.025:
            encoder.encode("hello")
            texts += 1
        assert 20 < texts < 60
        for _ in range(100):
            encoder.encode("hello")
        assert encoder.slowest_s == pytest.approx(0.01), "a text as long as the window takes as long as ever"

    def test_a_short_text_takes_its_share_of_a_long_one(self) -> None:
        clock, loader, took_s = FakeClock(), Loader(), [0.04]
        real = loader.encoder.encode
        loader.encoder.window_chars = 1000

        def encode(text: str) -> Encoding:
            clock.advance(took_s[0])
            return real(text)

        loader.encoder.encode = encode  # type: ignore[method-assign]
        encoder = lazy(loader, clock)
        assert encoder.may_take_s("") == encoder.may_take_s("hello") == float("inf")
        encoder.start(lambda job: job())
        assert encoder.may_take_s("") == 0.0
        assert encoder.may_take_s("x" * 50) == pytest.approx(0.25 * 0.04)  # at five times as many tokens a character
        assert encoder.may_take_s("x" * 200) == encoder.may_take_s("x" * 9000) == pytest.approx(0.04)
        assert encoder.may_take_s("x" * 50, "y" * 100, "z" * 9000) == pytest.approx(1.75 * 0.04)
        took_s[0] = 0.03
        encoder.encode("hello")
        assert encoder.may_take_s("hello") == pytest.approx(0.03), "as long as the latest texts took"

    def test_a_text_of_which_nothing_is_seen_fills_the_window(self) -> None:
        loader = Loader()
        loader.encoder.window_chars = 0
        encoder = lazy(loader, FakeClock())
        encoder.start(lambda job: job())
        assert encoder.may_take_s("hello") == encoder.slowest_s == 0.0

    def test_a_pool_can_start_it(self) -> None:
        encoder = lazy(Loader())
        with ThreadPoolExecutor(1) as pool:
            encoder.start(pool.submit)
        assert encoder.is_ready

    def test_callers_at_the_same_time_share_one_load(self) -> None:
        is_loading, may_finish = threading.Event(), threading.Event()
        loader = Loader()

        def load() -> Encoder:
            is_loading.set()
            assert may_finish.wait(10)
            return loader()

        encoder = lazy(load)
        with ThreadPoolExecutor(6) as pool:
            results = [pool.submit(encoder.encode, f"text {number}") for number in range(6)]
            assert is_loading.wait(10)
            assert not any(result.done() for result in results)
            may_finish.set()
            assert [result.result(10).seen_chars for result in results] == [6] * 6
        assert loader.loads == 1


class TestFailure:
    def test_it_is_repeated_until_the_rest_is_over(self) -> None:
        clock, loader = FakeClock(), Loader(MissingDependencyError("pip install it"))
        encoder = lazy(loader, clock)
        for seconds in (0, 10, 19.9):
            clock.advance(seconds)
            with pytest.raises(MissingDependencyError, match="pip install it"):
                encoder.encode("text")
        assert loader.loads == 1
        clock.advance(0.2)
        with pytest.raises(MissingDependencyError):
            encoder.encode("text")
        assert loader.loads == 2

    def test_a_later_load_may_succeed(self) -> None:
        clock, loader = FakeClock(), Loader(CacheError("not now"))
        encoder = lazy(loader, clock)
        with pytest.raises(CacheError):
            encoder.encode("text")
        loader.error = None
        clock.advance(30)
        assert encoder.encode("text").seen_chars == 4
        assert encoder.is_ready

    def test_in_the_background_it_waits_for_the_next_caller(self) -> None:
        loader = Loader(ConfigError("no such folder"))
        encoder = lazy(loader)
        encoder.start(lambda job: job())
        with pytest.raises(ConfigError, match="no such folder"):
            encoder.encode("text")
        assert loader.loads == 1

    def test_a_foreign_error_is_kept_as_one_of_ours(self) -> None:
        loader = Loader(ZeroDivisionError("broken model"))
        encoder = lazy(loader)
        with pytest.raises(ZeroDivisionError):
            encoder.encode("text")
        with pytest.raises(CacheError, match="ZeroDivisionError: broken model"):
            encoder.encode("text")
        assert loader.loads == 1

    def test_the_kept_error_does_not_grow(self) -> None:
        error = CacheError("no")
        encoder = lazy(Loader(error))
        lengths = []
        for _ in range(5):
            with pytest.raises(CacheError):
                encoder.encode("text")
            frames, trace = 0, error.__traceback__
            while trace is not None:
                frames, trace = frames + 1, trace.tb_next
            lengths.append(frames)
        assert lengths[1] == lengths[-1]

    def test_errors_of_the_encoder_itself_pass_and_are_not_kept(self) -> None:
        loader = Loader()
        encoder = lazy(loader)
        loader.encoder.error = CacheError("a bad run")
        with pytest.raises(LLMProxyError, match="a bad run"):
            encoder.encode("text")
        loader.encoder.error = None
        assert encoder.encode("text").seen_chars == 4

    def test_it_says_why(self) -> None:
        clock, loader = FakeClock(), Loader(CacheError("no such file"))
        encoder = lazy(loader, clock)
        assert encoder.failure == ""
        encoder.start(lambda job: job())
        assert encoder.failure == "no such file"
        loader.error = None
        clock.advance(31)
        encoder.encode("text")
        assert encoder.failure == ""


class TestFork:
    def test_what_has_loaded_stays_and_held_locks_do_not_matter(self) -> None:
        loader = Loader()
        encoder = lazy(loader)
        encoder.start(lambda job: job())
        threading.Thread(target=lambda: (encoder._loading.acquire(), encoder._state.acquire())).start()
        encoder.after_fork()
        encoder.start(lambda job: pytest.fail("it has loaded"))
        encoder.note_timeout()
        assert (encoder.encode("text").seen_chars, loader.loads) == (4, 1)

    def test_what_was_loading_is_loaded_again(self) -> None:
        loader = Loader()
        encoder = lazy(loader)
        encoder.start(lambda job: None)
        encoder.after_fork()
        encoder.start(lambda job: job())
        assert (encoder.is_ready, loader.loads) == (True, 1)


class TestCircuit:
    @staticmethod
    def late(encoder: LazyEncoder, times: int) -> None:
        for _ in range(times):
            encoder.note_timeout()

    def test_it_opens_after_five_in_a_row_and_closes_with_time(self) -> None:
        clock = FakeClock()
        encoder = lazy(Loader(), clock)
        self.late(encoder, 4)
        assert not encoder.is_open
        self.late(encoder, 1)
        assert encoder.is_open
        clock.advance(29.9)
        assert encoder.is_open
        clock.advance(0.2)
        assert not encoder.is_open

    def test_one_more_opens_it_again_and_one_success_closes_it(self) -> None:
        clock = FakeClock()
        encoder = lazy(Loader(), clock)
        self.late(encoder, 5)
        clock.advance(31)
        self.late(encoder, 1)
        assert encoder.is_open
        encoder.note_success()
        assert not encoder.is_open
        self.late(encoder, 4)
        assert not encoder.is_open

    def test_a_success_in_between_starts_the_count_anew(self) -> None:
        encoder = lazy(Loader())
        self.late(encoder, 4)
        encoder.note_success()
        encoder.note_success()
        self.late(encoder, 4)
        assert not encoder.is_open

    def test_calls_that_came_before_it_had_loaded_are_forgotten(self) -> None:
        encoder = lazy(Loader())
        self.late(encoder, 5)
        assert encoder.is_open
        encoder.start(lambda job: job())
        assert encoder.is_ready
        assert not encoder.is_open

    def test_a_failed_load_forgets_nothing(self) -> None:
        encoder = lazy(Loader(CacheError("no")))
        self.late(encoder, 5)
        encoder.start(lambda job: job())
        assert encoder.is_open


class TestBuild:
    def test_onnxruntime_is_told_to_send_nothing_before_it_is_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[tuple[str, str]] = []
        monkeypatch.setattr(os, "putenv", lambda *pair: told.append(pair))
        monkeypatch.setitem(sys.modules, "onnxruntime", sys)
        silence_onnxruntime()
        assert told == [], "it would not look any more"
        monkeypatch.delitem(sys.modules, "onnxruntime")
        silence_onnxruntime()
        assert told == [("ORT_DISABLE_TELEMETRY", "1")]

    def test_the_shipped_one(self) -> None:
        encoder = build(EncoderConfig())
        assert not encoder.is_ready
        assert encoder.encode("hello").vector.shape == (384,)
        assert encoder.name.startswith("all-MiniLM-L6-v2-int8@")

    def test_a_folder(self, tmp_path: Path) -> None:
        clock = FakeClock()
        encoder = build(EncoderConfig(model=str(tmp_path)), monotonic=clock.monotonic)
        with pytest.raises(ConfigError, match=r"config\.json"):
            encoder.encode("hello")

    @pytest.mark.parametrize("model", ["", "some-model"])
    def test_sentence_transformers_without_the_library(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
        encoder = build(EncoderConfig(kind="sentence-transformers", model=model))
        with pytest.raises(MissingDependencyError, match=r"llm-proxy\[sentence-transformers\]"):
            encoder.encode("hello")


class TestParts:
    def test_jobs_of_the_encoder_go_where_it_was_loaded(self) -> None:
        encoder, jobs, done = lazy(Loader()), list[Callable[[], None]](), list[int]()
        encoder.later(lambda: done.append(1))
        assert done == [1], "at once, before it was started"
        encoder.start(jobs.append)
        encoder.later(lambda: done.append(2))
        assert (len(jobs), done) == (2, [1])
        jobs[1]()
        assert done == [1, 2]

    def test_a_child_tells_the_encoder(self) -> None:
        loader, forks = Loader(), list[str]()
        loader.encoder.after_fork = lambda: forks.append("forked")  # type: ignore[method-assign]
        encoder = lazy(loader)
        encoder.after_fork()
        assert forks == []
        encoder.encode("hello")
        encoder.after_fork()
        assert forks == ["forked"]

    def test_an_accelerator_s_trouble_is_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from llm_proxy.encode import onnx

        given: dict[str, object] = {}

        def made(folder: object, **settings: object) -> Encoder:
            given.update(settings, folder=folder)
            return FakeEncoder()

        def note(part: str, exc: Exception) -> None:
            """Counts nothing."""

        monkeypatch.setattr(onnx, "OnnxEncoder", made)
        encoder = build(EncoderConfig(device="cuda"), note=note)
        encoder.encode("hello")
        assert (given["folder"], given["device"], given["note"]) == (None, "cuda", note)
        assert given["later"] == encoder.later
