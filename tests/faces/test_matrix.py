"""docs/behaviour.md, row by row: the openai client with llm-proxy beside the bare one, against the same upstream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy.config import Config
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeEncoder
from tests.faces.asgi_kit import DONE, STREAM_HEAD, Raw, RawUpstream, chunked, completion, event, raw_response, until

PAGE = Path(__file__).parents[2] / "docs" / "behaviour.md"
PIECES = ["Cats ", "are ", "liquid."]
TEXT = "".join(PIECES)
QUESTION = "tell me a joke about cats"
OTHER_WORDS = "Tell me a joke about cats"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@dataclass(frozen=True)
class Row:
    """What the page says of one case."""

    is_stored: bool
    plain: str
    stream: str
    status: str
    errors: tuple[str, ...]
    http_status: int


def rows() -> dict[str, Row]:
    found = {}
    for line in PAGE.read_text(encoding="utf-8").partition("\n\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "case":
            case, _, _, stored, plain, stream, event_cell = cells
            status, *rest = re.findall(r"`([^`]*)`", event_cell)
            number = re.search(r"status (\d+)", event_cell)
            texts = [cell.strip("`") if cell != "none" else "" for cell in (plain, stream)]
            found[case] = Row(stored == "yes", *texts, status, tuple(rest), int(number[1]) if number else 0)
    return found


ROWS = rows()


@dataclass(frozen=True)
class Seen:
    """What a caller got: the texts of its chunks (one of a plain answer), and how it ended."""

    texts: tuple[str, ...] = ()
    finish: str = ""
    total_tokens: int = 0
    error: tuple[Any, ...] = ()
    cache_status: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Caller:
    """The sync client; closed with the block."""

    kind: Any = openai.OpenAI
    proxied: Any = llm_proxy.OpenAI

    def __init__(self, url: str, runtime: Runtime | None = None, **options: Any) -> None:
        options = {"base_url": url, "api_key": "k", "max_retries": 0, "timeout": 5, **options}
        self.client = self.proxied(llm_proxy=runtime, **options) if runtime else self.kind(**options)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()

    def ask(self, text: str = QUESTION, *, is_stream: bool = False, **options: Any) -> Seen:
        messages: Any = [{"role": "user", "content": text}]
        try:
            if not is_stream:
                raw = self.client.chat.completions.with_raw_response.create(model="m", messages=messages, **options)
                return _plain(raw.parse(), raw.headers)
            stream = self.client.chat.completions.create(model="m", messages=messages, stream=True, **options)
        except openai.OpenAIError as exc:
            return Seen(error=_described(exc), cache_status=_status_of(exc))
        texts: list[str] = []
        seen = Seen(cache_status=stream.response.headers.get("cache-status", ""))
        try:
            return _streamed(seen, list(_noted(stream, texts)))
        except Exception as exc:  # noqa: BLE001 - whatever it is, both clients must raise it
            return Seen(tuple(texts), error=_described(exc), cache_status=seen.cache_status)

    def leave(self, upstream: Scripted, *, is_stream: bool) -> Seen:
        """Ask, and leave: in mid-stream, or by Ctrl-C while the answer is waited for."""
        messages: Any = [{"role": "user", "content": QUESTION}]
        if not is_stream:
            with pytest.raises(KeyboardInterrupt):
                self.client.chat.completions.create(model="m", messages=messages)
            return Seen()
        with self.client.chat.completions.create(model="m", messages=messages, stream=True) as stream:
            first = next(iter(stream)).choices[0].delta.content
            return Seen((first,), cache_status=stream.response.headers.get("cache-status", ""))

    def turn(self) -> None:
        """Let what runs beside the call go on."""


class AsyncCaller(Caller):
    """The async client on a loop of its own."""

    kind: Any = openai.AsyncOpenAI
    proxied: Any = llm_proxy.AsyncOpenAI

    def __init__(self, url: str, runtime: Runtime | None = None, **options: Any) -> None:
        super().__init__(url, runtime, **options)
        self.runner = asyncio.Runner()

    def __exit__(self, *exc: object) -> None:
        async def close() -> None:
            await self.client.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert [task for task in asyncio.all_tasks() if "_fly" in repr(task)] == []

        self.runner.run(close())
        self.runner.close()

    def ask(self, text: str = QUESTION, *, is_stream: bool = False, **options: Any) -> Seen:
        return self.runner.run(self._ask(text, is_stream, options))

    async def _ask(self, text: str, is_stream: bool, options: Any) -> Seen:
        messages: Any = [{"role": "user", "content": text}]
        try:
            if not is_stream:
                raw = await self.client.chat.completions.with_raw_response.create(
                    model="m", messages=messages, **options
                )
                return _plain(raw.parse(), raw.headers)
            stream = await self.client.chat.completions.create(model="m", messages=messages, stream=True, **options)
        except openai.OpenAIError as exc:
            return Seen(error=_described(exc), cache_status=_status_of(exc))
        texts: list[str] = []
        seen = Seen(cache_status=stream.response.headers.get("cache-status", ""))
        chunks = []
        try:
            async for chunk in stream:
                chunks += list(_noted([chunk], texts))
            return _streamed(seen, chunks)
        except Exception as exc:  # noqa: BLE001 - whatever it is, both clients must raise it
            return Seen(tuple(texts), error=_described(exc), cache_status=seen.cache_status)

    def leave(self, upstream: Scripted, *, is_stream: bool) -> Seen:
        return self.runner.run(self._leave(upstream, is_stream))

    def turn(self) -> None:
        self.runner.run(asyncio.sleep(0))

    async def _leave(self, upstream: Scripted, is_stream: bool) -> Seen:
        messages: Any = [{"role": "user", "content": QUESTION}]
        if not is_stream:
            task = asyncio.ensure_future(self.client.chat.completions.create(model="m", messages=messages))
            await asyncio.to_thread(upstream.asked.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return Seen()
        async with await self.client.chat.completions.create(model="m", messages=messages, stream=True) as stream:
            first = (await anext(aiter(stream))).choices[0].delta.content
            return Seen((first,), cache_status=stream.response.headers.get("cache-status", ""))


def _plain(answer: Any, headers: Any) -> Seen:
    choice = answer.choices[0]
    total_tokens = answer.usage.total_tokens if answer.usage else 0
    return Seen((choice.message.content,), choice.finish_reason, total_tokens, (), headers.get("cache-status", ""))


def _noted(chunks: Any, texts: list[str]) -> Iterator[Any]:
    for chunk in chunks:
        texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        yield chunk


def _streamed(seen: Seen, chunks: list[Any]) -> Seen:
    texts = tuple(choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content)
    finish = next((choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason), "")
    total_tokens = next((chunk.usage.total_tokens for chunk in chunks if chunk.usage), 0)
    return Seen(texts, finish, total_tokens, (), seen.cache_status)


def _described(exc: Exception) -> tuple[Any, ...]:
    """All of an exception that a caller could tell apart, and what caused it."""
    cause = type(exc.__cause__).__name__
    return (
        type(exc),
        getattr(exc, "status_code", None),
        str(exc),
        getattr(exc, "code", None),
        getattr(exc, "body", None),
        cause,
    )


def _status_of(exc: Exception) -> str:
    response = getattr(exc, "response", None)
    return response.headers.get("cache-status", "") if response is not None else ""


class Scripted(RawUpstream):
    """Answers each request by the next of its scripts, and by the good one when they are used up."""

    def __init__(self, *scripts: Callable[[Raw, bool], None]) -> None:
        super().__init__(self._handle)
        self.scripts = list(scripts)
        self.asked, self.over = threading.Event(), threading.Event()
        self.is_left = threading.Event()

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        super().__exit__(*exc)

    def _handle(self, raw: Raw) -> None:
        self.asked.set()
        script = self.scripts.pop(0) if self.scripts else good
        script(raw, json.loads(raw.body).get("stream") is True)


def good(raw: Raw, is_stream: bool) -> None:
    if not is_stream:
        raw.send(raw_response(completion(TEXT)))
        return
    options = json.loads(raw.body).get("stream_options") or {}
    usage = [event("", choices=[], usage=USAGE)] if options.get("include_usage") else []
    raw.send(STREAM_HEAD + chunked(*[event(piece) for piece in PIECES], event(), *usage, DONE))


def hang_up(raw: Raw) -> None:
    with contextlib.suppress(OSError):
        raw.connection.shutdown(socket.SHUT_RDWR)


def refusing(status: str, *headers: str) -> Callable[[Raw, bool], None]:
    body = json.dumps({"error": {"message": f"no: {status}", "type": "t", "code": "c", "param": None}}).encode()
    return lambda raw, is_stream: raw.send(raw_response(body, *headers, status=status))


def lying_about_its_length(raw: Raw, is_stream: bool) -> None:
    body = completion(TEXT)
    raw.send(raw_response(body[:20], length=len(body)))
    hang_up(raw)


def cut(raw: Raw, is_stream: bool) -> None:
    raw.send(STREAM_HEAD + chunked(event(PIECES[0]), is_end=False))
    hang_up(raw)


def error_event(raw: Raw, is_stream: bool) -> None:
    error = b'data: {"error":{"message":"overloaded","type":"server_error","code":"busy"}}\n\n'
    raw.send(STREAM_HEAD + chunked(event(PIECES[0]), error, DONE))


def ended_too_early(raw: Raw, is_stream: bool) -> None:
    raw.send(STREAM_HEAD + chunked(event(PIECES[0])))


class Cell:
    """One side and form of the table: the same done by the bare client and by ours."""

    def __init__(self, kind: type[Caller], is_stream: bool, runtime: Runtime, events: list[CallEvent]) -> None:
        self.kind, self.is_stream, self.runtime, self.events = kind, is_stream, runtime, events

    def bare(self, *scripts: Any, act: Any = None, **options: Any) -> Seen:
        with Scripted(*scripts) as upstream, self.kind(upstream.url, **options) as caller:
            return (act or self.ask)(caller, upstream)

    @contextlib.contextmanager
    def ours(self, *scripts: Any, **options: Any) -> Iterator[tuple[Caller, Scripted]]:
        with Scripted(*scripts) as upstream, self.kind(upstream.url, self.runtime, **options) as caller:
            yield caller, upstream

    def ask(self, caller: Caller, upstream: Scripted | None = None, text: str = QUESTION, **options: Any) -> Seen:
        if self.is_stream:
            options = {"stream_options": {"include_usage": True}, **options}
        return caller.ask(text, is_stream=self.is_stream, **options)

    def check(self, case: str, seen: Seen, *, entries: int) -> None:
        """The answer's header, the cache and the event are what the page says."""
        row = ROWS[case]
        assert seen.cache_status == (row.stream if self.is_stream else row.plain)
        cache = self.runtime.cache
        assert cache is not None
        assert cache.stats().entries == entries
        until(lambda: self.events)
        (found,) = self.events
        outcome = found.outcome
        assert " ".join(filter(None, (outcome.status, outcome.kind))) == row.status
        assert found.error in (row.errors or ("",))
        if row.http_status:
            assert found.http_status == row.http_status
        assert bool(outcome.is_stored) == row.is_stored
        self.events.clear()

    def check_trouble(self, case: str, *scripts: Any, act: Any = None, **options: Any) -> Seen:
        """Ours is as the bare client's; nothing is stored; the next call works."""
        act = act or self.ask
        expected = self.bare(*scripts, act=act, **options)
        with self.ours(*scripts, **options) as (caller, upstream):
            seen: Seen = act(caller, upstream)
            assert seen == expected
            self.check(case, seen, entries=0)
            after = self.ask(caller)
            assert (after.text, after.error) == (TEXT, ())
            assert len(upstream.requests) == len(scripts) + 1
        return seen


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[Caller]:
    return Caller if request.param == "sync" else AsyncCaller


@pytest.fixture(params=["plain", "stream"])
def cell(kind: type[Caller], request: pytest.FixtureRequest) -> Iterator[Cell]:
    events: list[CallEvent] = []
    sections = {"cache": {"store": "memory"}, "encoder": {"wait_s": 5}, "observe": {"ledger": False}}
    encoder: Any = FakeEncoder()
    runtime = Runtime(Config(**sections), encoder=encoder, sinks=(events.append,))
    yield Cell(kind, request.param == "stream", runtime, events)
    runtime.close()


def test_miss(cell: Cell) -> None:
    expected = cell.bare()
    with cell.ours() as (caller, _):
        seen = cell.ask(caller)
        assert seen == expected
        assert len(seen.texts) == (len(PIECES) if cell.is_stream else 1)
        cell.check("miss", seen, entries=1)


def test_exact_hit(cell: Cell) -> None:
    expected = cell.bare()
    with cell.ours() as (caller, upstream):
        for is_stream in (True, False):
            caller.ask("another " + str(is_stream), is_stream=is_stream)
        cell.ask(caller)
        cell.events.clear()
        seen = cell.ask(caller)
        assert (seen.text, seen.finish, seen.total_tokens) == (expected.text, expected.finish, expected.total_tokens)
        assert len(upstream.requests) == 3
        cell.check("exact hit", seen, entries=3)


def test_exact_hit_in_the_other_form(cell: Cell) -> None:
    expected = cell.bare()
    with cell.ours() as (caller, upstream):
        first = Cell(cell.kind, not cell.is_stream, cell.runtime, cell.events).ask(caller)
        assert first.text == expected.text
        cell.events.clear()
        seen = cell.ask(caller)
        assert (seen.text, seen.finish, seen.total_tokens) == (expected.text, expected.finish, expected.total_tokens)
        assert len(upstream.requests) == 1
        cell.check("exact hit", seen, entries=1)


def test_semantic_hit(cell: Cell) -> None:
    pytest.importorskip("faiss")
    with cell.ours() as (caller, upstream):
        cell.ask(caller)
        cell.events.clear()
        seen = cell.ask(caller, text=OTHER_WORDS)
        assert (seen.text, seen.finish, seen.total_tokens) == (TEXT, "stop", 5)
        assert len(upstream.requests) == 1
        cell.check("semantic hit", seen, entries=1)


def test_abort(cell: Cell) -> None:
    left: list[bool] = []

    def waiting(raw: Raw, is_stream: bool) -> None:
        if is_stream:
            raw.send(STREAM_HEAD + chunked(event(PIECES[0]), is_end=False))
            left.append(raw.is_left(5))
        else:
            left.append(any(raw.is_left(0.2) or interrupt() for _ in range(25)))
        hang_up(raw)

    def interrupt() -> None:
        # Again until it is felt: a signal that comes just before the main thread's poll() does not end that poll.
        if cell.kind is Caller:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def once(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    def leave(caller: Caller, upstream: Scripted) -> Seen:
        before, known = signal.signal(signal.SIGINT, once), len(left)
        try:
            seen = caller.leave(upstream, is_stream=cell.is_stream)
            until(lambda: caller.turn() or len(left) > known)
        finally:
            signal.signal(signal.SIGINT, before)
        return seen

    cell.check_trouble("abort", waiting, act=leave)
    assert left == [True, True], "the upstream call is called off"


def test_429(cell: Cell) -> None:
    seen = cell.check_trouble("429", refusing("429 Too Many Requests", "retry-after: 7"))
    assert seen.error[0] is openai.RateLimitError


def test_500(cell: Cell) -> None:
    seen = cell.check_trouble("500", refusing("500 Internal Server Error"))
    assert seen.error[0] is openai.InternalServerError


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error"])
def test_retries_are_the_clients_own(cell: Cell, status: str) -> None:
    script = refusing(status, "retry-after-ms: 1")
    expected = cell.bare(script, script, max_retries=2)
    with cell.ours(script, script, max_retries=2) as (caller, upstream):
        assert cell.ask(caller) == expected
        counts = [raw.header("x-stainless-retry-count") for raw in upstream.requests]
        assert counts == ["0", "1", "2"]
        assert [event.http_status for event in cell.events] == [int(status[:3])] * 2 + [200]


def test_time_out(cell: Cell) -> None:
    def stalled(raw: Raw, is_stream: bool) -> None:
        if is_stream:
            raw.send(STREAM_HEAD + chunked(event(PIECES[0]), is_end=False))
        raw.is_left(5)
        hang_up(raw)

    seen = cell.check_trouble("time-out", stalled, timeout=0.3)
    assert seen.texts == ((PIECES[0],) if cell.is_stream else ())
    if not cell.is_stream:
        assert seen.error[0] is openai.APITimeoutError


def test_time_out_before_a_stream_begins(cell: Cell) -> None:
    def silent(raw: Raw, is_stream: bool) -> None:
        raw.is_left(5)
        hang_up(raw)

    expected = cell.bare(silent, timeout=0.2)
    with cell.ours(silent, timeout=0.2) as (caller, _):
        assert cell.ask(caller) == expected
        assert expected.error[0] is openai.APITimeoutError
        assert [event.error for event in cell.events] == ["ReadTimeout"]


@pytest.mark.parametrize("script", [cut, error_event, ended_too_early], ids=lambda script: script.__name__)
def test_mid_stream_error(cell: Cell, script: Any) -> None:
    seen = cell.check_trouble("mid-stream error", script if cell.is_stream else lying_about_its_length)
    if cell.is_stream:
        assert seen.texts == (PIECES[0],)
        assert (seen.error == ()) is (script is ended_too_early)
        if script is error_event:
            assert seen.error[0] is openai.APIError
    else:
        assert seen.error[0] is openai.APIConnectionError


TESTS = {
    "miss": test_miss,
    "exact hit": test_exact_hit,
    "semantic hit": test_semantic_hit,
    "abort": test_abort,
    "429": test_429,
    "500": test_500,
    "time-out": test_time_out,
    "mid-stream error": test_mid_stream_error,
}


def test_each_row_of_the_page_has_its_tests() -> None:
    assert list(ROWS) == list(TESTS)
    for case, test in TESTS.items():
        assert test.__name__ == "test_" + re.sub(r"\W", "_", case)
        assert "cell" in test.__code__.co_varnames[: test.__code__.co_argcount], "sync and async, plain and streamed"
