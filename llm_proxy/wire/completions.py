"""Completions of before chat: texts that go on from a prompt. Plain and streamed answers share one entry.

Source: OpenAI's API reference, "Completions (legacy)".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_proxy.errors import WireError
from llm_proxy.types import JSON, ChatRequest

from .assemble import Text, extend_lists, objects, replace_field
from .chat import check_model, shown
from .compact import Write, compact
from .origin import Origin
from .replay import Replay, pieces_of

__all__ = ["TextChunks", "check", "rejection", "replay", "view_of"]

_PARSE = json.JSONDecoder().decode
_TOP_ORDER = ("id", "object", "created", "model", "choices", "usage")


def check(body: Mapping[str, Any]) -> None:
    """Raise WireError where a request has no model, or a prompt that is none."""
    check_model(body)
    prompt = body.get("prompt")
    if prompt is not None and not isinstance(prompt, (str, list)):
        raise WireError(f"'prompt' is {shown(prompt)}; send a text, a list of texts, or tokens")


def view_of(body: Mapping[str, Any]) -> Sequence[Any]:
    """The prompts as messages of a user, for whoever measures prompts; tokens have no text."""
    prompt = body.get("prompt")
    texts = prompt if isinstance(prompt, list) else [prompt]
    return [{"role": "user", "content": text} for text in texts if isinstance(text, str)]


def rejection(answer: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Why an answer may not be stored, or the empty string when it may.

    One that repeats its prompt and is to say no more is whole, though it ends for its length: so prompts are scored.
    """
    choices = answer.get("choices")
    if answer.get("error"):
        return "error"
    if not isinstance(choices, list) or len(choices) < _choices_in(body):
        return "no-choices"
    whole = ("stop", "length") if body.get("echo") is True and body.get("max_tokens") == 0 else ("stop",)
    return next((reason for reason in (_choice_rejection(choice, whole) for choice in choices) if reason), "")


def replay(answer: bytes, request: ChatRequest) -> Replay:
    """Write a stored answer in the form that a request asks for; see `llm_proxy.wire.replay.replay`.

    Raises:
        WireError: A stream is asked for, and the answer is not what its name says.
    """
    if not request.is_stream:
        return Replay("application/json", answer)
    try:
        value = _PARSE(answer.decode())
        body = compact(lambda write: "".join(_events(value, request.wants_usage, write)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise WireError(f"stored completion can't be streamed: {type(exc).__name__}: {exc}; remove it") from exc
    return Replay("text/event-stream; charset=utf-8", body)


class TextChunks:
    """Collects the chunks of one stream; see `llm_proxy.wire.recorder.Chunks`."""

    is_over = False

    def __init__(self) -> None:
        self._top: JSON = {}
        self._choices: dict[int, JSON] = {}
        self._origin = Origin()

    @property
    def is_mixed(self) -> bool:
        """Whether the chunks are of more than one answer."""
        return self._origin.is_mixed

    @property
    def is_finished(self) -> bool:
        """Whether there are choices and each has a finish reason."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def add(self, chunk: JSON) -> None:
        """Take in one chunk; raises ValueError where ``choices`` is not what the protocol says."""
        self._origin.add(chunk)
        for choice in objects(chunk.get("choices") or []):
            index = choice.get("index") or 0
            if type(index) is not int:
                raise ValueError("index of a choice is not a number")
            _add(self._choices.setdefault(index, {"text": Text()}), choice)
        for name, value in chunk.items():
            if value or name not in self._top:
                self._top[name] = value

    def completion(self) -> JSON:
        """The ``text_completion`` object."""
        choices = [{"index": index, **_finished(choice)} for index, choice in sorted(self._choices.items())]
        known = {**self._top, "choices": choices}
        if known.get("usage") is None:
            known.pop("usage", None)
        ordered = {name: known[name] for name in _TOP_ORDER if name in known}
        return {**ordered, **{name: value for name, value in known.items() if name != "obfuscation"}}


def _add(known: JSON, choice: JSON) -> None:
    for name, value in choice.items():
        if name == "text":
            if isinstance(value, str):
                known["text"].grow(value)
        elif value is None:
            known.setdefault(name, None)
        elif name == "logprobs":
            known[name] = known.get(name) or {}
            extend_lists(known[name], value)
        elif name != "index":
            replace_field(known, name, value)


def _finished(choice: JSON) -> JSON:
    return {**choice, "text": "".join(choice["text"])}


def _events(answer: JSON, wants_usage: bool, write: Write) -> Iterator[str]:
    top = {name: value for name, value in answer.items() if name not in {"choices", "usage"}}
    head = "data: " + write(top)[:-1] + ',"choices":['
    tail = '],"usage":null}\n\n' if wants_usage else "]}\n\n"
    for position, choice in enumerate(answer["choices"]):
        for chunk in _chunks(choice, position):
            yield head + write(chunk) + tail
    usage = answer.get("usage")
    if wants_usage and usage is not None:
        yield head + '],"usage":' + write(usage) + "}\n\n"
    yield "data: [DONE]\n\n"


def _chunks(choice: JSON, position: int) -> Iterator[JSON]:
    """The chunks of one choice; log-probabilities stay together with their text."""
    index, text = choice.get("index", position), choice["text"]
    if choice.get("logprobs"):
        yield {"text": text, "index": index, "logprobs": choice["logprobs"], "finish_reason": None}
    else:
        for piece in pieces_of(text):
            yield {"text": piece, "index": index, "logprobs": None, "finish_reason": None}
    yield {**choice, "text": "", "index": index, "logprobs": None}


def _choices_in(body: Mapping[str, Any]) -> int:
    """How many choices a request asks for: so many for each of its prompts."""
    n, prompt = body.get("n"), body.get("prompt")
    is_many = isinstance(prompt, list) and not all(type(item) is int for item in prompt)
    return (n if type(n) is int and n > 1 else 1) * (len(prompt) if is_many and prompt else 1)


def _choice_rejection(choice: object, whole: Sequence[str]) -> str:
    if not isinstance(choice, Mapping) or not isinstance(choice.get("text"), str):
        return "malformed"
    finish = choice.get("finish_reason")
    if finish not in whole:
        return {"length": "finish-length", "content_filter": "finish-content-filter"}.get(str(finish), "finish-unknown")
    return "" if choice["text"].strip() else "empty"
