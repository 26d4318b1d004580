"""What the event of a call says of who asked, and for what."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

from llm_proxy.backends.openai_compatible import credentials_of
from llm_proxy.observe.events import NAME_CHARS

if TYPE_CHECKING:
    from llm_proxy.types import ChatRequest

__all__ = ["CALLER_CHARS", "AskedBy", "asked_by", "caller_name"]

CALLER_CHARS = 8
_QUESTION_CHARS = 2_000
_TRACEPARENT_CHARS = 128


class AskedBy(TypedDict):
    """Fields of `llm_proxy.observe.events.CallEvent`."""

    requested: str
    caller: str
    traceparent: str
    question: str
    api: str


def asked_by(request: ChatRequest, *, keeps_questions: bool) -> AskedBy:
    """Who asked for what.

    Args:
        request: The call.
        keeps_questions: Whether the user's last text may be kept.
    """
    holder, presented = request.holder, credentials_of(request.headers)
    named = caller_name(presented[0][1]) if presented else ""
    return {
        "requested": request.model[:NAME_CHARS],
        "caller": named if holder is None else holder.id,
        "traceparent": request.headers.get("traceparent", "")[:_TRACEPARENT_CHARS],
        "question": request.question[:_QUESTION_CHARS] if keeps_questions else "",
        "api": request.api,
    }


@lru_cache(maxsize=256)
def caller_name(key: str) -> str:
    """A key's public name: the first eight hexadecimal digits of its SHA-256, which nobody can turn back.

    The same as ``printf %s "$KEY" | sha256sum | cut -c1-8`` prints.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:CALLER_CHARS]
