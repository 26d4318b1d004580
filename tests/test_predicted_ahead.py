"""A model nearby answers first, for predicted outputs: two simulated providers on loopback bill what they say."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks._predicting import PRICE, PredictingProvider, question
from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.observe.totals import totals
from llm_proxy.runtime import LEDGER_NAME, Runtime
from llm_proxy.testing import FakeEncoder
from tests.servers import serving


def messages_of(number: int) -> Any:
    """A question without any near miss."""
    return [
        {"role": "system", "content": f"You work for customer {number}."},
        {"role": "user", "content": question(number)},
    ]


def prompt_usd(number: int) -> float:
    """What the prompt of a call is thought to cost: four characters a token."""
    sent = json.dumps({"messages": messages_of(number), "model": "far/big"}, separators=(",", ":"))
    return len(sent) // 4 * PRICE["input_usd_per_mtok"] / 1e6


class Pair:
    """A client, the provider that answers it, and the one nearby that answers first."""

    def __init__(self, client: OpenAI, far: PredictingProvider, near: PredictingProvider) -> None:
        self.client, self.far, self.near = client, far, near
        self.took_s: dict[bool, list[float]] = {True: [], False: []}

    def ask(self, number: int, **options: Any) -> str:
        """What a question without any near miss is answered."""
        messages = messages_of(number)
        before, began_s = self.far.predicted, time.perf_counter()
        found = self.client.chat.completions.create(model="far/big", messages=messages, **options)
        if options.get("stream"):
            text = "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)
        else:
            text = found.choices[0].message.content
        self.took_s[self.far.predicted > before].append(time.perf_counter() - began_s)
        return text


@contextmanager
def pair(directory: Path, *, near: dict[str, Any] | None = None, **draft: Any) -> Iterator[Pair]:
    far = PredictingProvider(1.0, words=60, word_s=0.002, first_s=0.0)
    close = PredictingProvider(1.0, **{"words": 60, "word_s": 0.0001, "first_s": 0.0, **(near or {})})
    with ExitStack() as stack:
        urls = [f"{stack.enter_context(serving(provider)).url}/v1" for provider in (far, close)]
        prices = {"prices": {"big": PRICE, "small": PRICE}, "api_key": "k"}
        backends = {
            "far": {"base_url": urls[0], "takes_prediction": True, "predict_with": "near/small", **prices},
            "near": {"base_url": urls[1], **prices},
        }
        settings = {"predicted": True, "max_extra_cost": 100.0, **draft}
        config = Config(cache={"directory": directory}, backends=backends, encoder={"wait_s": 30.0}, draft=settings)
        runtime = Runtime(config, encoder=FakeEncoder())  # type: ignore[arg-type]
        stack.callback(runtime.close)
        client = stack.enter_context(OpenAI(api_key="any", llm_proxy=runtime, max_retries=0))
        made = Pair(client, far, close)
        yield made
        assert runtime.ledger is not None
        runtime.ledger.drain()
        booked_usd = float(totals(directory / LEDGER_NAME)["cost_usd"])
        assert booked_usd == pytest.approx(far.bill_usd + close.bill_usd, rel=1e-9), "the ledger is both bills"


@pytest.mark.parametrize("options", [{}, {"stream": True, "stream_options": {"include_usage": True}}], ids=str)
def test_answers_come_sooner_by_what_is_right_of_it(tmp_path: Path, options: dict[str, Any]) -> None:
    with pair(tmp_path, near={"wrong": 0.2}) as made:
        assert all(made.ask(number, **options) == made.far.answer(question(number)) for number in range(30))
        assert len(made.took_s[True]) >= 20
        assert statistics.median(made.took_s[True]) < 0.6 * statistics.median(made.took_s[False])


def test_it_stops_where_nothing_of_it_is_right(tmp_path: Path) -> None:
    with pair(tmp_path, near={"wrong": 1.0}) as made:
        for number in range(30):
            assert made.ask(number) == made.far.answer(question(number))
        assert 0 < made.far.predicted <= 6


def test_it_stops_where_waiting_for_it_takes_longer(tmp_path: Path) -> None:
    with pair(tmp_path, near={"word_s": 0.003}) as made:
        for number in range(30):
            assert made.ask(number) == made.far.answer(question(number))
        assert 0 < made.far.predicted <= 10


def test_a_thread_waits_no_longer_for_it(tmp_path: Path) -> None:
    with pair(tmp_path, wait_s=0.1) as made:
        for number in range(3):
            made.ask(number)
        made.near.first_s = 3.0
        began_s = time.perf_counter()
        assert made.ask(3) == made.far.answer(question(3))
        assert time.perf_counter() - began_s < 1.5
        assert len(made.near.requests) == 1
        time.sleep(3.1)  # until it has written its answer, which nobody waits for, and whose length nobody knows
        assert made.near.bill_usd > prompt_usd(3)
        made.near.bill_usd = prompt_usd(3)


def test_one_that_is_late_is_left_alone(tmp_path: Path) -> None:
    with pair(tmp_path, wait_s=0.05) as made:
        made.near.first_s = 0.3
        for number in range(8):
            assert made.ask(number) == made.far.answer(question(number))
        assert len(made.near.requests) == 1
        assert made.far.predicted == 0
        time.sleep(0.4)  # until it has written its answer, which nobody waits for, and whose length nobody knows
        made.near.bill_usd = prompt_usd(3)
