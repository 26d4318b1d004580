"""Chunks of a streamed answer put together to the completion that a plain request would have got.

How a field grows:

- text is concatenated; identifiers (`_WHOLE`) are sent whole, and the first one that is not empty counts;
- objects are merged field by field; lists of objects with ``index`` are merged by it, other lists grow;
- numbers, booleans and null replace what was there, except that null never wipes a value out.

Servers differ most in tool calls: see `_ToolCalls`.

Source: OpenAI's API reference, "Chat Completions: streaming"; unknown fields are kept in the same way.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.types import JSON

from .origin import Origin

__all__ = ["Assembler", "Text", "extend_lists", "objects", "replace_field"]

# Identifiers and constants: many servers repeat them in every delta, so they must not be glued together.
_WHOLE = frozenset({"id", "type", "role", "format"})
_UNREPEATED = frozenset({"choices", "usage", "obfuscation"})  # obfuscation pads chunks against traffic analysis
_TOP_ORDER = ("id", "object", "created", "model", "choices")
_PIECES = 256
_CUT = ("length", "content_filter")


class Text(list[str]):
    """Text under way, in pieces: one string that grows would be copied with every delta.

    A piece takes some fifty bytes beside its characters, so the latest are made one each time there are enough.
    """

    _since = 0

    def grow(self, piece: str) -> None:
        """Add a piece."""
        self.append(piece)
        self._since += 1
        if self._since == _PIECES:
            self[-_PIECES:] = ["".join(self[-_PIECES:])]
            self._since = 0


class Assembler:
    """Collects the chunks of one stream."""

    is_over = False
    """Whether a chunk said that none follows: only ``[DONE]`` does."""

    def __init__(self) -> None:
        self._top: JSON = {}
        self._usage: JSON | None = None
        self._choices: dict[int, _Choice] = {}
        self._origin = Origin()

    @property
    def is_mixed(self) -> bool:
        """Whether the chunks are of more than one answer."""
        return self._origin.is_mixed

    @property
    def is_finished(self) -> bool:
        """Whether there are choices and each has a finish reason."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    def add(self, chunk: JSON) -> None:
        """Take in one chunk, which the assembler then owns.

        Raises:
            ValueError: ``choices`` or a delta in it is not what the protocol says, or goes on after its end.
            RecursionError: It is nested too deeply.
        """
        self._origin.add(chunk)
        for choice in objects(chunk.get("choices") or []):
            index = choice.get("index") or 0
            if type(index) is not int:
                raise ValueError("index of a choice is not a number")
            state = self._choices.get(index)
            if state is None:
                state = self._choices[index] = _Choice()
            state.add(choice)
        usage = chunk.get("usage")
        if usage and type(usage) is dict:
            self._usage = usage
        top = self._top
        for name, value in chunk.items():
            # Azure sends chunks about filters with an empty id and model and a created of 0.
            if value or name not in top or not (value is None or value == "" or name == "created"):
                top[name] = value

    def completion(self) -> JSON:
        """The ``chat.completion`` object, fields in OpenAI's order; the assembler can't be used further."""
        known: JSON = {**self._top, "object": "chat.completion"}
        known["choices"] = [{"index": index, **choice.finished()} for index, choice in sorted(self._choices.items())]
        ordered = {name: known[name] for name in _TOP_ORDER if name in known}
        if self._usage is not None:
            ordered["usage"] = self._usage
        ordered.update((name, value) for name, value in known.items() if name not in _UNREPEATED)
        return ordered


class _Choice:
    """One choice under way."""

    def __init__(self) -> None:
        self.finish_reason: Any = None
        self._message: JSON = {}
        self._calls = _ToolCalls()
        self._logprobs: JSON = {}
        self._rest: JSON = {}

    def add(self, choice: JSON) -> None:
        is_over = bool(self.finish_reason)
        for name, value in choice.items():
            if name == "delta":
                if value:
                    self._add_delta(value, is_over=is_over)
            elif value is None:
                if name not in {"index", "finish_reason", "message"}:
                    self._rest.setdefault(name, None)
            elif name == "finish_reason":
                # Some repeat it, or say "stop" after "tool_calls"; that an answer is cut must never get lost.
                if not self.finish_reason or value in _CUT:
                    self.finish_reason = value
            elif name == "logprobs":
                extend_lists(self._logprobs, value)
                self._rest[name] = self._logprobs
            elif name not in {
                "index",
                "message",
            }:  # "message": some repeat all the text so far beside the delta
                replace_field(self._rest, name, value)

    def finished(self) -> JSON:
        message: JSON = {"role": None, "content": None, **self._message}
        message["role"] = message["role"] or "assistant"
        if self._calls.items:
            message["tool_calls"] = self._calls.finished()
        rest = dict(self._rest)
        logprobs = {"logprobs": rest.pop("logprobs")} if "logprobs" in rest else {}
        return {"message": _whole(message), **logprobs, "finish_reason": self.finish_reason, **rest}

    def _add_delta(self, delta: JSON, *, is_over: bool) -> None:
        if not isinstance(delta, dict):
            raise ValueError("delta is not an object")
        if is_over and delta.get("content"):
            raise ValueError("text after the end of its choice")
        calls = delta.get("tool_calls")
        if calls:
            delta = {**delta, "tool_calls": None}  # keeps the field's place
            for call in objects(calls):
                self._calls.add(call)
        _merge(self._message, delta)


class _ToolCalls:
    """Tool calls under way.

    By the book a call's first delta has index, id, type and name, and later ones the index and a piece of
    the arguments. Also understood: no index (a new id or, without one, a name starts the next call); one
    index for several calls (a name with another id starts the next call); a new id in every delta (ignored
    without a name); a name that is repeated.
    """

    def __init__(self) -> None:
        self.items: list[tuple[int, JSON]] = []
        self._by_index: dict[int, JSON] = {}

    def add(self, delta: JSON) -> None:
        index = delta.pop("index", None)
        function = delta.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if type(index) is int:
            known = self._by_index.get(index)
            if known is not None and not (name and _differs(known, delta, "id")):
                _merge(known, delta)
                return
        else:
            known = self._continued(delta.get("id"), name)
            if known is not None:
                _merge(known, delta)
                return
            index = self.items[-1][0] + 1 if self.items else 0
        self._by_index[index] = delta
        self.items.append((index, delta))

    def finished(self) -> list[JSON]:
        self.items.sort(key=lambda item: item[0])  # stable: calls that share an index stay in order
        return [call for _, call in self.items]

    def _continued(self, id: Any, name: Any) -> JSON | None:
        """The call that a delta without index goes on with; None when it starts one."""
        if id:
            return next((call for _, call in self.items if call.get("id") == id), None)
        return self.items[-1][1] if self.items and not name else None


def _merge(into: JSON, delta: JSON) -> None:
    for name, value in delta.items():
        known = into.get(name)
        if known is None:
            into[name] = value
        elif type(value) is str:
            if type(known) is Text:
                known.grow(value)
            elif name in _WHOLE:
                into[name] = known or value
            elif type(known) is not str:
                into[name] = value
            elif name != "name" or known != value:
                into[name] = Text((known, value))
        elif value is not None:
            into[name] = _grown(known, value)


def _grown(known: Any, value: Any) -> Any:
    """What becomes of a known value when an object, a list, a number or a boolean comes."""
    if type(value) is dict and type(known) is dict:
        _merge(known, value)
        return known
    if type(value) is list and type(known) is list:
        before = [item for item in known if type(item) is dict and "index" in item]
        for item in value:
            same = next((old for old in before if _is_same(old, item)), None)
            if same is None:
                known.append(item)
            else:
                _merge(same, item)
        return known
    return value


def _is_same(known: JSON, item: Any) -> bool:
    return (
        type(item) is dict
        and known["index"] == item.get("index")
        and not any(_differs(known, item, name) for name in _WHOLE)
    )


def _differs(known: JSON, delta: JSON, name: str) -> bool:
    old, new = known.get(name), delta.get(name)
    return bool(old and new and old != new)


def extend_lists(into: JSON, value: Any) -> None:
    """Log-probabilities: lists grow, whatever their items."""
    if not isinstance(value, dict):
        raise ValueError("logprobs is not an object")
    for name, items in value.items():
        known = into.get(name)
        if type(items) is list and type(known) is list:
            known.extend(items)
        elif items is not None or name not in into:
            into[name] = items


def replace_field(into: JSON, name: str, value: Any) -> None:
    """Unknown fields of a choice: objects are updated, lists grow, all else is replaced."""
    known = into.get(name)
    if type(known) is dict and type(value) is dict:
        known.update(value)
    elif type(known) is list and type(value) is list:
        known.extend(value)
    else:
        into[name] = value


def objects(items: Any) -> list[JSON]:
    """The items, where they are a list of objects; raises ValueError for all else."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("choices or tool calls are not a list of objects")
    return items


def _whole(value: Any) -> Any:
    """The value with every text under way joined."""
    if type(value) is Text:
        return "".join(value)
    if type(value) is dict:
        return {name: _whole(item) for name, item in value.items()}
    if type(value) is list:
        return [_whole(item) for item in value]
    return value
