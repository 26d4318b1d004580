"""WebSockets through the proxy, over real sockets, to a simulated realtime API."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from llm_proxy.config import Config
from llm_proxy.faces._websocket import _linked
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_settings
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import Proxy, RawUpstream, http, proxied, raw_response, until
from tests.servers import serving

HOST = b"host: localhost\r\n"
HANDSHAKE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Realtime:
    """A simulated realtime API: it says every message again, closes when it is told to, and refuses ``/v1/closed``.

    Attributes:
        scopes: Of each connection, oldest first.
        ends: How each was closed.
    """

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.ends: list[tuple[int, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        self.scopes.append(scope)
        if scope["path"] == "/v1/closed":
            await send({"type": "websocket.close", "code": 1008})
            return
        chosen = next((name for name in scope["subprotocols"] if name == "realtime"), None)
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-request-id", b"simulated")]})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ends.append((message["code"], message.get("reason") or ""))
                return
            text = message.get("text")
            if text is not None and text.startswith("close "):
                await send({"type": "websocket.close", "code": int(text[6:]), "reason": "as told"})
                return
            kept = {"text": text} if text is not None else {"bytes": message["bytes"]}
            await send({"type": "websocket.send", **kept})

    def header(self, name: str) -> str | None:
        """Of the newest connection."""
        return dict(self.scopes[-1]["headers"]).get(name.encode(), b"").decode() or None


@pytest.fixture
def realtime() -> Iterator[tuple[str, Realtime]]:
    with serving(Realtime()) as served:
        yield f"{served.url}/v1", served.app


@pytest.fixture
def proxy(realtime: tuple[str, Realtime]) -> Iterator[Proxy]:
    with proxied(realtime[0]) as made:
        yield made


@contextmanager
def linked(proxy: Proxy, path: str = "/v1/realtime?model=m", **options: Any) -> Iterator[ClientConnection]:
    headers = {"authorization": "Bearer sk-caller", **options.pop("headers", {})}
    url = proxy.url.replace("http:", "ws:") + path
    with connect(url, additional_headers=headers, proxy=None, open_timeout=5, close_timeout=5, **options) as link:
        yield link


def refused(proxy: Proxy, path: str = "/v1/realtime", **options: Any) -> tuple[int, str]:
    """Status and code of the error."""
    with pytest.raises(InvalidStatus) as caught, linked(proxy, path, **options):
        pass
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


def test_messages_pass_both_ways(realtime: tuple[str, Realtime], proxy: Proxy) -> None:
    with linked(proxy) as link:
        for message in ("hello", b"\x00\xff", "", "é" * 100_000):
            link.send(message)
            assert link.recv(timeout=5) == message
        assert link.response is not None
        told = link.response.headers
        assert told["cache-status"] == 'llm-proxy; fwd=bypass; detail="path"'
        assert (told["x-llm-proxy-backend"], told["x-request-id"]) == ("main", "simulated")
    scope = realtime[1].scopes[0]
    assert (scope["path"], scope["query_string"]) == ("/v1/realtime", b"model=m")
    assert realtime[1].header("authorization") == "Bearer sk-caller"


def test_the_caller_s_close_reaches_the_backend(realtime: tuple[str, Realtime], proxy: Proxy) -> None:
    with linked(proxy) as link:
        link.close(4001, "enough")
    until(lambda: realtime[1].ends)
    assert realtime[1].ends == [(4001, "enough")]


def test_a_caller_who_just_leaves_is_noticed(realtime: tuple[str, Realtime], proxy: Proxy) -> None:
    with linked(proxy) as link:
        link.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: realtime[1].ends)
    assert realtime[1].ends[0][0] in (1000, 1005, 1011)


@pytest.mark.parametrize("code", [1000, 1008, 4001])
def test_the_backend_s_close_reaches_the_caller(proxy: Proxy, code: int) -> None:
    with linked(proxy) as link:
        link.send(f"close {code}")
        with pytest.raises(ConnectionClosed) as caught:
            link.recv(timeout=5)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, "as told")


def test_a_backend_that_breaks_off_is_told() -> None:
    def handler(request: Any) -> None:
        import base64
        import hashlib

        magic = (request.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        accept = base64.b64encode(hashlib.sha1(magic).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        request.send(f"{head}sec-websocket-accept: {accept}\r\n\r\n".encode())
        request.connection.shutdown(socket.SHUT_RDWR)

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy, linked(proxy) as link:
        with pytest.raises(ConnectionClosed) as caught:
            link.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011


def test_subprotocols_are_agreed_on_by_both_sides(realtime: tuple[str, Realtime], proxy: Proxy) -> None:
    secret = "openai-insecure-api-key.sk-browser"
    with linked(proxy, subprotocols=["realtime", secret]) as link:
        assert link.subprotocol == "realtime"
    assert realtime[1].scopes[0]["subprotocols"] == ["realtime", secret]


class TestWho:
    def test_a_backend_with_a_key_gets_none_of_the_caller_s(self, realtime: tuple[str, Realtime]) -> None:
        with (
            proxied({"main": {"base_url": realtime[0], "api_key": "sk-backend"}}) as proxy,
            linked(proxy, subprotocols=["realtime", "openai-insecure-api-key.sk-browser"]),
        ):
            pass
        assert realtime[1].header("authorization") == "Bearer sk-backend"
        assert realtime[1].scopes[0]["subprotocols"] == ["realtime"]

    def test_a_key_of_the_proxy_is_needed_where_it_has_some(self, realtime: tuple[str, Realtime]) -> None:
        with proxied({"main": {"base_url": realtime[0]}}, server={"keys": ["sk-proxy"]}) as proxy:
            assert refused(proxy) == (401, "invalid_api_key")
            assert realtime[1].scopes == []
            with linked(proxy, headers={"authorization": "Bearer sk-proxy"}) as link:
                link.send("in")
                assert link.recv(timeout=5) == "in"
        assert realtime[1].header("authorization") is None

    @pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
    def test_a_foreign_page_is_refused(
        self, realtime: tuple[str, Realtime], proxy: Proxy, headers: dict[str, str]
    ) -> None:
        assert refused(proxy, headers=headers) == (403, "foreign")
        assert realtime[1].scopes == []

    def test_a_page_of_this_machine_is_let_in(self, proxy: Proxy) -> None:
        with linked(proxy, headers={"origin": "http://localhost:3000"}) as link:
            link.send("in")
            assert link.recv(timeout=5) == "in"


class TestRefusals:
    def test_the_backend_s_own(self, proxy: Proxy) -> None:
        assert refused(proxy, "/v1/closed") == (403, "websocket_refused")

    def test_one_that_answers_otherwise(self) -> None:
        with RawUpstream(lambda request: request.send(raw_response(b"{}"))) as upstream, proxied(upstream.url) as proxy:
            assert refused(proxy) == (502, "websocket_refused")

    def test_no_line_in_the_log(self, proxy: Proxy) -> None:
        logger = logging.getLogger("uvicorn.error")
        records: list[str] = []
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        try:
            assert refused(proxy, "/v1/closed") == (403, "websocket_refused")
            with linked(proxy) as link:
                link.send("the next one")
                assert link.recv(timeout=5) == "the next one"
        finally:
            logger.removeHandler(handler)
        assert records == []

    def test_one_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with proxied(f"http://127.0.0.1:{port}/v1") as proxy:
            assert refused(proxy) == (503, "upstream_unavailable")

    def test_one_that_does_not_answer(self) -> None:
        done = threading.Event()
        with RawUpstream(lambda request: done.wait(10) and None) as upstream:
            with proxied({"main": {"base_url": upstream.url, "timeout_s": 0.2}}) as proxy:
                assert refused(proxy) == (504, "upstream_timeout")
            done.set()

    def test_path_tricks(self, realtime: tuple[str, Realtime], proxy: Proxy) -> None:
        status, _, body = http(
            proxy.port, b"GET /v1/../secret HTTP/1.1\r\n" + HOST + HANDSHAKE + b"\r\n", until_closed=True
        )
        assert (status, b"dot segments" in body) == (400, True)
        assert realtime[1].scopes == []

    def test_a_head_that_is_too_large(self, proxy: Proxy) -> None:
        headers = {f"x-{number}": "x" for number in range(proxy.app.limits.max_headers)}
        with pytest.raises(InvalidStatus) as caught, linked(proxy, headers=headers):
            pass
        assert caught.value.response.status_code == 431

    def test_a_message_that_is_too_long(self, realtime: tuple[str, Realtime]) -> None:
        server = {"max_body_bytes": 1024}
        with proxied({"main": {"base_url": realtime[0]}}, server=server) as proxy, linked(proxy) as link:
            link.send("x" * 2048)
            with pytest.raises(ConnectionClosed) as caught:
                link.recv(timeout=5)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009

    def test_one_connection_too_many(self, realtime: tuple[str, Realtime]) -> None:
        server = {"max_connections": 1}
        with proxied({"main": {"base_url": realtime[0]}}, server=server) as proxy, linked(proxy) as link:
            assert refused(proxy) == (503, "too_many_connections")
            link.send("still there")
            assert link.recv(timeout=5) == "still there"

    def test_without_what_passes_them_on(self, realtime: tuple[str, Realtime]) -> None:
        with proxied({"main": {"base_url": realtime[0]}}, server={"client": "httpx"}) as proxy:
            assert refused(proxy) == (501, "websockets_missing")

    def test_without_what_reads_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.faces.serve._websockets", lambda: "none")
        with RawUpstream(lambda request: request.send(raw_response(b"{}"))) as upstream, proxied(upstream.url) as proxy:
            status, _, body = http(proxy.port, b"GET /v1/realtime HTTP/1.1\r\n" + HOST + HANDSHAKE + b"\r\n")
            assert (status, json.loads(body)["error"]["code"]) == (501, "websockets_missing")
            assert upstream.requests == []

    def test_a_server_that_can_t_say_why(self) -> None:
        """Of ASGI servers only some know the extension for that."""
        sent: list[Any] = []

        async def ask() -> None:
            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(message: Any) -> None:
                sent.append(message)

            config = Config(backends={"b": {"base_url": "http://b.example/v1"}}, cache={"enabled": False})
            scope = {
                "type": "websocket", "path": "/v1/realtime", "query_string": b"",
                "headers": [(b"origin", b"https://evil.example")],
            }  # fmt: skip
            await ProxyApp(Runtime(config))(scope, receive, send)

        asyncio.run(ask())
        assert sent == [{"type": "websocket.close", "code": 1008}]


def test_an_idle_one_outlives_the_waits_of_requests(realtime: tuple[str, Realtime]) -> None:
    server = {"idle_s": 1, "head_s": 0.2, "body_s": 0.2}
    with proxied({"main": {"base_url": realtime[0]}}, server=server) as proxy, linked(proxy) as link:
        with pytest.raises(TimeoutError):
            link.recv(timeout=1.5)
        link.send("still there")
        assert link.recv(timeout=5) == "still there"


def test_it_ends_with_the_server(realtime: tuple[str, Realtime]) -> None:
    with ExitStack() as links:
        with proxied(realtime[0]) as proxy:
            link = links.enter_context(linked(proxy))
            link.send("hello")
            assert link.recv(timeout=5) == "hello"
        with pytest.raises(ConnectionClosed) as caught:
            link.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
    until(lambda: realtime[1].ends)


def test_settings_name_what_reads_them() -> None:
    app = ProxyApp(Runtime(Config(backends={"b": {"base_url": "http://b.example/v1"}}, cache={"enabled": False})))
    settings = server_settings(app)
    assert (settings.ws, settings.ws_max_size) == ("websockets-sansio", app.limits.max_body_bytes)


def test_a_message_for_a_caller_whose_socket_the_server_closed_ends_it_quietly() -> None:
    class Backend:
        async def receive(self) -> aiohttp.WSMessage:
            return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, "late", None)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(_: Any) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")

    asyncio.run(asyncio.wait_for(_linked(Backend(), receive, send), 5))  # type: ignore[arg-type]
