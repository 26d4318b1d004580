"""The openai clients with the engine inside, and `wrap`: whatever the bare client does, they do."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, wrap
from llm_proxy.config import Config
from llm_proxy.faces._http import httpx
from llm_proxy.faces.transport import AsyncProxyTransport, ProxyTransport
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from llm_proxy.types import Outcome
from tests.faces.asgi_kit import DONE, STREAM_HEAD, Raw, RawUpstream, chunked, completion, event, raw_response, until

MESSAGES: Any = [{"role": "user", "content": "hi"}]
SETTINGS: Any = {"cache": {"store": "memory", "semantic": False}}


@pytest.fixture
def events() -> list[CallEvent]:
    return []


@pytest.fixture
def runtime(events: list[CallEvent]) -> Iterator[Runtime]:
    made = Runtime(Config(**SETTINGS, observe={"ledger": False}), sinks=(events.append,))
    yield made
    made.close()


def ask(client: Any, text: str = "hi", **options: Any) -> Any:
    """The raw response of a plain call."""
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model="m", messages=messages, **options)


def status(client: Any, text: str = "hi", **options: Any) -> str:
    found: str = ask(client, text, **options).headers.get("cache-status", "none")
    return found


async def astatus(client: Any) -> str:
    found: str = (await ask(client)).headers.get("cache-status", "none")
    return found


MISS, HIT = "llm-proxy; fwd=uri-miss; stored", 'llm-proxy; hit; detail="exact"'
AGAIN = "llm-proxy; fwd=request; stored"


class TestConstruction:
    @pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI, AzureOpenAI, AsyncAzureOpenAI])
    def test_they_are_openais(self, kind: Any, runtime: Runtime) -> None:
        azure = {"azure_endpoint": "https://x.test", "api_version": "1"} if "Azure" in kind.__name__ else {}
        client = kind(api_key="k", llm_proxy=runtime, timeout=7, max_retries=9, **azure)
        assert isinstance(client, getattr(openai, kind.__name__))
        assert (client.timeout, client.max_retries, client.api_key) == (7, 9, "k")
        assert client._client._transport.runtime is runtime

    def test_arguments_are_as_ever(self, monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
        for kind in (openai.OpenAI, OpenAI):
            with pytest.raises(openai.OpenAIError, match="OPENAI_API_KEY"):
                kind()
            with pytest.raises(TypeError, match="unheard_of"):
                kind(api_key="k", unheard_of=1)
        monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.test/v1")
        client = OpenAI(llm_proxy=runtime)
        assert (client.api_key, str(client.base_url)) == ("from-outside", "https://elsewhere.test/v1/")

    @pytest.mark.parametrize("wrong", [object(), "client", httpx.HTTPTransport])
    def test_what_is_no_http_client_is_refused_as_ever(self, runtime: Runtime, wrong: Any) -> None:
        errors = []
        for kind, options in ((openai.OpenAI, {}), (OpenAI, {"llm_proxy": runtime})):
            with pytest.raises((TypeError, AttributeError)) as caught:
                kind(api_key="k", http_client=wrong, **options)
            errors.append(repr(caught.value))
        assert errors[0] == errors[1]

    def test_an_http_client_of_the_other_side_is_refused_as_ever(self, runtime: Runtime) -> None:
        for kind, options in ((openai.OpenAI, {}), (OpenAI, {"llm_proxy": runtime})):
            with pytest.raises(TypeError, match="Invalid `http_client` argument"):
                kind(api_key="k", http_client=httpx.AsyncClient(), **options)  # type: ignore[arg-type]

    def test_settings_as_plain_data(self) -> None:
        backend = FakeBackend()
        one, two = (OpenAI(api_key="k", http_client=backend.client(), llm_proxy=SETTINGS) for _ in range(2))
        assert [status(one), status(two)] == [MISS, HIT], "equal settings share what is stored"

    def test_keys_do_not_share(self, runtime: Runtime) -> None:
        http = FakeBackend().client()
        clients = [OpenAI(api_key=key, http_client=http, llm_proxy=runtime) for key in ("a", "b", "a")]
        assert [status(client) for client in clients] == [MISS, MISS, HIT]


class TestHTTPClients:
    def test_the_given_one_is_left_alone(self, runtime: Runtime) -> None:
        backend = FakeBackend()
        http = backend.client()
        transport = http._transport
        client = OpenAI(api_key="k", http_client=http, llm_proxy=runtime)
        assert [status(client), status(client)] == [MISS, HIT]
        assert http._transport is transport
        assert status(openai.OpenAI(api_key="k", http_client=http)) == "none"

    def test_its_class_and_what_it_does_are_kept(self, runtime: Runtime) -> None:
        class Stamping(httpx.Client):
            def build_request(self, *args: Any, **options: Any) -> Any:
                request = super().build_request(*args, **options)
                request.headers["x-stamp"] = "1"
                return request

        seen: list[Any] = []

        def upstream(request: Any) -> Any:
            seen.append(request)
            return httpx.Response(200, content=completion(), headers={"content-type": "application/json"})

        http = Stamping(transport=httpx.MockTransport(upstream), headers={"x-mine": "2"})
        client = OpenAI(api_key="k", http_client=http, llm_proxy=runtime)
        assert type(client._client) is Stamping
        status(client)
        assert (seen[0].headers["x-stamp"], seen[0].headers["x-mine"]) == ("1", "2")

    def test_one_with_the_engine_keeps_its_own(self, runtime: Runtime) -> None:
        http = httpx.Client(transport=ProxyTransport(FakeBackend().client()._transport, llm_proxy=runtime))
        for kind in (OpenAI, openai.OpenAI):
            client = kind(api_key="k", http_client=http)
            assert client._client is http
        other = Runtime(runtime.config)
        client = OpenAI(api_key="k", http_client=http, llm_proxy=other)
        transport = client._client._transport
        assert (transport.runtime, transport.inner) == (other, http._transport.inner)
        other.close()

    def test_one_of_the_older_family(self, runtime: Runtime) -> None:
        legacy = pytest.importorskip("httpx")
        if legacy is httpx:
            pytest.skip("the installed openai has but this family")
        bodies = [completion("old")] * 2

        def upstream(request: Any) -> Any:
            return legacy.Response(200, content=bodies.pop(), headers={"content-type": "application/json"})

        inner = legacy.MockTransport(upstream)
        for http in (
            legacy.Client(transport=ProxyTransport(inner, llm_proxy=runtime)),
            legacy.Client(transport=inner),
        ):
            client = OpenAI(api_key=str(id(http)), http_client=http, llm_proxy=runtime)
            assert [status(client), status(client)] == [MISS, HIT]
            assert ask(client).parse().choices[0].message.content == "old"
            assert type(client._client) is legacy.Client
        assert bodies == []

    def test_a_bare_client_over_a_transport_of_the_older_family(self, runtime: Runtime) -> None:
        legacy = pytest.importorskip("httpx")

        def upstream(request: Any) -> Any:
            return legacy.Response(200, content=completion("old"), headers={"content-type": "application/json"})

        http = legacy.Client(transport=ProxyTransport(legacy.MockTransport(upstream), llm_proxy=runtime))
        client = openai.OpenAI(api_key="k", http_client=http)
        assert [status(client), status(client)] == [MISS, HIT]
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "old"

    async def test_an_async_one_of_the_older_family(self, runtime: Runtime) -> None:
        legacy = pytest.importorskip("httpx")

        def upstream(request: Any) -> Any:
            return legacy.Response(200, content=completion("old"), headers={"content-type": "application/json"})

        http = legacy.AsyncClient(transport=legacy.MockTransport(upstream))
        async with AsyncOpenAI(api_key="k", http_client=http, llm_proxy=runtime) as client:
            assert [await astatus(client), await astatus(client)] == [MISS, HIT]


class TestWrap:
    def test_the_original_is_not_changed(self, runtime: Runtime) -> None:
        original = openai.OpenAI(api_key="k", http_client=FakeBackend().client(), max_retries=7)
        client = wrap(original, llm_proxy=runtime)
        assert (type(client), client.max_retries, client.api_key) == (openai.OpenAI, 7, "k")
        assert [status(client), status(client), status(original)] == [MISS, HIT, "none"]

    def test_subclasses_stay_what_they_are(self, runtime: Runtime) -> None:
        class Mine(openai.OpenAI):
            def hello(self) -> str:
                return "hello"

        client = wrap(Mine(api_key="k", http_client=FakeBackend().client()), llm_proxy=runtime)
        assert (client.hello(), status(client)) == ("hello", MISS)

    def test_wrapping_twice_is_wrapping_once(self, runtime: Runtime) -> None:
        client = wrap(openai.OpenAI(api_key="k", http_client=FakeBackend().client()), llm_proxy=runtime)
        again = wrap(client)
        assert again._client is client._client
        assert status(again) == MISS

    @pytest.mark.parametrize("first", ["copy", "original"])
    def test_either_outlives_the_other(self, runtime: Runtime, first: str) -> None:
        with RawUpstream(lambda raw: raw.send(raw_response(completion()))) as upstream:
            clients = {"original": openai.OpenAI(api_key="k", base_url=upstream.url)}
            clients["copy"] = wrap(clients["original"], llm_proxy=runtime)
            assert [status(client) for client in clients.values()] == ["none", MISS]
            watch = weakref.ref(clients.pop(first))
            gc.collect()
            assert watch() is None
            (left,) = clients.values()
            assert status(left, "again") in ("none", MISS)
            assert not left._client.is_closed
            left.close()

    async def test_either_outlives_the_other_async(self, runtime: Runtime) -> None:
        with RawUpstream(lambda raw: raw.send(raw_response(completion()))) as upstream:
            for first in ("copy", "original"):
                clients = {"original": openai.AsyncOpenAI(api_key=first, base_url=upstream.url)}
                clients["copy"] = wrap(clients["original"], llm_proxy=runtime)
                assert [await astatus(client) for client in clients.values()] == ["none", MISS]
                del clients[first]
                gc.collect()
                await asyncio.sleep(0.01)
                (left,) = clients.values()
                assert await astatus(left) in ("none", HIT)
                assert not left._client.is_closed
                await left.close()

    def test_connections_are_shared_and_given_back(self, runtime: Runtime) -> None:
        with RawUpstream(lambda raw: raw.send(raw_response(completion()))) as upstream:
            original = openai.OpenAI(api_key="k", base_url=upstream.url)
            client = wrap(original, llm_proxy=runtime)
            status(original)
            for number in range(5):
                status(client, str(number))
            assert len({id(raw.connection) for raw in upstream.requests}) == 1
            client.close()
            client.close()
            original.close()


class TestCopies:
    @pytest.mark.parametrize("how", ["copy", "with_options"])
    def test_they_keep_the_engine(self, runtime: Runtime, how: str) -> None:
        client = OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=runtime)
        copied = getattr(client, how)(timeout=3)
        assert (type(copied), copied.timeout) == (OpenAI, 3)
        assert [status(client, timeout=3), status(copied)] == [MISS, HIT]
        assert copied._client is client._client

    def test_another_http_client_gets_the_engine_too(self, runtime: Runtime) -> None:
        client = OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=runtime)
        copied = client.copy(http_client=FakeBackend().client())
        assert [status(client), status(copied)] == [MISS, HIT]
        ready = httpx.Client(transport=ProxyTransport(llm_proxy=SETTINGS))
        assert client.copy(http_client=ready)._client is ready

    def test_another_engine_over_the_same_connections(self, runtime: Runtime) -> None:
        client = OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=runtime)
        other = Runtime(runtime.config)
        copied = client.with_options(llm_proxy=other)
        assert [status(client), status(copied), status(client), status(copied)] == [MISS, MISS, HIT, HIT]
        assert copied._client._transport.inner is client._client._transport.inner
        other.close()

    def test_azure(self, runtime: Runtime) -> None:
        client = AzureOpenAI(api_key="k", azure_endpoint="https://x.test", api_version="1", llm_proxy=runtime)
        copied = client.with_options(max_retries=9, api_version="2")
        assert (type(copied), copied.max_retries, copied._api_version) == (AzureOpenAI, 9, "2")
        assert copied._client._transport.runtime is runtime


class TestAzure:
    def client(self, runtime: Runtime, seen: list[Any], **options: Any) -> AzureOpenAI:
        def upstream(request: Any) -> Any:
            seen.append(request)
            return httpx.Response(200, content=completion(), headers={"content-type": "application/json"})

        options = {"api_key": "k", "api_version": "2024-06-01", "azure_endpoint": "https://x.test", **options}
        http = httpx.Client(transport=httpx.MockTransport(upstream))
        return AzureOpenAI(http_client=http, llm_proxy=runtime, **options)

    def test_deployments(self, runtime: Runtime) -> None:
        seen: list[Any] = []
        client = self.client(runtime, seen)
        assert [status(client), status(client)] == [MISS, HIT]
        url = "https://x.test/openai/deployments/m/chat/completions?api-version=2024-06-01"
        assert [(str(request.url), request.headers["api-key"]) for request in seen] == [(url, "k")]

    def test_what_makes_another_question(self, runtime: Runtime) -> None:
        seen: list[Any] = []
        clients = [
            self.client(runtime, seen),
            self.client(runtime, seen, api_key="other"),
            self.client(runtime, seen, api_version="2025-01-01"),
            self.client(runtime, seen, azure_endpoint="https://y.test"),
            self.client(runtime, seen, azure_deployment="d"),
            self.client(runtime, seen, api_key=None, azure_ad_token="t"),
        ]
        assert [status(client) for client in clients] == [MISS] * 6
        assert [status(client) for client in clients] == [HIT] * 6

    async def test_async(self, runtime: Runtime) -> None:
        http = FakeBackend().async_client()
        async with AsyncAzureOpenAI(
            api_key="k", api_version="1", azure_endpoint="https://x.test", http_client=http, llm_proxy=runtime
        ) as client:
            assert [await astatus(client), await astatus(client)] == [MISS, HIT]


class TestProxies:
    @pytest.mark.parametrize("kinds", [(openai.OpenAI, OpenAI), (openai.AsyncOpenAI, AsyncOpenAI)])
    def test_those_of_the_environment_stay(self, kinds: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "internal.test")
        bare, ours = kinds[0](api_key="k"), kinds[1](api_key="k", llm_proxy=runtime)
        mounts = ours._client._mounts
        assert mounts.keys() == bare._client._mounts.keys()
        assert None in mounts.values()
        for pattern, transport in mounts.items():
            if transport is not None:
                assert isinstance(transport, (ProxyTransport, AsyncProxyTransport))
                assert type(transport.inner) is type(bare._client._mounts[pattern])

    def test_calls_go_through_them(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        with RawUpstream(lambda raw: raw.send(raw_response(completion()))) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
            with OpenAI(api_key="k", base_url="http://far.test/v1", llm_proxy=runtime) as client:
                assert [status(client), status(client)] == [MISS, HIT]
            assert [raw.target for raw in proxy.requests] == ["http://far.test/v1/chat/completions"]


class TestCalls:
    def client(self, runtime: Runtime, backend: FakeBackend | None = None, **options: Any) -> OpenAI:
        return OpenAI(api_key="k", http_client=(backend or FakeBackend()).client(), llm_proxy=runtime, **options)

    def test_the_outcome_is_typed(self, runtime: Runtime) -> None:
        client = self.client(runtime)
        outcomes = [ask(client).http_response.extensions["llm_proxy"] for _ in range(2)]
        assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome]
        assert [outcome.is_stored for outcome in outcomes] == [True, None]
        assert outcomes[0].key == outcomes[1].key
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert stream.response.extensions["llm_proxy"].kind == "exact"

    def test_streaming_responses(self, runtime: Runtime) -> None:
        client = self.client(runtime, FakeBackend("hello"))
        for expected in (MISS, HIT):
            with client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response:
                assert response.headers["cache-status"] == expected
                assert response.parse().choices[0].message.content == "hello"

    @pytest.mark.parametrize("helper", ["stream", "parse"])
    def test_helpers(self, runtime: Runtime, helper: str) -> None:
        client = self.client(runtime, FakeBackend("hello"))
        for _ in range(2):
            if helper == "stream":
                with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
                    answer = stream.get_final_completion()
            else:
                answer = client.chat.completions.parse(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "hello"

    def test_how_long_it_took(self, runtime: Runtime) -> None:
        client = self.client(runtime)
        assert [ask(client).elapsed.total_seconds() >= 0 for _ in range(2)] == [True, True]

    def test_no_store(self, runtime: Runtime) -> None:
        client, control = self.client(runtime), {"extra_headers": {"Cache-Control": "no-store"}}
        bypass = 'llm-proxy; fwd=bypass; detail="no-store"'
        assert [status(client, **control), status(client), status(client, **control)] == [bypass, MISS, bypass]

    def test_no_cache_replaces(self, runtime: Runtime) -> None:
        backend = FakeBackend("old")
        client = self.client(runtime, backend)
        status(client)
        backend.answer = "new"
        assert ask(client).parse().choices[0].message.content == "old"
        assert status(client, extra_headers={"cache-control": "no-cache"}) == AGAIN
        response = ask(client)
        assert (response.parse().choices[0].message.content, response.headers["cache-status"]) == ("new", HIT)

    def test_max_age(self, runtime: Runtime) -> None:
        client = self.client(runtime)
        status(client)
        assert status(client, extra_headers={"Cache-Control": "max-age=60"}) == HIT
        assert status(client, extra_headers={"Cache-Control": "max-age=0"}) == AGAIN

    def test_only_if_cached(self, runtime: Runtime) -> None:
        backend = FakeBackend()
        client = self.client(runtime, backend, max_retries=3)
        control = {"extra_headers": {"Cache-Control": "only-if-cached"}}
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, **control)
        assert (caught.value.status_code, caught.value.code, backend.requests) == (504, "not_cached", [])
        status(client)
        assert status(client, **control) == HIT

    def test_closed_twice(self, runtime: Runtime) -> None:
        bare = openai.OpenAI(api_key="k", http_client=FakeBackend().client())
        errors = []
        for client in (bare, self.client(runtime)):
            with client:
                status(client)
            client.close()
            with pytest.raises((RuntimeError, openai.APIConnectionError)) as caught:
                status(client, "another")
            errors.append(repr(caught.value))
        assert errors[0] == errors[1]
        assert status(self.client(runtime)) == HIT

    async def test_closed_twice_async(self, runtime: Runtime) -> None:
        client = AsyncOpenAI(api_key="k", http_client=FakeBackend().async_client(), llm_proxy=runtime)
        async with client:
            assert await astatus(client) == MISS
        await client.close()

    def test_connections_are_given_back(self, runtime: Runtime) -> None:
        stream = STREAM_HEAD + chunked(event("a"), event(), DONE)

        def upstream(raw: Raw) -> None:
            raw.send(stream if b'"stream"' in raw.body else raw_response(completion()))

        limits = httpx.Limits(max_connections=1)
        with RawUpstream(upstream) as server, httpx.Client(limits=limits, timeout=2) as http:
            client = OpenAI(api_key="k", base_url=server.url, http_client=http, llm_proxy=runtime, max_retries=0)
            for number in range(3):
                assert status(client, str(number)) == MISS
                list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, seed=number))
            assert len(server.requests) == 6

    async def test_connections_are_given_back_async(self, runtime: Runtime) -> None:
        stream = STREAM_HEAD + chunked(event("a"), event(), DONE)
        connections = []
        for settings in ({}, {"llm_proxy": runtime}):
            with RawUpstream(lambda raw: raw.send(stream)) as server:
                http = httpx.AsyncClient(limits=httpx.Limits(max_connections=1), timeout=2)
                kind = AsyncOpenAI if settings else openai.AsyncOpenAI
                async with kind(
                    api_key="k", base_url=server.url, http_client=http, max_retries=0, **settings
                ) as client:
                    for number in range(3):
                        answer = await client.chat.completions.create(
                            model="m", messages=MESSAGES, stream=True, seed=number
                        )
                        assert [chunk.choices[0].delta.content async for chunk in answer] == ["a", None]
                connections.append(len({id(raw.connection) for raw in server.requests}))
        assert connections[0] == connections[1], "they are used again as the bare client does"

    def test_other_calls_pass(self, runtime: Runtime, events: list[CallEvent]) -> None:
        def upstream(request: Any) -> Any:
            return httpx.Response(200, json={"object": "list", "data": [{"id": "m", "object": "model"}]})

        http = httpx.Client(transport=httpx.MockTransport(upstream))
        client = OpenAI(api_key="k", http_client=http, llm_proxy=runtime)
        assert [model.id for model in client.models.list()] == ["m"]
        assert events == []


class TestSharing:
    """Identical calls at once, over a real socket."""

    def upstream(self, go: threading.Event) -> RawUpstream:
        stream = STREAM_HEAD + chunked(event("one "), event("two"), event(), DONE)

        def handler(raw: Raw) -> None:
            assert go.wait(5)
            raw.send(stream if b'"stream":true' in raw.body else raw_response(completion("one two")))

        return RawUpstream(handler)

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_threads(self, runtime: Runtime, events: list[CallEvent], is_stream: bool) -> None:
        def call(client: OpenAI) -> str:
            answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=is_stream)
            if not isinstance(answer, openai.Stream):
                return answer.choices[0].message.content or ""
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer)

        go = threading.Event()
        with self.upstream(go) as server, ThreadPoolExecutor(6) as pool:
            client = OpenAI(api_key="k", base_url=server.url, llm_proxy=runtime, max_retries=0)
            futures = [pool.submit(call, client) for _ in range(6)]
            until(lambda: server.requests)
            time.sleep(0.05)
            go.set()
            assert {future.result(5) for future in futures} == {"one two"}
            assert len(server.requests) == 1
            client.close()
        assert (
            len(events),
            sum(not event.outcome.is_shared for event in events if event.outcome.status == "miss"),
        ) == (6, 1)

    @pytest.mark.parametrize("is_stream", [False, True])
    async def test_tasks(self, runtime: Runtime, events: list[CallEvent], is_stream: bool) -> None:
        async def call(client: AsyncOpenAI) -> str:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES, stream=is_stream)
            if not isinstance(answer, openai.AsyncStream):
                return answer.choices[0].message.content or ""
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

        go = threading.Event()
        with self.upstream(go) as server:
            async with AsyncOpenAI(api_key="k", base_url=server.url, llm_proxy=runtime, max_retries=0) as client:
                tasks = [asyncio.ensure_future(call(client)) for _ in range(6)]
                await asyncio.to_thread(until, lambda: server.requests)
                tasks[0].cancel()
                go.set()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert isinstance(results[0], asyncio.CancelledError)
                assert set(results[1:]) == {"one two"}
                assert len(server.requests) == 1
        assert len(events) == 6


def gzipped(body: bytes, content_type: str) -> bytes:
    return raw_response(gzip.compress(body), "content-encoding: gzip", content_type=content_type)


STREAM = b"".join([event("zip"), event(), DONE])
PAGE = raw_response(b"<html>maintenance</html>", content_type="text/html")
ERROR = raw_response(b'{"error":{"message":"overloaded","type":"t","code":"c","param":null}}')


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("response", "is_stream", "is_stored"),
    [
        (gzipped(completion("zip"), "application/json"), False, True),
        (gzipped(STREAM, "text/event-stream"), True, True),
        (raw_response(completion("zip")[:-9] + b"}" * 3, content_type="application/json"), False, False),
        (raw_response(gzip.compress(completion())[:-9], "content-encoding: gzip"), False, False),
        (raw_response(b"no gzip", "content-encoding: gzip"), False, False),
        (PAGE, False, False),
        (PAGE, True, False),
        (ERROR, False, False),
        (ERROR, True, False),
        (raw_response(b""), False, False),
        (raw_response(b"null"), False, False),
        (raw_response(b'{"choices":[]}'), False, False),
        (raw_response(b"data: {\n\n", content_type="text/event-stream"), True, False),
        (raw_response(b"data: \xff\n\n" + DONE, content_type="text/event-stream"), True, False),
        (raw_response(b"", status="204 No Content"), False, False),
        (raw_response(b"", "location: /elsewhere", status="302 Found"), False, False),
        (raw_response(completion(), "cache-control: no-store"), False, False),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n", False, False),
        (b"nonsense\r\n\r\n", False, False),
    ],
)
def test_whatever_an_upstream_sends_is_what_the_bare_client_makes_of_it(
    runtime: Runtime, response: bytes, is_stream: bool, is_stored: bool, is_async: bool
) -> None:
    def handler(raw: Raw) -> None:
        raw.send(response if len(upstream.requests) == 1 else raw_response(completion("after")))

    seen = []
    for settings in ({}, {"llm_proxy": runtime}):
        with RawUpstream(handler) as upstream:
            seen.append(_seen(upstream.url, is_stream, is_async, settings))
    assert seen[0] == seen[1]
    assert runtime.cache is not None
    assert runtime.cache.stats().entries == is_stored + 1
    runtime.cache._store.remove(runtime.cache._store.keys())


def _seen(url: str, is_stream: bool, is_async: bool, settings: Any) -> Any:
    """What the client makes of an upstream's answer, and that the next call works."""
    options: Any = {"base_url": url, "api_key": "k", "max_retries": 0, "timeout": 5}
    if is_async:
        return asyncio.run(_aseen(is_stream, {**options, **settings}))
    with (OpenAI if settings else openai.OpenAI)(**options, **settings) as client:
        try:
            answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=is_stream)
            seen = _told(list(answer) if isinstance(answer, openai.Stream) else answer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, both must raise it
            seen = _told(exc)
        assert ask(client, "the next").parse().choices[0].message.content == "after"
    return seen


async def _aseen(is_stream: bool, options: Any) -> Any:
    async with (AsyncOpenAI if "llm_proxy" in options else openai.AsyncOpenAI)(**options) as client:
        try:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES, stream=is_stream)
            seen = _told([chunk async for chunk in answer] if isinstance(answer, openai.AsyncStream) else answer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, both must raise it
            seen = _told(exc)
        assert (await ask(client, "the next")).parse().choices[0].message.content == "after"
    return seen


def _told(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Exception):
        return type(value), str(value), getattr(value, "status_code", None), type(value.__cause__)
    return type(value), str(value)


class TestBadInput:
    """Whatever a caller sends, the upstream gets what it would get anyway, and the caller its answer."""

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"null",
            b'{"model":"m"}',
            b'{"model":"m","messages":[]}',
            b'{"model":"m","messages":{}}',
            b'{"model":["m"],"messages":[{"role":"user","content":"hi"}]}',
            b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
            b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
            b'{"model":"m","messages":[{"role":"user","content":["\\ud800",7,null,{}]}]}',
            b'{"model":"m","messages":[{"role":7,"content":{"a":[]}}],"temperature":"hot","n":"two","stream":"yes"}',
            b'{"model":"m","messages":[{}],"n":-1,"stop":{},"logprobs":[],"stream_options":7}',
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":1e999}',
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"n":1' + b"0" * 5000 + b"}",
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + b'{"y":' * 150 + b"1" + b"}" * 151,
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
        ],
    )
    def test_raw_bodies(self, runtime: Runtime, body: bytes) -> None:
        refused = raw_response(b'{"error":{"message":"bad","type":"t","code":null,"param":null}}', status="400 Bad")
        seen = []
        for settings in ({}, {"llm_proxy": runtime}):
            with RawUpstream(lambda raw: raw.send(refused)) as upstream:
                kind = OpenAI if settings else openai.OpenAI
                with kind(base_url=upstream.url, api_key="k", max_retries=0, **settings) as client:
                    response = client._client.post(f"{upstream.url}/chat/completions", content=body)
                seen.append((response.status_code, response.content, upstream.requests[0].body))
        assert seen[0] == seen[1] == (400, seen[0][1], body)
        assert runtime.cache is not None
        assert runtime.cache.stats().entries == 0

    @pytest.mark.parametrize(
        "fields",
        [
            {"messages": []},
            {"messages": "hi"},
            {"messages": None},
            {"messages": [{"role": "user", "content": 7}]},
            {"messages": [{"role": "user", "content": "\ud800"}]},
            {"messages": [object()]},
            {"model": None},
            {"model": 7},
            {"temperature": float("nan")},
            {"metadata": {"deep": [[[[]]]]}},
            {"extra_body": {"x": 1}, "extra_query": {"y": "2"}},
        ],
        ids=str,
    )
    def test_typed_calls(self, runtime: Runtime, fields: Any) -> None:
        refused = raw_response(b'{"error":{"message":"bad","type":"t","code":null,"param":null}}', status="400 Bad")
        seen = []
        for settings in ({}, {"llm_proxy": runtime}):
            with RawUpstream(lambda raw: raw.send(refused)) as upstream:
                kind = OpenAI if settings else openai.OpenAI
                with kind(base_url=upstream.url, api_key="k", max_retries=0, **settings) as client:
                    with pytest.raises(Exception) as caught:  # noqa: PT011 - both must raise the same
                        client.chat.completions.create(**{"model": "m", "messages": MESSAGES, **fields})
                    sent = [(raw.target, raw.body) for raw in upstream.requests]
                    seen.append((type(caught.value), str(caught.value).partition(" at 0x")[0], sent))
        assert seen[0] == seen[1]

    def test_a_body_of_200_megabytes(self, runtime: Runtime) -> None:
        sizes = []

        def upstream(request: Any) -> Any:
            sizes.append(len(request.content))
            return httpx.Response(413, json={"error": {"message": "too large"}})

        http = httpx.Client(transport=httpx.MockTransport(upstream))
        client = OpenAI(api_key="k", http_client=http, llm_proxy=runtime, max_retries=0)
        with pytest.raises(openai.APIStatusError, match="too large"):
            ask(client, "x" * (200 << 20))
        assert sizes[0] > 200 << 20
        assert status(OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=runtime)) == MISS


def test_one_event_a_call(runtime: Runtime, events: list[CallEvent]) -> None:
    client = OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=runtime)
    ask(client)
    ask(client)
    list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    ask(client, extra_headers={"cache-control": "no-store"})
    assert [(event.outcome.status, event.is_stream) for event in events] == [
        ("miss", False), ("hit", False), ("hit", True), ("bypass", False),
    ]  # fmt: skip


def test_the_package_names_them() -> None:
    assert {"OpenAI", "AsyncOpenAI", "AzureOpenAI", "AsyncAzureOpenAI", "wrap"} <= set(llm_proxy.__all__)
    assert json.loads(completion())["object"] == "chat.completion"
