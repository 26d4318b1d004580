"""A stored completion written again in the form that the caller asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from llm_proxy.errors import WireError
from llm_proxy.types import JSON, ChatRequest

from .compact import Write, compact

__all__ = ["Replay", "logged_pieces", "pieces_of", "replay"]

MAX_PIECES = 16
"""Most deltas that one text is split into: a client spends more on a chunk than on its characters."""
_MIN_PIECE_CHARS = 32
_STREAMED = ("reasoning_content", "reasoning", "content", "refusal")
_NOT_LAST = frozenset({"index", "message", "delta", "logprobs"})  # what a finish chunk does not take from a choice

_REMEMBERED_BYTES = 8_192  # of a completion; its events take a few times as many
_PARSE = json.JSONDecoder().decode


class Replay(NamedTuple):
    """A response body, whole, and its content type."""

    content_type: str
    body: bytes


def replay(completion: bytes, request: ChatRequest) -> Replay:
    """Write a stored completion as the answer to a request.

    To a plain request these are the stored bytes, unread. To a streamed one it is an event stream as
    OpenAI's, made at once: per choice a delta with the role, the deltas of its text and tool calls, and a
    chunk with the finish reason; then token counts where the caller asked for them, and ``[DONE]``. A
    `Recorder` that reads it back gets the same completion.

    Args:
        completion: A ``chat.completion`` object, UTF-8 JSON.
        request: The request to answer; only its form matters.

    Raises:
        WireError: A stream is asked for, and the completion is not what its name says.

    Source: OpenAI's API reference, "Chat Completions: streaming".
    """
    if not request.is_stream:
        return Replay("application/json", completion)
    made = _remembered if len(completion) <= _REMEMBERED_BYTES else _streamed
    return Replay("text/event-stream; charset=utf-8", made(completion, request.wants_usage))


def _streamed(completion: bytes, wants_usage: bool) -> bytes:
    try:
        value = _PARSE(completion.decode())
        return compact(lambda write: _stream(value, wants_usage, write))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise WireError(f"stored completion can't be streamed: {type(exc).__name__}: {exc}; remove it") from exc


@lru_cache(maxsize=128)
def _remembered(completion: bytes, wants_usage: bool) -> bytes:
    """Popular answers are replayed again and again; the same bytes give the same events. 8 MiB at most."""
    return _streamed(completion, wants_usage)


def _stream(completion: JSON, wants_usage: bool, write: Write) -> str:
    """The events, joined: what is the same in every chunk is serialised once."""
    choices, usage = completion["choices"], completion.get("usage")
    top = {name: value for name, value in completion.items() if name not in {"choices", "usage"}}
    head = "data: " + write({**top, "object": "chat.completion.chunk"})[:-1] + ',"choices":['
    tail = '],"usage":null}\n\n' if wants_usage else "]}\n\n"
    parts: list[str] = []
    for position, choice in enumerate(choices):
        for chunk in _choice_chunks(choice, position, write):
            parts += (head, chunk, tail)
    if wants_usage and usage is not None:
        parts += (head, '],"usage":', write(usage), "}\n\n")
    parts.append("data: [DONE]\n\n")
    return "".join(parts)


def _choice_chunks(choice: JSON, position: int, write: Write) -> Iterator[str]:
    """The chunks of one choice, each as it stands in ``choices``."""
    message = choice["message"]
    index = write(choice.get("index", position))
    logprobs = choice.get("logprobs")
    before, after = f'{{"index":{index},"delta":', ',"finish_reason":null}'
    no_logprobs = ',"logprobs":null' if "logprobs" in choice else ""

    if logprobs is None:
        yield f"{before}{write(_first_delta(message))}{no_logprobs}{after}"
        for delta in _text_deltas(message, write):
            yield f"{before}{delta}{no_logprobs}{after}"
    else:
        yield from _logged_chunks(message, logprobs, (before, after), write)
    for delta in _call_deltas(message, write):
        yield f"{before}{delta}{no_logprobs}{after}"

    rest = {name: value for name, value in choice.items() if name not in _NOT_LAST}
    yield f"{before}{{}}{no_logprobs},{write({'finish_reason': None, **rest})[1:]}"


def _first_delta(message: JSON) -> JSON:
    """The message as it begins: text that is streamed is still empty, all else is there."""
    first = {name: "" if name in _STREAMED and type(value) is str else value for name, value in message.items()}
    if _are_calls(message):
        del first["tool_calls"]
    call: Any = message.get("function_call")
    if _has_arguments(call):
        first["function_call"] = {**call, "arguments": ""}
    return first


def _text_deltas(message: JSON, write: Write) -> Iterator[str]:
    for name in _STREAMED:
        text: Any = message.get(name)
        if _is_text(text):
            for piece in pieces_of(text):
                yield f'{{"{name}":{write(piece)}}}'


def _call_deltas(message: JSON, write: Write) -> Iterator[str]:
    legacy: Any = message.get("function_call")
    if _has_arguments(legacy):
        for piece in pieces_of(legacy["arguments"]):
            yield f'{{"function_call":{{"arguments":{write(piece)}}}}}'
    for index, call in enumerate(message["tool_calls"] if _are_calls(message) else ()):
        # An index of the call's own (Ollama gives every call 0) would make clients mix the calls up.
        opened = {"index": index} | call | {"index": index}
        function = call.get("function")
        if not _has_arguments(function):
            yield f'{{"tool_calls":[{write(opened)}]}}'
            continue
        opened["function"] = {**function, "arguments": ""}
        yield f'{{"tool_calls":[{write(opened)}]}}'
        for piece in pieces_of(function["arguments"]):
            yield f'{{"tool_calls":[{{"index":{index},"function":{{"arguments":{write(piece)}}}}}]}}'


def _logged_chunks(message: JSON, logprobs: JSON, frame: tuple[str, str], write: Write) -> Iterator[str]:
    """The first delta and the deltas of text, each with its share of the log-probabilities."""
    before, after = frame
    texts = {name: message[name] for name in _STREAMED if name in message and _is_text(message[name])}
    shared = {name: items for name, items in logprobs.items() if name in texts and type(items) is list}
    first = {name: [] if name in shared else value for name, value in logprobs.items()}
    yield f'{before}{write(_first_delta(message))},"logprobs":{write(first)}{after}'
    for name, text in texts.items():
        for piece, items in logged_pieces(text, shared.get(name, [])):
            share = write({**dict.fromkeys(logprobs), name: items}) if items else "null"
            yield f'{before}{{"{name}":{write(piece)}}},"logprobs":{share}{after}'


def logged_pieces(text: str, items: list[Any]) -> list[tuple[str, list[Any]]]:
    """Text and its tokens in the same pieces where the tokens spell the text, else in even shares."""
    tokens: list[Any] = [item.get("token") if isinstance(item, dict) else None for item in items]
    size = -(-len(items) // MAX_PIECES)
    if items and all(type(token) is str for token in tokens) and "".join(tokens) == text:
        starts = range(0, len(items), size)
        return [("".join(tokens[start : start + size]), items[start : start + size]) for start in starts]
    pieces = pieces_of(text)
    size = -(-len(items) // len(pieces))
    return [(piece, items[turn * size : (turn + 1) * size]) for turn, piece in enumerate(pieces)]


def pieces_of(text: str) -> list[str]:
    """At most `MAX_PIECES` pieces, cut before a space where one is near; joined they are the text."""
    size = max(_MIN_PIECE_CHARS, -(-len(text) // MAX_PIECES))
    pieces = []
    start = 0
    while start < len(text):
        end = start + size
        near = text.find(" ", end, end + _MIN_PIECE_CHARS)
        end = near if near > 0 else end
        pieces.append(text[start:end])
        start = end
    return pieces


def _is_text(value: Any) -> bool:
    return type(value) is str and value != ""


def _are_calls(message: JSON) -> bool:
    calls = message.get("tool_calls")
    return bool(calls) and isinstance(calls, list) and all(isinstance(call, dict) for call in calls)


def _has_arguments(function: Any) -> bool:
    return isinstance(function, dict) and type(function.get("arguments")) is str
