"""Looking for model servers: finds those that are, and is neither fooled, nor held up, nor filled by anything else."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from llm_proxy.backends.discover import PORTS, LocalServer, discover

Answer = Callable[[str, socket.socket], None]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def listening(answer: Answer) -> Iterator[int]:
    """A loopback server that answers each request for a path as it is told; yields its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = self.request.recv(4096)
                if not chunk:
                    return
                head += chunk
            with suppress(OSError):  # the one who asked has had enough
                answer(head.split()[1].decode(), self.request)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def http(body: bytes, *, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def lists(*models: Any, owned_by: Any = "someone", head: str = "") -> Answer:
    """A server whose /v1/models lists these; any other path is unknown to it."""
    rows = [{"id": model, "object": "model", "owned_by": owned_by} for model in models]

    def answer(path: str, connection: socket.socket) -> None:
        if path == "/v1/models":
            connection.sendall(http(json.dumps({"object": "list", "data": rows}).encode(), head=head))
        else:
            connection.sendall(http(b"404 page not found", status="404 Not Found"))

    return answer


def says(data: bytes) -> Answer:
    return lambda path, connection: connection.sendall(data)


def one(answer: Answer, **limits: float) -> tuple[LocalServer, ...]:
    with listening(answer) as port:
        return discover({port: "Something"}, **limits)


def test_what_it_finds():
    with ExitStack() as stack:
        first = stack.enter_context(listening(lists("llama3.2", "phi")))
        second = stack.enter_context(listening(lists()))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            closed = taken.getsockname()[1]
        found = discover({first: "A", closed: "B", second: "C"})
    assert found == (
        LocalServer("A", f"http://127.0.0.1:{first}/v1", ("llama3.2", "phi")),
        LocalServer("C", f"http://127.0.0.1:{second}/v1", ()),
    )


def test_the_usual_ports():
    assert set(PORTS) == {11434, 8080, 8000, 1234}
    assert discover({}) == ()


@pytest.mark.parametrize(
    ("owner", "name"),
    [("library", "Ollama"), ("llamacpp", "llama.cpp"), ("me", "llama-cpp-python"), ("vllm", "vLLM"),
     ("organization_owner", "LM Studio"), ("x", "Something"), (None, "Something"), (["vllm"], "Something")],
)  # fmt: skip
def test_a_server_is_called_what_it_says(owner, name):
    (server,) = one(lists("m", owned_by=owner))
    assert server.name == name


def test_models_that_only_embed_come_last():
    (server,) = one(lists("nomic-embed-text", "b", "text-Embedding-3", "a"))
    assert server.models == ("b", "a", "nomic-embed-text", "text-Embedding-3")


def test_names_that_are_no_names_are_left_out():
    (server,) = one(lists("good", "", 3, None, "x" * 201, "\x1b[2J", "a\nb", "good", {"id": 1}, "fine:1b"))
    assert server.models == ("good", "fine:1b")


def test_rows_that_are_no_rows_are_left_out():
    (server,) = one(says(http(b'{"data": [3, null, [], {"id": "m"}, {"no": 1}]}')))
    assert server.models == ("m",)


def test_chunked_answers_and_such_that_do_not_close():
    body = json.dumps({"data": [{"id": "m"}]}).encode()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert one(says(chunked))[0].models == ("m",)

    def stays(path: str, connection: socket.socket) -> None:
        connection.sendall(http(body))
        connection.recv(1)

    assert one(stays, answer_s=0.1)[0].models == ("m",)


class TestNotFooled:
    @pytest.mark.parametrize(
        "data",
        [
            b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00" * 1000, b"HTTP/1.1 200 OK\r\n", http(b"<html>hello</html>"),
            http(b"[]"), http(b"3"), http(b"null"), http(b"{}"), http(b'{"data": {"models": []}}'), http(b"\xff\xfe"),
            http(b'{"data": []}', status="401 Unauthorized"), http(b'{"data": []}', status="302 Found"),
            http(b"[" * 200_000), http(b"9" * 100_000), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000,
        ],
        ids=lambda data: repr(data[:30]),
    )  # fmt: skip
    def test_by_what_is_no_model_server(self, data):
        assert one(says(data)) == ()

    def test_by_llm_proxy_itself(self):
        """Its /v1/models would list the models of its upstream; /readyz says who it is."""
        asked = []

        def answer(path: str, connection: socket.socket) -> None:
            asked.append(path)
            ready = {"status": "ok", "cache": "ok", "encoder": "loading", "troubles": {}}
            connection.sendall(http(json.dumps(ready if path == "/readyz" else {"data": [{"id": "m"}]}).encode()))

        assert one(answer) == ()
        assert asked == ["/readyz"], "its upstream is not asked"

    def test_by_an_answer_that_came_through_llm_proxy(self):
        assert one(lists("m", head="Cache-Status: llm-proxy; fwd=bypass\r\n")) == ()


class TestBounded:
    def test_in_time_by_a_server_that_says_nothing(self):
        started = time.monotonic()
        assert one(lambda path, connection: connection.recv(1) and None, answer_s=0.1) == ()
        assert time.monotonic() - started < 2

    def test_in_time_by_one_that_drips(self):
        def drips(path: str, connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(500):
                connection.sendall(b"a")
                time.sleep(0.01)

        started = time.monotonic()
        assert one(drips, answer_s=0.1) == ()
        assert time.monotonic() - started < 2

    def test_in_time_by_one_that_does_not_accept(self):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            started = time.monotonic()
            assert discover({server.getsockname()[1]: "x"}, connect_s=0.1, answer_s=0.1) == ()
        assert time.monotonic() - started < 2

    def test_in_memory(self):
        sent = 0

        def floods(path: str, connection: socket.socket) -> None:
            nonlocal sent
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(1000):
                connection.sendall(b"x" * (1 << 20))
                sent += 1 << 20

        assert one(floods, answer_s=5.0) == ()
        assert sent < 64 << 20

    def test_in_number(self):
        (server,) = one(lists(*(f"m{number}" for number in range(3000))))
        assert len(server.models) == 1000

    def test_all_ports_at_once(self):
        with ExitStack() as stack:
            slow = [stack.enter_context(listening(lambda path, connection: time.sleep(0.5))) for _ in range(8)]
            started = time.monotonic()
            assert discover(dict.fromkeys(slow, "x"), answer_s=0.3) == ()
            assert time.monotonic() - started < 2


def test_the_environment_s_proxy_is_not_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert one(lists("m"))[0].models == ("m",)
