"""An event loop never waits for the disk: the store is opened and written on other threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import AsyncOpenAI, Config, Runtime
from llm_proxy.cache.stores import _rows
from llm_proxy.cache.stores._rows import Rows
from llm_proxy.testing import FakeBackend, FakeClock


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the threads that open the file, and of those that write it."""
    found: dict[str, set[str]] = {"open": set(), "write": set()}

    def noted(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            found[what].add(threading.current_thread().name)
            return call(*args, **kwargs)

        return run

    monkeypatch.setattr(Rows, "__init__", noted("open", Rows.__init__))
    monkeypatch.setattr(Rows, "writing", noted("write", Rows.writing))
    assert _rows.Rows is Rows
    return found


def runtime_in(directory: Path, **options: Any) -> Runtime:
    return Runtime(Config(cache={"directory": directory, "semantic": False}, observe={"ledger": False}), **options)


async def asked(runtime: Runtime, text: str = "q", backend: FakeBackend | None = None) -> str:
    async with (backend or FakeBackend()).async_client() as http_client:
        client = AsyncOpenAI(api_key="k", base_url="http://x/v1", http_client=http_client, llm_proxy=runtime)
        messages: Any = [{"role": "user", "content": text}]
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=messages)
    return raw.headers["cache-status"]


def test_hits_are_written_elsewhere(tmp_path: Path, threads: dict[str, set[str]]) -> None:
    clock = FakeClock()
    runtime = runtime_in(tmp_path, clock=clock)

    async def main() -> list[str]:
        found = [await asked(runtime)]
        for _ in range(3):
            clock.advance(2.0)
            found.append(await asked(runtime))
        return found

    assert asyncio.run(main()) == ["llm-proxy; fwd=uri-miss; stored", *['llm-proxy; hit; detail="exact"'] * 3]
    runtime.pool().shutdown()  # waits for what is under way
    with closing(sqlite3.connect(tmp_path / "entries" / "cache.db")) as database:
        ((hits,),) = database.execute("SELECT value FROM Cache WHERE key LIKE 'h:%'").fetchall()
    assert hits > 0
    assert len(threads["write"]) > 1, "one stores, another one counts"
    assert threading.main_thread().name not in threads["open"] | threads["write"]
    runtime.close()


def test_a_store_that_another_process_has_locked(tmp_path: Path, threads: dict[str, set[str]]) -> None:
    before = runtime_in(tmp_path)
    assert before.cache is not None
    before.cache.get("x")
    before.close()
    threads["open"].clear()
    other = sqlite3.connect(tmp_path / "entries" / "cache.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    runtime = runtime_in(tmp_path)

    async def main() -> str:
        call = asyncio.create_task(asked(runtime))
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 20, "the loop went on meanwhile"
        return await call

    assert asyncio.run(main()) == 'llm-proxy; fwd=miss; detail="cache-late"'
    assert threading.main_thread().name not in threads["open"]
    other.close()
    runtime.close()
