"""Thousands of calls against upstreams that fail at random: nothing is lost, repeated or mixed up, and the sums agree.

``python -m tests.faults.random_faults --calls 10000``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.observe.totals import totals
from llm_proxy.runtime import LEDGER_NAME, Runtime
from tests.faces.asgi_kit import running

from .kit import FaultyUpstream, upstream

__all__ = ["Report", "run"]

FAULTS = (
    "reset before headers", "reset after headers", "reset in mid-body", "reset in mid-event", "cut",
    "500", "502", "503", "529", "429 asked to wait", "429", "408", "409",
)  # fmt: skip
PRICES = {"main": (1.0, 2.0), "spare": (3.0, 5.0)}
AT_ONCE = 8
_MTOK = 1_000_000
_ENOUGH_S = 30.0


def answer_to(question: str) -> str:
    """The one right answer to a question, of a length of its own."""
    drawn = random.Random(question)
    return f"to {question}: " + " ".join(str(drawn.randrange(10**6)) for _ in range(drawn.randrange(1, 25)))


def usage_of(body: dict[str, Any], text: str) -> dict[str, int]:
    """What the upstream counts, and bills."""
    prompt, answer = len(json.dumps(body["messages"])), len(text)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


@dataclass
class Report:
    """What came of a run; dollars where the name says so. Errors are counted by what the caller had seen before."""

    calls: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    requests: int = 0
    lost: int = 0
    upstream_usd: float = 0.0
    ledger_usd: float = 0.0
    took_s: float = 0.0


@dataclass
class _Run:
    """One way to ask, and what came of it."""

    report: Report
    succeeded: Counter[str] = field(default_factory=Counter)

    def done(self, question: str, text: str, error: Exception | None) -> None:
        expected = answer_to(question)
        self.report.calls += 1
        if error is None and text == expected:
            self.report.right += 1
            self.succeeded[question] += 1
        elif error is not None and expected.startswith(text):
            self.report.errors[_said(error)] += 1
        else:
            self.report.wrong.append(f"{question}: {text[:80]!r} {error!r}")


class _BrokenOffError(Exception):
    """A stream ended with an error after it had begun."""


def _said(error: Exception) -> str:
    """An error in a few words."""
    if isinstance(error, _BrokenOffError):
        return "broke off in mid-stream"
    return f"{getattr(error, 'status_code', None) or 'no answer'} after all attempts"


def _options(question: str, model: str, *, is_stream: bool) -> dict[str, Any]:
    more = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return {"model": model, "messages": [{"role": "user", "content": question}], "timeout": _ENOUGH_S, **more}


def _asked(client: openai.OpenAI, question: str, model: str, *, is_stream: bool) -> tuple[str, Exception | None]:
    text = ""
    answer: Any = None
    try:
        answer = client.chat.completions.create(**_options(question, model, is_stream=is_stream))
        if not is_stream:
            return answer.choices[0].message.content, None
        for chunk in answer:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as exc:  # noqa: BLE001 - whatever a caller may see
        return text, exc if answer is None else _BrokenOffError(str(exc))
    return text, None


async def _asked_async(
    client: openai.AsyncOpenAI, question: str, model: str, *, is_stream: bool
) -> tuple[str, Exception | None]:
    text = ""
    answer: Any = None
    try:
        answer = await client.chat.completions.create(**_options(question, model, is_stream=is_stream))
        if not is_stream:
            return answer.choices[0].message.content, None
        async for chunk in answer:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as exc:  # noqa: BLE001 - whatever a caller may see
        return text, exc if answer is None else _BrokenOffError(str(exc))
    return text, None


def _questions(name: str, calls: int, drawn: random.Random) -> list[tuple[str, bool]]:
    """Questions with their form; one in ten is asked by two callers at once."""
    rows: list[tuple[str, bool]] = []
    while len(rows) < calls:
        row = (f"{name} question {len(rows)}", drawn.random() < 0.5)
        rows += [row, row] if drawn.random() < 0.1 else [row]
    return rows[:calls]


async def _all_async(client: openai.AsyncOpenAI, rows: list[tuple[str, bool]], model: str, run: _Run) -> None:
    left = iter(rows)

    async def work() -> None:
        for question, is_stream in left:
            run.done(question, *await _asked_async(client, question, model, is_stream=is_stream))

    async with client:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _all_sync(client: openai.OpenAI, rows: list[tuple[str, bool]], model: str, run: _Run) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool, client:
        asked = pool.map(lambda row: (row[0], *_asked(client, row[0], model, is_stream=row[1])), rows)
        for row in asked:
            run.done(*row)


def _fault_of(seed: int, share: float) -> Callable[[dict[str, Any]], str]:
    drawn = random.Random(seed)
    return lambda body: drawn.choice(FAULTS) if drawn.random() < share else ""


def run(calls: int, *, share: float = 0.2, seed: int = 7, can_prefill: str = "no") -> Report:
    """Ask that many questions, a third each way, of two upstreams that fail a share of all requests.

    Where these can go on with a text, answers that broke off are put together; their sums are then estimates.
    """
    report, started_s = Report(), time.monotonic()
    ups = {"usage": usage_of}

    def answer(body: dict[str, Any]) -> str:
        whole, last = answer_to(body["messages"][0]["content"]), body["messages"][-1]
        return whole.removeprefix(last["content"]) if last["role"] == "assistant" else whole

    with (
        tempfile.TemporaryDirectory() as folder,
        upstream(answer, _fault_of(seed, share), **ups) as main,
        upstream(answer, _fault_of(seed + 1, share), **ups) as spare,
    ):
        prices = {
            name: {"m": {"input_usd_per_mtok": paid, "output_usd_per_mtok": got}}
            for name, (paid, got) in PRICES.items()
        }
        backends = {
            "main": {
                "fallbacks": ["spare"],
                "base_url": main.url,
                "prices": prices["main"],
                "can_prefill": can_prefill,
            },
            "spare": {"base_url": spare.url, "prices": prices["spare"], "can_prefill": can_prefill},
        }
        made = _all_ways(calls, backends, Path(folder), report, seed)
        _sum_up(report, made, {"main": main, "spare": spare})
    report.took_s = time.monotonic() - started_s
    return report


def _all_ways(calls: int, backends: dict[str, Any], folder: Path, report: Report, seed: int) -> list[_Run]:
    drawn, runs = random.Random(seed), []
    for number, way in enumerate(("sync", "async", "proxy")):
        rows = _questions(way, calls // 3 + (number < calls % 3), drawn)
        config = Config(backends=backends, cache={"directory": folder / way, "semantic": False})
        runtime = Runtime(server_config(config) if way == "proxy" else config)
        runs.append(_Run(report))
        url = {"base_url": backends["main"]["base_url"], "api_key": "k", "llm_proxy": runtime}
        if way == "sync":
            _all_sync(OpenAI(**url), rows, "main/m", runs[-1])
        elif way == "async":
            asyncio.run(_all_async(AsyncOpenAI(**url), rows, "main/m", runs[-1]))
        else:
            with running(ProxyApp(runtime)) as port:
                client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k")
                asyncio.run(_all_async(client, rows, "m", runs[-1]))
        runtime.close()
        report.ledger_usd += totals(folder / way / LEDGER_NAME)["cost_usd"]
    return runs


def _sum_up(report: Report, runs: list[_Run], upstreams: dict[str, FaultyUpstream]) -> None:
    succeeded = sum((run.succeeded for run in runs), Counter())
    for name, one in upstreams.items():
        paid, got = PRICES[name]
        report.requests += len(one.asked)
        report.faults += sum(bool(asked.fault) for asked in one.asked)
        report.lost += sum(not succeeded[question] for question in one.answered)
        bodies = {asked.text: asked.body for asked in one.asked}
        for question, times in one.answered.items():
            usage = usage_of(bodies[question], answer_to(question))
            report.upstream_usd += times * (usage["prompt_tokens"] * paid + usage["completion_tokens"] * got) / _MTOK


def main() -> None:
    """Print what came of a run; exits with 1 where anything was lost, repeated, mixed up or wrongly booked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--can-prefill", default="no", help="have streams go on that break off")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    report = run(chosen.calls, share=chosen.share, seed=chosen.seed, can_prefill=chosen.can_prefill)
    sys.stdout.write(
        f"{report.calls} calls, {report.requests} requests, {report.faults} faults in {report.took_s:.0f} s: "
        f"{report.right} right, {sum(report.errors.values())} errors {dict(report.errors)}, "
        f"{len(report.wrong)} wrong, {report.lost} lost\n"
        f"upstream counts ${report.upstream_usd:.6f}, the ledger ${report.ledger_usd:.6f}\n"
    )
    for line in report.wrong[:20]:
        sys.stdout.write(f"  {line}\n")
    is_even = chosen.can_prefill != "no" or round(report.upstream_usd, 2) == round(report.ledger_usd, 2)
    raise SystemExit(bool(report.wrong or report.lost) or not is_even)


if __name__ == "__main__":
    main()
