"""Requests that are sent before a call's own, or beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.types import JSON, ChatRequest, Outgoing

__all__ = ["plainly", "raw_of", "within", "without_key"]

_KEY = "idempotency-key"  # it stands for one request at one backend
_NOT_SENT = ("stream", "stream_options", "store", "metadata")


def without_key(outgoing: Outgoing) -> Outgoing:
    """The same without the key that stands for one request, since another is sent."""
    return replace(outgoing, headers=[(name, value) for name, value in outgoing.headers if name != _KEY])


def within(outgoing: Outgoing, wait_s: float, callers_s: float | None) -> Outgoing:
    """The same, waiting for no byte longer than this, the backend's own limit, or the caller's."""
    limits = (one for one in (outgoing.timeout_s, callers_s) if one is not None)
    return replace(outgoing, timeout_s=min([wait_s, *limits]))


def plainly(request: ChatRequest) -> ChatRequest:
    """The same request for an answer in one piece, that leaves nothing behind upstream."""
    body = {name: value for name, value in request.body.items() if name not in _NOT_SENT}
    return replace(request, body=body, raw=raw_of(body))


def raw_of(body: JSON) -> bytes:
    """A request's body as bytes."""
    return json.dumps(body, separators=(",", ":")).encode()
