"""Predicted outputs through the real clients, against a simulated provider on loopback that bills them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks._predicting import PRICE, PredictingProvider, question
from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.draft.prediction import Predictions
from llm_proxy.engine.near import NearMisses
from llm_proxy.faces._http import httpx
from llm_proxy.observe.totals import totals
from llm_proxy.runtime import LEDGER_NAME, Runtime
from llm_proxy.testing import FakeEncoder
from tests.servers import serving

MODEL = "cloud/big"


class Bench:
    """A client of a provider, and the runtime between them."""

    def __init__(self, provider: PredictingProvider, url: str, directory: Path, draft: dict[str, Any]) -> None:
        self.provider, self.directory = provider, directory
        cloud = {"base_url": f"{url}/v1", "takes_prediction": True, "prices": {"big": PRICE}, "api_key": "k"}
        self.config = Config(
            cache={"directory": directory},
            backends={"cloud": cloud},
            encoder={"wait_s": 30.0},
            draft={"predicted": True, "max_extra_cost": 0.25, **draft},
        )
        self.runtime = Runtime(self.config, encoder=FakeEncoder())  # type: ignore[arg-type]
        self.client = OpenAI(api_key="any", llm_proxy=self.runtime, max_retries=0)

    @property
    def predictions(self) -> Predictions:
        """What was learnt of them."""
        found = self.runtime.engine._chains._sends
        assert isinstance(found, NearMisses)
        return found.predictions

    def ask(self, number: int, **options: Any) -> tuple[str, float, bool]:
        """What a question is answered, what that took, and whether it was sent with a prediction."""
        before, began_s = self.provider.predicted, time.perf_counter()
        text = self._said(number, **options)
        return text, time.perf_counter() - began_s, self.provider.predicted > before

    def _said(self, number: int, **options: Any) -> str:
        messages = [{"role": "user", "content": question(number)}]
        found = self.client.chat.completions.create(model=MODEL, messages=messages, **options)  # type: ignore[call-overload]
        if not options.get("stream"):
            return str(found.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)

    def ledger_usd(self) -> float:
        """What the ledger says that all calls cost."""
        ledger = self.runtime.ledger
        assert ledger is not None
        ledger.drain()
        return float(totals(self.directory / LEDGER_NAME)["cost_usd"])

    def extra(self) -> float:
        """What predictions added to what the calls cost without, as a share of it."""
        return self.provider.rejected_usd / (self.provider.bill_usd - self.provider.rejected_usd)


@contextmanager
def bench(directory: Path, differs: float, **options: Any) -> Iterator[Bench]:
    draft = options.pop("draft", {})
    provider = PredictingProvider(differs, **{"words": 60, "word_s": 0.0, "first_s": 0.0, **options})
    with serving(provider) as served:
        found = Bench(provider, served.url, directory, draft)
        try:
            yield found
        finally:
            found.client.close()
            found.runtime.close()


def test_latency_falls_by_the_accepted_share(tmp_path: Path) -> None:
    with bench(tmp_path, 0.2, word_s=0.006) as made:
        calls = [made.ask(number) for number in range(40)]
        assert all(text == made.provider.answer(question(number)) for number, (text, _, _) in enumerate(calls))
        plain = statistics.median(took_s for _, took_s, is_predicted in calls if not is_predicted)
        predicted = [took_s for _, took_s, is_predicted in calls if is_predicted]
        predictions = made.predictions
        accepted = max(predictions.accepted_share(kind) for kind in predictions._known)
        assert accepted > 0.6
        assert len(predicted) >= 25, "it is sent as soon as it is earned"
        assert statistics.median(predicted) / plain == pytest.approx(1.0 - accepted, abs=0.12)
        assert made.ledger_usd() == pytest.approx(made.provider.bill_usd, rel=1e-9)


@pytest.mark.parametrize("differs", [1.0, 0.95])
def test_it_stops_within_twenty_calls_where_little_is_accepted(tmp_path: Path, differs: float) -> None:
    with bench(tmp_path, differs, draft={"max_extra_cost": 100.0}) as made:
        for number in range(20):
            made.ask(number)
        first = made.provider.predicted
        assert 0 < first <= 8, "four tries of each kind"
        for number in range(20, 60):
            made.ask(number)
        assert made.provider.predicted <= first + 4
        assert made.ledger_usd() == pytest.approx(made.provider.bill_usd, rel=1e-9)


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
def test_what_it_may_cost_is_kept_at_every_call(tmp_path: Path, limit: float) -> None:
    with bench(tmp_path, 0.6, draft={"max_extra_cost": limit, "least_accepted": 0.0}) as made:
        for number in range(50):
            made.ask(number)
            assert made.extra() <= limit + 1e-9
        assert (made.provider.predicted > 0) == (limit > 0)
        assert made.ledger_usd() == pytest.approx(made.provider.bill_usd, rel=1e-9)


def test_streams_have_predictions_where_they_say_what_they_take(tmp_path: Path) -> None:
    with bench(tmp_path, 0.1, word_s=0.002) as made:
        for number in range(30):
            options = {"stream_options": {"include_usage": True}} if number % 2 else {}
            text, _, is_predicted = made.ask(number, stream=True, **options)
            assert text == made.provider.answer(question(number))
            assert number % 2 or not is_predicted
        assert made.provider.predicted > 5


def test_a_hit_afterwards_is_the_answer_without_its_prediction(tmp_path: Path) -> None:
    with bench(tmp_path, 0.3) as made:
        number = next(number for number in range(30) if made.ask(number)[2])
        usages = []
        for _ in range(2):
            raw = made.client.chat.completions.with_raw_response.create(
                model=MODEL, messages=[{"role": "user", "content": question(number)}]
            )
            usages.append(raw.parse().usage)
            assert raw.http_response.extensions["llm_proxy"].kind == "exact"
        assert [usage and usage.completion_tokens for usage in usages] == [60, 60]


def test_a_server_that_does_not_know_it_is_asked_so_once(tmp_path: Path) -> None:
    with bench(tmp_path, 0.1, is_ignorant=True) as made:
        for number in range(20):
            text, _, _ = made.ask(number)
            assert text == made.provider.answer(question(number))
        assert made.provider.predicted == 1
        assert len(made.provider.requests) == 21
        assert made.ledger_usd() == pytest.approx(made.provider.bill_usd, rel=1e-9)


def test_another_tenants_answers_are_no_draft(tmp_path: Path) -> None:
    with bench(tmp_path, 0.0) as made:
        for number in range(10):
            other = OpenAI(api_key=f"key-{number}", llm_proxy=made.runtime, max_retries=0)
            messages: Any = [{"role": "user", "content": question(number)}]
            other.chat.completions.create(model=MODEL, messages=messages)
            other.close()
        assert made.provider.predicted == 0


def test_async_clients_have_them_too(tmp_path: Path) -> None:
    async def ask(made: Bench) -> list[str | None]:
        async with AsyncOpenAI(api_key="any", llm_proxy=made.runtime, max_retries=0) as client:
            answers = []
            for number in range(15):
                messages: Any = [{"role": "user", "content": question(number)}]
                found = await client.chat.completions.create(model=MODEL, messages=messages)
                answers.append(found.choices[0].message.content)
            return answers

    with bench(tmp_path, 0.1, word_s=0.002) as made:
        said = asyncio.run(ask(made))
        assert said == [made.provider.answer(question(number)) for number in range(15)]
        assert made.provider.predicted > 5
        assert made.ledger_usd() == pytest.approx(made.provider.bill_usd, rel=1e-9)


def test_a_caller_who_leaves_gives_back_what_was_set_aside(tmp_path: Path) -> None:
    with bench(tmp_path, 0.1, first_s=0.1) as made:
        while not made.ask(len(made.provider.requests))[2]:
            pass
        hasty = made.client.with_options(timeout=0.02)
        with pytest.raises(Exception) as left:  # noqa: PT011 - of whichever client
            hasty.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question(999)}])
        assert isinstance(left.value.__cause__, httpx.TimeoutException)
        del left
        assert made.predictions.set_aside_usd == 0.0
