"""What is made of near misses, and when it pays: ``python -m benchmarks.near``.

``predicted``: questions that differ by a number, at a simulated provider that takes predicted outputs, bills them as
OpenAI documents and needs a fixed time for each word that was not predicted. For each share of the words that differ
from answer to answer, the same questions are asked with `draft.predicted` and without, in turns, in one process.

``ahead``: questions without any near miss, and a second simulated model nearby that answers first
(``predict_with``), so many times as fast and with so many of its words wrong; it is free.

``latency_ratio`` and ``cost_ratio`` are with over without (median latency, the provider's bill), ``accepted_share`` is
the share of the answers that was taken from their predictions, ``chosen_length`` the words of a prediction times the
share of calls that got one, and ``sent_share`` that share.
"""

from __future__ import annotations

import statistics
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import uvicorn

from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeEncoder

from ._predicting import PRICE, PredictingProvider, question
from ._report import arguments, report

__all__ = ["main", "predicted"]

_LOADS = {"same form": 0.1, "a third new": 0.3, "half new": 0.5, "nearly new": 0.9, "all new": 1.0}
_AHEAD = {
    "a tenth wrong, 10 times as fast": (0.1, 10.0),
    "half wrong, 10 times as fast": (0.5, 10.0),
    "all wrong, 10 times as fast": (1.0, 10.0),
    "a tenth wrong, as slow": (0.1, 1.0),
}
_HEADINGS = ("way", "load", "latency_ratio", "accepted_share", "cost_ratio", "chosen_length", "sent_share")


class _Arm:
    """One client with its own runtime, cache and provider."""

    def __init__(
        self,
        stack: ExitStack,
        differs: float,
        options: Namespace,
        *,
        is_predicted: bool,
        ahead: tuple[float, float] | None = None,
    ) -> None:
        self.provider = PredictingProvider(differs, words=options.words, word_s=options.word_ms / 1000)
        url = stack.enter_context(_serving(self.provider))
        cloud = {"base_url": f"{url}/v1", "takes_prediction": True, "prices": {"big": PRICE}, "api_key": "k"}
        backends = {"cloud": cloud}
        if ahead is not None and is_predicted:
            wrong, speed = ahead
            word_s = options.word_ms / 1000 / speed
            local = PredictingProvider(differs, words=options.words, word_s=word_s, first_s=0.001, wrong=wrong)
            backends["local"] = {"base_url": f"{stack.enter_context(_serving(local))}/v1"}
            cloud["predict_with"] = "local/small"
        draft = {"predicted": is_predicted, "max_extra_cost": options.max_extra_cost}
        config = Config(
            cache={"store": "memory"}, backends=backends, encoder={"wait_s": 30.0}, draft=draft,
            observe={"ledger": False},
        )  # fmt: skip
        self.runtime = Runtime(config, encoder=FakeEncoder())  # type: ignore[arg-type]
        stack.callback(self.runtime.close)
        self.client = OpenAI(api_key="any", llm_proxy=self.runtime, max_retries=0)
        stack.callback(self.client.close)
        self.took_s: list[float] = []
        self._is_far = ahead is not None

    def ask(self, number: int) -> None:
        began_s = time.perf_counter()
        messages: Any = [{"role": "user", "content": question(number)}]
        if self._is_far:  # a scope of its own, where nothing is near
            messages.insert(0, {"role": "system", "content": f"You work for customer {number}."})
        self.client.chat.completions.create(model="cloud/big", messages=messages)
        self.took_s.append(time.perf_counter() - began_s)


def predicted(differs: float, options: Namespace, ahead: tuple[float, float] | None = None) -> dict[str, float]:
    """The figures of one load; with ``ahead``, of questions without a near miss that a model nearby answers first.

    Args:
        differs: Share of an answer's words that are no other answer's, in [0, 1].
        options: Of the command line.
        ahead: Share of that model's words that are wrong, in [0, 1], and how many times as fast it is, > 0.
    """
    with ExitStack() as stack:
        without = _Arm(stack, differs, options, is_predicted=False, ahead=ahead)
        with_ = _Arm(stack, differs, options, is_predicted=True, ahead=ahead)
        for number in range(options.calls):
            for arm in (without, with_) if number % 2 else (with_, without):
                arm.ask(number)
        sent, calls = with_.provider.predicted, len(with_.provider.requests)
        answered = calls * options.words
        return {
            "latency_ratio": statistics.median(with_.took_s) / statistics.median(without.took_s),
            "mean_latency_ratio": statistics.fmean(with_.took_s) / statistics.fmean(without.took_s),
            "accepted_share": with_.provider.accepted_words / answered,
            "cost_ratio": with_.provider.bill_usd / without.provider.bill_usd,
            "chosen_length": options.words * sent / calls,
            "sent_share": sent / calls,
        }


def main() -> None:
    """Run and report."""
    options = arguments(
        "near",
        __doc__,
        calls=(int, 200, "questions of each load"),
        words=(int, 100, "words of an answer"),
        word_ms=(float, 1.0, "what a word takes that was not predicted, milliseconds"),
        max_extra_cost=(float, 0.25, "draft.max_extra_cost"),
    )
    found = {load: predicted(differs, options) for load, differs in _LOADS.items()}
    rows = [("predicted", load, *(f"{row[name]:.2f}" for name in _HEADINGS[2:])) for load, row in found.items()]
    nearby = {load: predicted(1.0, options, ahead) for load, ahead in _AHEAD.items()}
    rows += [("ahead", load, *(f"{row[name]:.2f}" for name in _HEADINGS[2:])) for load, row in nearby.items()]
    shown = {"calls": options.calls, "words": options.words, "max_extra_cost": options.max_extra_cost}
    report("near", {**shown, "predicted": found, "ahead": nearby}, options, table=[_HEADINGS, *rows])


@contextmanager
def _serving(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
