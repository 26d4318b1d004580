"""Moving bytes over ASGI: a request's body, noticing that its caller has left, and answers that may break off."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llm_proxy.engine.refusing import OWN_HEADERS
from llm_proxy.wire.chat import error_body
from llm_proxy.wire.sse import encode_event

from ._bodies import Reading, Unfinished
from ._http import httpx

if TYPE_CHECKING:
    from llm_proxy.drive import Served
    from llm_proxy.holders import Holder
    from llm_proxy.types import HeaderList

__all__ = [
    "BROKEN", "OWN_HEADERS", "WHOLE", "Caller", "EventTail", "Receive", "Refused", "Scope", "Send", "Whole",
    "is_foreign_page", "is_local", "relay",
]  # fmt: skip

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Whole = Callable[[int, bytes, bytes], bool]
"""Sends a status, header lines and a body at once, or says that it can't."""

logger = logging.getLogger("llm_proxy")
BROKEN = (httpx.TransportError, ConnectionError)
"""What reading an upstream's answer may raise; the second of them where the reading itself was interrupted."""
WHOLE = "llm_proxy.whole"
"""Among the extensions of a scope: what sends an answer with one write, see `llm_proxy.faces._connections`."""
_GRACE_S = 0.05  # most hits are over by then, and a listener for each would cost more than the hit
_MAX_HELD_BYTES = 64 << 10
_ANY_BYTES = 1 << 62
_LEAST_BYTES_PER_S = 1024  # of a body that is passed on, beyond the time that any may take
_NUMBER = re.compile(rb'"sequence_number": ?(\d{1,9})\b')
_FOR_THE_SERVER = frozenset({"connection", "transfer-encoding"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 section 5.6.2, in lower case
_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Refused(Exception):
    """The proxy itself answers with an error.

    Args:
        status: HTTP status code.
        message: What is wrong and what to do.
        code: Machine-readable name.
        must_close: Whether the connection can't be used any further.
        headers: More of them.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        must_close: bool = False,
        headers: HeaderList = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.must_close, self.headers = status, code, must_close, headers
        self.holder: Holder | None = None
        """Who holds the issued key that asks too often."""


class Caller:
    """Who sent the request that the current task handles.

    Once the body was read, `watch` cancels the task when the caller leaves; ``is_gone`` then says why.

    Args:
        receive: ASGI's.
        unfinished: The bodies of others that come in.
        most_s: Longest time for a body to come in; None: any.
    """

    def __init__(self, receive: Receive, *, unfinished: Unfinished | None = None, most_s: float | None = None) -> None:
        self._receive, self._unfinished, self._most_s = receive, unfinished, most_s
        self._loop = asyncio.get_running_loop()
        self._handler = asyncio.current_task(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None
        self.is_gone = False
        self.has_sent_all = False

    async def body(self, *, limit_bytes: int, announced: str = "") -> bytes:
        """The request's body, whole.

        Args:
            limit_bytes: Most bytes to take in.
            announced: Value of ``content-length``, or empty.

        Raises:
            Refused: It is too large (413), if it says so before anything is read; it took too long (408), or gave way
                to others (503); or the caller left (499).
        """
        if announced.isdigit() and (len(announced) > 18 or int(announced) > limit_bytes):
            raise _too_large(limit_bytes)
        chunk, more = await self._next()
        if len(chunk) > limit_bytes:
            raise _too_large(limit_bytes)
        return chunk if not more else await self._whole(chunk, limit_bytes)

    async def _whole(self, chunk: bytes, limit_bytes: int) -> bytes:
        """A body that does not come in one piece."""
        unfinished = self._unfinished or Unfinished(_ANY_BYTES)
        parts, more = [chunk], True
        with unfinished.reading() as own:
            try:
                async with asyncio.timeout(self._most_s) as own.until:
                    unfinished.grow(own, len(chunk))
                    while more:
                        chunk, more = await self._next()
                        unfinished.grow(own, len(chunk))
                        if own.held_bytes > limit_bytes and not own.has_given_way:
                            raise _too_large(limit_bytes)
                        parts.append(chunk)
            except TimeoutError:
                raise self._too_late(own) from None
            if own.has_given_way:
                raise self._too_late(own)
        return b"".join(parts)

    def _too_late(self, own: Reading) -> Refused:
        if own.has_given_way:
            message = "too many requests are half sent, and this one began first; send it again"
            return Refused(503, message, code="too_many_unfinished", must_close=True, headers=(("retry-after", "1"),))
        return Refused(408, f"the request's body did not come in whole within {self._most_s:g} s", must_close=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The request's body as it comes in.

        Raises:
            Refused: The caller left before its end (499), or had to be waited for too long (408).
        """
        more, waited_s, taken_bytes = True, 0.0, 0
        loop = asyncio.get_running_loop()
        while more:
            began_s = loop.time()
            chunk, more = await self._next()
            waited_s, taken_bytes = waited_s + loop.time() - began_s, taken_bytes + len(chunk)
            if self._most_s is not None and waited_s > self._most_s + taken_bytes / _LEAST_BYTES_PER_S:
                raise Refused(408, f"the request's body was waited for {waited_s:.0f} s in all", must_close=True)
            if chunk:
                yield chunk

    def watch(self) -> None:
        """Notice from now on when the caller leaves; nobody may read the body any more. Repeating it is safe."""
        if self._timer is None:
            self._timer = self._loop.call_later(_GRACE_S, self._listen_in_background)

    def stop(self) -> None:
        """Listen no more. What listened is let go of: it knows this caller, and both would be garbage to look for."""
        for waiting in (self._timer, self._listener):
            if waiting is not None:
                waiting.cancel()
        self._timer = self._listener = None

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Refused(499, "the caller left before the end of its request")
        more = message.get("more_body", False)
        if not more:
            self.has_sent_all = True
            self.watch()
        return message.get("body", b""), more

    def _listen_in_background(self) -> None:
        self._listener = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._handler is not None:
            self._handler.cancel()


def _too_large(limit_bytes: int) -> Refused:
    return Refused(413, f"the request body is larger than {limit_bytes} bytes", code="request_too_large")


class EventTail:
    """Holds the unfinished event of a stream back, so that an error event can follow a whole one.

    Any split of the bytes gives the same events. An event of more than 64 KiB is passed on as it comes.
    """

    def __init__(self) -> None:
        self.held = b""
        """What was not passed on yet."""
        self.passed = b""
        """What was passed on last."""

    def feed(self, chunk: bytes) -> bytes:
        """Take in bytes; returns what may be passed on, perhaps nothing."""
        data = self.held + chunk
        end = _end_of_events(data)
        if len(data) - end > _MAX_HELD_BYTES:
            end = len(data)
        self.held = data[end:]
        if end:
            self.passed = data[:end]
        return data[:end]


def _end_of_events(data: bytes) -> int:
    if data.endswith(b"\n\n"):
        return len(data)
    end = 0
    for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"):
        found = data.rfind(mark)
        end = max(end, found + len(mark) if found >= 0 else 0)
    # Lines without data make no event: a comment that keeps the connection alive must not wait for the next one.
    is_comment = data.endswith((b"\n", b"\r")) and data.find(b"data", end) < 0
    return len(data) if is_comment else end


async def relay(served: Served, send: Send, *, api: str, whole: Whole | None = None) -> None:
    """Send an answer. One that breaks off half-way ends as visibly for the caller as it did for us.

    Args:
        served: The answer; it is closed in any case.
        send: ASGI's.
        api: Whose error event a stream that breaks off may end with; empty for none.
        whole: What sends an answer at once, where the server has such a thing.
    """
    if served.rest is None:
        head = b"" if whole is None else _plain_head(tuple(served.headers), len(served.body), int(time.time()))
        if head and whole is not None and whole(served.status, head, served.body):
            return
        rows = [row for row in served.headers if row[0] != "content-length"]
        await _send_start(send, served.status, [*rows, ("content-length", str(len(served.body)))])
        await send({"type": "http.response.body", "body": served.body})
        return
    tail = EventTail() if api and _is_event_stream(served.headers) else None
    try:
        await _send_start(send, served.status, served.headers)
        await _pass_on(served, send, tail)
        last = tail.held if tail else b""
    except BROKEN as exc:
        # Not what it says: the HTTP libraries quote what they could not read, which may be of the answer.
        logger.warning("llm-proxy: an answer broke off in mid-stream (%s)", type(exc).__name__)
        if tail is None:
            return  # unfinished: the server closes the connection
        last = _broken_off(exc, api, tail.passed)
    finally:
        if served.close is not None:
            await served.close()
    await send({"type": "http.response.body", "body": last})


async def _pass_on(served: Served, send: Send, tail: EventTail | None) -> None:
    if served.body:
        await send({"type": "http.response.body", "body": served.body, "more_body": True})
    async for chunk in served.rest:
        ready = chunk if tail is None else tail.feed(chunk)
        if ready:
            await send({"type": "http.response.body", "body": ready, "more_body": True})


def _broken_off(exc: Exception, api: str, passed: bytes) -> bytes:
    message = f"the upstream broke off in mid-stream ({type(exc).__name__})"
    body = error_body(message, type="upstream_error", code="stream_interrupted")
    if api != "responses":
        return b"\n\n" + encode_event(body)
    # That API names and counts its events, which say what they are; the openai client raises by the field "error".
    number = max([-1, *map(int, _NUMBER.findall(passed))]) + 1
    head = {"type": "error", "sequence_number": number, "code": "stream_interrupted", "message": message, "param": None}
    said = {**head, **json.loads(body)}
    return b"\n\n" + encode_event(json.dumps(said), "error")


def _is_event_stream(headers: HeaderList) -> bool:
    """Whether an event may be appended: plain server-sent events; into compressed ones nothing can be written."""
    values = dict(headers)
    is_plain = values.get("content-encoding", "identity") == "identity" and "content-length" not in values
    return is_plain and values.get("content-type", "").startswith("text/event-stream")


async def _send_start(send: Send, status: int, headers: HeaderList) -> None:
    rows = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
    if _UNSAFE.search(b"".join([value for _, value in rows])):  # all at once, since hardly any ever is
        rows = [(name, _safe(value)) for name, value in rows]
    if all(name != "date" for name, _ in headers):
        rows.append((b"date", _date(int(time.time()))))
    await send({"type": "http.response.start", "status": status, "headers": rows})


@lru_cache(maxsize=256)
def _plain_head(headers: tuple[tuple[str, str], ...], size_bytes: int, now_s: int) -> bytes:
    """The header lines of an answer with no trait that a server has to know of; empty where there is one.

    Popular answers have the same ones for a second.
    """
    rows = [(name, value) for name, value in headers if name != "content-length"]
    names = {name for name, _ in rows}
    is_plain = not names & _FOR_THE_SERVER and all(_TOKEN.fullmatch(name) for name in names)
    if not is_plain or _UNSAFE.search("".join([value for _, value in rows]).encode("latin-1", "replace")):
        return b""
    rows += [("content-length", str(size_bytes)), *([] if "date" in names else [("date", _date(now_s).decode())])]
    return "".join([f"{name}: {value}\r\n" for name, value in rows]).encode("latin-1", "replace")


def _safe(value: bytes) -> bytes:
    # Configured names and upstreams may hold control characters; a server would refuse to send the answer at all.
    return _UNSAFE.sub(b"?", value).strip()


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()


def is_foreign_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser may be sending this for a page that is not of this machine.

    A proxy without keys answers whoever reaches it; a web page must not be one of them: neither by a request
    across origins, nor by a host name of its own that it lets point to a loopback address.

    Args:
        headers: Request headers, names in lower case.
    """
    return _is_foreign(headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host", ""))


@lru_cache(maxsize=256)
def _is_foreign(origin: str | None, site: str | None, host: str) -> bool:
    is_across = not is_local(origin) if origin is not None else site == "cross-site"
    return is_across or (bool(host) and not is_local(f"//{host}", is_host=True))


@lru_cache(maxsize=256)
def is_local(url: str, *, is_host: bool = False) -> bool:
    """Whether a URL names this machine.

    Args:
        url: The URL; its path does not matter.
        is_host: It was made of a ``Host`` header: IP addresses and names below ``.internal`` are good as well,
            since nobody can let one of his own names stand for them.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost") or (is_host and host.endswith(".internal")):
        return True
    try:
        return ip_address(host).is_loopback or is_host
    except ValueError:
        return False
