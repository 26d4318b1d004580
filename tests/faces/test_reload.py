"""New settings by SIGHUP: taken without dropping a stream, refused as a whole where they are wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces._http import httpx
from llm_proxy.faces._memory import settle
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.reload import Reloading, kept_settings
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import (
    DONE,
    STREAM_HEAD,
    Raw,
    RawUpstream,
    chunked,
    completion,
    event,
    raw_response,
    until,
)

WAIT_S = 60.0
THRESHOLD = gc.get_threshold()
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


class TestKept:
    def test_what_can_not_change_keeps_its_value_and_is_named(self, tmp_path: Path) -> None:
        old = Config(server={"port": 1}, cache={"directory": tmp_path / "a", "ttl_s": 5})
        new = Config(server={"port": 2, "idle_s": 3}, cache={"directory": tmp_path / "b", "ttl_s": 6})
        kept, said = kept_settings(old, new)
        assert (kept.server.port, kept.server.idle_s) == (1, 3)
        assert (kept.cache.directory, kept.cache.ttl_s) == (tmp_path / "a", 6)
        assert said == [
            "server.port stays 1 until the server starts anew: 2 was not taken",
            f"cache.directory stays {tmp_path / 'a'} until the server starts anew: {tmp_path / 'b'} was not taken",
        ]

    def test_what_can_change_is_taken_as_it_is(self) -> None:
        old, new = Config(), Config(server={"idle_s": 3}, aliases={"a": "b"})
        assert kept_settings(old, new) == (new, [])


def config(url: str, **sections: Any) -> Config:
    settings = {"cache": {"store": "memory", "semantic": False}, "observe": {"ledger": False}, **sections}
    return Config(backends={"b": {"base_url": url}}, **settings)


class TestHandingOver:
    """Stepped in this process: which parts go over, and who closes them."""

    async def reloaded(self, old: Config, new: Config | Exception) -> tuple[Reloading, ProxyApp, bool]:
        first = ProxyApp(Runtime(server_config(old)))
        app = Reloading(first, server_config)

        def reread() -> Config:
            if isinstance(new, Exception):
                raise new
            return new

        return app, first, await app.reload(reread)

    async def test_the_cache_goes_over_where_it_is_the_same(self) -> None:
        old = config("http://127.0.0.1:9/v1")
        cache_of: Callable[[ProxyApp], Any] = lambda app: app.runtime.cache  # noqa: E731
        app, first, is_taken = await self.reloaded(old, config("http://127.0.0.1:8/v1"))
        assert is_taken
        assert app.app is not first
        assert cache_of(first) is None
        assert cache_of(app.app) is not None
        assert app.app.runtime.config.backends["b"].base_url == "http://127.0.0.1:8/v1"
        await app.app.aclose()

    async def test_another_ttl_makes_a_new_one_and_says_what_is_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        old = config("http://127.0.0.1:9/v1")
        new = config("http://127.0.0.1:9/v1", cache={"store": "memory", "semantic": False, "ttl_s": 5})
        app, _, is_taken = await self.reloaded(old, new)
        assert is_taken
        assert "begins anew" in caplog.text
        await app.app.aclose()

    async def test_the_former_one_goes_though_the_collector_was_to_leave_it_alone(self) -> None:
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # of what earlier tests left
            gc.unfreeze()
            gc.collect()
        app = Reloading(ProxyApp(Runtime(server_config(config("http://127.0.0.1:9/v1")))), server_config)
        runtime = weakref.ref(app.app.runtime)
        settle()
        try:
            new = config("http://127.0.0.1:8/v1")
            assert await app.reload(lambda: new)
            for _ in range(int(WAIT_S / 0.01)):  # its closing goes on in tasks of the loop
                if runtime() is None:
                    break
                await asyncio.sleep(0.01)
            assert runtime() is None
            assert gc.get_freeze_count() > 0, "what stays is left alone again"
        finally:
            gc.unfreeze()
            gc.set_threshold(*THRESHOLD)
            await app.app.aclose()

    @pytest.mark.parametrize(
        "wrong",
        [
            ConfigError("cache.ttl_s must be above 0"),
            config("http://127.0.0.1:9/v1", server={"host": "0.0.0.0"}),
            OSError("gone"),
            RecursionError("too deep"),
        ],
    )
    async def test_wrong_ones_leave_all_as_it_was(self, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
        old = config("http://127.0.0.1:9/v1")
        app, first, is_taken = await self.reloaded(old, wrong)
        assert not is_taken
        assert app.app is first
        assert first.runtime.cache is not None
        assert "the old ones stay" in caplog.text
        await app.app.aclose()

    async def test_a_file_of_keys_that_is_broken(self, tmp_path: Path) -> None:
        (tmp_path / "keys.json").write_text("{")
        old = config("http://127.0.0.1:9/v1")
        new = config("http://127.0.0.1:9/v1", server={"keys_file": str(tmp_path / "keys.json")})
        app, first, is_taken = await self.reloaded(old, new)
        assert not is_taken
        assert app.app is first
        assert first.runtime.cache is not None
        await app.app.aclose()


@dataclass
class Server:
    """A running ``llm-proxy serve``."""

    process: subprocess.Popen[str]
    url: str
    settings: Path
    base: str
    lines: list[str] = field(default_factory=list)

    def write(self, text: str = "", *, server: str = "") -> None:
        folder = self.settings.parent
        self.settings.write_text(
            f'[cache]\ndirectory = "{folder}/cache"\nsemantic = false\n[server]\n{server}\n'
            f'[backends.b]\nbase_url = "{self.base}"\napi_key = "first"\n{text}'
        )

    def reload(self, says: str) -> None:
        """Send SIGHUP and wait until the log says this once more."""
        before = self.said(says)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.said(says) > before, WAIT_S)

    def said(self, words: str) -> int:
        return sum(words in line for line in self.lines)

    def models(self) -> list[str]:
        return [row["id"] for row in httpx.get(f"{self.url}/models", timeout=WAIT_S).json()["data"]]


TAKEN, STAY = "new settings are taken", "the old ones stay"


@contextmanager
def served(folder: Path, upstream: RawUpstream, *more: str) -> Iterator[Server]:
    settings = folder / "llm-proxy.toml"
    made = Server(None, "", settings, upstream.url)  # type: ignore[arg-type]
    made.write()
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        made.process = process
        reader = threading.Thread(target=lambda: made.lines.extend(iter(process.stderr.readline, "")))
        reader.start()
        try:
            made.url = json.loads(process.stdout.readline())["base_url"]
            yield made
        finally:
            process.terminate()
            code = process.wait(WAIT_S)
            reader.join(WAIT_S)
        assert code == 0, made.lines
        assert not [line for line in made.lines if "Traceback" in line]


@dataclass
class Slow:
    """A provider whose streams end when it is told."""

    may_end: threading.Event = field(default_factory=threading.Event)
    keys: list[str | None] = field(default_factory=list)

    def __call__(self, request: Raw) -> None:
        self.keys.append(request.header("authorization"))
        if request.target.endswith("/models"):
            request.send(raw_response(b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'))
        elif b'"stream": true' in request.body or b'"stream":true' in request.body:
            request.send(STREAM_HEAD + chunked(event("first "), is_end=False))
            self.may_end.wait(WAIT_S)
            request.send(chunked(event("last"), event(), DONE))
        else:
            request.send(raw_response(completion()))


def streamed(url: str, begun: threading.Event, into: list[str]) -> None:
    body = {**QUESTION, "stream": True, "seed": len(into)}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=WAIT_S) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                begun.set()
            into.append(line)


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["one", "two"])
def test_a_stream_goes_on_while_new_settings_are_taken(tmp_path: Path, more: tuple[str, ...]) -> None:
    provider, times = Slow(), 2 if more else 1
    with RawUpstream(provider) as upstream, served(tmp_path, upstream, *more) as server:
        begun, lines = threading.Event(), []
        reader = threading.Thread(target=streamed, args=(server.url, begun, lines))
        reader.start()
        assert begun.wait(WAIT_S)
        server.write('[aliases]\nshort = "m"\n')
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.said(TAKEN) == times, WAIT_S)
        assert all("short" in server.models() for _ in range(6))
        assert "data: [DONE]" not in lines
        provider.may_end.set()
        reader.join(WAIT_S)
        assert "".join(lines).count("first ") == 1
        assert lines[-2:] == ["data: [DONE]", ""]
        assert httpx.post(f"{server.url}/chat/completions", json=QUESTION, timeout=WAIT_S).status_code == 200


def test_what_is_wrong_is_said_and_changes_nothing(tmp_path: Path) -> None:
    with RawUpstream(Slow()) as upstream, served(tmp_path, upstream) as server:
        server.write('[aliases]\nshort = "m"\n')
        server.reload(TAKEN)
        for text in ("[aliases", "[nothing]\nx = 1\n", "[routes.auto]\ncandidates = ['nobody/m']\n"):
            server.write(text)
            server.reload(STAY)
            assert "short" in server.models()
        server.settings.unlink()
        server.reload(STAY)
        assert "short" in server.models()


def test_workers_that_can_not_take_them_are_not_told(tmp_path: Path) -> None:
    with RawUpstream(Slow()) as upstream, served(tmp_path, upstream, "--workers", "2") as server:
        server.write("[aliases")
        server.reload(STAY)
        assert (server.said(STAY), server.said(TAKEN)) == (1, 0)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if children.exists():
            pids = [int(pid) for pid in children.read_text().split()]
            workers = [pid for pid in pids if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
            server.write('[aliases]\nshort = "m"\n')
            os.kill(workers[0], signal.SIGKILL)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.said(TAKEN) >= 1, WAIT_S)
            until(lambda: all("short" in server.models() for _ in range(6)), WAIT_S)


def test_keys_limits_and_what_stays(tmp_path: Path) -> None:
    provider = Slow()
    with RawUpstream(provider) as upstream, served(tmp_path, upstream) as server:
        with httpx.Client(timeout=WAIT_S) as client:
            assert client.post(f"{server.url}/chat/completions", json=QUESTION).status_code == 200
            server.write(server='max_headers = 3\nport = 1\nkeys = ["mine"]')
            text = server.settings.read_text().replace('"first"', '"second"')
            server.settings.write_text(text)
            server.reload(TAKEN)
            assert server.said("server.port stays") == 0, "--port wins over the file, as at the start"
            assert client.get(f"{server.url}/files").status_code == 431
        headers = {"authorization": "Bearer mine"}
        server.write(server='keys = ["mine"]\nworkers = 2')
        server.reload(TAKEN)
        assert server.said("server.workers stays 1 until the server starts anew: 2 was not taken") == 1
        assert httpx.get(f"{server.url}/files", timeout=WAIT_S).status_code == 401
        assert httpx.get(f"{server.url}/files", headers=headers, timeout=WAIT_S).status_code == 200
        assert provider.keys[0] == "Bearer first"
        assert provider.keys[-1] == "Bearer first"


def test_many_at_once_and_calls_all_the_while(tmp_path: Path) -> None:
    with RawUpstream(Slow()) as upstream, served(tmp_path, upstream) as server:
        statuses: list[int] = []
        is_over = threading.Event()

        def call() -> None:
            with httpx.Client(timeout=WAIT_S) as client:
                while not is_over.is_set():
                    body = {**QUESTION, "seed": len(statuses)}
                    statuses.append(client.post(f"{server.url}/chat/completions", json=body).status_code)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        for _ in range(5):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        until(lambda: server.said(TAKEN) >= 2, WAIT_S)
        time.sleep(0.3)
        is_over.set()
        for caller in callers:
            caller.join(WAIT_S)
        assert set(statuses) == {200}
        threads = Path(f"/proc/{server.process.pid}/task")
        if threads.exists():
            before = len(list(threads.iterdir()))
            for _ in range(4):
                server.reload(TAKEN)
            time.sleep(0.5)
            assert len(list(threads.iterdir())) <= before + 10, "former applications release their threads"
