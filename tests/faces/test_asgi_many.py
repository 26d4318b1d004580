"""Many callers at once: identical questions make one call, different ones are not mixed up."""

from __future__ import annotations

import asyncio
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
    chunked,
    completion,
    event,
    proxied,
    raw_response,
    until,
    upstreams,
)

CALLERS = 64
FORMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


async def said(client: openai.AsyncOpenAI, text: str, *, stream: bool) -> str:
    messages = [{"role": "user", "content": text}]
    if not stream:
        return (await client.chat.completions.create(model="m", messages=messages)).choices[0].message.content
    chunks = await client.chat.completions.create(model="m", messages=messages, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


def all_said(proxy, texts: list[str], stream) -> list[str]:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0) as client:
            forms = [number % 2 == 0 if stream is None else stream for number in range(len(texts))]
            return await asyncio.gather(
                *(said(client, text, stream=form) for text, form in zip(texts, forms, strict=True))
            )

    return asyncio.run(ask_all())


@FORMS
def test_identical_questions_make_one_call(stream):
    backend = FakeBackend("the one answer", latency_s=0.3)
    with upstreams(backend) as [url], proxied(url) as proxy:
        assert all_said(proxy, ["same"] * CALLERS, stream) == ["the one answer"] * CALLERS
        assert len(backend.requests) == 1
        assert len(proxy.events) >= 1


def test_callers_of_both_forms_share_what_they_can():
    backend = FakeBackend("the one answer", latency_s=0.3)
    with upstreams(backend) as [url], proxied(url) as proxy:
        assert all_said(proxy, ["same"] * CALLERS, None) == ["the one answer"] * CALLERS
        # A plain answer holds the token counts, a streamed one may not: at most one call for each form.
        assert len(backend.requests) <= 2


@FORMS
def test_different_questions_are_not_mixed_up(stream):
    backend = FakeBackend(lambda body: "You asked: " + body["messages"][0]["content"], latency_s=0.05)
    texts = [f"question number {number} of {CALLERS}" for number in range(CALLERS)]
    with upstreams(backend) as [url], proxied(url, cache={"store": "memory", "semantic": False}) as proxy:
        for _ in range(2):
            assert all_said(proxy, texts, stream) == [f"You asked: {text}" for text in texts]
        assert len(backend.requests) == CALLERS
        assert sorted(entry.text for entry in proxy.cache.entries.values()) == sorted(texts)


BODY = {"model": "m", "messages": [{"role": "user", "content": "same"}]}


@FORMS
@pytest.mark.parametrize("when", ["before the first byte", "in mid-answer"])
def test_the_first_caller_leaves_and_the_others_stay(stream, when):
    go, begun = threading.Event(), threading.Event()

    def handler(request: Raw) -> None:
        if when == "in mid-answer":
            request.send(STREAM_HEAD if stream else raw_response(b"", length=len(completion("whole"))))
            request.send(chunked(event("wh"), is_end=False) if stream else completion("whole")[:10])
        begun.set()
        assert go.wait(5)
        if when == "in mid-answer":
            request.send(chunked(event("ole"), event(), DONE) if stream else completion("whole")[10:])
        elif stream:
            request.send(STREAM_HEAD + chunked(event("wh"), event("ole"), event(), DONE))
        else:
            request.send(raw_response(completion("whole")))

    answers = []
    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        url = proxy.url + "/v1/chat/completions"
        body = {**BODY, "stream": stream}

        def leave() -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=0.5)

        def stay() -> None:
            answers.append(httpx.post(url, json=body, timeout=10))

        threads = [threading.Thread(target=leave)]
        threads[0].start()
        assert begun.wait(5)
        threads += [threading.Thread(target=stay) for _ in range(3)]
        for thread in threads[1:]:
            thread.start()
        threads[0].join()
        time.sleep(0.3)  # long enough for the proxy to see that the first one has left
        go.set()
        for thread in threads[1:]:
            thread.join()
        assert len(upstream.requests) == 1
        assert {answer.content for answer in answers} == {answers[0].content}
        assert all(answer.status_code == 200 and b"ole" in answer.content for answer in answers)
        assert all("collapsed" in answer.headers["cache-status"] or "hit" in answer.headers["cache-status"]
                   for answer in answers)  # fmt: skip


def test_a_follower_who_leaves_is_noticed_and_the_last_one_cancels():
    left = []

    def handler(request: Raw) -> None:
        left.append(request.is_left(wait_s=4))

    with RawUpstream(handler) as upstream, proxied(upstream.url) as proxy:
        url = proxy.url + "/v1/chat/completions"

        def leave(after_s: float) -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=BODY, timeout=after_s)

        threads = [threading.Thread(target=leave, args=(after_s,)) for after_s in (0.8, 0.4, 0.4)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: left)
        assert left == [True]
        assert 0.8 <= time.monotonic() - started < 1.8
        assert len(upstream.requests) == 1


@FORMS
def test_trouble_is_not_shared(stream):
    with (
        RawUpstream(lambda request: request.send(raw_response(b"{}", status="500 Oops"))) as upstream,
        proxied(upstream.url) as proxy,
    ):

        async def ask_all() -> list[object]:
            async with openai.AsyncOpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0) as client:
                calls = (said(client, "same", stream=stream) for _ in range(8))
                return await asyncio.gather(*calls, return_exceptions=True)

        assert {type(error) for error in asyncio.run(ask_all())} == {openai.InternalServerError}
        assert proxy.cache.entries == {}
