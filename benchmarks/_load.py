"""Load on a loopback HTTP server: ``wrk`` where it is installed, else a generator of our own (slower, and it says so).

Run as a program (``python -m benchmarks._load``) it is that generator, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["BLANKS", "UNIQUE", "Load", "Measured", "generator_name", "measure", "pinned"]

UNIQUE = "@UNIQUE@"
"""Where a body holds this, each request has another number."""
BLANKS = "@BLANKS@"
"""Where a body holds this, each request has other blanks: the same words, and never the same bytes."""
_PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Load:
    """What is asked.

    Attributes:
        url: Base URL up to and with ``/v1``.
        bodies: Request bodies, sent in turn.
        headers: Headers beside the content type.
        expected: What ``cache-status`` has to hold; an answer without it counts as an error. Empty: anything.
    """

    url: str
    bodies: tuple[str, ...]
    headers: Mapping[str, str]
    expected: str = ""


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        rps: Whole answers a second.
        p50_ms: Median time from a request to the last byte of its answer.
        p99_ms: The 99th percentile.
        errors: Broken connections, time-outs and answers that are not 2xx.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    errors: int


def generator_name() -> str:
    """What makes the load here."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def measure(load: Load, *, connections: int, seconds: float, cores: Iterable[int] = ()) -> Measured:
    """Ask over and over, each connection one request after the other.

    Args:
        load: What to ask.
        connections: How many at a time.
        seconds: For how long.
        cores: Cores that the generator runs on; empty: all.
    """
    with tempfile.TemporaryDirectory() as directory:
        if generator_name() == "wrk":
            script = Path(directory) / "load.lua"
            script.write_text(_lua(load), encoding="utf-8")
            options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
            command = ["wrk", *options, "-s", str(script), _origin(load.url)]
        else:
            given = Path(directory) / "load.json"
            given.write_text(json.dumps(asdict(load) | {"headers": dict(load.headers)}), encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks._load", str(given), str(connections), str(seconds)]
        run = subprocess.run(pinned(command, cores), capture_output=True, text=True, check=False, timeout=60 + seconds)
    if run.returncode:
        sys.exit(f"the load generator failed: {run.stderr.strip() or run.stdout.strip()}")
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def pinned(command: list[str], cores: Iterable[int]) -> list[str]:
    """A command that runs on these cores only, where the system can do that."""
    wanted = ",".join(map(str, cores))
    return ["taskset", "--cpu-list", wanted, *command] if wanted and shutil.which("taskset") else command


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _lua(load: Load) -> str:
    """A script for wrk. Its ``done`` prints what `Measured` holds."""
    quoted = "".join(f"[==[{body}]==],\n" for body in load.bodies)
    headers = "".join(f"wrk.headers[ [==[{name}]==] ] = [==[{value}]==]\n" for name, value in _rows(load))
    return f"""
local bodies = {{{quoted}}}
local run = {time.monotonic_ns() // 1000 % 1_000_000_000}
local turn = 0
local threads = {{}}
unexpected = 0
wrk.method = "POST"
{headers}
function blanks(number)
  local found = {{}}
  while number > 0 do
    found[#found + 1] = number % 2 == 0 and " " or "\\\\t"
    number = math.floor(number / 2)
  end
  return table.concat(found)
end
function setup(thread) threads[#threads + 1] = thread end
{_CHECK.replace("EXPECTED", load.expected) if load.expected else ""}
function request()
  turn = turn + 1
  local body = bodies[turn % #bodies + 1]
  if body:find("{UNIQUE}", 1, true) then body = body:gsub("{UNIQUE}", run .. turn) end
  if body:find("{BLANKS}", 1, true) then body = body:gsub("{BLANKS}", blanks(run + turn)) end
  return wrk.format("POST", "{_PATH}", nil, body)
end
function done(summary, latency, requests)
  local e = summary.errors
  for _, thread in ipairs(threads) do e.status = e.status + thread:get("unexpected") end
  io.write(string.format('{{"rps": %.3f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


_CHECK = """
function response(status, headers, body)
  local said = headers["cache-status"] or ""
  if status == 200 and not said:find("EXPECTED", 1, true) then unexpected = unexpected + 1 end
end
"""


def _rows(load: Load) -> list[tuple[str, str]]:
    return [("content-type", "application/json"), *load.headers.items()]


class _Connection(asyncio.Protocol):
    """One keep-alive connection of the generator."""

    def __init__(self, heads: list[tuple[bytes, bytes]], expected: str, times: list[float], errors: list[str]) -> None:
        self._heads, self._expected, self._times, self._errors = heads, expected.encode(), times, errors
        self._buffer, self._turn = b"", 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        head, body = self._heads[self._turn % len(self._heads)]
        self._turn += 1
        number = (id(self) >> 4) % 1_000_003 * 1_000_000 + self._turn
        body = body.replace(UNIQUE.encode(), b"%d" % number)
        body = body.replace(BLANKS.encode(), f"{number:b}".replace("0", " ").replace("1", "\\t").encode())
        self._started = time.perf_counter()
        self._transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.find(b"content-length:")
        if start >= 0:
            is_whole = len(self._buffer) >= end + 4 + int(head[start + 15 :].split(b"\r\n", 1)[0])
        else:
            is_whole = self._buffer.endswith(b"0\r\n\r\n")
        if is_whole:
            self._times.append(time.perf_counter() - self._started)
            if not head.startswith(b"http/1.1 2") or self._expected not in head:
                self._errors.append(head[:20].decode("latin-1"))
            self._buffer = b""
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._errors.append(repr(exc))


async def _generate(load: Load, connections: int, seconds: float) -> Measured:
    loop, parts = asyncio.get_running_loop(), urlsplit(load.url)
    rows = "".join(f"{name}: {value}\r\n" for name, value in [("host", parts.netloc), *_rows(load)])
    heads = [(f"POST {_PATH} HTTP/1.1\r\n{rows}".encode(), body.encode()) for body in load.bodies]
    times: list[float] = []
    errors: list[str] = []
    made = [
        await loop.create_connection(
            lambda: _Connection(heads, load.expected, times, errors), parts.hostname, parts.port
        )
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in made:
        transport.abort()
    ordered = sorted(times) or [0.0]
    p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return Measured(len(times) / seconds, p50, p99, len(errors))


def main() -> None:
    """Make load; arguments: a file of the `Load`, connections, seconds."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    load = Load(given["url"], tuple(given["bodies"]), given["headers"], given["expected"])
    print(json.dumps(asdict(asyncio.run(_generate(load, int(sys.argv[2]), float(sys.argv[3]))))))


if __name__ == "__main__":
    main()
