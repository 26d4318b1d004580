"""A stream that breaks off goes on at another backend: over real sockets, every character once."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import proxied

from .kit import upstream

TEXT = "one two three four five six seven eight nine ten"
PRICES = {"m": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}}
FORMS = ("continue_final_message", "trailing", "prefix", "prefix_echoed")
FAULTS = ("reset in mid-body", "reset in mid-event", "cut", "silent in mid-body")


def rest_of(body: dict[str, Any]) -> str:
    """All of the answer, or what follows the text that a request ends with; one that echoes says all again."""
    last = body["messages"][-1]
    if last["role"] != "assistant":
        return TEXT
    assert TEXT.startswith(last["content"])
    return TEXT if last.get("prefix") and "echo" in body["model"] else TEXT[len(last["content"]) :]


class Told:
    """What a stream said."""

    def __init__(self) -> None:
        self.text, self.ids, self.models, self.roles, self.ends = "", set(), set(), 0, []
        self.usage: Any = None

    def add(self, chunk: Any) -> None:
        self.ids.add(chunk.id)
        self.models.add(chunk.model)
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            self.roles += choice.delta.role is not None
            self.ends += [choice.finish_reason] if choice.finish_reason else []


OPTIONS: dict[str, Any] = {
    "model": "main/m",
    "messages": [{"role": "user", "content": "count"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def asked(way: str, backends: dict[str, Any], events: list[Any], **more: Any) -> Told:
    told, options = Told(), {**OPTIONS, **more}
    if way == "proxy":
        with proxied(backends) as proxy:
            for chunk in proxy.client().chat.completions.create(**options):
                told.add(chunk)
            events += proxy.events
        return told
    config = Config(cache={"store": "memory", "semantic": False}, observe={"ledger": False}, backends=backends)
    runtime = Runtime(config, sinks=(events.append,))
    arguments = {"base_url": backends["main"]["base_url"], "api_key": "k", "max_retries": 0, "llm_proxy": runtime}
    if way == "sync":
        for chunk in OpenAI(**arguments).chat.completions.create(**options):
            told.add(chunk)
    else:

        async def ask() -> None:
            async with AsyncOpenAI(**arguments) as client:
                async for chunk in await client.chat.completions.create(**options):
                    told.add(chunk)

        asyncio.run(ask())
    runtime.close()
    return told


def usage_of(body: dict[str, Any], text: str) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": len(text.split()), "total_tokens": 10 + len(text.split())}


@pytest.mark.parametrize("way", ["sync", "async", "proxy"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMS)
def test_it_goes_on_where_it_broke_off(form: str, fault: str, way: str) -> None:
    with upstream(rest_of, fault) as main, upstream(rest_of, usage=usage_of) as spare:
        model = "echo" if form == "prefix_echoed" else "m"
        backends = {
            "main": {"base_url": main.url, "fallbacks": [f"spare/{model}"], "prices": PRICES},
            "spare": {"base_url": spare.url, "can_prefill": form, "prices": {model: PRICES["m"]}},
        }
        if fault.startswith("silent"):
            backends["main"]["timeout_s"] = 0.2
        events: list[Any] = []
        told = asked(way, backends, events)
    assert told.text == TEXT
    assert (told.ids, told.models, told.roles, told.ends) == ({"c1"}, {"m"}, 1, ["stop"])
    last = spare.asked[0].body["messages"][-1]
    assert last["content"]
    assert TEXT.startswith(last["content"])
    assert spare.asked[0].body.get("continue_final_message") is (True if form == "continue_final_message" else None)
    (event,) = events
    assert event.outcome.attempts == f"main/m broke off, spare/{model}"
    assert event.outcome.backend == "spare"
    assert event.outcome.is_stored is (model == "m")
    assert event.outcome.cost_usd == pytest.approx((told.usage.prompt_tokens + 2 * told.usage.completion_tokens) / 1e6)
    assert told.usage.prompt_tokens > 10


@pytest.mark.parametrize(
    "more", [{"tools": [{"type": "function", "function": {"name": "f"}}]}, {"logprobs": True}, {"n": 2}]
)
def test_what_is_never_spliced(more: dict[str, Any]) -> None:
    with upstream(rest_of, "reset in mid-body") as main, upstream(rest_of) as spare:
        backends = {
            "main": {"base_url": main.url, "fallbacks": ["spare"]},
            "spare": {"base_url": spare.url, "can_prefill": "trailing"},
        }
        with pytest.raises(openai.APIConnectionError):
            asked("sync", backends, [], **more)
    assert spare.asked == []


def test_a_backend_goes_on_by_itself() -> None:
    faults = iter(["reset in mid-body", "reset in mid-event", ""])
    with upstream(rest_of, lambda body: next(faults), usage=usage_of) as main:
        backends = {"main": {"base_url": main.url, "can_prefill": "trailing"}}
        events: list[Any] = []
        told = asked("async", backends, events)
    assert (told.text, told.roles, told.ends) == (TEXT, 1, ["stop"])
    assert events[0].outcome.attempts == "main/m broke off, main/m broke off, main/m"


def test_where_nobody_can_go_on_it_ends_as_it_would_have() -> None:
    with upstream(rest_of, "reset in mid-body") as main, upstream(rest_of, "500") as spare:
        backends = {
            "main": {"base_url": main.url, "fallbacks": ["spare"]},
            "spare": {"base_url": spare.url, "can_prefill": "trailing"},
        }
        events: list[Any] = []
        with pytest.raises(openai.APIConnectionError):
            asked("sync", backends, events)
    assert len(spare.asked) == 1
    assert [event.error for event in events] == ["ReadError"]


@pytest.mark.parametrize(
    ("way", "error"),
    [("sync", openai.APIConnectionError), ("async", openai.APIConnectionError), ("proxy", openai.APIError)],
)
def test_a_rest_that_ends_early_is_an_error(way: str, error: type[Exception]) -> None:
    """What has gone on once must not end as if it were whole."""
    with upstream(rest_of, "reset in mid-body") as main, upstream(rest_of, "cut") as spare:
        backends = {
            "main": {"base_url": main.url, "fallbacks": ["spare"]},
            "spare": {"base_url": spare.url, "can_prefill": "trailing"},
        }
        events: list[Any] = []
        with pytest.raises(error):
            asked(way, backends, events)
    assert len(spare.asked) == 1
