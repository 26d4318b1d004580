"""What the tests of the reverse proxy share: the proxy on a real socket, and upstreams that do as they are told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import openai
import uvicorn

from llm_proxy.cache.entry import Entry
from llm_proxy.cache.results import Stats
from llm_proxy.config import Config
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config, server_settings
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeEncoder
from tests.fakes import Found
from tests.servers import serving

__all__ = [
    "Cache", "Proxy", "Raw", "RawUpstream", "ask", "completion", "event", "http", "proxied", "raw_response", "until",
]  # fmt: skip

Handler = Callable[["Raw"], None]


class Cache:
    """The cache's verbs over a dict, with a plain scan for neighbours and no guard."""

    is_open = True
    state = "ok"

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.is_closed = False

    def open(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def nearest(
        self, scope: str, text: str, vector: Any, *, encoder: str, max_age_s: float | None, turns: Any, **more: Any
    ) -> Found:
        near = [entry for entry in self.entries.values() if entry.scope == scope and entry.vector is not None]
        best = max(near, key=lambda entry: float(entry.vector @ vector), default=None)
        similarity = float(best.vector @ vector) if best is not None else 0.0
        return Found(best, similarity) if similarity > 0.99 else Found(None, similarity)

    def admit(self, entry: Entry) -> bool:
        self.entries[entry.key] = entry
        return True

    def attach(self, key: str, *, scope: str, vector: Any, encoder: str) -> None:
        pass

    def note_served(self, weighed: Any) -> None:
        pass

    def hit(self, key: str) -> bool:
        return False

    def stats(self) -> Stats:
        count = len(self.entries)
        return Stats(count, count, 1, 0, 1 << 20, 1000, 0, "", evicted=0, expired=0, corrupt=0, problems=())


@dataclass
class Proxy:
    """A running proxy."""

    port: int
    runtime: Runtime
    cache: Cache
    events: list[CallEvent]
    app: ProxyApp
    opened: ExitStack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, *, api_key: str = "sk-caller", **options: Any) -> openai.OpenAI:
        """A client of its own connections, which close with the proxy."""
        made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, **{"max_retries": 0, **options})
        return self.opened.enter_context(made)


@contextmanager
def proxied(backends: str | Mapping[str, Any], *, encoder: Any = None, **sections: Any) -> Iterator[Proxy]:
    """The proxy on a free port, before one backend of this URL or several, as `serve` would run it."""
    named = {"main": {"base_url": backends}} if isinstance(backends, str) else backends
    cache, events = Cache(), []
    sections = {"observe": {"ledger": False}, "cache": {"store": "memory"}, "encoder": {"wait_s": 5}, **sections}
    config = server_config(Config(backends=named, **sections))
    runtime = Runtime(config, cache=cache, encoder=encoder or FakeEncoder(), sinks=(events.append,))
    app = ProxyApp(runtime)
    with running(app) as port, ExitStack() as opened:
        yield Proxy(port, runtime, cache, events, app, opened)


@contextmanager
def running(app: ProxyApp, **changes: Any) -> Iterator[int]:
    """The application under uvicorn with the settings of `serve`."""
    settings = server_settings(app)
    settings.timeout_graceful_shutdown = 2
    for name, value in changes.items():
        setattr(settings, name, value)
    server = uvicorn.Server(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def upstreams(*apps: Any) -> Iterator[list[str]]:
    """Base URLs of ASGI applications on free ports."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving(app)).url + "/v1" for app in apps]


@dataclass
class Raw:
    """One request as a raw upstream got it, and the connection to answer on."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: socket.socket
    is_chunked: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def is_left(self, wait_s: float) -> bool:
        """Whether the other side closes the connection within this time."""
        self.connection.settimeout(wait_s)
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@dataclass
class RawUpstream:
    """A server of one's own bytes: each request goes to ``handler``, which answers, or not, on its connection."""

    handler: Handler
    requests: list[Raw] = field(default_factory=list)
    url: str = ""

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].partition("/")[0])

    def __enter__(self) -> RawUpstream:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._talk, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader, suppress(OSError, EOFError):
            while True:
                request = _read_request(connection, reader)
                self.requests.append(request)
                self.handler(request)
        self._open.discard(connection)


def _read_request(connection: socket.socket, reader: BinaryIO) -> Raw:
    line = _line(reader)
    method, target, _ = line.decode("latin-1").split(" ")
    headers: list[tuple[str, str]] = []
    while line := _line(reader):
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    values = {name.lower(): value for name, value in headers}
    parts, is_chunked = [], values.get("transfer-encoding") == "chunked"
    if is_chunked:
        while size := int(_line(reader), 16):
            parts.append(_exactly(reader, size))
            _line(reader)
        _line(reader)
    else:
        parts.append(_exactly(reader, int(values.get("content-length", 0))))
    return Raw(method, target, headers, b"".join(parts), connection, is_chunked)


def _line(reader: BinaryIO) -> bytes:
    line = reader.readline()
    if not line:
        raise EOFError
    return line.rstrip(b"\r\n")


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise EOFError
    return data


def raw_response(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    content_type: str = "application/json",
    length: int | None = None,
) -> bytes:
    """A whole response; ``length`` is what it says of its body."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", *headers]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes, is_end: bool = True) -> bytes:
    """Pieces of a body as HTTP chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if is_end else b"")


def completion(text: str = "fine", **fields: Any) -> bytes:
    """A plain completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    value = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps({**value, **fields}).encode()


def event(text: str | None = None, **fields: Any) -> bytes:
    """One event of a streamed completion; without a text the one that ends its choice."""
    delta = {"content": text} if text is not None else {}
    choice = {"index": 0, "delta": delta, "finish_reason": None if text is not None else "stop"}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def ask(client: openai.OpenAI, text: str = "What is up?", *, stream: bool = False, **options: Any) -> Any:
    """The text of an answer, and the raw response (plain) or None (streamed)."""
    messages = [{"role": "user", "content": text}]
    options = {"model": "m", "messages": messages, **options}
    if stream:
        with client.chat.completions.create(stream=True, **options) as chunks:
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return client.chat.completions.create(**options).choices[0].message.content


def http(
    port: int, data: bytes, *, until_closed: bool = False, timeout_s: float = 10
) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes; status, headers and body of the first response (undecoded, or up to the connection's end)."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                raise EOFError(received)
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(headers.get("content-length", 0))
        while until_closed or len(body) < size:
            chunk = connection.recv(65536)
            if not chunk:
                break
            body += chunk
    return int(lines[0].split(" ")[1]), headers, body


def until(condition: Callable[[], Any], wait_s: float = 5.0) -> None:
    """Wait for something that another thread will do."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.005)
