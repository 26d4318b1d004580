"""Real servers that are killed, frozen and overrun, and the three ways to ask them through llm-proxy."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import proxied
from tests.local_model.kit import asking
from tests.local_model.server import MISSING, LocalModelServer, TransformersServer, is_installed

__all__ = ["PRICES", "WAYS", "Asker", "Told", "asked_through", "running", "slowed", "usd", "whole", "without"]

WAYS = ("sync", "async", "proxy")
PRICES = {"tiny": {"input_usd_per_mtok": 1.0, "cached_usd_per_mtok": 0.5, "output_usd_per_mtok": 2.0}}
LIMIT_S = 60.0


@dataclass
class Told:
    """What a caller got of an answer, and how it ended."""

    text: str = ""
    ids: set[str] = field(default_factory=set)
    roles: int = 0
    ends: list[str] = field(default_factory=list)
    usage: Any = None
    error: openai.OpenAIError | None = None

    @property
    def outcome(self) -> tuple[str, int | None]:
        """The error's class, empty for an answer, and its status."""
        return ("" if self.error is None else type(self.error).__name__), getattr(self.error, "status_code", None)

    def add(self, chunk: Any) -> int:
        """Take in a chunk of a stream; the characters that came so far."""
        self.ids.add(chunk.id)
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            self.roles += choice.delta.role is not None
            self.ends += [choice.finish_reason] if choice.finish_reason else []
        return len(self.text)

    def take(self, answer: Any) -> None:
        """Take in a plain answer."""
        self.text, self.usage = answer.choices[0].message.content, answer.usage
        self.ends = [answer.choices[0].finish_reason]


def whole(text: str) -> tuple[str, list[str], openai.OpenAIError | None]:
    """What a caller is told that gets all of an answer."""
    return text, ["stop"], None


class _Moment:
    """Does something once, as soon as so many characters of a stream are there."""

    def __init__(self, at: int, then: Callable[[], object] | None) -> None:
        self._at, self._then = at, then

    def look(self, characters: int) -> None:
        if self._then is not None and characters >= self._at:
            then, self._then = self._then, None
            then()


@dataclass
class Asker:
    """One way to ask, several times, of one runtime."""

    events: list[CallEvent]
    runtime: Runtime
    client: openai.OpenAI | None = None
    later: openai.AsyncOpenAI | None = None
    runner: asyncio.Runner | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot of ``main``."""
        line: Any = self.runtime.gate._lines["main"]
        return int(line.waiting)

    @property
    def under_way(self) -> int:
        """How many calls have one."""
        line: Any = self.runtime.gate._lines["main"]
        return int(line.under_way)

    def ask(
        self,
        text: str,
        *,
        stream: bool = False,
        at: int = 0,
        then: Callable[[], object] | None = None,
        **more: Any,
    ) -> Told:
        """One call; of a stream, something is done when so many characters have come."""
        told, moment = Told(), _Moment(at, then)
        if self.runner is not None:
            return self.runner.run(self._asked_later(told, moment, _arguments(text, stream, more)))
        assert self.client is not None
        try:
            answer: Any = self.client.chat.completions.create(**_arguments(text, stream, more))
            if not stream:
                told.take(answer)
            for chunk in answer if stream else ():
                moment.look(told.add(chunk))
        except openai.OpenAIError as exc:
            told.error = exc
        return told

    def ask_together(self, rows: Sequence[Mapping[str, Any]], meanwhile: Callable[[], object]) -> list[Told]:
        """Calls at once, each given as the arguments of `ask`, and what is done while they wait; in their order."""
        with ThreadPoolExecutor(len(rows) + 1) as pool:
            beside = pool.submit(meanwhile)
            if self.runner is not None:
                found = self.runner.run(self._asked_together(rows))
            else:
                found = list(pool.map(lambda row: self.ask(**row), rows))
            beside.result()
        return found

    async def _asked_together(self, rows: Sequence[Mapping[str, Any]]) -> list[Told]:
        calls = []
        for row in rows:
            more = dict(row)
            arguments = _arguments(more.pop("text"), more.pop("stream", False), more)
            calls.append(self._asked_later(Told(), _Moment(0, None), arguments))
        return await asyncio.gather(*calls)

    async def _asked_later(self, told: Told, moment: _Moment, arguments: dict[str, Any]) -> Told:
        assert self.later is not None
        try:
            answer = await self.later.chat.completions.create(**arguments)
            if "stream" not in arguments:
                told.take(answer)
                return told
            async for chunk in answer:
                moment.look(told.add(chunk))
        except openai.OpenAIError as exc:
            told.error = exc
        return told


def _arguments(text: str, stream: bool, more: dict[str, Any]) -> dict[str, Any]:
    counted = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return asking(text, **{"model": "main/tiny", "timeout": LIMIT_S, **counted, **more})


@contextmanager
def asked_through(way: str, backends: dict[str, Any], **sections: Any) -> Iterator[Asker]:
    """A way to ask these backends, whose troubles are none at the end; the client never asks twice by itself."""
    events: list[CallEvent] = []
    # llama-cpp-python's server marks every stream with no-store.
    sections = {"cache": {"store": "memory", "semantic": False, "obey_no_store": False}, **sections}
    if way == "proxy":
        with proxied(backends, **sections) as proxy, proxy.client() as client:
            yield Asker(proxy.events, proxy.runtime, client)
            assert not proxy.runtime.troubles.counts
        return
    runtime = Runtime(Config(backends=backends, **{"observe": {"ledger": False}, **sections}), sinks=(events.append,))
    arguments = {"base_url": backends["main"]["base_url"], "api_key": "k", "max_retries": 0, "llm_proxy": runtime}
    if way == "sync":
        with OpenAI(**arguments) as client:
            yield Asker(events, runtime, client)
    else:
        with asyncio.Runner() as runner:
            later = AsyncOpenAI(**arguments)
            yield Asker(events, runtime, None, later, runner)
            runner.run(later.close())
    assert not runtime.troubles.counts
    runtime.close()


def without(reason: str) -> Any:
    """``transformers serve`` as a parameter of a case that it can't be put in, and why: ``pytest -rs`` prints it."""
    skip = pytest.mark.skip(reason=f"not with transformers serve: {reason}")
    return pytest.param(TransformersServer, id="transformers", marks=skip)


@contextmanager
def slowed(server: LocalModelServer) -> Iterator[None]:
    """A server that runs a sixth of the time, so that its answer can be caught in the middle."""
    is_over = threading.Event()

    def brake() -> None:
        while server.is_alive and not is_over.is_set():
            server.freeze()
            is_over.wait(0.01)
            server.thaw()
            is_over.wait(0.002)

    thread = threading.Thread(target=brake)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def running(server: LocalModelServer) -> Iterator[LocalModelServer]:
    """A server for as long as the block lasts; where it is not installed, a skip or a failure that says so."""
    if not is_installed():
        if os.environ.get("LLM_PROXY_REQUIRE_LOCAL_MODEL") == "1":
            pytest.fail(MISSING, pytrace=False)
        pytest.skip(MISSING)
    with server:
        yield server


def usd(usage: Any) -> float:
    """What `PRICES` make of a usage."""
    cached = usage.prompt_tokens_details.cached_tokens or 0 if usage.prompt_tokens_details else 0
    return float(usage.prompt_tokens - 0.5 * cached + 2 * usage.completion_tokens) / 1e6
