"""A second request beside one that takes long, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.backends.delays import AT_LEAST
from llm_proxy.config import Config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import proxied

from .kit import FaultyUpstream, upstream

WAYS = ("sync", "async", "proxy")


def ask_all(
    way: str, backends: dict[str, Any], questions: list[str], *, is_stream: bool
) -> tuple[list[str], list[Any]]:
    """The texts of the answers, one after the other, and the events."""
    events: list[Any] = []

    def options(question: str) -> dict[str, Any]:
        fresh = {"cache-control": "no-cache"}  # every question is asked
        messages = [{"role": "user", "content": question}]
        return {"model": "main/m", "messages": messages, "stream": is_stream, "extra_headers": fresh}

    def text_of(client: openai.OpenAI, question: str) -> str:
        answer: Any = client.chat.completions.create(**options(question))
        chunks = answer if is_stream else ()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text if is_stream else answer.choices[0].message.content

    if way == "proxy":
        with proxied(backends) as proxy:
            client = proxy.client()
            return [text_of(client, question) for question in questions], proxy.events
    config = Config(cache={"store": "memory", "semantic": False}, observe={"ledger": False}, backends=backends)
    runtime = Runtime(config, sinks=(events.append,))
    arguments = {"base_url": backends["main"]["base_url"], "api_key": "k", "max_retries": 0, "llm_proxy": runtime}
    try:
        if way == "sync":
            made = OpenAI(**arguments)
            return [text_of(made, question) for question in questions], events

        async def ask() -> list[str]:
            texts = []
            async with AsyncOpenAI(**arguments) as client:
                for question in questions:
                    answer: Any = await client.chat.completions.create(**options(question))
                    if is_stream:
                        pieces = [chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices]
                    texts.append("".join(pieces) if is_stream else answer.choices[0].message.content)
            return texts

        return asyncio.run(ask()), events
    finally:
        runtime.close()


def stalling(body: dict[str, Any]) -> str:
    return "silent" if body["messages"][-1]["content"] == "slow" else ""


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("way", WAYS)
def test_a_silent_backend_is_overtaken(way: str, is_stream: bool) -> None:
    questions = [str(number) for number in range(AT_LEAST)] + ["slow"]
    with upstream(lambda body: "from main", stalling) as main, upstream(lambda body: "from the spare") as spare:
        backends = {
            "main": {"base_url": main.url, "hedge": True, "fallbacks": ["spare"], "timeout_s": 10},
            "spare": {"base_url": spare.url},
        }
        texts, events = ask_all(way, backends, questions, is_stream=is_stream)
        assert texts[-1] == "from the spare"
        # A slow answer among the first ones is no reason: what they took is what is learnt from.
        assert texts[:-1] == ["from main"] * AT_LEAST
    assert events[-1].outcome.attempts == "main/m overtaken, spare/m"
    assert events[-1].outcome.backend == "spare"
    assert was_left(main)


def was_left(one: FaultyUpstream) -> bool:
    """The silent request was asked, and never answered."""
    return one.asked[-1].fault == "silent" and one.answered["slow"] == 0
