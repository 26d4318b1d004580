"""What llm-proxy adds to a call of the openai client, and what a hit costs: ``python -m benchmarks.client``.

All figures come from one run. Calls that are compared are made in turn, A B A B, so that a drift of the machine's
speed meets both. The upstream is simulated (`benchmarks._upstream`), on loopback, in a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import openai

from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.faces._http import httpx
from llm_proxy.runtime import Runtime

from ._report import arguments, report
from ._upstream import completion, stream_body, upstream

_MODEL = "gpt-4o-mini"
_WARM_UP = 30
_QUESTIONS = 1000
_IMPORTS = 9
Call = Callable[[], object]


def main() -> None:
    """Run and report."""
    options = arguments("client", __doc__, calls=(int, 400, "calls of each kind"))
    with ExitStack() as stack:
        base_url = stack.enter_context(upstream())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        runtime = Runtime(Config(cache={"directory": directory, "store": "disk"}))
        stack.callback(runtime.close)
        runtime.start()
        figures = _measure(base_url, runtime, options.calls)
    report("client", figures, options, table=_table(figures))


def _measure(base_url: str, runtime: Runtime, calls: int) -> dict[str, Any]:
    direct = openai.OpenAI(api_key="bench", base_url=base_url)
    proxied = OpenAI(api_key="bench", base_url=base_url, llm_proxy=runtime)
    floor = openai.OpenAI(api_key="bench", base_url=base_url, http_client=_mock_client())
    bypass = {"Cache-Control": "no-store"}
    unique, wording = count(), count()
    _fill(proxied)

    def hit(stream: bool) -> Call:
        return lambda: _ask(proxied, _question(7), stream=stream)

    figures = _in_turn(
        calls,
        sdk_floor=lambda: _ask(floor, "floor"),
        exact_hit=hit(False),
        semantic_hit=lambda: _ask(proxied, _wording(next(wording) % _QUESTIONS)),
    )
    figures |= _in_turn(calls, sdk_floor_stream=lambda: _ask(floor, "floor", stream=True), exact_hit_stream=hit(True))
    figures |= _in_turn(
        calls,
        direct=lambda: _ask(direct, "direct"),
        passthrough=lambda: _ask(proxied, "direct", headers=bypass),
        miss=lambda: _ask(proxied, f"a question nobody asked before, number {next(unique)}"),
    )
    figures |= _in_turn(
        calls,
        direct_stream=lambda: _ask(direct, "direct", stream=True),
        passthrough_stream=lambda: _ask(proxied, "direct", stream=True, headers=bypass),
        miss_stream=lambda: _ask(
            proxied, f"a streamed question nobody asked before, number {next(unique)}", stream=True
        ),
    )
    _check(proxied)
    return figures | _imports()


def _in_turn(calls: int, **kinds: Call) -> dict[str, Any]:
    """Median and 99th percentile in ms of each kind, called in turn; the first rounds do not count."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(_WARM_UP + calls):
        for kind, call in kinds.items():
            started = time.perf_counter()
            call()
            times[kind].append(1000 * (time.perf_counter() - started))
    figures = {}
    for kind, values in times.items():
        counted = sorted(values[_WARM_UP:])
        figures[f"{kind}_p50"] = statistics.median(counted)
        figures[f"{kind}_p99"] = counted[int(len(counted) * 0.99)]
    return figures


def _ask(client: Any, text: str, *, stream: bool = False, headers: dict[str, str] | None = None) -> Any:
    messages = [{"role": "user", "content": text}]
    answer = client.chat.completions.create(model=_MODEL, messages=messages, stream=stream, extra_headers=headers)
    return list(answer) if stream else answer


def _question(number: int) -> str:
    return f"How do I get from city {number} to the coast by train?"  # 15 to 17 tokens


def _wording(number: int) -> str:
    return f"How do I get from city {number} to the coast by train"


def _fill(client: Any) -> None:
    """1,000 entries in one scope, and the encoder loaded."""
    deadline = time.monotonic() + 30
    while not client._client._transport.runtime.encoder.is_ready and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in range(_QUESTIONS):
        _ask(client, _question(number))


def _check(client: Any) -> None:
    """What was timed is what it is called."""
    for text, kind in ((_question(7), "exact"), (_wording(11), "semantic")):
        raw = client.chat.completions.with_raw_response.create(
            model=_MODEL, messages=[{"role": "user", "content": text}]
        )
        outcome = raw.http_response.extensions["llm_proxy"]
        if outcome.kind != kind:
            sys.exit(f"expected a hit of kind {kind}, got {outcome}")


def _mock_client() -> Any:
    """The SDK's floor: no socket, the answer is there; a body of 30 chunks when a stream is asked for."""
    import json

    plain, stream = json.dumps(completion()).encode(), b"".join(stream_body())

    def handler(request: Any) -> Any:
        is_stream = b'"stream":true' in request.content
        kind = "text/event-stream" if is_stream else "application/json"
        return httpx.Response(200, headers={"content-type": kind}, content=stream if is_stream else plain)

    return httpx.Client(transport=httpx.MockTransport(handler))


def _imports() -> dict[str, float]:
    """Import times in ms, and those with a first client made; medians of fresh processes in turn.

    All code is compiled before, as installed code is.
    """
    made = "OpenAI(api_key='bench', llm_proxy={'cache': {'store': 'memory'}})"
    lines = {
        "import_openai": "import openai",
        "import_llm_proxy": "from llm_proxy import OpenAI",
        "client_openai": "import openai; openai.OpenAI(api_key='bench')",
        "client_llm_proxy": f"from llm_proxy import OpenAI; {made}",
    }
    code = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in lines}
    for name in _turns(lines, _IMPORTS):
        run = subprocess.run(
            [sys.executable, "-c", code.format(lines[name])], capture_output=True, text=True, check=True, env=environ
        )
        times[name].append(1000 * float(run.stdout))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _turns(names: Any, rounds: int) -> Iterator[str]:
    for _ in range(rounds):
        yield from names


def _table(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What, figure, against what, and the bar."""

    def row(name: str, against: str, bar_ms: float) -> tuple[str, str, str, str]:
        added = figures[name] - figures[against]
        state = "met" if added <= bar_ms else "MISSED"
        return (
            name,
            f"{figures[name]:.3f} ms",
            f"{added:+.3f} ms to {against} {figures[against]:.3f}",
            f"<= +{bar_ms} {state}",
        )

    return [
        row("passthrough_p50", "direct_p50", 0.25),
        row("passthrough_stream_p50", "direct_stream_p50", 0.5),
        row("exact_hit_p50", "sdk_floor_p50", 0.15),
        row("exact_hit_stream_p50", "sdk_floor_stream_p50", 0.3),
        row("semantic_hit_p50", "sdk_floor_p50", 2.0),
        row("import_llm_proxy", "import_openai", 50.0),
        ("client_llm_proxy", f"{figures['client_llm_proxy']:.1f} ms", f"openai {figures['client_openai']:.1f}", ""),
        ("miss_p50", f"{figures['miss_p50']:.3f} ms", f"direct {figures['direct_p50']:.3f}", ""),
        ("miss_stream_p50", f"{figures['miss_stream_p50']:.3f} ms", f"direct {figures['direct_stream_p50']:.3f}", ""),
    ]


if __name__ == "__main__":
    main()
