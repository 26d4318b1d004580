from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.route.lazy import LazyHeads, heads_for
from llm_proxy.testing import FakeClock, FakeHead
from tests.route.test_heads import graph as graph
from tests.route.test_heads import written as head_written

FOLDERS = {"auto": Path("a"), "sure": Path("b")}


class Bench:
    def __init__(self) -> None:
        self.clock, self.waiting, self.loaded, self.troubles = FakeClock(), [], [], []
        self.error: Exception | None = None
        self.heads = LazyHeads(
            FOLDERS,
            self.load,
            note=lambda part, exc: self.troubles.append((part, str(exc))),
            monotonic=self.clock.monotonic,
        )

    def load(self, folder: Path) -> Any:
        self.loaded.append(folder)
        if self.error is not None:
            raise self.error
        return FakeHead({"m": 0.5}, name=str(folder))

    def submit(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def work(self) -> None:
        """Do what waits, as a pool does: what is raised is dropped."""
        while self.waiting:
            with suppress(Exception):
                self.waiting.pop(0)()

    @property
    def names(self) -> list[str | None]:
        return [getattr(self.heads(route), "name", None) for route in ("auto", "sure", "other")]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_is_loaded_before_it_starts(bench: Bench) -> None:
    assert (bench.names, bench.loaded, bool(bench.heads)) == ([None] * 3, [], True)
    assert not LazyHeads({}, bench.load, note=lambda part, exc: None)


def test_they_load_in_the_background_and_once(bench: Bench) -> None:
    bench.heads.start(bench.submit)
    assert bench.names == [None] * 3
    bench.work()
    assert bench.names == ["a", "b", None]
    assert (bench.loaded, bench.waiting) == ([Path("a"), Path("b")], [])


def test_one_that_cannot_be_loaded_is_tried_again_after_a_while(bench: Bench) -> None:
    bench.error = ConfigError("no such head")
    bench.heads.start(bench.submit)
    bench.work()
    assert bench.troubles == [("router", "no such head")] * 2
    bench.clock.advance(29)
    assert (bench.names, bench.waiting) == ([None] * 3, [])
    bench.error = None
    bench.clock.advance(1)
    assert bench.names == [None] * 3
    bench.work()
    assert bench.names == ["a", "b", None]


def test_what_nobody_foresaw_is_no_end(bench: Bench) -> None:
    bench.error = MemoryError()
    bench.heads.start(bench.submit)
    bench.work()
    assert bench.troubles == [("router", "")] * 2
    bench.clock.advance(30)
    bench.error = None
    assert bench.heads("auto") is None
    bench.work()
    assert bench.heads("auto") is not None


def test_they_can_be_loaded_at_once(bench: Bench) -> None:
    bench.heads.load()
    assert bench.names == ["a", "b", None]
    bench.heads.load()
    assert len(bench.loaded) == 2
    bench.heads.start(bench.submit)
    assert bench.waiting == []


def test_and_then_say_what_is_wrong(bench: Bench) -> None:
    bench.error = ConfigError("no such head")
    with pytest.raises(ConfigError, match="no such head"):
        bench.heads.load()


def test_a_child_keeps_what_has_loaded(bench: Bench) -> None:
    bench.heads.start(bench.submit)
    bench.waiting.pop(0)()
    bench.heads.after_fork()
    bench.waiting.clear()
    assert bench.names == ["a", None, None]
    bench.work()
    assert bench.names == ["a", "b", None], "the other one begins anew"


def dropping(call: Callable[[], None]) -> None:
    """Does it at once, as a pool does: what is raised is dropped."""
    with suppress(Exception):
        call()


class Encoder:
    """Names its vectors; counts what it encoded."""

    def __init__(self, name: str) -> None:
        self.name, self.texts = name, []

    def encode(self, text: str) -> Any:
        self.texts.append(text)


class TestHeadsFor:
    def heads(self, tmp_path: Path, encoder: Encoder | None = None, **route: Any) -> tuple[LazyHeads, list[Any], Any]:
        config = Config(
            cache={"directory": tmp_path},
            backends={"one": {"base_url": "http://127.0.0.1:1/v1"}},
            routes={"auto": {"candidates": ["one/m0", "one/m1"], **route}, "sure": {"candidates": ["one/m0"]}},
        )
        clock, troubles = FakeClock(), []
        heads = heads_for(
            config,
            encoder=lambda: encoder,
            submit=lambda call: call(),
            note=lambda part, exc: troubles.append(str(exc)),
            monotonic=clock.monotonic,
        )
        heads.start(dropping)
        return heads, troubles, clock

    def test_none_is_trained_yet_which_is_no_trouble(self, tmp_path: Path, graph: bytes) -> None:
        heads, troubles, clock = self.heads(tmp_path)
        assert (heads("auto"), heads("sure"), bool(heads), troubles) == (None, None, False, [])
        head_written(tmp_path / "heads", graph)
        heads.load()
        clock.advance(31)
        head = heads("auto")
        assert head is not None
        assert head.models == ("m0", "m1")
        assert heads("sure") is None, "there is nothing to choose"

    def test_it_is_found_by_a_later_call(self, tmp_path: Path, graph: bytes) -> None:
        heads, troubles, clock = self.heads(tmp_path)
        head_written(tmp_path / "heads", graph)
        assert heads("auto") is None
        clock.advance(31)
        heads("auto")
        assert heads("auto") is not None
        assert bool(heads)
        assert troubles == []
        heads.after_fork()
        assert heads("auto") is not None

    def test_one_that_was_named_must_be_there(self, tmp_path: Path) -> None:
        heads, troubles, _ = self.heads(tmp_path, head=str(tmp_path / "own"))
        assert heads("auto") is None
        assert len(troubles) == 1
        assert "has no head" in troubles[0]
        with pytest.raises(ConfigError, match="has no head"):
            heads.load()

    @pytest.mark.parametrize(
        ("name", "is_used"), [("topics-float@12", True), ("topics", True), ("others-int8@1", False)]
    )
    def test_it_reads_the_vectors_of_one_model(self, tmp_path: Path, graph: bytes, name: str, is_used: bool) -> None:
        head_written(tmp_path / "heads", graph)
        heads, troubles, _ = self.heads(tmp_path, Encoder(name))
        assert (heads("auto") is not None) is is_used
        assert ("not of 'others-int8@1'" in "".join(troubles)) is not is_used


def test_without_a_thread_a_later_call_tries_again(bench: Bench) -> None:
    def refuse(call: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    bench.heads.start(refuse)
    assert [part for part, _ in bench.troubles] == ["threads", "threads"]
    bench.heads.start(bench.submit)
    bench.clock.advance(31)
    bench.heads("auto")
    bench.work()
    assert bench.names[0] == "a"
