"""Who is told of calls, by the settings."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.errors import MissingDependencyError
from llm_proxy.faces._http import httpx
from llm_proxy.observe.events import CallEvent
from llm_proxy.observe.lines import LOGGER_NAME, Lines
from llm_proxy.runtime import LEDGER_NAME, Runtime
from llm_proxy.sinks import ledger_path, may_show_questions, sinks_for
from llm_proxy.testing import FakeBackend

QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a secret"}]}


def config(tmp_path: Path, **sections: Any) -> Config:
    return Config(cache={"directory": str(tmp_path), **sections.pop("cache", {})}, **sections)


def test_a_ledger_where_one_is_kept(tmp_path: Path):
    assert ledger_path(config(tmp_path)) == tmp_path / LEDGER_NAME
    assert ledger_path(config(tmp_path, observe={"ledger": False})) is None
    assert ledger_path(config(tmp_path, cache={"store": "memory"})) is None


def test_nobody_by_default(tmp_path: Path):
    assert sinks_for(config(tmp_path), None) == ()


def test_log_lines(tmp_path: Path):
    (sink,) = sinks_for(config(tmp_path, observe={"log": "json"}), None)
    assert isinstance(sink, Lines)


def test_opentelemetry_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError):
        sinks_for(config(tmp_path, observe={"otel": True}), None)


def test_opentelemetry(tmp_path: Path):
    pytest.importorskip("opentelemetry")
    (sink,) = sinks_for(config(tmp_path, observe={"otel": True}, backends={"a": {"base_url": "http://x/v1"}}), None)
    assert type(sink).__name__ == "Telemetry"


def test_questions_are_not_shown_unless_allowed(tmp_path: Path):
    assert not may_show_questions(config(tmp_path))


def test_one_more_is_told_from_then_on(tmp_path: Path):
    events: list[CallEvent] = []
    runtime = Runtime(config(tmp_path, cache={"store": "memory", "semantic": False}))
    backend = FakeBackend()
    with OpenAI(api_key="k", http_client=backend.client(), llm_proxy=runtime) as client:
        client.chat.completions.create(**QUESTION)
        runtime.add_sink(events.append)
        client.chat.completions.create(**QUESTION)
    runtime.close()
    assert [event.outcome.status for event in events] == ["hit"]
    assert events[0].requested == "m"
    assert len(events[0].caller) == 8
    assert events[0].question == ""


def test_the_lines_of_a_client(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    settings = config(tmp_path, cache={"store": "memory", "semantic": False}, observe={"log": "json"})
    runtime = Runtime(settings)
    backend = FakeBackend()
    with caplog.at_level(logging.INFO, LOGGER_NAME), OpenAI(
        api_key="sk-secret", http_client=backend.client(), llm_proxy=runtime
    ) as client:  # fmt: skip
        client.chat.completions.create(**QUESTION)
    runtime.close()
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOGGER_NAME]
    assert json.loads(line)["outcome"] == "miss"
    assert "secret" not in line


def test_a_trace_goes_on_upstream(tmp_path: Path):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    events: list[CallEvent] = []
    runtime = Runtime(config(tmp_path, cache={"store": "memory", "semantic": False}), sinks=(events.append,))
    backend, sent = FakeBackend(), list[str]()

    def noted(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["traceparent"])
        return backend._sync(request)

    http_client = httpx.Client(transport=httpx.MockTransport(noted))
    with OpenAI(api_key="k", http_client=http_client, llm_proxy=runtime) as client:
        client.chat.completions.create(**QUESTION, extra_headers={"traceparent": trace})
    runtime.close()
    assert [events[0].traceparent] == sent == [trace]
