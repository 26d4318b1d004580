"""Who may ask, and what nobody can make the proxy do."""

from __future__ import annotations

import json
import socket

import openai
import pytest

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces._asgi_io import is_foreign_page
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder
from llm_proxy.types import Outcome
from tests.faces.asgi_kit import (
    Cache,
    Raw,
    RawUpstream,
    ask,
    completion,
    http,
    proxied,
    raw_response,
    running,
    upstreams,
)

KEYS = {"server": {"keys": ["key-one", "key-two"]}}
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "what is my secret?"}]}
HOST = b"host: 127.0.0.1\r\n"


def saying_the_key(request: Raw) -> None:
    request.send(raw_response(completion(f"key {request.header('authorization')}")))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer key-one"}, 200),
        ({"authorization": "bearer  key-two"}, 200),
        ({"api-key": "key-two"}, 200),
        ({"x-api-key": "key-two"}, 200),
        ({"authorization": "Basic gateway", "api-key": "key-two"}, 200),
        ({"authorization": "Bearer elsewhere", "x-api-key": "key-two"}, 200),
        ({"x-api-key": "key-two", "connection": "x-api-key"}, 401),  # the cache would not see whose it is
        ({"authorization": "key-one"}, 401),
        ({}, 401),
        ({"authorization": "Bearer key-onex"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic key-one"}, 401),
        ({"authorization": "Bearer k\xe9y".encode("latin-1")}, 401),
        ([("authorization", "Bearer key-one"), ("authorization", "Bearer x")], 401),
    ],
)
def test_with_keys_a_caller_needs_one(headers, status):
    with RawUpstream(saying_the_key) as upstream, proxied(upstream.url, **KEYS) as proxy:
        response = httpx.get(proxy.url + "/v1/files", headers=headers)
        assert response.status_code == status
        if status == 401:
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
            assert upstream.requests == []
        assert httpx.get(proxy.url + "/healthz").json() == {"status": "ok"}
        assert httpx.get(proxy.url + "/readyz").json()["status"] == "ok"


@pytest.mark.parametrize(
    "presented",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"api-key": key},
        lambda key: {"x-api-key": key},
        lambda key: {"authorization": "Basic gateway", "x-api-key": key},
        lambda key: {"authorization": "Basic gateway", "api-key": key},
        lambda key: {"api-key": "gateway", "x-api-key": key},
        lambda key: {"authorization": "Bearer key-one", "openai-organization": key},
        lambda key: {"authorization": "Bearer key-one", "openai-project": key},
    ],
)
def test_callers_are_told_apart_by_whatever_admits_them(presented):
    with upstreams(FakeBackend()) as [url], proxied(url, **KEYS) as proxy:
        found = [
            httpx.post(proxy.url + "/v1/chat/completions", headers=presented(key), json=QUESTION).headers[
                "cache-status"
            ]
            for key in ("key-one", "key-two", "key-one")
        ]
    assert found == ["llm-proxy; fwd=uri-miss; stored"] * 2 + ['llm-proxy; hit; detail="exact"']


def test_the_openai_client_sees_an_authentication_error():
    with proxied("http://127.0.0.1:9/v1", **KEYS) as proxy, pytest.raises(openai.AuthenticationError):
        ask(proxy.client(api_key="wrong"))


@pytest.mark.parametrize("backend", [{}, {"auth": "caller"}, {"auth": "none"}, {"auth": "caller", "api_key": "own"}])
def test_the_proxys_own_keys_never_go_upstream_but_separate_callers(backend):
    with (
        RawUpstream(saying_the_key) as upstream,
        proxied({"b": {"base_url": upstream.url, **backend}}, **KEYS) as proxy,
    ):
        own = "Bearer own" if "api_key" in backend else None
        for key in ("key-one", "key-two", "key-one"):
            assert ask(proxy.client(api_key=key)) == f"key {own}"
            httpx.get(proxy.url + "/v1/files", headers={"authorization": f"Bearer {key}", "cookie": "a=b"})
        chats = [request for request in upstream.requests if request.method == "POST"]
        assert len(chats) == 2
        assert "key-" not in str([request.headers for request in upstream.requests])
        assert "a=b" not in str([request.headers for request in upstream.requests])


@pytest.mark.parametrize(
    ("keys", "says"),
    [(["k"], "would get the keys of this proxy"), (["k", " "], "an empty key"), ([""], "an empty key")],
)
def test_an_app_that_would_leak_its_keys_or_take_an_empty_one_is_refused(keys, says):
    config = Config(backends={"b": {"base_url": "http://b.example/v1"}}, server={"keys": keys})
    with pytest.raises(ConfigError, match=says):
        ProxyApp(Runtime(config, cache=Cache(), encoder=FakeEncoder()))


OWN = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        (OWN, False),
        ({"host": "localhost"}, False),
        ({"host": "[::1]:8080"}, False),
        ({"host": "10.1.2.3:8080"}, False),
        ({"host": "host.docker.internal:8080"}, False),
        ({"host": "app.localhost"}, False),
        ({"host": "evil.example:8080"}, True),
        ({"host": "127.evil.example"}, True),
        ({"host": "localhost.evil.example"}, True),
        ({"host": "[::1"}, True),
        ({**OWN, "origin": "http://localhost:3000"}, False),
        ({**OWN, "origin": "http://127.0.0.2", "sec-fetch-site": "cross-site"}, False),
        ({**OWN, "origin": "https://evil.example"}, True),
        ({**OWN, "origin": "https://127.0.0.1.evil.example"}, True),
        ({**OWN, "origin": "http://10.1.2.3"}, True),
        ({**OWN, "origin": "http://router.internal"}, True),
        ({**OWN, "origin": "null"}, True),
        ({**OWN, "sec-fetch-site": "cross-site"}, True),
        ({**OWN, "sec-fetch-site": "none"}, False),
        ({**OWN, "sec-fetch-site": "same-site"}, False),
    ],
)
def test_pages_from_elsewhere_are_told_apart(headers, is_foreign):
    assert is_foreign_page(headers) is is_foreign


def test_a_page_from_elsewhere_is_refused_unless_it_has_a_key():
    page = {"origin": "https://evil.example"}
    with RawUpstream(saying_the_key) as upstream:
        with proxied(upstream.url) as proxy:
            response = httpx.post(proxy.url + "/v1/chat/completions", content=b"{}", headers=page)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign")
            assert httpx.get(proxy.url + "/v1/files", headers={"host": "rebound.example"}).status_code == 403
            assert upstream.requests == []
        with proxied(upstream.url, **KEYS) as proxy:
            headers = {**page, "host": "proxy.example", "authorization": "Bearer key-one"}
            assert httpx.get(proxy.url + "/v1/files", headers=headers).status_code == 200


def answer(request: Raw) -> None:
    request.send(raw_response(b"answer"))


@pytest.fixture(scope="module", params=["h11", "httptools"])
def server(request):
    pytest.importorskip(request.param)
    with RawUpstream(answer) as upstream:
        config = Config(backends={"b": {"base_url": upstream.url}}, cache={"enabled": False})
        with running(ProxyApp(Runtime(config)), http=request.param) as port:
            yield upstream, port


@pytest.fixture
def sides(server):
    upstream, port = server
    upstream.handler = answer
    upstream.requests.clear()
    return upstream, port


class TestOnTheWire:
    """Raw requests under both of the server's parsers: never a request, or a host, that nobody asked for."""

    @pytest.mark.parametrize(
        "framing",
        [
            b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
            b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            b"content-length: 5\r\ncontent-length: 6\r\n",
            b"content-length: 5, 6\r\n",
            b"content-length: +5\r\n",
            b"content-length: -1\r\n",
            b"transfer-encoding: chunked, identity\r\n",
            b"transfer-encoding: xchunked\r\n",
            b"transfer-encoding : chunked\r\n",
            b"transfer-encoding:\x0bchunked\r\n",
        ],
    )
    def test_unclear_framing_is_refused(self, sides, framing):
        upstream, port = sides
        smuggled = b"0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
        status, headers, _ = http(port, b"POST /v1/files HTTP/1.1\r\n" + HOST + framing + b"\r\n" + smuggled)
        assert status in {400, 501}
        assert headers["connection"] == "close"  # what follows is nobody's request
        assert upstream.requests == []

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /v1/../admin HTTP/1.1",
            b"GET /v1/%2e%2e/admin HTTP/1.1",
            b"GET /v1/..#/admin HTTP/1.1",
            b"GET /v1/.%2E/admin HTTP/1.1",
            b"GET /v1/..%2fadmin HTTP/1.1",
            b"GET /v1/..%5cadmin HTTP/1.1",
            b"GET /v1/..\\admin HTTP/1.1",
            b"GET /v1/..;/admin HTTP/1.1",
            b"GET /.. HTTP/1.1",
            b"GET /v1/./x HTTP/1.1",
            b"GET /v1/..?x HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"CONNECT evil.example:443 HTTP/1.1",
            b"TRACE /v1/files HTTP/1.1",
            b"GET /v1/\xc3\xa9 HTTP/1.1",
            b"GET /v1/x?\xc3\xa9 HTTP/1.1",
            b"GET /v1/a b HTTP/1.1",
            b"GET /v1/\x01 HTTP/1.1",
            b"GET\x00 / HTTP/1.1",
        ],
    )
    def test_a_path_that_could_lead_elsewhere_is_refused(self, sides, line):
        upstream, port = sides
        status, _, _ = http(port, line + b"\r\n" + HOST + b"\r\n")
        assert status in {400, 405}
        assert upstream.requests == []

    @pytest.mark.parametrize(
        "target", [b"http://evil.example/v1/files", b"https://127.0.0.1@evil.example/v1/files", b"//evil.example/v1"]
    )
    def test_no_target_chooses_the_host(self, sides, target):
        upstream, port = sides
        status, _, _ = http(port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert status in {200, 400}
        for request in upstream.requests:  # if it went anywhere, then to the configured one
            assert request.header("host") == f"127.0.0.1:{upstream.port}"
            assert request.target.startswith("/")

    def test_pipelined_requests_are_answered_in_order(self, sides):
        upstream, port = sides
        upstream.handler = lambda request: request.send(raw_response(request.target.encode()))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            caller.sendall(b"".join(b"GET /v1/%d HTTP/1.1\r\n%s\r\n" % (number, HOST) for number in range(3)))
            data = b""
            while data.count(b"/v1/") < 3:
                data += caller.recv(65536)
        assert data.index(b"/v1/0") < data.index(b"/v1/1") < data.index(b"/v1/2")

    def test_a_whole_chat_under_this_parser(self, sides):
        upstream, port = sides
        upstream.handler = lambda request: request.send(raw_response(completion("fine")))
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0) as client:
            assert ask(client) == "fine"


@pytest.mark.parametrize(
    ("detail", "value"),
    [
        ("plain; x=1", '"plain; x=1"'),
        ('a "quoted" \\ word', '"a \\"quoted\\" \\\\ word"'),
        ("line\r\nx-evil: 1", '"line??x-evil: 1"'),
        ("Jörg 日本 \x7f", '"J?rg ?? ?"'),
    ],
)
def test_what_cache_status_quotes_is_a_string_of_structured_fields(detail, value):
    assert Outcome("bypass", detail=detail).cache_status == f"llm-proxy; fwd=bypass; detail={value}"


def test_an_upstream_header_that_no_server_would_send_is_cleaned():
    answer = b"HTTP/1.1 200 OK\r\nx-odd: a\x01b\r\ncontent-length: 2\r\n\r\nok"
    with RawUpstream(lambda request: request.send(answer)) as upstream, proxied(upstream.url) as proxy:
        response = httpx.get(proxy.url + "/v1/files")
        assert (response.status_code, response.headers["x-odd"], response.content) == (200, "a?b", b"ok")


def test_a_model_name_of_quotes_and_line_breaks_is_only_data():
    with RawUpstream(saying_the_key) as upstream, proxied(upstream.url) as proxy:
        name = 'a"; x="\r\nx-evil: 1'
        raw = proxy.client().chat.completions.with_raw_response
        response = raw.create(model=name, messages=[{"role": "user", "content": "hi"}])
        assert "x-evil" not in response.headers
        assert json.loads(upstream.requests[0].body)["model"] == name
