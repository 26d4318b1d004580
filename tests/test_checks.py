"""Checks of semantic hits, whole: through both clients and the proxy, down to the files, and back by `undo`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import AsyncOpenAI, OpenAI, beside
from llm_proxy.cache.guard import Guard, Judgement
from llm_proxy.config import Config
from llm_proxy.engine.allowance import MOST_AT_ONCE
from llm_proxy.engine.shadow import LIMIT_S
from llm_proxy.errors import CacheError
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.observe.verdicts import Verdicts, verdicts
from llm_proxy.runtime import LEDGER_NAME, Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder
from tests.drive_kit import SLOW_S, nothing_is_left_running, until

QUESTION = "what is the capital of France"
SAME, OTHER = f"{QUESTION}?", f"{QUESTION}, please"

leftovers = pytest.fixture(autouse=True)(nothing_is_left_running)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "PAUSE_S", 0.0)


@pytest.fixture(autouse=True)
def sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard lets all pairs pass: it is not what is tested here."""
    monkeypatch.setattr(Guard, "judge", lambda *pair: Judgement("", 0.998))


def answer(body: Mapping[str, Any]) -> str:
    return "Lyon" if "please" in body["messages"][-1]["content"] else "Paris"


def new_runtime(folder: Path, **cache: Any) -> Runtime:
    sections = {
        "cache": {"directory": folder, "threshold": 0.5, "check_share": 1.0, **cache},
        "encoder": {"wait_s": SLOW_S},
        "backends": {"own": {"base_url": "http://127.0.0.1:9/v1"}},
    }
    made = Runtime(Config(**sections), encoder=FakeEncoder())  # type: ignore[arg-type]
    assert made.cache is not None
    made.cache.open()
    return made


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = new_runtime(tmp_path)
    yield made
    made.close()


def counts(runtime: Runtime) -> Verdicts:
    assert runtime.ledger is not None
    runtime.ledger.flush()
    return verdicts(runtime.config.cache.directory / LEDGER_NAME).get("", Verdicts())


class Asking:
    """A sync client of a runtime and its simulated provider."""

    def __init__(self, runtime: Runtime, backend: FakeBackend) -> None:
        self.backend = backend
        self.client = OpenAI(api_key="k", http_client=backend.client(), llm_proxy=runtime)

    def __call__(self, text: str, **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        raw = self.client.chat.completions.with_raw_response.create(model="own/m", messages=messages, **options)  # type: ignore[call-overload]
        return raw.http_response

    def status(self, text: str, **options: Any) -> str:
        found: str = self(text, **options).headers["cache-status"]
        return found


@pytest.fixture
def ask(runtime: Runtime) -> Asking:
    return Asking(runtime, FakeBackend(answer))


def test_a_right_hit(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    assert ask.status(SAME) == 'llm-proxy; hit; detail="semantic; similarity=0.833; p_wrong=0.002"'
    until(lambda: counts(runtime).checked == 1)
    assert counts(runtime) == Verdicts(served=1, checked=1)
    assert ask.status(SAME) == 'llm-proxy; hit; detail="semantic; similarity=0.833; p_wrong=0.002"'
    until(lambda: counts(runtime).checked == 2)
    assert runtime.troubles.counts == {}


def test_a_wrong_hit_is_served_once(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    assert ask(OTHER).json()["choices"][0]["message"]["content"] == "Paris"
    until(lambda: counts(runtime).wrong == 1)
    again = ask(OTHER)
    assert again.json()["choices"][0]["message"]["content"] == "Lyon"
    assert again.headers["cache-status"] == 'llm-proxy; hit; detail="exact"'


def test_a_stream_is_checked_plainly(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    ask(SAME, stream=True).read()
    until(lambda: counts(runtime).checked == 1)
    assert "stream" not in ask.backend.requests[-1]


def test_evidence_outlives_the_process(tmp_path: Path) -> None:
    first = new_runtime(tmp_path)
    ask = Asking(first, FakeBackend(answer))
    ask(QUESTION)
    hit = ask(SAME)
    until(lambda: counts(first).checked == 1)
    assert first.undo(hit.extensions["llm_proxy"])
    first.close()
    second = new_runtime(tmp_path)
    assert "refused=evidence" in Asking(second, FakeBackend(answer)).status(SAME)
    until(lambda: counts(second).explored == 1)
    assert counts(second) == Verdicts(served=1, checked=1, undone=1, explored=1)
    second.close()


def test_a_hit_is_taken_back_by_its_id(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    hit_id = ask(SAME).headers["x-llm-proxy-id"]
    assert runtime.undo(hit_id)
    assert counts(runtime).undone == 1
    with pytest.raises(CacheError, match="has no semantic hit with the id 'feed'"):
        runtime.undo("feed")


def test_in_memory_there_is_no_ledger_and_the_outcome_does(tmp_path: Path) -> None:
    runtime = new_runtime(tmp_path, store="memory")
    ask = Asking(runtime, FakeBackend(answer))
    ask(QUESTION)
    hit = ask(SAME)
    until(lambda: len(ask.backend.requests) == 2)
    assert runtime.undo(hit.extensions["llm_proxy"])
    with pytest.raises(CacheError, match="has no semantic hit"):
        runtime.undo(hit.headers["x-llm-proxy-id"])
    runtime.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_check_is_no_concern_of_the_caller(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    ask.backend.status = 500
    assert ask(SAME).status_code == 200
    until(lambda: counts(runtime).unclear == 1)


def test_a_check_has_a_time_limit_of_its_own(runtime: Runtime) -> None:
    backend = FakeBackend(answer)
    requests: list[httpx.Request] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return backend._sync(request)

    http = httpx.Client(transport=httpx.MockTransport(upstream))
    client = OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1", timeout=600, http_client=http, llm_proxy=runtime)
    for text in (QUESTION, SAME):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    until(lambda: counts(runtime).checked == 1)
    assert [request.extensions["timeout"]["read"] for request in requests] == [600, LIMIT_S]


def test_closing_does_not_wait_for_the_upstream(runtime: Runtime, ask: Asking) -> None:
    ask(QUESTION)
    stuck, go_on = threading.Event(), threading.Event()

    def slow(body: Mapping[str, Any]) -> str:
        stuck.set()
        assert go_on.wait(SLOW_S)
        return "Paris"

    ask.backend.answer = slow
    assert ask(SAME).status_code == 200
    assert stuck.wait(SLOW_S)
    runtime.close()
    assert not go_on.is_set()
    go_on.set()
    until(lambda: not any(thread.name == "llm-proxy-beside" for thread in threading.enumerate()))
    assert runtime.troubles.counts == {}


def test_the_async_client(runtime: Runtime) -> None:
    backend = FakeBackend(answer)

    async def main() -> None:
        client = AsyncOpenAI(api_key="k", http_client=backend.async_client(), llm_proxy=runtime)
        for text in (QUESTION, OTHER):
            messages: Any = [{"role": "user", "content": text}]
            await client.chat.completions.create(model="own/m", messages=messages)
        await asyncio.to_thread(until, lambda: counts(runtime).wrong)

    asyncio.run(asyncio.wait_for(main(), SLOW_S))
    assert counts(runtime) == Verdicts(served=1, checked=1, wrong=1)
    assert runtime.troubles.counts == {}


def test_the_async_client_ends_in_the_middle_of_a_check(runtime: Runtime) -> None:
    begun = asyncio.Event()

    class Stuck(FakeBackend):
        async def _async(self, request: Any) -> Any:
            if len(self.requests) == 1:
                begun.set()
                await asyncio.sleep(SLOW_S)
            return await super()._async(request)

    backend = Stuck(answer)

    async def main() -> None:
        client = AsyncOpenAI(api_key="k", http_client=backend.async_client(), llm_proxy=runtime)
        for text in (QUESTION, SAME):
            messages: Any = [{"role": "user", "content": text}]
            await client.chat.completions.create(model="own/m", messages=messages)
        await asyncio.wait_for(begun.wait(), SLOW_S)

    asyncio.run(asyncio.wait_for(main(), SLOW_S))
    assert [runtime.checker._allowance.sit() for _ in range(MOST_AT_ONCE)] == [True] * MOST_AT_ONCE, "its seat is free"
    assert runtime.troubles.counts == {}


def test_the_proxy(runtime: Runtime) -> None:
    backend = FakeBackend(answer)

    async def main() -> None:
        app = ProxyApp(runtime, transport=httpx.MockTransport(backend._async))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:
            for text in (QUESTION, OTHER):
                body = {"model": "own/m", "messages": [{"role": "user", "content": text}]}
                response = await client.post("/v1/chat/completions", json=body)
                assert response.status_code == 200
        assert len(response.headers["x-llm-proxy-id"]) == 16
        await asyncio.to_thread(until, lambda: counts(runtime).wrong)

    asyncio.run(asyncio.wait_for(main(), SLOW_S))
    assert runtime.troubles.counts == {}
