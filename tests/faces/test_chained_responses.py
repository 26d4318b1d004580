"""``previous_response_id`` through a route over two servers, each of which knows its own responses alone.

The servers are simulated providers on sockets of their own; the proxy and its workers are real processes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

import llm_proxy
import llm_proxy.runtime
from tests.apis_kit import Provider, response, sse, streamed_response
from tests.faces.asgi_kit import Proxy, proxied, upstreams
from tests.faces.test_workers import connected, served, workers_of

Found = tuple[int, str, list[bytes], bool]


class Server(Provider):
    """A simulated provider that gives ids of its own, and goes on from these alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heard: threading.Event | None = None

    def _responses(self, body: Any) -> Found:
        previous = body.get("previous_response_id")
        if previous is not None and not previous.startswith(f"resp_{self.name}_"):
            error = {"message": "Previous response not found.", "code": "previous_response_not_found"}
            return 400, "application/json", [json.dumps({"error": error}).encode()], False
        named = {"id": f"resp_{self.name}_{len(self.requests)}", "previous_response_id": previous}
        whole = response(body, **named)
        if not body.get("stream"):
            return 200, "application/json", [json.dumps(whole).encode()], False
        return 200, "text/event-stream", self._events(whole), False

    def _events(self, whole: Any) -> Any:
        if self.heard is not None:  # it keeps the connection alive until somebody has seen that
            yield from [b": keep-alive\n\n"] * 3
            assert self.heard.wait(20.0)
        yield from (sse(event, event["type"]) for event in streamed_response(whole))


@pytest.fixture
def servers() -> Iterator[tuple[list[str], list[Server]]]:
    apps = [Server("one"), Server("two")]
    with upstreams(*apps) as urls:
        yield urls, apps


def settings(urls: list[str]) -> dict[str, Any]:
    return {
        "backends": {name: {"base_url": url} for name, url in zip(("one", "two"), urls, strict=True)},
        "routes": {"auto": {"candidates": ["one/small", "two/large"]}},
    }


@contextmanager
def proxy_of(urls: list[str], **more: Any) -> Iterator[Proxy]:
    sections = settings(urls)
    with proxied(sections["backends"], routes=sections["routes"], **more) as made:
        yield made


def said(client: openai.OpenAI, model: str, *, stream: bool = False, **fields: Any) -> tuple[str, str, str]:
    """The id of a response, what was done with the call, and who answered."""
    if stream:
        with client.responses.create(model=model, input="Go on", stream=True, **fields) as events:
            [named] = {event.response.id for event in events if hasattr(event, "response")}
            return named, events.response.headers["cache-status"], events.response.headers["x-llm-proxy-backend"]
    raw = client.responses.with_raw_response.create(model=model, input="Go on", **fields)
    return raw.parse().id, raw.headers["cache-status"], raw.headers["x-llm-proxy-backend"]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("goes_on_streamed", [False, True])
def test_a_chain_stays_with_its_server(
    servers: tuple[list[str], list[Server]], is_streamed: bool, goes_on_streamed: bool
) -> None:
    urls, apps = servers
    with proxy_of(urls) as proxy, proxy.client() as client:
        for name, model in (("two", "two/large"), ("one", "auto")):
            previous, _, backend = said(client, model, stream=is_streamed)
            assert (previous, backend) == (f"resp_{name}_{len(apps[name == 'two'].requests)}", name)
            for _ in range(2):
                previous, status, backend = said(client, "auto", stream=goes_on_streamed, previous_response_id=previous)
                assert status == f'llm-proxy; fwd=bypass; detail="previous-response; kept-by={name}"'
                assert backend == name
    assert [[body["model"] for _, body in app.requests] for app in apps] == [["small"] * 3, ["large"] * 3]
    assert proxy.events[-1].outcome.reason == "goes on from a response of one/small"


def test_a_stream_passes_as_it_comes(servers: tuple[list[str], list[Server]]) -> None:
    """Its id is read on the way: what keeps the connection alive until then is not kept back for that."""
    urls, apps = servers
    heard = apps[0].heard = threading.Event()
    with proxy_of(urls) as proxy, proxy.client(timeout=10.0) as client:
        with client.responses.with_streaming_response.create(model="auto", input="Go on", stream=True) as raw:
            pieces = raw.iter_bytes()
            assert next(pieces).startswith(b": keep-alive")
            heard.set()
            assert b'"response.completed"' in b"".join(pieces)
        previous = f"resp_one_{len(apps[0].requests)}"
        assert said(client, "auto", previous_response_id=previous)[2] == "one"


def test_another_tenants_response_is_not_known(servers: tuple[list[str], list[Server]]) -> None:
    with proxy_of(servers[0]) as proxy, proxy.client() as client, proxy.client(api_key="sk-other") as other:
        previous, _, _ = said(client, "auto")
        with pytest.raises(openai.BadRequestError, match="it is not known here") as caught:
            said(other, "auto", previous_response_id=previous)
        assert caught.value.code == "route_not_possible"
        assert said(client, "auto", previous_response_id=previous)[2] == "one"
    assert len(servers[1][0].requests) == 2


def test_a_hit_can_be_gone_on_from(servers: tuple[list[str], list[Server]]) -> None:
    with proxy_of(servers[0]) as proxy, proxy.client() as client:
        first, again = said(client, "auto"), said(client, "auto")
        assert (again[0], again[1]) == (first[0], 'llm-proxy; hit; detail="exact"')
        assert said(client, "auto", previous_response_id=again[0])[2] == "one"


def test_the_client_face_knows_them_too_and_after_a_restart(
    servers: tuple[list[str], list[Server]], tmp_path: Path
) -> None:
    urls, apps = servers
    sections = {**settings(urls), "cache": {"directory": str(tmp_path), "semantic": False}}
    with llm_proxy.OpenAI(api_key="k", llm_proxy=sections, max_retries=0) as client:
        previous = client.responses.create(model="two/large", input="Hello").id
    llm_proxy.runtime.close_all()
    with llm_proxy.OpenAI(api_key="k", llm_proxy=sections, max_retries=0) as client:
        assert client.responses.create(model="auto", input="Go on", previous_response_id=previous).model == "large"

    async def go_on() -> str:
        async with llm_proxy.AsyncOpenAI(api_key="k", llm_proxy=sections, max_retries=0) as aclient:
            return (await aclient.responses.create(model="auto", input="On", previous_response_id=previous)).model

    assert asyncio.run(go_on()) == "large"
    assert [len(app.requests) for app in apps] == [0, 3]
    llm_proxy.runtime.close_all()


def test_one_worker_goes_on_from_what_the_other_has_answered(
    servers: tuple[list[str], list[Server]], tmp_path: Path
) -> None:
    urls, apps = servers
    more = f'[backends.two]\nbase_url = "{urls[1]}"\n[routes.auto]\ncandidates = ["b/small", "two/large"]\n'
    with served(tmp_path, urls[0], more=more) as (base_url, process):
        first, second = workers_of(process)
        previous = ""
        for pid, model in ((first, "two/large"), *[(second, "auto"), (first, "auto")] * 10):
            fields = {"previous_response_id": previous} if previous else {}
            with connected(base_url, pid) as connection:
                body = json.dumps({"model": model, "input": "Go on", **fields})
                connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
                answer = json.loads(connection.getresponse().read())
            assert answer["id"].startswith("resp_two_"), answer
            previous = answer["id"]
    assert [len(app.requests) for app in apps] == [0, 21]
