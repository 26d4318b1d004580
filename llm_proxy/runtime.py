"""Puts the parts together: from a `Config` to an engine with its cache, encoder, router, prices and ledger.

Clients with equal settings share one in a process: a client is cheap to make, and all of them see the same answers.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .backends.prices import Prices
from .backfill import Backfill
from .boarding import Flights
from .cache.resting import RestingCache
from .checks import LEDGER_NAME, attempts_for, cascade_for, chains_for, checker_for, hit_named, scorer_for
from .clocks import SystemClock
from .config import Config, EncoderConfig, load
from .drafts import drafting_for
from .drive import AsyncDriver, Driver
from .engine.flow import Engine
from .engine.outgoing import Dispatcher
from .engine.settle import Settler
from .errors import CacheError, LLMProxyError
from .forking import Workers, end_in_peace, on_fork, working
from .learning import Learning, learn_from_ledger
from .limits import gate_for
from .observe.events import CallEvent, Sink, Troubles
from .route.costs import CostEstimator
from .route.lazy import LazyHeads, heads_for
from .route.select import Selector
from .sinks import ledger_for, may_show_questions, sinks_for

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from .cache.cache import Cache
    from .encode.lazy import LazyEncoder
    from .engine.ports import Clock
    from .route.base import Head
    from .route.plan import Heads
    from .types import Outcome

__all__ = ["LEDGER_NAME", "Runtime", "Settings", "SystemClock", "alive", "close_all", "runtime_for"]

logger = logging.getLogger("llm_proxy")
_MAINTAIN_EVERY_S = 60.0


class Runtime:
    """All that serves one configuration. Opening files and loading models happens in the background.

    A child of a fork gets parts of its own; a memory cache is empty there. Parts that were given stay as they are.

    Args:
        config: Settings.
        clock: Clocks; the machine's by default.
        sinks: More takers of events, beside the ledger.
        cache: A ready cache instead of the configured one.
        encoder: A ready encoder instead of the configured one.
        heads: The heads of routes, by name, or what gives them; see `llm_proxy.route.select.Selector`.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        sinks: tuple[Sink, ...] = (),
        cache: Cache | None = None,
        encoder: LazyEncoder | None = None,
        heads: Mapping[str, Head] | Heads | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self._given_cache, self._given_sinks, self._is_closed = cache, sinks, False
        self._heads = self._open_heads() if heads is None else heads
        self._assemble(cache or self._open_cache(), encoder)
        _alive.add(self)
        on_fork(_in_child)

    def _assemble(self, cache: Cache | None, encoder: LazyEncoder | None) -> None:
        config, self.cache = self.config, cache
        # Reentrant: the garbage collector may end a dropped call at any place, and that call's event comes here.
        self._lock = threading.RLock()
        self._pool: Workers | None = None
        self._maintained_s = self.clock.monotonic()
        self.troubles, self.prices = Troubles(), Prices(config.backends)
        self.costs = CostEstimator(self.prices)
        note, monotonic = self.troubles.note, self.clock.monotonic
        self.selector = Selector(config, costs=self.costs, heads=self._heads, note=note, monotonic=monotonic)
        self.encoder = encoder or self._open_encoder()
        self._backfill = Backfill(self.troubles)
        self.ledger = ledger_for(config, self.clock, self.troubles)
        self._sinks: tuple[Sink, ...] = (*self._given_sinks, *sinks_for(config, self.ledger))
        # The command line and the background work use the cache itself; calls use it through its rests.
        self._assemble_engine(RestingCache(cache, monotonic=monotonic) if cache is not None else None)
        self.flights = Flights()
        self.driver = Driver(self.flights, self.pool, self._in_background)
        self.async_driver = AsyncDriver(self.flights, self.pool, self._in_background)

    def _settler(self, answers: RestingCache | None, encoder: LazyEncoder | None) -> Settler:
        return Settler(
            self.config.cache,
            cache=answers,
            encoder=encoder,
            prices=self.prices,
            clock=self.clock,
            troubles=self.troubles,
            sink=self.emit,
            appraiser=self.selector,
            watch=self.selector.health,
            keeps_questions=may_show_questions(self.config),
        )

    def _assemble_engine(self, answers: RestingCache | None) -> None:
        config, clock, troubles, prices = self.config, self.clock, self.troubles, self.prices
        encoder = self.encoder if config.cache.semantic else None  # else it serves routes alone
        settler = self._settler(answers, encoder)
        dispatcher = Dispatcher(config, selector=self.selector, troubles=troubles, encoder=self.encoder, prices=prices)
        self.checker = checker_for(
            config,
            cache=answers,
            dispatcher=dispatcher,
            settler=settler,
            encoder=encoder,
            prices=prices,
            clock=clock,
            troubles=troubles,
            ledger=self.ledger,
        )
        self.learning = Learning(
            config, dispatcher, self.encoder, self.undo, prices=prices, clock=clock, troubles=troubles
        )
        gate = self.gate = gate_for(self, dispatcher, settler, self._in_background)
        attempts = attempts_for(config, dispatcher, settler, clock, troubles, gate=gate, prices=prices)
        scorer = scorer_for(config, self.encoder, troubles)
        cascade = cascade_for(config, dispatcher, settler, clock, gate=gate, scorer=scorer, troubles=troubles)
        sends = drafting_for(self, attempts, dispatcher, settler, gate=gate, scorer=scorer)
        self.chains = chains_for(self, sends, settler, self._in_background)
        self.engine = Engine(
            config,
            cache=answers,
            encoder=encoder,
            dispatcher=dispatcher,
            settler=settler,
            checker=self.checker,
            cascade=cascade,
            chains=self.chains,
            learner=self.learning.learner,
            gate=gate,
            clock=clock,
            troubles=troubles,
        )

    def start(self) -> None:
        """Load what takes long in the background; calls that come earlier are misses, not errors."""
        self._in_background(self.prices.warm)
        self._in_background(self._learn_from_ledger)
        if self.cache is not None:
            self._in_background(self._open_in_background)
        if self.encoder is not None and (self._heads or self.config.cache.semantic):  # else a head loads it
            self.encoder.start(self._in_background)
        if isinstance(self._heads, LazyHeads):
            self._heads.start(lambda call: self.pool().submit(call))

    def prepare(self) -> None:
        """Load now what routes decide by, instead of `start`: what earlier calls have taken, and the heads.

        Raises:
            LLMProxyError: A head can't be loaded.
        """
        self._learn_from_ledger()
        if isinstance(self._heads, LazyHeads):
            self._heads.load()

    def pool(self) -> ThreadPoolExecutor:
        """Worker threads; made on first use.

        Raises:
            RuntimeError: The runtime is closed.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this runtime is closed; make a new one")
            if self._pool is None:
                made = Workers(max(2, min(8, (os.cpu_count() or 2))), thread_name_prefix="llm-proxy")
                self._pool = self._pool or made  # a call that was collected meanwhile may have made one
            return self._pool

    def emit(self, event: CallEvent) -> None:
        """Hand one event to every sink; one that raises is counted and does not break the call."""
        if self.clock.monotonic() - self._maintained_s >= _MAINTAIN_EVERY_S:
            self._maintained_s = self.clock.monotonic()
            self._in_background(self._maintain)
        for sink in self._sinks:
            try:
                sink(event)
            except Exception as exc:  # noqa: BLE001 - sinks may be the user's own
                self.troubles.note("sink", exc)

    def add_sink(self, sink: Sink) -> None:
        """Have one more taker of events, from now on."""
        self._given_sinks, self._sinks = (*self._given_sinks, sink), (*self._sinks, sink)

    def undo(self, hit: Outcome | str) -> bool:
        """Take a semantic hit back: its entry is no longer served to such questions. Whether the entry is still there.

        Args:
            hit: ``response.extensions["llm_proxy"]``, or the header ``x-llm-proxy-id``, by which the hit is looked up
                in the ledger.

        Raises:
            CacheError: The ledger has no such hit, or the evidence can't be written.
            ValueError: It is no semantic hit.
        """
        return self.checker.undo(hit_named(self.config, hit, self.ledger) if isinstance(hit, str) else hit)

    def feedback(self, call: Outcome | str, good: float) -> None:
        """Say how good an answer was; see `llm_proxy.learning.Feedback.give`.

        Args:
            call: ``response.extensions["llm_proxy"]``, or its header ``x-llm-proxy-id``.
            good: True, false, or a score in [0, 1].
        """
        self.learning.feedback.give(call if isinstance(call, str) else call.id, good)

    def close(self) -> None:
        """Write what is pending and release files and threads; calling it again is safe."""
        self.driver.close()
        self.async_driver.close()
        self.checker.close()
        with self._lock:
            self._is_closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        if self.cache is not None:
            try:
                self.cache.close()
            except LLMProxyError as exc:
                self.troubles.note("cache", exc)
        for part in (self.learning, self.gate, self.chains, self.ledger):
            if part is not None:
                part.close()

    def after_fork(self, *, is_quiet: bool) -> None:
        """Take new parts in a child; those of the parent are neither used nor closed nor collected.

        Args:
            is_quiet: No other thread was inside llm-proxy at the fork. Else modules may be half imported for ever,
                and calls are passed on without cache and encoder.
        """
        stores = self.cache, self.ledger, self.learning, self.gate, self.chains
        _inherited.append((*stores, self.encoder, self.driver, self.async_driver, self._pool))
        if self._is_closed:
            self._lock = threading.RLock()
            return
        if not is_quiet:
            self._heads = {}
            self._assemble(None, None)
            self.troubles.note("cache", CacheError("forked while llm-proxy was loading: make the client in the child"))
            return
        if isinstance(self._heads, LazyHeads):
            self._heads.after_fork()
        self._assemble(self._given_cache or self._open_cache(), self.encoder)
        if self.encoder is not None:
            self.encoder.after_fork()

    def _in_background(self, call: Callable[[], Any]) -> None:
        """Have a function called by a worker thread; a process that has no thread left does without it."""
        if self._is_closed:
            return
        try:
            self.pool().submit(call)
        except RuntimeError as exc:
            self.troubles.note("threads", exc)

    def _open_cache(self) -> Cache | None:
        if not self.config.cache.enabled:
            return None
        from .cache.build import build_for

        return build_for(self.config, self.clock)

    def _open_heads(self) -> LazyHeads:
        return heads_for(
            self.config,
            encoder=lambda: self.encoder,
            submit=lambda call: self.pool().submit(call),
            note=lambda part, exc: self.troubles.note(part, exc),
            monotonic=self.clock.monotonic,
        )

    def _open_encoder(self) -> LazyEncoder | None:
        may_have_heads = self._heads or getattr(self._heads, "has_routes", False)
        if not may_have_heads and (self.cache is None or not self.config.cache.semantic):
            return None
        from .encode.extras import exact_only
        from .encode.lazy import build
        from .shipped import silence_onnxruntime

        reason = exact_only(self.config)
        if reason:
            is_chosen = self.config.encoder.kind != EncoderConfig().kind
            logger.log(logging.WARNING if is_chosen else logging.INFO, reason)
            return None
        silence_onnxruntime()  # here, before any part of llm-proxy imports it
        return build(self.config.encoder, monotonic=self.clock.monotonic, note=self.troubles.note)

    def _open_in_background(self) -> None:
        try:
            if self.cache is not None:
                self.cache.open()
        except LLMProxyError as exc:
            self.troubles.note("cache", exc)

    def _learn_from_ledger(self) -> None:
        """Have the estimates begin with what earlier calls have taken; does nothing where no ledger is kept."""
        if self.ledger is not None:
            learn_from_ledger(self.costs, self.config.cache.directory / LEDGER_NAME, self.troubles)

    def _maintain(self) -> None:
        """Do what waits in the cache, and encode entries that have no vector of this encoder."""
        cache, encoder = self.cache, self.encoder
        if cache is None:
            return
        try:
            cache.maintain()
            if encoder is not None and encoder.is_ready and self.config.cache.semantic:
                self._backfill.run(cache, encoder)
        except LLMProxyError as exc:
            self.troubles.note("cache", exc)


_alive: WeakSet[Runtime] = WeakSet()
_inherited: list[Any] = []
"""What a child has of its parent: connections that it must not close, locks that may be held for ever."""


def alive() -> list[Runtime]:
    """Every runtime of this process that is not closed."""
    return [runtime for runtime in list(_alive) if not runtime._is_closed]


def _in_child(is_quiet: bool) -> None:
    _shared.lock = threading.RLock()
    for runtime in list(_alive):
        runtime.after_fork(is_quiet=is_quiet)


class _Shared:
    """The runtimes that clients with equal settings share."""

    def __init__(self) -> None:
        self.runtimes: list[Runtime] = []
        self.lock = threading.RLock()


_shared = _Shared()
Settings = Runtime | Config | Mapping[str, Any] | str | Path | None


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
    with working, _shared.lock:
        runtime = next((known for known in _shared.runtimes if known.config == config), None)
        if runtime is None:
            end_in_peace()
            atexit.unregister(close_all)
            atexit.register(close_all)
            runtime = Runtime(config)
            runtime.start()
            _shared.runtimes.append(runtime)
    return runtime


def close_all(*only: Runtime) -> None:
    """Close every shared runtime, or only these; later clients make new ones."""
    with _shared.lock:
        runtimes = [runtime for runtime in _shared.runtimes if not only or runtime in only]
        _shared.runtimes = [runtime for runtime in _shared.runtimes if runtime not in runtimes]
    for runtime in runtimes:
        runtime.close()
