"""Responses, completions and embeddings through the proxy, over real sockets, as the real openai client sees them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.apis_kit import TEXT, Provider, events_of, response
from tests.faces.asgi_kit import STREAM_HEAD, Proxy, Raw, RawUpstream, chunked, http, proxied, raw_response, until
from tests.servers import serving

QUESTION = "Tell me of cats"
EXACT = 'llm-proxy; hit; detail="exact"'
STORED = "llm-proxy; fwd=uri-miss; stored"
PATHS = ("responses", "completions", "embeddings")


@pytest.fixture
def provider() -> Iterator[tuple[str, Provider]]:
    with serving(Provider()) as served:
        yield f"{served.url}/v1", served.app


@pytest.fixture
def proxy(provider: tuple[str, Provider]) -> Iterator[Proxy]:
    with proxied(provider[0]) as made:
        yield made


def body_of(path: str, **fields: Any) -> bytes:
    given = {"prompt" if path == "completions" else "input": QUESTION}
    return json.dumps({"model": "m", **given, **fields}).encode()


def post(port: int, path: str, body: bytes, *headers: str) -> tuple[int, dict[str, str], bytes]:
    lines = ["host: localhost", "authorization: Bearer sk", f"content-length: {len(body)}", "connection: close"]
    head = "\r\n".join([f"POST /v1/{path} HTTP/1.1", *lines, *headers, "", ""])
    return http(port, head.encode() + body, until_closed=True)


def dechunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize("path", PATHS)
def test_the_same_request_is_answered_from_the_cache(provider: tuple[str, Provider], proxy: Proxy, path: str) -> None:
    first, again = (post(proxy.port, path, body_of(path)) for _ in range(2))
    assert (first[0], first[1]["cache-status"], first[1]["x-request-id"]) == (200, STORED, "simulated")
    assert (again[0], again[1]["cache-status"], again[1]["age"]) == (200, EXACT, "0")
    assert json.loads(again[2]) == json.loads(first[2])
    assert again[1]["x-llm-proxy-backend"] == "main"
    assert provider[1].requests == [(f"/v1/{path}", json.loads(body_of(path)))]


@pytest.mark.parametrize("path", PATHS)
def test_another_key_gets_nothing_of_it(provider: tuple[str, Provider], proxy: Proxy, path: str) -> None:
    post(proxy.port, path, body_of(path))
    _, headers, _ = post(proxy.port, path, body_of(path), "x-api-key: another")
    assert headers["cache-status"] == STORED
    assert len(provider[1].requests) == 2


@pytest.mark.parametrize("path", PATHS)
def test_controls_hold(provider: tuple[str, Provider], proxy: Proxy, path: str) -> None:
    absent = post(proxy.port, path, body_of(path), "cache-control: only-if-cached")
    assert (absent[0], json.loads(absent[2])["error"]["code"]) == (504, "not_cached")
    kept_out = post(proxy.port, path, body_of(path), "cache-control: no-store")
    assert kept_out[1]["cache-status"] == 'llm-proxy; fwd=bypass; detail="no-store"'
    again = post(proxy.port, path, body_of(path), "cache-control: no-cache")
    assert again[1]["cache-status"] == "llm-proxy; fwd=request; stored"


def test_a_hit_is_streamed_as_the_provider_would(proxy: Proxy) -> None:
    post(proxy.port, "responses", body_of("responses"))
    status, headers, stream = post(proxy.port, "responses", body_of("responses", stream=True))
    assert (status, headers["content-type"], headers["cache-status"]) == (
        200, "text/event-stream; charset=utf-8", EXACT,
    )  # fmt: skip
    events = events_of(stream)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1] == {
        "type": "response.completed", "sequence_number": len(events) - 1, "response": response({"model": "m"}),
    }  # fmt: skip


def test_a_miss_is_streamed_as_it_comes(provider: tuple[str, Provider], proxy: Proxy) -> None:
    _, headers, body = post(proxy.port, "responses", body_of("responses", stream=True))
    _, _, _, is_broken = provider[1].respond("/v1/responses", {"model": "m", "stream": True})
    assert not is_broken
    assert headers["cache-status"] == "llm-proxy; fwd=uri-miss"
    assert dechunked(body) == b"".join(provider[1].respond("/v1/responses", {"model": "m", "stream": True})[2])


def test_a_stream_that_breaks_off_ends_with_an_event_of_its_api(proxy: Proxy) -> None:
    _, _, body = post(proxy.port, "responses", body_of("responses", model="breaks", stream=True))
    events = events_of(dechunked(body))
    assert events[3]["type"] == "response.content_part.added"
    assert events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in events] == list(range(6))
    assert events[-1]["code"] == events[-1]["error"]["code"] == "stream_interrupted"
    with (
        proxy.client() as client,
        pytest.raises(openai.APIError, match="broke off"),
        client.responses.create(model="breaks", input=QUESTION, stream=True) as stream,
    ):
        for _ in stream:
            pass
    assert proxy.cache.entries == {}
    until(lambda: len(proxy.events) == 2)
    assert all("Error" in event.error for event in proxy.events)


def test_a_completion_that_breaks_off_ends_with_an_error(proxy: Proxy) -> None:
    with (
        proxy.client() as client,
        pytest.raises(openai.APIError, match="broke off"),
        client.completions.create(model="breaks", prompt=QUESTION, stream=True) as stream,
    ):
        for _ in stream:
            pass
    assert proxy.cache.entries == {}


@pytest.mark.parametrize("path", PATHS)
def test_equal_requests_at_once_are_one(path: str) -> None:
    async def delay() -> None:
        await asyncio.sleep(0.3)

    with serving(Provider(delay)) as served, proxied(f"{served.url}/v1") as proxy:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: post(proxy.port, path, body_of(path)), range(3)))
        assert [row[0] for row in found] == [200] * 3
        assert len(served.app.requests) == 1
        statuses = sorted(row[1]["cache-status"] for row in found)
        assert STORED in statuses
        assert all("collapsed" in status or status == EXACT for status in statuses if status != STORED)


@pytest.mark.parametrize(("path", "given"), [("completions", "prompt"), ("embeddings", "input")])
def test_a_body_that_is_none_is_refused(proxy: Proxy, path: str, given: str) -> None:
    status, _, body = post(proxy.port, path, body_of(path, **{given: 7}))
    assert (status, json.loads(body)["error"]["message"].partition(";")[0]) == (400, f"'{given}' is 7")


def test_what_else_belongs_to_responses_is_passed_on(provider: tuple[str, Provider], proxy: Proxy) -> None:
    for path in ("responses/resp_1/cancel", "responses/compact"):
        _, headers, _ = post(proxy.port, path, b"{}")
        assert headers["cache-status"] == 'llm-proxy; fwd=bypass; detail="path"'
    assert [path for path, _ in provider[1].requests] == ["/v1/responses/resp_1/cancel", "/v1/responses/compact"]


class TestBackends:
    """What the engine does for chat it does for these: retries, fallbacks, breakers, queues, budgets, prices."""

    @pytest.mark.parametrize("path", PATHS)
    def test_a_failing_backend_is_asked_again_and_then_another(self, path: str) -> None:
        def fail(raw: Raw) -> None:
            raw.send(raw_response(b'{"error": {"message": "simulated"}}', status="503 Unavailable"))

        with RawUpstream(fail) as broken, serving(Provider()) as served:
            backends = {
                "broken": {"base_url": broken.url, "fallbacks": ["well/m"], "retries": 1},
                "well": {"base_url": f"{served.url}/v1", "auth": "caller"},
            }
            with proxied(backends, attempts={"longest_wait_s": 5}) as proxy:
                status, headers, _ = post(proxy.port, path, body_of(path))
                assert (status, headers["x-llm-proxy-backend"]) == (200, "well")
                assert headers["x-llm-proxy-attempts"].endswith('well/m"')
                assert {raw.target for raw in broken.requests} == {f"/v1/{path}"}
                assert post(proxy.port, path, body_of(path))[1]["cache-status"] == EXACT

    @pytest.mark.parametrize("path", PATHS)
    def test_prices_and_tokens_are_booked(self, provider: tuple[str, Provider], path: str) -> None:
        prices = {"m": {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 2000.0}}
        with proxied({"main": {"base_url": provider[0], "prices": prices}}) as proxy:
            post(proxy.port, path, body_of(path))
            _, headers, _ = post(proxy.port, path, body_of(path))
        usage = proxy.events[0].usage
        assert usage is not None
        cost = (usage.prompt_tokens + 2 * usage.completion_tokens) / 1000
        assert usage.prompt_tokens > 0
        assert proxy.events[0].outcome.cost_usd == pytest.approx(cost)
        assert float(headers["x-llm-proxy-saved-usd"]) == pytest.approx(cost)

    @pytest.mark.parametrize("path", PATHS)
    def test_a_budget_that_is_spent_refuses(self, provider: tuple[str, Provider], path: str) -> None:
        prices = {"m": {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 2000.0}}
        budget = {"limits": {"day": {"usd_per_day": 0.0001}}}
        with proxied({"main": {"base_url": provider[0], "prices": prices}}, budget=budget) as proxy:
            status, _, _ = post(proxy.port, path, body_of(path))
        assert status == 429
        assert provider[1].requests == []

    def test_a_route_chooses_for_responses(self, provider: tuple[str, Provider]) -> None:
        with proxied(
            {"main": {"base_url": provider[0]}},
            routes={"auto": {"candidates": ["main/small", "main/m"]}},
            aliases={"gpt-4o": "auto"},
        ) as proxy:
            for name in ("auto", "gpt-4o"):
                _, headers, body = post(proxy.port, "responses", body_of("responses", model=name))
                assert headers["x-llm-proxy-route"] == "auto"
                assert json.loads(body)["model"] == "small"
            assert [body["model"] for _, body in provider[1].requests] == ["small"]

    @pytest.mark.parametrize("path", ["completions", "embeddings"])
    def test_a_route_is_refused_where_none_may_choose(self, provider: tuple[str, Provider], path: str) -> None:
        with proxied({"main": {"base_url": provider[0]}}, routes={"auto": {"candidates": ["main/m"]}}) as proxy:
            status, _, body = post(proxy.port, path, body_of(path, model="auto"))
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (400, "route_not_possible")
        assert error["message"] == f"'auto' leads to the route 'auto'; name a model for /{path}"
        assert provider[1].requests == []

    @pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
    def test_what_one_server_knows_is_not_asked_of_another(self, provider: tuple[str, Provider], field: str) -> None:
        main, spare = {"base_url": provider[0]}, {"base_url": provider[0].replace("127.0.0.1", "localhost")}
        routes = {
            "auto": {"candidates": ["main/small", "spare/m"]},
            "here": {"candidates": ["main/small", "main/m"]},
        }
        with proxied({"main": main, "spare": spare}, routes=routes) as proxy:
            status, _, body = post(proxy.port, "responses", body_of("responses", model="auto", **{field: "id_1"}))
            error = json.loads(body)["error"]
            assert (status, error["code"]) == (400, "route_not_possible")
            assert f"only one knows the {field}: name its model, as BACKEND/MODEL" in error["message"]
            assert provider[1].requests == []
            for model in ("here", "spare/m"):
                status, _, _ = post(proxy.port, "responses", body_of("responses", model=model, **{field: "id_1"}))
                assert status == 200
            assert post(proxy.port, "responses", body_of("responses", model="auto"))[0] == 200
            assert [body.get(field) for _, body in provider[1].requests] == ["id_1", "id_1", None]

    def test_no_part_of_a_broken_response_is_sent_twice(self) -> None:
        """A stream of another API is never continued elsewhere, also where its backend could go on with a text."""
        start = response({"model": "m"}, status="in_progress", output=[])
        piece = f"event: response.created\ndata: {json.dumps({'type': 'response.created', 'response': start})}\n\n"

        def cut(raw: Raw) -> None:
            raw.send(STREAM_HEAD + chunked(piece.encode(), is_end=False))
            raw.connection.shutdown(socket.SHUT_RDWR)

        with RawUpstream(cut) as upstream:
            backends = {"main": {"base_url": upstream.url, "can_prefill": "continue_final_message"}}
            with proxied(backends) as proxy:
                _, _, body = post(proxy.port, "responses", body_of("responses", stream=True))
            assert [event["type"] for event in events_of(dechunked(body))] == ["response.created", "error"]
            assert len(upstream.requests) == 1


def test_the_whole_client_works(proxy: Proxy) -> None:
    with proxy.client() as client:
        with client.responses.stream(model="thinks", input=QUESTION) as stream:
            kinds = [event.type for event in stream]
            missed = stream.get_final_response()
        with client.responses.stream(model="thinks", input=QUESTION) as stream:
            assert [event.type for event in stream if not event.type.endswith("delta")] == [
                kind for kind in kinds if not kind.endswith("delta")
            ]
            assert stream.get_final_response().to_dict() == missed.to_dict()
        assert missed.output_text == TEXT
