"""The stream: what is new comes by itself; it is bounded, drops who does not read, and ends with the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.faces.admission import Admission
from llm_proxy.faces.dashboard import app as app_module
from llm_proxy.faces.dashboard.app import Dashboard
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import until
from tests.faces.dashboard.kit import Shown, shown
from tests.observe.events_kit import miss

SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/llm-proxy/events",
    "query_string": b"range=hour",
    "headers": [(b"host", b"127.0.0.1")],
}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path) as found:
        yield found


def events_in(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


class Listener:
    """A server's side of one stream, in memory."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard, self.messages = dashboard, [dict[str, Any]()]
        self.leaves, self.reads, self.has_more = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.reads.set()

    async def receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message.get("more_body"):
            await self.reads.wait()
        self.messages.append(message)
        self.has_more.set()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.dashboard(dict(SCOPE), self.receive, self.send))

    @property
    def events(self) -> list[tuple[str, Any]]:
        return events_in(b"".join(message.get("body", b"") for message in self.messages).decode())

    def told(self, name: str) -> list[list[float]]:
        """When the calls came that each event of a name told of."""
        return [[row["at_s"] for row in data] for found, data in self.events if found == name]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that was sent."""
        async with asyncio.timeout(20):
            while not is_so():
                self.has_more.clear()
                await self.has_more.wait()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings: dict[str, Any] = {"store": "memory", "semantic": False}
    made = Runtime(server_config(Config(backends={"main": {"base_url": "http://127.0.0.1:1/v1"}}, cache=settings)))
    yield made
    made.close()


def dashboard_of(runtime: Runtime, **options: float) -> Dashboard:
    return Dashboard(runtime, Admission(runtime), **{"tick_s": 0.01, **options})


async def test_it_begins_with_all_and_goes_on_with_what_is_new(runtime: Runtime):
    listener = Listener(dashboard_of(runtime))
    runtime.emit(miss(1.0))
    stream = listener.start()
    await listener.until(lambda: len(listener.events) >= 2)
    assert [name for name, _ in listener.events[:2]] == ["calls", "summary"]
    assert [row["at_s"] for row in listener.events[0][1]] == [1.0]
    assert listener.events[1][1]["range"] == "hour"
    runtime.emit(miss(2.0))
    await listener.until(lambda: [2.0] in listener.told("calls"))
    listener.leaves.set()
    await stream
    assert listener.messages[1]["status"] == 200
    assert listener.messages[-1].get("more_body"), "nobody is there to be told of an end"


async def test_it_ends_with_the_server(runtime: Runtime):
    dashboard = dashboard_of(runtime, tick_s=60)
    listener = Listener(dashboard)
    stream = listener.start()
    await listener.until(lambda: len(listener.events) >= 2)
    dashboard.close()
    await stream
    assert listener.messages[-1] == {"type": "http.response.body", "body": b""}
    late = Listener(dashboard)
    await late.start()
    assert late.messages[1]["status"] == 503


async def test_a_dashboard_that_is_off_has_none(tmp_path: Path):
    server: dict[str, Any] = {"dashboard": False, "metrics": False}
    backends: dict[str, Any] = {"main": {"base_url": "http://127.0.0.1:1/v1"}}
    made = Runtime(Config(backends=backends, server=server, cache={"store": "memory", "semantic": False}))
    dashboard = dashboard_of(made)
    assert not dashboard.takes(SCOPE)
    listener = Listener(dashboard)
    await listener.start()
    assert listener.messages[1]["status"] == 404
    made.close()


async def test_who_does_not_read_is_dropped(runtime: Runtime):
    dashboard = dashboard_of(runtime, patience_s=0.05)
    listener = Listener(dashboard)
    listener.reads.clear()
    await listener.start()
    assert len(listener.messages) == 2, "the head, and nothing after it"
    assert dashboard._listeners == 0


async def test_there_are_few_at_a_time(runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app_module, "_MOST_LISTENERS", 1)
    dashboard = dashboard_of(runtime)
    first, second = Listener(dashboard), Listener(dashboard)
    stream = first.start()
    await first.until(lambda: bool(first.events))
    await second.start()
    assert second.messages[1]["status"] == 503
    first.leaves.set()
    await stream
    third = Listener(dashboard)
    stream = third.start()
    await third.until(lambda: bool(third.events))
    third.leaves.set()
    await stream


async def test_what_breaks_ends_the_stream_and_frees_its_place(runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    dashboard = dashboard_of(runtime)
    monkeypatch.setattr(dashboard._board, "summary", lambda name: 1 / 0)
    listener = Listener(dashboard)
    await listener.start()
    assert len(listener.messages) == 2, "the head, and nothing after it"
    assert dashboard._listeners == 0
    assert runtime.troubles.counts == {"dashboard": 1}


def test_over_a_socket(page: Shown):
    page.ask("one")
    with page.listening("/llm-proxy/events?range=day") as connection:
        received = b""
        while b"event: summary" not in received:
            received += connection.recv(65536)
        assert b"content-type: text/event-stream" in received
        assert b"event: calls" in received
    until(lambda: page.app._dashboard._listeners == 0, 20)
