"""What a connection may do: limits on heads, silence and number, and no request that two servers read differently."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn

from llm_proxy.faces import _connections as module
from llm_proxy.faces.serve import server_settings
from tests.faces.asgi_kit import (
    STREAM_HEAD,
    RawUpstream,
    chunked,
    completion,
    event,
    http,
    proxied,
    raw_response,
    running,
    until,
)  # fmt: skip

PARSERS = pytest.mark.parametrize("parser", ["httptools", "h11"])
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


@contextmanager
def served(parser: str = "httptools", **server):
    """A proxy with these limits, before an upstream that answers; yields the port and what the upstream got."""
    with (
        RawUpstream(lambda request: request.send(raw_response(completion()))) as upstream,
        proxied(upstream.url, server=server) as proxy,
        running(proxy.app, http=parser) as port,
    ):
        yield port, upstream


def error_of(body: bytes) -> dict:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def received(connection: socket.socket, timeout_s: float = 10.0) -> bytes:
    """All that comes until the other side closes."""
    connection.settimeout(timeout_s)
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


@PARSERS
class TestHeads:
    def test_too_many_bytes(self, parser):
        with served(parser, max_head_bytes=2048) as (port, upstream):
            status, headers, body = http(port, HEAD + b"x-long: " + b"a" * 4000 + b"\r\n\r\n", until_closed=True)
            assert status in ({431} if parser == "httptools" else {400, 431})
            assert headers["connection"] == "close"
            assert error_of(body)["type"] == "invalid_request_error"
            assert http(port, WHOLE)[0] == 200
            assert len(upstream.requests) == 1

    def test_too_many_bytes_that_never_end(self, parser):
        with served(parser, max_head_bytes=2048) as (port, _), socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(HEAD)
            for _ in range(8):
                caller.sendall(b"x-more: " + b"a" * 500 + b"\r\n")
            assert received(caller).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))

    def test_who_sends_on_reads_the_answer_all_the_same(self, parser):
        with served(parser, max_head_bytes=2048) as (port, _), socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(HEAD + b"x-more: " + b"a" * 4000)
            time.sleep(0.1)  # refused by now
            for _ in range(8):
                caller.sendall(b"b" * 1000)
                time.sleep(0.01)
            assert received(caller).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))

    @pytest.mark.parametrize("size", [1000, 100_000])
    def test_who_never_ends_is_closed_all_the_same(self, parser, size):
        with served(parser, max_head_bytes=2048) as (port, _), socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(HEAD + b"x-more: " + b"a" * 4000)

            def is_closed() -> bool:
                try:
                    caller.sendall(b"b" * size)
                except ConnectionError:
                    return True
                return False

            until(is_closed, 2)

    def test_too_many_headers(self, parser):
        with served(parser, max_headers=10) as (port, _):
            rows = b"".join(b"x-%d: a\r\n" % number for number in range(10))
            status, headers, body = http(port, HEAD + rows + b"\r\n", until_closed=True)
            assert (status, headers["connection"]) == (431, "close")
            assert "more than 10 headers" in error_of(body)["message"]

    def test_no_http_at_all(self, parser):
        with served(parser) as (port, _):
            status, headers, body = http(port, b"\x16\x03\x01 hello\r\n\r\n", until_closed=True)
            assert (status, headers["connection"]) == (400, "close")
            assert error_of(body)["message"] == "this is no valid HTTP/1.1 request"

    def test_slowly(self, parser):
        with (
            served(parser, head_s=0.3) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            caller.sendall(HEAD)
            answer = received(caller)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"did not come in whole within 0.3 s" in answer

    def test_a_byte_now_and_then_does_not_help(self, parser):
        with (
            served(parser, head_s=0.3) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            is_closed = False
            for _ in range(500):
                try:
                    caller.sendall(b"G")
                except ConnectionError:
                    is_closed = True
                    break
                time.sleep(0.02)
            assert is_closed

    def test_slowly_after_a_first_request(self, parser):
        with (
            served(parser, head_s=0.3) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            caller.sendall(WHOLE)
            assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")
            caller.sendall(HEAD)
            assert b"HTTP/1.1 408 " in received(caller)

    def test_silence_from_the_start(self, parser):
        with (
            served(parser, idle_s=1) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            assert received(caller) == b""


@PARSERS
class TestBodies:
    def test_silence_in_the_middle(self, parser):
        with (
            served(parser, body_s=0.3) as (port, upstream),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            caller.sendall(HEAD + b"content-length: 100\r\n\r\n{")
            answer = received(caller)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"nothing more of the request's body came for 0.3 s" in answer
            assert upstream.requests == []

    def test_a_body_in_pieces_is_fine(self, parser):
        with (
            served(parser, body_s=5.0) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            for piece in (WHOLE[:-30], WHOLE[-30:-10], WHOLE[-10:]):
                caller.sendall(piece)
                time.sleep(0.02)
            assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_what_follows_a_refused_body_is_no_head(self, parser):
        with (
            served(parser, max_body_bytes=1000, max_head_bytes=1024) as (port, _),
            socket.create_connection(("127.0.0.1", port)) as caller,
        ):
            caller.sendall(HEAD + b"content-length: 20000\r\n\r\n" + b"x" * 5000)
            caller.settimeout(10)
            answer = b""
            while not answer.endswith(b"}}"):
                answer += caller.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413 ")
            caller.sendall(b"x" * 15000)
            caller.sendall(WHOLE)
            assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")


@PARSERS
def test_one_connection_too_many_is_told_so(parser):
    with served(parser, max_connections=2) as (port, upstream):
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            until(lambda: http(port, WHOLE, until_closed=True)[0] == 503)
            status, headers, body = http(port, WHOLE, until_closed=True)
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
            assert error_of(body)["code"] == "too_many_connections"
            before = len(upstream.requests)
        until(lambda: http(port, WHOLE)[0] == 200)
        assert len(upstream.requests) <= before + 1


@PARSERS
@pytest.mark.parametrize("ahead", [WHOLE, WHOLE * 2], ids=["one", "two in turn"])
def test_nothing_is_written_after_a_refusal(parser, ahead, caplog):
    """No HTTP comes while a call is under way: whatever that is answered, it is too late."""
    is_left = threading.Event()

    def slow(request) -> None:
        if request.is_left(5):
            is_left.set()

    with (
        RawUpstream(slow) as upstream,
        proxied(upstream.url) as proxy,
        running(proxy.app, http=parser) as port,
        socket.create_connection(("127.0.0.1", port)) as caller,
    ):
        caller.sendall(ahead)
        until(lambda: upstream.requests)
        caller.sendall(b"\x00 no HTTP\r\n\r\n")
        if parser == "httptools":  # h11 looks at what comes next when the answer is over
            assert received(caller).startswith(b"HTTP/1.1 400 ") is (ahead == WHOLE)
        caller.close()
        if parser == "h11" or ahead == WHOLE:  # uvicorn tells none but the last one in turn
            assert is_left.wait(5)
        assert proxy.runtime.troubles.counts == {}
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("path", ["/readyz", "/llm-proxy/calls"])
def test_nothing_is_written_after_a_refusal_that_came_at_once(path, caplog):
    with proxied({"b": {"base_url": "http://127.0.0.1:9/v1"}}) as proxy:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", proxy.port)) as caller:
                caller.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() + b"\x00 no HTTP\r\n\r\n")
                assert received(caller).startswith(b"HTTP/1.1 400 ")
        time.sleep(0.1)
        assert proxy.runtime.troubles.counts == {}
    assert "Exception" not in caplog.text


def test_far_too_many_are_closed_without_a_word(monkeypatch):
    monkeypatch.setattr("llm_proxy.faces._connections._BEYOND", 0)
    with served(max_connections=1) as (port, _), socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(WHOLE)
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        with socket.create_connection(("127.0.0.1", port)) as second:
            assert received(second) == b""


def test_a_caller_who_takes_nothing_is_left():
    is_left = threading.Event()

    def endless(request) -> None:
        request.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 9999999999\r\n\r\n")
        try:
            while True:
                request.send(b"x" * 65536)
        except OSError:
            is_left.set()
            raise

    with (
        RawUpstream(endless) as upstream,
        proxied(upstream.url, server={"stalled_s": 0.3}) as proxy,
        socket.socket() as caller,
    ):
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        caller.connect(("127.0.0.1", proxy.port))
        caller.sendall(b"GET /v1/files/f/content HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert is_left.wait(30)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models/auto", "/v1/chat/completions"])
def test_no_page_may_run_frame_or_keep_what_the_proxy_says(path):
    backend = {"base_url": "http://127.0.0.1:9/v1"}
    with proxied({"b": backend}, routes={"auto": {"candidates": ["b/m"]}}) as proxy:
        method = b"POST" if path.endswith("completions") else b"GET"
        head = b"%s %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}" % (method, path.encode())
        status, headers, body = http(proxy.port, head)
        assert status in (200, 400)
        assert json.loads(body)
        assert headers["content-type"] == "application/json"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


SMUGGLED = {
    "lengths that differ": b"content-length: 4\r\ncontent-length: 6\r\n\r\nabcdef",
    "a list of lengths": b"content-length: 4, 6\r\n\r\nabcdef",
    "a length and chunks": b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "a coding that nobody knows": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a signed length": b"content-length: +4\r\n\r\nabcd",
    "a length in hex": b"content-length: 0x4\r\n\r\nabcd",
    "a negative length": b"content-length: -4\r\n\r\nabcd",
    "a space before the colon": b"content-length : 4\r\n\r\nabcd",
    "a chunk size with a sign": b"transfer-encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a null in a header": b"x-a: b\x00c\r\n\r\n",
}


# h11 takes both as RFC 9112 (sections 2.2 and 5.2) lets it: as an end of line, and as a space.
FOR_ONE = {
    "a folded header": b"x-a: b\r\n content-length: 4\r\n\r\nabcd",
    "a bare line feed in a header": b"x-a: b\ncontent-length: 4\r\n\r\nabcd",
}
CASES = {f"{name}-{parser}": (parser, tail) for name, tail in SMUGGLED.items() for parser in ("httptools", "h11")}
CASES |= {f"{name}-httptools": ("httptools", tail) for name, tail in FOR_ONE.items()}


@pytest.mark.parametrize(("parser", "tail"), CASES.values(), ids=CASES)
def test_nothing_is_smuggled_in(parser, tail):
    """Whatever follows a request that can be read in two ways is never taken for another one, here or upstream."""
    hidden = b"GET /v1/hidden HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with (
        served(parser) as (port, upstream),
        socket.create_connection(("127.0.0.1", port)) as caller,
    ):
        caller.sendall(b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n" + tail + hidden)
        answer = received(caller)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert upstream.requests == []
        assert http(port, WHOLE)[0] == 200


def test_a_head_that_comes_while_an_answer_is_under_way_has_limits_too():
    waits = threading.Event()

    def slow(request):
        waits.wait(20)
        request.send(raw_response(completion()))

    with (
        RawUpstream(slow) as upstream,
        proxied(upstream.url, server={"max_head_bytes": 2048}) as proxy,
        running(proxy.app, http="httptools") as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as caller,
    ):
        caller.sendall(WHOLE)
        until(lambda: upstream.requests)
        try:
            for _ in range(200):
                caller.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * 1000 if _ == 0 else b"a" * 1000)
                time.sleep(0.001)
        except ConnectionError:
            pass
        data = received(caller)
        waits.set()
        assert not data or data.startswith(b"HTTP/1.1 431 ")


def test_trailers_are_no_headers():
    with (
        RawUpstream(lambda request: request.send(raw_response(completion()))) as upstream,
        proxied(upstream.url, server={"keys": ["secret"]}) as proxy,
        running(proxy.app, http="httptools") as port,
    ):
        chunks = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\nauthorization: Bearer secret\r\n\r\n"
        status, _, body = http(port, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks)
        assert status == 401
        assert error_of(body)["code"] == "invalid_api_key"


@PARSERS
@pytest.mark.parametrize("target", [b"far.example:443", b"http://far.example/", b"/v1/files"])
def test_connect_is_a_405(parser, target):
    with served(parser) as (port, upstream):
        data = b"CONNECT " + target + b" HTTP/1.1\r\nhost: far.example:443\r\n\r\n"
        status, _, body = http(port, data, until_closed=False)
        assert status == 405
        assert "CONNECT is not for this proxy" in error_of(body)["message"]
        assert upstream.requests == []
        assert http(port, WHOLE)[0] == 200


def asked(connection: socket.socket) -> bytes:
    """Ask, and wait for the whole answer."""
    connection.settimeout(10)
    connection.sendall(WHOLE)
    data = b""
    while not data.endswith(completion()):
        data += connection.recv(65536)
    return data


@PARSERS
class TestDraining:
    """The server ends while connections wait for their next request."""

    @contextmanager
    def ending(self, parser):
        with RawUpstream(lambda request: request.send(raw_response(completion()))) as upstream:
            runtime_of = proxied(upstream.url)
            with runtime_of as proxy, socket.create_server(("127.0.0.1", 0)) as listener:
                settings = server_settings(proxy.app)
                settings.http, settings.timeout_graceful_shutdown = parser, 5
                server = uvicorn.Server(settings)
                thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
                thread.start()
                until(lambda: server.started)
                yield listener.getsockname()[1], server
                server.should_exit = True
                thread.join(10)
                assert not thread.is_alive()

    def test_what_was_on_its_way_is_answered_and_is_the_last(self, parser):
        with self.ending(parser) as (port, server), socket.create_connection(("127.0.0.1", port)) as caller:
            assert asked(caller).startswith(b"HTTP/1.1 200 ")
            server.should_exit = True
            until(lambda: not server.servers[0].is_serving())
            caller.sendall(WHOLE)
            answer = received(caller)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer.lower()

    def test_who_sends_nothing_is_closed_soon(self, parser):
        with self.ending(parser) as (port, server), socket.create_connection(("127.0.0.1", port)) as caller:
            assert asked(caller).startswith(b"HTTP/1.1 200 ")
            began_s = time.monotonic()
            server.should_exit = True
            assert received(caller) == b""
            assert time.monotonic() - began_s < 2


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="this system does not tell")
@PARSERS
class TestRequestsInLine:
    """Nothing is read of a connection on which requests wait for one that is answered."""

    def asked(self, port: int, count: int, *, is_stream: bool = False) -> socket.socket:
        bodies = [
            json.dumps({"model": "m", "stream": is_stream, "messages": [{"role": "user", "content": str(number)}]})
            for number in range(count)
        ]
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(b"".join(HEAD + f"content-length: {len(body)}\r\n\r\n{body}".encode() for body in bodies))
        return caller

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_a_caller_who_leaves_cancels_the_one_under_way(self, parser, is_stream):
        left: list[float] = []

        def handler(request):
            if is_stream:
                request.send(STREAM_HEAD + chunked(event("one"), is_end=False))
            assert request.is_left(wait_s=10)
            left.append(time.monotonic())

        with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy, running(proxy.app, http=parser) as port:
            caller = self.asked(port, 3, is_stream=is_stream)
            until(lambda: upstream.requests)
            time.sleep(0.6)  # it was looked for, and is there
            assert left == []
            caller.close()
            closed_s = time.monotonic()
            until(lambda: left, 5.0)
            assert left[0] - closed_s < 1.0
            assert len(upstream.requests) == 1, "those behind it are not begun"

    def test_one_who_stays_gets_all_in_turn(self, parser):
        def handler(request):
            time.sleep(0.4)
            request.send(raw_response(completion(json.loads(request.body)["messages"][0]["content"])))

        with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy, running(proxy.app, http=parser) as port:
            with self.asked(port, 3) as caller:
                data = b""
                while data.count(b'"finish_reason"') < 3:
                    caller.settimeout(5.0)
                    data += caller.recv(65536)
            places = [data.index(f'"content": "{number}"'.encode()) for number in range(3)]
            assert places == sorted(places)
            assert len(upstream.requests) == 3


def test_where_a_system_does_not_tell_nobody_has_left(monkeypatch):
    monkeypatch.delattr(select, "POLLRDHUP", raising=False)

    class Transport:
        def get_extra_info(self, name):
            return pytest.fail(f"{name} was asked for")

    assert module._has_left(Transport()) is False
