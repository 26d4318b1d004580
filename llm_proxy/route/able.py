"""Which candidates can take a request: tools, images, the form of the answer, and the lengths of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_proxy.types import CHARS_PER_TOKEN, texts_of

from .rules import IMAGE_TYPES, answer_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import BackendConfig
    from llm_proxy.types import ChatRequest

__all__ = ["Abilities", "Needs", "abilities_of", "needs_of", "why_not"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do; lengths in tokens, None for any."""

    has_tools: bool
    has_images: bool
    has_json_schema: bool
    has_json_object: bool
    context_tokens: int | None
    max_output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks of a model.

    Attributes:
        has_tools: Whether it offers tools.
        has_images: Whether it carries an image.
        response_format: Its ``type``, e.g. ``json_schema``; empty where nothing is said.
        prompt_tokens: About the length of its prompt, >= 0.
        output_tokens: Longest answer that it wants, >= 0; 0 where nothing is said.
    """

    has_tools: bool
    has_images: bool
    response_format: str
    prompt_tokens: int
    output_tokens: int


def abilities_of(backend: BackendConfig, model: str) -> Abilities:
    """What a model can do: as its own limits say, else as its backend's settings do."""
    own = backend.limits.get(model)

    def said(name: str) -> Any:
        value = getattr(own, name, None)
        return getattr(backend, name) if value is None else value

    return Abilities(**{name: said(name) for name in Abilities.__slots__})


def needs_of(request: ChatRequest) -> Needs:
    """What a request asks of a model; of fields that are not what they should be, nothing."""
    body = request.body
    chars, has_images = _measured(request.messages)
    longest = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
    return Needs(
        has_tools=bool(body.get("tools") or body.get("functions")),
        has_images=has_images,
        response_format=answer_form(body),
        prompt_tokens=math.ceil(chars / CHARS_PER_TOKEN),
        output_tokens=longest if type(longest) is int and longest > 0 else 0,
    )


def _measured(messages: Sequence[Any]) -> tuple[int, bool]:
    """Characters of text, and whether there is an image: both in one pass, for every call comes here."""
    chars, has_images = 0, False
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            chars += len(content)
        elif isinstance(content, list):
            chars += sum(map(len, texts_of(content)))
            has_images = has_images or any(
                isinstance(part, Mapping) and part.get("type") in IMAGE_TYPES for part in content
            )
    return chars, has_images


def why_not(needs: Needs, abilities: Abilities) -> str:
    """Why a model can't take a request, in a few words; empty where it can."""
    if needs.has_tools and not abilities.has_tools:
        return "no tools"
    if needs.has_images and not abilities.has_images:
        return "no images"
    if needs.response_format == "json_schema" and not abilities.has_json_schema:
        return "no json schema"
    if needs.response_format == "json_object" and not abilities.has_json_object:
        return "no json object"
    if abilities.max_output_tokens is not None and needs.output_tokens > abilities.max_output_tokens:
        return f"answers of {abilities.max_output_tokens} tokens at most"
    both = needs.prompt_tokens + needs.output_tokens
    if abilities.context_tokens is not None and both > abilities.context_tokens:
        return f"window of {abilities.context_tokens} tokens"
    return ""
