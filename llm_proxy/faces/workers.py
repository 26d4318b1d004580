"""Several processes that serve one address: ``server.workers``.

The supervisor binds the sockets, starts the workers and does no more than watch them: it has no cache and no models.
Where a worker dies another one takes its place and its socket, with what waits there. The workers are programs of
their own (spawned, not forked), and share nothing but the cache directory.

::

    supervisor ── SIGTERM, SIGINT ──> SIGTERM to each worker ──> each finishes its answers (drain_s) ──> all are gone
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

from .serve import serve_on

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from llm_proxy.config import Config

__all__ = ["supervise"]

logger = logging.getLogger("llm_proxy")
_SPAWN = multiprocessing.get_context("spawn")
_START_S = 120.0
_LONGEST_PAUSE_S = 5.0
_WELL_S = 60.0  # a worker that lived as long did not die of how it started
_CLOSE_S = 15.0  # beyond `drain_s`: for the cache to be written
_TURN_S = 0.5


def supervise(config: Config, listeners: Sequence[socket.socket], ready: Callable[[], object]) -> None:
    """Run the workers until SIGTERM or SIGINT; in the main thread, else nothing but an error ends it.

    Args:
        config: Settings, checked by `llm_proxy.faces.serve.server_config`.
        listeners: The socket of each worker.
        ready: Called when all take calls.

    Raises:
        LLMProxyError: A worker did not start.
    """
    asked_to_end = threading.Event()
    workers = [_Worker(config, listener) for listener in listeners]
    with _Signals(asked_to_end):
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.wait_until_ready(asked_to_end)
            if not asked_to_end.is_set():
                ready()
            while not asked_to_end.is_set():
                _look_after(workers)
        finally:
            _end(workers, patience_s=config.server.drain_s + _CLOSE_S)


class _Worker:
    """One process, and those that take its place."""

    def __init__(self, config: Config, listener: socket.socket) -> None:
        self._config, self._listener = config, listener
        self.process: SpawnProcess | None = None
        self._deaths = 0
        self._started_s = self._due_s = 0.0

    def start(self) -> None:
        """Start a process."""
        self._heard, said = _SPAWN.Pipe(duplex=False)
        self.process = _SPAWN.Process(target=_work, args=(self._config, self._listener, said), name="llm-proxy worker")
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
                    return
                raise LLMProxyError("a worker process ended while it started; with server.workers = 1 it says why")
            if time.monotonic() > deadline_s:
                raise LLMProxyError(f"a worker process did not take calls within {_START_S:.0f} s")

    def look_after(self) -> None:
        """Replace a process that died; one that dies again and again after longer and longer pauses."""
        if self.process is not None and self.process.exitcode is not None:
            lived_s = time.monotonic() - self._started_s
            self._deaths = 1 if lived_s > _WELL_S else self._deaths + 1
            pause_s = min(_LONGEST_PAUSE_S, 0.1 * (2**self._deaths - 2))
            code = self.process.exitcode
            logger.warning("llm-proxy: worker %s died (%s); another one starts", self.process.pid, code)
            self.process, self._due_s = None, time.monotonic() + pause_s
        if self.process is None and time.monotonic() >= self._due_s:
            self.start()


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
    """While it lasts, SIGTERM and SIGINT set an event; without effect off the main thread."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, lambda *_: self._event.set())

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _work(config: Config, listener: socket.socket, said: Connection) -> None:
    """What a worker process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve_on(config, listener, lambda: said.send_bytes(b"ready"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
