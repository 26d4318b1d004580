"""The reverse proxy as a plain ASGI callable: four APIs through the engine, every other path untouched.

::

    POST /v1/chat/completions   the engine; likewise /v1/responses, /v1/completions, /v1/embeddings
    GET  /v1/models             models of all backends, routes and aliases
    POST /llm-proxy/feedback    how good an answer was
    GET  /llm-proxy/openapi.json   what the proxy itself answers
    *    /healthz  /readyz      alive; able to serve
    *    /  /llm-proxy/  /metrics   the dashboard and figures, see `llm_proxy.faces.dashboard.app`
    *    /v1/responses/ID       passed to the backend that made the response, see `llm_proxy.faces._kept`
    *                           passed to the default backend, streaming both ways; WebSockets too
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.openai_compatible import headers_for
from llm_proxy.drive import Served
from llm_proxy.errors import ASKED_ENOUGH, BackendError, BackendTimeout, BackendUnavailable, ConfigError, WireError
from llm_proxy.types import Head, Outcome, Outgoing
from llm_proxy.wire.apis import parse_call
from llm_proxy.wire.chat import error_body

from . import feedback, openapi
from ._apis import PATHS
from ._asgi_io import BROKEN, OWN_HEADERS, WHOLE, Caller, Refused, relay
from ._bodies import Unfinished
from ._headers import end_to_end, read_headers
from ._http import httpx
from ._kept import about, keeper_of
from ._models import list_models, named_model
from ._refusals import Refusals
from ._upstream import NO_WEBSOCKETS, Upstream, passed_url, translated
from ._websocket import pass_websocket, refuse_websocket
from .admission import Admission, without_credentials
from .dashboard import Dashboard
from .paths import METHODS, MODELS, refuse_other_spelling

if TYPE_CHECKING:
    from llm_proxy.encode.lazy import LazyEncoder
    from llm_proxy.holders import Holder
    from llm_proxy.runtime import Runtime
    from llm_proxy.settings.server import ServerConfig
    from llm_proxy.types import ChatRequest, HeaderList

    from ._asgi_io import Receive, Scope, Send

__all__ = ["ProxyApp"]


class ProxyApp:
    """The proxy; serve it with any asyncio ASGI server, or `llm_proxy.faces.serve.serve`.

    Args:
        runtime: What serves the calls; started and closed with the application.
        transport: What sends requests upstream; by default the transport of the installed httpx family.

    Raises:
        ConfigError: The configuration names no backend, an empty key, or would send the proxy's own keys on; see
            `llm_proxy.faces.serve.server_config`.
    """

    def __init__(self, runtime: Runtime, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._runtime = runtime
        _check(runtime)
        self.admission = Admission(runtime)
        self._unfinished = Unfinished(runtime.config.server.max_unfinished_bytes)
        self._upstream = Upstream(transport, client=runtime.config.server.client)
        self._refusals = Refusals(runtime)
        self._dashboard = Dashboard(runtime, self.admission, refused=self._refusals.by_status)
        self._is_started = False

    @property
    def limits(self) -> ServerConfig:
        """What callers and their connections may do."""
        return self._runtime.config.server

    @property
    def runtime(self) -> Runtime:
        """What serves the calls."""
        return self._runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope. Source: ASGI 3.0."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            self.start()
            own = self._dashboard if self._dashboard.takes(scope) else self._http
            await own(scope, receive, send)
        else:
            self.start()
            await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, passed, head_bytes = read_headers(tuple(map(tuple, scope["headers"])))
        name = self._runtime.selector.default_backend
        try:
            self.admission.measure(scope, head_bytes)
            refuse_other_spelling((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))
            holder = self.admission.admit(headers, passed)
            self.admission.check_socket(holder)
            scope = scope if holder is None else without_credentials(scope)
            await pass_websocket(
                scope,
                receive,
                send,
                upstream=self._upstream,
                backend=(name, self._runtime.config.backends[name]),
                most_bytes=self.limits.max_body_bytes,
            )
        except (Refused, BackendError, *BROKEN) as exc:
            await refuse_websocket(scope, send, _refusal(exc, is_body_awaited=False))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = Caller(receive, unfinished=self._unfinished, most_s=self.limits.body_total_s)
        headers, passed, head_bytes = read_headers(tuple(map(tuple, scope["headers"])))
        try:
            try:
                self.admission.measure(scope, head_bytes)
                served = await self._answer(scope, headers, passed, caller)
            except (Refused, BackendError, *BROKEN) as exc:
                if isinstance(exc, Refused):
                    self._refusals.count(exc)
                served = _refusal(exc, is_body_awaited="expect" in headers and not caller.has_sent_all)
            except Exception as exc:  # noqa: BLE001 - the last boundary: callers see an error in OpenAI's form
                self._runtime.troubles.note("server", exc)
                served = Served(500, [*OWN_HEADERS, ("connection", "close")], Outcome("bypass"), _TROUBLE)
            whole = scope.get("extensions", {}).get(WHOLE)
            await relay(served, send, api=PATHS.get(scope["path"], ""), whole=whole)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not caller.is_gone or task is None:
                raise
            task.uncancel()
        finally:
            caller.stop()

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], passed: Mapping[str, str], caller: Caller
    ) -> Served:
        path = scope["path"]
        if scope["method"] in {"CONNECT", "TRACE"}:
            raise _not_for(scope["method"], "this proxy", METHODS)
        refuse_other_spelling((scope.get("raw_path") or path.encode()).decode("latin-1"))
        if path in _PLAIN_PATHS:
            if scope["method"] not in {"GET", "HEAD"}:
                raise _not_for(scope["method"], path, "GET, HEAD")
            return await self._plain(path, headers, passed)
        holder = None
        try:
            holder = self.admission.admit(headers, passed)
            said = None
            if feedback.HEADER in headers:
                said = await feedback.heard_async(self._runtime, headers[feedback.HEADER], passed, holder)
            own, headers, others = _for_others(scope, headers, passed, is_issued=holder is not None)
            served = await self._admitted(own, headers, others, caller, holder)
        except Refused as exc:
            holder = holder or exc.holder
            is_call = path in PATHS and scope["method"] == "POST"
            if is_call and (holder is not None or exc.status not in _UNKNOWN):
                self._refusals.book(exc, PATHS[path], passed, holder)
            raise
        return served if said is None else replace(served, headers=[*served.headers, (feedback.HEADER, said)])

    async def _plain(self, path: str, headers: Mapping[str, str], passed: Mapping[str, str]) -> Served:
        """What needs no key."""
        if path == "/healthz":
            return _json(200, {"status": "ok"})
        if path == "/readyz":
            return self._readiness(headers, passed)
        return Served(200, OWN_HEADERS, Outcome("bypass"), await asyncio.to_thread(openapi.document))

    async def _admitted(
        self, scope: Scope, headers: Mapping[str, str], passed: Mapping[str, str], caller: Caller, holder: Holder | None
    ) -> Served:
        method, path, announced = scope["method"], scope["path"], headers.get("content-length", "")
        if announced and "transfer-encoding" in headers:
            # A server in front may see the request end elsewhere and smuggle another one. Source: RFC 9112 section 6.1.
            raise Refused(400, "a request has content-length or transfer-encoding, not both", must_close=True)
        if path == feedback.PATH:
            return await self._feedback(method, passed, caller, holder, announced)
        if path in PATHS and method == "POST":
            if headers.get("content-encoding", "").lower() in _PLAIN:
                return await self._call(scope, passed, caller, holder, announced=announced)
            # This proxy does not decode bodies, so a coded one is passed on: the backend may know the coding.
            if self._runtime.config.budget.limits:
                raise Refused(415, "send the body without content-encoding: what it costs has to be counted")
        if path.startswith(MODELS) and method == "GET":
            caller.watch()
            served = await self._models(path, headers, holder)
            if served is not None:
                return served
        return await self._pass(scope, headers, passed, caller, holder)

    async def _feedback(
        self, method: str, passed: Mapping[str, str], caller: Caller, holder: Holder | None, announced: str
    ) -> Served:
        if method != "POST":
            raise _not_for(method, feedback.PATH, "POST")
        raw = await caller.body(limit_bytes=feedback.MOST_BYTES, announced=announced)
        status, body = await asyncio.to_thread(feedback.answer, self._runtime, raw, passed, holder)
        return Served(status, [*OWN_HEADERS], Outcome("bypass"), body)

    async def _call(
        self, scope: Scope, headers: Mapping[str, str], caller: Caller, holder: Holder | None, *, announced: str
    ) -> Served:
        runtime = self._runtime
        raw = await caller.body(limit_bytes=self.limits.max_body_bytes, announced=announced)
        query = scope["query_string"].decode("latin-1")
        call = self._parsed(raw, headers, PATHS[scope["path"]], has_query=bool(query))
        if holder is not None:
            self.admission.check_body(holder, call.body)
            call = replace(call, holder=holder)

        async def send(outgoing: Outgoing) -> Head:
            return await self._upstream.send(replace(outgoing, url=f"{outgoing.url}?{query}") if query else outgoing)

        return await runtime.async_driver.serve(runtime.engine.answer(call), send)

    def _parsed(self, raw: bytes, headers: Mapping[str, str], api: str, *, has_query: bool) -> ChatRequest:
        try:
            call = parse_call(raw, api=api, headers=headers, received_s=self._runtime.clock.time())
        except WireError as exc:
            raise Refused(400, str(exc)) from exc
        # A query may change the answer and is not part of any key, so nothing is looked up or stored.
        return replace(call, controls=replace(call.controls, no_store=True)) if has_query else call

    async def _models(self, path: str, headers: Mapping[str, str], holder: Holder | None) -> Served | None:
        is_bounded = holder is not None and bool(holder.models)
        if path == MODELS:
            rows = await list_models(self._runtime, headers, self._upstream.send, is_whole=is_bounded)
            if rows is not None and holder is not None:
                rows["data"] = [row for row in rows["data"] if self.admission.may_ask(holder, row["id"])]
        else:
            name = path.removeprefix(MODELS + "/")
            self.admission.check_model(holder, name)
            rows = named_model(self._runtime, name)
        return None if rows is None else _json(200, rows)

    async def _pass(
        self, scope: Scope, headers: Mapping[str, str], passed: Mapping[str, str], caller: Caller, holder: Holder | None
    ) -> Served:
        """Hand a request that is not ours to the default backend, or to who keeps what it is about; it streams."""
        if headers.get("upgrade", "").lower() == "websocket":  # a server that knows them would not have brought it here
            raise Refused(501, NO_WEBSOCKETS, code="websockets_missing")
        raw = None
        is_model = f"{scope['path']}/".startswith(MODELS + "/") and scope["method"] == "GET"  # that was looked at
        if holder is not None and not is_model:
            raw = await self.admission.body_to_pass(holder, scope, caller, self.limits.max_body_bytes)
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        one, default = about(scope["method"], path), self._runtime.selector.default_backend
        keeper = await self._runtime.async_driver.run(keeper_of(self._runtime, one, passed, holder))
        name = keeper or default
        backend = self._runtime.config.backends[name]
        has_body = "content-length" in headers or "transfer-encoding" in headers
        length = [("content-length", headers["content-length"])] if "content-length" in headers else []
        outgoing = Outgoing(
            url=passed_url(backend, path, scope["query_string"].decode("latin-1")),
            headers=[*headers_for(backend, end_to_end(scope["headers"]), is_default=name == default), *length],
            body=raw or b"",
            backend=name,
            timeout_s=backend.timeout_s,
        )
        if not has_body:
            caller.watch()
        content = caller.chunks() if has_body and raw is None else None
        head = await self._upstream.send(outgoing, method=scope["method"], content=content)
        caller.watch()
        outcome = Outcome("bypass", detail=f"path; kept-by={keeper}" if keeper else "path", backend=name)
        return Served(head.status, (*head.headers, *outcome.headers), outcome, b"", head.body, head.body.aclose)

    def _readiness(self, headers: Mapping[str, str], passed: Mapping[str, str]) -> Served:
        runtime = self._runtime
        state: dict[str, Any] = {
            "status": "ok",
            "cache": runtime.engine.cache_state or "off",
            "encoder": "off" if runtime.encoder is None else _encoder_state(runtime.encoder),
        }
        with suppress(Refused):  # who may not come in is told no more
            self.admission.admit(headers, passed, is_counted=False)
            state["troubles"] = dict(runtime.troubles.counts)
        return _json(200, state)

    def leave(self) -> None:
        """End what would keep the server from ending: the streams of the dashboard."""
        self._dashboard.close()

    def start(self) -> None:
        """Load what takes long in the background; calling it again is safe."""
        # An application that mounts this one may not pass the startup on, so each request makes sure of it.
        if not self._is_started:
            self._is_started = True
            self._runtime.start()

    async def aclose(self) -> None:
        """Write what is pending and release files, connections and threads; calling it again is safe."""
        self.leave()
        self.admission.close()
        await self._upstream.aclose()
        await asyncio.to_thread(self._runtime.close)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _check(runtime: Runtime) -> None:
    config, default = runtime.config, runtime.selector.default_backend
    if not default:
        raise ConfigError("no backend is configured; name one under [backends], or use server_config(config)")
    if not config.server.keys:
        return
    if any(not key.get_secret_value().strip() for key in config.server.keys):
        raise ConfigError("server.keys holds an empty key, which anybody would present")
    probe = ("authorization", "the proxy's own")
    for name, backend in config.backends.items():
        if probe in headers_for(backend, [probe], is_default=name == default):
            raise ConfigError(f"backend {name!r} would get the keys of this proxy; use server_config(config)")


def _encoder_state(encoder: LazyEncoder) -> str:
    if encoder.is_ready:
        return "ok"
    return "failed" if encoder.failure else "loading"


def _refusal(exc: Exception, *, is_body_awaited: bool) -> Served:
    is_enough = ASKED_ENOUGH in getattr(exc, "__notes__", ())
    more: HeaderList = ()
    must_close = is_body_awaited  # else what comes of the body would be taken for the next request
    if isinstance(exc, Refused):
        status, kind, code = exc.status, "invalid_request_error", exc.code
        more = exc.headers
        must_close = must_close or exc.must_close
    else:
        exc = exc if isinstance(exc, BackendError) else translated(exc)
        kind = "upstream_error"
        status, code = next((row[1:] for row in _STATUSES if isinstance(exc, row[0])), (502, "upstream_broken"))
    headers = [*OWN_HEADERS, *more]
    if status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if is_enough:
        headers.append(("x-should-retry", "false"))
    if must_close:
        headers.append(("connection", "close"))
    return Served(status, headers, Outcome("bypass", detail="refused"), error_body(str(exc), type=kind, code=code))


def _for_others(
    scope: Scope, headers: Mapping[str, str], passed: Mapping[str, str], *, is_issued: bool
) -> tuple[Scope, Mapping[str, str], Mapping[str, str]]:
    """A request without what is for nobody further on: feedback, and issued keys."""
    has_feedback = feedback.HEADER in headers
    if not has_feedback and not is_issued:
        return scope, headers, passed
    if has_feedback:
        name = feedback.HEADER.encode()
        scope = {**scope, "headers": [row for row in scope["headers"] if row[0].lower() != name]}
    if is_issued:
        scope = without_credentials(scope)
    headers, passed, _ = read_headers(tuple(map(tuple, scope["headers"])))
    return scope, headers, passed


def _not_for(method: str, path: str, allowed: str) -> Refused:
    """Source: RFC 9110 section 15.5.6."""
    return Refused(405, f"{method} is not for {path}", headers=(("allow", allowed),), must_close=True)


_UNKNOWN = (401, 403)  # whoever holds no issued key and is refused so was not let in
_PLAIN = ("", "identity")
_PLAIN_PATHS = frozenset({"/healthz", "/readyz", openapi.PATH})
_TROUBLE = error_body("llm-proxy is in trouble with this request; its log says more", type="server_error")
_STATUSES: tuple[tuple[type[BackendError], int, str], ...] = (
    (BackendTimeout, 504, "upstream_timeout"),
    (BackendUnavailable, 503, "upstream_unavailable"),
)


def _json(status: int, value: Any) -> Served:
    return Served(status, OWN_HEADERS, Outcome("bypass"), json.dumps(value).encode())
