"""One log line a call, as text or as JSON. No prompts, no keys."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from llm_proxy.types import CHAT

if TYPE_CHECKING:
    from .events import CallEvent

__all__ = ["LOGGER_NAME", "Lines"]

LOGGER_NAME = "llm_proxy.calls"


class Lines:
    """Logs each event at INFO; a sink.

    Args:
        form: ``text``: words for people; ``json``: an object, whose fields that say nothing are left out.
    """

    def __init__(self, form: Literal["text", "json"]) -> None:
        self._make = _as_json if form == "json" else _as_text
        self._logger = logging.getLogger(LOGGER_NAME)

    def __call__(self, event: CallEvent) -> None:
        """Log one event."""
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("%s", self._make(event))


def _as_json(event: CallEvent) -> str:
    fields = {name: value for name, value in _fields(event).items() if value not in ("", None)}
    return json.dumps(fields)


def _as_text(event: CallEvent) -> str:
    outcome = event.outcome
    what = f"{outcome.status} {outcome.kind}".rstrip()
    parts = [what, outcome.model or "-", f"{event.latency_s * 1_000:.1f} ms", f"status={event.http_status}"]
    parts += [
        f"{name}={value}"
        for name, value in (
            ("api", "" if event.api == CHAT else event.api),
            ("route", outcome.route),
            ("backend", outcome.backend),
            ("similarity", "" if outcome.similarity is None else f"{outcome.similarity:.3f}"),
            ("p_wrong", "" if outcome.p_wrong is None else f"{outcome.p_wrong:.4f}"),
            ("cost_usd", "" if outcome.cost_usd is None else f"{outcome.cost_usd:.8f}"),
            ("saved_usd", f"{outcome.saved_usd:.8f}" if outcome.saved_usd else ""),
            ("caller", event.caller),
            ("detail", outcome.detail),
            ("error", event.error),
        )
        if value
    ]
    return _one_line(" ".join(parts))


def _fields(event: CallEvent) -> dict[str, Any]:
    outcome, usage = event.outcome, event.usage
    return {
        "at": datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="milliseconds"),
        "outcome": outcome.status,
        "kind": outcome.kind,
        "api": event.api,
        "requested": event.requested,
        "model": outcome.model,
        "backend": outcome.backend,
        "route": outcome.route,
        "reason": outcome.reason,
        "cascade": outcome.cascade,
        "latency_s": round(event.latency_s, 6),
        "http_status": event.http_status,
        "is_stream": event.is_stream,
        "similarity": outcome.similarity,
        "p_wrong": outcome.p_wrong,
        "cost_usd": outcome.cost_usd,
        "saved_usd": outcome.saved_usd if outcome.status == "hit" else None,
        "saved_s": round(event.saved_s, 6) if outcome.status == "hit" else None,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "caller": event.caller,
        "detail": outcome.detail,
        "error": event.error,
    }


def _one_line(text: str) -> str:
    """Text without characters that would begin another line, or command a terminal: names are the callers'."""
    return "".join(character if character.isprintable() else "?" for character in text)
