"""Everything but chat completions goes through untouched, both ways."""

from __future__ import annotations

import gzip
import json
import socket

import openai
import pytest

from llm_proxy.faces._http import httpx
from llm_proxy.faces._upstream import _address
from tests.faces.asgi_kit import (
    STREAM_HEAD,
    Raw,
    RawUpstream,
    ask,
    chunked,
    completion,
    event,
    http,
    proxied,
    raw_response,
)

HOST = b"host: 127.0.0.1\r\n"


def echo(request: Raw) -> None:
    request.send(raw_response(b"answer"))


def answering(data: bytes):
    return lambda request: request.send(data)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_any_method_passes(method):
    with RawUpstream(echo) as upstream, proxied(upstream.url) as proxy:
        response = httpx.request(method, proxy.url + "/v1/files/f1", headers={"authorization": "Bearer k"})
        assert (response.status_code, response.content) == (200, b"answer")
        assert response.headers["cache-status"] == 'llm-proxy; fwd=bypass; detail="path"'
        assert (upstream.requests[0].method, upstream.requests[0].target) == (method, "/v1/files/f1")
        assert upstream.requests[0].header("authorization") == "Bearer k"
        assert upstream.requests[0].header("host") == f"127.0.0.1:{upstream.port}"


def test_head_has_headers_and_no_body():
    with (
        RawUpstream(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-a: b\r\n\r\n")) as upstream,
        proxied(upstream.url) as proxy,
    ):
        for _ in range(2):  # on one connection: nothing was left over
            response = httpx.head(proxy.url + "/v1/files/f1")
            assert response.headers["content-length"] == "1234"
            assert response.headers["x-a"] == "b"
        assert upstream.requests[0].method == "HEAD"


@pytest.mark.parametrize(
    ("path", "base", "target"),
    [
        ("/v1/embeddings", "/v1", "/v1/embeddings"),
        ("/v1", "/v1", "/v1"),
        ("/v1", "", "/"),
        ("/v1?a=b", "", "/?a=b"),
        ("/api/tags", "/v1", "/api/tags"),
        ("/api/tags", "/team/v1", "/team/api/tags"),
        ("/v1/files", "/v1beta/openai", "/v1beta/openai/files"),
        ("/v1beta/x", "/v1", "/v1beta/x"),
        ("/", "/v1", "/"),
        ("/v1/files/a%2Fb%20c?x=%41&y=a+b&x=2", "/v1", "/v1/files/a%2Fb%20c?x=%41&y=a+b&x=2"),
        ('/v1/a"b|c\\d^e`f{g}', "/v1", '/v1/a"b|c\\d^e`f{g}'),
        ("/v1/%7Euser;v=1,2:3@x!$&'()*", "/v1", "/v1/%7Euser;v=1,2:3@x!$&'()*"),
        ("/v1/%252e%252e/x", "/v1", "/v1/%252e%252e/x"),
        ("/v1/a..b/...", "/v1", "/v1/a..b/..."),
        ("//evil.example/v1", "/v1", "//evil.example/v1"),
        ("/@evil.example/", "", "/@evil.example/"),
        ("/v1/a%0d%0aX-Evil:%201", "/v1", "/v1/a%0d%0aX-Evil:%201"),
    ],
)
def test_the_path_arrives_as_it_was_sent(path, base, target):
    with RawUpstream(echo) as upstream, proxied(upstream.url.removesuffix("/v1") + base) as proxy:
        status, _, body = http(proxy.port, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        assert (status, body) == (200, b"answer")
        assert upstream.requests[0].target == target
        assert upstream.requests[0].header("host") == f"127.0.0.1:{upstream.port}"


def test_a_path_that_the_http_library_takes_for_too_long_passes():
    path = "/v1/" + "x" * 65_600
    with RawUpstream(echo) as upstream, proxied(upstream.url) as proxy:
        settled = http(proxy.port, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        assert settled[0] in {200, 400}  # 400: the server's own parser stops at 64 KiB
        assert [request.target for request in upstream.requests] == ([path] if settled[0] == 200 else [])
    url, extensions = _address(f"http://b.example:81{path}")
    assert (url.host, url.port, extensions) == ("b.example", 81, {"target": path.encode()})


def test_headers_pass_verbatim_but_not_those_of_a_connection():
    sent = (
        b"GET /v1/x HTTP/1.1\r\n" + HOST + b"X-One: 1\r\nX-One: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: a\r\n"
        b"Keep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nX-Latin: J\xf6rg\r\n"
        b"X-Blank: a b \t\r\nX-None:\r\nCookie: a=1\r\nAccept-Encoding: zstd\r\n\r\n"
    )
    answer = (
        b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: theirs\r\nX-Latin: J\xf6rg\r\n"
        b"Date: Sat, 01 Jan 2000 00:00:00 GMT\r\nConnection: X-Private\r\nX-Private: 1\r\nProxy-Authenticate: Basic\r\n"
        b"Trailer: x\r\nKeep-Alive: timeout=5\r\nx-request-id: r1\r\nTransfer-Encoding: chunked\r\n\r\n"
    ) + chunked(b"tea", b"pot")
    with (
        RawUpstream(answering(answer)) as upstream,
        proxied(upstream.url) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection,
    ):
        connection.sendall(sent)
        head, _, body = _received(connection, b"0\r\n\r\n").partition(b"\r\n\r\n")
    rows = [line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:]]
    assert head.startswith(b"HTTP/1.1 418 ")
    assert [value for name, value in rows if name == "set-cookie"] == ["a=1", "b=2"]
    assert [value for name, value in rows if name == "date"] == ["Sat, 01 Jan 2000 00:00:00 GMT"]
    assert dict(rows)["server"] == "theirs"
    assert dict(rows)["x-latin"] == "Jörg"
    assert dict(rows)["x-request-id"] == "r1"
    assert not dict(rows).keys() & {"x-private", "proxy-authenticate", "trailer", "keep-alive", "connection"}
    assert body in (chunked(b"tea", b"pot"), chunked(b"teapot"))
    got = upstream.requests[0].headers
    assert [value for name, value in got if name == "x-one"] == ["1", "2"]
    assert ("x-latin", "Jörg") in got
    assert ("accept-encoding", "zstd") in got
    assert ("x-blank", "a b") in got
    assert ("x-none", "") in got
    assert not {name for name, _ in got} & {"x-hop", "keep-alive", "te", "proxy-authorization", "upgrade"}


def _received(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
    return data


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(status):
    answer = f"HTTP/1.1 {status}\r\nETag: x\r\n{'content-length: 77' if '304' in status else 'x: y'}\r\n\r\n".encode()
    with RawUpstream(answering(answer)) as upstream, proxied(upstream.url) as proxy, httpx.Client() as client:
        for _ in range(2):
            response = client.get(proxy.url + "/v1/files/f1", headers={"if-none-match": "x"})
            assert response.status_code == int(status[:3])
            assert response.headers["etag"] == "x"
            assert response.content == b""


def test_a_multipart_upload_and_a_binary_answer():
    audio = bytes(range(256)) * 2000

    def handler(request: Raw) -> None:
        assert request.header("content-type").startswith("multipart/form-data; boundary=")
        assert audio in request.body
        request.send(raw_response(audio[::-1], content_type="audio/mpeg"))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        answer = proxy.client().audio.transcriptions.with_raw_response.create(file=("a.mp3", audio), model="whisper-1")
        assert answer.content == audio[::-1]
        assert upstream.requests[0].header("content-length") is not None
        assert not upstream.requests[0].is_chunked


def test_embeddings_through_the_real_client():
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
    answer = {"object": "list", "data": [vector], "model": "e", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    with RawUpstream(answering(raw_response(json.dumps(answer).encode()))) as upstream, proxied(upstream.url) as proxy:
        found = proxy.client().embeddings.create(model="e", input="x", encoding_format="float")
        assert found.data[0].embedding == [0.5, 0.25]
        assert json.loads(upstream.requests[0].body)["input"] == "x"


def test_other_paths_to_chat_completions_pass_as_well():
    with RawUpstream(answering(raw_response(completion()))) as upstream, proxied(upstream.url) as proxy:
        assert httpx.get(proxy.url + "/v1/chat/completions").json()["object"] == "chat.completion"
        assert httpx.get(proxy.url + "/v1/chat/completions/c1").json()["object"] == "chat.completion"
        assert [request.target for request in upstream.requests] == ["/v1/chat/completions", "/v1/chat/completions/c1"]
        assert proxy.events == []


def test_a_coded_request_passes_as_it_is():
    body = gzip.compress(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode())
    with RawUpstream(answering(raw_response(completion()))) as upstream, proxied(upstream.url) as proxy:
        response = httpx.post(proxy.url + "/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
        assert response.status_code == 200
        assert upstream.requests[0].body == body
        assert upstream.requests[0].header("content-encoding") == "gzip"


def test_a_compressed_answer_is_stored_and_passed_as_it_is():
    plain = completion("packed")

    def handler(request: Raw) -> None:
        assert "gzip" in request.header("accept-encoding")
        request.send(raw_response(gzip.compress(plain), "content-encoding: gzip"))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        client = proxy.client()
        assert ask(client) == "packed"
        assert ask(client) == "packed"
        assert ask(client, stream=True) == "packed"
        assert len(upstream.requests) == 1


def test_a_compressed_stream_that_breaks_off_is_cut():
    data = gzip.compress(event("half"))

    def handler(request: Raw) -> None:
        head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
        request.send(head + chunked(data[:-12], is_end=False))
        raise EOFError

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.url) as proxy,
        pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)),
    ):
        ask(proxy.client(), stream=True)


def test_a_large_answer_passes_unstored():
    text = "x" * 300_000
    with (
        RawUpstream(answering(raw_response(completion(text)))) as upstream,
        proxied(upstream.url, cache={"store": "memory", "max_entry_bytes": 1000}) as proxy,
    ):
        assert ask(proxy.client()) == text
        assert proxy.cache.entries == {}


def test_the_environments_proxy_is_used_but_not_for_this_machine(monkeypatch):
    with RawUpstream(echo) as outside, RawUpstream(echo) as here:
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", outside.url.removesuffix("/v1"))
        backends = {"far": {"base_url": "http://far.example/v1"}, "near": {"base_url": here.url}}
        with proxied(backends) as proxy:
            assert httpx.get(proxy.url + "/v1/files?a=%41", trust_env=False).content == b"answer"
        assert outside.requests[0].target == "http://far.example/v1/files?a=%41"
        with proxied({"near": backends["near"]}) as proxy:
            assert httpx.get(proxy.url + "/v1/files", trust_env=False).content == b"answer"
        assert here.requests[0].target == "/v1/files"
