"""The dashboard over ASGI: who may see it, what it may do, and the stream that keeps it up to date.

::

    GET  /                       the page, for browsers; it holds no data
    GET  /llm-proxy/summary      figures of a range (?range=hour|day|week|all)
    GET  /llm-proxy/calls        the newest calls
    GET  /llm-proxy/calls/ID     one of them, with what explains it
    GET  /llm-proxy/events       both as server-sent events, from now on
    POST /llm-proxy/undo         takes the semantic hit of a call back
    GET  /metrics                the same for Prometheus

The page asks with the key that it was given, in a header; there is no cookie. What changes something also needs a
header that no form and no page of another origin can send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from email.utils import formatdate
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from llm_proxy.errors import CacheError
from llm_proxy.faces._asgi_io import Caller, Refused, is_local
from llm_proxy.faces._headers import read_headers
from llm_proxy.faces.feedback import PATH as FEEDBACK_PATH
from llm_proxy.faces.openapi import PATH as OPENAPI_PATH
from llm_proxy.observe.history import RANGES
from llm_proxy.observe.metrics import CONTENT_TYPE, Metrics
from llm_proxy.wire.chat import error_body

from .board import Board
from .page import SAFE_HEADERS, page

if TYPE_CHECKING:
    from llm_proxy.faces._asgi_io import Receive, Scope, Send
    from llm_proxy.faces.admission import Admission
    from llm_proxy.runtime import Runtime

__all__ = ["Dashboard"]

_BELOW = "/llm-proxy/"
_MARK = "x-llm-proxy-dashboard"
_MOST_LISTENERS = 16
_MOST_BODY_BYTES = 4 << 10
_SUMMARY_TICKS = 2
_JSON = "application/json"


class Dashboard:
    """Serves the page and its data; a part of `llm_proxy.faces.asgi.ProxyApp`.

    Args:
        runtime: What serves the calls.
        admission: Says who may come in.
        refused: Requests that were refused before they were calls, by status.
        tick_s: How often a listener is told what is new.
        patience_s: How long a listener may take to read it.
    """

    def __init__(
        self,
        runtime: Runtime,
        admission: Admission,
        *,
        refused: Mapping[int, int] = MappingProxyType({}),
        tick_s: float = 1.0,
        patience_s: float = 10.0,
    ) -> None:
        server = runtime.config.server
        self._admission, self._runtime = admission, runtime
        self._has_page, self._has_metrics = server.dashboard, server.metrics
        self._refused, self._tick_s, self._patience_s = refused, tick_s, patience_s
        self._listeners = 0
        self._closing: asyncio.Event | None = None
        self._is_closed = False
        self._board = Board(runtime, admission.book) if self._has_page or self._has_metrics else None
        self._metrics = Metrics(runtime.config) if self._has_metrics else None
        if self._metrics is not None:
            runtime.add_sink(self._metrics)

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for the dashboard; decided by the path for all but the page."""
        path = scope["path"]
        if path == "/":
            accepts = (value for name, value in scope["headers"] if name == b"accept")
            return self._has_page and scope["method"] in {"GET", "HEAD"} and any(b"text/html" in row for row in accepts)
        if path == "/metrics":
            return self._has_metrics
        return self._has_page and path.startswith(_BELOW) and path not in {FEEDBACK_PATH, OPENAPI_PATH}

    def close(self) -> None:
        """End all streams, so that the server need not wait for them; calling it again is safe."""
        self._is_closed = True
        if self._closing is not None:
            self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request that `takes` has taken."""
        is_begun = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._serve(scope, receive, noted)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: calls go on, whatever the dashboard does
            self._runtime.troubles.note("dashboard", exc)
            if is_begun:
                return  # the server closes what was not ended
            await _answer(send, 500, error_body("the dashboard is in trouble; calls go on", type="server_error"))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, passed, head_bytes = read_headers(tuple(map(tuple, scope["headers"])))
        try:
            self._admission.measure(scope, head_bytes)
            if scope["path"] == "/":
                await self._page(headers, send)
                return
            self._admission.admit_watcher(headers, passed)
            await self._data(scope, headers, receive, send)
        except Refused as exc:
            kind = "invalid_request_error"
            body = error_body(str(exc), type=kind, code=exc.code)
            more = [*exc.headers, *([("www-authenticate", "Bearer")] if exc.status == 401 else [])]
            await _answer(send, exc.status, body, *more, *([("connection", "close")] if exc.must_close else []))

    async def _page(self, headers: Mapping[str, str], send: Send) -> None:
        host = headers.get("host", "")
        if not self._admission.needs_key and host and not is_local(f"//{host}", is_host=True):
            raise Refused(403, "this name does not stand for this machine: set server.keys", code="foreign")
        document, policy = await asyncio.to_thread(page)
        more = (("content-security-policy", policy), ("content-type", "text/html; charset=utf-8"))
        await _answer(send, 200, document, *more)

    async def _data(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix(_BELOW)
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if path == "/metrics":
            if method not in {"GET", "HEAD"}:
                raise Refused(405, f"{method} is not for {path}", must_close=True, headers=(("allow", "GET, HEAD"),))
            text = await asyncio.to_thread(self._exposition)
            await _answer(send, 200, text, ("content-type", CONTENT_TYPE))
            return
        _refuse_other_origins(headers)
        if method == "POST" and path == "undo":
            await self._undo(headers, Caller(receive, most_s=self._runtime.config.server.body_total_s), send)
        elif method != "GET" or path == "undo":
            allowed = (("allow", "POST" if path == "undo" else "GET"),)
            is_bare = method in {"HEAD", "OPTIONS"}
            raise Refused(405, f"{method} is not for {scope['path']}", must_close=not is_bare, headers=allowed)
        elif path == "events":
            await self._stream(_range(query), receive, send)
        else:
            await self._get(path, query, send)

    async def _get(self, path: str, query: Mapping[str, list[str]], send: Send) -> None:
        board = self._shown()
        if path == "summary":
            name = _range(query)
            await self._refreshed()
            found: Any = await asyncio.to_thread(board.summary, name)
        elif path == "calls":
            await self._refreshed()
            found = {"calls": (await asyncio.to_thread(board.calls))[1]}
        elif path.startswith("calls/"):
            found = await asyncio.to_thread(board.detail, path.removeprefix("calls/"))
        else:
            found = None
        if found is None:
            raise Refused(404, "there is no such page, or this call is no longer among the newest", code="not_found")
        await _answer(send, 200, json.dumps(found).encode())

    async def _undo(self, headers: Mapping[str, str], caller: Caller, send: Send) -> None:
        if not headers.get(_MARK):
            raise Refused(403, f"this needs the header {_MARK}", code="foreign", must_close=True)
        body = await caller.body(limit_bytes=_MOST_BODY_BYTES, announced=headers.get("content-length", ""))
        caller.stop()
        try:
            name = json.loads(body)["id"]
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise Refused(400, 'the body must be {"id": ...}') from exc
        try:
            is_there = await asyncio.to_thread(self._shown().undo, str(name))
        except (CacheError, ValueError) as exc:
            raise Refused(409, str(exc), code="not_undone") from exc
        await _answer(send, 200, json.dumps({"is_there": is_there}).encode())

    def _shown(self) -> Board:
        if self._board is None:  # `takes` has let nothing come here
            raise Refused(404, "the dashboard is off", code="not_found")
        return self._board

    def _exposition(self) -> bytes:
        board, metrics = self._shown(), self._metrics
        board.refresh()
        return b"" if metrics is None else metrics.exposition(self._runtime, board.history.total(), self._refused)

    async def _refreshed(self) -> None:
        """Wait for what is new, though not for a large ledger that is read for the first time."""
        reading = asyncio.ensure_future(asyncio.to_thread(self._shown().refresh))
        await asyncio.wait({reading}, timeout=self._tick_s)

    # -- the stream ----------------------------------------------------------------------------------------------

    async def _stream(self, name: Any, receive: Receive, send: Send) -> None:
        if self._listeners >= _MOST_LISTENERS or self._is_closed:
            raise Refused(503, "too many pages are listening; close one", code="too_many_listeners")
        self._closing = self._closing or asyncio.Event()
        self._listeners += 1
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(_gone(receive)),
            asyncio.ensure_future(self._closing.wait()),
        ]
        try:
            await self._tell(name, send, ends)
        except TimeoutError:
            return  # a listener that does not read is dropped: the server closes what was not ended
        finally:
            self._listeners -= 1
            for end in ends:
                end.cancel()
        if not ends[0].done():
            await send({"type": "http.response.body", "body": b""})

    async def _tell(self, name: Any, send: Send, ends: list[asyncio.Future[Any]]) -> None:
        """Send what is new until one of the ends has come.

        Raises:
            TimeoutError: The listener did not read for a while.
        """
        board, number, tick = self._shown(), 0, 0
        await _begin(send, 200, [("content-type", "text/event-stream"), *SAFE_HEADERS])
        while not any(end.done() for end in ends):
            await self._refreshed()
            number, rows = await asyncio.to_thread(board.calls, number)
            events = [_event("calls", rows)] if rows or not tick else []
            if tick % _SUMMARY_TICKS == 0:
                events.append(_event("summary", await asyncio.to_thread(board.summary, name)))
            if events:
                body = {"type": "http.response.body", "body": b"".join(events), "more_body": True}
                await asyncio.wait_for(send(body), self._patience_s)
            tick += 1
            await asyncio.wait(ends, timeout=self._tick_s, return_when=asyncio.FIRST_COMPLETED)


def _refuse_other_origins(headers: Mapping[str, str]) -> None:
    """Refuse what a browser sends for another page than ours; other clients say neither of both."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site:
        is_ours = site in {"same-origin", "none"}
    else:
        is_ours = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not is_ours:
        raise Refused(403, "only the dashboard's own page may ask for this", code="foreign", must_close=True)


def _range(query: Mapping[str, list[str]]) -> Any:
    name = query.get("range", ["day"])[-1]
    if name not in RANGES:
        raise Refused(400, f"range must be one of {list(RANGES)}")
    return name


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _begin(send: Send, status: int, headers: Iterable[tuple[str, str]]) -> None:
    rows = [(name.encode(), value.encode("latin-1")) for name, value in (*headers, ("date", formatdate(usegmt=True)))]
    await send({"type": "http.response.start", "status": status, "headers": rows})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    named = {name for name, _ in headers}
    rows = [*headers, *SAFE_HEADERS, ("content-length", str(len(body)))]
    rows += [] if "content-type" in named else [("content-type", _JSON)]
    await _begin(send, status, rows)
    await send({"type": "http.response.body", "body": body})
