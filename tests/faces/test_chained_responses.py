"""Responses of two servers, each of which knows its own alone: gone on from through a route, read and deleted.

The servers are simulated providers on sockets of their own; the proxy and its workers are real processes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import openai
import pytest

import llm_proxy
import llm_proxy.runtime
from llm_proxy.faces.keys import add
from llm_proxy.holders import Holder
from tests.apis_kit import Provider, response, sse, streamed_response
from tests.faces.asgi_kit import Proxy, http, proxied, upstreams
from tests.faces.test_workers import connected, served, workers_of

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
Found = tuple[int, str, list[bytes], bool]


class Server(Provider):
    """A simulated provider that gives ids of its own, and goes on from these alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heard: threading.Event | None = None
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.kept: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, headers = scope["raw_path"].decode(), {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["method"] == "POST" and path == "/v1/responses":
            return await super().__call__(scope, receive, send)
        query = scope["query_string"].decode()
        self.seen.append((scope["method"], f"{path}?{query}" if query else path, headers))
        named = path.split("/")[3] if path.startswith("/v1/responses/") else ""
        whole = self.kept.get(unquote(named))
        value: Any = whole or {"error": {"message": f"{self.name} knows no such response", "code": "not_found"}}
        if whole is not None and path.endswith("/input_items"):
            value = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
        if whole is not None and scope["method"] == "DELETE":
            value = {"id": self.kept.pop(unquote(named))["id"], "object": "response", "deleted": True}
        rows = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 404 if whole is None else 200, "headers": rows})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    def _responses(self, body: Any) -> Found:
        previous = body.get("previous_response_id")
        if previous is not None and not previous.startswith(f"resp_{self.name}_"):
            error = {"message": "Previous response not found.", "code": "previous_response_not_found"}
            return 400, "application/json", [json.dumps({"error": error}).encode()], False
        number = f"{len(self.requests)}{body.get('user', '')}"  # some servers' ids need to be encoded in a path
        named = {"id": f"resp_{self.name}_{number}", "previous_response_id": previous}
        whole = self.kept[named["id"]] = response(body, **named)
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


def about(client: openai.OpenAI, named: str) -> None:
    """Everything that can be asked about a response."""
    assert client.responses.retrieve(named).id == named
    assert client.responses.input_items.list(named, limit=7).data == []
    assert client.responses.cancel(named).id == named
    client.responses.delete(named)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(named)


def asked_about(named: str) -> list[tuple[str, str]]:
    """What `about` has a server see."""
    path = f"/v1/responses/{named}"
    return [
        ("GET", path), ("GET", f"{path}/input_items?limit=7"), ("POST", f"{path}/cancel"), ("DELETE", path),
        ("GET", path),
    ]  # fmt: skip


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key that the second server is asked with, and nobody else."""
    monkeypatch.setenv("OWN_KEY", "sk-two")
    return "OWN_KEY"


class TestAbout:
    """Requests about a response: to read, cancel or delete it."""

    @pytest.mark.parametrize("routes", [{}, {"auto": {"candidates": ["one/small", "two/large"]}}])
    def test_they_go_to_who_made_it(
        self, servers: tuple[list[str], list[Server]], routes: dict[str, Any], with_key: str
    ) -> None:
        urls, (one, two) = servers
        backends = {"one": {"base_url": urls[0]}, "two": {"base_url": urls[1], "api_key_env": with_key}}
        with proxied(backends, routes=routes) as proxy, proxy.client() as client:
            names = [said(client, "one/small")[0], said(client, "two/large", stream=True)[0]]
            for named in names:
                about(client, named)
        assert [[seen[:2] for seen in app.seen] for app in (one, two)] == [asked_about(named) for named in names]
        keys = [{seen[2]["authorization"] for seen in app.seen} for app in (one, two)]
        assert keys == [{"Bearer sk-caller"}, {"Bearer sk-two"}]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_those_of_the_client_face(
        self, servers: tuple[list[str], list[Server]], tmp_path: Path, with_key: str, is_async: bool
    ) -> None:
        urls, (one, two) = servers
        sections = {
            "backends": {"two": {"base_url": urls[1], "api_key_env": with_key}, "far": {"base_url": "http://x"}}
        }
        options = {"api_key": "k", "base_url": urls[0], "max_retries": 0}
        settings_ = {**sections, "cache": {"directory": str(tmp_path), "semantic": False}}

        async def asked() -> tuple[str, str]:
            async with llm_proxy.AsyncOpenAI(llm_proxy=settings_, **options) as client:
                made = await client.responses.create(model="two/large", input="Hello")
                assert (await client.responses.retrieve(made.id, include=["reasoning.encrypted_content"])).id == made.id
                assert (await client.responses.cancel(made.id)).id == made.id
                with pytest.raises(openai.NotFoundError, match="one knows no such response"):
                    await client.responses.retrieve("resp_two_9")
                return made.id, "?include%5B%5D=reasoning.encrypted_content"

        if is_async:
            named, query = asyncio.run(asked())
            expected = [("GET", f"/v1/responses/{named}{query}"), ("POST", f"/v1/responses/{named}/cancel")]
        else:
            with llm_proxy.OpenAI(llm_proxy=settings_, **options) as client:
                named = client.responses.create(model="two/large", input="Hello").id
                about(client, named)
                with pytest.raises(openai.NotFoundError, match="one knows no such response"):
                    client.responses.retrieve("resp_two_9")
            expected = asked_about(named)
        assert [seen[:2] for seen in two.seen] == expected
        assert {seen[2]["authorization"] for seen in two.seen} == {"Bearer sk-two"}
        assert [seen[:2] for seen in one.seen] == [("GET", "/v1/responses/resp_two_9")]
        assert one.seen[0][2]["authorization"] == "Bearer k"
        llm_proxy.runtime.close_all()

    def test_it_is_said(self, servers: tuple[list[str], list[Server]]) -> None:
        with proxy_of(servers[0]) as proxy, proxy.client() as client:
            named, _, _ = said(client, "two/large")
            headers = client.responses.with_raw_response.retrieve(named).headers
            assert headers["cache-status"] == 'llm-proxy; fwd=bypass; detail="path; kept-by=two"'
            assert headers["x-llm-proxy-backend"] == "two"

    def test_another_tenants_response_is_not_known(self, servers: tuple[list[str], list[Server]]) -> None:
        _, (one, two) = servers
        with proxy_of(servers[0]) as proxy, proxy.client() as client, proxy.client(api_key="sk-other") as other:
            named, _, _ = said(client, "two/large")
            with pytest.raises(openai.NotFoundError, match="one knows no such response"):
                other.responses.delete(named)
            assert client.responses.retrieve(named).id == named
        assert [len(app.seen) for app in (one, two)] == [1, 1]

    def test_issued_keys_know_those_of_their_tenant(
        self, servers: tuple[list[str], list[Server]], tmp_path: Path
    ) -> None:
        _, (one, two) = servers
        path = tmp_path / "keys.json"
        path.write_text('{"format": 1, "keys": []}')
        first, second, other = (
            add(path, Holder("", name, tenant), now_s=1.0)[0] for name, tenant in (("a", "t"), ("b", "t"), ("c", "u"))
        )
        with proxy_of(servers[0], server={"keys_file": str(path)}) as proxy, proxy.client(api_key=first) as client:
            named, _, _ = said(client, "two/large")
            with proxy.client(api_key=second) as fellow, proxy.client(api_key=other) as stranger:
                assert fellow.responses.retrieve(named).id == named
                with pytest.raises(openai.NotFoundError, match="one knows no such response"):
                    stranger.responses.retrieve(named)
        assert [len(app.seen) for app in (one, two)] == [1, 1]
        assert all("authorization" not in seen[2] for app in (one, two) for seen in app.seen)

    def test_an_id_that_has_to_be_encoded(self, servers: tuple[list[str], list[Server]]) -> None:
        _, (one, two) = servers
        with proxy_of(servers[0]) as proxy, proxy.client() as client:
            named, _, _ = said(client, "two/large", user="a+b=%&\u20ac ")
            assert client.responses.retrieve(named).id == named
            with_slash, _, _ = said(
                client, "two/large", user="/x", instructions="Be brief."
            )  # no server can tell it from a path
            with pytest.raises(openai.NotFoundError, match="one knows no such response"):
                client.responses.retrieve(with_slash)
        assert [len(app.seen) for app in (one, two)] == [1, 1]

    @pytest.mark.parametrize(
        ("method", "tail", "status"),
        [
            ("GET", "..", 400),
            ("GET", "%2e%2e", 400),
            ("GET", "../files", 400),
            ("GET", "{id}%2F..%2Ffiles", 400),
            ("GET", "..%2f{id}", 400),
            ("GET", "{id}%00", 404),
            ("GET", "%00", 404),
            ("GET", "{id}%2Fcancel", 404),
            ("GET", "{id};x", 404),
            ("GET", "{id}%20", 404),
            ("GET", "{id}%5Cx", 404),
            ("GET", "%ff%fe", 404),
            ("GET", "", 404),
            ("GET", "x" * 5_000, 404),
            ("GET", "x" * (1 << 20), 431),
            ("GET", "{id}/other", 404),
            ("GET", "{id}/cancel", 404),
            ("POST", "{id}", 404),
            ("POST", "input_tokens", 404),
            ("PUT", "{id}", 404),
        ],
    )
    def test_what_is_no_id_goes_where_it_went(
        self, servers: tuple[list[str], list[Server]], method: str, tail: str, status: int
    ) -> None:
        _, (one, two) = servers
        with proxy_of(servers[0]) as proxy, proxy.client() as client:
            path = "/v1/responses/" + tail.replace("{id}", said(client, "two/large")[0])
            head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-caller\r\n"
            found, _, _ = http(proxy.port, f"{head}content-length: 0\r\n\r\n".encode())
            assert (found, two.seen) == (status, [])
            if status == 404 and tail not in {"", "%00"}:  # those are refused here, as other spellings
                assert [seen[:2] for seen in one.seen] == [(method, path)]

    def test_a_server_that_is_no_longer_there(self, servers: tuple[list[str], list[Server]], tmp_path: Path) -> None:
        urls, (one, two) = servers
        cache = {"store": "disk", "directory": str(tmp_path)}
        with proxy_of(urls, cache=cache) as proxy, proxy.client() as client:
            named, _, _ = said(client, "two/large")
        for second in ({"two": {"base_url": "http://127.0.0.1:9/v1"}}, {"three": {"base_url": urls[1]}}):
            with (
                proxied({"one": {"base_url": urls[0]}, **second}, cache=cache) as proxy,
                proxy.client() as client,
                pytest.raises(openai.NotFoundError, match="one knows no such response"),
            ):
                client.responses.retrieve(named)
        assert [len(app.seen) for app in (one, two)] == [2, 0]

    def test_one_worker_knows_what_the_other_was_answered(
        self, servers: tuple[list[str], list[Server]], tmp_path: Path
    ) -> None:
        urls, (one, two) = servers
        more = f'[backends.two]\nbase_url = "{urls[1]}"\n'
        with served(tmp_path, urls[0], more=more) as (base_url, process):
            first, second = workers_of(process)
            with connected(base_url, first) as connection:
                body = json.dumps({"model": "two/large", "input": "Go on"})
                connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
                named = json.loads(connection.getresponse().read())["id"]
            with connected(base_url, second) as connection:
                connection.request("GET", f"/v1/responses/{named}")
                assert json.loads(connection.getresponse().read())["id"] == named
        assert [len(app.seen) for app in (one, two)] == [0, 1]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes the file, and does not end."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate()


def test_answers_hardly_wait_for_a_file_that_is_locked(servers: tuple[list[str], list[Server]], tmp_path: Path) -> None:
    cache = {"store": "disk", "directory": str(tmp_path)}
    with proxy_of(servers[0], cache=cache) as proxy, proxy.client() as client:
        said(client, "auto", instructions="first")
        with locked(tmp_path / "responses.sqlite3"):
            begun_s = time.monotonic()
            names = [said(client, "two/large", instructions=str(number))[0] for number in range(10)]
            took_s = time.monotonic() - begun_s
            # What can't be written yet is known here, and who reads does not wait.
            assert [said(client, "auto", previous_response_id=named)[2] for named in names] == ["two"] * 10
        assert took_s < 4.0  # each waited for a second before
        assert proxy.runtime.troubles.counts == {"responses": 20}  # each that could not be written then
        time.sleep(0.6)
        said(client, "auto", instructions="last")
    with proxy_of(servers[0], cache=cache) as proxy, proxy.client() as client:
        assert [said(client, "auto", previous_response_id=named)[2] for named in names] == ["two"] * 10
        assert proxy.runtime.troubles.counts == {}


def test_a_damaged_file_costs_what_it_held_and_no_more(servers: tuple[list[str], list[Server]], tmp_path: Path) -> None:
    cache = {"store": "disk", "directory": str(tmp_path)}
    (tmp_path / "responses.sqlite3").write_bytes(b"what is it" * 999)
    with proxy_of(servers[0], cache=cache) as proxy, proxy.client() as client:
        named, _, _ = said(client, "two/large")
        assert said(client, "auto", previous_response_id=named)[2] == "two"
        assert client.responses.retrieve(named).id == named
        assert proxy.runtime.troubles.counts == {"responses": 1}
    assert (tmp_path / "responses.2.sqlite3").is_file()
