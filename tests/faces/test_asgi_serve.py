"""The settings of a server that is safe to start, and the server as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import serve, server_config, server_settings
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import DONE, STREAM_HEAD, Cache, Raw, RawUpstream, chunked, event, upstreams
from tests.faces.asgi_kit import raw_response as raw_answer

FAR = {"base_url": "https://far.example/v1"}


def backends_of(**sections):
    return dict(server_config(Config(**sections)).backends)


def test_without_backends_openai_is_the_one(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    backend = backends_of()["openai"]
    assert (backend.base_url, backend.auth, backend.key()) == ("https://api.openai.com/v1", "caller", None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    assert backend.key() == "sk"
    assert backends_of(server={"keys": ["k"]})["openai"].auth == "key"


def test_with_backends_nothing_is_added():
    assert list(backends_of(backends={"b": FAR})) == ["b"]
    assert backends_of(backends={"b": FAR})["b"].auth is None


@pytest.mark.parametrize(
    ("backend", "auth"),
    [
        ({}, "none"),
        ({"auth": "caller"}, "none"),
        ({"api_key": "x"}, "key"),
        ({"auth": "caller", "api_key_env": "X"}, "key"),
        ({"auth": "none", "api_key": "x"}, "none"),
        ({"auth": "key"}, "key"),
    ],
)
def test_with_keys_no_backend_gets_the_callers(backend, auth):
    assert backends_of(backends={"b": {**FAR, **backend}}, server={"keys": ["k"]})["b"].auth == auth


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.evil.example", ""])
def test_an_open_address_needs_keys(host):
    with pytest.raises(ConfigError, match=r"set server\.keys"):
        backends_of(server={"host": host})
    assert backends_of(server={"host": host, "keys": ["k"]})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_alone_needs_none(host):
    assert backends_of(server={"host": host})


@pytest.mark.parametrize(
    ("base_url", "server"),
    [
        ("http://127.0.0.1:8080/v1", {}),
        ("http://localhost:8080/v1", {}),
        ("http://[::1]:8080", {}),
        ("http://127.0.0.1:8080/v1", {"host": "0.0.0.0", "keys": ["k"]}),
        ("http://10.0.0.5:8080/v1", {"host": "10.0.0.5", "keys": ["k"]}),
        ("http://127.0.0.1/v1", {"port": 80}),
        ("https://localhost/v1", {"port": 443}),
    ],
)
def test_a_backend_may_not_be_this_very_server(base_url, server):
    with pytest.raises(ConfigError, match="is this very server"):
        backends_of(backends={"b": {"base_url": base_url}}, server=server)


@pytest.mark.parametrize(
    ("base_url", "server"),
    [
        ("http://127.0.0.1:8081/v1", {}),
        ("http://far.example:8080/v1", {}),
        ("http://127.0.0.1:8080/v1", {"host": "10.0.0.5", "keys": ["k"]}),
        ("http://127.0.0.1:8080/v1", {"port": 0}),
    ],
)
def test_a_backend_elsewhere_is_fine(base_url, server):
    assert backends_of(backends={"b": {"base_url": base_url}}, server=server)


@pytest.mark.parametrize("key", ["sk-1\n", "sk\r\nx: y", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key, monkeypatch):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(ConfigError, match="the key of backend 'b'") as caught:
        backends_of(backends={"b": {**FAR, "api_key_env": "SOME_KEY"}})
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize("has_extras", [True, False])
def test_the_servers_settings(has_extras, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if has_extras else None)
    config = Config(backends={"b": FAR}, cache={"enabled": False})
    settings = server_settings(ProxyApp(Runtime(config)))
    assert (settings.http, settings.loop) == (("httptools", "uvloop") if has_extras else ("h11", "asyncio"))
    assert settings.h11_max_incomplete_event_size == 65536
    assert (settings.access_log, settings.server_header, settings.date_header) == (False, False, False)
    assert (settings.timeout_keep_alive, settings.timeout_graceful_shutdown) == (75, 30)
    assert settings.ws == ("websockets-sansio" if has_extras else "none")
    assert (settings.ws_max_size, settings.ws_per_message_deflate) == (32 << 20, False)
    assert isinstance(settings, uvicorn.Config)


def test_an_address_in_use_is_a_wrong_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(backends={"b": FAR}, cache={"enabled": False})
        with pytest.raises(ConfigError, match="can't listen there"):
            serve(config, port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"server\.port"):
        serve(config, port=70_000)


def test_trouble_in_ready_ends_the_server_and_closes_the_cache(monkeypatch):
    """Off the main thread, where there are no signals to handle."""
    cache, raised = Cache(), []
    monkeypatch.setattr("llm_proxy.runtime.Runtime._open_cache", lambda self: cache)

    def refuse(host: str, port: int) -> None:
        raise ValueError(f"{host} {port}")

    def run() -> None:
        config = Config(backends={"b": FAR}, cache={"semantic": False}, observe={"ledger": False})
        try:
            serve(config, port=0, ready=refuse)
        except ValueError as exc:
            raised.append(str(exc))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised[0].startswith("127.0.0.1 ")
    assert cache.is_closed


def test_an_app_that_is_mounted_without_its_lifespan_starts_by_itself():
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from tests.servers import serving

    backend = FakeBackend("fine", headers={"connection": "close"})  # nobody tells the application to close its own
    with upstreams(backend) as [url]:
        config = Config(backends={"b": {"base_url": url}}, cache={"enabled": False})
        with serving(Starlette(routes=[Mount("/", ProxyApp(Runtime(config)))])) as outer:
            answer = httpx.post(outer.url + "/v1/chat/completions", json=question("hi"))
            assert answer.json()["choices"][0]["message"]["content"] == "fine"


SERVER = """
import sys
from llm_proxy.config import load
from llm_proxy.faces import serve as module
config = load(sys.argv[1], server={"drain_s": int(sys.argv[2])})
module.serve(config, port=0, ready=lambda host, port: print(host, port, flush=True))
print("ended", flush=True)
"""


class Process:
    """`serve` in a process of its own."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self.running = running
        assert running.stdout is not None
        host, port = running.stdout.readline().split()
        self.url = f"http://{host}:{port}"

    def end(self, number: int | None = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit status, what else was printed, and what was logged; None: it was told to end before."""
        if number is not None:
            self.running.send_signal(number)
        printed, logged = self.running.communicate(timeout=20)
        return self.running.returncode, printed, logged

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def process(folder: Path, url: str, *, grace_s: int = 20, **sections):
    lines = [f'[backends.b]\nbase_url = "{url}"\n[cache]\nsemantic = false\ndirectory = "{folder / "cache"}"\n']
    lines += [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
              for name, section in sections.items()]  # fmt: skip
    path = folder / "llm-proxy.toml"
    path.write_text("".join(lines))
    command = [sys.executable, "-c", SERVER, str(path), str(grace_s)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Process(running)
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()


def question(text: str, **fields) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def test_a_process_keeps_its_answers_across_a_restart(tmp_path):
    backend = FakeBackend("kept")
    with upstreams(backend) as [url]:
        for number in (signal.SIGTERM, signal.SIGINT):
            with process(tmp_path, url) as server:
                assert httpx.get(server.url + "/readyz").status_code == 200
                answer = httpx.post(server.url + "/v1/chat/completions", json=question("hi"))
                assert answer.json()["choices"][0]["message"]["content"] == "kept"
                status, printed, logged = server.end(number)
                assert (status, printed) == (0, "ended\n")
                assert "Traceback" not in logged
                assert "uvicorn" not in logged
        assert len(backend.requests) == 1


def test_a_process_finishes_what_is_under_way(tmp_path):
    go = threading.Event()

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD + chunked(event("one"), is_end=False))
        assert go.wait(10)
        request.send(chunked(event("two"), event(), DONE))

    with RawUpstream(handler) as upstream, process(tmp_path, upstream.url) as server:
        body = question("hi", stream=True)
        with httpx.stream("POST", server.url + "/v1/chat/completions", json=body, timeout=10) as response:
            pieces = response.iter_raw()
            assert b"one" in next(pieces)
            server.running.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            go.set()
            assert b"".join(pieces).endswith(DONE)
        status, printed, _ = server.end(None)
        assert (status, printed) == (0, "ended\n")
        with process(tmp_path, upstream.url) as again:  # it was stored, too
            answer = httpx.post(again.url + "/v1/chat/completions", json=body)
            assert answer.content.endswith(DONE)
            assert answer.headers["cache-status"] == 'llm-proxy; hit; detail="exact"'


def test_a_process_gives_up_after_the_grace(tmp_path):
    hold = threading.Event()

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD + chunked(event("one"), is_end=False))
        hold.wait(10)

    with RawUpstream(handler) as upstream, process(tmp_path, upstream.url, grace_s=1) as server:
        url = server.url + "/v1/chat/completions"
        with httpx.stream("POST", url, json=question("hi", stream=True), timeout=10) as response:
            pieces = response.iter_raw()
            next(pieces)
            server.running.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        status, printed, logged = server.end(None)
        assert (status, printed) == (0, "ended\n")
        assert "Traceback" not in logged
        hold.set()


@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "chunked"])
def test_a_refused_body_is_not_held(tmp_path, is_announced):
    with process(tmp_path, "http://127.0.0.1:9/v1", server={"max_body_bytes": 1_000_000}) as server:
        httpx.post(server.url + "/v1/chat/completions", json=question("warm"))
        before = server.peak_bytes()
        piece = b"x" * 1_000_000
        content = piece * 200 if is_announced else (piece for _ in range(200))
        answer = httpx.post(server.url + "/v1/chat/completions", content=content, timeout=30)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert server.peak_bytes() - before < 32_000_000


def test_an_upload_of_200_mb_passes_without_being_held(tmp_path):
    sizes = []

    def handler(request: Raw) -> None:
        sizes.append(len(request.body))
        request.send(raw_answer(b"{}"))

    with RawUpstream(handler) as upstream, process(tmp_path, upstream.url) as server:
        httpx.get(server.url + "/v1/files")
        before = server.peak_bytes()
        content = (b"x" * 1_000_000 for _ in range(200))
        assert httpx.post(server.url + "/v1/files", content=content, timeout=60).status_code == 200
        assert sizes[-1] == 200_000_000
        assert server.peak_bytes() - before < 32_000_000
