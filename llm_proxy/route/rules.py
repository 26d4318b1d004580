"""The rule router: a documented guess from what a request looks like, for as long as no head is trained.

The score is the largest of the rules that apply, 0 when none does::

    1.0   the prompt has `long_prompt_chars` characters or more (below it: the share, up to 0.5)
    0.7   tools are offered, or an image is attached
    0.6   the answer must follow a JSON schema, or the conversation has more than eight messages
    0.6   the last question contains a code block
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .base import Score

if TYPE_CHECKING:
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

__all__ = ["IMAGE_TYPES", "RuleRouter", "answer_form", "has_image", "prompt_chars"]

IMAGE_TYPES = frozenset({"image_url", "input_image"})
"""Types of a message's parts that are images."""

_LONG_CONVERSATION_MESSAGES = 8


class RuleRouter:
    """Scores by length, tools, images, format and conversation."""

    def __init__(self, *, long_prompt_chars: int) -> None:
        self._long_prompt_chars = long_prompt_chars

    def score(self, request: ChatRequest, encoding: Encoding | None) -> Score:
        """Score one request by the rules in the module's text; ``encoding`` is not used."""
        return max(self._rules(request), key=lambda score: score.value)

    def _rules(self, request: ChatRequest) -> Iterator[Score]:
        chars = prompt_chars(request.messages)
        if chars >= self._long_prompt_chars:
            yield Score(1.0, f"prompt of {chars} characters")
        else:
            yield Score(0.5 * chars / self._long_prompt_chars, "short prompt")
        if request.body.get("tools") or request.body.get("functions"):
            yield Score(0.7, "tools")
        if has_image(request.messages):
            yield Score(0.7, "image")
        if answer_form(request.body) == "json_schema":
            yield Score(0.6, "json schema")
        if len(request.messages) > _LONG_CONVERSATION_MESSAGES:
            yield Score(0.6, "long conversation")
        if request.messages and "```" in "".join(_texts(request.messages[-1:])):
            yield Score(0.6, "code block")


def answer_form(body: Mapping[str, Any]) -> str:
    """The form that an answer must have, e.g. ``json_schema``, by chat's field or that of responses; else empty."""
    text = body.get("text")
    wanted = body.get("response_format") or (text.get("format") if isinstance(text, Mapping) else None)
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    return kind if isinstance(kind, str) else ""


def prompt_chars(messages: Any) -> int:
    """Characters of text in all messages."""
    return sum(map(len, _texts(messages)))


def has_image(messages: Any) -> bool:
    """Whether any message carries an image part."""
    return any(part.get("type") in IMAGE_TYPES for part in _parts(messages))


def _texts(messages: Any) -> Iterator[str]:
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            yield content
    for part in _parts(messages):
        if isinstance(part.get("text"), str):
            yield part["text"]


def _parts(messages: Any) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, Mapping))
