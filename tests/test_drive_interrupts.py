"""An interrupt of one caller: the others lose nothing, or see that the answer broke off, as their client says it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.engine.flights import Flight
from llm_proxy.errors import BackendUnavailable
from llm_proxy.faces._http import httpx
from llm_proxy.pull import Interrupted
from llm_proxy.runtime import Runtime
from tests.drive_kit import (
    PIECES,
    PLAIN,
    SLOW_S,
    SSE,
    Together,
    aboard,
    nothing_is_left_running,
    plain,
    streamed,
    sync,
    until,
)
from tests.fakes import FakeCache, request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


def test_a_caller_who_comes_while_a_flight_is_made_joins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Flight], Any] = Flight.join
    others: list[Together] = []

    def join(flight: Flight) -> Any:
        if not others:
            others.append(Together(lambda: it.read(request())))
            threading.Event().wait(0.05)  # it must find this flight once that has a seat, and not before
        return real(flight)

    with sync(plain) as it:
        it.upstream.open.clear()
        monkeypatch.setattr(Flight, "join", join)
        calls = Together(lambda: it.read(request()))
        until(lambda: aboard(it.flights) == 2)
        it.upstream.open.set()
        assert {body for _, body in calls.results() + others[0].results()} == {PLAIN[0]}
        assert len(it.upstream.calls) == 1


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_interrupt_while_the_answer_is_stored_costs_the_others_no_chunk(is_stream: bool) -> None:
    class Interrupting(FakeCache):
        def admit(self, entry: Any) -> bool:
            raise KeyboardInterrupt

    whole = b"".join(PIECES if is_stream else PLAIN)
    gate = threading.Semaphore(0)
    answered = streamed(whole, gate=gate) if is_stream else plain(whole[:20], whole[20:], gate=gate)
    with sync(answered, plain, cache=Interrupting()) as it:
        calls = Together(*[lambda: it.read(request(stream=is_stream))] * 3)
        until(lambda: aboard(it.flights) == 3)
        gate.release(9)
        results = calls.results()
        good = [result[1] for result in results if not isinstance(result, BaseException)]
        assert [type(result) for result in results if isinstance(result, BaseException)] == [KeyboardInterrupt]
        assert good == [whole] * 2
        assert len(it.upstream.calls) == 1


def test_the_error_is_one_that_every_face_knows() -> None:
    assert issubclass(Interrupted, BackendUnavailable)
    assert issubclass(Interrupted, ConnectionError)


def answering(body: Callable[[], Any], content_type: str) -> Callable[[Any], Any]:
    return lambda _: httpx.Response(200, headers={"content-type": content_type}, content=body())


def runtime(**cache: Any) -> Runtime:
    return Runtime(Config(cache={"store": "memory", "semantic": False, **cache}))


MESSAGES: Any = [{"role": "user", "content": "hi"}]
# openai 2 hands on what its HTTP library raises while it reads a stream; openai 3 translates it.
BROKEN = (openai.APIConnectionError, httpx.ReadError)
OPTIONS: dict[str, Any] = {"api_key": "k", "base_url": "http://127.0.0.1/v1", "max_retries": 0}


def test_a_stream_ends_with_the_error_of_the_callers_own_library() -> None:
    def body() -> Iterator[bytes]:
        yield PIECES[0]
        raise KeyboardInterrupt

    shared = runtime()
    client = OpenAI(
        **OPTIONS, http_client=httpx.Client(transport=httpx.MockTransport(answering(body, SSE))), llm_proxy=shared
    )
    one, two = [iter(client.chat.completions.create(model="m", messages=MESSAGES, stream=True)) for _ in range(2)]
    assert next(one).choices[0].delta.content == next(two).choices[0].delta.content == "one "
    with pytest.raises(KeyboardInterrupt):
        next(one)
    with pytest.raises(BROKEN):
        next(two)
    shared.close()


def test_a_plain_answer_ends_with_openais_connection_error() -> None:
    """One too large to keep: of any other the follower would find the failure out in time, and ask by itself."""
    gate = threading.Semaphore(0)

    def body() -> Iterator[bytes]:
        assert gate.acquire(timeout=SLOW_S)
        yield b'{"a":"' + b"x" * 400
        assert gate.acquire(timeout=SLOW_S)
        raise KeyboardInterrupt

    shared = runtime(max_entry_bytes=100)
    transport = httpx.MockTransport(answering(body, "application/json"))
    client = OpenAI(**OPTIONS, http_client=httpx.Client(transport=transport), llm_proxy=shared)

    def ask() -> Any:
        return client.chat.completions.create(model="m", messages=MESSAGES)

    calls = Together(ask, ask)
    until(lambda: aboard(shared.driver._flights) == 2)
    (flight,) = shared.driver._flights._table.values()
    gate.release()
    until(lambda: [seat.position for seat in flight._seats] == [1, 1])
    gate.release()
    assert {type(result) for result in calls.results()} == {KeyboardInterrupt, openai.APIConnectionError}
    shared.close()


async def test_a_stream_whose_task_somebody_cancels() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield PIECES[0]
        await asyncio.sleep(3600)

    shared = runtime()
    transport = httpx.MockTransport(answering(body, SSE))
    client = AsyncOpenAI(**OPTIONS, http_client=httpx.AsyncClient(transport=transport), llm_proxy=shared)
    stream = aiter(await client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    await anext(stream)
    (task,) = [task for task in asyncio.all_tasks() if "SharedFlight" in repr(task)]
    task.cancel()
    with pytest.raises(BROKEN):
        await anext(stream)
    shared.close()
