"""``llm-proxy serve``, with real sockets and real signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.testing import FakeBackend
from tests.faces.cli_kit import invoke, invoke_json, settled, spawn
from tests.servers import Served, serving

WAIT_S = 30.0
SOON_S = 20.0  # less than calls under way are given to finish


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def upstream() -> Iterator[Served]:
    with serving(FakeBackend("It is 42.")) as served:
        yield served


class TestServe:
    def serving(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return spawn("serve", "--port", "0", *arguments, start_new_session=True, **options)

    def test_says_where_it_listens_and_ends_well(self, directory, upstream, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", f"{upstream.url}/v1")
        process = self.serving("--json")
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert facts["base_url"] == f"http://127.0.0.1:{facts['port']}/v1" == f"{facts['url']}/v1"
        assert (facts["cache"], facts["directory"], facts["needs_key"]) == ("disk", str(directory), False)
        assert facts["backends"] == {"up": f"{upstream.url}/v1"}
        with urllib.request.urlopen(f"{facts['url']}/readyz", timeout=WAIT_S) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=WAIT_S)
        assert (process.returncode, said, complained) == (0, "", "")

    def test_says_which_backend_is_left_without_a_key(self, directory, upstream, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", f"{upstream.url}/v1")
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_AUTH", "caller")
        invoke("keys", "add", "ci")
        process = self.serving("--json")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["needs_key"]
        assert process.stderr is not None
        assert process.stderr.readline().strip() == (
            "backend up is asked without a key: those of callers are the proxy's own, and not sent on; "
            "set backends.up.api_key_env"
        )
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0

    def test_says_so_to_a_person(self, directory):
        settings = directory.parent / "proxy.toml"
        settings.write_text(
            '[server]\nkeys = ["k"]\n[cache]\nsemantic = false\ntenant = "fixed:all"\n[backends.a]\nbase_url = "http://127.0.0.1:1/v1"\n'
            '[routes.auto]\ncandidates = ["a/m"]\n'
        )
        process = self.serving("--config", str(settings), "--host", "127.0.0.1")
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip() for _ in range(9)]
        process.terminate()
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0
        url = lines[0].removeprefix("llm-proxy listens on ")
        assert lines[1:] == [
            "  backends  a (http://127.0.0.1:1/v1)",
            "  routes    auto",
            f"  cache     disk in {directory}: exact hits",
            "            all callers are served one another's answers: cache.tenant is fixed",
            f"  dashboard {url}/",
            f"  clients   export OPENAI_BASE_URL={url}/v1",
            "            export OPENAI_API_KEY=<a key of this proxy>",
            "Ctrl-C ends it.",
        ]

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_a_line_for_each_call(self, directory, upstream, monkeypatch, form):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", f"{upstream.url}/v1")
        monkeypatch.setenv("LLM_PROXY_OBSERVE_LOG", form)
        process = self.serving("--json")
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a secret"}]}).encode()
        headers = {"content-type": "application/json", "authorization": "Bearer sk-secret"}
        request = urllib.request.Request(f"{facts['base_url']}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            answer.read()
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=WAIT_S)
        line = complained.rstrip("\n")
        assert "secret" not in line
        assert "\n" not in line
        assert json.loads(line)["outcome"] == "miss" if form == "json" else line.startswith("miss ")

    def test_open_dashboards_do_not_keep_it_from_ending(self, directory, upstream, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", f"{upstream.url}/v1")
        process = self.serving("--json")
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert facts["dashboard"] == f"{facts['url']}/"
        with urllib.request.urlopen(f"{facts['url']}/llm-proxy/events", timeout=WAIT_S) as stream:
            assert stream.readline() == b"event: calls\n"
            process.send_signal(signal.SIGINT)
            stream.read()  # to its end: a stream that breaks off would raise
            _, complained = process.communicate(timeout=SOON_S)
        assert (process.returncode, complained) == (0, "")

    def test_refuses_to_be_open_to_all(self):
        result = invoke("serve", "--host", "0.0.0.0", "--port", "0", code=2)
        assert "set server.keys" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            result = invoke("serve", "--port", str(listener.getsockname()[1]), code=2)
        assert "can't listen there" in result.stderr

    def test_a_port_that_is_none(self):
        assert "port" in invoke("serve", "--port", "70000", code=2).stderr

    def test_goes_on_when_nobody_reads_what_it_says(self, monkeypatch):
        from llm_proxy.faces.cli import serve as serve_module

        def broken(_: object) -> None:
            raise BrokenPipeError

        def run_server(config: object, *, host: object, port: object, ready: Any, reread: object) -> None:
            ready("::1", 5)
            printed.append("served")

        printed: list[str] = []
        monkeypatch.setattr(serve_module, "_greet", broken)
        monkeypatch.setattr("llm_proxy.faces.serve.serve", run_server)
        invoke("serve")
        assert printed == ["served"]

    def test_warns_that_extras_are_missing_and_brackets_addresses(self, monkeypatch):
        def run_server(config: object, *, host: object, port: object, ready: Any, reread: object) -> None:
            ready("::1", 5)

        monkeypatch.setattr("llm_proxy.faces.serve.serve", run_server)
        monkeypatch.setattr("llm_proxy.faces.cli.serve.exact_only", lambda config: "llm-proxy: numpy not installed")
        result = invoke("serve", "--json")
        assert "numpy not installed" in result.stderr
        assert json.loads(result.stdout)["url"] == "http://[::1]:5"
        assert json.loads(result.stdout)["semantic"] is False

    def test_a_killed_one_leaves_a_cache_that_works(self, directory, upstream, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", f"{upstream.url}/v1")
        process = self.serving("--json")
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["base_url"]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "6 x 7?"}]}).encode()
        request = urllib.request.Request(
            f"{url}/chat/completions", body, {"content-type": "application/json", "authorization": "Bearer k"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            assert answer.status == 200
        process.kill()
        process.communicate(timeout=WAIT_S)
        assert invoke_json("cache", "check")["findings"] == []
        assert invoke_json("cache", "ls")["count"] == 1
