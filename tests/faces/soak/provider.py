"""A simulated OpenAI provider for the soak, in a process of its own: it asks no model and counts who asked it.

``python -m tests.faces.soak.provider`` prints two ports as JSON. The first speaks HTTP: `tests.clients.upstream`, with
answers that name their question. ``x-soak-pause-ms`` of a request is its rest after each piece of a stream. The second
one resets every connection: at once, or after the beginning of an answer for the model ``late``.

``GET /soak/counts`` of the first: how often each ``x-soak-call`` came, and whose callers left before the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import uvicorn

from tests.clients.upstream import SimulatedProvider, said_by
from tests.faces.soak.questions import answer_to, subject_of

__all__ = ["CountingProvider", "embedding_of"]

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets
_PLAIN = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000\r\n\r\n{"id": "c", '
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n"
_CHUNK = (
    b'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "late", "choices": '
    b'[{"index": 0, "delta": {"role": "assistant", "content": "So"}, "finish_reason": null}]}\n\n'
)


class _LeftError(Exception):
    """The asker has left in the middle."""


def embedding_of(text: str) -> list[float]:
    """Eight numbers that no other text has."""
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:8]]


class CountingProvider:
    """The provider as an ASGI application; every answer has a number of its own."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._inner = SimulatedProvider(self._said)
        self.asked: Counter[str] = Counter()
        self.left: list[str] = []

    def _said(self, body: Mapping[str, Any]) -> str:
        return answer_to(subject_of(said_by(body)), next(self._serials))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["path"] == "/soak/counts":
            await _send_json(send, {"asked": self.asked, "left": self.left})
            return
        headers = dict(scope["headers"])
        call = headers.get(b"x-soak-call", b"").decode()
        self.asked[call] += 1
        self._inner.requests.clear()  # else this process would grow
        await asyncio.sleep(0.01)
        if scope["path"] == "/v1/embeddings":
            await _embed(receive, send)
            return
        pause_s = int(headers.get(b"x-soak-pause-ms", b"0")) / 1000
        if not pause_s:
            await self._inner(scope, receive, send)
            return
        try:
            await _Paced(receive, send, pause_s).run(self._inner, scope)
        except _LeftError:
            self.left.append(call)


class _Paced:
    """One request whose answer takes its time, and notices that nobody waits for it."""

    def __init__(self, receive: Any, send: Any, pause_s: float) -> None:
        self._receive, self._send, self._pause_s = receive, send, pause_s
        self._gone: asyncio.Future[Any] | None = None

    async def run(self, app: Any, scope: Any) -> None:
        try:
            await app(scope, self._receive, self._piece)
        finally:
            if self._gone is not None:
                self._gone.cancel()

    async def _piece(self, message: Any) -> None:
        await self._send(message)
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._receive())
        if message.get("more_body"):
            await asyncio.sleep(self._pause_s)
            if self._gone.done():
                raise _LeftError


async def _embed(receive: Any, send: Any) -> None:
    raw, more = b"", True
    while more:
        message = await receive()
        raw, more = raw + message.get("body", b""), message.get("more_body", False)
    body = json.loads(raw)
    row = {"object": "embedding", "index": 0, "embedding": embedding_of(body["input"])}
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    await _send_json(send, {"object": "list", "model": body["model"], "data": [row], "usage": usage})


async def _send_json(send: Any, value: Any) -> None:
    rows = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": rows})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


class Resetting:
    """A server that resets its connections; counts in ``asked``, too."""

    def __init__(self, asked: Counter[str]) -> None:
        self._asked = asked

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request, perhaps begin to answer, and reset."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(_header(head, b"content-length")))
            self._asked[_header(head, b"x-soak-call").decode()] += 1
            if b'"late"' in body:
                writer.write(_STREAM % (len(_CHUNK), _CHUNK) if b'"stream": true' in body else _PLAIN)
                await writer.drain()
                await asyncio.sleep(0.05)  # a reset overtakes what the other side has not read
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()


def _header(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"\r\n" + name + rb": *([^\r]*)", head)
    return found[1] if found else b"0"


async def _serve() -> None:
    app = CountingProvider()
    resetting = await asyncio.start_server(Resetting(app.asked).talk, "127.0.0.1", 0)
    settings = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_keep_alive=3600)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        ports = [listener.getsockname()[1], resetting.sockets[0].getsockname()[1]]
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await uvicorn.Server(settings).serve(sockets=[listener])
    resetting.close()


if __name__ == "__main__":
    asyncio.run(_serve())
