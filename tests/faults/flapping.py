"""A third of the backends flaps: how many calls succeed, and how much longer the slowest take.

``python -m tests.faults.flapping --calls 3000``
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai

from llm_proxy.config import Config
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import running

from .kit import upstream

__all__ = ["Report", "run"]

AT_ONCE = 4
UP_S, DOWN_S = 0.5, 0.5
LATENCY_S = 0.02
DOWN = ("reset before headers", "503", "500", "reset after headers", "reset in mid-body")


@dataclass
class Report:
    """What came of a run: counts, and seconds that a call took."""

    calls: int
    succeeded: int
    failing_requests: int
    p50_s: float
    p99_s: float


def run(calls: int, *, is_flapping: bool, backends: int = 3) -> Report:
    """Ask a route of that many backends, of which the one that is asked first fails half of the time, or none does."""
    started_s, number = time.monotonic(), 0

    def flaps(body: dict[str, Any]) -> str:
        nonlocal number
        number += 1
        is_down = (time.monotonic() - started_s) % (UP_S + DOWN_S) > UP_S
        return DOWN[number % len(DOWN)] if is_flapping and is_down else ""

    with ExitStack() as stack:
        ups = [
            stack.enter_context(upstream(lambda body: "fine", flaps if index == 0 else "", latency_s=LATENCY_S))
            for index in range(backends)
        ]
        config = Config(
            backends={f"b{index}": {"base_url": one.url} for index, one in enumerate(ups)},
            routes={"auto": {"candidates": [f"b{index}/m" for index in range(backends)]}},
            cache={"enabled": False},
            observe={"ledger": False, "outcomes": False},
        )
        runtime = Runtime(server_config(config))
        with running(ProxyApp(runtime)) as port:
            took_s = asyncio.run(_ask(f"http://127.0.0.1:{port}/v1", calls))
        runtime.close()
        failing = sum(bool(asked.fault) for one in ups for asked in one.asked)
    ranked = sorted(took_s)
    return Report(calls, len(ranked), failing, ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)])


async def _ask(url: str, calls: int) -> list[float]:
    """How long each call took that was answered."""
    took_s: list[float] = []
    left = iter(range(calls))

    async def work() -> None:
        for number in left:
            began_s = time.perf_counter()
            messages = [{"role": "user", "content": f"question {number}"}]
            try:
                answer: Any = await client.chat.completions.create(model="auto", messages=messages)  # type: ignore[arg-type]
            except openai.OpenAIError:
                continue
            if answer.choices[0].message.content == "fine":
                took_s.append(time.perf_counter() - began_s)

    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return took_s


def main() -> None:
    """Print both runs; exits with 1 where the flapping shows more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    calls = parser.parse_args().calls
    logging.disable(logging.WARNING)
    run(200, is_flapping=False)  # warm
    well, flapping = run(calls, is_flapping=False), run(calls, is_flapping=True)
    share, ratio = flapping.succeeded / flapping.calls, flapping.p99_s / well.p99_s
    sys.stdout.write(f"healthy  {well}\nflapping {flapping}\nsuccess {share:.4%}, p99 x {ratio:.2f}\n")
    raise SystemExit(share < 0.999 or ratio > 2)


if __name__ == "__main__":
    main()
