"""What a cascade sees of an answer: its form, which may say enough already, and its text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.route.base import Reply
from llm_proxy.types import JSON, texts_of

from . import admission

if TYPE_CHECKING:
    from llm_proxy.observe.events import GradeSource
    from llm_proxy.types import ChatRequest

__all__ = ["Thought", "at_sight", "reply_of", "text_of"]

_LIMITS = ("max_tokens", "max_completion_tokens")


class Thought(NamedTuple):
    """What is thought of an answer.

    Attributes:
        is_good: Whether it is good enough.
        words: Why, in a word; a number is the probability that it is right.
        p_right: That probability, in [0, 1], 0 or 1 where no number says; None where nobody can tell.
        is_whole: Whether it is an answer in form, that a caller can do with where there is no better one.
        is_read: Whether another model was asked about it.
        source: Who looked at what it says; None for nobody.
        tokens: How long it is; None where that is not known.
    """

    is_good: bool
    words: str
    p_right: float | None = 0.0
    is_whole: bool = False
    is_read: bool = False
    source: GradeSource | None = None
    tokens: int | None = None


def at_sight(request: ChatRequest, status: int, completion: JSON | None) -> Thought | None:
    """What can be said of an answer by its form alone; None where it has to be read."""
    if status != 200:
        return Thought(False, f"status-{status}")
    rejection = admission.rejection(completion)
    is_cut_as_asked = rejection == "finish-length" and any(request.body.get(name) for name in _LIMITS)
    if completion is None or (rejection and not is_cut_as_asked):
        return Thought(False, rejection)
    message = completion["choices"][0]["message"]
    if is_cut_as_asked and (message.get("refusal") or not (text_of(completion).strip() or message.get("tool_calls"))):
        return Thought(False, "refusal" if message.get("refusal") else "empty")
    calls = [call.get("function") for call in message.get("tool_calls") or ()] or [message.get("function_call")]
    if any(calls) or message.get("tool_calls"):
        is_sound = _is_offered(request, message) and all(_is_json(call["arguments"]) for call in calls if call)
        return Thought(is_sound, "call" if is_sound else "bad-call", float(is_sound))
    form = request.body.get("response_format")
    if isinstance(form, dict) and str(form.get("type")).startswith("json"):
        is_sound = _is_json(text_of(completion))
        return Thought(is_sound, "json" if is_sound else "bad-json", float(is_sound))
    return None


def _is_offered(request: ChatRequest, message: JSON) -> bool:
    """Whether only tools are called that the request offers: small models make some up."""
    offered = {_name_of(tool) for field in ("tools", "functions") for tool in request.body.get(field) or ()}
    called = message.get("tool_calls") or [message.get("function_call")]
    return "" in offered or offered.issuperset(map(_name_of, called))


def _name_of(tool: JSON) -> str:
    """The name of a tool, or of one that is called; empty where it has none."""
    return str((tool.get("function") or tool.get("custom") or tool).get("name") or "")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def text_of(completion: JSON) -> str:
    """The text of a completion."""
    return "\n".join(texts_of(completion["choices"][0]["message"].get("content")))


def reply_of(completion: JSON, text: str) -> Reply:
    """A completion, whose text is ``text``, as the scorer sees it."""
    choice = completion["choices"][0]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    logprobs = tuple(float(token["logprob"]) for token in tokens)
    return Reply(text, finish_reason=str(choice.get("finish_reason") or ""), logprobs=logprobs)
