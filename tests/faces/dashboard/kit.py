"""What the tests of the dashboard share: a proxy that keeps a ledger, with calls in it, and requests to it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from llm_proxy.config import Config
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder
from tests.faces.asgi_kit import ask, running, until
from tests.servers import serving

__all__ = ["KEY", "TWICE", "Reply", "Shown", "shown"]

KEY = "the-proxys-own"
TWICE = ("How do I reset my password?", "How can I reset my password?")
"""Questions that one answer serves."""


@dataclass(frozen=True)
class Reply:
    """An answer of the proxy."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.data["error"]["message"])


@dataclass
class Shown:
    """A running proxy with a dashboard."""

    port: int
    runtime: Runtime
    app: ProxyApp
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, **headers)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request; underscores in the names of headers become hyphens. The key is sent unless one is given."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key:
            named.setdefault("authorization", f"Bearer {self.key}")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def undo(self, name: str, **headers: str) -> Reply:
        marks = {"x_llm_proxy_dashboard": "1", "content_type": "application/json"}
        return self.send("POST", "/llm-proxy/undo", json.dumps({"id": name}).encode(), **{**marks, **headers})

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/llm-proxy/calls").data["calls"]
        return found

    def ask(self, *questions: str, **options: Any) -> None:
        import openai

        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key or "sk-caller", max_retries=0)
        with client:
            for question in questions:
                ask(client, question, **options)

    def semantic_hit(self) -> dict[str, Any]:
        """Make one, and return its row."""
        self.ask(*TWICE)
        return next(row for row in self.calls() if row["kind"] == "semantic")

    @contextmanager
    def listening(self, path: str = "/llm-proxy/events") -> Iterator[socket.socket]:
        """A connection that asked for the stream and has read nothing."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            key = f"authorization: Bearer {self.key}\r\n" if self.key else ""
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}\r\n".encode())
            yield connection


@contextmanager
def shown(
    folder: Path, *, keys: tuple[str, ...] = (), server: dict[str, Any] | None = None, **sections: Any
) -> Iterator[Shown]:
    """A proxy before a simulated provider, with its cache and ledger in a folder."""
    with serving(FakeBackend()) as provider:
        main = {"base_url": f"{provider.url}/v1", "models": ["m", "small"], "api_key": "k"}
        settings = {
            "backends": {"main": main},
            "routes": {"auto": {"candidates": ["main/small", "main/m"]}},
            "cache": {"directory": str(folder), **sections.pop("cache", {})},
            "encoder": {"wait_s": 5},
            "server": {"keys": list(keys), **(server or {})},
            **sections,
        }
        runtime = Runtime(server_config(Config(**settings)), encoder=FakeEncoder())
        app = ProxyApp(runtime)
        with running(app) as port:
            if runtime.cache is not None:
                until(lambda: runtime.cache is None or runtime.cache.is_open)
            try:
                yield Shown(port, runtime, app, keys[0] if keys else "")
            finally:
                app.leave()
