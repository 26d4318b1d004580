"""Many streams at a time through a real ``llm-proxy serve``: ``python -m tests.faces.slow_streams``.

First all are opened and nobody reads: what the proxy has taken of each from its upstream, and the memory it has
resident, must stay within what docs/proxy.md says. Then all are read to their end, in small pieces.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BOUND_KIB = 1536  # a stream: 1 MiB kept for others, and what is between the sockets; see docs/proxy.md
_CHOICE = {"index": 0, "delta": {"content": " of some words"}, "logprobs": None, "finish_reason": None}
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [_CHOICE]}
_EVENT = b"data: " + json.dumps(_CHUNK).encode() + b"\n\n"
_END = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"


@dataclass
class Seen:
    """Streams that were read whole, memory in MiB, and what the upstream had to give of each while nobody read."""

    streams: int
    whole: int = 0
    before_mib: float = 0.0
    held_mib: float = 0.0
    peak_mib: float = 0.0
    after_mib: float = 0.0
    given_kib: list[int] = field(default_factory=list)

    @property
    def kib_a_stream(self) -> float:
        """Memory that each stream took at the worst moment, KiB."""
        return (self.peak_mib - self.before_mib) * 1024 / self.streams


class Upstream:
    """Answers each request with a stream as long as its asker takes it; counts what it could write."""

    def __init__(self, kib: int) -> None:
        self.events = kib * 1024 // len(_EVENT)
        self.given: list[int] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(self.given)
        self.given.append(0)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(_HEAD)
            for _ in range(self.events):
                writer.write(b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT))
                await writer.drain()
                self.given[place] += len(_EVENT)
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(_END), _END))
            await writer.drain()
        writer.close()


async def seen(
    streams: int, *, kib: int = 512, hold_s: float = 2.0, pause_s: float = 0.02, rest_s: float = 0.5
) -> Seen:
    """Open the streams, hold them, read them.

    Args:
        streams: How many at a time.
        kib: Length of each, KiB.
        hold_s: How long nobody reads.
        pause_s: Rest after each piece of 16 KiB.
        rest_s: From the end of all to the last look at memory.
    """
    upstream = Upstream(kib)
    server = await asyncio.start_server(upstream.talk, "127.0.0.1", 0, backlog=2048)
    found = Seen(streams)
    with tempfile.TemporaryDirectory() as directory:
        process, port = _proxy(Path(directory), server.sockets[0].getsockname()[1])
        try:
            await _read(await _opened(port, -1), 0.0, upstream.events)  # the first call loads what all need
            found.before_mib = resident_mib(process.pid)
            watch = asyncio.create_task(_watch(process.pid, found))
            opened = []
            for start in range(0, streams, 100):
                batch = range(start, min(start + 100, streams))
                opened += await asyncio.gather(*(_opened(port, number) for number in batch))
            await asyncio.sleep(hold_s)
            found.held_mib = resident_mib(process.pid)
            found.given_kib = [given // 1024 for given in upstream.given[1:]]
            wholes = await asyncio.gather(*(_read(one, pause_s, upstream.events) for one in opened))
            found.whole = sum(wholes)
            watch.cancel()
            await asyncio.sleep(rest_s)
            found.after_mib = resident_mib(process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)
            server.close()
    return found


def resident_mib(pid: int) -> float:
    """Memory that a process has resident, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _proxy(directory: Path, upstream_port: int) -> tuple[subprocess.Popen[str], int]:
    settings = directory / "llm-proxy.toml"
    settings.write_text(
        f'[cache]\ndirectory = "{directory}/cache"\nsemantic = false\n'
        f'[backends.b]\nbase_url = "http://127.0.0.1:{upstream_port}/v1"\n'
    )
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["port"]


async def _opened(port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose call was answered so far that the answer's head is there."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=16 << 10)
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": f"number {number}"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 "), said + await reader.read(1000)
    return reader, writer


async def _read(opened: tuple[asyncio.StreamReader, asyncio.StreamWriter], pause_s: float, events: int) -> bool:
    """Whether the stream came whole: every event, and its end."""
    reader, writer = opened
    count, tail = 0, b""
    while not tail.endswith(b"0\r\n\r\n"):
        piece = await reader.read(16 << 10)
        if not piece:
            break
        joined = tail + piece
        count += joined.count(b"data: ") - tail.count(b"data: ")
        tail = joined[-64:]
        await asyncio.sleep(pause_s)
    writer.close()
    return count == events + 1


async def _watch(pid: int, found: Seen) -> None:
    while True:
        found.peak_mib = max(found.peak_mib, resident_mib(pid))
        await asyncio.sleep(0.1)


def main() -> None:
    """Run and say what was seen; the exit status is 1 where a stream was lost or took more than the bound."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--kib", type=int, default=512, help="length of each stream")
    parser.add_argument("--hold-s", type=float, default=5.0)
    options = parser.parse_args()
    found = asyncio.run(seen(options.streams, kib=options.kib, hold_s=options.hold_s, pause_s=0.05, rest_s=12.0))
    sys.stdout.write(
        f"{found.whole} of {found.streams} whole, {found.kib_a_stream:.0f} KiB a stream; MiB: "
        f"{found.before_mib:.0f} before, {found.peak_mib:.0f} at most, {found.after_mib:.0f} after\n"
    )
    sys.exit(0 if found.whole == found.streams and found.kib_a_stream <= BOUND_KIB else 1)


if __name__ == "__main__":
    main()
