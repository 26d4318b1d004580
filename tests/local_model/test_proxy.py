"""``llm-proxy serve``, a real process, before a real model: the same from any client, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import openai
import pytest

from llm_proxy.config import environment_for_child
from llm_proxy.engine.attempts import PROXY_RETRIES

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

pytestmark = pytest.mark.local_model

STORED = "llm-proxy; fwd=uri-miss; stored"
UNKNOWN = "llm-proxy; fwd=uri-miss"  # a stream's headers are sent before its end is known
EXACT = 'llm-proxy; hit; detail="exact"'
WAIT_S = 30.0


@dataclass
class Proxy:
    """A running ``llm-proxy serve``; every client of it is another tenant, so that tests share nothing."""

    process: subprocess.Popen[str]
    url: str
    settings: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=f"k{next(self.numbers)}", max_retries=0)

    def ready(self) -> Any:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=WAIT_S) as answer:
            return json.load(answer)

    def command(self, *arguments: str) -> Any:
        """What another command says of the proxy's directory meanwhile."""
        line = [sys.executable, "-m", "llm_proxy", "--config", str(self.settings), *arguments, "--json"]
        ended = subprocess.run(line, capture_output=True, text=True, timeout=WAIT_S, check=True)
        return json.loads(ended.stdout)


@contextmanager
def served(base_url: str, directory: Path, *, complaint: str = "", **cache: Any) -> Iterator[Proxy]:
    """The proxy before a server, encoder and all; at the end of the block it has said nothing but the complaint."""
    settings = directory / "llm-proxy.toml"
    # The server marks every stream with no-store, and one thread of a busy machine may be slow.
    lines = {"directory": str(directory / "cache"), "obey_no_store": False, **cache}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    settings.write_text(f'[cache]\n{text}[encoder]\nwait_s = 10\n[backends.tiny]\nbase_url = "{base_url}"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"],
        env=environment_for_child({"XDG_CACHE_HOME": str(directory)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=WAIT_S)[1]
        proxy = Proxy(process, json.loads(line)["url"], settings)
        assert until(lambda: proxy.ready()["encoder"] == "ok", WAIT_S)
        yield proxy
        assert proxy.ready()["troubles"] == {}
    finally:
        process.send_signal(signal.SIGTERM)
        _, complained = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert (complained.count("\n"), complaint in complained) == (bool(complaint), True)


@pytest.fixture(scope="module")
def proxy(local_model: LocalModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with served(local_model.base_url, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[openai.OpenAI]:
    """Another caller than any test's before."""
    with proxy.client() as client:
        yield client


@pytest.fixture
def asked(local_model: LocalModelServer) -> Asked:
    return Asked(local_model)


def ask(client: openai.OpenAI, text: str, **options: Any) -> tuple[Any, str]:
    """A plain answer and its ``Cache-Status``."""
    raw = client.chat.completions.with_raw_response.create(**asking(text, **options))
    return raw.parse(), raw.headers["cache-status"]


def stream(client: openai.OpenAI, text: str, **options: Any) -> tuple[list[Any], str]:
    """The chunks of a streamed answer and its ``Cache-Status``."""
    with client.chat.completions.with_streaming_response.create(**asking(text, stream=True, **options)) as raw:
        return list(raw.parse()), raw.headers["cache-status"]


class TestHits:
    def test_plain(self, client: openai.OpenAI, asked: Asked) -> None:
        first, status = ask(client, FRANCE)
        assert (status, first.choices[0].message.content) == (STORED, PARIS)
        assert ask(client, FRANCE) == (first, EXACT)
        assert asked.is_(1)

    def test_stream(self, client: openai.OpenAI, asked: Asked) -> None:
        first, status = stream(client, FRANCE)
        assert (status, joined(first)) == (UNKNOWN, PARIS)
        again, status = stream(client, FRANCE)
        assert (status, joined(again), again[-1].choices[0].finish_reason) == (EXACT, PARIS, "stop")
        assert asked.is_(1)

    def test_stream_then_plain_asks_once_more_for_the_token_counts(self, client: openai.OpenAI, asked: Asked) -> None:
        stream(client, FRANCE)
        assert ask(client, FRANCE)[1] == "llm-proxy; fwd=miss; stored"
        plain, status = ask(client, FRANCE)
        assert (status, plain.usage is None) == (EXACT, False)
        chunks, status = stream(client, FRANCE, stream_options={"include_usage": True})
        assert (status, chunks[-1].usage) == (EXACT, plain.usage)
        assert asked.is_(2)

    def test_another_wording_and_a_trap(self, client: openai.OpenAI, asked: Asked) -> None:
        ask(client, FRANCE)
        plain, status = ask(client, FRANCE_REWORDED)
        assert status.startswith('llm-proxy; hit; detail="semantic; similarity=0.9')
        assert plain.choices[0].message.content == PARIS
        assert ask(client, AUSTRALIA)[0].choices[0].message.content == CANBERRA
        plain, status = ask(client, AUSTRIA)
        assert status.startswith('llm-proxy; fwd=uri-miss; stored; detail="refused=')
        assert plain.choices[0].message.content == VIENNA
        assert asked.is_(3)

    def test_tools(self, client: openai.OpenAI, asked: Asked) -> None:
        chunks, _ = stream(client, FRANCE, **FORCED_TOOL)
        again, status = stream(client, FRANCE, **FORCED_TOOL)
        assert (status, tool_arguments(again)) == (EXACT, tool_arguments(chunks))
        assert json.loads(tool_arguments(again)) == {"city": "Paris"}
        (call,) = ask(client, FRANCE, **FORCED_TOOL)[0].choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("show", {"city": "Paris"})
        assert asked.is_(2)

    def test_callers_are_apart(self, proxy: Proxy, asked: Asked) -> None:
        for _ in range(2):
            with proxy.client() as client:
                assert ask(client, FRANCE)[1] == STORED
        assert asked.is_(2)


class TestNotStored:
    def test_cut_off_by_max_tokens(self, client: openai.OpenAI, asked: Asked) -> None:
        for _ in range(2):
            plain, status = ask(client, FRANCE, max_tokens=3)
            assert plain.choices[0].finish_reason == "length"
            assert status == 'llm-proxy; fwd=uri-miss; detail="finish-length"'
        assert asked.is_(2)

    def test_an_empty_success(self, client: openai.OpenAI, asked: Asked) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, TOO_LONG)
        assert caught.value.code == "context_length_exceeded"
        for _ in range(2):
            assert stream(client, TOO_LONG)[0] == [], "sent three times: nothing came in the place of a stream"
        assert joined(stream(client, FRANCE)[0]) == PARIS
        assert asked.is_(2 + 2 * (1 + PROXY_RETRIES)), "a stream without a byte is asked for again"

    def test_what_the_server_forbids_to_store(self, local_model: LocalModelServer, tmp_path: Path) -> None:
        asked = Asked(local_model)
        with served(local_model.base_url, tmp_path, obey_no_store=True) as proxy, proxy.client() as client:
            for _ in range(2):
                assert stream(client, FRANCE)[1] == UNKNOWN
            assert proxy.command("cache", "ls")["count"] == 0
        assert asked.is_(2)


class TestLeaving:
    def test_a_caller_who_leaves_in_mid_stream(
        self, client: openai.OpenAI, asked: Asked, local_model: LocalModelServer
    ) -> None:
        def left() -> int:
            return local_model.log_path.read_text().count("Disconnected from client")

        before = left()
        chunks = client.chat.completions.create(**asking(TO_THIRTY, stream=True, logit_bias=NO_END))
        next(iter(chunks))
        chunks.close()
        assert until(lambda: left() > before), "the model goes on for nobody"
        assert joined(stream(client, TO_THIRTY)[0]) == COUNTED
        assert stream(client, TO_THIRTY)[1] == EXACT
        assert asked.is_(2)


class TestTogether:
    @pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
    def test_threads(self, client: openai.OpenAI, asked: Asked, is_stream: bool) -> None:
        together = Barrier(CALLERS)

        def call(_: int) -> tuple[str, str]:
            together.wait()
            if is_stream:
                chunks, status = stream(client, TO_THIRTY)
                return joined(chunks), status
            plain, status = ask(client, TO_THIRTY)
            return plain.choices[0].message.content, status

        with ThreadPoolExecutor(CALLERS) as pool:
            answers = list(pool.map(call, range(CALLERS)))
        assert {said for said, _ in answers} == {COUNTED}
        assert sum("fwd" in status and "collapsed" not in status for _, status in answers) == 1
        assert asked.is_(1)

    @pytest.mark.anyio
    async def test_tasks(self, proxy: Proxy, asked: Asked) -> None:
        key = f"k{next(proxy.numbers)}"
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=key, max_retries=0) as client:

            async def plain() -> str:
                return (await client.chat.completions.create(**asking(TO_THIRTY))).choices[0].message.content or ""

            async def streamed() -> str:
                chunks = await client.chat.completions.create(**asking(FRANCE, stream=True))
                return joined([chunk async for chunk in chunks])

            answers = await asyncio.gather(*(call() for _ in range(CALLERS) for call in (plain, streamed)))
        assert set(answers) == {COUNTED, PARIS}
        assert asked.is_(2)


class TestTheRest:
    def test_what_is_no_chat_passes(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == ["tiny"]
        raw = client.completions.with_raw_response.create(model="tiny", prompt="The capital of", max_tokens=3)
        assert raw.headers["cache-status"] == 'llm-proxy; fwd=uri-miss; detail="finish-length"'
        assert raw.parse().usage.completion_tokens == 3

    def test_what_the_ledger_and_the_cache_say(self, local_model: LocalModelServer, tmp_path: Path) -> None:
        with served(local_model.base_url, tmp_path) as proxy, proxy.client() as client:
            ask(client, FRANCE)
            ask(client, FRANCE)
            stream(client, FRANCE_REWORDED)
            with pytest.raises(openai.BadRequestError):
                ask(client, TOO_LONG)
            assert proxy.command("cache", "ls")["entries"][0]["question"] == FRANCE
            assert proxy.command("cache", "check")["findings"] == []
        sums = proxy.command("stats")
        counts = [sums[name] for name in ("calls", "exact_hits", "semantic_hits", "misses", "errors")]
        assert counts == [4, 1, 1, 2, 1]
        assert 0 < sums["hit_p50_s"] < sums["miss_p99_s"]


def test_a_server_that_dies_in_mid_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(LocalModelServer())
        proxy = stack.enter_context(served(first.base_url, tmp_path, complaint="an answer broke off in mid-stream"))
        client = stack.enter_context(proxy.client())
        ask(client, FRANCE)
        chunks = client.chat.completions.create(**asking(TO_THIRTY, stream=True, logit_bias=NO_END))
        heard = [next(iter(chunks))]
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(openai.APIError) as caught:
            heard += chunks
        assert caught.value.code == "stream_interrupted"
        for call in (ask, stream):
            with pytest.raises(openai.InternalServerError) as refused:
                call(client, AUSTRIA)
            assert (refused.value.status_code, refused.value.code) == (503, "upstream_unavailable")
        assert ask(client, FRANCE)[1] == EXACT, "what was asked before is answered all the same"
        assert proxy.command("cache", "ls")["count"] == 1
        port = int(first.base_url.removesuffix("/v1").rpartition(":")[2])
        monkeypatch.setattr(server, "_free_port", lambda: port)
        second = stack.enter_context(LocalModelServer())
        assert second.base_url == first.base_url
        assert ask(client, AUSTRIA)[0].choices[0].message.content == VIENNA
        assert joined(stream(client, TO_THIRTY)[0]) == COUNTED
