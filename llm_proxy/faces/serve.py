"""``llm-proxy serve``: the settings of a server that is safe to start, and running it.

Example:
    >>> from llm_proxy.config import load
    >>> from llm_proxy.faces.serve import serve
    >>> serve(load("llm-proxy.toml"), ready=lambda host, port: print(f"http://{host}:{port}/v1"))
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

import uvicorn

from llm_proxy.config import BackendConfig, Config, load
from llm_proxy.errors import ConfigError
from llm_proxy.limits import keys_file
from llm_proxy.runtime import Runtime

from ._asgi_io import is_local
from ._backends import backends_of
from ._connections import protocol_for
from ._memory import LOOK_EVERY_S, Slack, resident_bytes, settle, trim
from .asgi import ProxyApp
from .reload import Reloading

if TYPE_CHECKING:
    from types import FrameType

    from llm_proxy.settings.server import ServerConfig

    from .reload import Reread

__all__ = ["serve", "serve_on", "server_config", "server_settings"]

_BACKLOG = 2048
_UNSENT_BYTES = 128 << 10  # else the kernel takes megabytes for a caller who does not read, and the proxy goes on
_LOOK_TICKS = round(LOOK_EVERY_S / 0.1)  # uvicorn's are a tenth of a second apart
_LOADED_S = 15.0  # by then encoder and guard are there, too
_OTHER_FILES = 512  # beside connections: the cache, models, libraries

Ready = Callable[[str, int], object]


def server_config(config: Config) -> Config:
    """The settings as the reverse proxy needs them.

    Without backends, OpenAI becomes the one, asked with the caller's key, or with ``OPENAI_API_KEY`` for a caller
    who brings none. With `server.keys` a caller's key is the proxy's own: it still separates callers in the cache
    and never goes upstream; backends then get their own key or none.

    Raises:
        ConfigError: The address is open to others and no key is needed; a backend is this very server; a key can't
            be sent in a header; several workers would have a cache in memory each.
    """
    server = config.server
    path = keys_file(config)
    is_guarded = bool(server.keys) or (path is not None and path.is_file())
    if not is_guarded and not is_local(_origin(server.host)):
        raise ConfigError(
            f"server.host {server.host!r} can be reached from other machines: set server.keys, issue a key by "
            "llm-proxy keys add, or bind 127.0.0.1"
        )
    if server.workers > 1 and config.cache.enabled and config.cache.store == "memory":
        raise ConfigError('server.workers above 1 needs cache.store = "disk": processes share no memory')
    backends = backends_of(config)
    if server.keys:
        backends = {name: _with_own_key(backend) for name, backend in backends.items()}
    for name, backend in backends.items():
        _refuse_itself(name, backend, host=server.host, port=server.port)
        key = backend.key() or ""
        if not key.isascii() or not key.isprintable():
            raise ConfigError(
                f"the key of backend {name!r} holds a line break or another character no header can carry"
            )
    return config.model_copy(update={"backends": backends})


def serve(
    config: Config,
    *,
    host: str | None = None,
    port: int | None = None,
    ready: Ready | None = None,
    reread: Reread | None = None,
) -> None:
    """Run the proxy until SIGTERM or SIGINT, then finish what is under way and close the cache.

    Prints nothing. A second SIGINT gives calls under way up. With ``server.workers`` above 1 the calls are served by as
    many processes, see `llm_proxy.faces.workers`.

    Args:
        config: Settings; `server_config` is applied to them.
        host: Address to bind instead of ``server.host``.
        port: Port to bind instead of ``server.port``; 0 takes a free one.
        ready: Called with the address and the port when the server takes calls.
        reread: Reads the settings anew, at SIGHUP; with several workers a function that can be pickled. See
            `llm_proxy.faces.reload`; None: SIGHUP does what it does to any program.

    Raises:
        ConfigError: See `server_config`; or the address can't be bound.
        LLMProxyError: The worker processes do not start.
    """
    given = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    config = server_config(load(config, server=given))
    again = None if reread is None else partial(_reread_with, reread, given)
    server = config.server
    with ExitStack() as stack:
        listeners = [stack.enter_context(one) for one in _bound(server.host, server.port, server.workers)]
        address: tuple[str, int] = listeners[0].getsockname()[:2]
        for name, backend in config.backends.items():
            _refuse_itself(name, backend, host=server.host, port=address[1])

        def say() -> None:
            if ready is not None:
                ready(*address)

        if server.workers == 1:
            serve_on(config, listeners[0], say, again)
            return
        from .workers import supervise

        supervise(config, listeners, say, again)


def serve_on(
    config: Config, listener: socket.socket, ready: Callable[[], object], reread: Reread | None = None
) -> None:
    """Serve in this process until a signal ends it.

    Args:
        config: Settings, checked by `server_config`.
        listener: Where calls come from.
        ready: Called when the server takes calls.
        reread: Reads the settings anew, at SIGHUP.
    """
    _raise_file_limit(config)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections have it from their listener
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    app = Reloading(_first_app(config), server_config)
    try:
        with _signals_end_quietly():
            _Server(server_settings(app), ready, reread).run(sockets=[listener])
    finally:
        app.app.runtime.close()


def _first_app(config: Config) -> ProxyApp:
    """The application to begin with; nobody else keeps its parts, so that they can go when another takes its place."""
    runtime = Runtime(config)
    try:
        return ProxyApp(runtime)
    except BaseException:
        runtime.close()
        raise


def server_settings(app: Limited) -> uvicorn.Config:
    """How uvicorn serves the proxy: one process, bounded waits, and nothing added to what upstream says."""
    logging.getLogger("uvicorn.error").addFilter(_is_trouble)
    limits = app.limits
    settings: Any = app
    return _Settings(
        settings,
        interface="asgi3",
        lifespan="on",
        workers=1,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http="httptools" if importlib.util.find_spec("httptools") else "h11",
        ws=_websockets(),
        ws_max_size=limits.max_body_bytes,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=limits.drain_s,
        h11_max_incomplete_event_size=limits.max_head_bytes,
    )


def _websockets() -> Literal["none", "websockets-sansio"]:
    """What reads WebSockets; without it, or without what passes them on, the application refuses them."""
    is_there = all(importlib.util.find_spec(name) for name in ("aiohttp", "websockets"))
    return "websockets-sansio" if is_there and "websockets-sansio" in uvicorn.config.WS_PROTOCOLS else "none"


class Limited(Protocol):
    """An ASGI application that says what connections to it may do."""

    @property
    def limits(self) -> ServerConfig:
        """The settings of the server."""


class _Settings(uvicorn.Config):
    """uvicorn's settings, with connections that keep to the limits."""

    def load(self) -> None:
        super().load()
        application: Any = self.app
        self.http_protocol_class = protocol_for(str(self.http), application.limits)


class _Server(uvicorn.Server):
    """A server that says when it takes calls."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], object], reread: Reread | None = None) -> None:
        super().__init__(config)
        self._on_started, self._reread = on_started, reread
        self._reloading: asyncio.Task[None] | None = None
        self._is_asked_again = False
        self._slack = Slack(resident_bytes, trim)
        self._giving: asyncio.Future[None] | None = None

    async def on_tick(self, counter: int) -> bool:
        is_turn = counter % _LOOK_TICKS == 0 and (self._giving is None or self._giving.done())
        if is_turn and self._slack.is_due(len(self.server_state.tasks)):
            self._giving = asyncio.get_running_loop().run_in_executor(None, self._slack.give_back)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._reloading is not None:
            await self._reloading  # else what it makes would never be closed
        if isinstance(self.config.app, Reloading):
            self.config.app.leave()
        await super().shutdown(sockets=sockets)

    def _reload(self) -> None:
        """Go over to new settings, once more where it is asked for while that goes on."""
        self._is_asked_again = self._reloading is not None
        if self._reloading is None:
            self._reloading = asyncio.ensure_future(self._reload_all())

    async def _reload_all(self) -> None:
        app, reread, is_due = self.config.app, self._reread, True
        while is_due and isinstance(app, Reloading) and reread is not None:
            self._is_asked_again = False
            if await app.reload(reread):
                limits: Any = app.limits
                protocol: Any = self.config.http_protocol_class
                protocol.limits = limits
                self.config.timeout_keep_alive = limits.idle_s
                self.config.timeout_graceful_shutdown = limits.drain_s
            is_due = self._is_asked_again
        self._reloading = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self._reread is not None and _may_handle("SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        is_told = False
        try:
            self._on_started()
            is_told = True
            settle()
            asyncio.get_running_loop().call_later(_LOADED_S, settle)
        finally:
            if not is_told:
                await self.shutdown(sockets=sockets)


def _reread_with(reread: Reread, given: dict[str, Any]) -> Config:
    """Settings read anew, with what was said at the start and wins over them."""
    return load(reread(), server=given)


def _may_handle(name: str) -> bool:
    """Whether this system has a signal, and this thread hears it."""
    return hasattr(signal, name) and threading.current_thread() is threading.main_thread()


def _with_own_key(backend: BackendConfig) -> BackendConfig:
    if backend.auth not in {None, "caller"}:
        return backend
    has_key = backend.api_key is not None or backend.api_key_env is not None
    return backend.model_copy(update={"auth": "key" if has_key else "none"})


def _refuse_itself(name: str, backend: BackendConfig, *, host: str, port: int) -> None:
    parts = urlsplit(backend.base_url)
    backend_port = parts.port or (443 if parts.scheme == "https" else 80)
    is_here = is_local(backend.base_url) or parts.hostname == host
    is_listening = host in {"0.0.0.0", "::", ""} or is_local(_origin(host)) or parts.hostname == host
    if backend_port == port and is_here and is_listening:
        raise ConfigError(f"backend {name!r} at {backend.base_url} is this very server; change server.port")


def _origin(host: str) -> str:
    return f"//[{host}]" if ":" in host else f"//{host}"


def _bound(host: str, port: int, workers: int) -> list[socket.socket]:
    """Listening sockets, one for each worker where the kernel shares connections out among them, else one for all."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        if workers == 1 or not sys.platform.startswith("linux"):  # elsewhere the last one to bind would get all
            return [socket.create_server(address[:2], family=family, backlog=_BACKLOG)] * workers
        first = socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=True)
        taken = first.getsockname()[:2]
        rest = range(workers - 1)
        return [first, *(socket.create_server(taken, family=family, backlog=_BACKLOG, reuse_port=True) for _ in rest)]
    except OSError as exc:
        raise ConfigError(f"server.host {host!r}, server.port {port}: can't listen there ({exc})") from exc


def _raise_file_limit(config: Config) -> None:
    """Let the process have as many files open as its connections need, as far as the system allows it."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    wanted = 2 * config.server.max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Let the server's end by SIGTERM or SIGINT be a normal return.

    uvicorn raises the signal again when it has ended, for whoever handled it before; by default that would kill
    the process before it can say goodbye.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, _do_nothing) for number in ends]
    try:
        yield
    finally:
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Take a signal that was acted upon already."""


def _is_trouble(record: logging.LogRecord) -> bool:
    """Whether a line belongs in the server's log: not for what broke off or was refused, nor as the grace ends."""
    error: Any = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and "returned without completing" not in record.getMessage()
