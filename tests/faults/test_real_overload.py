"""A real language model server that more callers want at once than it answers, and what it counts itself."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_proxy.observe.totals import totals
from llm_proxy.runtime import LEDGER_NAME
from tests.local_model.corpus import CAPITALS
from tests.local_model.kit import TO_THIRTY, asking, until
from tests.local_model.server import LocalModelServer, NativeServer, TransformersServer

from .real_kit import PRICES, WAYS, asked_through, running, slowed, usd, without

pytestmark = pytest.mark.local_model

CALLERS = 32
LANDS = [pair.rpartition(" ")[0] for pair in CAPITALS.replace("\n", "|").split("|")[:CALLERS]]
QUESTIONS = [f"What is the capital of {land}?" for land in LANDS]


@pytest.fixture(
    scope="module",
    params=[NativeServer, LocalModelServer, TransformersServer],
    ids=["llama.cpp", "llama-cpp-python", "transformers"],
)
def server(request: pytest.FixtureRequest) -> Iterator[LocalModelServer]:
    with running(request.param()) as server:
        yield server


@pytest.fixture(scope="module", params=[NativeServer, TransformersServer], ids=["llama.cpp", "transformers"])
def other(request: pytest.FixtureRequest) -> Iterator[LocalModelServer]:
    with running(request.param()) as server:
        yield server


def backends(server: LocalModelServer, **more: Any) -> dict[str, Any]:
    return {"main": {"base_url": server.base_url, "prices": PRICES, "concurrency": 1, **more}}


def answers_of(server: LocalModelServer) -> list[str]:
    """What the server itself answers to each question, one after the other."""
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        return [
            client.chat.completions.create(**asking(question)).choices[0].message.content or ""
            for question in QUESTIONS
        ]


def straight(server: LocalModelServer) -> dict[str, float]:
    """What the server itself says of its answers to each question, one after the other."""
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        said: list[Any] = [client.chat.completions.create(**asking(question)).usage for question in QUESTIONS]
    return {
        "prompt_tokens_total": sum(usage.prompt_tokens for usage in said),
        "prompt_tokens_cached_total": 0,
        "tokens_predicted_total": sum(usage.completion_tokens for usage in said),
    }


def counted(server: LocalModelServer) -> dict[str, float]:
    """The server's own counts."""
    with urllib.request.urlopen(server.base_url.removesuffix("/v1") + "/metrics", timeout=10) as answer:
        rows = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name.removeprefix("llamacpp:"): float(value) for name, value in rows}


@pytest.mark.parametrize("way", WAYS)
def test_thirty_two_callers_and_one_slot(server: LocalModelServer, way: str) -> None:
    """None is lost, and none gets another's answer."""
    expected = answers_of(server)
    assert len(set(expected)) == CALLERS
    rows = [{"text": question, "stream": number % 2 == 1} for number, question in enumerate(QUESTIONS)]
    with asked_through(way, backends(server)) as asker:
        server.freeze()

        def jam() -> None:
            assert until(lambda: asker.waiting == CALLERS - 1, 30)
            server.thaw()

        told = asker.ask_together(rows, jam)
        assert [(one.text, one.ends, one.error) for one in told] == [(text, ["stop"], None) for text in expected]
        assert len(asker.events) == CALLERS
        assert all(event.outcome.is_stored and not event.outcome.attempts for event in asker.events)
        assert asker.waiting == 0


@pytest.mark.parametrize("kind", [NativeServer, without("it does not say how many requests it has")])
def test_the_server_never_sees_the_queue(kind: type[LocalModelServer]) -> None:
    """llama.cpp queues what it has no slot for, and says so: it is never asked for two at once."""
    seen = []
    with running(kind()) as server, asked_through("proxy", backends(server), cache={"enabled": False}) as asker:

        def look() -> None:
            while not seen or len(asker.events) < CALLERS:
                found = counted(server)
                seen.append((found["requests_processing"], found["requests_deferred"]))

        told = asker.ask_together([{"text": TO_THIRTY, "seed": number} for number in range(CALLERS)], look)
    assert [one.error for one in told] == [None] * CALLERS
    assert (1, 0) in seen
    assert all(processing <= 1 and not deferred for processing, deferred in seen)


@pytest.mark.parametrize("way", ["sync", "proxy"])
@pytest.mark.parametrize(("bound_s", "order"), [(60, [2, 3, 4, 5, 7, 8]), (0, [8, 3, 5, 7, 2, 4])])
def test_the_order_is_that_of_the_lengths_or_of_arrival(
    other: LocalModelServer, way: str, bound_s: int, order: list[int]
) -> None:
    with asked_through(way, backends(other, queue_wait_s=bound_s)) as asker, ThreadPoolExecutor(7) as pool:
        other.freeze()
        calls = [pool.submit(asker.ask, TO_THIRTY, max_tokens=1)]
        assert until(lambda: asker.under_way == 1)
        for number, limit in enumerate([8, 3, 5, 7, 2, 4]):
            calls.append(pool.submit(asker.ask, TO_THIRTY, max_tokens=limit))
            assert until(lambda waiting=number + 1: asker.waiting == waiting)  # type: ignore[misc]
        with slowed(other):
            assert [call.result().ends for call in calls] == [["length"]] * 7
    ended = sorted(asker.events, key=lambda event: event.at_s + event.latency_s)
    assert [event.usage.completion_tokens for event in ended if event.usage] == [1, *order]


@pytest.mark.parametrize("way", WAYS)
def test_who_finds_it_full_is_told_when_to_come_again(other: LocalModelServer, way: str) -> None:
    rows = [{"text": question, "stream": number % 2 == 1} for number, question in enumerate(QUESTIONS)]
    expected = dict(zip(QUESTIONS, answers_of(other), strict=True))
    with asked_through(way, backends(other, queue_length=4)) as asker:
        other.freeze()

        def jam() -> None:
            assert until(lambda: len(asker.events) == CALLERS - 5, 30)
            other.thaw()

        told = asker.ask_together(rows, jam)
        answered = [row["text"] for row, one in zip(rows, told, strict=True) if one.error is None]
        assert len(answered) == 5
        refused = [one for one in told if one.error is not None]
        for one in refused:
            assert isinstance(one.error, openai.RateLimitError)
            assert one.error.code == "queue_full"
            assert one.error.response.headers["x-should-retry"] == "true"
            assert 1 <= int(one.error.response.headers["retry-after"]) <= 60
            assert one.text == ""
        assert all(not event.outcome.cost_usd for event in asker.events if event.http_status == 429)
        left = [row for row, one in zip(rows, told, strict=True) if one.error is not None]
        texts = dict(zip(answered, [one.text for one in told if one.error is None], strict=True))
        for row in left:  # they come again, not all at once
            texts[row["text"]] = asker.ask(**row).text
        assert texts == expected


@pytest.mark.parametrize("kind", [NativeServer, TransformersServer], ids=["llama.cpp", "transformers"])
@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_adds_up_to_what_the_server_counts(way: str, kind: type[LocalModelServer], tmp_path: Path) -> None:
    """llama.cpp keeps sums of its own; of ``transformers serve`` there is what each answer says."""
    cache = {"directory": tmp_path, "semantic": False}
    with running(kind()) as server:
        sections = {"cache": cache, "observe": {"ledger": True}}
        with asked_through(way, backends(server), **sections) as asker:
            rows = [{"text": question, "stream": number % 2 == 1} for number, question in enumerate(QUESTIONS)]
            told = asker.ask_together(rows, lambda: None)
            assert all(one.error is None for one in told)
            assert asker.ask(QUESTIONS[0]).text == told[0].text  # from the cache: nobody counts it
            found = counted(server) if kind is NativeServer else straight(server)
        asker.runtime.close()
    prompt, cached = found["prompt_tokens_total"], found["prompt_tokens_cached_total"]
    answer = found["tokens_predicted_total"]
    assert sum(one.usage.prompt_tokens for one in told) == prompt + cached
    assert sum(one.usage.completion_tokens for one in told) == answer
    ledger = totals(tmp_path / LEDGER_NAME)
    assert (ledger["calls"], ledger["exact_hits"], ledger["errors"]) == (CALLERS + 1, 1, 0)
    assert ledger["cost_usd"] == pytest.approx((prompt + 0.5 * cached + 2 * answer) / 1e6, abs=1e-12)
    assert ledger["cost_usd"] == pytest.approx(sum(usd(one.usage) for one in told), abs=1e-12)
