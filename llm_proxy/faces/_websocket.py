"""WebSockets: passed to the default backend and back, message by message, as other paths that are not ours are.

::

    caller ── connect ──> admitted? ── handshake with the backend ──> accept
      │         no: an HTTP error, as for any request      └─ refused, out of reach: the same
      └── messages both ways, each sent before the next is read ── close of either side ──> close of the other

Needs aiohttp towards the backend and websockets towards the caller: both come with ``llm-proxy[proxy]``.

Source: ASGI 3.0, "WebSocket" and "Websocket Denial Response"; RFC 6455 sections 4, 7.4 and 10.2.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.openai_compatible import headers_for
from llm_proxy.types import Outcome, Outgoing

from ._headers import end_to_end
from ._upstream import passed_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

    from llm_proxy.config import BackendConfig
    from llm_proxy.drive import Served

    from ._asgi_io import Receive, Scope, Send
    from ._upstream import Upstream

__all__ = ["pass_websocket", "refuse_websocket"]

_HANDSHAKE = "sec-websocket-"
# OpenAI's way for browsers, which can't set headers, to name a key and an account: secrets like those in headers.
_SECRETS = ("openai-insecure-api-key.", "openai-organization.", "openai-project.")
_SENT_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
_NO_CODE, _GOING, _TROUBLE = 1005, 1000, 1011
_POLICY = 1008


async def pass_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    upstream: Upstream,
    backend: tuple[str, BackendConfig],
    most_bytes: int,
) -> None:
    """Link a caller, who may come in, with a backend; returns when the connection is over.

    Args:
        scope: ASGI's, of type ``websocket``.
        receive: ASGI's.
        send: ASGI's.
        upstream: Connects.
        backend: Name and settings.
        most_bytes: Longest message to take in.

    Raises:
        Refused: The path is none, the backend refuses, or the extra is not installed; nothing was sent to the caller.
        BackendError: The backend can't be reached, or not in time; likewise.
    """
    name, settings = backend
    await receive()  # that the caller wants to connect
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
    url = passed_url(settings, path, scope["query_string"].decode("latin-1"))
    rows = [row for row in end_to_end(scope["headers"]) if not row[0].startswith(_HANDSHAKE)]
    outgoing = Outgoing(
        url, headers_for(settings, rows, is_default=True), b"", backend=name, timeout_s=settings.timeout_s
    )
    offered = _protocols(scope.get("subprotocols", ()), settings)
    socket, answered = await upstream.websocket(outgoing, offered, most_bytes=most_bytes)
    try:
        outcome = Outcome("bypass", detail="path", backend=name)
        kept = [row for row in answered if not row[0].startswith(_HANDSHAKE)]
        headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in (*kept, *outcome.headers)]
        await send({"type": "websocket.accept", "subprotocol": socket.protocol, "headers": headers})
        await _linked(socket, receive, send)
    finally:
        await socket.close()


async def refuse_websocket(scope: Scope, send: Send, served: Served) -> None:
    """Answer a handshake with an error of ours; where the server can't, with its own 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY})
        return
    rows = [*served.headers, ("content-length", str(len(served.body)))]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in rows]
    await send({"type": "websocket.http.response.start", "status": served.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": served.body})


def _protocols(offered: Sequence[str], backend: BackendConfig) -> list[str]:
    """The subprotocols to offer the backend: without the caller's secrets where it does not get those in headers."""
    probe = ("authorization", "the caller's")
    if probe in headers_for(backend, [probe], is_default=True):
        return list(offered)
    return [name for name in offered if not name.startswith(_SECRETS)]


async def _linked(socket: aiohttp.ClientWebSocketResponse, receive: Receive, send: Send) -> None:
    """Pass messages both ways until one side closes, and close the other."""
    inward = asyncio.create_task(_to_backend(socket, receive))
    outward = asyncio.create_task(_to_caller(socket, send))
    try:
        await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
        if outward.done():
            code, reason = outward.result()
            await send({"type": "websocket.close", "code": code, "reason": reason})
        else:
            code, reason = inward.result()
            await socket.close(code=code, message=reason.encode())
    except (OSError, RuntimeError):  # uvicorn raises the latter where it closed itself, as after too large a message
        pass  # the caller is gone as well
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)


async def _to_backend(socket: aiohttp.ClientWebSocketResponse, receive: Receive) -> tuple[int, str]:
    """Pass what the caller sends; how it closed."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return _sendable(message.get("code")), message.get("reason") or ""
        text, data = message.get("text"), message.get("bytes")
        try:
            await (socket.send_str(text) if text is not None else socket.send_bytes(data or b""))
        except OSError:  # the backend is gone: reading from it says how
            await asyncio.Event().wait()


async def _to_caller(socket: aiohttp.ClientWebSocketResponse, send: Send) -> tuple[int, str]:
    """Pass what the backend sends; how it closed."""
    import aiohttp

    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        else:
            reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else ""
            return _sendable(socket.close_code), reason or ""


def _sendable(code: Any) -> int:
    """The code to close with where the other side closed with this one: some say only that none came."""
    if code in _SENT_CODES:
        return int(code)
    return _GOING if code == _NO_CODE else _TROUBLE
