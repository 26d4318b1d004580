"""An upstream on a real socket that fails as it is told, and the three ways to ask it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "FAULTS",
    "STATUSES",
    "Asked",
    "FaultyUpstream",
    "chunks_of",
    "closed_port",
    "full_port",
    "plain",
    "split",
    "upstream",
]

STATUSES = (408, 409, 429, 500, 502, 503, 529)
FAULTS = (
    "reset before headers", "reset after headers", "reset in mid-body", "reset in mid-event", "cut", "silent",
    "silent after headers", "silent in mid-body", "invalid JSON", "wrong content type", "slow drip",
    *map(str, STATUSES), "429 asked to wait",
)  # fmt: skip
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DRIP_S = 0.002


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    fault: str

    @property
    def text(self) -> str:
        """The first question in it."""
        return str(next(message["content"] for message in self.body["messages"] if message["role"] == "user"))


def split(text: str) -> list[str]:
    """A text as a stream brings it: words with the spaces before them."""
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


def chunks_of(text: str, *, id: str = "c1", model: str = "m", usage: dict[str, int] | None = None) -> list[bytes]:
    """The events of a streamed answer."""
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in split(text)] if text else []
    deltas.append(({}, "stop"))
    top = {"id": id, "object": "chat.completion.chunk", "created": 1, "model": model}
    rows = [{**top, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    rows += [{**top, "choices": [], "usage": usage}] if usage else []
    return [*(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows), b"data: [DONE]\n\n"]


def plain(text: str, *, model: str = "m", usage: dict[str, int] | None = None) -> bytes:
    """A plain answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    value = {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    return json.dumps({**value, "usage": usage or {"prompt_tokens": 3, "completion_tokens": 2}}).encode()


@dataclass
class FaultyUpstream:
    """Answers chat completions with ``answer(request)``, or fails as ``fault(request)`` says.

    Attributes:
        asked: All requests, oldest first.
        answered: How often each question got its whole answer.
    """

    answer: Callable[[dict[str, Any]], str]
    fault: Callable[[dict[str, Any]], str]
    usage: Callable[[dict[str, Any], str], dict[str, int]] | None = None
    latency_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):  # asyncio would log the last
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                rows = [line.partition(":") for line in head[1:] if line]
                headers = {name.lower(): value.strip() for name, _, value in rows}
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
                asked = Asked(body, headers, self.fault(body))
                self.asked.append(asked)
                if not await self._respond(asked, reader, writer):
                    break
        writer.close()

    async def _respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection may be used again."""
        fault, text = asked.fault, self.answer(asked.body)
        await asyncio.sleep(self.latency_s)
        if fault.partition(" ")[0].isdigit():
            return await _refuse(writer, fault)
        is_stream = asked.body.get("stream") is True
        usage = self.usage(asked.body, text) if self.usage else None
        pieces, head = self._pieces(asked, text, usage, is_stream=is_stream)
        at = {"after": 0, "in": max(1, len(pieces) // 2)}.get(fault.split(" ")[1] if " " in fault else "", len(pieces))
        if fault in ("reset before headers", "silent"):
            head, at = b"", 0
        writer.write(head)
        for piece in pieces[:at]:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if is_stream else piece)
            await writer.drain()
            await asyncio.sleep(_DRIP_S if fault == "slow drip" else 0)
        return await self._end(asked, reader, writer, is_stream=is_stream)

    def _pieces(
        self, asked: Asked, text: str, usage: dict[str, int] | None, *, is_stream: bool
    ) -> tuple[list[bytes], bytes]:
        fault, model = asked.fault, asked.body["model"]
        wants_usage = (asked.body.get("stream_options") or {}).get("include_usage")
        if is_stream:
            pieces = chunks_of(text, model=model, usage=usage if wants_usage else None)
            if fault == "invalid JSON":
                pieces[2] = b"data: {oops\n\n"
            if fault in ("reset in mid-event", "cut"):
                middle = max(1, len(pieces) // 2)
                pieces = [*pieces[:middle], pieces[middle][:17]] if fault == "reset in mid-event" else pieces[:middle]
                pieces += [] if fault == "cut" else [b""] * len(pieces)
            head = _STREAM
        else:
            body = b"{oops" if fault == "invalid JSON" else plain(text, model=model, usage=usage)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            pieces = [body[at : at + 16] for at in range(0, len(body), 16)]
            pieces = pieces[: len(pieces) // 2] if fault == "cut" else pieces
        if fault == "wrong content type":
            head = head.replace(b"application/json", b"text/html").replace(b"text/event-stream", b"text/html")
        return [piece for piece in pieces if piece] if fault != "reset in mid-event" else pieces, head

    async def _end(
        self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_stream: bool
    ) -> bool:
        fault = asked.fault
        if fault.startswith("silent"):
            await reader.read(1)  # until the other side leaves
            return False
        if fault.startswith("reset"):
            await writer.drain()
            await asyncio.sleep(0.01)  # what was written is read before the reset wipes it out
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if fault == "cut":
            return False
        self.answered[asked.text] += 1
        if is_stream:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _refuse(writer: asyncio.StreamWriter, fault: str) -> bool:
    status = fault.partition(" ")[0]
    error = {"error": {"message": f"told to say {status}", "type": "simulated", "param": None, "code": None}}
    body = json.dumps(error).encode()
    more = b"retry-after-ms: 20\r\n" if "wait" in fault else b""
    head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + more + b"\r\n" + body)
    await writer.drain()
    return True


@contextmanager
def upstream(
    answer: Callable[[dict[str, Any]], str] = lambda body: "all is well here",
    fault: Callable[[dict[str, Any]], str] | str = "",
    **options: Any,
) -> Iterator[FaultyUpstream]:
    """Serve on a free port of loopback, in a thread that ends with the block."""
    made = FaultyUpstream(answer, fault if callable(fault) else lambda body: fault, **options)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    made.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    loop = asyncio.new_event_loop()
    ended = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        made.stop = lambda: loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
        server = await asyncio.start_server(made.serve, sock=listener, limit=1 << 22)
        ended.set()
        await stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ended.wait(10)
    try:
        yield made
    finally:
        made.stop()  # type: ignore[attr-defined]
        thread.join(10)
        loop.close()


@contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port where nobody listens, kept for as long as the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@contextmanager
def full_port() -> Iterator[str]:
    """The URL of a port that takes no further connection and refuses none: whoever tries has to wait."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
