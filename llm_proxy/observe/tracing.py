"""OpenTelemetry spans and metrics of calls, by the conventions for generative AI.

Only the API is used: the program that llm-proxy runs in sets up the SDK, and without one nothing is made. A span is
made when its call is over, with the times of the call. Its parent is the ``traceparent`` of the request, which goes on
upstream as it came, or else the span that the caller's code is in.

Source: opentelemetry.io/docs/specs/semconv/gen-ai, spans and metrics of clients; W3C Trace Context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .events import CallEvent

__all__ = ["Telemetry"]

_NAME = "llm_proxy"
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}
_PROVIDERS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic", "api.mistral.ai": "mistral_ai",
              "api.deepseek.com": "deepseek", "api.groq.com": "groq", "api.x.ai": "x_ai"}  # fmt: skip
_DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_NS_PER_S = 1_000_000_000
_MOST_MODELS, _OTHER = 200, "other"  # in measurements: each is a series, and callers may name any model
_MODELS = ("gen_ai.request.model", "gen_ai.response.model")

Attributes = dict[str, Any]


class Telemetry:
    """Makes one client span and its measurements of each event; a sink.

    Args:
        base_urls: Where backends are, by name.
        tracer_provider: Instead of the program's global one.
        meter_provider: Likewise.

    Raises:
        MissingDependencyError: OpenTelemetry's API is not installed.
    """

    def __init__(
        self, base_urls: Mapping[str, str], *, tracer_provider: Any = None, meter_provider: Any = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as exc:
            raise MissingDependencyError('observe.otel needs OpenTelemetry: pip install "llm-proxy[otel]"') from exc
        self._trace = trace
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._propagator = TraceContextTextMapPropagator()
        self._servers = {name: _server_of(url) for name, url in base_urls.items()}
        self._models: set[str] = set()
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_DURATIONS_S,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._saved = meter.create_counter("llm_proxy.saved", unit="{USD}", description="Money that hits did not cost.")

    def __call__(self, event: CallEvent) -> None:
        """Take one event."""
        shared = self._shared(event)
        error = _error_type(event)
        ended = {"error.type": error} if error else {}
        kind, status = self._trace.SpanKind.CLIENT, self._trace.StatusCode.ERROR
        start_ns = int(event.at_s * _NS_PER_S)
        span = self._tracer.start_span(
            f"{_operation(event)} {event.requested}".rstrip(),
            context=self._propagator.extract({"traceparent": event.traceparent}) if event.traceparent else None,
            kind=kind,
            attributes={**shared, **ended, **_details(event)},
            start_time=start_ns,
        )
        if error:
            span.set_status(status, error)
        span.end(start_ns + int(event.latency_s * _NS_PER_S))
        # The measurement is taken within its span, so that an exporter can give one as the other's example.
        context = self._trace.set_span_in_context(span)
        own, measured = {"llm_proxy.outcome": event.outcome.status}, self._measured(shared)
        self._durations.record(event.latency_s, {**measured, **ended, **own}, context=context)
        if event.usage is not None:
            for name, count in (("input", event.usage.prompt_tokens), ("output", event.usage.completion_tokens)):
                self._tokens.record(count, {**measured, "gen_ai.token.type": name}, context=context)
        if event.outcome.saved_usd:
            self._saved.add(event.outcome.saved_usd, own)

    def _shared(self, event: CallEvent) -> Attributes:
        """What spans and measurements say of a call."""
        outcome = event.outcome
        server, provider = self._servers.get(outcome.backend, ({}, ""))
        found = {
            "gen_ai.operation.name": _operation(event),
            "gen_ai.provider.name": provider or outcome.backend or "openai",
            "gen_ai.request.model": event.requested,
            "gen_ai.response.model": outcome.model,
        }
        return {**{name: value for name, value in found.items() if value}, **server}

    def _measured(self, shared: Attributes) -> Attributes:
        """The same with few values each: models beyond the first 200 that come are ``other``."""
        return {**shared, **{name: self._few(shared[name]) for name in _MODELS if name in shared}}

    def _few(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= _MOST_MODELS:
                return _OTHER
            self._models.add(model)
        return model


def _server_of(url: str) -> tuple[Attributes, str]:
    """Attributes of a server's address, and the name that the conventions have for who runs it, or empty."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": host, "server.port": port}, _PROVIDERS.get(host, "")


def _details(event: CallEvent) -> Attributes:
    outcome, usage = event.outcome, event.usage
    found: Attributes = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
        "http.response.status_code": event.http_status or None,
        "llm_proxy.outcome": outcome.status,
        "llm_proxy.kind": outcome.kind,
        "llm_proxy.api": event.api,
        "llm_proxy.detail": outcome.detail,
        "llm_proxy.route": outcome.route,
        "llm_proxy.reason": outcome.reason,
        "llm_proxy.backend": outcome.backend,
        "llm_proxy.cascade": outcome.cascade,
        "llm_proxy.similarity": outcome.similarity,
        "llm_proxy.p_wrong": outcome.p_wrong,
        "llm_proxy.cost_usd": outcome.cost_usd,
        "llm_proxy.saved_usd": outcome.saved_usd or None,
        "llm_proxy.saved_s": event.saved_s or None,
        "llm_proxy.is_stored": outcome.is_stored,
        "llm_proxy.is_stream": event.is_stream,
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def _operation(event: CallEvent) -> str:
    """The conventions' name of what a call asks for; to them a response is a chat, too."""
    return _OPERATIONS.get(event.api, "chat")


def _error_type(event: CallEvent) -> str:
    """The value of ``error.type``: what broke the call off, or its status; empty where it went well."""
    return event.error or (str(event.http_status) if event.http_status >= 400 else "")
