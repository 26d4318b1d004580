"""Answers by which llm-proxy itself says no: booked as refused, in the shape of OpenAI's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_proxy.wire.chat import error_body

from .ports import Ready

if TYPE_CHECKING:
    from .call import Call
    from .settle import Settler

__all__ = ["OWN_HEADERS", "absent", "unroutable"]

OWN_HEADERS = (
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
)
"""Headers of what the proxy itself says: JSON that no page may run, frame or keep."""
_AGAIN = ("x-should-retry", "false")  # openai retries a 504


def absent(call: Call, settler: Settler) -> Ready:
    """What ``only-if-cached`` gets where nothing is stored: one reason in the ledger, whatever was near.

    Source: RFC 9111 section 5.2.1.7.
    """
    outcome = call.outcome.with_changes(status="refused", forward="")
    settler.passed(call.request, outcome.with_changes(detail="not-cached"), call.started_s, status=504)
    body = error_body("no stored answer, and only-if-cached was asked for", type="cache_miss", code="not_cached")
    return Ready(504, (("content-type", "application/json"), _AGAIN, *outcome.headers), body, outcome)


def unroutable(call: Call, settler: Settler, message: str) -> Ready:
    """What a call gets that names a route where none may choose."""
    outcome = call.outcome.with_changes(status="refused", forward="", detail="route-not-possible")
    settler.passed(call.request, outcome, call.started_s, status=400)
    body = error_body(message, type="invalid_request_error", code="route_not_possible", param="model")
    return Ready(400, (*OWN_HEADERS, _AGAIN, *outcome.headers), body, outcome)
