"""One runtime per configuration, parts that fail on their own, and the upkeep beside the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cache.build import build
from llm_proxy.cache.entry import Entry
from llm_proxy.config import Config
from llm_proxy.errors import CacheError
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime, SystemClock, close_all, runtime_for
from llm_proxy.testing import FakeClock, FakeEncoder
from llm_proxy.types import Outcome, Usage

EVENT = CallEvent(at_s=0.0, outcome=Outcome("miss"), latency_s=0.1)
MEMORY: dict[str, Any] = {"cache": {"store": "memory"}}


def entry(key: str, text: str = "what is it") -> Entry:
    return Entry(key=key * 64, scope="s" * 64, text=text, completion=b"{}", created_s=0.0)


def test_equal_settings_share_a_runtime() -> None:
    first = runtime_for(MEMORY)
    assert runtime_for(Config(**MEMORY)) is first
    assert runtime_for({"cache": {"store": "memory", "ttl_s": 5}}) is not first
    close_all()
    assert runtime_for(MEMORY) is not first


def test_a_runtime_is_taken_as_it_is() -> None:
    runtime = Runtime(Config(**MEMORY))
    assert runtime_for(runtime) is runtime
    runtime.close()


def test_a_sink_that_raises_breaks_nothing() -> None:
    def broken(event: CallEvent) -> None:
        raise ValueError("mine")

    taken: list[CallEvent] = []
    runtime = Runtime(Config(**MEMORY), sinks=(broken, taken.append))
    runtime.emit(EVENT)
    assert taken == [EVENT]
    assert runtime.troubles.counts == {"sink": 1}
    runtime.close()


def test_without_a_cache_there_is_neither_encoder_nor_ledger(tmp_path: Path) -> None:
    runtime = Runtime(Config(cache={"enabled": False, "directory": tmp_path}, observe={"ledger": False}))
    runtime.start()
    assert (runtime.cache, runtime.encoder, runtime.ledger) == (None, None, None)
    runtime.close()


@pytest.mark.parametrize(("kind", "level"), [("onnx", "INFO"), ("sentence-transformers", "WARNING")])
def test_missing_extras_mean_exact_hits_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, level: str
) -> None:
    """Which is worth a warning where the encoder was asked for."""
    monkeypatch.setattr("llm_proxy.encode.extras.find_spec", lambda name: None)
    caplog.set_level("INFO", logger="llm_proxy")
    runtime = Runtime(Config(**MEMORY, encoder={"kind": kind}))
    assert runtime.encoder is None
    assert runtime.cache is not None
    assert [record.levelname for record in caplog.records] == [level]
    runtime.close()


def test_upkeep_gives_vectors_to_what_an_earlier_process_left_without() -> None:
    clock, encoder = FakeClock(), FakeEncoder()
    config = Config(**MEMORY)
    cache = build(config.cache, clock=clock)
    cache.admit(entry("a"))
    runtime = Runtime(config, clock=clock, cache=cache, encoder=encoder)  # type: ignore[arg-type]
    runtime.emit(EVENT)
    clock.advance(61.0)
    runtime.emit(EVENT)
    runtime.pool().shutdown()
    vector = encoder.encode("what is it").vector
    found = cache.nearest("s" * 64, "what is it", vector, encoder=encoder.name)
    assert found.entry is not None
    runtime.close()


def test_a_cache_that_fails_is_noted_by_who_opens_and_tends_it() -> None:
    class Failing:
        def open(self) -> None:
            raise CacheError("no such disk")

        maintain = close = open

    clock = FakeClock()
    runtime = Runtime(Config(**MEMORY), clock=clock, cache=Failing(), encoder=FakeEncoder())  # type: ignore[arg-type]
    runtime.start()
    clock.advance(61.0)
    runtime.emit(EVENT)
    runtime.close()
    assert runtime.troubles.counts["cache"] >= 2


def test_the_machines_clocks_go_on() -> None:
    clock = SystemClock()
    assert clock.time() > 1_700_000_000
    assert clock.monotonic() <= clock.monotonic()


def test_the_estimates_begin_with_what_earlier_calls_have_taken(tmp_path: Path) -> None:
    config = Config(
        cache={"directory": tmp_path, "semantic": False},
        backends={"own": {"base_url": "http://localhost:1/v1", "usd_per_second": 1.0}},
    )
    first = Runtime(config)
    outcome = Outcome("miss", backend="own", model="m-2026-01-31")
    for _ in range(5):
        first.emit(CallEvent(at_s=0.0, outcome=outcome, latency_s=60.0, usage=Usage(100, 50)))
    first.close()
    second = Runtime(config)
    second.start()
    second.pool().shutdown()
    found = second.costs.expected("own", "m", 100)
    assert found is not None
    assert 30.0 <= found.wait_usd <= 60.0
    second.close()


def test_a_ledger_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"what is it" * 99)
    runtime = Runtime(Config(cache={"directory": tmp_path, "semantic": False}))
    runtime.start()
    runtime.pool().shutdown()
    assert runtime.troubles.counts["ledger"] == 1
    runtime.close()


def test_trouble_of_an_accelerator_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_proxy.encode import lazy

    given: dict[str, Any] = {}

    def built(settings: object, **parts: Any) -> FakeEncoder:
        given.update(parts)
        return FakeEncoder()

    monkeypatch.setattr(lazy, "build", built)
    runtime = Runtime(Config(**MEMORY))
    given["note"]("encoder", CacheError("device lost"))
    assert runtime.troubles.counts == {"encoder": 1}
    runtime.close()
