"""Both clients that ask backends: the same bytes, the same errors, nothing added."""

from __future__ import annotations

import asyncio
import errno
import inspect
import ssl
import threading
from typing import Any

import aiohttp
import anyio
import pytest

from llm_proxy.errors import BackendError, BackendTimeout, BackendUnavailable, MissingDependencyError, WireError
from llm_proxy.faces._aiohttp import family_error
from llm_proxy.faces._http import httpx
from llm_proxy.faces._upstream import Upstream, translated
from llm_proxy.types import Outgoing
from tests.faces.asgi_kit import STREAM_HEAD, Raw, RawUpstream, chunked, raw_response

CLIENTS = pytest.mark.parametrize("client", ["aiohttp", "httpx"])
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def outgoing(url: str, *, timeout_s: float | None = 10.0, body: bytes = b"{}", **headers: str) -> Outgoing:
    return Outgoing(url + "/chat/completions", list(headers.items()), body, backend="b", timeout_s=timeout_s)


async def asked(url: str, client: str, **options: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    upstream = Upstream(client=client)
    try:
        head = await upstream.send(outgoing(url, **options))
        try:
            body = b"".join([chunk async for chunk in head.body])
        finally:
            await head.body.aclose()
        return head.status, list(head.headers), body
    finally:
        await upstream.aclose()


@CLIENTS
class TestWhatIsSent:
    async def test_what_was_given_and_no_more(self, client: str) -> None:
        with RawUpstream(lambda request: request.send(raw_response(b"fine"))) as upstream:
            assert (await asked(upstream.url, client, **{"x-a": "b"}))[::2] == (200, b"fine")
            [got] = upstream.requests
            assert (got.method, got.target, got.body) == ("POST", "/v1/chat/completions", b"{}")
            names = [name.lower() for name, _ in got.headers]
            assert sorted(names) == ["content-length", "host", "x-a"]
            assert got.header("host") == upstream.url.split("/")[2]

    async def test_a_header_that_is_there_twice(self, client: str) -> None:
        with RawUpstream(
            lambda request: request.send(raw_response(b"", "set-cookie: a=1", "set-cookie: b=2"))
        ) as upstream:
            pool = Upstream(client=client)
            for _ in range(2):
                call = Outgoing(upstream.url + "/x", [("x-a", "1"), ("x-a", "2")], b"", backend="b")
                head = await pool.send(call, method="GET")
                assert [value for name, value in head.headers if name == "set-cookie"] == ["a=1", "b=2"]
                assert [chunk async for chunk in head.body] == []
                await head.body.aclose()
            await pool.aclose()
            assert [[value for name, value in got.headers if name.lower() == "x-a"] for got in upstream.requests] == [
                ["1", "2"]
            ] * 2
            assert all(got.header("cookie") is None for got in upstream.requests)

    async def test_a_connection_is_used_again(self, client: str) -> None:
        with RawUpstream(lambda request: request.send(raw_response(b"fine"))) as upstream:
            pool = Upstream(client=client)
            for _ in range(3):
                head = await pool.send(outgoing(upstream.url))
                assert [chunk async for chunk in head.body] == [b"fine"]
                await head.body.aclose()
            await pool.aclose()
            assert len({got.connection for got in upstream.requests}) == 1

    async def test_no_redirect_is_followed_and_nothing_decoded(self, client: str) -> None:
        moved = raw_response(b"\x1f\x8b", "location: http://127.0.0.1:9/", "content-encoding: gzip", status="307 Moved")
        with RawUpstream(lambda request: request.send(moved)) as upstream:
            status, headers, body = await asked(upstream.url, client)
            assert (status, body) == (307, b"\x1f\x8b")
            assert ("content-encoding", "gzip") in headers

    async def test_a_header_that_would_begin_another_one(self, client: str) -> None:
        with RawUpstream(lambda request: request.send(raw_response(b""))) as upstream:
            with pytest.raises(BackendError):
                await asked(upstream.url, client, **{"x-a": "b\r\nx-evil: 1"})
            assert upstream.requests == []


@CLIENTS
class TestWhatGoesWrong:
    async def test_nobody_is_there(self, client: str) -> None:
        with pytest.raises(BackendUnavailable, match="'b' can't be reached") as caught:
            await asked("http://127.0.0.1:9/v1", client)
        assert "127.0.0.1" not in str(caught.value)

    async def test_no_byte_in_time(self, client: str) -> None:
        hold = threading.Event()
        with RawUpstream(lambda request: hold.wait(10)) as upstream:
            with pytest.raises(BackendTimeout, match=r"did not answer in time \(ReadTimeout\)"):
                await asked(upstream.url, client, timeout_s=0.1)
            hold.set()

    async def test_silence_in_mid_answer(self, client: str) -> None:
        hold = threading.Event()

        def handler(request: Raw) -> None:
            request.send(STREAM_HEAD + chunked(b"half", is_end=False))
            hold.wait(10)

        with RawUpstream(handler) as upstream:
            with pytest.raises(httpx.ReadTimeout):
                await asked(upstream.url, client, timeout_s=0.2)
            hold.set()

    async def test_what_came_before_an_answer_broke_off_is_not_lost(self, client: str) -> None:
        def handler(request: Raw) -> None:
            request.send(STREAM_HEAD + chunked(b"half", is_end=False))
            raise EOFError

        with RawUpstream(handler) as upstream:
            pool = Upstream(client=client)
            head = await pool.send(outgoing(upstream.url))
            got = b""
            with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the loop is what raises
                async for chunk in head.body:
                    got += chunk
            assert got == b"half"
            await head.body.aclose()
            await pool.aclose()

    async def test_a_broken_chunk_in_the_middle(self, client: str) -> None:
        """By itself aiohttp hears of it only when its time-out is over."""
        goes_on = threading.Event()

        def handler(request: Raw) -> None:
            request.send(STREAM_HEAD + chunked(b"half", is_end=False))
            goes_on.wait(20)
            request.send(b"zz\r\n")
            raise EOFError

        with RawUpstream(handler) as upstream:
            pool = Upstream(client=client)
            head = await pool.send(outgoing(upstream.url))
            chunks = aiter(head.body)
            assert await anext(chunks) == b"half"
            goes_on.set()
            with anyio.fail_after(20), pytest.raises(httpx.RemoteProtocolError):
                await anext(chunks)
            await head.body.aclose()
            await pool.aclose()

    async def test_a_status_that_is_none(self, client: str) -> None:
        strange = raw_response(b"", status="700 What")
        with (
            RawUpstream(lambda request: request.send(strange)) as upstream,
            pytest.raises(WireError, match="700"),
        ):
            await asked(upstream.url, client)

    async def test_whoever_leaves_closes_the_connection(self, client: str) -> None:
        left = threading.Event()

        def handler(request: Raw) -> None:
            request.send(STREAM_HEAD + chunked(b"one", is_end=False))
            if request.is_left(20):
                left.set()

        with RawUpstream(handler) as upstream:
            pool = Upstream(client=client)
            head = await pool.send(outgoing(upstream.url))
            assert await anext(aiter(head.body)) == b"one"
            await head.body.aclose()
            await head.body.aclose()
            assert await asyncio.to_thread(left.wait, 20)
            await pool.aclose()


def made(kind: type[Exception]) -> Exception:
    """Some error of aiohttp's."""
    exc = kind.__new__(kind)
    exc.args = ("http://127.0.0.1:9/secret",)
    exc.__dict__.update(status=400, message="what it says", headers=None, request_info=None, history=())
    if issubclass(kind, OSError):
        OSError.__init__(exc, errno.ECONNRESET, "at http://127.0.0.1:9/secret")
    return exc


KINDS = sorted(
    (kind for _, kind in inspect.getmembers(aiohttp, inspect.isclass) if issubclass(kind, aiohttp.ClientError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", [*KINDS, ValueError, OSError, TimeoutError, ConnectionResetError, ssl.SSLError])
def test_every_error_has_its_like(kind: type[Exception]) -> None:
    found = family_error(made(kind))
    assert isinstance(found, httpx.TransportError)
    late = issubclass(kind, TimeoutError)
    assert isinstance(found, httpx.TimeoutException) == late
    assert isinstance(translated(found), BackendTimeout) == late


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, (OSError, aiohttp.ClientResponseError))])
def test_an_error_does_not_say_where_the_backend_is(kind: type[Exception]) -> None:
    assert "127.0.0.1" not in str(family_error(made(kind)))


def test_aiohttp_must_be_there_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.faces._upstream.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"llm-proxy\[proxy\]"):
        Upstream(client="aiohttp")
    assert not Upstream(client="auto")._wants_aiohttp
