"""The transports, for any client of either httpx family."""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.errors import MissingDependencyError
from llm_proxy.faces import _http
from llm_proxy.faces._http import byte_streams, family_name, httpx, module_of
from llm_proxy.faces.transport import AsyncProxyTransport, ProxyTransport
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from llm_proxy.types import Outcome
from tests.fakes import body_of, completion, events_of

URL = "https://api.test/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FAMILIES = [importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name)]


def engine(**sections: Any) -> Runtime:
    sections = {"cache": {"store": "memory", "semantic": False}, "observe": {"ledger": False}, **sections}
    return Runtime(Config(**sections))


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    made = engine()
    yield made
    made.close()


def client(handler: Any, runtime: Any, module: Any = httpx) -> Any:
    return module.Client(transport=ProxyTransport(module.MockTransport(handler), llm_proxy=runtime))


def aclient(handler: Any, runtime: Any, module: Any = httpx) -> Any:
    return module.AsyncClient(transport=AsyncProxyTransport(module.MockTransport(handler), llm_proxy=runtime))


class Upstream:
    """Answers over a mock transport, and keeps the requests."""

    def __init__(self, module: Any = httpx, **answer: Any) -> None:
        self.module, self.answer = module, {"json": completion(), **answer}
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        status = self.answer.pop("status", 200)
        return self.module.Response(status, **self.answer)


@pytest.mark.parametrize("module", FAMILIES, ids=lambda module: module.__name__)
class TestFamilies:
    def test_sync(self, module: Any, runtime: Runtime) -> None:
        upstream = Upstream(module)
        with client(upstream, runtime, module) as http:
            responses = [http.post(URL, json=BODY) for _ in range(2)]
        assert [type(response) for response in responses] == [module.Response] * 2
        outcomes = [response.extensions["llm_proxy"] for response in responses]
        assert [(outcome.status, outcome.kind) for outcome in outcomes] == [("miss", ""), ("hit", "exact")]
        assert responses[0].json() == responses[1].json() == completion()
        assert len(upstream.requests) == 1

    async def test_async(self, module: Any, runtime: Runtime) -> None:
        upstream = Upstream(module)
        async with aclient(upstream, runtime, module) as http:
            responses = [await http.post(URL, json=BODY) for _ in range(2)]
        assert [response.extensions["llm_proxy"].status for response in responses] == ["miss", "hit"]
        assert len(upstream.requests) == 1

    def test_a_transport_of_its_own_is_made_when_it_is_needed(self, module: Any, runtime: Runtime) -> None:
        transport = ProxyTransport(llm_proxy=runtime)
        with module.Client(transport=transport) as http, pytest.raises(module.ConnectError):
            http.post("http://127.0.0.1:9/v1/chat/completions", json=BODY)
        assert isinstance(transport.inner, module.HTTPTransport)

    async def test_and_for_async_clients(self, module: Any, runtime: Runtime) -> None:
        transport = AsyncProxyTransport(llm_proxy=runtime)
        async with module.AsyncClient(transport=transport) as http:
            with pytest.raises(module.ConnectError):
                await http.post("http://127.0.0.1:9/v1/chat/completions", json=BODY)
        assert isinstance(transport.inner, module.AsyncHTTPTransport)


class TestPassing:
    @pytest.mark.parametrize(
        ("method", "url", "content"),
        [
            ("GET", "https://api.test/v1/models", b""),
            ("POST", "https://api.test/v1/moderations", b'{"model":"m","input":"hi"}'),
            ("POST", "https://api.test/v1/responses", b'{"model":7,"input":"hi"}'),
            ("GET", URL, b""),
            ("DELETE", URL + "/chatcmpl-1", b""),
            ("POST", URL, b""),
            ("POST", URL, b"{"),
            ("POST", URL, b"[]"),
            ("POST", URL, b"\xff\xfe"),
            ("POST", URL, b'{"messages":[]}'),
            ("POST", URL, b'{"model":"m","messages":[]}'),
            ("POST", URL, b'{"model":"m","messages":"hi"}'),
            ("POST", URL, b'{"model":"m","messages":["hi"]}'),
            ("POST", URL, b'{"model":7,"messages":[{"role":"user","content":"hi"}]}'),
            ("POST", URL, b'{"model":"m","messages":[{"role":"user","content":NaN}]}'),
            ("POST", URL, b'{"model":"m","model":"n","messages":[{"role":"user","content":"hi"}]}'),
            ("POST", URL, b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 9_999 + b"]" * 9_999 + b"}]}"),
        ],
    )
    async def test_what_is_not_ours_passes_as_it_is(
        self, runtime: Runtime, method: str, url: str, content: bytes
    ) -> None:
        upstream = Upstream(status=400, json={"error": {"message": "no"}})
        with client(upstream, runtime) as http:
            response = http.request(method, url, content=content)
        upstream.answer["status"] = 400
        async with aclient(upstream, runtime) as ahttp:
            aresponse = await ahttp.request(method, url, content=content)
        for answer in (response, aresponse):
            assert (answer.status_code, answer.json()) == (400, {"error": {"message": "no"}})
            assert "llm_proxy" not in answer.extensions
            assert "cache-status" not in answer.headers
        assert [request.content for request in upstream.requests] == [content] * 2
        assert runtime.cache is not None
        assert runtime.cache.stats().entries == 0

    def test_a_huge_body_passes_unread(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.faces.transport.parse_call", lambda *_, **__: pytest.fail("it was read"))
        upstream = Upstream()
        content = json.dumps(BODY).encode().replace(b'"hi"', b'"' + b"x" * (200 << 20) + b'"')
        with client(upstream, runtime) as http:
            assert http.post(URL, content=content).status_code == 200
        assert upstream.requests[0].content is content, "the very bytes, not a copy of them"

    def test_a_body_that_is_streamed_in_is_read_and_sent(self, runtime: Runtime) -> None:
        upstream = Upstream()
        with client(upstream, runtime) as http:
            content = json.dumps(BODY).encode()
            pieces = [content[start : start + 10] for start in range(0, len(content), 10)]
            for _ in range(2):
                answer = http.post(URL, content=iter(pieces))
        assert answer.extensions["llm_proxy"].status == "hit"
        assert upstream.requests[0].read() == b"".join(pieces)


class TestRequests:
    def sent(self, runtime: Runtime, **options: Any) -> Any:
        upstream = Upstream()
        with client(upstream, runtime) as http:
            http.post(URL, **{"json": BODY, **options})
        runtime.close()
        return upstream.requests[0]

    def test_they_are_the_callers_own_objects(self, runtime: Runtime) -> None:
        upstream = Upstream()
        http = client(upstream, runtime)
        request = http.build_request("POST", URL, json=BODY)
        http.send(request)
        assert upstream.requests[0] is request

    def test_another_model_at_the_same_address(self) -> None:
        request = self.sent(engine(aliases={"m": "a-longer-name"}), headers={"x-title": "t"}, params={"v": "1"})
        assert json.loads(request.content) == {**BODY, "model": "a-longer-name"}
        assert request.headers["content-length"] == str(len(request.content))
        assert (request.headers["x-title"], str(request.url)) == ("t", URL + "?v=1")

    def test_a_configured_backend(self) -> None:
        runtime = engine(
            backends={"own": {"base_url": "https://own.test/v1", "api_key": "k", "models": ["m"], "timeout_s": 9}}
        )
        headers = [(b"authorization", b"Bearer theirs"), (b"x-title", b"Caf\xe9"), (b"x-more", b"1"), (b"x-more", b"2")]
        request = self.sent(runtime, headers=headers, timeout=3)
        assert str(request.url) == "https://own.test/v1/chat/completions"
        assert (request.headers["host"], request.headers["authorization"]) == ("own.test", "Bearer k")
        raw = dict(request.headers.raw)
        assert (raw[b"x-title"], raw[b"x-more"]) == (b"Caf\xe9", b"1, 2")
        assert request.extensions["timeout"] == {"connect": 3, "read": 9, "write": 3, "pool": 3}

    def test_a_configured_backend_waits_as_long_as_the_caller(self) -> None:
        runtime = engine(backends={"own": {"base_url": "https://own.test/v1", "models": ["m"]}})
        assert self.sent(runtime, timeout=3).extensions["timeout"]["read"] == 3

    @pytest.mark.parametrize("control", ["no-store", "max-age=1, no-store"])
    def test_controls_are_read_wherever_they_stand(self, runtime: Runtime, control: str) -> None:
        with client(Upstream(), runtime) as http:
            rows = [("cache-control", part) for part in control.split(", ")]
            assert http.post(URL, json=BODY, headers=rows).extensions["llm_proxy"].detail == "no-store"

    def test_without_time_limits(self, runtime: Runtime) -> None:
        request = httpx.Request("POST", URL, json=BODY)
        response = ProxyTransport(httpx.MockTransport(Upstream()), llm_proxy=runtime).handle_request(request)
        assert response.read() == body_of_json(completion())


def body_of_json(value: Any) -> bytes:
    content: bytes = httpx.Response(200, json=value).content
    return content


class TestResponses:
    @pytest.mark.parametrize("is_hit", [False, True])
    def test_they_say_how_long_they_are_and_took(self, runtime: Runtime, is_hit: bool) -> None:
        with client(Upstream(), runtime) as http:
            for _ in range(1 + is_hit):
                response = http.post(URL, json=BODY)
        assert response.headers["content-length"] == str(len(response.content))
        assert response.elapsed.total_seconds() >= 0

    def test_an_upstreams_headers_and_extensions_are_kept(self, runtime: Runtime) -> None:
        headers = [
            (b"X-Request-Id", b"r1"),
            (b"x-name", b"Z\xfcrich"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ]
        upstream = Upstream(headers=headers, extensions={"http_version": b"HTTP/2"})
        with client(upstream, runtime) as http:
            response = http.post(URL, json=BODY)
        assert response.headers["x-request-id"] == "r1"
        assert (b"x-name", b"Z\xfcrich") in response.headers.raw
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert (response.http_version, isinstance(response.extensions["llm_proxy"], Outcome)) == ("HTTP/2", True)

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity"])
    @pytest.mark.parametrize("is_stream", [False, True])
    async def test_compressed_bodies(self, runtime: Runtime, coding: str, is_stream: bool) -> None:
        plain = b"".join(events_of("one ", "two")) if is_stream else body_of(completion("one two"))
        content = {"gzip": gzip.compress, "deflate": zlib.compress, "br": _brotli, "identity": bytes}[coding](plain)
        kind = "text/event-stream" if is_stream else "application/json"

        def upstream(request: Any) -> Any:
            pieces = (content[start : start + 7] for start in range(0, len(content), 7))
            return httpx.Response(200, headers={"content-type": kind, "content-encoding": coding}, content=pieces)

        with client(upstream, runtime) as http:
            body = {**BODY, "stream_options": {"include_usage": True}}
            responses = [http.post(URL, json={**body, "stream": is_stream}) for _ in range(2)]
            other = http.post(URL, json={**BODY, "stream": not is_stream})
        assert responses[0].content == plain
        assert [response.extensions["llm_proxy"].status for response in responses] == ["miss", "hit"]
        assert "content-encoding" not in responses[1].headers
        assert (other.extensions["llm_proxy"].status, b"one two" in other.content) == ("hit", True)
        assert "one" in responses[1].text

    async def test_a_body_that_is_not_what_its_headers_say(self, runtime: Runtime) -> None:
        broken = {"content-type": "application/json", "content-encoding": "gzip"}

        def upstream(request: Any) -> Any:
            return httpx.Response(200, headers=broken, content=iter([b"no gzip at all"]))

        async def aupstream(request: Any) -> Any:
            return httpx.Response(200, headers=broken, content=_asynchronous([b"no gzip at all"]))

        with client(upstream, runtime) as http, pytest.raises(httpx.DecodingError) as caught:
            http.post(URL, json=BODY)
        assert str(caught.value.request.url) == URL
        async with aclient(aupstream, runtime) as ahttp:
            with pytest.raises(httpx.DecodingError):
                await ahttp.post(URL, json=BODY)
        assert runtime.cache is not None
        assert runtime.cache.stats().entries == 0

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_plain_answer_too_large_to_keep(self, is_async: bool) -> None:
        runtime = engine(cache={"store": "memory", "semantic": False, "max_entry_bytes": 50})
        pieces = [b'{"text": "', b"x" * 100, b"y" * 100, b'"}']

        def upstream(request: Any) -> Any:
            content = _asynchronous(pieces) if is_async else iter(pieces)
            return httpx.Response(200, headers={"content-type": "application/json"}, content=content)

        if is_async:
            async with aclient(upstream, runtime) as http:
                response = await http.post(URL, json=BODY)
        else:
            with client(upstream, runtime) as http:
                response = http.post(URL, json=BODY)
        assert response.content == b"".join(pieces)
        assert runtime.cache is not None
        assert runtime.cache.stats().entries == 0
        runtime.close()

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_closing_early_closes_the_upstreams_body(self, runtime: Runtime, is_async: bool) -> None:
        closed: list[str] = []

        class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield from events_of("one", "two")

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in events_of("one", "two"):
                    yield chunk

            def close(self) -> None:
                closed.append("sync")

            async def aclose(self) -> None:
                closed.append("async")

        def upstream(request: Any) -> Any:
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

        for control in ("max-age=9", "no-cache", "no-store"):
            options = {"json": {**BODY, "stream": True}, "headers": {"cache-control": control}}
            if is_async:
                async with aclient(upstream, runtime) as http, http.stream("POST", URL, **options) as response:
                    assert await anext(response.aiter_bytes())
            else:
                with client(upstream, runtime) as http, http.stream("POST", URL, **options) as response:
                    assert next(response.iter_bytes())
        assert closed == ["async" if is_async else "sync"] * 3

    def test_a_stream_may_be_iterated_twice(self) -> None:
        chunks, _ = byte_streams(httpx)
        stream = chunks(iter([b"a", b"b"]), lambda: None)
        assert (next(iter(stream)), list(stream)) == (b"a", [b"b"])


async def _asynchronous(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _brotli(data: bytes) -> bytes:
    brotli = pytest.importorskip("brotli")
    compressed: bytes = brotli.compress(data)
    return compressed


class Noted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that notes how it is opened and closed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in {"close", "aclose", "__enter__", "__exit__", "__aenter__", "__aexit__"}:
            calls = object.__getattribute__(self, "calls")

            def note(*args: Any) -> Any:
                calls.append(name)
                return _nothing() if name.startswith(("__a", "a")) else None

            return note
        return object.__getattribute__(self, name)


async def _nothing() -> None:
    pass


class TestClosing:
    async def test_the_inner_transport_is_opened_and_closed_with_it(self, runtime: Runtime) -> None:
        inner = Noted()
        with ProxyTransport(inner, llm_proxy=runtime) as transport:
            transport.close()
        async with AsyncProxyTransport(inner, llm_proxy=runtime) as atransport:
            await atransport.aclose()
        assert inner.calls == ["__enter__", "close", "__exit__", "__aenter__", "aclose", "__aexit__"]

    async def test_there_may_be_none_yet(self, runtime: Runtime) -> None:
        with ProxyTransport(llm_proxy=runtime) as transport:
            transport.close()
        async with AsyncProxyTransport(llm_proxy=runtime) as atransport:
            await atransport.aclose()
        assert (transport.inner, atransport.inner) == (None, None)

    def test_the_cache_stays_open_for_others(self, runtime: Runtime) -> None:
        upstream = Upstream()
        for _ in range(2):
            with client(upstream, runtime) as http:
                response = http.post(URL, json=BODY)
        assert response.extensions["llm_proxy"].status == "hit"


class TestSettings:
    def test_equal_settings_share_a_runtime(self) -> None:
        settings = {"cache": {"store": "memory"}}
        one, two = ProxyTransport(llm_proxy=settings), AsyncProxyTransport(llm_proxy=dict(settings))
        assert one.runtime is two.runtime
        assert ProxyTransport(llm_proxy={"cache": {"store": "memory", "ttl_s": 1}}).runtime is not one.runtime

    def test_sync_and_async_share_what_is_stored(self, runtime: Runtime) -> None:
        backend = FakeBackend("shared")

        async def ask() -> Any:
            transport = AsyncProxyTransport(backend.async_client()._transport, llm_proxy=runtime)
            async with httpx.AsyncClient(transport=transport) as http:
                return (await http.post(URL, json=BODY)).extensions["llm_proxy"].status

        with httpx.Client(transport=ProxyTransport(backend.client()._transport, llm_proxy=runtime)) as http:
            http.post(URL, json=BODY)
        assert importlib.import_module("asyncio").run(ask()) == "hit"


class TestFamily:
    def test_it_is_the_one_of_the_installed_openai(self) -> None:
        assert httpx.__name__ == family_name()
        assert httpx.Request is not None

    @pytest.mark.parametrize(("installed", "name"), [("2.54.0", "httpx"), ("3.0.0", "httpx2"), ("10.1", "httpx2")])
    def test_by_version(self, monkeypatch: pytest.MonkeyPatch, installed: str, name: str) -> None:
        monkeypatch.setattr(_http, "version", lambda package: installed)
        assert family_name() == name

    def test_without_openai(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(package: str) -> str:
            raise PackageNotFoundError(package)

        monkeypatch.setattr(_http, "version", absent)
        with pytest.raises(MissingDependencyError, match="pip install openai"):
            family_name()

    @pytest.mark.parametrize("module", FAMILIES, ids=lambda module: module.__name__)
    @pytest.mark.parametrize(
        "make", [lambda m: m.Request("GET", URL), lambda m: m.Client(), lambda m: m.AsyncClient()],
        ids=["request", "client", "async client"],
    )  # fmt: skip
    def test_a_value_tells_its_own(self, module: Any, make: Callable[[Any], Any]) -> None:
        assert module_of(make(module)) is module

    def test_anything_else_is_of_the_installed_one(self) -> None:
        assert module_of(object()) is httpx
