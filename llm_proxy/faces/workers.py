"""Several processes that serve one address: ``server.workers``.

The supervisor binds the sockets, starts the workers and does no more than watch them: it has no cache and no models.
Where a worker dies another one takes its place and its socket, with what waits there. The workers are programs of
their own (spawned, not forked), and share nothing but the cache directory.

::

    supervisor ── SIGTERM, SIGINT ──> SIGTERM to each worker ──> each finishes its answers (drain_s) ──> all are gone
    supervisor ── SIGHUP ──> new settings, if they are right: SIGHUP to each worker, see `llm_proxy.faces.reload`
    a worker dies ──> a new one, at once, later where it dies again and again
    the supervisor dies ──> each worker ends as by SIGTERM
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import LLMProxyError

from .reload import kept_settings
from .serve import serve_on, server_config

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from types import FrameType

    from llm_proxy.config import Config

    from .reload import Reread

__all__ = ["supervise"]

logger = logging.getLogger("llm_proxy")
_SPAWN = multiprocessing.get_context("spawn")
_START_S = 120.0
_LONGEST_PAUSE_S = 5.0
_WELL_S = 60.0  # a worker that lived as long did not die of how it started
_CLOSE_S = 15.0  # beyond `drain_s`: for the cache to be written
_TURN_S = 0.5


def supervise(
    config: Config, listeners: Sequence[socket.socket], ready: Callable[[], object], reread: Reread | None = None
) -> None:
    """Run the workers until SIGTERM or SIGINT; in the main thread, else nothing but an error ends it.

    Args:
        config: Settings, checked by `llm_proxy.faces.serve.server_config`.
        listeners: The socket of each worker.
        ready: Called when all take calls.
        reread: Reads the settings anew, at SIGHUP; can be pickled.

    Raises:
        LLMProxyError: A worker did not start.
    """
    asked_to_end, asked_to_reload = threading.Event(), threading.Event()
    workers = [_Worker(config, listener, reread) for listener in listeners]
    with _Signals(asked_to_end, None if reread is None else asked_to_reload):
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.wait_until_ready(asked_to_end)
            if not asked_to_end.is_set():
                ready()
            while not asked_to_end.is_set():
                if asked_to_reload.is_set() and reread is not None:
                    asked_to_reload.clear()
                    config = _reload(workers, config, reread)
                _look_after(workers)
        finally:
            _end(workers, patience_s=config.server.drain_s + _CLOSE_S)


class _Worker:
    """One process, and those that take its place."""

    def __init__(self, config: Config, listener: socket.socket, reread: Reread | None = None) -> None:
        self._config, self._listener, self._reread = config, listener, reread
        self.process: SpawnProcess | None = None
        self._is_ready = self._is_outdated = False
        self._deaths = 0
        self._started_s = self._due_s = 0.0

    def start(self) -> None:
        """Start a process."""
        self._heard, said = _SPAWN.Pipe(duplex=False)
        self._is_ready = self._is_outdated = False
        work = self._config, self._listener, said, self._reread
        self.process = _SPAWN.Process(target=_work, args=work, name="llm-proxy worker")
        self.process.start()
        said.close()  # so that it is over here when it is over there
        self._started_s = time.monotonic()

    def wait_until_ready(self, asked_to_end: threading.Event) -> None:
        """Wait until the process takes calls, or the end is near.

        Raises:
            LLMProxyError: It died, or takes too long.
        """
        deadline_s = time.monotonic() + _START_S
        while not asked_to_end.is_set():
            if self._heard.poll(_TURN_S):
                with suppress(EOFError):
                    self._heard.recv_bytes()
                    self._is_ready = True
                    return
                raise LLMProxyError("a worker process ended while it started; with server.workers = 1 it says why")
            if time.monotonic() > deadline_s:
                raise LLMProxyError(f"a worker process did not take calls within {_START_S:.0f} s")

    def renew(self, config: Config) -> None:
        """Have this process, and those that take its place, go over to new settings."""
        self._config, self._is_outdated = config, True

    def _tell(self) -> None:
        """Pass SIGHUP on to a process that takes calls: one that only starts would die of it."""
        if not self._is_ready and self._heard.poll():
            with suppress(EOFError):
                self._heard.recv_bytes()
                self._is_ready = True
        if self._is_ready and self.process is not None and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGHUP)
            self._is_outdated = False

    def look_after(self) -> None:
        """Replace a process that died; one that dies again and again after longer and longer pauses."""
        if self._is_outdated and self.process is not None and self.process.exitcode is None:
            self._tell()
        if self.process is not None and self.process.exitcode is not None:
            lived_s = time.monotonic() - self._started_s
            self._deaths = 1 if lived_s > _WELL_S else self._deaths + 1
            pause_s = min(_LONGEST_PAUSE_S, 0.1 * (2**self._deaths - 2))
            code = self.process.exitcode
            logger.warning("llm-proxy: worker %s died (%s); another one starts", self.process.pid, code)
            self.process, self._due_s = None, time.monotonic() + pause_s
        if self.process is None and time.monotonic() >= self._due_s:
            self.start()


def _reload(workers: Sequence[_Worker], config: Config, reread: Reread) -> Config:
    """Have all workers go over to new settings; wrong ones reach none of them. The settings from now on."""
    try:
        config, _ = kept_settings(config, server_config(reread()))
    except LLMProxyError as exc:
        logger.error("llm-proxy: the new settings are not taken, the old ones stay: %s", exc)
        return config
    for worker in workers:
        worker.renew(config)
    return config


def _look_after(workers: Sequence[_Worker]) -> None:
    wait([worker.process.sentinel for worker in workers if worker.process is not None], timeout=_TURN_S)
    for worker in workers:
        worker.look_after()


def _end(workers: Sequence[_Worker], *, patience_s: float) -> None:
    """End all, and kill what is left after a while."""
    alive = [worker.process for worker in workers if worker.process is not None]
    for process in alive:
        process.terminate()
    deadline_s = time.monotonic() + patience_s
    for process in alive:
        process.join(max(0.0, deadline_s - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


class _Signals:
    """While it lasts, SIGTERM and SIGINT set one event, and SIGHUP another; without effect off the main thread."""

    def __init__(self, ends: threading.Event, reloads: threading.Event | None) -> None:
        self._events = {signal.SIGTERM: ends, signal.SIGINT: ends}
        if reloads is not None and hasattr(signal, "SIGHUP"):
            self._events[signal.SIGHUP] = reloads
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._events:
                self._before[number] = signal.signal(number, self._caught)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._events[signal.Signals(number)].set()

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _work(config: Config, listener: socket.socket, said: Connection, reread: Reread | None) -> None:
    """What a worker process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve_on(config, listener, lambda: said.send_bytes(b"ready"), reread)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
