"""What a connection may do: uvicorn's protocols with limits on heads, silence and number, and errors as OpenAI's.

::

    connected ── head_s ──> head whole ── body_s of silence ──> body whole ── answer ──> idle ── idle_s ──> closed
                                                                  └─ stalled_s without a byte taken ──> aborted

A refused caller who still sends is read on for a moment and not listened to: a socket that is closed with bytes unread
is reset, and a reset takes the answer away that the caller has not read yet (RFC 9112, section 9.6).

uvicorn itself bounds only how long a connection may be idle between two requests, and the head for h11 alone. And it
reads no further while requests wait in line behind one that is answered: that their caller has left it does not see,
and would tell the last of them alone. So it is looked for there.
"""

from __future__ import annotations

import asyncio
import importlib
import select
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from llm_proxy.wire.chat import error_body

from ._asgi_io import OWN_HEADERS, WHOLE
from .paths import METHODS

if TYPE_CHECKING:
    from llm_proxy.settings.server import ServerConfig

    from ._asgi_io import Receive, Scope, Send

__all__ = ["protocol_for"]

_PROTOCOLS = {
    "h11": ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
    "httptools": ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
}
_LAST_S = 0.3  # longer than a request is on its way
_LINGER_S, _LINGER_BYTES = 1.0, 1 << 20  # of a caller who was refused and sends on
_LINES: dict[int, bytes] = {status.value: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LOOK_S = 0.25  # how often it is looked whether the caller of requests in line has left
_BEYOND = 256  # connections over the limit that are told so; the rest are closed without a word
_REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_CROWDED = "this server has as many connections as server.max_connections allows; try again in a moment"


def protocol_for(parser: str, limits: ServerConfig) -> type[asyncio.Protocol]:
    """The protocol class that a server makes one of for each connection.

    Args:
        parser: ``httptools`` or ``h11``.
        limits: The settings of the server.
    """
    module, name = _PROTOCOLS[parser]
    base = getattr(importlib.import_module(module), name)
    return type("Connection", (_Watched, base), {"limits": limits})


class _Watched(asyncio.Protocol):
    """What is added to uvicorn's protocols, which stand behind it in the order of resolution."""

    limits: ServerConfig
    transport: asyncio.Transport
    connections: set[Any]
    app: Any
    cycle: Any
    flow: Any
    scope: Any

    loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _answered_s: float | None = None
    _is_draining = False
    _is_upgraded = False
    _lingering: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle | None = None
    _ahead: tuple[Any, ...] = ()
    _unheard_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection in; one too many is answered with 503, far too many are not answered at all."""
        super().connection_made(transport)
        excess = len(self.connections) - self.limits.max_connections
        if excess > _BEYOND:
            self.transport.abort()
            return
        if excess > 0:
            self.app = _crowded
        self._wait(self.limits.idle_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget about all waiting."""
        self._forget()
        self._move_on()
        for timer in (self._lingering, self._looking):
            if timer is not None:
                timer.cancel()
        for cycle in self._ahead:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and see where in a request they lead."""
        if self._lingering is not None:
            self._unheard_bytes += len(data)
            if self._unheard_bytes > _LINGER_BYTES:
                self.transport.close()
            return
        before = self.cycle
        had_body = before is not None and before.more_body
        super().data_received(data)
        if self._is_upgraded:  # to a WebSocket, whose own protocol looks after it now
            return
        cycle = self.cycle
        if self._is_draining and cycle is not None and cycle is not before:
            _make_last(cycle)
        if self.flow.read_paused and self._looking is None and (self._ahead or _is_answered_next(cycle)):
            self._looking = self.loop.call_later(_LOOK_S, self._look)
        if cycle is before and not had_body and (cycle is None or not cycle.more_body):
            self._take_in_head(len(data), is_answering=cycle is not None and not cycle.response_complete)
            return
        self._head_bytes = 0
        self._forget()
        if cycle is not None and cycle.more_body:
            self._take_in_body(cycle)

    def _take_in_body(self, cycle: Any) -> None:
        """Wait for more of a body; of one whose request was answered already, not for ever."""
        if not cycle.response_complete:
            self._answered_s = None
        elif self._answered_s is None:
            self._answered_s = self.loop.time()
        elif self.loop.time() - self._answered_s > self.limits.body_total_s:
            self.transport.close()
            return
        self._wait(self.limits.body_s, self._silent)

    def handle_websocket_upgrade(self, *event: Any) -> None:
        """Hand the connection over to another protocol, unless there are too many; called by uvicorn."""
        self._is_upgraded = True
        self._forget()
        self._move_on()
        if self.app is _crowded:
            self._refuse(503, _CROWDED, code="too_many_connections")
        else:
            super().handle_websocket_upgrade(*event)  # type: ignore[misc]

    def on_headers_complete(self) -> None:
        """Keep the headers apart from what a chunked body brings after it; called by httptools."""
        ahead = self.cycle
        super().on_headers_complete()  # type: ignore[misc]
        if ahead is not None and not ahead.response_complete:
            self._ahead = (*self._ahead, ahead)
        self.scope["headers"] = list(self.scope["headers"])
        if self.cycle is not None:  # else it becomes a WebSocket
            # The request holds its scope: if that held the request, both would lie there until garbage is collected.
            self.scope["extensions"] = {WHOLE: partial(_write_whole, ref(self.cycle))}

    def _look(self) -> None:
        """See whether the caller of requests in line is still there, as long as nothing is read of what it sends."""
        self._looking = None
        self._ahead = tuple(cycle for cycle in self._ahead if not cycle.response_complete)
        if self.transport.is_closing() or not self.flow.read_paused:
            return
        if _has_left(self.transport):
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(_LOOK_S, self._look)

    def _take_in_head(self, size: int, *, is_answering: bool) -> None:
        """Count what comes of the next request, which may be while this one's answer is under way."""
        if not self._head_bytes and not is_answering:  # no longer idle
            self._forget()
            self._wait(self.limits.head_s, self._late)
        self._head_bytes += size
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse(431, f"the request's head is larger than {self.limits.max_head_bytes} bytes")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in OpenAI's shape; called by uvicorn."""
        if _is_connect(self):  # its target is no path, so that httptools takes it for no HTTP
            self._refuse(405, "CONNECT is not for this proxy")
        else:
            self._refuse(400, "this is no valid HTTP/1.1 request")

    def shutdown(self) -> None:
        """The server ends: what is under way is answered, and so is what was sent before the caller could know.

        A connection that is closed while a request comes in is reset, and the caller does not learn whether it was
        served. So one that waits for its next request keeps waiting for a moment, and what comes is the last one.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        if not is_idle:
            _make_last(self.cycle)
        if not is_idle or self._is_draining or not self.limits.drain_s:
            super().shutdown()  # type: ignore[misc]
            return
        self._is_draining = True
        if not self._head_bytes:
            self._forget()
        self.loop.call_later(min(_LAST_S, self.limits.drain_s / 2), self._part)

    def _part(self) -> None:
        """Close a connection that brought nothing more; what has begun to come ends by itself."""
        if self.transport.is_closing():
            return
        if not self._head_bytes and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def pause_writing(self) -> None:
        """The caller does not take what is sent as fast as it comes."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has taken some."""
        super().resume_writing()
        self._move_on()

    def _move_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _wait(self, wait_s: float, then: Any) -> None:
        self._timer = self.loop.call_later(wait_s, then)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the request's head did not come in whole within {self.limits.head_s:g} s")
        else:
            self.transport.close()

    def _silent(self) -> None:
        if self.flow.read_paused:  # it is the proxy that does not read on: the backend is slow
            self._wait(self.limits.body_s, self._silent)
        elif self.cycle is None or not self.cycle.response_started:
            self._refuse(408, f"nothing more of the request's body came for {self.limits.body_s:g} s")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str, *, code: str | None = None) -> None:
        """Answer instead of the application, which is not asked or will see that its caller has left."""
        if self.transport.is_closing() or self._lingering is not None:
            return
        cycle = self.cycle
        is_begun = cycle is not None and cycle.response_started and not cycle.response_complete
        # Where requests wait in turn, the answer under way is that of another one than the last, which is known here.
        if not is_begun and not getattr(self, "pipeline", ()):
            body = error_body(message, type="server_error" if code else "invalid_request_error", code=code)
            rows = [*OWN_HEADERS, ("content-length", str(len(body))), ("connection", "close")]
            rows += [("allow", METHODS)] if status == 405 else []
            head = "".join(f"{name}: {value}\r\n" for name, value in rows)
            self.transport.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}\r\n".encode() + body)
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """End our half of the connection, and close it when the caller has, or after a moment."""
        self._forget()
        if self.cycle is not None and not self.cycle.response_complete:  # nothing may be written after the end
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(_LINGER_S, self.transport.close)
        self.transport.write_eof()


def _make_last(cycle: Any) -> None:
    """Have an answer say that its connection ends with it: of httptools by the one, of h11 by the other."""
    cycle.keep_alive = False
    cycle.scope["headers"] = [*cycle.scope["headers"], (b"connection", b"close")]


def _is_connect(connection: Any) -> bool:
    """Whether what a parser has not understood is a CONNECT; h11 itself understands them."""
    parser = getattr(connection, "parser", None)
    return parser is not None and bool(parser.get_method() == b"CONNECT")


def _write_whole(known: ReferenceType[Any], status: int, head: bytes, body: bytes) -> bool:
    """Send an answer that is there whole with one write, which two messages of ASGI's would take two for.

    Two writes are two packets, and wake the caller twice. It does what uvicorn's ``RequestResponseCycle.send`` does.

    Args:
        known: uvicorn's state of the request.
        status: HTTP status code.
        head: Header lines, each with its end; with ``content-length``, without ``connection``.
        body: All of it.

    Returns:
        Whether it was done; if not, nothing was, and ASGI's messages are the way.
    """
    line, cycle = _LINES.get(status), known()
    if line is None or cycle is None or cycle.default_headers or cycle.scope["method"] == "HEAD":
        return False
    if cycle.response_started or cycle.flow.write_paused:
        return False
    if cycle.disconnected:
        return True
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    cycle.transport.write(b"".join((line, head, end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def _is_answered_next(cycle: Any) -> bool:
    """Whether a request that is all there waits for its answer: h11 reads no further then."""
    return cycle is not None and not cycle.more_body and not cycle.response_complete


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether the caller has closed its side, which a system may tell where nobody reads; else it has not."""
    closed = getattr(select, "POLLRDHUP", 0)
    if not closed:
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), closed)
    return bool(poll.poll(0))


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that there are too many connections."""
    body = error_body(_CROWDED, type="server_error", code="too_many_connections")
    rows = [*OWN_HEADERS, ("retry-after", "1"), ("content-length", str(len(body))), ("connection", "close")]
    headers = [(name.encode(), value.encode()) for name, value in rows]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
