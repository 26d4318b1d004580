"""Records one upstream body, plain or streamed, while it passes by; says when and by what it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, Protocol

from llm_proxy.errors import WireError
from llm_proxy.types import JSON, HeaderList

from .assemble import Assembler
from .compact import compact
from .decode import BodyDecoder, decoder_for
from .sse import DONE, ServerSentEvent, SSEDecoder

__all__ = ["Chunks", "Reason", "Recorder", "recorder_for"]

Reason = Literal["", "unfinished", "error", "damaged", "truncated", "too-large"]
"""Why there is no completion: the body is still under way, holds an error, is not what the protocol or its
headers say, stopped before its end, or is over the limit; empty when there is one."""

_PARSE = json.JSONDecoder().decode

_STREAM_OVERHEAD = 16
"""A stream wraps each token of some 4 bytes in a chunk of some 300; what is kept is small again."""


class Chunks(Protocol):
    """Puts the chunks of a stream together; see `llm_proxy.wire.assemble.Assembler`."""

    @property
    def is_over(self) -> bool:
        """Whether a chunk said that none follows."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing can be missing, should the stream end here."""

    @property
    def is_mixed(self) -> bool:
        """Whether the chunks so far are of more than one answer; see `llm_proxy.wire.origin.Origin`."""

    def add(self, chunk: JSON) -> None:
        """Take in one chunk; raises ValueError or RecursionError where it is not what the protocol says."""

    def completion(self) -> JSON:
        """The whole answer; raises ValueError where there is none."""


def recorder_for(headers: HeaderList, *, limit_bytes: int, chunks: Callable[[], Chunks] = Assembler) -> Recorder | None:
    """A recorder for a body with these response headers.

    Args:
        headers: Response headers, names in lower case. A header that is there twice must agree with itself.
        limit_bytes: Largest completion to keep, in bytes; more is given up, and its memory with it. Of an
            event stream 16 times as many bytes may pass by, since most of them are wrapping.
        chunks: Makes what puts the chunks of a stream together.

    Returns:
        A recorder; None where the content type is neither an event stream nor JSON, or the coding is unknown.
    """
    content_type = _header(headers, "content-type").partition(";")[0].strip().lower()
    is_stream = content_type == "text/event-stream"
    if not is_stream and content_type != "application/json" and not content_type.endswith("+json"):
        return None
    encoding = ",".join(value for name, value in headers if name == "content-encoding")
    most_bytes = limit_bytes * _STREAM_OVERHEAD if is_stream else limit_bytes
    decoder = decoder_for(encoding, limit_bytes=most_bytes)
    if decoder is None:
        return None
    length = _header(headers, "content-length")
    return Recorder(
        _EventBody(most_bytes, chunks()) if is_stream else _JSONBody(),
        decoder,
        limit_bytes=limit_bytes,
        most_bytes=most_bytes,
        content_length=int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None,
    )


class Recorder:
    """Takes in the bytes of one body as they come; never raises on what they hold.

    Make it with `recorder_for`. Not for several threads at once.
    """

    def __init__(
        self,
        body: _Body,
        decoder: BodyDecoder,
        *,
        limit_bytes: int,
        most_bytes: int,
        content_length: int | None,
    ) -> None:
        self._body: _Body | None = body
        self._decoder = decoder
        self._limit = limit_bytes
        self._left = most_bytes
        self._content_length = content_length
        self._completion: JSON | None = None
        self._raw: bytes | None = None
        self.is_stream = isinstance(body, _EventBody)
        """Whether the body is an event stream."""
        self.is_mixed = False
        """Whether a complete stream holds chunks of more than one answer: it is handed on, but nobody else's."""
        self.bytes_seen = 0
        """Bytes fed so far, as they came over the wire."""
        self.reason: Reason = "unfinished"
        """Why `completion` is None; empty once it is there."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was recorded."""
        return self.reason == ""

    @property
    def is_overflowed(self) -> bool:
        """Whether the recording was given up because of its size."""
        return self.reason == "too-large"

    def feed(self, chunk: bytes) -> bool:
        """Take in bytes; mutates the recorder; safe (and without effect) once it is complete or has failed.

        Returns:
            True exactly once: when these bytes complete the recording. They hold the event ``[DONE]`` or another
            that says it is the last, or are the last ones of a plain body that ``content-length`` announced.
        """
        self.bytes_seen += len(chunk)
        if self._body is None:
            return False
        try:
            return self._close(self._advance(self._body, chunk))
        except (WireError, ValueError, RecursionError):
            return self._close("damaged")

    def end(self) -> bool:
        """Take in the clean end of the body; mutates the recorder; calling it again has no effect.

        Returns:
            True if the recording became complete only now: a plain body without ``content-length``, or a
            stream that ended without ``[DONE]`` after every choice had its finish reason.
        """
        if self._body is None:
            return False
        try:
            return self._close(self._finish(self._body))
        except (ValueError, RecursionError):
            return self._close("damaged")

    def completion(self) -> JSON | None:
        """The answer as one object, not to be changed, e.g. a ``chat.completion``; None unless it is complete."""
        return self._completion

    def raw_completion(self) -> bytes | None:
        """The completion as UTF-8 JSON, of a plain body the very bytes; None unless it is complete."""
        return self._raw

    def _advance(self, body: _Body, chunk: bytes) -> Reason:
        data = self._decoder.feed(chunk)
        if data is not None:
            self._left -= len(data)
        if data is None or self._left < 0:
            return "too-large"
        state = body.feed(data)
        if state == "unfinished" and not self.is_stream and self.bytes_seen == self._content_length:
            return self._finish(body)
        return state

    def _finish(self, body: _Body) -> Reason:
        is_short = self._content_length is not None and self.bytes_seen != self._content_length
        return "truncated" if is_short or not self._decoder.is_finished else body.end()

    def _close(self, state: Reason) -> bool:
        """Act on a new state; whatever it is but unfinished, it is final, and the memory is given back."""
        if state == "unfinished":
            return False
        if state == "" and self._body is not None:
            completion, raw = self._body.result()
            if len(raw) <= self._limit:
                self._completion, self._raw, self.is_mixed = completion, raw, self._body.is_mixed
            else:
                state = "too-large"
        self._body = None
        self.reason = state
        return state == ""


class _Body(Protocol):
    """Decoded bytes in, state out."""

    @property
    def is_mixed(self) -> bool:
        """Whether it holds parts of more than one answer."""

    def feed(self, data: bytes) -> Reason:
        """Raises WireError, ValueError or RecursionError where the bytes are damaged."""

    def end(self) -> Reason:
        """The same, at the end of the body; never ``unfinished``."""

    def result(self) -> tuple[JSON, bytes]:
        """The completion and its bytes; once only, and only when complete. May raise RecursionError."""


class _EventBody:
    """A stream of chunks."""

    def __init__(self, limit_bytes: int, chunks: Chunks) -> None:
        self._events = SSEDecoder(limit_bytes=limit_bytes)
        self._assembler = chunks

    @property
    def is_mixed(self) -> bool:
        return self._assembler.is_mixed

    def feed(self, data: bytes) -> Reason:
        for event in self._events.feed(data):
            state = self._read(event)
            if state != "unfinished":
                return state
        return "unfinished"

    def end(self) -> Reason:
        was_idle = self._events.is_idle
        is_done = bool(self._events.flush())
        return "" if is_done or (was_idle and self._assembler.is_finished) else "truncated"

    def result(self) -> tuple[JSON, bytes]:
        completion = self._assembler.completion()
        return completion, compact(lambda write: write(completion))

    def _read(self, event: ServerSentEvent) -> Reason:
        if self._events.is_damaged:
            return "damaged"
        if event.data.startswith(DONE):
            return ""
        if event.event == "error":
            return "error"
        chunk = _PARSE(event.data)
        if not isinstance(chunk, dict):
            return "damaged"
        if chunk.get("error"):
            return "error"
        self._assembler.add(chunk)
        return "" if self._assembler.is_over else "unfinished"


class _JSONBody:
    """One JSON object."""

    is_mixed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._value: JSON = {}

    def feed(self, data: bytes) -> Reason:
        self._parts.append(data)
        return "unfinished"

    def end(self) -> Reason:
        self._parts = [b"".join(self._parts)]
        value = _PARSE(self._parts[0].decode())
        if not isinstance(value, dict):
            return "damaged"
        self._value = value
        return "error" if value.get("error") else ""

    def result(self) -> tuple[JSON, bytes]:
        return self._value, self._parts[0]


def _header(headers: HeaderList, name: str) -> str:
    """The value of a header; empty where there is none, or several that differ."""
    values = {value.strip() for key, value in headers if key == name}
    return values.pop() if len(values) == 1 else ""
