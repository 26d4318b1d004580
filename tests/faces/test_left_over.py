"""An upstream that sends more than its answer: the rest is nobody's, and not the answer to the next request."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import h11
import httpx as old_httpx
import openai
import pytest

from llm_proxy import AsyncProxyTransport, ProxyTransport
from llm_proxy.config import load
from llm_proxy.faces._http import _state_of, alone, httpx
from llm_proxy.faces._upstream import Upstream
from llm_proxy.runtime import Runtime
from llm_proxy.types import Outgoing
from tests.faces.asgi_kit import DONE, STREAM_HEAD, Raw, RawUpstream, chunked, completion, event, raw_response

FAMILIES = list(dict.fromkeys([httpx.__name__, old_httpx.__name__]))
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
STOLEN = raw_response(completion("somebody else's"))
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    made = Runtime(load(cache={"enabled": False}, observe={"ledger": False}))
    yield made
    made.close()


class Generous:
    """Answers each request by its number, and the first one with another answer behind its own."""

    def __init__(
        self, *, is_stream: bool = False, extra: bytes = STOLEN, early: bytes = b"", cuts: tuple[int, ...] = ()
    ) -> None:
        self._is_stream, self._extra, self._early, self._cuts = is_stream, extra, early, cuts
        self._lock = threading.Lock()
        self._asked = 0

    def __call__(self, request: Raw) -> None:
        with self._lock:
            self._asked += 1
            number = self._asked
        text = f"answer {number}"
        whole = STREAM_HEAD + chunked(event(text), event(), DONE) if self._is_stream else raw_response(completion(text))
        whole = self._early + whole + (self._extra if number == 1 else b"")
        at = 0
        for cut in self._cuts:
            request.send(whole[at:cut])
            at = cut
            time.sleep(0.05)  # a packet of its own
        request.send(whole[at:])


def connections(upstream: RawUpstream) -> int:
    return len({id(request.connection) for request in upstream.requests})


BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("extra", [STOLEN, b"x", b"HTTP/1.1 OK\r\n\r\n", b"\x00" * 5000, b"\r\n"])
@pytest.mark.parametrize("client", ["aiohttp", "httpx"])
async def test_the_proxy_asks_again_on_another_connection(client: str, extra: bytes, is_stream: bool) -> None:
    await all_is_read(client, Generous(is_stream=is_stream, extra=extra), is_stream, extra)


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("extra", [STOLEN, b"x", b"HTTP/1.1 OK\r\n\r\n", b"\x00" * 5000])
@pytest.mark.parametrize("early", [EARLY, EARLY + EARLY, b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["103", "two", "100"])
@pytest.mark.parametrize("client", ["aiohttp", "httpx"])
async def test_where_others_headers_come_before_the_answer(
    client: str, early: bytes, extra: bytes, is_stream: bool
) -> None:
    await all_is_read(client, Generous(is_stream=is_stream, extra=extra, early=early), is_stream, extra)


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("early", "cuts"),
    [
        (b"", (20,)),
        (b"", (8, 11)),
        (EARLY, (len(EARLY),)),
        (EARLY, (len(EARLY) - 1,)),
        (EARLY, (len(EARLY) - 3, len(EARLY) - 2)),
        (EARLY, (len(EARLY) + 30,)),
        (EARLY, (20, len(EARLY) + 20)),
    ],
)
async def test_where_headers_come_in_pieces(early: bytes, cuts: tuple[int, ...], is_stream: bool) -> None:
    generous = Generous(is_stream=is_stream, extra=b"x", early=early, cuts=cuts)
    await all_is_read("aiohttp", generous, is_stream, b"x")


def first(is_stream: bool) -> bytes:
    text = "answer 1"
    return STREAM_HEAD + chunked(event(text), event(), DONE) if is_stream else raw_response(completion(text))


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("extra", [STOLEN, STOLEN + STOLEN, EARLY + STOLEN, b"x"])
@pytest.mark.parametrize("early", [b"", EARLY], ids=["", "103"])
@pytest.mark.parametrize("client", ["aiohttp", "httpx"])
async def test_behind_a_body_that_comes_apart_from_its_headers(
    client: str, early: bytes, extra: bytes, is_stream: bool
) -> None:
    head = len(early) + first(is_stream).index(b"\r\n\r\n") + 4
    generous = Generous(is_stream=is_stream, extra=extra, early=early, cuts=(head,))
    await all_is_read(client, generous, is_stream, extra, pause_s=0.02)


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("extra", [STOLEN, STOLEN[:40], EARLY, b"x"])
async def test_what_comes_while_nobody_asks(extra: bytes, is_stream: bool) -> None:
    generous = Generous(is_stream=is_stream, extra=extra, cuts=(len(first(is_stream)),))
    await all_is_read("aiohttp", generous, is_stream, extra, pause_s=0.2)


@pytest.mark.parametrize("client", ["aiohttp", "httpx"])
async def test_a_body_that_nobody_asked_for(client: str) -> None:
    with RawUpstream(Generous(extra=b"")) as upstream:
        pool = Upstream(client=client)
        try:
            for _ in range(2):
                call = Outgoing(upstream.url + "/files", [], b"", backend="b", timeout_s=5.0)
                head = await pool.send(call, method="HEAD")
                assert (head.status, b"".join([chunk async for chunk in head.body])) == (200, b"")
                await head.body.aclose()
        finally:
            await pool.aclose()
        assert connections(upstream) == 2


@pytest.mark.parametrize("most_bytes", [100_000, 500_000, 900_000])
@pytest.mark.parametrize("client", ["aiohttp", "httpx"])
async def test_long_answers_come_to_their_end(client: str, most_bytes: int) -> None:
    """aiohttp holds back what nobody has read yet, and then goes on by a packet of no bytes."""
    with RawUpstream(lambda request: request.send(raw_response(completion("a" * most_bytes)))) as upstream:
        pool = Upstream(client=client)
        try:
            for _ in range(8):
                call = Outgoing(upstream.url + "/chat/completions", [], b"{}", backend="b", timeout_s=5.0)
                head = await pool.send(call)
                body = b"".join([chunk async for chunk in head.body])
                await head.body.aclose()
                assert body == completion("a" * most_bytes)
        finally:
            await pool.aclose()


async def all_is_read(client: str, generous: Generous, is_stream: bool, extra: bytes, *, pause_s: float = 0.0) -> None:
    """All answers are there, and the first one's connection is used no more."""
    with RawUpstream(generous) as upstream:
        pool = Upstream(client=client)
        try:
            for number in range(1, 4):
                call = Outgoing(upstream.url + "/chat/completions", [], b"{}", backend="b", timeout_s=5.0)
                head = await pool.send(call)
                body = b"".join([chunk async for chunk in head.body])
                await head.body.aclose()
                assert f"answer {number}".encode() in body
                assert body.endswith(DONE if is_stream else b"}")
                await asyncio.sleep(pause_s)
        finally:
            await pool.aclose()
        assert len(upstream.requests) == 3
        is_nothing = client == "aiohttp" and extra == b"\r\n"  # to be ignored: RFC 9112, section 2.2
        assert connections(upstream) == 2 - is_nothing, "those that say no more than their answer are used again"


@pytest.mark.parametrize("family", FAMILIES)
class TestReader:
    """Neither family tells in public what came behind an answer; `alone` asks h11 for it, through private names."""

    said = "has changed: `llm_proxy.faces._http._state_of` finds no h11.Connection, and what is left over passes unseen"

    def test_sync(self, family: str) -> None:
        module = importlib.import_module(family)
        with RawUpstream(Generous(extra=b"")) as upstream, module.HTTPTransport() as transport:
            response = transport.handle_request(module.Request("POST", upstream.url, content=b"{}"))
            assert isinstance(_state_of(response.stream), h11.Connection), f"{family} or its httpcore {self.said}"
            assert alone(response).read() == completion("answer 1")

    async def test_async(self, family: str) -> None:
        module = importlib.import_module(family)
        with RawUpstream(Generous(extra=b"")) as upstream:
            async with module.AsyncHTTPTransport() as transport:
                response = await transport.handle_async_request(module.Request("POST", upstream.url, content=b"{}"))
                assert isinstance(_state_of(response.stream), h11.Connection), f"{family} or its httpcore {self.said}"
                assert await alone(response).aread() == completion("answer 1")


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("family", FAMILIES)
class TestClients:
    def test_sync(self, family: str, is_stream: bool, runtime: Runtime) -> None:
        module = importlib.import_module(family)
        with RawUpstream(Generous(is_stream=is_stream)) as upstream:
            with module.Client(transport=ProxyTransport(module.HTTPTransport(), llm_proxy=runtime)) as client:
                for number in (1, 2, 3):
                    reply = client.post(upstream.url + "/chat/completions", json={**BODY, "stream": is_stream})
                    assert f"answer {number}" in reply.text
            assert (len(upstream.requests), connections(upstream)) == (3, 2)

    async def test_async(self, family: str, is_stream: bool, runtime: Runtime) -> None:
        module = importlib.import_module(family)
        with RawUpstream(Generous(is_stream=is_stream)) as upstream:
            transport = AsyncProxyTransport(module.AsyncHTTPTransport(), llm_proxy=runtime)
            async with module.AsyncClient(transport=transport) as client:
                for number in (1, 2, 3):
                    reply = await client.post(upstream.url + "/chat/completions", json={**BODY, "stream": is_stream})
                    assert f"answer {number}" in reply.text
            assert (len(upstream.requests), connections(upstream)) == (3, 2)

    def test_what_passes_leaves_nothing_either(self, family: str, is_stream: bool, runtime: Runtime) -> None:
        module = importlib.import_module(family)
        with RawUpstream(Generous(is_stream=is_stream)) as upstream:
            with module.Client(transport=ProxyTransport(module.HTTPTransport(), llm_proxy=runtime)) as client:
                texts = [client.get(upstream.url + "/files").text for _ in range(2)]
            assert ["answer 1" in texts[0], "answer 2" in texts[1]] == [True, True]
            assert connections(upstream) == 2


def test_through_the_openai_client(runtime: Runtime) -> None:
    with RawUpstream(Generous()) as upstream:
        client: Any = openai.OpenAI(
            api_key="k", base_url=upstream.url, http_client=httpx.Client(transport=ProxyTransport(llm_proxy=runtime))
        )
        said = [client.chat.completions.create(**BODY).choices[0].message.content for _ in range(2)]
        assert said == ["answer 1", "answer 2"]
        client.close()
