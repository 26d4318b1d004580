"""What an answer that is none says of itself: OpenAI's error bodies, and those of servers like it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_proxy.errors import WireError
from llm_proxy.types import HeaderList

from .decode import decoder_for
from .sse import SSEDecoder

__all__ = ["Said", "error_in_event", "said_in"]

_LIMIT_BYTES = 1 << 20
_MOST_CHARS = 2_000  # of the message: some hold the whole prompt


class Said(NamedTuple):
    """What an error says; each empty where it says nothing.

    Attributes:
        code: Machine-readable name, of the inner error where there is one, e.g. ``context_length_exceeded``.
        type: Class of the error.
        message: For people, in lower case.
    """

    code: str = ""
    type: str = ""
    message: str = ""


def said_in(headers: HeaderList, body: bytes) -> Said:
    """Read the error in a plain body; nothing of one that can't be read. Never raises.

    Args:
        headers: Response headers, names in lower case.
        body: As it came, still coded.
    """
    encoding = ",".join(value for name, value in headers if name == "content-encoding")
    try:
        decoder = decoder_for(encoding, limit_bytes=_LIMIT_BYTES)
        data = None if decoder is None else decoder.feed(body)
        return _said(json.loads(data or b""))
    except (WireError, ValueError, RecursionError):
        return Said()


def error_in_event(piece: bytes) -> Said | None:
    """The error that a stream begins with; None where its first bytes hold none. Never raises.

    Args:
        piece: First bytes of a stream, not coded.
    """
    if b'"error"' not in piece and b"event: error" not in piece:
        return None
    try:
        event = next(iter(SSEDecoder().feed(piece)), None)
        value = json.loads(event.data) if event is not None else None
    except (WireError, ValueError, RecursionError):
        return None
    is_error = event is not None and (event.event == "error" or (isinstance(value, dict) and value.get("error")))
    return _said(value) if is_error else None


def _said(value: Any) -> Said:
    error = value.get("error", value) if isinstance(value, Mapping) else None
    if isinstance(error, str):
        return Said(message=error[:_MOST_CHARS].lower())
    if not isinstance(error, Mapping):
        return Said()
    inner = error.get("innererror")
    code = (inner.get("code") if isinstance(inner, Mapping) else None) or error.get("code")
    message = error.get("message")
    return Said(
        code=str(code or "").lower(),
        type=str(error.get("type") or "").lower(),
        message=message[:_MOST_CHARS].lower() if isinstance(message, str) else "",
    )
