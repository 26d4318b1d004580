"""Chat completions through the proxy, with the real openai client: every outcome, plain and streamed."""

from __future__ import annotations

import threading
import time

import openai
import pytest

from llm_proxy.faces._http import httpx
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import (
    DONE,
    STREAM_HEAD,
    Raw,
    RawUpstream,
    ask,
    chunked,
    completion,
    event,
    proxied,
    raw_response,
    until,
    upstreams,
)

pytestmark = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])

PATIENCE_S = 1.0
"""How long a caller waits who then goes away: enough for its question to reach the upstream on a busy machine."""


def status_of(proxy, stream, text="What is up?", **options):
    """Cache-Status and all headers of one call, read to its end."""
    messages = [{"role": "user", "content": text}]
    raw = proxy.client().chat.completions.with_raw_response
    response = raw.create(model="m", messages=messages, stream=stream, **options)
    if stream:
        for _ in response.parse():
            pass
    return response.headers["cache-status"], response.headers


def test_a_miss_is_forwarded_and_stored(stream):
    backend = FakeBackend("Hello there, friend.")
    with upstreams(backend) as [url], proxied(url) as proxy:
        status, headers = status_of(proxy, stream)
        assert status == ("llm-proxy; fwd=uri-miss" if stream else "llm-proxy; fwd=uri-miss; stored")
        assert headers["x-llm-proxy-backend"] == "main"
        assert [entry.text for entry in proxy.cache.entries.values()] == ["What is up?"]
        assert [(event.outcome.status, event.error) for event in proxy.events] == [("miss", "")]


def test_an_exact_hit_is_replayed_in_either_form(stream):
    backend = FakeBackend("Hello there, friend.")
    with upstreams(backend) as [url], proxied(url) as proxy:
        counting = {} if stream else {"stream_options": {"include_usage": True}}  # a plain answer needs the counts
        assert ask(proxy.client(), stream=not stream, **counting) == "Hello there, friend."
        assert ask(proxy.client(), stream=stream) == "Hello there, friend."
        status, headers = status_of(proxy, stream)
        assert status == 'llm-proxy; hit; detail="exact"'
        assert int(headers["age"]) >= 0
        assert float(headers["x-llm-proxy-saved-usd"]) == 0.0  # a model on this machine is free
        assert "date" in headers
        assert len(backend.requests) == 1


def test_a_hit_has_the_usage_that_was_asked_for(stream):
    backend = FakeBackend("Hello there, friend.")
    with upstreams(backend) as [url], proxied(url) as proxy:
        client = proxy.client()
        ask(client)
        options = {"stream_options": {"include_usage": True}} if stream else {}
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "What is up?"}], stream=stream, **options
        )
        usage = [chunk.usage for chunk in answer][-1] if stream else answer.usage
        assert usage.total_tokens > 0
        assert len(backend.requests) == 1


def test_a_semantic_hit_says_how_near_it_was(stream):
    backend = FakeBackend(lambda body: "You asked: " + body["messages"][0]["content"])
    with upstreams(backend) as [url], proxied(url) as proxy:
        ask(proxy.client(), "is the sky blue today")
        assert ask(proxy.client(), "today is the sky blue", stream=stream) == "You asked: is the sky blue today"
        status, _ = status_of(proxy, stream, "today the sky is blue")
        assert status == 'llm-proxy; hit; detail="semantic; similarity=1.000; p_wrong=0.002"'
        assert len(backend.requests) == 1


@pytest.mark.parametrize(("status", "error"), [(429, openai.RateLimitError), (500, openai.InternalServerError)])
def test_an_upstream_error_is_passed_on_and_not_stored(stream, status, error):
    backend = FakeBackend(status=status, headers={"retry-after": "1", "x-request-id": "r1"})
    with upstreams(backend) as [url], proxied(url) as proxy:
        with pytest.raises(error) as caught:
            ask(proxy.client(), stream=stream)
        assert caught.value.body["message"] == f"simulated status {status}"
        assert caught.value.response.headers["retry-after"] == "1"
        assert caught.value.request_id == "r1"
        assert proxy.cache.entries == {}
        backend.status = 200
        assert ask(proxy.client(), stream=stream) == "This is a simulated answer."


def test_an_upstream_error_is_retried_by_the_client_as_without_us(stream):
    calls = []

    def handler(request: Raw) -> None:
        calls.append(request)
        if len(calls) == 1:
            request.send(raw_response(b"{}", "retry-after-ms: 1", status="503 Busy"))
        elif stream:
            request.send(STREAM_HEAD + chunked(event("fine"), event(), DONE))
        else:
            request.send(raw_response(completion()))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        assert ask(proxy.client(max_retries=1), stream=stream) == "fine"


def test_a_late_first_byte_is_a_504(stream):
    hold = threading.Event()
    with RawUpstream(lambda request: hold.wait(5)) as upstream:
        with proxied({"main": {"base_url": upstream.url, "timeout_s": 0.2}}) as proxy:
            with pytest.raises(openai.InternalServerError) as caught:
                ask(proxy.client(), stream=stream)
            assert caught.value.status_code == 504
            assert caught.value.code == "upstream_timeout"
            assert "'main' did not answer in time (ReadTimeout)" in caught.value.message
            assert [event.error for event in proxy.events] == ["BackendTimeout"]
        hold.set()


def test_an_upstream_that_is_not_there_is_a_503(stream):
    with proxied("http://127.0.0.1:9/v1") as proxy:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(proxy.client(), stream=stream)
        assert caught.value.status_code == 503
        assert caught.value.code == "upstream_unavailable"
        assert "127.0.0.1" not in caught.value.message  # where backends are is nobody's business


def broken(stream: bool):
    def handler(request: Raw) -> None:
        if stream:
            request.send(STREAM_HEAD + chunked(event("half"), b'data: {"choices": [{"ind', is_end=False))
        else:
            request.send(raw_response(completion(), length=5000))
        raise EOFError

    return handler


def test_a_break_in_mid_stream_is_an_api_error_and_nothing_is_stored(stream, caplog):
    with RawUpstream(broken(stream)) as upstream, proxied(upstream.url) as proxy:
        client = proxy.client()
        if not stream:
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client)
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_broken")
        else:
            texts = []
            chunks = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "What is up?"}], stream=True
            )
            with pytest.raises(openai.APIError, match="broke off in mid-stream") as caught:
                texts += (chunk.choices[0].delta.content for chunk in chunks)
            assert caught.value.code == "stream_interrupted"
            assert texts == ["half"]
        assert proxy.cache.entries == {}
        assert [event.error for event in proxy.events] == ["RemoteProtocolError"]
        upstream.handler = lambda request: request.send(raw_response(completion("whole")))
        assert ask(client) == "whole"
    assert not [record for record in caplog.records if record.exc_info]
    assert not [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno >= 40]


def test_silence_in_mid_stream_ends_with_the_error(stream):
    hold = threading.Event()

    def handler(request: Raw) -> None:
        head = STREAM_HEAD + chunked(event("half"), is_end=False)
        request.send(head if stream else raw_response(b"{", length=500))
        hold.wait(5)

    with RawUpstream(handler) as upstream:
        with proxied({"main": {"base_url": upstream.url, "timeout_s": 0.2}}) as proxy:
            with pytest.raises(openai.APIError) as caught:
                ask(proxy.client(), stream=stream)
            assert caught.value.code == ("stream_interrupted" if stream else "upstream_timeout")
            assert proxy.cache.entries == {}
        hold.set()


def test_a_caller_who_leaves_before_the_first_byte_cancels_the_call(stream):
    left = []

    def handler(request: Raw) -> None:
        left.append(request.is_left(wait_s=10))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        with pytest.raises(openai.APITimeoutError):
            ask(proxy.client(timeout=PATIENCE_S), stream=stream)
        started = time.monotonic()
        until(lambda: left)
        assert left == [True]
        assert time.monotonic() - started < 1
        until(lambda: proxy.events)
        assert proxy.cache.entries == {}
        upstream.handler = lambda request: request.send(raw_response(completion("next")))
        assert ask(proxy.client()) == "next"


def test_a_caller_who_leaves_in_mid_answer_cancels_the_call(stream, caplog):
    left = []

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD + chunked(event("one"), is_end=False) if stream else raw_response(b"{", length=99))
        left.append(request.is_left(wait_s=10))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        client = proxy.client(timeout=PATIENCE_S)
        if stream:
            chunks = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "What is up?"}], stream=True
            )
            assert next(iter(chunks)).choices[0].delta.content == "one"
            chunks.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                ask(client)
        started = time.monotonic()
        until(lambda: left)
        assert left == [True]
        assert time.monotonic() - started < 1
        until(lambda: proxy.events)
        assert [event.error for event in proxy.events] == ["aborted"]
        assert proxy.cache.entries == {}
    assert not [record for record in caplog.records if record.exc_info]


def test_a_bypassed_call_is_cancelled_as_well(stream):
    left = []

    def handler(request: Raw) -> None:
        request.send(STREAM_HEAD + chunked(event("one"), is_end=False) if stream else raw_response(b"{", length=99))
        left.append(request.is_left(wait_s=10))

    with RawUpstream(handler) as upstream, proxied(upstream.url, cache={"enabled": False}) as proxy:
        client = proxy.client(timeout=PATIENCE_S, default_headers={"cache-control": "no-store"})
        with pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):  # openai 2 lets the latter out of streams
            ask(client, stream=stream)
        until(lambda: left)
        assert left == [True]


def test_controls_are_those_of_http(stream):
    backend = FakeBackend("one")
    with upstreams(backend) as [url], proxied(url) as proxy:
        client = proxy.client()
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, stream=stream, extra_headers={"cache-control": "only-if-cached"})
        assert (caught.value.status_code, caught.value.code) == (504, "not_cached")
        ask(client, stream=stream)
        backend.answer = "two"
        assert ask(client, stream=stream) == "one"
        assert ask(client, stream=stream, extra_headers={"cache-control": "no-cache"}) == "two"
        assert ask(client, stream=stream, extra_headers={"cache-control": "only-if-cached"}) == "two"
        backend.answer = "three"
        status, _ = status_of(proxy, stream, extra_headers={"cache-control": "no-store"})
        assert status == 'llm-proxy; fwd=bypass; detail="no-store"'
        assert ask(client, stream=stream) == "two"


def test_a_query_goes_upstream_and_past_the_cache(stream):
    backend = FakeBackend("one")
    with upstreams(backend) as [url], proxied(url) as proxy:
        status, _ = status_of(proxy, stream, extra_query={"api-version": "2026-01-01"})
        assert status == 'llm-proxy; fwd=bypass; detail="no-store"'
        assert proxy.cache.entries == {}

    targets = []

    def handler(request: Raw) -> None:
        targets.append(request.target)
        body = STREAM_HEAD + chunked(event("x"), event(), DONE) if stream else raw_response(completion("x"))
        request.send(body)

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        assert ask(proxy.client(), stream=stream, extra_query={"q": "a b+c"}) == "x"
        assert targets == ["/v1/chat/completions?q=a+b%2Bc"]
