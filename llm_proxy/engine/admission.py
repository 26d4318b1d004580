"""May this completion be stored? Only whole, well-formed successes are: never errors, refusals or cut answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_proxy.wire.apis import OTHERS

if TYPE_CHECKING:
    from llm_proxy.types import ChatRequest

__all__ = ["is_call_for", "is_tool_call", "rejection", "rejection_for"]

_WHOLE = ("stop", "tool_calls", "function_call")
_CUT = ("length", "content_filter")
_ANSWERS = ("content", "tool_calls", "function_call", "audio")


def rejection_for(request: ChatRequest, answer: Mapping[str, Any] | None) -> str:
    """Why the answer to a request of any API may not be stored, or the empty string when it may."""
    if request.api in OTHERS and answer is not None:
        return OTHERS[request.api].rejection(answer, request.body)
    choices = request.body.get("n")
    return rejection(answer, choices=choices if isinstance(choices, int) else 1)


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


def is_call_for(request: ChatRequest, answer: Mapping[str, Any]) -> bool:
    """Whether the answer to a request of any API, which may be stored, calls a tool."""
    return OTHERS[request.api].is_call(answer) if request.api in OTHERS else is_tool_call(answer)


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
        # The reason goes into a header, so a word of the upstream's own choice is not taken over.
        return f"finish-{finish}".replace("_", "-") if finish in _CUT else "finish-unknown"
    if message.get("refusal"):
        return "refusal"
    if not _is_message(message):
        return "malformed"
    return "" if any(_says_something(message.get(name)) for name in _ANSWERS) else "empty"


def _is_message(message: Mapping[str, Any]) -> bool:
    """Whether each field of an answer has the form that clients rely on; one that is null counts as absent.

    Content as a list of typed parts is no part of OpenAI's API, but some servers of its kind send it.

    Source: OpenAI's API reference, "The chat completion object".
    """
    content, calls = message.get("content"), message.get("tool_calls")
    legacy, audio = message.get("function_call"), message.get("audio")
    return (
        message.get("role") in (None, "assistant")
        and (content is None or isinstance(content, str) or _are_all(content, _is_part))
        and (calls is None or _are_all(calls, _is_call))
        and (legacy is None or _has_texts(legacy, "name", "arguments"))
        and (audio is None or isinstance(audio, Mapping))
    )


def _are_all(items: object, has_form: Callable[[Mapping[str, Any]], bool]) -> bool:
    return isinstance(items, list) and all(isinstance(item, Mapping) and has_form(item) for item in items)


def _is_part(part: Mapping[str, Any]) -> bool:
    return _has_texts(part, "type")


def _is_call(call: Mapping[str, Any]) -> bool:
    return _has_texts(call.get("function"), "name", "arguments") or _has_texts(call.get("custom"), "name", "input")


def _has_texts(value: object, *names: str) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in names)


def _says_something(value: object) -> bool:
    return bool(value.strip() if isinstance(value, str) else value)
