"""Requests over aiohttp, where it is installed: the httpx family spends several times as long on each."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ._http import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from aiohttp.client_proto import ResponseHandler

    from llm_proxy.types import HeaderList

__all__ = ["AiohttpBody", "AiohttpPool", "family_error"]

_MAX_LINE_BYTES = 64 << 10
_HEARTBEAT_S, _CLOSE_S = 30.0, 5.0  # of a WebSocket: between pings, and for the other side to say goodbye
_BUFFER_BYTES = 64 << 10  # of one answer: reading stops at twice as many until its caller has taken them
_STATUS_LINE, _END_OF_HEADERS, _LENGTH = b"HTTP/", b"\r\n\r\n", b"\r\ncontent-length:"
_STATUS = slice(9, 12)  # of a status line, behind "HTTP/1.1 "
_FINAL = 200  # what has a lower status comes before an answer
_MADE_BY_CLIENT = ("user-agent", "accept", "accept-encoding", "content-type")  # what the library adds unasked


class AiohttpPool:
    """Connections to all backends, kept alive; to be made and used in one event loop.

    Nothing is added to a request, followed, decoded or remembered: no cookie, no redirect, no netrc, no proxy of the
    environment (what those ask for goes another way, see `llm_proxy.faces._upstream.Upstream`).

    Args:
        keepalive_s: How long an idle connection is kept, seconds.
        connect_s: Longest wait for a connection.
    """

    def __init__(self, *, keepalive_s: float, connect_s: float) -> None:
        import aiohttp

        self._loop = asyncio.get_running_loop()
        self._connect_s = connect_s
        self._tls: ssl.SSLContext | None = None
        connector: Any = aiohttp.TCPConnector(limit=0, keepalive_timeout=keepalive_s)
        connector._factory = partial(_by_parts(), loop=self._loop)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_MADE_BY_CLIENT,
            read_bufsize=_BUFFER_BYTES,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
        )

    async def send(
        self, method: str, url: str, headers: HeaderList, body: bytes, wait_s: float
    ) -> tuple[int, tuple[tuple[bytes, bytes], ...], AiohttpBody]:
        """Send a request; returns status, headers and body of the answer, when the headers are there.

        Args:
            method: HTTP method.
            url: Absolute URL, sent as it is.
            headers: All headers, names in lower case.
            body: What is sent.
            wait_s: Longest wait for a byte, seconds.

        Raises:
            httpx.TransportError: As the httpx family would.
        """
        try:
            response = await self._session.request(
                method,
                _parsed(url),
                headers=headers,  # a list: names may be there twice
                data=body or None,
                allow_redirects=False,
                timeout=_timeout(min(self._connect_s, wait_s), wait_s),
                ssl=self._context() if url.startswith("https:") else True,
            )
        except (OSError, ValueError, _client_error()) as exc:
            raise family_error(exc) from exc
        _watch(response)
        return response.status, response.raw_headers, AiohttpBody(response)

    async def websocket(
        self, url: str, headers: HeaderList, protocols: Sequence[str], *, wait_s: float, most_bytes: int
    ) -> tuple[aiohttp.ClientWebSocketResponse, tuple[tuple[bytes, bytes], ...]]:
        """Open a WebSocket; returns it and the headers of the handshake's answer.

        Args:
            url: Absolute URL, ``http`` or ``https``, sent as it is.
            headers: All headers but the handshake's own, names in lower case.
            protocols: Subprotocols to offer.
            wait_s: Longest wait for the answer, seconds.
            most_bytes: Longest message to take in.

        Raises:
            aiohttp.WSServerHandshakeError: The server refuses.
            httpx.TransportError: As the httpx family would.
        """
        import aiohttp

        try:
            async with asyncio.timeout(min(self._connect_s, wait_s)):
                socket = await self._session.ws_connect(
                    _parsed(url),
                    headers=headers,
                    protocols=protocols,
                    max_msg_size=most_bytes,
                    heartbeat=_HEARTBEAT_S,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                    ssl=self._context() if url.startswith("https:") else True,
                )
        except aiohttp.WSServerHandshakeError:
            raise
        except (OSError, ValueError, _client_error()) as exc:
            raise family_error(exc) from exc
        return socket, socket._response.raw_headers

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    def __del__(self) -> None:
        # An application may be mounted where nobody tells it that the end has come. The sockets went with the loop.
        if hasattr(self, "_session") and not self._session.closed and self._loop.is_closed():
            connector: Any = self._session.connector
            self._session.detach()
            closing = connector.close()  # at once, whether or not anybody awaits what it gives
            getattr(closing, "close", closing.__await__)()

    def _context(self) -> ssl.SSLContext:
        # The family's own: certificates are trusted or not whichever library asks.
        if self._tls is None:
            context: ssl.SSLContext = httpx.create_ssl_context()
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls


class AiohttpBody:
    """The bytes of an answer as they come, not decoded; at most 128 KiB wait to be read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._read = response.content.readany

    def __aiter__(self) -> AiohttpBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._read()
        except (OSError, _client_error()) as exc:
            chunk = self._left()
            if not chunk:
                raise family_error(exc) from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def _left(self) -> bytes:
        """What came before an answer broke off: aiohttp itself would keep it back, and say that it broke off."""
        taken: bytes = self._response.content._read_nowait(-1)
        return taken

    async def aclose(self) -> None:
        """Give the connection back where all was read, else close it; calling it again is safe."""
        self._response.close()


@lru_cache(maxsize=1)
def _once() -> type[ResponseHandler]:
    from aiohttp.client_proto import ResponseHandler

    class Once(ResponseHandler):
        """Takes one answer a request.

        What comes once an answer is whole, in its last packet or later, aiohttp would take for the answer to the next
        request on the connection, which may be somebody else's.
        """

        _is_answered = False  # the request, at least in part

        def set_response_params(self, **params: Any) -> None:
            """Another request takes the connection."""
            self._is_answered = False
            super().set_response_params(**params)

        def feed_data(self, data: Any, *size: int) -> None:
            """The headers of an answer came; a second one to the same request is nobody's."""
            if self._is_answered:
                self._give_up()
                return
            self._is_answered = data[0].code >= _FINAL
            super().feed_data(data, *size)

        def _give_up(self) -> None:
            """Close the connection: at once where its answer was taken, and it may wait for the next request."""
            self.force_close()
            if not self._buffer:
                self.close()

        def data_received(self, data: bytes) -> None:
            if not self._is_answered or (self._payload is not None and not self._payload.is_eof()):
                super().data_received(data)
            elif data.strip(b"\r\n"):  # empty lines are to be ignored: RFC 9112, section 2.2
                self._give_up()

    return Once


@lru_cache(maxsize=1)
def _by_parts() -> type[ResponseHandler]:
    class ByParts(_once()):  # type: ignore[misc]
        """Reads the headers of an answer apart from what comes with them in one packet.

        Where the answer is followed by what is no answer, aiohttp's parser raises and gives nothing of that packet. The
        answer is whole, and was paid for. Read apart, it is there by then; its connection is closed all the same.
        Before its headers may come those of others (``103 Early Hints``), and in several packets.
        """

        _heads: _Heads | None = None

        def data_received(self, data: bytes) -> None:
            if not data:  # aiohttp goes on with what it has, and held back while nobody read
                super().data_received(data)
                return
            while data and (self._heads is not None or data.startswith(_STATUS_LINE)):
                self._heads = self._heads or _Heads(data)
                end = self._heads.end(data, is_bare=self._skip_payload)
                if not end:
                    break
                super().data_received(data[:end])
                if self.exception() is not None:  # they can't be read: nor what follows
                    return
                data, is_interim = data[end:], self._heads.are_interim
                self._heads = None
                if not is_interim:
                    break
            if data:
                super().data_received(data)

    return ByParts


class _Heads:
    """Headers that have begun; a body that happens to begin like them is cut once more, and else the same.

    Args:
        data: The packet that begins with them.
    """

    def __init__(self, data: bytes) -> None:
        status = data[_STATUS]
        self.are_interim = status.startswith(b"1") and status != b"101"
        self._tail = b""

    def end(self, data: bytes, *, is_bare: bool) -> int:
        """Where to cut a packet: behind them, or behind all where nothing but their answer follows; 0: they go on.

        Args:
            data: The packet.
            is_bare: Whether no body belongs to them, whatever length they say: ``HEAD`` was asked.
        """
        seen = self._tail + data
        end = seen.find(_END_OF_HEADERS) + len(_END_OF_HEADERS)
        if end < len(_END_OF_HEADERS):
            self._tail = seen[1 - len(_END_OF_HEADERS) :]
            return 0
        end -= len(self._tail)
        _, _, length = data[:end].lower().partition(_LENGTH)  # most answers say it: one look, and they are read at once
        digits = length.partition(b"\r\n")[0].strip()
        is_alone = digits.isdigit() and end + int(digits[:18]) >= len(data)
        return len(data) if is_alone and not (self.are_interim or is_bare) else end


def _watch(response: aiohttp.ClientResponse) -> None:
    """Have whoever reads an answer hear of it when its connection ends in the middle of a broken chunk."""
    protocol: Any = response.connection.protocol if response.connection is not None else None
    closed = getattr(protocol, "closed", None)
    if closed is not None:
        closed.add_done_callback(partial(_woken, response.content))


def _woken(content: aiohttp.StreamReader, closed: asyncio.Future[None]) -> None:
    import aiohttp

    if not closed.cancelled():
        closed.exception()  # looked at: else asyncio says that nobody did
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))


def family_error(exc: Exception) -> Exception:
    """The error of the httpx family that says the same as one of aiohttp's."""
    import aiohttp

    rows: tuple[tuple[type[Exception], Any], ...] = (
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (TimeoutError, httpx.ReadTimeout),  # aiohttp's other time-outs are of this kind
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
        (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
        (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
        (aiohttp.ClientConnectionError, httpx.ReadError),
        (OSError, httpx.ReadError),
        (ValueError, httpx.LocalProtocolError),
    )
    family = next((kind for known, kind in rows if isinstance(exc, known)), httpx.RemoteProtocolError)
    made: Exception = family(_said(exc))
    return made


def _said(exc: Exception) -> str:
    """What an error says, without where the backend is."""
    import aiohttp

    if isinstance(exc, (TimeoutError, aiohttp.InvalidURL)):
        return ""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return "no connection could be made"
    if isinstance(exc, OSError):
        return os.strerror(exc.errno) if exc.errno else "the connection broke"
    return type(exc).__name__  # not what it says: that quotes what could not be read


@lru_cache(maxsize=1)
def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


@lru_cache(maxsize=256)
def _parsed(url: str) -> Any:
    import yarl

    return yarl.URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect_s: float, wait_s: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=wait_s)
