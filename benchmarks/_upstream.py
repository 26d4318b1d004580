"""A simulated upstream for benchmarks: a bare asyncio HTTP server that answers a chat completion at once.

Started as a process of its own (`upstream`), so that it takes no time from the process that is measured. Options:
a fixed latency, or latencies recorded from real traffic.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import cast

from ._load import pinned

STREAM_CHUNKS = 30
_WORDS = " ".join(f"word{number}" for number in range(60))


def completion(content: str = _WORDS) -> dict[str, object]:
    """The completion that this upstream gives to a plain request."""
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80},
    }


def stream_body(chunks: int = STREAM_CHUNKS) -> list[bytes]:
    """The events of a streamed answer of ``chunks`` chunks, the terminal event last."""

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000}
        return f"data: {json.dumps({**head, 'model': 'gpt-4o-mini', 'choices': [choice]})}\n\n".encode()

    middle = [event({"content": f"word{number} "}) for number in range(chunks - 2)]
    return [event({"role": "assistant", "content": ""}), *middle, event({}, "stop"), b"data: [DONE]\n\n"]


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; understands POST with a content length, and GET."""

    def __init__(self, latencies_s: Iterator[float]) -> None:
        self._latencies_s = latencies_s
        self._buffer = b""
        self._transport: asyncio.Transport
        body = json.dumps(completion()).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._plain = head.encode() + body
        events = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in stream_body())
        stream_head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._stream = stream_head + events + b"0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            is_stream = b'"stream":true' in body or b'"stream": true' in body
            answer = self._stream if is_stream else self._plain
            latency_s = next(self._latencies_s)
            if latency_s:
                asyncio.get_running_loop().call_later(latency_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def _serve(latencies_s: list[float]) -> None:
    loop = asyncio.get_running_loop()
    shared = cycle(latencies_s)
    server = await loop.create_server(lambda: _Connection(shared), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def upstream(latencies: Path | None = None, cores: Iterable[int] = ()) -> Iterator[str]:
    """A running upstream's base URL; ended on exit.

    Args:
        latencies: File with one latency in seconds a line, replayed in a circle; None: answers at once.
        cores: Cores that it runs on; empty: all.
    """
    command = [sys.executable, "-m", "benchmarks._upstream"]
    process = subprocess.Popen(
        pinned([*command, *(["--latencies", str(latencies)] if latencies else [])], cores),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    """Serve until ended; the first line on standard output is the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latencies", type=Path)
    path = parser.parse_args().latencies
    serving = _serve([float(line) for line in path.read_text().split()] if path else [0.0])
    if importlib.util.find_spec("uvloop"):
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)


if __name__ == "__main__":
    main()
