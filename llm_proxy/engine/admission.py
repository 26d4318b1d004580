"""May this completion be stored? Only whole, plain successes are: never errors, refusals or cut answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_tool_call", "rejection"]

_WHOLE = ("stop", "tool_calls", "function_call")
_CUT = ("length", "content_filter")
_ANSWERS = ("content", "tool_calls", "function_call", "audio")


def rejection(completion: Mapping[str, Any] | None, *, choices: int = 1) -> str:
    """Why a completion may not be stored, or the empty string when it may.

    Args:
        completion: The ``chat.completion`` object, or None when the answer was incomplete.
        choices: How many choices were asked for, >= 1.
    """
    if completion is None:
        return "incomplete"
    if completion.get("error"):
        return "error"
    found = completion.get("choices")
    if not isinstance(found, list) or len(found) < max(1, choices):
        return "no-choices"
    return next((reason for reason in map(_choice_rejection, found) if reason), "")


def is_tool_call(completion: Mapping[str, Any]) -> bool:
    """Whether any choice calls a tool: such an answer is served on exact keys only."""
    messages = [choice["message"] for choice in completion["choices"]]
    return any(message.get("tool_calls") or message.get("function_call") for message in messages)


def _choice_rejection(choice: object) -> str:
    if not isinstance(choice, Mapping) or not isinstance(choice.get("message"), Mapping):
        return "malformed"
    if choice.get("error"):
        return "error"
    message, finish = choice["message"], choice.get("finish_reason")
    if finish not in _WHOLE:
        # The reason goes into a header: only known words do.
        return f"finish-{finish}".replace("_", "-") if finish in _CUT else "finish-unknown"
    if message.get("refusal"):
        return "refusal"
    return "" if any(_says_something(message.get(name)) for name in _ANSWERS) else "empty"


def _says_something(value: object) -> bool:
    return bool(value.strip() if isinstance(value, str) else value)
