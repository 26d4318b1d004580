"""What drafting brings and costs: ``python -m benchmarks.draft``.

Both models are simulated (`benchmarks._knowing`), on loopback: the large one takes ``--pass-ms`` for a pass, behind a
network of ``--network-ms``, the small one 2 ms a token, close by. A pass takes as long for up to ``--capacity`` tokens
in all its requests, and in proportion beyond. Of the small model's tokens a share is right, by chance. The code of
llm-proxy is all there: client, engine, controller, HTTP. For each acceptance and load the same calls are made of two
clients, one that drafts and one that does not, side by side, each of a server of its own.

``alone``: one call at a time. ``full``: as many callers as the large model has capacity, so that drafts have none.
``latency_ratio`` is the mean of the calls that may be drafted over that of plain ones, ``cost_ratio`` the same of what
the large model's server would bill at four times as much for an answer's token as for a prompt's, were it not free;
``accepted_share`` and ``chosen_length`` are what the controller reckons with at the end.

``race``: a local model beside a remote one of which ``--tail-share`` of the calls wait 50 times as long as others; the
local one answers all questions, and what it costs counts as if it were the remote one. ``accepted_share`` is the share
of calls that it answered, ``p99_ratio`` how many times longer the 99th percentile is without it.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import llm_proxy
from llm_proxy.config import load
from llm_proxy.engine.drafting import Drafting
from llm_proxy.runtime import Runtime

from ._knowing import FORM, Knowing, Timing, knowing
from ._report import arguments, report

_ACCEPTANCES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
_DRAFTER = Timing(network_s=0.0005, pass_s=0.002)
_LEARNING = 6  # calls before those that count: three are plain, one tries
_ANSWER_SHARE = 4.0
_RACERS, _ROWS = 4, 4  # at once
_NAMES = ("ada", "bo", "cy", "di", "ed", "flo", "gus", "hal", "ivy", "jo")


class Arm(NamedTuple):
    """A client before a server: what its calls took, seconds, and what the server billed for them."""

    times_s: list[float]
    billed: float
    acceptance: float = 0.0
    length: int = 0
    wrong: int = 0


def answers(count: int, tokens: int, rng: random.Random) -> dict[str, str]:
    """Questions, and answers of so many words."""
    return {f"Tell me story {number}.": " ".join(rng.choices(_NAMES, k=tokens)) for number in range(count)}


def run(known: dict[str, str], acceptance: float, options: Namespace, *, callers: int, is_drafted: bool) -> Arm:
    """Make the calls of one arm; those that come before it has learnt do not count."""
    timing = Timing(options.network_ms / 1e3, options.pass_ms / 1e3, options.capacity)
    target, drafter = Knowing(known), Knowing(known, acceptance=acceptance, seed=options.seed)
    with ExitStack() as stack:
        big_url, small_url = (
            stack.enter_context(knowing(target, timing)),
            stack.enter_context(knowing(drafter, _DRAFTER)),
        )
        free = {"m": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0}}
        big = {"base_url": big_url, "template": FORM, "scores": "echo", "models": ["m"], "prices": free}
        drafting = {"draft_with": "small/m"} if is_drafted else {}
        small = {"base_url": small_url, "template": FORM, "prices": free}
        config = load(None, cache={"enabled": False}, backends={"big": {**big, **drafting}, "small": small})
        runtime = Runtime(config)
        stack.callback(runtime.close)
        client = stack.enter_context(
            llm_proxy.OpenAI(base_url=big_url, api_key="none", max_retries=0, llm_proxy=runtime)
        )
        return _called(client, runtime, known, target, learning=_LEARNING * callers, callers=callers)


def _called(
    client: Any, runtime: Runtime, known: dict[str, str], target: Knowing, *, learning: int, callers: int
) -> Arm:
    times_s, wrong, lock = [0.0] * len(known), [0], threading.Lock()
    billed_before: list[float] = []

    def call(number: int, question: str) -> None:
        if number == learning:
            billed_before.append(_bill(target))
        began_s, text = time.perf_counter(), ""
        chat: Any = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": question}]}
        for chunk in client.chat.completions.create(stream=True, **chat):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        times_s[number] = time.perf_counter() - began_s
        with lock:
            wrong[0] += text != known[question]

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(len(known)), known))
    billed = _bill(target) - billed_before[0]
    sends = runtime.engine._chains._sends
    acceptance, length = 0.0, 0
    if isinstance(sends, Drafting):
        goodput = sends._goodput
        for way in goodput._known:
            length, acceptance = goodput.chosen(way, load=callers)
    return Arm(times_s[learning:], billed, acceptance, length, wrong[0])


def _bill(target: Knowing) -> float:
    return target.billed["prompt"] + _ANSWER_SHARE * target.billed["answer"]


def compare(acceptance: float, load_name: str, options: Namespace) -> dict[str, Any]:
    """Both arms at once; the figures of one row."""
    callers = 1 if load_name == "alone" else options.capacity
    count = (options.calls + _LEARNING) * callers
    known = answers(count, options.tokens, random.Random(options.seed))
    with ThreadPoolExecutor(2) as pool:
        arms = [
            pool.submit(run, known, acceptance, options, callers=callers, is_drafted=is_drafted)
            for is_drafted in (True, False)
        ]
        drafted, plain = (arm.result() for arm in arms)
    return {
        "way": "verified",
        "load": load_name,
        "acceptance": acceptance,
        "latency_ratio": statistics.fmean(drafted.times_s) / statistics.fmean(plain.times_s),
        "latency_ratio_p50": statistics.median(drafted.times_s) / statistics.median(plain.times_s),
        "plain_p50": statistics.median(plain.times_s) * 1e3,
        "accepted_share": drafted.acceptance,
        "cost_ratio": drafted.billed / plain.billed,
        "chosen_length": drafted.length,
        "calls": len(drafted.times_s),
        "wrong_answers": drafted.wrong + plain.wrong,
    }


def raced(options: Namespace) -> dict[str, Any]:
    """Calls with and without a rival, side by side; the figures of one row."""
    known = answers(options.race_calls + 40, 8, random.Random(options.seed))
    with ThreadPoolExecutor(2) as pool:
        arms = [pool.submit(_run_race, known, options, is_raced=is_raced) for is_raced in (True, False)]
        (fast, usd, share), (slow, plain_usd, _) = (arm.result() for arm in arms)
    return {
        "way": "race",
        "load": "alone",
        "acceptance": 1.0,
        "latency_ratio": statistics.fmean(fast) / statistics.fmean(slow),
        "latency_ratio_p50": statistics.median(fast) / statistics.median(slow),
        "plain_p50": statistics.median(slow) * 1e3,
        "p99_ratio": _p99(slow) / _p99(fast),
        "accepted_share": share,
        "cost_ratio": usd / plain_usd,
        "chosen_length": 0,
        "calls": len(fast),
        "wrong_answers": 0,
    }


def _run_race(known: dict[str, str], options: Namespace, *, is_raced: bool) -> tuple[list[float], float, float]:
    """What the calls took, seconds, what both servers billed, and the share that the local one answered."""
    usual_s = (options.network_ms + 8 * 5) / 1e3
    timing = Timing(options.network_ms / 1e3, 0.005, 64, tail_share=options.tail_share, tail_s=50 * usual_s)
    far, near, models = Knowing(known, seed=options.seed), Knowing(known), list[str]()
    with knowing(far, timing) as far_url, knowing(near, _DRAFTER) as near_url:
        rival = {"race_with": "near/n", "race_bar": 0.0} if is_raced else {}
        backends = {"far": {"base_url": far_url, "models": ["m"], **rival}, "near": {"base_url": near_url}}
        runtime = Runtime(load(None, cache={"enabled": False}, backends=backends))

        def call(question: str) -> float:
            began_s = time.perf_counter()
            chat: Any = {"model": "m", "messages": [{"role": "user", "content": question}]}
            models.append({chunk.model for chunk in client.chat.completions.create(stream=True, **chat)}.pop())
            return time.perf_counter() - began_s

        client = llm_proxy.OpenAI(base_url=far_url, api_key="none", max_retries=0, llm_proxy=runtime)
        with client, ThreadPoolExecutor(_RACERS) as pool:
            times_s = list(pool.map(call, known))
        runtime.close()
    return times_s[40:], _bill(far) + _bill(near), models.count("n") / len(models)


def _p99(times_s: list[float]) -> float:
    return statistics.quantiles(times_s, n=100)[98]


def main() -> None:
    """Run all acceptances alone at the same time, since they wait and do not work; then those at full load in turn."""
    options = arguments(
        "draft",
        __doc__,
        calls=(int, 16, "calls that count, of each row; at full load, of each caller"),
        tokens=(int, 32, "tokens of an answer"),
        pass_ms=(float, 100.0, "milliseconds that a pass of the large model takes"),
        network_ms=(float, 50.0, "milliseconds to the large model and back"),
        capacity=(int, 8, "tokens that a pass takes without getting slower"),
        acceptances=(float, list(_ACCEPTANCES), "shares of right drafted tokens", "+"),
        full=(float, [0.0, 0.8], "those of them at full load", "*"),
        race_calls=(int, 400, "calls of the race; 0: none"),
        tail_share=(float, 0.03, "share of the race's calls that wait 50 times as long"),
        seed=(int, 0, "of the answers, and of which drafted tokens are wrong"),
    )
    rows = [*_alone(options), *(compare(acceptance, "full", options) for acceptance in options.full)]
    rows += [raced(options)] if options.race_calls else []
    wrong = sum(row["wrong_answers"] for row in rows)
    if wrong:
        sys.exit(f"{wrong} answers differ from what the large model says")
    keys = ("way", "load", "acceptance", "latency_ratio", "p99_ratio", "accepted_share", "cost_ratio", "chosen_length")
    table = [keys, *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    figures = {name: getattr(options, name) for name in ("tokens", "pass_ms", "network_ms", "capacity", "seed")}
    report("draft", {**figures, "rows": rows}, options, table=table)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _alone(options: Namespace) -> Sequence[dict[str, Any]]:
    with ThreadPoolExecutor(_ROWS) as pool:
        return list(pool.map(lambda acceptance: compare(acceptance, "alone", options), options.acceptances))


if __name__ == "__main__":
    main()
