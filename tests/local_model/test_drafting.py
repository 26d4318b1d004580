"""A real model, drafted by a smaller one with another tokenizer, gives the very answers that it gives by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import llm_proxy
from benchmarks._knowing import FORM
from llm_proxy.config import load
from llm_proxy.draft.goodput import Goodput, Price, Way
from llm_proxy.engine.drafting import Drafting
from llm_proxy.runtime import Runtime

from . import corpus
from .server import DRAFT, NAME, LocalModelServer, is_installed

pytestmark = pytest.mark.local_model
PROMPTS = 200
STRANGE = ["Say \U0001f44b\U0001f3fd ☀️ hello", "Repeat: naïve Lomé", "你好吗", "Good night", "Good night?"]


class Always(Goodput):
    """Drafts six tokens each time: these tiny models are faster than any request, so it would never pay."""

    def begin(self, way: Way, *, load: int = 1, price: Price | None = None) -> int:
        return 6

    def length(self, way: Way, *, load: int = 1, price: Price | None = None) -> int:
        return 6


def prompts() -> list[str]:
    rng, asked = random.Random(8), list(STRANGE)
    families = list(corpus.families().values())
    while len(asked) < PROMPTS:
        family = rng.choice(families)
        asked.append(rng.choice(family.wordings).format(x=rng.choice(family.items)[0]))
    return asked


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[LocalModelServer, LocalModelServer]]:
    if not is_installed():
        request.getfixturevalue("local_model")  # says how to install it
    with LocalModelServer(logits_all=True) as target, LocalModelServer(model=DRAFT) as drafter:
        yield target, drafter


@pytest.fixture(scope="module")
def runtime(servers: tuple[LocalModelServer, LocalModelServer]) -> Iterator[Runtime]:
    target, drafter = servers
    scoring = {"template": FORM, "greedy_when": {"repeat_penalty": 1}}
    big = {"base_url": target.base_url, "draft_with": f"small/{NAME}", "scores": "echo", **scoring, "models": [NAME]}
    small = {"base_url": drafter.base_url, **scoring}
    made = Runtime(load(None, cache={"enabled": False}, backends={"big": big, "small": small}))
    drafting = made.engine._chains._sends
    assert isinstance(drafting, Drafting)
    drafting._goodput = Always()
    yield made
    made.close()


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 3}, {"max_tokens": 9, "stop": ["is", ", 5", " of F"]}], ids=str)
def test_drafted_answers_are_those_of_the_target(
    servers: tuple[LocalModelServer, LocalModelServer], runtime: Runtime, limits: dict[str, Any]
) -> None:
    greedy: dict[str, Any] = {"model": NAME, "temperature": 0, "extra_body": {"repeat_penalty": 1}, **limits}
    url = servers[0].base_url
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as plain,
        llm_proxy.OpenAI(base_url=url, api_key="none", max_retries=0, llm_proxy=runtime) as drafted,
    ):
        for number, prompt in enumerate(prompts()):
            chat: dict[str, Any] = {**greedy, "messages": [{"role": "user", "content": prompt}]}
            own = plain.chat.completions.create(**chat)
            expected = own.choices[0].message.content, own.choices[0].finish_reason, own.usage
            found = streamed(drafted, chat) if number % 2 else whole(drafted, chat)
            assert found == expected, prompt
    assert not runtime.troubles.counts, "no call was sent as ever"


def whole(client: openai.OpenAI, chat: dict[str, Any]) -> tuple[Any, Any, Any]:
    answer = client.chat.completions.create(**chat)
    return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage


def streamed(client: openai.OpenAI, chat: dict[str, Any]) -> tuple[Any, Any, Any]:
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **chat))
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return "".join(choice.delta.content or "" for choice in said), said[-1].finish_reason, chunks[-1].usage
