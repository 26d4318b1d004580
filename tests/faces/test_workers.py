"""``llm-proxy serve --workers 2``: real processes on one address and one cache directory."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.faces import workers as module
from llm_proxy.faces.serve import server_config
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import DONE, STREAM_HEAD, RawUpstream, chunked, event, until, upstreams

WAIT_S = 60.0
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found by /proc")


@contextmanager
def served(folder: Path, url: str, more: str = "", **server: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    settings = folder / "llm-proxy.toml"
    rows = "".join(f"{name} = {json.dumps(value)}\n" for name, value in server.items())
    settings.write_text(
        f'[cache]\ndirectory = "{folder}/cache"\nsemantic = false\n'
        f'[backends.b]\nbase_url = "{url}"\n{more}[server]\n{rows}'
    )
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
    command += ["--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            assert facts["workers"] == 2
            yield facts["base_url"], process
        finally:
            process.terminate()
            process.wait(WAIT_S)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that serve; not the helper that Python starts beside them."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@contextmanager
def connected(url: str, pid: int) -> Iterator[HTTPConnection]:
    """A connection that is served by this process: the kernel shares them out by chance."""
    for _ in range(200):
        connection = HTTPConnection(url.split("/")[2], timeout=WAIT_S)
        with closing(connection):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status": "ok"}'
            if _has_connection(pid, connection.sock.getsockname()[1]):
                yield connection
                return
    raise AssertionError(f"no connection reached {pid}")


def ask(connection: HTTPConnection, text: str, **more: Any) -> tuple[str, str]:
    """What the cache did, and the answer."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    return response.headers["cache-status"], response.read().decode()


def _has_connection(pid: int, port: int) -> bool:
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[9] in inodes and int(row[2].rpartition(":")[2], 16) == port for row in rows)


def test_what_one_has_stored_the_other_serves(tmp_path):
    backend = FakeBackend("once")
    with upstreams(backend) as [url], served(tmp_path, url) as (base_url, process):
        first, second = workers_of(process)
        with connected(base_url, first) as connection:
            assert ask(connection, "hi")[0].endswith("stored")
        with connected(base_url, second) as connection:
            assert ask(connection, "hi")[0].endswith('hit; detail="exact"')
        assert len(backend.requests) == 1


def test_one_that_dies_is_replaced_and_all_end_with_the_supervisor(tmp_path):
    with upstreams(FakeBackend("fine")) as [url], served(tmp_path, url) as (base_url, process):
        victim, other = workers_of(process)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in workers_of(process) and len(workers_of(process)) == 2, WAIT_S)
        [new] = set(workers_of(process)) - {other}
        with connected(base_url, new) as connection:  # on the socket of the one that died
            assert "fine" in ask(connection, "again")[1]
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (new, other)), WAIT_S)


def test_streams_are_finished_at_the_end(tmp_path):
    ended = threading.Event()

    def handler(request: Any) -> None:
        request.send(STREAM_HEAD + chunked(event("one"), is_end=False))
        ended.wait(WAIT_S)
        request.send(chunked(event(" two"), event(), DONE))

    with RawUpstream(handler) as upstream, served(tmp_path, upstream.url) as (base_url, process):
        pids = workers_of(process)
        texts = []

        def read(pid: int) -> None:
            with connected(base_url, pid) as connection:
                texts.append(ask(connection, f"for {pid}", stream=True)[1])

        readers = [threading.Thread(target=read, args=(pid,)) for pid in pids]
        for reader in readers:
            reader.start()
        until(lambda: len(upstream.requests) == 2, WAIT_S)
        process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(base_url), WAIT_S)
        ended.set()
        for reader in readers:
            reader.join(WAIT_S)
        assert [text.count("data: ") for text in texts] == [4, 4]
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        said, complained = process.communicate(timeout=WAIT_S)
        assert (process.returncode, said, complained) == (0, "", "")


def _refuses(url: str) -> bool:
    host, _, port = url.split("/")[2].partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return True
    return False


class TestSettings:
    def test_a_cache_in_memory_is_not_shared(self):
        with pytest.raises(ConfigError, match=r'server\.workers above 1 needs cache\.store = "disk"'):
            server_config(Config(server={"workers": 2}, cache={"store": "memory"}))
        assert server_config(Config(server={"workers": 2}, cache={"store": "memory", "enabled": False}))


class Process:
    """A process that does as it is told."""

    def __init__(self, exits: list[int | None]) -> None:
        self.exits, self.pid, self.sentinel = exits, 7, 0
        self.did: list[str] = []

    @property
    def exitcode(self) -> int | None:
        return self.exits.pop(0) if len(self.exits) > 1 else self.exits[0]

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")

    def join(self, wait_s: float | None = None) -> None:
        self.did.append("join")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("llm_proxy.faces.workers.time.monotonic", lambda: now[0])
    return now


class TestOne:
    """A single worker, without a process."""

    def made(self, monkeypatch: pytest.MonkeyPatch, starts: list[float], now: Callable[[], float]) -> Any:
        worker = module._Worker(Config(), None)

        def start() -> None:
            starts.append(now())
            worker.process, worker._started_s = Process([1]), now()

        monkeypatch.setattr(worker, "start", start)
        return worker

    def test_one_that_dies_at_once_is_replaced_ever_later(self, monkeypatch, clock):
        starts: list[float] = []
        worker = self.made(monkeypatch, starts, lambda: clock[0])
        worker.start()
        for _ in range(200):
            worker.look_after()
            clock[0] += 0.1
        pauses = [after - before for before, after in itertools.pairwise(starts)]
        assert pauses == sorted(pauses)
        assert 4.9 < pauses[-1] < 5.2
        clock[0] += 100
        worker.process, worker._started_s = Process([1]), clock[0] - 99
        before = len(starts)
        worker.look_after()
        assert len(starts) == before + 1

    def test_one_that_never_takes_calls(self, monkeypatch, clock):
        worker = module._Worker(Config(), None)

        class Silent:
            def poll(self, wait_s: float) -> bool:
                clock[0] += 50
                return False

        worker._heard = Silent()
        with pytest.raises(LLMProxyError, match="did not take calls within 120 s"):
            worker.wait_until_ready(threading.Event())

    def test_one_that_ends_while_it_starts(self):
        worker = module._Worker(Config(), None)

        class Ended:
            def poll(self, wait_s: float) -> bool:
                return True

            def recv_bytes(self) -> bytes:
                raise EOFError

        worker._heard = Ended()
        with pytest.raises(LLMProxyError, match="ended while it started"):
            worker.wait_until_ready(threading.Event())

    def test_one_that_does_not_end_is_killed(self):
        worker = module._Worker(Config(), None)
        worker.process = process = Process([None])
        module._end([worker], patience_s=0.0)
        assert process.did == ["terminate", "join", "kill", "join"]
