"""Server-sent events: an incremental decoder over bytes, and an encoder.

Follows the WHATWG algorithm: lines end in LF, CR or CRLF; an event ends at a blank line; one that the end of
the stream cuts off is dropped. One exception: some servers end with ``data: [DONE]`` and no blank line, or no
line end at all; `SSEDecoder.flush` reports that event, since nothing can be missing from it.

Source: HTML Living Standard, sections 9.2.5 and 9.2.6.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_proxy.errors import WireError

__all__ = ["DONE", "SSEDecoder", "ServerSentEvent", "encode_event"]

DONE = "[DONE]"
"""Data of the event that ends a stream of chunks."""

_LF, _CR = 10, 13
_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event: its data lines joined by LF, its name (empty for ``message``) and the stream's last id."""

    data: str
    event: str = ""
    id: str = ""


class SSEDecoder:
    """Splits a byte stream into events; any split of the bytes gives the same events.

    Args:
        limit_bytes: Most bytes that an unfinished event may hold.
    """

    def __init__(self, *, limit_bytes: int = 16 << 20) -> None:
        self.is_damaged = False
        """Whether data held invalid UTF-8, which was replaced by U+FFFD: show it, don't store it."""
        self._limit = limit_bytes
        self._line: list[bytes] = []  # the unfinished line, as it came in pieces
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""
        self._is_start = True
        self._follows_cr = False

    @property
    def is_idle(self) -> bool:
        """Whether no unfinished line or event is held."""
        return not self._line and not self._data

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take in bytes; mutates the decoder.

        Returns:
            The events that these bytes finish, oldest first.

        Raises:
            WireError: An unfinished event is larger than the limit; what was held is dropped.
        """
        if self._follows_cr and chunk:
            self._follows_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if b"\n" in chunk or b"\r" in chunk:
            events = self._read_lines(chunk)
        else:
            events = []
            self._hold(chunk)
        if self._line_bytes + self._data_bytes > self._limit:
            self._line, self._data, self._line_bytes, self._data_bytes = [], [], 0, 0
            raise WireError(
                f"event of the stream is larger than {self._limit} bytes; the upstream must send smaller ones"
            )
        return events

    def flush(self) -> list[ServerSentEvent]:
        """Take in the end of the stream: drops an unfinished event, unless it is the ``[DONE]`` of all."""
        line = b"".join(self._line)
        if line:
            self._read_field(line)
        is_done = b"\n".join(self._data).strip() == DONE.encode()
        event = [self._dispatch()] if is_done else []
        self._line, self._data, self._line_bytes, self._data_bytes = [], [], 0, 0
        return event

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._line.append(piece)
            self._line_bytes += len(piece)

    def _read_lines(self, chunk: bytes) -> list[ServerSentEvent]:
        if self._line:
            self._line.append(chunk)
            chunk = b"".join(self._line)
            self._line, self._line_bytes = [], 0
        # On bytes, splitlines knows LF, CR and CRLF only; on str it would also split at U+2028 and the like.
        lines = chunk.splitlines()
        if chunk[-1] == _CR:
            self._follows_cr = True
        elif chunk[-1] != _LF:
            self._hold(lines.pop())
        if self._is_start:
            self._is_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = []
        for line in lines:
            if line[:6] == b"data: ":  # the usual case, without the detour
                self._data.append(line[6:])
                self._data_bytes += len(line)
            elif line:
                self._read_field(line)
            elif self._data:
                events.append(self._dispatch())
            else:
                self._event = ""
        return events

    def _read_field(self, line: bytes) -> None:
        """One line that is not blank; a comment has an empty name and goes the way of unknown fields."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif name == b"event":
            self._event = self._text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = self._text(value)

    def _dispatch(self) -> ServerSentEvent:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = ServerSentEvent(self._text(data), self._event, self._id)
        self._data.clear()
        self._data_bytes = 0
        self._event = ""
        return event

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.is_damaged = True
            return data.decode(errors="replace")


def encode_event(data: str | bytes, event: str = "") -> bytes:
    """Bytes of one event, blank line included.

    Args:
        data: Its data; each line end in it starts a new data line, so that CR and CRLF are read back as LF.
        event: Its name; empty for none.

    Raises:
        WireError: The data holds a lone surrogate, or the name a line end.
    """
    try:
        content = data.encode() if isinstance(data, str) else data
        name = event.encode()
    except UnicodeEncodeError as exc:
        raise WireError(f"event holds {exc.object[exc.start]!a}, which UTF-8 can't carry; escape it") from exc
    if b"\n" in name or b"\r" in name:
        raise WireError(f"event name {event!a} holds a line end; name the event with one line")
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    head = b"event: " + name + b"\n" if name else b""
    return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
