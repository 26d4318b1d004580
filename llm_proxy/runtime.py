"""Puts the parts together: from a `Config` to an engine with its cache, encoder, router, prices and ledger.

Clients with equal settings share one runtime in a process, so that making a client is cheap and all of them see
the same answers.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backends.prices import Prices
from .cache.resting import RestingCache
from .config import Config, load
from .drive import AsyncDriver, Driver, Flights
from .engine.flow import Engine
from .engine.settle import Settler, attach_vector
from .errors import LLMProxyError
from .observe.events import CallEvent, Sink, Troubles
from .route.select import Selector

if TYPE_CHECKING:
    from .cache.cache import Cache
    from .encode.lazy import LazyEncoder
    from .engine.ports import Clock
    from .observe.ledger import Ledger

__all__ = ["LEDGER_NAME", "Runtime", "Settings", "SystemClock", "close_all", "runtime_for"]

logger = logging.getLogger("llm_proxy")
LEDGER_NAME = "ledger.sqlite3"
_MAINTAIN_EVERY_S = 60.0
_ENCODE_AT_ONCE = 500  # texts, in about a second of one core
_NEEDS = {
    "onnx": ("numpy", "faiss", "onnxruntime", "tokenizers"),
    "sentence-transformers": ("numpy", "faiss", "sentence_transformers"),
}


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        """Unix time, seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.perf_counter()


class Runtime:
    """All that serves one configuration. Opening files and loading models happens in the background.

    Args:
        config: Settings.
        clock: Clocks; the machine's by default.
        sinks: More takers of events, beside the ledger.
        cache: A ready cache instead of the configured one.
        encoder: A ready encoder instead of the configured one.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        sinks: tuple[Sink, ...] = (),
        cache: Cache | None = None,
        encoder: LazyEncoder | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.troubles = Troubles()
        self.prices = Prices(config.backends)
        self.selector = Selector(config)
        self.cache = cache or self._open_cache()
        self.encoder = encoder or self._open_encoder()
        self.ledger = self._open_ledger()
        self._sinks: tuple[Sink, ...] = (*sinks, *([self.ledger] if self.ledger else []))
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0
        self._maintained_s = self.clock.monotonic()
        self._has_unencoded = True
        self._lock = threading.Lock()
        # The command line and the background work use the cache itself; calls use it through its rests.
        answers = RestingCache(self.cache, monotonic=self.clock.monotonic) if self.cache is not None else None
        settler = Settler(
            config.cache,
            cache=answers,
            encoder=self.encoder,
            prices=self.prices,
            clock=self.clock,
            troubles=self.troubles,
            sink=self.emit,
        )
        self.engine = Engine(
            config,
            cache=answers,
            encoder=self.encoder,
            selector=self.selector,
            settler=settler,
            clock=self.clock,
            troubles=self.troubles,
        )
        flights = Flights()
        self.driver = Driver(flights, self.pool)
        self.async_driver = AsyncDriver(flights, self.pool)

    def start(self) -> None:
        """Load what takes long in the background; calls that come earlier are misses, not errors."""
        self.pool().submit(self.prices.warm)
        if self.cache is not None:
            self.pool().submit(self._open_in_background)
        if self.encoder is not None:
            self.encoder.start(self.pool().submit)

    def pool(self) -> ThreadPoolExecutor:
        """Worker threads; made on first use, and again in a forked child, where the parent's do not run."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                workers = max(2, min(8, (os.cpu_count() or 2)))
                self._pool = ThreadPoolExecutor(workers, thread_name_prefix="llm-proxy")
                self._pool_pid = os.getpid()
            return self._pool

    def emit(self, event: CallEvent) -> None:
        """Hand one event to every sink; one that raises is counted and does not break the call."""
        if self.clock.monotonic() - self._maintained_s >= _MAINTAIN_EVERY_S:
            self._maintained_s = self.clock.monotonic()
            self.pool().submit(self._maintain)
        for sink in self._sinks:
            try:
                sink(event)
            except Exception as exc:  # noqa: BLE001 - sinks may be the user's own
                self.troubles.note("sink", exc)

    def close(self) -> None:
        """Write what is pending and release files and threads; calling it again is safe."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pool_pid == os.getpid():
            pool.shutdown(wait=True, cancel_futures=True)
        if self.cache is not None:
            try:
                self.cache.close()
            except LLMProxyError as exc:
                self.troubles.note("cache", exc)
        if self.ledger is not None:
            self.ledger.close()

    def _open_cache(self) -> Cache | None:
        if not self.config.cache.enabled:
            return None
        from .cache.build import build

        return build(self.config.cache, clock=self.clock)

    def _open_encoder(self) -> LazyEncoder | None:
        if self.cache is None or not self.config.cache.semantic:
            return None
        absent = [name for name in _NEEDS[self.config.encoder.kind] if find_spec(name) is None]
        if absent:
            logger.info("llm-proxy: exact hits only, %s not installed: pip install 'llm-proxy[cpu]'", ", ".join(absent))
            return None
        from .encode.lazy import build

        return build(self.config.encoder, monotonic=self.clock.monotonic)

    def _open_ledger(self) -> Ledger | None:
        settings = self.config
        if not settings.observe.ledger or settings.cache.store != "disk":
            return None
        from .observe.ledger import Ledger

        path = settings.cache.directory / LEDGER_NAME
        rows = settings.observe.ledger_rows
        return Ledger(path, monotonic=self.clock.monotonic, max_rows=rows, troubles=self.troubles)

    def _open_in_background(self) -> None:
        try:
            if self.cache is not None:
                self.cache.open()
        except LLMProxyError as exc:
            self.troubles.note("cache", exc)

    def _maintain(self) -> None:
        """Do what waits in the cache; once, also encode what has no vector of this encoder from earlier processes."""
        cache, encoder = self.cache, self.encoder
        if cache is None:
            return
        try:
            cache.maintain()
            if encoder is not None and encoder.is_ready and self._has_unencoded:
                found = list(islice(cache.lacking(encoder.name), _ENCODE_AT_ONCE))
                self._has_unencoded = len(found) == _ENCODE_AT_ONCE
                for entry in found:
                    attach_vector(entry, cache=cache, encoder=encoder)
        except LLMProxyError as exc:
            self.troubles.note("cache", exc)


Settings = Runtime | Config | Mapping[str, Any] | str | Path | None

_runtimes: list[Runtime] = []
_runtimes_lock = threading.Lock()


def runtime_for(settings: Settings = None) -> Runtime:
    """The runtime of these settings, made and started on first use and shared afterwards.

    Args:
        settings: A `Runtime` (returned as it is), a `Config`, plain data of its shape, the path of a TOML file, or
            None for ``llm-proxy.toml`` and the environment.

    Raises:
        ConfigError: A setting is wrong.
    """
    if isinstance(settings, Runtime):
        return settings
    config = load(None, **settings) if isinstance(settings, Mapping) else load(settings)
    with _runtimes_lock:
        runtime = next((known for known in _runtimes if known.config == config), None)
        if runtime is None:
            atexit.unregister(close_all)
            atexit.register(close_all)
            runtime = Runtime(config)
            runtime.start()
            _runtimes.append(runtime)
    return runtime


def close_all() -> None:
    """Close every shared runtime; later clients make new ones."""
    with _runtimes_lock:
        runtimes = _runtimes.copy()
        _runtimes.clear()
    for runtime in runtimes:
        runtime.close()
