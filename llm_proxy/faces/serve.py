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
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import uvicorn

from llm_proxy.config import OPENAI_BASE_URL, BackendConfig, Config, load
from llm_proxy.errors import ConfigError
from llm_proxy.runtime import Runtime

from ._asgi_io import is_local
from .asgi import ProxyApp

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["serve", "server_config", "server_settings"]

KEEPALIVE_S = 75  # longer than clients keep idle connections, so that they close first and no call meets a closed one
GRACE_S = 30
MAX_HEAD_BYTES = 64 << 10

Ready = Callable[[str, int], object]


def server_config(config: Config) -> Config:
    """The settings as the reverse proxy needs them.

    Without backends, OpenAI becomes the one, asked with the caller's key, or with ``OPENAI_API_KEY`` for a caller
    who brings none. With `server.keys` a caller's key is the proxy's own: it still separates callers in the cache
    and never goes upstream; backends then get their own key or none.

    Raises:
        ConfigError: The address is open to others and no key is needed; a backend is this very server; a key can't
            be sent in a header.
    """
    server = config.server
    if not server.keys and not is_local(_origin(server.host)):
        raise ConfigError(
            f"server.host {server.host!r} can be reached from other machines: set server.keys, or bind 127.0.0.1"
        )
    backends = config.backends or {
        "openai": BackendConfig(base_url=OPENAI_BASE_URL, auth="caller", api_key_env="OPENAI_API_KEY")
    }
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


def serve(config: Config, *, host: str | None = None, port: int | None = None, ready: Ready | None = None) -> None:
    """Run the proxy until SIGTERM or SIGINT, then finish what is under way and close the cache.

    Prints nothing. A second SIGINT gives calls under way up.

    Args:
        config: Settings; `server_config` is applied to them.
        host: Address to bind instead of ``server.host``.
        port: Port to bind instead of ``server.port``; 0 takes a free one.
        ready: Called with the address and the port when the server takes calls.

    Raises:
        ConfigError: See `server_config`; or the address can't be bound.
    """
    given = {"host": host, "port": port}
    config = server_config(load(config, server={name: value for name, value in given.items() if value is not None}))
    server = config.server
    with _bound(server.host, server.port) as listener:
        address: tuple[str, int] = listener.getsockname()[:2]
        for name, backend in config.backends.items():
            _refuse_itself(name, backend, host=server.host, port=address[1])
        runtime = Runtime(config)
        try:
            app = ProxyApp(runtime)
            with _signals_end_quietly():
                _Server(server_settings(app), lambda: ready and ready(*address)).run(sockets=[listener])
        finally:
            runtime.close()


def server_settings(app: ProxyApp) -> uvicorn.Config:
    """How uvicorn serves the proxy: one process, bounded waits, and nothing added to what upstream says."""
    logging.getLogger("uvicorn.error").addFilter(_is_trouble)
    return uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="on",
        workers=1,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http="httptools" if importlib.util.find_spec("httptools") else "h11",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEPALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )


class _Server(uvicorn.Server):
    """A server that says when it takes calls."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        is_told = False
        try:
            self._on_started()
            is_told = True
        finally:
            if not is_told:
                await self.shutdown(sockets=sockets)


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


def _bound(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as exc:
        raise ConfigError(f"server.host {host!r}, server.port {port}: can't listen there ({exc})") from exc


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
    """Whether a line belongs in the server's log: not for bodies that broke off, nor at the end of the grace."""
    error: Any = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and "without completing response" not in record.getMessage()
