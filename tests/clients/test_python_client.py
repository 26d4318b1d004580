"""The shared suite of clients, by the openai Python package: sync and async. The cases are in cases.json."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import Running, running

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("cases.json").read_text(encoding="utf-8"))
STATUSES = {"hit": "; hit", "miss": "fwd=uri-miss", "bypass": "fwd=bypass", "request": "fwd=request"}


def named(value: Any, path: str) -> Any:
    """A part of an answer, by a path such as ``choices.0.message``."""
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def check(expected: Mapping[str, Any], found: Any) -> None:
    for path, value in expected.items():
        assert named(found, path) == value, path


def text_of(chunk: Any) -> str:
    """The text in one chunk of a chat, or one event of a response."""
    if chunk.get("type") == "response.output_text.delta":
        return str(chunk["delta"])
    choices = chunk.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


def tool_in(chunks: list[Any]) -> list[str]:
    """Name and arguments of the tool that a stream calls."""
    name, arguments = "", ""
    for chunk in chunks:
        if chunk.get("type") == "response.output_item.added":
            name = chunk["item"].get("name") or name
        if chunk.get("type") == "response.function_call_arguments.delta":
            arguments += chunk["delta"]
        for call in ((chunk.get("choices") or [{}])[0].get("delta") or {}).get("tool_calls") or ():
            name = call["function"].get("name") or name
            arguments += call["function"].get("arguments") or ""
    return [name, arguments]


def whole_text(answer: Any) -> str:
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    return str(answer["output"][0]["content"][0]["text"])


def check_answer(step: Mapping[str, Any], answer: Any, chunks: list[Any]) -> None:
    check(step.get("expect", {}), answer)
    if "text" in step:
        assert "".join(map(text_of, chunks)) == step["text"]
    if "tool" in step:
        assert tool_in(chunks) == step["tool"]
    if "expect_last" in step:
        check(step["expect_last"], chunks[-1])
    if "json" in step:
        assert json.loads(whole_text(answer)) == step["json"]
    for path, wanted in step.get("find", {}).items():
        assert any(wanted.items() <= row.items() for row in named(answer, path))


def check_error(expected: Mapping[str, Any], error: Exception) -> None:
    if not expected:
        return  # how a broken connection shows differs between clients; that it shows does not
    assert type(error).__name__ == expected["kind"]
    assert isinstance(error, openai.APIStatusError)
    assert error.status_code == expected["status"]
    assert expected["message"] in str(error)
    assert error.code == expected["code"]


def method_of(client: Any, step: Mapping[str, Any], *, is_raw: bool = True) -> Any:
    """The client's method that a step names, with the raw response around its answer."""
    *owners, name = step["do"].split(".")
    for owner in owners:
        client = getattr(client, owner)
    return getattr(client.with_raw_response if is_raw else client, name)


class Sync:
    """Makes the calls of a step by `openai.OpenAI`."""

    def __init__(self, base_url: str) -> None:
        self.client = openai.OpenAI(base_url=base_url, api_key="k", max_retries=0)

    def run(self, step: Mapping[str, Any]) -> None:
        client = self.client.with_options(max_retries=step.get("retries", 0))
        if step["do"] == "files":
            self.files(client, step["with"])
        elif "path" in step:
            client.post(step["path"], body={}, cast_to=object)
        elif "bytes" in step:
            assert len(method_of(client, step, is_raw=False)(**step["with"]).content) == step["bytes"]
        else:
            raw = method_of(client, step)(**step["with"], extra_headers=step.get("headers"))
            answer: Any = raw.parse()
            chunks = [chunk.model_dump() for chunk in answer] if step["with"].get("stream") else []
            check_answer(step, {} if chunks else answer.model_dump(), chunks)
            if "cache" in step:
                assert STATUSES[step["cache"]] in raw.headers["cache-status"]

    def files(self, client: openai.OpenAI, given: Mapping[str, str]) -> None:
        raw = given["content"].encode()
        made = client.files.create(file=(given["name"], raw), purpose="user_data")
        assert client.files.retrieve(made.id).filename == given["name"]
        assert raw in client.files.content(made.id).content
        assert made.id in [row.id for row in client.files.list().data]
        assert client.files.delete(made.id).deleted


class Async:
    """The same by `openai.AsyncOpenAI`; files, bytes and paths of one's own are the sync client's to test."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def run(self, step: Mapping[str, Any]) -> None:
        asyncio.run(self.asked(step))

    async def asked(self, step: Mapping[str, Any]) -> None:
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key="k", max_retries=step.get("retries", 0)
        ) as client:
            raw = await method_of(client, step)(**step["with"], extra_headers=step.get("headers"))
            answer = raw.parse()
            chunks = [chunk.model_dump() async for chunk in answer] if step["with"].get("stream") else []
            check_answer(step, {} if chunks else answer.model_dump(), chunks)
            if "cache" in step:
                assert STATUSES[step["cache"]] in raw.headers["cache-status"]


def play(case: Mapping[str, Any], proxy: Running, client: Any) -> None:
    """All steps of a case, and how many requests reached the upstream."""
    before = proxy.calls
    for step in case["steps"]:
        if "error" in step:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is stands in the table
                client.run(step)
            assert not isinstance(caught.value, AssertionError), caught.value
            check_error(step["error"], caught.value)
        else:
            client.run(step)
    least, most = case["upstream"]
    assert least <= proxy.calls - before <= most


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_sync(case: dict[str, Any], proxy: Running) -> None:
    asking = Sync(proxy.base_url)
    with asking.client:
        play(case, proxy, asking)


ASYNC = [case for case in CASES if all("." in step["do"] and "bytes" not in step for step in case["steps"])]


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A proxy of its own: what the sync client asked is a hit there."""
    with running(tmp_path_factory.mktemp("proxy")) as started:
        yield started


@pytest.mark.parametrize("case", [case for case in ASYNC if case["name"] != "models"], ids=lambda case: case["name"])
def test_async(case: dict[str, Any], another: Running) -> None:
    play(case, another, Async(another.base_url))
