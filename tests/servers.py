"""Real HTTP servers on loopback for tests, in a thread, ended with the block."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvicorn.server

__all__ = ["Served", "serving"]


class _Brisk:
    """asyncio as uvicorn's server sees it in tests, which start thousands: it looks for its end every 10 ms."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(delay_s: float) -> None:
        await asyncio.sleep(delay_s / 10)


uvicorn.server.asyncio = _Brisk()  # type: ignore[assignment]


@dataclass(frozen=True)
class Served:
    """A running server and the application it serves."""

    url: str
    app: Any


@contextmanager
def serving(app: Any, *, lifespan: str = "off") -> Iterator[Served]:
    """Serve an ASGI application on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.005)
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
