"""Transports for any client that takes an ``http_client``: what the engine answers goes through it, the rest passes.

Example:
    >>> import httpx2
    >>> from llm_proxy import ProxyTransport
    >>> client = httpx2.Client(transport=ProxyTransport())
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from llm_proxy.backends.openai_compatible import headers_for
from llm_proxy.errors import WireError
from llm_proxy.forking import on_fork
from llm_proxy.types import Head, Outgoing
from llm_proxy.wire.apis import parse_call

from . import feedback
from ._apis import api_at
from ._engine import runtime_for
from ._headers import decoded, merged
from ._http import alone, byte_streams, httpx, module_of, renew
from ._kept import about, keeper_of

if TYPE_CHECKING:
    from llm_proxy.drive import Served
    from llm_proxy.engine.effects import Flow
    from llm_proxy.runtime import Runtime, Settings
    from llm_proxy.types import ChatRequest, HeaderList

    from ._kept import About

__all__ = ["AsyncProxyTransport", "ProxyTransport", "users_of"]

_LIMIT_BYTES = 64 << 20  # no provider takes as much: a larger body is passed on unread
_LENGTHS = (b"content-length", b"transfer-encoding")


class ProxyTransport(httpx.BaseTransport):
    """Answers what it can from the cache and forwards the rest.

    Args:
        inner: What sends requests; by default the family's own transport.
        llm_proxy: Settings: a `Config`, plain data of the same shape, the path of a TOML file, a `Runtime`, or
            None for ``llm-proxy.toml`` and the environment.

    Raises:
        ConfigError: A setting is wrong.
    """

    def __init__(self, inner: httpx.BaseTransport | None = None, *, llm_proxy: Settings = None) -> None:
        self.runtime = runtime_for(llm_proxy)
        self.inner: Any = inner
        _used.add(self)
        on_fork(_in_child)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer or forward one request; the outcome is in ``response.extensions["llm_proxy"]``."""
        inner = self.inner = self.inner or module_of(request).HTTPTransport()
        if feedback.HEADER in request.headers:
            said = feedback.heard(self.runtime, *_taken(request))
            return _told(self.handle_request(request), said)
        api = _api_of(request)
        call = _parsed(request, request.read(), self.runtime, api) if api else None
        if call is None:
            one = _about(request)
            if one is not None:
                request.read()
                request = self.runtime.driver.run(_turned(request, one, self.runtime))
            response: httpx.Response = alone(inner.handle_request(request))
            return response

        def send(outgoing: Outgoing) -> Head:
            return _head(alone(inner.handle_request(_rebuilt(request, outgoing))))

        served = self.runtime.driver.serve(self.runtime.engine.answer(call), send, module_of(request).ReadError)
        return _response(request, served, 0)

    def close(self) -> None:
        """Close the inner transport; the cache stays open for the other clients of this process."""
        if self.inner is not None:
            self.inner.close()

    def __enter__(self) -> Self:
        if self.inner is not None:
            self.inner.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self.inner is not None:
            self.inner.__exit__(*exc_info)


class AsyncProxyTransport(httpx.AsyncBaseTransport):
    """The same for async clients; see `ProxyTransport`."""

    def __init__(self, inner: httpx.AsyncBaseTransport | None = None, *, llm_proxy: Settings = None) -> None:
        self.runtime = runtime_for(llm_proxy)
        self.inner: Any = inner
        _used.add(self)
        on_fork(_in_child)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer or forward one request; the outcome is in ``response.extensions["llm_proxy"]``."""
        inner = self.inner = self.inner or module_of(request).AsyncHTTPTransport()
        if feedback.HEADER in request.headers:
            said = await feedback.heard_async(self.runtime, *_taken(request))
            return _told(await self.handle_async_request(request), said)
        api = _api_of(request)
        call = _parsed(request, await request.aread(), self.runtime, api) if api else None
        if call is None:
            one = _about(request)
            if one is not None:
                await request.aread()
                request = await self.runtime.async_driver.run(_turned(request, one, self.runtime))
            response: httpx.Response = alone(await inner.handle_async_request(request))
            return response

        async def send(outgoing: Outgoing) -> Head:
            return _head(alone(await inner.handle_async_request(_rebuilt(request, outgoing))))

        broken = module_of(request).ReadError
        served = await self.runtime.async_driver.serve(self.runtime.engine.answer(call), send, broken)
        return _response(request, served, 1)

    async def aclose(self) -> None:
        """Close the inner transport; the cache stays open for the other clients of this process."""
        if self.inner is not None:
            await self.inner.aclose()

    async def __aenter__(self) -> Self:
        if self.inner is not None:
            await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if self.inner is not None:
            await self.inner.__aexit__(*exc_info)


_used: WeakSet[ProxyTransport | AsyncProxyTransport] = WeakSet()


def users_of(runtime: Runtime) -> list[ProxyTransport | AsyncProxyTransport]:
    """The transports of this process that go through an engine, as long as somebody keeps them."""
    return [transport for transport in list(_used) if transport.runtime is runtime]


def _in_child(is_quiet: bool) -> None:
    for inner in {id(transport.inner): transport.inner for transport in list(_used)}.values():
        renew(inner)


def _taken(request: httpx.Request) -> tuple[str, dict[str, str]]:
    """Take the feedback out of a request: it is for nobody further on. Its value, and all headers."""
    headers = merged(decoded(request.headers.raw))
    del request.headers[feedback.HEADER]
    return headers[feedback.HEADER], headers


def _told(response: httpx.Response, said: str) -> httpx.Response:
    response.headers[feedback.HEADER] = said
    return response


def _api_of(request: httpx.Request) -> str:
    return api_at(request.url.path) if request.method == "POST" else ""


def _parsed(request: httpx.Request, raw: bytes, runtime: Runtime, api: str) -> ChatRequest | None:
    """The call, or None when the body is not one: upstream then says what is wrong with it."""
    if len(raw) > _LIMIT_BYTES:
        return None
    timeout = request.extensions.get("timeout") or {}
    try:
        return parse_call(
            raw,
            api=api,
            headers=merged(decoded(request.headers.raw)),
            endpoint=str(request.url),
            received_s=runtime.clock.time(),
            timeout_s=timeout.get("read"),
        )
    except WireError:
        return None


def _about(request: httpx.Request) -> About | None:
    return about(request.method, request.url.raw_path.partition(b"?")[0].decode("latin-1"))


def _turned(request: httpx.Request, one: About, runtime: Runtime) -> Flow[httpx.Request]:
    """A request about a response as its backend gets it; the request itself where that is not known."""
    headers = merged(decoded(request.headers.raw))
    name = yield from keeper_of(runtime, one, headers)
    if not name:
        return request
    backend, query = runtime.config.backends[name], request.url.query.decode("latin-1")
    outgoing = Outgoing(
        url=backend.base_url + one.path + (f"?{query}" if query else ""),
        headers=headers_for(backend, headers.items(), is_default=name == runtime.selector.default_backend),
        body=request.content,
        backend=name,
        timeout_s=backend.timeout_s,
    )
    return _rebuilt(request, outgoing)


def _rebuilt(request: httpx.Request, outgoing: Outgoing) -> httpx.Request:
    """The request to send: the caller's own object unless the engine changed where it goes or what it says."""
    if not outgoing.url and outgoing.body == request.content and outgoing.timeout_s is None:
        return request
    headers: Any = _raw(outgoing.headers)
    if not outgoing.url:
        headers = [row for row in request.headers.raw if row[0].lower() != b"content-length"]
    extensions = dict(request.extensions)
    if outgoing.timeout_s is not None:
        waits, limit_s = extensions.get("timeout", {}), outgoing.timeout_s
        extensions["timeout"] = {**waits, "read": limit_s, "connect": min(waits.get("connect") or limit_s, limit_s)}
    rebuilt: httpx.Request = module_of(request).Request(
        request.method, outgoing.url or request.url, headers=headers, content=outgoing.body, extensions=extensions
    )
    return rebuilt


def _head(response: httpx.Response) -> Head:
    rows = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw]
    return Head(response.status_code, rows, response.stream, response.extensions)


def _response(request: httpx.Request, served: Served, side: int) -> httpx.Response:
    module = module_of(request)
    headers = _raw(served.headers)
    if served.rest is None:
        stream = module.ByteStream(served.body)
        if not any(name in _LENGTHS for name, _ in headers):
            headers.append((b"content-length", str(len(served.body)).encode()))
    elif isinstance(served.rest, (module.SyncByteStream, module.AsyncByteStream)):
        stream = served.rest
    else:
        rest = (_chained, _achained)[side](served.body, served.rest) if served.body else served.rest
        stream = byte_streams(module)[side](rest, served.close)
    response: httpx.Response = module.Response(
        served.status, headers=headers, stream=stream, extensions={**served.extensions, "llm_proxy": served.outcome}
    )
    return response


def _raw(headers: HeaderList) -> list[tuple[bytes, bytes]]:
    # The family encodes text as ASCII and would refuse headers that it received itself, so it gets bytes.
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


async def _achained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
