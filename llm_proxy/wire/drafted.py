"""The answer to a chat made of text that came bit by bit, as chunks of a stream or as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from llm_proxy.errors import WireError
from llm_proxy.types import JSON, Usage

from .sse import DONE, SSEDecoder, encode_event

__all__ = ["JSON_HEADERS", "STREAM_HEADERS", "Frame", "Remainder"]

STREAM_HEADERS = (("content-type", "text/event-stream"),)
JSON_HEADERS = (("content-type", "application/json"),)


class Frame(NamedTuple):
    """What all chunks of an answer share.

    Attributes:
        id: Of the answer.
        model: That answers.
        created: Unix time, seconds.
        has_usage: Whether a stream is to end with token counts.
    """

    id: str
    model: str
    created: int
    has_usage: bool = False

    def chunks(self, text: str, *, is_first: bool = False) -> bytes:
        """Events that add text to the answer; the first ones say whose it is."""
        role: JSON = {"role": "assistant", "content": ""}
        deltas = ([role] if is_first else []) + ([{"content": text}] if text else [])
        return b"".join(self._event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas)

    def end(self, finish: str, usage: Usage) -> bytes:
        """The events at the end of the answer."""
        last = self._event([{"index": 0, "delta": {}, "finish_reason": finish}])
        counts = self._event([], usage=_counts(usage)) if self.has_usage else b""
        return last + counts + encode_event(DONE)

    def whole(self, text: str, finish: str, usage: Usage) -> bytes:
        """The answer in one piece."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return _json({**self._top("chat.completion"), "choices": [choice], "usage": _counts(usage)})

    def _event(self, choices: Sequence[JSON], **more: JSON) -> bytes:
        return encode_event(_json({**self._top("chat.completion.chunk"), "choices": choices, **more}))

    def _top(self, kind: str) -> JSON:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class Remainder:
    """What of another stream of the same answer is still to be handed on, after a part that was handed on already.

    Args:
        frame: What the chunks share.
        sent: The text that was handed on; the stream must begin with it.
    """

    def __init__(self, frame: Frame, sent: str) -> None:
        self.is_done = False
        """Whether the answer came to its end."""
        self.is_broken = False
        """Whether it is not the same answer, or an error came in its place; nothing more is to be had of it."""
        self._frame, self._due = frame, sent
        self._events = SSEDecoder()

    def feed(self, piece: bytes) -> bytes:
        """Take in bytes; the events to hand on."""
        parts: list[bytes] = []
        try:
            for event in self._events.feed(piece):
                if self.is_done or self.is_broken:
                    break
                self.is_done = event.data.startswith(DONE)
                parts.append(encode_event(DONE) if self.is_done else self._rewritten(json.loads(event.data)))
        except (WireError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.is_broken = True
        return b"".join(parts)

    def _rewritten(self, chunk: JSON) -> bytes:
        choices = [made for choice in chunk["choices"] if (made := self._choice(choice)) is not None]
        if not choices and not chunk.get("usage"):
            return b""
        top = {"id": self._frame.id, "created": self._frame.created, "model": self._frame.model}
        return encode_event(_json({**chunk, **top, "choices": choices}))

    def _choice(self, choice: JSON) -> JSON | None:
        """The choice as it is handed on; None where nothing of it is new.

        Raises:
            ValueError: It says something else than what was handed on.
        """
        delta = {name: value for name, value in choice["delta"].items() if name != "role"}
        text = delta.pop("content", None) or ""
        known = min(len(text), len(self._due))
        is_last = bool(choice.get("finish_reason"))
        if text[:known] != self._due[:known] or (is_last and self._due[known:]):
            raise ValueError
        self._due, text = self._due[known:], text[known:]
        if not text and not is_last:
            return None
        return {**choice, "delta": {**delta, "content": text} if text else delta}


def _counts(usage: Usage) -> JSON:
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _json(value: JSON) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
