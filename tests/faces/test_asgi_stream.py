"""Bodies stream both ways at the pace of the slower side, and whoever leaves is noticed."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llm_proxy.faces._http import httpx
from tests.faces.asgi_kit import STREAM_HEAD, Raw, RawUpstream, chunked, proxied, raw_response, until

HOST = b"host: 127.0.0.1\r\n"


def echo(request: Raw) -> None:
    request.send(raw_response(b"answer"))


def test_a_body_without_length_stays_chunked_and_streams():
    first = threading.Event()

    def parts():
        yield b"one"
        first.wait(5)
        yield b"two"

    seen = []

    def accept(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while b"one" not in data:
                data += connection.recv(65536)
            seen.append("one")
            first.set()
            while not data.endswith(b"0\r\n\r\n"):
                data += connection.recv(65536)
            seen.append(data)
            connection.sendall(raw_response(b"done"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        with proxied(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as proxy:
            response = httpx.post(proxy.url + "/v1/files", content=parts())
        thread.join()
    assert response.content == b"done"
    assert seen[0] == "one"
    assert b"transfer-encoding: chunked" in seen[1].lower()
    assert seen[1].endswith(chunked(b"one", b"two"))


def test_an_answer_streams_through():
    second = threading.Event()

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD + chunked(b"data: one\n\n", is_end=False))
        assert second.wait(5)
        request.send(chunked(b"data: two\n\n"))

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.url) as proxy,
        httpx.stream("POST", proxy.url + "/v1/threads/t/runs", json={}) as response,
    ):
        pieces = response.iter_raw()
        assert next(pieces) == b"data: one\n\n"  # while upstream still waits
        second.set()
        assert next(pieces) == b"data: two\n\n"


def test_a_slow_reader_slows_the_upstream_down():
    sent = []

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD)
        piece = chunked(b"x" * 1_000_000, is_end=False)
        for _ in range(200):
            request.send(piece)
            sent.append(len(piece))

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.url) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection,
    ):
        connection.sendall(b"GET /v1/files/f1/content HTTP/1.1\r\n" + HOST + b"\r\n")
        connection.recv(1000)
        _wait_until_steady(sent)
        assert 0 < sum(sent) < 64_000_000  # what the sockets' buffers take, not the 200 MB


def test_a_slow_upstream_slows_the_sender_down():
    sent = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        proxied(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as connection,
    ):
        head = b"POST /v1/files HTTP/1.1\r\n" + HOST + b"content-length: 200000000\r\n\r\n"
        thread = threading.Thread(target=_pour, args=(connection, head, sent))
        thread.start()
        upstream, _ = listener.accept()
        with upstream:
            upstream.recv(1000)
            _wait_until_steady(sent)
            assert 0 < sum(sent) < 64_000_000
            connection.shutdown(socket.SHUT_RDWR)
            thread.join()


def _pour(connection: socket.socket, head: bytes, sent: list[int]) -> None:
    try:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(b"x" * 1_000_000)
            sent.append(1_000_000)
    except OSError:
        return


def _wait_until_steady(counts: list[int]) -> None:
    until(lambda: counts)
    known = -1
    while len(counts) != known:
        known = len(counts)
        time.sleep(0.3)


@pytest.mark.parametrize("when", ["before the answer", "in its middle"])
def test_a_caller_who_leaves_cancels_the_request(when):
    left = []

    def handler(request: Raw) -> None:
        if when == "in its middle":
            request.send(STREAM_HEAD + chunked(b"data: one\n\n", is_end=False))
        left.append(request.is_left(wait_s=3))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(proxy.url + "/v1/threads/t/runs", json={"stream": True}, timeout=0.2)
        until(lambda: left)
        assert left == [True]


def test_a_caller_who_leaves_in_its_own_body_cancels_the_request():
    with RawUpstream(echo) as upstream, proxied(upstream.url) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            connection.sendall(b"POST /v1/files HTTP/1.1\r\n" + HOST + b"content-length: 100\r\n\r\npart of it")
            time.sleep(0.1)
        assert httpx.get(proxy.url + "/v1/files").content == b"answer"
        assert [request.method for request in upstream.requests] == ["GET"]


def test_an_answer_before_the_end_of_the_body():
    def accept(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(raw_response(b"too much", status="413 Too Large"))
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        with proxied(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as proxy:
            response = httpx.post(proxy.url + "/v1/files", content=b"x" * 20_000_000)
        thread.join()
    assert response.status_code in {413, 502, 503}  # a reset may overtake the answer, as without us
    assert response.status_code == 413 or "error" in response.json()


@pytest.mark.parametrize("framing", [b"content-length: 500\r\n", b"transfer-encoding: chunked\r\n"])
def test_a_body_that_breaks_off_is_visibly_cut(framing, caplog):
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + b"\r\n"
    answer += b"5\r\nhello\r\n" if b"chunked" in framing else b"hello"

    def handler(request: Raw) -> None:
        request.send(answer)
        raise EOFError

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(proxy.url + "/v1/files/f1/content")
        assert "broke off in mid-stream (RemoteProtocolError" in caplog.text
        assert not [record for record in caplog.records if record.exc_info]
        upstream.handler = echo
        assert httpx.get(proxy.url + "/v1/files").content == b"answer"
