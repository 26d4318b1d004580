"""A program of somebody who uses llm-proxy with a type checker: what the wheel says of types must suffice for it.

`scripts/release-check` has mypy (strict) and pyright (strict) read it where the wheel is installed and nothing of the
source is.
"""

from __future__ import annotations

from typing import assert_type

import openai
from openai.types.chat import ChatCompletion

import llm_proxy
from llm_proxy import (
    AsyncOpenAI,
    AsyncProxyTransport,
    Config,
    ConfigError,
    LimitReached,
    LLMProxyError,
    OpenAI,
    Outcome,
    ProxyTransport,
    Runtime,
)
from llm_proxy.testing import FakeBackend


def plain(client: OpenAI) -> str | None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert_type(answer, ChatCompletion)
    return answer.choices[0].message.content


def outcome_of(client: OpenAI) -> Outcome:
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "?"}])
    outcome: Outcome = raw.http_response.extensions["llm_proxy"]
    assert_type(outcome.saved_usd, float)
    assert_type(outcome.similarity, float | None)
    assert_type(outcome.headers, tuple[tuple[str, str], ...])
    return outcome


async def asynchronous() -> None:
    async with AsyncOpenAI(api_key="k", llm_proxy={"cache": {"store": "memory"}}) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], stream=True
        )
        async for chunk in stream:
            assert_type(chunk.choices[0].delta.content, str | None)


def wrapped() -> openai.OpenAI:
    client = llm_proxy.wrap(openai.OpenAI(api_key="k"))
    assert_type(client, openai.OpenAI)
    return client


def shared() -> None:
    config = Config(cache={"store": "memory"})
    runtime = Runtime(config)
    assert_type(config.cache.budget_bytes, int)
    client = OpenAI(api_key="k", llm_proxy=runtime)
    assert_type(client.copy(), OpenAI)
    assert_type(ProxyTransport(llm_proxy=runtime), ProxyTransport)
    assert_type(AsyncProxyTransport(llm_proxy=config), AsyncProxyTransport)
    assert_type(runtime.undo("8c1d33f0a2b94e57"), bool)
    llm_proxy.feedback(outcome_of(client), 1.0, llm_proxy=runtime)
    runtime.close()


def failing() -> str:
    try:
        Config(cache={"store": "nowhere"})
    except ConfigError as exc:
        error: LLMProxyError | ValueError = exc
        return str(error)
    except LimitReached as exc:
        return str(exc)
    return llm_proxy.__version__


def simulated() -> OpenAI:
    return OpenAI(api_key="k", http_client=FakeBackend("hello").client())
