"""Embeddings: one answer to a whole request, served again to the same request only.

Why not by text: what a request cost and how its texts were cut is said of all of them together, some servers round
differently in batches of another size, and a request for the rest would not be the one that its caller sent. A request
for base64 and one for numbers have an answer each: those are the upstream's own bytes, and no number is rounded.

Source: OpenAI's API reference, "Embeddings".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_proxy.errors import WireError
from llm_proxy.types import ChatRequest

from .chat import check_model, shown
from .replay import Replay

__all__ = ["check", "rejection", "replay", "view_of"]


def check(body: Mapping[str, Any]) -> None:
    """Raise WireError where a request has no model or nothing to embed."""
    check_model(body)
    given = body.get("input")
    if not isinstance(given, (str, list)) or not given:
        raise WireError(f"'input' is {shown(given)}; send a text, a list of texts, or tokens")


def view_of(body: Mapping[str, Any]) -> Sequence[Any]:
    """The texts as messages of a user, for whoever measures prompts; tokens have no text."""
    given = body["input"]
    texts = [given] if isinstance(given, str) else [text for text in given if isinstance(text, str)]
    return [{"role": "user", "content": text} for text in texts]


def rejection(answer: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Why an answer may not be stored, or the empty string when it may."""
    data = answer.get("data")
    if answer.get("error"):
        return "error"
    if not isinstance(data, list) or len(data) != _texts_in(body["input"]):
        return "no-data"
    return "" if all(_is_embedding(item) for item in data) else "malformed"


def replay(answer: bytes, request: ChatRequest) -> Replay:
    """A stored answer as it came: there is one form only."""
    return Replay("application/json", answer)


def _texts_in(given: Any) -> int:
    """How many texts are to be embedded; a list of numbers is the tokens of one."""
    is_one = isinstance(given, str) or all(type(item) is int for item in given)
    return 1 if is_one else len(given)


def _is_embedding(item: Any) -> bool:
    vector = item.get("embedding") if isinstance(item, Mapping) else None
    return isinstance(vector, (str, list)) and bool(vector)
