"""Responses: what a request asks, whether all of it is known here, what ends a stream, and what may be stored.

An answer is served again only where the request itself holds all that it depends on. What upstream keeps (an earlier
response, a conversation, a stored prompt, an item by its id) or does on its own (tools that it runs, work in the
background) is passed on, and `bypass` says why.

Source: OpenAI's API reference, "Responses" and "Responses: streaming events".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_proxy.errors import WireError
from llm_proxy.types import JSON, texts_of

from .chat import shown
from .origin import Origin

__all__ = [
    "KEPT_UPSTREAM",
    "FirstNamed",
    "ResponseEvents",
    "bypass",
    "check",
    "id_in_front",
    "is_call",
    "rejection",
    "said_in",
    "view_of",
]

KEPT_UPSTREAM = ("previous_response_id", "conversation")
"""Fields of a request that name what one server alone knows."""

_ELSEWHERE = (
    ("previous_response_id", "previous-response"), ("conversation", "conversation"), ("background", "background"),
    ("prompt", "stored-prompt"),
)  # fmt: skip
_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*"([\w.:-]{1,200})"')
_OURS = frozenset({"function", "custom"})  # the caller runs these tools, with what the answer says
_CALLS = frozenset({"function_call", "custom_tool_call"})
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


def check(body: Mapping[str, Any]) -> None:
    """Raise WireError where a request's model or input is of a wrong type; both may be absent."""
    model, given = body.get("model"), body.get("input")
    if model is not None and not isinstance(model, str):
        raise WireError(f"'model' is {shown(model)}; send the name of a model")
    if given is not None and not isinstance(given, (str, list)):
        raise WireError(f"'input' is {shown(given)}; send a text or a list of items")


def view_of(body: Mapping[str, Any]) -> Sequence[Any]:
    """The input as messages: what is said to the model in general first; other items as they are."""
    given, said = body.get("input"), body.get("instructions")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    first = [{"role": "system", "content": said}] if isinstance(said, str) else []
    return [*first, *(_message(item) for item in items if isinstance(item, dict))]


def bypass(body: Mapping[str, Any]) -> str:
    """Why the answer depends on more than the request, one lower-case word; empty where it does not."""
    for name, reason in _ELSEWHERE:
        if body.get(name):
            return reason
    given, tools = body.get("input"), body.get("tools") or []
    if not given or not body.get("model"):
        return "no-input"
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and tool.get("type") in _OURS for tool in tools):
        return "server-tools"
    items = given if isinstance(given, list) else []
    if not all(isinstance(item, dict) for item in items) or any(item.get("type") == "item_reference" for item in items):
        return "item-reference"
    return ""


def rejection(answer: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Why an answer may not be stored, or the empty string when it may: whole, well-formed successes only."""
    output, status = answer.get("output"), answer.get("status")
    if answer.get("error") or status == "failed":
        return "error"
    if status != "completed" or answer.get("incomplete_details"):
        return "incomplete"
    if not isinstance(output, list) or not all(isinstance(item, Mapping) for item in output):
        return "malformed"
    reason = next((reason for reason in map(_item_rejection, output) if reason), "")
    return reason or ("" if any(map(_says_something, output)) else "empty")


def is_call(answer: Mapping[str, Any]) -> bool:
    """Whether an answer calls a tool: it is then served on exact keys only."""
    return any(item["type"] in _CALLS for item in answer["output"])


def said_in(answer: Mapping[str, Any]) -> str | None:
    """What an answer says where it is text and no call; raises LookupError, TypeError or AttributeError for none."""
    texts = [text for item in answer["output"] if item["type"] == "message" for text in texts_of(item["content"])]
    return None if is_call(answer) else "".join(texts)


def id_in_front(raw: bytes) -> str:
    """The id of a response of which only the beginning is there, where it stands first, as OpenAI has it; else empty.

    An answer with images in it may be too long to be read whole.
    """
    found = _ID_FIRST.match(raw)
    return "" if found is None else found[1].decode()


class ResponseEvents:
    """Waits for the event that ends a stream: it holds the whole answer. See `llm_proxy.wire.recorder.Chunks`.

    Where it holds another text than was handed on before, nobody knows which of the two the answer is.
    """

    is_finished = False

    def __init__(self) -> None:
        self.is_over = False
        self._answer: JSON = {}
        self._said: dict[tuple[str, str], list[str]] = {}
        self._origin = Origin()

    @property
    def is_mixed(self) -> bool:
        """Whether the events are of more than one response: few of them name theirs, the first and the last do."""
        return self._origin.is_mixed

    def add(self, chunk: JSON) -> None:
        """Take in one event; raises ValueError where it is an error, or the last one and holds no such response."""
        kind, named = chunk.get("type"), chunk.get("response")
        if isinstance(named, dict):
            self._origin.add(named)
        if kind == "response.output_text.delta":
            place = str(chunk.get("output_index")), str(chunk.get("content_index"))
            self._said.setdefault(place, []).append(str(chunk.get("delta")))
        if kind == "error":
            raise ValueError("the stream holds an error")
        if kind in _TERMINAL:
            if not isinstance(named, dict):
                raise ValueError("the last event holds no response")
            if self._said and sorted(map("".join, self._said.values())) != sorted(_texts(named)):
                raise ValueError("the last event holds another text than the events before it")
            self._answer, self.is_over = named, True

    def completion(self) -> JSON:
        """The ``response`` object; raises ValueError where none came."""
        if not self.is_over:
            raise ValueError("the stream ended before its last event")
        return self._answer


class FirstNamed:
    """Waits for the first event that names its response; see `llm_proxy.wire.recorder.Chunks`."""

    is_finished = is_mixed = False

    def __init__(self) -> None:
        self._named: JSON = {}

    @property
    def is_over(self) -> bool:
        """Whether it came."""
        return bool(self._named)

    def add(self, chunk: JSON) -> None:
        """Look at one event."""
        named = chunk.get("response")
        if isinstance(named, dict):
            self._named = {name: value for name, value in named.items() if name == "id"}

    def completion(self) -> JSON:
        """The response's id, and nothing else of it."""
        return self._named


def _texts(answer: JSON) -> Iterator[str]:
    """What the messages of an answer say, part by part; not what is refused, or thought."""
    output = answer.get("output")
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "message":
            yield from filter(None, texts_of(item.get("content")))


def _message(item: JSON) -> JSON:
    """An item that is a message, in its short form, so that both forms are the same question."""
    if item.get("type") == "message":
        return {name: value for name, value in item.items() if name != "type"}
    return item


def _item_rejection(item: Mapping[str, Any]) -> str:
    kind = item.get("type")
    if item.get("status") not in (None, "completed"):
        return "incomplete"
    if kind in _CALLS:
        said = item.get("arguments" if kind == "function_call" else "input")
        return "" if isinstance(item.get("name"), str) and isinstance(said, str) else "malformed"
    if kind != "message":
        return "" if kind == "reasoning" else "unknown-item"
    content = item.get("content")
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return "malformed"
    if any(part.get("type") == "refusal" for part in content):
        return "refusal"
    return "" if all(isinstance(part.get("text"), str) for part in content) else "malformed"


def _says_something(item: Mapping[str, Any]) -> bool:
    if item["type"] == "message":
        return any(part["text"].strip() for part in item["content"])
    return item["type"] in _CALLS
