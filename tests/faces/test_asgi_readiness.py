"""What ``/readyz`` says of the parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_proxy.config import Config
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import running, until, upstreams

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "q"}]}


def state_of(port: int) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/readyz").json()
    return found


def runtime(url: str, **sections: Any) -> Runtime:
    return Runtime(server_config(Config(backends={"b": {"base_url": url}}, observe={"ledger": False}, **sections)))


def test_parts_that_can_not_work_are_not_called_ok(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with upstreams(FakeBackend()) as [url]:
        app = ProxyApp(runtime(url, cache={"directory": tmp_path / "file" / "x"}, encoder={"model": "/nonexistent"}))
        with running(app) as port:
            until(lambda: state_of(port)["encoder"] != "loading")
            until(lambda: state_of(port)["cache"] != "opening")
            found = [state_of(port)]
            assert httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=QUESTION).status_code == 200
            found.append(state_of(port))
    assert [(state["status"], state["cache"], state["encoder"]) for state in found] == [("ok", "failing", "failed")] * 2


def test_parts_that_work(tmp_path: Path) -> None:
    with upstreams(FakeBackend()) as [url]:
        with running(ProxyApp(runtime(url, cache={"directory": tmp_path, "semantic": False}))) as port:
            until(lambda: state_of(port)["cache"] == "ok")
            assert state_of(port)["encoder"] == "off"
        with running(ProxyApp(runtime(url, cache={"enabled": False}))) as port:
            assert (state_of(port)["cache"], state_of(port)["encoder"]) == ("off", "off")
