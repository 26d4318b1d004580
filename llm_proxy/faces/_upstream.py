"""Requests to the configured servers: over aiohttp where it is installed, else over the openai package's HTTP library.

The library of the openai package also takes what comes in pieces (uploads), and what the environment sends through a
proxy.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_proxy.errors import BackendError, BackendTimeout, BackendUnavailable, MissingDependencyError, WireError
from llm_proxy.types import Head, Outgoing

from ._aiohttp import AiohttpPool
from ._asgi_io import Refused
from ._headers import end_to_end
from ._http import alone, httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

    from llm_proxy.config import BackendConfig
    from llm_proxy.types import HeaderList

__all__ = ["NO_WEBSOCKETS", "Upstream", "passed_url", "translated"]

NO_WEBSOCKETS = "websockets need aiohttp and websockets, and a direct way: pip install 'llm-proxy[proxy]'"
"""Said where a websocket can't be passed."""
_LONGEST_WAIT_S = 600.0  # what the openai client itself allows
_CONNECT_S = 10.0
_KEEPALIVE_S = 30.0
_DIRECT = ("all://127.0.0.1", "all://localhost", "all://[::1]")
_STATUSES = range(200, 600)
_NO_BODY = frozenset({204, 304})
_TARGET = re.compile(r"/[\x21-\x7e]*")
# A segment of one or two dots, plain or encoded, with any of the separators that a server may see in it.
_DOTS = re.compile(r"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=$|[/\\;?#]|%2f|%5c)", re.IGNORECASE)


class Upstream:
    """Sends requests; one pool of connections for all backends. To be used in one event loop.

    Args:
        transport: What to send with; by default aiohttp where it is installed, else the family's own, and what the
            environment's ``HTTPS_PROXY`` and the like ask for, except to this machine.
        client: ``aiohttp`` or ``httpx`` to have this one; ``auto``: as said.

    Raises:
        MissingDependencyError: aiohttp is asked for and not installed.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, *, client: str = "auto") -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=_KEEPALIVE_S)
        # A client knows the environment's proxies; it is not asked to send, for it would keep callers' cookies.
        self._client: Any = httpx.AsyncClient(
            transport=transport, limits=limits, trust_env=transport is None, mounts=dict.fromkeys(_DIRECT)
        )
        self._wants_aiohttp = transport is None and _has_aiohttp(client)
        self._pool: AiohttpPool | None = None
        self._is_direct: dict[str, bool] = {}

    async def send(
        self, outgoing: Outgoing, *, method: str = "POST", content: AsyncIterator[bytes] | None = None
    ) -> Head:
        """Send a request; returns when the answer's headers are there.

        Args:
            outgoing: Where to and what; its URL is absolute.
            method: HTTP method.
            content: The body as it comes in, instead of ``outgoing.body``.

        Raises:
            BackendError: No answer, none in time, or one that is not HTTP.
            Exception: Whatever ``content`` raises.
        """
        try:
            if content is None and self._wants_aiohttp and self._may_go_quickly(outgoing):
                status, rows, body = await self._quickly(outgoing, method)
            else:
                status, rows, body = await self._by_family(outgoing, method, content)
        except httpx.TransportError as exc:
            raise translated(exc, outgoing.backend) from exc
        if status not in _STATUSES:
            await body.aclose()
            raise WireError(f"backend {outgoing.backend!r} answered with the status {status}")
        return Head(status, end_to_end(rows, keep_length=status not in _NO_BODY), body)

    async def websocket(
        self, outgoing: Outgoing, protocols: Sequence[str], *, most_bytes: int
    ) -> tuple[aiohttp.ClientWebSocketResponse, HeaderList]:
        """Open a WebSocket; returns it and the end-to-end headers of the handshake's answer.

        Args:
            outgoing: Where to; its URL is absolute, and ``http`` or ``https``.
            protocols: Subprotocols to offer.
            most_bytes: Longest message to take in.

        Raises:
            BackendError: No answer, or none in time.
            Refused: The backend refuses, with its status; or there is nothing here to connect with (501).
        """
        if not self._wants_aiohttp or not self._may_go_quickly(outgoing):
            raise Refused(501, NO_WEBSOCKETS, code="websockets_missing")
        import aiohttp

        try:
            socket, rows = await self._own_pool().websocket(
                outgoing.url,
                outgoing.headers,
                protocols,
                wait_s=outgoing.timeout_s or _LONGEST_WAIT_S,
                most_bytes=most_bytes,
            )
        except aiohttp.WSServerHandshakeError as exc:
            status = exc.status if exc.status >= 400 else 502
            message = f"backend {outgoing.backend!r} refuses this websocket ({exc.status})"
            raise Refused(status, message, code="websocket_refused") from exc
        except httpx.TransportError as exc:
            raise translated(exc, outgoing.backend) from exc
        return socket, end_to_end(rows)

    async def aclose(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()
        await self._client.aclose()

    async def _quickly(self, outgoing: Outgoing, method: str) -> tuple[int, Any, Any]:
        wait_s = outgoing.timeout_s or _LONGEST_WAIT_S
        return await self._own_pool().send(method, outgoing.url, outgoing.headers, outgoing.body, wait_s)

    def _own_pool(self) -> AiohttpPool:
        if self._pool is None:  # here, for it belongs to the loop that it is made in
            self._pool = AiohttpPool(keepalive_s=_KEEPALIVE_S, connect_s=_CONNECT_S)
        return self._pool

    async def _by_family(
        self, outgoing: Outgoing, method: str, content: AsyncIterator[bytes] | None
    ) -> tuple[int, Any, Any]:
        wait_s = outgoing.timeout_s or _LONGEST_WAIT_S
        url, extensions = _address(outgoing.url)
        timeout = {"connect": min(_CONNECT_S, wait_s), "read": wait_s, "write": wait_s, "pool": wait_s}
        rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in outgoing.headers]
        if method == "HEAD":  # a backend that sends a body even so would have it taken for the next answer
            rows.append((b"connection", b"close"))
        request = httpx.Request(
            method,
            url,
            headers=rows,
            content=content or outgoing.body or None,
            extensions={**extensions, "timeout": timeout},
        )
        response = alone(await self._client._transport_for_url(url).handle_async_request(request))
        return response.status_code, response.headers.raw, response.stream

    def _may_go_quickly(self, outgoing: Outgoing) -> bool:
        """Whether no proxy of the environment stands between, and the headers go as they came: aiohttp sends UTF-8."""
        origin = "/".join(outgoing.url.split("/", 3)[:3])
        if origin not in self._is_direct:
            transport = self._client._transport_for_url(_address(origin)[0])
            self._is_direct[origin] = transport is self._client._transport
        return self._is_direct[origin] and all(value.isascii() for _, value in outgoing.headers)


def _has_aiohttp(client: str) -> bool:
    if client == "httpx":
        return False
    is_there = importlib.util.find_spec("aiohttp") is not None
    if client == "aiohttp" and not is_there:
        raise MissingDependencyError('server.client "aiohttp" is not installed: pip install "llm-proxy[proxy]"')
    return is_there


def translated(exc: Exception, backend: str = "") -> BackendError:
    """The error of ours that says the same as one of the HTTP library."""
    name = f"backend {backend!r}" if backend else "the upstream"
    reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, httpx.TimeoutException):
        return BackendTimeout(f"{name} did not answer in time ({reason})")
    if isinstance(exc, (httpx.ProtocolError, httpx.DecodingError)):
        # Not what it says: the HTTP libraries quote what they could not read.
        return WireError(f"{name} broke the protocol ({type(exc).__name__})")
    return BackendUnavailable(f"{name} can't be reached ({reason})")


def passed_url(backend: BackendConfig, path: str, query: str) -> str:
    """Where a path of the proxy leads to: ``/v1/...`` below the backend's base URL, the rest beside it.

    Args:
        backend: The backend; nothing in ``path`` can lead to another host.
        path: Path as it came, still encoded.
        query: Query string as it came, or empty.

    Raises:
        Refused: The path could leave the backend's base URL, or is none (400).
    """
    if not _TARGET.fullmatch(path + query) or _DOTS.search(path):
        raise Refused(400, "the path must begin with '/', hold printable ASCII only and no dot segments")
    base_url = backend.base_url
    if path == "/v1" or path.startswith("/v1/"):
        path = path.removeprefix("/v1")
    else:
        base_url = base_url.removesuffix("/v1")
    return base_url + path + (f"?{query}" if query else "")


@lru_cache(maxsize=256)
def _address(url: str) -> tuple[httpx.URL, dict[str, Any]]:
    """A parsed URL, and what keeps its path from being encoded anew where the library would do that."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    target = "/" + url.removeprefix(origin).removeprefix("/")
    try:
        parsed = httpx.URL(origin + target)
    except httpx.InvalidURL:
        parsed = httpx.URL(origin)
    is_same = parsed.raw_path == target.encode()
    return parsed, {} if is_same else {"target": target.encode()}
