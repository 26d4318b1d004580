"""A child of a fork never talks over its parent's connections: it would read the parent's answers, and store them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import httpx as old_httpx
import pytest

from llm_proxy.faces._http import httpx, renew
from llm_proxy.testing import FakeBackend

FAMILIES = list(dict.fromkeys([httpx.__name__, old_httpx.__name__]))
FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")  # of a fork among threads
import openai, llm_proxy
from llm_proxy import OpenAI
from llm_proxy.testing import FakeBackend

class Noting(FakeBackend):
    ports = []

    async def __call__(self, scope, receive, send):
        self.ports.append(scope["client"][1])
        await super().__call__(scope, receive, send)

backend = Noting(lambda body: body["messages"][0]["content"])
settings = {"cache": {"enabled": False}, "observe": {"ledger": False}}

def ask(text):
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    assert answer.choices[0].message.content == text

with backend.serving() as url:
    options = {"api_key": "k", "base_url": url, "max_retries": 0}
    if sys.argv[1] == "wrapped":
        client = llm_proxy.wrap(openai.OpenAI(**options), settings)
    else:
        client = OpenAI(**options, llm_proxy=settings)
    ask("before")
    child = os.fork()
    if not child:
        ask("child")
        ask("child again")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ask("after")
names = sorted(set(backend.ports), key=backend.ports.index)
print([names.index(port) for port in backend.ports])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["made", "wrapped"])
def test_a_child_has_connections_of_its_own(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, kind], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 1, 1, 0]"), done.stderr


@pytest.mark.parametrize("name", FAMILIES)
def test_a_transport_begins_anew(name: str) -> None:
    module: Any = importlib.import_module(name)
    with FakeBackend().serving() as url, module.HTTPTransport() as transport:
        asked = module.Request("POST", f"{url}/chat/completions", json={"messages": []})
        response = transport.handle_request(asked)
        old = transport._pool
        renew(transport)
        assert (transport._pool._connections, transport._pool._requests) == ([], [])
        assert type(transport._pool._optional_thread_lock) is type(old._optional_thread_lock)
        assert transport._pool._optional_thread_lock is not old._optional_thread_lock
        response.read()  # what is under way goes on
        assert len(old._connections) == 1
        transport.handle_request(asked).read()
        old.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_an_async_transport_begins_anew(name: str) -> None:
    transport: Any = importlib.import_module(name).AsyncHTTPTransport()
    transport._pool._connections.append("the parent's")
    old = transport._pool
    renew(transport)
    assert transport._pool is not old
    assert (transport._pool._connections, transport._pool._requests) == ([], [])


def test_other_transports_are_left_alone() -> None:
    for other in (None, object(), httpx.MockTransport(lambda _: httpx.Response(200))):
        renew(other)
