"""The work beside the calls: it never breaks one, and every entry gets its vector in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_proxy import backfill as module
from llm_proxy.cache.build import build
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import Entry
from llm_proxy.config import Config
from llm_proxy.encode.base import Encoding
from llm_proxy.errors import CacheError
from llm_proxy.forking import Workers
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeClock, FakeEncoder
from llm_proxy.types import Outcome

EVENT = CallEvent(at_s=0.0, outcome=Outcome("miss"), latency_s=0.1)
MEMORY: dict[str, Any] = {"cache": {"store": "memory"}}


def entry(number: int, text: str = "") -> Entry:
    return Entry(key=f"{number:064x}", scope="s" * 64, text=text or f"question {number}", completion=b"{}", created_s=0)


class Picky(FakeEncoder):
    """Can't encode texts that begin with "bad"."""

    def encode(self, text: str) -> Encoding:
        if text.startswith("bad"):
            self.texts.append(text)
            raise CacheError("the encoder gave a vector that is not of unit length")
        return super().encode(text)


class Bench:
    """A runtime over a memory cache, with a clock that moves and upkeep that is done at once."""

    def __init__(self) -> None:
        self.clock, self.encoder = FakeClock(), Picky()
        config = Config(**MEMORY)
        self.cache: Cache = build(config.cache, clock=self.clock)
        self.runtime = Runtime(config, clock=self.clock, cache=self.cache, encoder=self.encoder)  # type: ignore[arg-type]

    def maintain(self) -> int:
        """One pass; returns how many entries are left without a vector."""
        self.clock.advance(61.0)
        self.runtime._maintain()
        return sum(1 for _ in self.cache.lacking(self.encoder.name))


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.runtime.close()


def test_a_text_that_cannot_be_encoded_holds_up_no_other(bench: Bench) -> None:
    for number in range(3):
        bench.cache.admit(entry(number, f"bad {number}"))
    for number in range(3, 6):
        bench.cache.admit(entry(number))
    assert bench.maintain() == 3
    assert bench.runtime.troubles.counts == {"encoder": 3}
    bench.cache.admit(entry(7))
    assert bench.maintain() == 3
    assert bench.runtime.troubles.counts == {"encoder": 3}, "they are not tried again"


def test_a_pass_has_an_end_and_the_next_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAIL_AT_ONCE", 2)
    monkeypatch.setattr(module, "_ENCODE_AT_ONCE", 4)
    for number in range(5):
        bench.cache.admit(entry(number, f"bad {number}"))
    for number in range(5, 11):
        bench.cache.admit(entry(number))
    left = [bench.maintain() for _ in range(6)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 5


def test_entries_that_come_later_from_other_processes(bench: Bench) -> None:
    bench.cache.admit(entry(1))
    assert bench.maintain() == 0
    looks: list[str] = []
    real = bench.cache.lacking
    bench.cache.lacking = lambda name: looks.append(name) or real(name)  # type: ignore[method-assign,func-returns-value]
    bench.runtime._maintain()
    assert looks == [], "reading all entries each minute would cost too much"
    bench.cache.admit(entry(2))
    bench.runtime._maintain()
    assert len(looks) == 1
    assert sum(1 for _ in real(bench.encoder.name)) == 0


def test_a_cache_that_refuses_ends_the_pass(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> bool:
        raise CacheError("the disk is full")

    bench.cache.admit(entry(1))
    bench.cache.admit(entry(2))
    monkeypatch.setattr(bench.cache, "attach", full)
    assert bench.maintain() == 2
    assert bench.runtime.troubles.counts == {"cache": 1}
    monkeypatch.undo()
    assert bench.maintain() == 0


def ask(runtime: Runtime, *, control: str = "") -> str:
    from llm_proxy import OpenAI

    client = OpenAI(
        api_key="k",
        base_url="http://127.0.0.1/v1",
        http_client=FakeBackend().client(),
        llm_proxy=runtime,
        max_retries=0,
    )
    answer = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hello"}],
        extra_headers={"Cache-Control": control} if control else None,
    )
    return str(answer.choices[0].message.content)


@pytest.mark.parametrize("control", ["", "no-store"])
def test_no_thread_to_be_had_breaks_no_call(monkeypatch: pytest.MonkeyPatch, control: str) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    clock = FakeClock()
    runtime = Runtime(Config(cache={"store": "memory", "semantic": False}), clock=clock)
    clock.advance(61.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert "simulated" in ask(runtime, control=control)
    assert runtime.troubles.counts["threads"] >= 1
    monkeypatch.undo()
    runtime.close()


def test_after_closing_there_are_no_new_threads() -> None:
    clock = FakeClock()
    runtime = Runtime(Config(cache={"store": "memory", "semantic": False}), clock=clock)
    runtime.close()
    clock.advance(61.0)
    assert "simulated" in ask(runtime)
    assert runtime._pool is None
    with pytest.raises(RuntimeError, match="make a new one"):
        runtime.pool()
    runtime.close()


def test_a_dropped_call_collected_while_work_is_handed_to_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event asks for upkeep, on the thread that holds the executor's own locks."""
    workers, done = Workers(1, "test"), threading.Event()
    real: Callable[..., Any] = threading.Thread.start
    nested: list[Any] = []

    def start(thread: threading.Thread) -> None:
        if not nested:
            nested.append(workers.submit(done.set))
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    handing = threading.Thread(target=lambda: workers.submit(int), daemon=True)
    real(handing)
    assert done.wait(10), "it waits for itself"
    handing.join(10)
    workers.shutdown()
