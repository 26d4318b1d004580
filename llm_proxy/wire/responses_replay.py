"""A stored response written again: as one object, or as the events that a stream of it would have had.

::

    response.created  response.in_progress
        response.output_item.added                              for each item
            response.content_part.added                         for each part of a message
                response.output_text.delta ...  response.output_text.annotation.added ...  response.output_text.done
            response.content_part.done
            response.reasoning_summary_part.added ... .done     the same for the summary of a reasoning
            response.function_call_arguments.delta ... .done    or response.custom_tool_call_input
        response.output_item.done
    response.completed

A response repeats some of its request that no answer depends on (`llm_proxy.types.ECHOED`): it says what this caller
sent. Its id stays the upstream's, which is what a caller may go on from.

Source: OpenAI's API reference, "Responses: streaming events".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llm_proxy.errors import WireError
from llm_proxy.types import ECHOED, JSON, ChatRequest

from .compact import Write, compact
from .replay import Replay, logged_pieces, pieces_of

__all__ = ["replay"]

_PARSE = json.JSONDecoder().decode
_NOT_YET: JSON = {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
_INPUTS = {"function_call": "arguments", "custom_tool_call": "input"}
_CALLS = {"function_call": "response.function_call_arguments", "custom_tool_call": "response.custom_tool_call_input"}
_TEXTS = {"output_text": "response.output_text", "reasoning_text": "response.reasoning_text"}
_SUMMARY = "response.reasoning_summary_text"

Event = tuple[str, JSON]


def replay(answer: bytes, request: ChatRequest) -> Replay:
    """Write a stored response as the answer to a request; see `llm_proxy.wire.replay.replay`.

    Raises:
        WireError: The response is not what its name says.
    """
    try:
        stored = _PARSE(answer.decode())
        value = _echoing(stored, request)
        if not request.is_stream:
            body = answer if value == stored else compact(lambda write: write(value))
            return Replay("application/json", body)
        body = compact(lambda write: "".join(_stream(value, write)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise WireError(f"stored response can't be replayed: {type(exc).__name__}: {exc}; remove it") from exc
    return Replay("text/event-stream; charset=utf-8", body)


def _echoing(stored: JSON, request: ChatRequest) -> JSON:
    """The response with what this request says of itself, in the fields that the upstream repeats."""
    said = {name: request.body.get(name) for name in ECHOED if name in stored}
    if "metadata" in said:
        said["metadata"] = said["metadata"] or {}
    return {**stored, **said}


def _stream(response: JSON, write: Write) -> Iterator[str]:
    for number, (kind, fields) in enumerate(_events(response)):
        yield f"event: {kind}\ndata: {write({'type': kind, 'sequence_number': number, **fields})}\n\n"


def _events(response: JSON) -> Iterator[Event]:
    begun = {name: _NOT_YET.get(name, value) for name, value in response.items()}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(response["output"]):
        yield from _item_events(item, {"output_index": index})
    yield "response.completed", {"response": response}


def _item_events(item: JSON, at: JSON) -> Iterator[Event]:
    kind, place = item["type"], {"item_id": item.get("id", ""), **at}
    yield "response.output_item.added", {**at, "item": _begun(item)}
    if kind in _CALLS:
        said = item[_INPUTS[kind]]
        yield from _deltas(_CALLS[kind], said, place)
        named = {"name": item["name"]} if kind == "function_call" else {}
        yield f"{_CALLS[kind]}.done", {**place, **named, _INPUTS[kind]: said}
    for index, part in enumerate(item.get("summary") or ()):
        yield from _summary_events(part, {**place, "summary_index": index})
    for index, part in enumerate(item.get("content") or ()):
        yield from _part_events(part, {**place, "content_index": index})
    yield "response.output_item.done", {**at, "item": item}


def _begun(item: JSON) -> JSON:
    """An item as it is while nothing of it was said."""
    empty: JSON = {"arguments": "", "input": "", "content": [], "summary": [], "status": "in_progress"}
    return {name: empty.get(name, value) if value is not None else None for name, value in item.items()}


def _summary_events(part: JSON, place: JSON) -> Iterator[Event]:
    yield "response.reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}
    yield from _deltas(_SUMMARY, part["text"], place)
    yield f"{_SUMMARY}.done", {**place, "text": part["text"]}
    yield "response.reasoning_summary_part.done", {**place, "part": part}


def _part_events(part: JSON, place: JSON) -> Iterator[Event]:
    kind = _TEXTS.get(part["type"])
    if kind is None:  # of a kind that has no deltas known here
        yield "response.content_part.added", {**place, "part": part}
        yield "response.content_part.done", {**place, "part": part}
        return
    empty: JSON = {"text": "", "annotations": [], "logprobs": []}
    yield "response.content_part.added", {**place, "part": {name: empty.get(name, part[name]) for name in part}}
    logprobs = part.get("logprobs") or []
    is_said = part["type"] == "output_text"
    yield from _logged_deltas(part["text"], logprobs, place) if is_said else _deltas(kind, part["text"], place)
    for index, annotation in enumerate(part.get("annotations") or ()):
        yield "response.output_text.annotation.added", {**place, "annotation_index": index, "annotation": annotation}
    yield f"{kind}.done", {**place, "text": part["text"], **({"logprobs": logprobs} if is_said else {})}
    yield "response.content_part.done", {**place, "part": part}


def _logged_deltas(text: str, logprobs: Sequence[Any], place: JSON) -> Iterator[Event]:
    for piece, items in logged_pieces(text, list(logprobs)) if text else ():
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": items}


def _deltas(kind: str, text: str, place: JSON) -> Iterator[Event]:
    for piece in pieces_of(text):
        yield f"{kind}.delta", {**place, "delta": piece}
