"""Spans and metrics as the SDK exports them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.errors import MissingDependencyError
from llm_proxy.observe.events import CallEvent
from llm_proxy.observe.tracing import Telemetry
from tests.observe.events_kit import NOW_S, bypass, exact, miss, near

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
URLS = {"main": "https://api.openai.com/v1", "local": "http://127.0.0.1:11434/v1"}


class Exported:
    """A sink on an SDK whose exporters keep everything."""

    def __init__(self) -> None:
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider(metric_readers=[self.reader])
        self.sink = Telemetry(URLS, tracer_provider=self.tracers, meter_provider=meters)

    def spans(self, *events: CallEvent) -> list[Any]:
        for event in events:
            self.sink(event)
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [metric for row in data.resource_metrics for scope in row.scope_metrics for metric in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def exported() -> Exported:
    return Exported()


@pytest.mark.parametrize(
    ("api", "operation"),
    [("chat", "chat"), ("responses", "chat"), ("completions", "text_completion"), ("embeddings", "embeddings")],
)
def test_an_api_has_the_name_of_its_operation(exported: Exported, api: str, operation: str):
    (span,) = exported.spans(replace(miss(), api=api))
    assert span.name == f"{operation} auto"
    assert (span.attributes["gen_ai.operation.name"], span.attributes["llm_proxy.api"]) == (operation, api)


def test_a_span_of_a_call_that_was_asked(exported: Exported):
    (span,) = exported.spans(miss())
    assert span.name == "chat auto"
    assert span.kind.name == "CLIENT"
    assert (span.start_time, span.end_time) == (int(NOW_S * 1e9), int((NOW_S + 2) * 1e9))
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "auto",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "server.address": "api.openai.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "llm_proxy.outcome": "miss",
        "llm_proxy.api": "chat",
        "llm_proxy.reason": "cheapest",
        "llm_proxy.backend": "main",
        "llm_proxy.cost_usd": 0.125,
        "llm_proxy.is_stream": False,
    }
    assert span.status.is_ok or span.status.status_code.name == "UNSET"


def test_a_hit_tells_how_near_it_was(exported: Exported):
    (span,) = exported.spans(near())
    found = {name.removeprefix("llm_proxy."): value for name, value in span.attributes.items()}
    assert (found["kind"], found["similarity"], found["p_wrong"], found["saved_usd"]) == ("semantic", 0.9, 0.002, 0.5)


def test_a_server_that_nobody_knows(exported: Exported):
    (span,) = exported.spans(replace(bypass(backend="local"), requested=""))
    assert span.name == "chat"
    assert span.attributes["gen_ai.provider.name"] == "local"
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", 11434)


@pytest.mark.parametrize(
    ("event", "error"), [(bypass(http_status=502), "502"), (bypass(http_status=0, error="ReadTimeout"), "ReadTimeout")]
)
def test_what_went_wrong(exported: Exported, event: CallEvent, error: str):
    (span,) = exported.spans(event)
    assert span.attributes["error.type"] == error
    assert span.status.status_code.name == "ERROR"


def test_the_parent_is_the_one_of_the_request(exported: Exported):
    (span,) = exported.spans(replace(miss(), traceparent=PARENT))
    assert f"{span.context.trace_id:032x}" in PARENT
    assert f"{span.parent.span_id:016x}" in PARENT


def test_or_else_the_span_of_the_callers_code(exported: Exported):
    tracer = exported.tracers.get_tracer("mine")
    with tracer.start_as_current_span("mine") as mine:
        exported.sink(miss())
    span = exported.spans()[0]
    assert span.parent.span_id == mine.get_span_context().span_id


def test_questions_are_in_no_attribute(exported: Exported):
    (span,) = exported.spans(replace(miss(), question="what is my secret?"))
    assert "secret" not in str(span.to_json())


def test_measurements(exported: Exported):
    exported.spans(miss(), exact(), exact())
    durations = exported.points("gen_ai.client.operation.duration")
    assert {(point.attributes["llm_proxy.outcome"], point.count, point.sum) for point in durations} == {
        ("miss", 1, 2.0),
        ("hit", 2, 0.002),
    }
    assert durations[0].explicit_bounds[0] == 0.01
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum for point in exported.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": 10, "output": 20}
    assert [point.value for point in exported.points("llm_proxy.saved")] == [0.5]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError, match=r"llm-proxy\[otel\]"):
        Telemetry({})


def test_measurements_are_of_few_models(exported: Exported):
    spans = exported.spans(*(replace(miss(model=f"m{number}"), requested=f"m{number}") for number in range(300)))
    assert spans[-1].attributes["gen_ai.request.model"] == "m299", "a span is one call's"
    points = exported.points("gen_ai.client.operation.duration")
    models = {point.attributes["gen_ai.request.model"] for point in points}
    assert len(models) == len({point.attributes["gen_ai.response.model"] for point in points}) == 201
    assert "other" in models
    assert sum(point.count for point in points) == 300
