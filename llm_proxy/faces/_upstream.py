"""Requests to the configured servers, over the HTTP library of the installed openai package."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_proxy.backends.openai_compatible import HOP_BY_HOP
from llm_proxy.errors import BackendError, BackendTimeout, BackendUnavailable, WireError
from llm_proxy.types import Head, HeaderList, Outgoing

from ._asgi_io import Refused
from ._http import httpx

if TYPE_CHECKING:
    from llm_proxy.config import BackendConfig

__all__ = ["Upstream", "end_to_end", "passed_url", "translated"]

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
    """Sends requests; one connection pool for all backends.

    Args:
        transport: What to send with; by default the family's own, and what the environment's ``HTTPS_PROXY`` and
            the like ask for, except to this machine.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=_KEEPALIVE_S)
        # A client knows the environment's proxies; it is not asked to send, for it would keep callers' cookies.
        self._client: Any = httpx.AsyncClient(
            transport=transport, limits=limits, trust_env=transport is None, mounts=dict.fromkeys(_DIRECT)
        )

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
        wait_s = outgoing.timeout_s or _LONGEST_WAIT_S
        url, extensions = _address(outgoing.url)
        timeout = {"connect": min(_CONNECT_S, wait_s), "read": wait_s, "write": wait_s, "pool": wait_s}
        request = httpx.Request(
            method,
            url,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in outgoing.headers],
            content=content or outgoing.body or None,
            extensions={**extensions, "timeout": timeout},
        )
        try:
            response = await self._client._transport_for_url(url).handle_async_request(request)
        except httpx.TransportError as exc:
            raise translated(exc, outgoing.backend) from exc
        if response.status_code not in _STATUSES:
            await response.aclose()
            raise WireError(f"backend {outgoing.backend!r} answered with the status {response.status_code}")
        headers = end_to_end(response.headers.raw, keep_length=response.status_code not in _NO_BODY)
        return Head(response.status_code, headers, response.stream)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def translated(exc: Exception, backend: str = "") -> BackendError:
    """The error of ours that says the same as one of the HTTP library."""
    name = f"backend {backend!r}" if backend else "the upstream"
    reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, httpx.TimeoutException):
        return BackendTimeout(f"{name} did not answer in time ({reason})")
    if isinstance(exc, (httpx.ProtocolError, httpx.DecodingError)):
        return WireError(f"{name} broke the protocol ({reason})")
    return BackendUnavailable(f"{name} can't be reached ({reason})")


def end_to_end(rows: Iterable[tuple[bytes, bytes]], *, keep_length: bool = False) -> HeaderList:
    """Headers as a proxy passes them on: names in lower case, without those that concern one connection only.

    Args:
        rows: Headers as received, in any case.
        keep_length: Leave ``content-length`` in, unless the body came in chunks.

    Source: RFC 9110 sections 7.6.1 and 10.1.1, RFC 9112 section 6.3.
    """
    # Space around a value is no part of it (RFC 9112 section 5.1), and some parsers leave it there.
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")) for name, value in rows]
    dropped = {"expect", *HOP_BY_HOP}
    for name, value in headers:
        if name == "connection":
            dropped.update(token.strip().lower() for token in value.split(","))
    if keep_length and all(name != "transfer-encoding" for name, _ in headers):
        dropped.discard("content-length")
    return [row for row in headers if row[0] not in dropped]


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
