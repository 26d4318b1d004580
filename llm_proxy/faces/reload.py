"""New settings while calls go on: SIGHUP.

::

    new settings ── wrong ──> a line in the log, the old ones stay
         │ right
    a new application beside the old one: new calls go to it
    the old one ends its calls ── the last is over ──> it is closed

What a running server can't change keeps its value, and the log names it. The cache and the encoder go over where their
settings are the same; what else a process knows (failures of backends, the newest calls on the dashboard, counters of
``/metrics``) begins anew, and the ledger goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_proxy.config import Config, load
from llm_proxy.runtime import Runtime

from ._memory import forget
from .asgi import ProxyApp

if TYPE_CHECKING:
    from llm_proxy.settings.server import ServerConfig

    from ._asgi_io import Receive, Scope, Send

__all__ = ["FIXED", "Reloading", "Reread", "kept_settings"]

logger = logging.getLogger("llm_proxy")
Reread = Callable[[], Config]
"""Reads the settings again; raises `ConfigError` where they are wrong."""

FIXED = (
    ("server", "host"), ("server", "port"), ("server", "workers"), ("server", "max_connections"),
    ("cache", "enabled"), ("cache", "store"), ("cache", "directory"),
)  # fmt: skip
"""What a running server can't change."""


def kept_settings(old: Config, new: Config) -> tuple[Config, list[str]]:
    """New settings with the old values of what can't change, and a sentence for each that would have.

    Raises:
        ConfigError: They do not go together.
    """
    kept: dict[str, dict[str, object]] = {}
    said = []
    for section, name in FIXED:
        before, after = getattr(getattr(old, section), name), getattr(getattr(new, section), name)
        if before != after:
            kept.setdefault(section, {})[name] = before
            said.append(f"{section}.{name} stays {before!s} until the server starts anew: {after!s} was not taken")
    return (load(new, **kept) if kept else new), said


class Reloading:
    """An application that stands before another one, which it can replace; for one event loop.

    Args:
        app: The first one.
        make: Makes the settings of a server of new ones, see `llm_proxy.faces.serve.server_config`.
    """

    def __init__(self, app: ProxyApp, make: Callable[[Config], Config]) -> None:
        self._make = make
        self._current = _Serving(app)
        self._former: set[asyncio.Task[None]] = set()

    @property
    def app(self) -> ProxyApp:
        """The application that new calls go to."""
        return self._current.app

    @property
    def limits(self) -> ServerConfig:
        """What callers and their connections may do."""
        return self.app.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope by the application of the moment."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        current = self._current
        current.calls += 1
        try:
            await current.app(scope, receive, send)
        finally:
            current.calls -= 1
            if not current.calls and current.is_former:
                current.is_idle.set()

    def leave(self) -> None:
        """End what would keep the server from ending."""
        self.app.leave()

    async def reload(self, reread: Reread) -> bool:
        """Go over to new settings; whether they were taken. Never raises.

        Args:
            reread: Reads them; may wait for the disk.
        """
        old = self.app.runtime.config
        try:
            new = await asyncio.to_thread(reread)
            new, said = kept_settings(old, self._make(new))
            app = await asyncio.to_thread(self._successor, old, new)
        except Exception as exc:  # noqa: BLE001 - a server goes on whatever is wrong with what it is to become
            logger.error("llm-proxy: the new settings are not taken, the old ones stay: %s", exc)
            return False
        for sentence in said:
            logger.warning("llm-proxy: %s", sentence)
        app.start()
        former, self._current = self._current, _Serving(app)
        former.retire()
        ending = asyncio.create_task(former.end())
        self._former.add(ending)
        ending.add_done_callback(self._ended)
        logger.warning("llm-proxy: new settings are taken")
        return True

    def _ended(self, ending: asyncio.Task[None]) -> None:
        """Let go of a former application; not at once, for its task is still among the loop's."""
        self._former.discard(ending)
        if not ending.cancelled():
            asyncio.get_running_loop().call_soon(forget)

    def _successor(self, old: Config, new: Config) -> ProxyApp:
        """The next application, with the cache and the encoder of this one where they are as it needs them."""
        runtime = self.app.runtime
        is_same_cache = old.cache == new.cache and old.routes == new.routes
        is_same_encoder = old.encoder == new.encoder and old.cache.semantic == new.cache.semantic
        if old.cache.store == "memory" and not is_same_cache:
            logger.warning("llm-proxy: the cache in memory begins anew, for its settings or routes have changed")
        cache = runtime.cache if is_same_cache else None
        made = Runtime(new, cache=cache, encoder=runtime.encoder if is_same_encoder else None)
        try:
            app = ProxyApp(made)
        except BaseException:
            made.cache = None if cache is not None else made.cache
            made.close()
            raise
        if cache is not None:
            runtime.cache = None  # from now on it is not the former one's to close
        return app

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Begin the first application, and end the last one and those before it."""
        await receive()
        self.app.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in list(self._former):
            task.cancel()
        await asyncio.gather(*self._former, return_exceptions=True)
        await self.app.aclose()
        await send({"type": "lifespan.shutdown.complete"})


class _Serving:
    """An application and its calls under way."""

    def __init__(self, app: ProxyApp) -> None:
        self.app = app
        self.calls = 0
        self.is_former = False
        self.is_idle = asyncio.Event()

    def retire(self) -> None:
        """Take no more calls; the streams of its dashboard end, and pages come back to the next one."""
        self.is_former = True
        self.app.leave()
        if not self.calls:
            self.is_idle.set()

    async def end(self) -> None:
        """Wait for the last call, then close; cancelled, it is closed at once."""
        try:
            await self.is_idle.wait()
        finally:
            await self.app.aclose()
