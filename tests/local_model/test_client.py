"""The clients before a real model: what is served, what is stored, and what becomes of a call that goes wrong."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import TYPE_CHECKING, Any

import openai
import pytest
from rich.console import Console

import llm_proxy
from llm_proxy.config import Config, EncoderConfig
from llm_proxy.encode.lazy import LazyEncoder, build
from llm_proxy.faces.cli.demo import Provider, run_demo
from llm_proxy.runtime import Runtime

from . import server
from .kit import (
    AUSTRALIA,
    AUSTRIA,
    CALLERS,
    CANBERRA,
    COUNTED,
    FORCED_TOOL,
    FRANCE,
    FRANCE_REWORDED,
    NO_END,
    PARIS,
    TO_THIRTY,
    TOO_LONG,
    VIENNA,
    Asked,
    asking,
    joined,
    tool_arguments,
    until,
)
from .server import LocalModelServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llm_proxy.observe.events import CallEvent
    from llm_proxy.types import Outcome

pytestmark = pytest.mark.local_model


@dataclass
class Setup:
    """A runtime, and a client of it before a server."""

    runtime: Runtime
    base_url: str
    events: list[CallEvent]
    client: openai.OpenAI = field(init=False)

    def __post_init__(self) -> None:
        self.client = llm_proxy.OpenAI(base_url=self.base_url, api_key="k", max_retries=0, llm_proxy=self.runtime)

    def ask(self, text: str, **options: Any) -> tuple[Any, Outcome]:
        """A plain answer and what was done."""
        raw = self.client.chat.completions.with_raw_response.create(**asking(text, **options))
        return raw.parse(), raw.http_response.extensions["llm_proxy"]

    def stream(self, text: str, **options: Any) -> tuple[list[Any], Outcome]:
        """The chunks of a streamed answer and what was done, as far as that is known when it begins."""
        create = self.client.chat.completions.with_streaming_response.create
        with create(**asking(text, stream=True, **options)) as raw:
            return list(raw.parse()), raw.http_response.extensions["llm_proxy"]

    @property
    def entries(self) -> int:
        """How many answers are stored."""
        assert self.runtime.cache is not None
        return self.runtime.cache.stats().entries

    @property
    def last(self) -> CallEvent:
        """The event of the last call that ended."""
        return self.events[-1]


@pytest.fixture(scope="module")
def encoder() -> LazyEncoder:
    """The shipped encoder, loaded once for all."""
    encoder = build(EncoderConfig())
    encoder.encode("ready?")
    return encoder


def runtime_of(directory: Path, encoder: LazyEncoder, events: list[CallEvent], **cache: Any) -> Runtime:
    # The server marks every stream with no-store, and one thread of a busy machine may be slow.
    settings = {"directory": str(directory), "obey_no_store": False, **cache}
    return Runtime(Config(cache=settings, encoder={"wait_s": 10}), encoder=encoder, sinks=(events.append,))


@pytest.fixture
def setup(local_model: LocalModelServer, encoder: LazyEncoder, tmp_path: Path) -> Iterator[Setup]:
    events: list[CallEvent] = []
    runtime = runtime_of(tmp_path / "cache", encoder, events)
    setup = Setup(runtime, local_model.base_url, events)
    with setup.client:
        yield setup
    assert runtime.troubles.counts == {}
    runtime.close()


@pytest.fixture
def asked(local_model: LocalModelServer) -> Asked:
    return Asked(local_model)


class TestHits:
    def test_plain(self, setup: Setup, asked: Asked) -> None:
        first, outcome = setup.ask(FRANCE)
        assert (outcome.status, outcome.is_stored, first.choices[0].message.content) == ("miss", True, PARIS)
        again, outcome = setup.ask(FRANCE)
        assert (outcome.status, outcome.kind) == ("hit", "exact")
        assert again == first
        assert asked.is_(1)

    def test_stream(self, setup: Setup, asked: Asked) -> None:
        first, outcome = setup.stream(FRANCE)
        assert (outcome.status, joined(first)) == ("miss", PARIS)
        assert setup.last.outcome.is_stored
        again, outcome = setup.stream(FRANCE)
        assert (outcome.status, outcome.kind, joined(again)) == ("hit", "exact", PARIS)
        assert again[-1].choices[0].finish_reason == "stop"
        assert {chunk.id for chunk in again} == {first[0].id}
        assert asked.is_(1)

    def test_plain_then_stream(self, setup: Setup, asked: Asked) -> None:
        first, _ = setup.ask(FRANCE)
        chunks, outcome = setup.stream(FRANCE, stream_options={"include_usage": True})
        assert (outcome.kind, joined(chunks)) == ("exact", PARIS)
        assert chunks[-1].usage == first.usage
        assert asked.is_(1)

    def test_stream_then_plain_asks_once_more_for_the_token_counts(self, setup: Setup, asked: Asked) -> None:
        setup.stream(FRANCE)
        plain, outcome = setup.ask(FRANCE)
        assert (outcome.status, plain.usage is None) == ("miss", False)
        assert setup.entries == 1
        assert [setup.ask(FRANCE)[1].kind, setup.stream(FRANCE)[1].kind] == ["exact", "exact"]
        assert asked.is_(2)

    def test_stream_that_asked_for_counts_in_vain_then_plain(self, setup: Setup, asked: Asked) -> None:
        """This upstream counts no streamed tokens: nothing would be won by asking it again and again."""
        setup.stream(FRANCE, stream_options={"include_usage": True})
        plain, outcome = setup.ask(FRANCE)
        assert (outcome.kind, plain.choices[0].message.content, plain.usage) == ("exact", PARIS, None)
        assert asked.is_(1)

    def test_another_wording(self, setup: Setup, asked: Asked) -> None:
        setup.ask(FRANCE)
        plain, outcome = setup.ask(FRANCE_REWORDED)
        assert (outcome.status, outcome.kind, plain.choices[0].message.content) == ("hit", "semantic", PARIS)
        assert outcome.similarity is not None
        assert 0.95 <= outcome.similarity < 1
        chunks, outcome = setup.stream(FRANCE_REWORDED)
        assert (outcome.kind, joined(chunks)) == ("semantic", PARIS)
        assert asked.is_(1)

    def test_a_trap(self, setup: Setup, asked: Asked) -> None:
        assert setup.ask(AUSTRALIA)[0].choices[0].message.content == CANBERRA
        plain, outcome = setup.ask(AUSTRIA)
        assert (outcome.status, plain.choices[0].message.content) == ("miss", VIENNA)
        assert outcome.detail.startswith("refused=")
        assert asked.is_(2)

    def test_earlier_messages_are_part_of_the_question(self, setup: Setup, asked: Asked) -> None:
        brief = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": FRANCE}]
        assert setup.ask(FRANCE)[0].choices[0].message.content == PARIS
        assert setup.ask(FRANCE, messages=brief)[0].choices[0].message.content == "Paris"
        assert asked.is_(2)


class TestTools:
    @pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
    def test_calls_are_stored_and_replayed(self, setup: Setup, asked: Asked, is_stream: bool) -> None:
        if is_stream:
            arguments = tool_arguments(setup.stream(FRANCE, **FORCED_TOOL)[0])
        else:
            (call,) = setup.ask(FRANCE, **FORCED_TOOL)[0].choices[0].message.tool_calls
            arguments = call.function.arguments
        assert json.loads(arguments) == {"city": "Paris"}
        chunks, outcome = setup.stream(FRANCE, **FORCED_TOOL)
        assert (outcome.kind, tool_arguments(chunks)) == ("exact", arguments)
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        names = [call.function.name for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert [name for name in names if name] == ["show"]
        assert asked.is_(1)

    def test_another_wording_is_asked(self, setup: Setup, asked: Asked) -> None:
        setup.ask(FRANCE, **FORCED_TOOL)
        assert setup.ask(FRANCE_REWORDED, **FORCED_TOOL)[1].status == "miss"
        assert asked.is_(2)


class TestNotStored:
    def test_cut_off_by_max_tokens(self, setup: Setup, asked: Asked) -> None:
        for _ in range(2):
            plain, outcome = setup.ask(FRANCE, max_tokens=3)
            assert plain.choices[0].finish_reason == "length"
            assert (outcome.status, outcome.is_stored, outcome.detail) == ("miss", False, "finish-length")
        chunks, _ = setup.stream(FRANCE, max_tokens=3)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert setup.entries == 0
        assert asked.is_(3)

    def test_an_empty_success(self, setup: Setup, asked: Asked) -> None:
        for _ in range(2):
            assert setup.stream(TOO_LONG)[0] == []
        assert setup.entries == 0
        assert setup.last.error
        with pytest.raises(openai.BadRequestError) as caught:
            setup.ask(TOO_LONG)
        assert caught.value.code == "context_length_exceeded"
        assert joined(setup.stream(FRANCE)[0]) == PARIS
        assert asked.is_(4)

    def test_a_stream_that_its_server_interrupts(self, encoder: LazyEncoder, tmp_path: Path) -> None:
        """It ends in `[DONE]`, as a whole one does, but no choice has an end."""
        events: list[CallEvent] = []
        with LocalModelServer(interrupt_requests=True) as impatient:
            setup = Setup(runtime_of(tmp_path / "cache", encoder, events), impatient.base_url, events)
            with setup.client, ThreadPoolExecutor(1) as pool:
                chunks = setup.client.chat.completions.create(**asking(TO_THIRTY, stream=True, logit_bias=NO_END))
                next(iter(chunks))
                newer = pool.submit(setup.ask, FRANCE)
                assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
                assert newer.result()[0].choices[0].message.content == PARIS
            interrupted = next(event for event in events if event.is_stream)
            assert (interrupted.outcome.is_stored, interrupted.outcome.detail) == (False, "finish-unknown")
            assert setup.entries == 1
            setup.runtime.close()

    def test_what_the_server_forbids_to_store(
        self, local_model: LocalModelServer, encoder: LazyEncoder, asked: Asked, tmp_path: Path
    ) -> None:
        events: list[CallEvent] = []
        runtime = runtime_of(tmp_path / "cache", encoder, events, obey_no_store=True)
        setup = Setup(runtime, local_model.base_url, events)
        with setup.client:
            for _ in range(2):
                assert joined(setup.stream(FRANCE)[0]) == PARIS
                assert setup.last.outcome.is_stored is False
            assert setup.entries == 0
            assert setup.ask(FRANCE)[1].is_stored, "its plain answers are not marked"
            assert setup.stream(FRANCE)[1].kind == "exact"
        assert asked.is_(3)
        runtime.close()

    def test_the_default_is_to_obey(self) -> None:
        assert Config().cache.obey_no_store is True


class TestLeaving:
    def test_a_caller_who_leaves_in_mid_stream(self, setup: Setup, asked: Asked, local_model: LocalModelServer) -> None:
        def left() -> int:
            return local_model.log_path.read_text().count("Disconnected from client")

        before = left()
        chunks = setup.client.chat.completions.create(**asking(TO_THIRTY, stream=True))
        next(iter(chunks))
        chunks.close()
        assert until(lambda: bool(setup.events))
        assert (setup.last.error, setup.last.outcome.is_stored) == ("aborted", False)
        assert until(lambda: left() > before), "the model goes on for nobody"
        assert setup.entries == 0
        assert joined(setup.stream(TO_THIRTY)[0]) == COUNTED
        assert setup.entries == 1
        assert asked.is_(2)

    @pytest.mark.anyio
    async def test_the_same_for_async(self, setup: Setup, asked: Asked) -> None:
        options: Any = {"base_url": setup.base_url, "api_key": "k", "max_retries": 0, "llm_proxy": setup.runtime}
        async with llm_proxy.AsyncOpenAI(**options) as client:
            chunks = await client.chat.completions.create(**asking(TO_THIRTY, stream=True))
            await anext(aiter(chunks))
            await chunks.close()
            assert (setup.last.error, setup.last.outcome.is_stored) == ("aborted", False)
            chunks = await client.chat.completions.create(**asking(TO_THIRTY, stream=True))
            assert joined([chunk async for chunk in chunks]) == COUNTED
        assert setup.entries == 1
        assert asked.is_(2)


class TestTogether:
    @pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
    def test_threads(self, setup: Setup, asked: Asked, is_stream: bool) -> None:
        together = Barrier(CALLERS)

        def ask(_: int) -> tuple[str, Outcome]:
            together.wait()
            if is_stream:
                chunks, outcome = setup.stream(TO_THIRTY)
                return joined(chunks), outcome
            plain, outcome = setup.ask(TO_THIRTY)
            return plain.choices[0].message.content, outcome

        with ThreadPoolExecutor(CALLERS) as pool:
            answers = list(pool.map(ask, range(CALLERS)))
        assert {said for said, _ in answers} == {COUNTED}
        assert asked.is_(1)
        assert sum(outcome.status == "miss" and not outcome.is_shared for _, outcome in answers) == 1
        assert len(setup.events) == CALLERS
        assert setup.entries == 1

    @pytest.mark.anyio
    async def test_tasks(self, setup: Setup, asked: Asked) -> None:
        options: Any = {"base_url": setup.base_url, "api_key": "k", "max_retries": 0, "llm_proxy": setup.runtime}
        async with llm_proxy.AsyncOpenAI(**options) as client:

            async def plain() -> str:
                return (await client.chat.completions.create(**asking(TO_THIRTY))).choices[0].message.content or ""

            async def streamed() -> str:
                chunks = await client.chat.completions.create(**asking(FRANCE, stream=True))
                return joined([chunk async for chunk in chunks])

            answers = await asyncio.gather(*(call() for _ in range(CALLERS) for call in (plain, streamed)))
        assert set(answers) == {COUNTED, PARIS}
        assert asked.is_(2)
        assert sum(event.outcome.is_shared for event in setup.events) == 2 * (CALLERS - 1)

    @pytest.mark.anyio
    async def test_the_first_task_leaves(self, setup: Setup, asked: Asked) -> None:
        options: Any = {"base_url": setup.base_url, "api_key": "k", "max_retries": 0, "llm_proxy": setup.runtime}
        async with llm_proxy.AsyncOpenAI(**options) as client:
            first = asyncio.create_task(client.chat.completions.create(**asking(TO_THIRTY)))
            await asyncio.sleep(0.02)
            second = asyncio.create_task(client.chat.completions.create(**asking(TO_THIRTY)))
            await asyncio.sleep(0.02)
            first.cancel()
            assert (await second).choices[0].message.content == COUNTED
            with pytest.raises(asyncio.CancelledError):
                await first
        assert asked.is_(1)
        assert setup.entries == 1


class TestServerDies:
    """In mid-stream, and comes back on its port."""

    def killed_in_mid_stream(self, client: Any, running: LocalModelServer) -> tuple[int, BaseException]:
        chunks = client.chat.completions.create(**asking(TO_THIRTY, stream=True, logit_bias=NO_END))
        heard = [next(iter(chunks))]
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(Exception, match=r".") as caught:
            heard += chunks
        return len(heard), caught.value

    def test_as_the_bare_client(self, encoder: LazyEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with LocalModelServer() as first, openai.OpenAI(base_url=first.base_url, api_key="k", max_retries=0) as bare:
            _, expected = self.killed_in_mid_stream(bare, first)
            with pytest.raises(openai.APIConnectionError):
                bare.chat.completions.create(**asking(FRANCE))
        events: list[CallEvent] = []
        with LocalModelServer() as second:
            base_url = second.base_url
            setup = Setup(runtime_of(tmp_path / "cache", encoder, events), base_url, events)
            setup.ask(FRANCE)
            heard, error = self.killed_in_mid_stream(setup.client, second)
            assert heard > 0
            assert (type(error), str(error)) == (type(expected), str(expected))
            assert setup.entries == 1
            assert setup.last.error in {"RemoteProtocolError", "ReadError"}
            assert setup.last.outcome.is_stored is False
            with pytest.raises(openai.APIConnectionError):
                setup.ask(AUSTRIA)
            assert setup.ask(FRANCE)[1].kind == "exact", "what was asked before is answered all the same"
        monkeypatch.setattr(server, "_free_port", lambda: int(base_url.split(":")[2].removesuffix("/v1")))
        with LocalModelServer() as third, setup.client:
            assert third.base_url == base_url
            assert setup.ask(AUSTRIA)[0].choices[0].message.content == VIENNA
            assert joined(setup.stream(TO_THIRTY)[0]) == COUNTED
            assert setup.runtime.troubles.counts == {}
        setup.runtime.close()


def test_the_demo(local_model: LocalModelServer) -> None:
    """All of it, with real answers."""
    provider = Provider("local", local_model.base_url, "tiny", "none")
    result = run_demo(provider, Console(file=io.StringIO()))
    assert (result.errors, result.not_stored, result.wrong_answers) == (0, 0, 0)
    assert result.repeats_served == result.repeats
    assert result.traps_refused == result.traps
    assert result.semantic_hits > 0.8 * result.wordings
    assert result.seconds_saved > 0
