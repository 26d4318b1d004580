"""Real queries through a real ``llm-proxy serve`` and the openai client: ``python -m benchmarks.end_to_end``.

Queries come from files (``--queries``, several may be given): JSON lines with ``text`` are drawn without repeating any;
a table with ``Query`` and ``PopularityScore`` is drawn by popularity, so that popular ones repeat. Each upstream is
asked all of them twice: directly, and through the proxy with an empty cache.

Upstreams: ``local-model`` is a real small language model in llama-cpp-python (``scripts/local-model`` builds it);
``recorded`` is a simulated upstream that takes exactly as long as another one did: the local model earlier in the same
run, else what ``--latencies`` holds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from ._queries import read_texts
from ._report import RESULTS, arguments, report
from ._upstream import upstream

_MODEL = "gpt-4o-mini"
_UPSTREAMS = ("local-model", "recorded")
_LATENCIES = RESULTS / "local_model_latencies.txt"
_USD_PER_MTOK = (0.15, 0.60)  # what gpt-4o-mini costs: the local model's tokens are priced as if they were its
_MAX_TOKENS = 24


@dataclass(frozen=True)
class Asked:
    """One answered query: seconds, and how the proxy answered it."""

    seconds: float
    status: str
    usd: float


def main() -> None:
    """Run and report."""
    options = arguments(
        "end_to_end",
        __doc__,
        queries=(Path, [], "files of queries", "+"),
        n=(int, 2000, "queries in all"),
        upstreams=(str, list(_UPSTREAMS), f"upstreams to ask: {', '.join(_UPSTREAMS)}", "+"),
        latencies=(Path, _LATENCIES, "file of seconds, one a line, that the upstream called recorded takes"),
        callers=(int, 4, "concurrent callers"),
        seed=(int, 0, "of the draw"),
    )
    _check(options)
    queries = draw(options.queries, options.n, options.seed)
    names = [f"{path.parent.name}/{path.name}" for path in options.queries]
    figures: dict[str, Any] = {"n": len(queries), "files": names}
    with tempfile.TemporaryDirectory() as directory:
        latencies = options.latencies
        for kind in options.upstreams:
            is_real = kind == "local-model"
            with _local_model() if is_real else upstream(latencies) as base_url:
                figures[kind], seconds = _compare(base_url, queries, options.callers)
            if is_real:
                latencies = options.latencies if options.record else Path(directory) / "latencies.txt"
                latencies.write_text("".join(f"{second:.4f}\n" for second in seconds))
    figures |= figures[options.upstreams[-1]]  # the contract's keys, at top level, are the last upstream's
    report("end_to_end", figures, options, table=_table(figures, options.upstreams))


def _check(options: argparse.Namespace) -> None:
    """End with what to do where something is missing."""
    if not options.queries or options.n < 1:
        sys.exit("name files of queries: --queries FILE ..., and how many to ask: --n 2000")
    unknown = set(options.upstreams).difference(_UPSTREAMS)
    if unknown:
        sys.exit(f"--upstreams {' '.join(sorted(unknown))}: there is only {' and '.join(_UPSTREAMS)}")
    if options.upstreams[0] == "recorded" and not options.latencies.is_file():
        sys.exit(
            f"{options.latencies} is not there: record it first, with --upstreams local-model recorded --record, "
            "or name another file of latencies with --latencies FILE"
        )


def draw(paths: list[Path], n: int, seed: int) -> list[str]:
    """``n`` queries, an equal share of each file, in random order."""
    rng = random.Random(seed)
    drawn: list[str] = []
    for index, path in enumerate(paths):
        share = n // len(paths) + (index < n % len(paths))
        texts, weights = _read(path)
        if not texts:
            sys.exit(f"{path} holds no queries")
        if weights is None:
            drawn += [rng.choice(texts) for _ in range(share)] if share > len(texts) else rng.sample(texts, share)
        else:
            drawn += rng.choices(texts, weights, k=share)
    rng.shuffle(drawn)
    return drawn


def _read(path: Path) -> tuple[list[str], list[float] | None]:
    """Texts, and their weights where the file is a table that says how popular each is."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".tsv", ".csv")):
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except OSError as exc:
            sys.exit(f"{path} can't be read: {exc}")
        how: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if name.endswith(".tsv") else {}
        table = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""), **how)
        if {"Query", "PopularityScore"} <= set(table.fieldnames or ()):
            rows = list(table)
            return [row["Query"] for row in rows], [float(row["PopularityScore"]) for row in rows]
    return read_texts(path), None


def _compare(base_url: str, queries: list[str], callers: int) -> tuple[dict[str, Any], list[float]]:
    """The figures of one upstream, and the seconds that it took by itself."""
    plain, errors = _ask_all(base_url, queries, callers)
    with _proxy(base_url) as proxy_url:
        good, more_errors = _ask_all(proxy_url, queries, callers)
    kinds = [asked.status for asked in good]
    figures = {
        "hit_rate_exact": kinds.count("exact") / len(queries),
        "hit_rate_semantic": kinds.count("semantic") / len(queries),
        "usd_without": sum(asked.usd for asked in plain),
        "usd_with": sum(asked.usd for asked in good if asked.status == "miss"),
        "p50_without": 1000 * statistics.median(asked.seconds for asked in plain),
        "p50_with": 1000 * statistics.median(asked.seconds for asked in good),
        "mean_without": 1000 * statistics.fmean(asked.seconds for asked in plain),
        "mean_with": 1000 * statistics.fmean(asked.seconds for asked in good),
        "p50_hit": 1000 * statistics.median([asked.seconds for asked in good if asked.status != "miss"] or [0.0]),
        "errors": len(errors) + len(more_errors),
        "first_errors": [*more_errors, *errors][:3],
    }
    return figures, [asked.seconds for asked in plain]


def _ask_all(base_url: str, queries: list[str], callers: int) -> tuple[list[Asked], list[str]]:
    """What was answered, and the errors of what was not."""
    client = openai.OpenAI(api_key="bench", base_url=base_url, max_retries=0, timeout=60)

    def ask(text: str) -> Asked | str:
        started = time.perf_counter()
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=_MODEL,
                messages=[{"role": "user", "content": text}],
                temperature=0,
                max_tokens=_MAX_TOKENS,
            )
            usage = raw.parse().usage
        except openai.OpenAIError as exc:
            return f"{type(exc).__name__}: {exc}"
        status = raw.headers.get("cache-status", "miss")
        kind = next((name for name in ("exact", "semantic") if f'hit; detail="{name}' in status), "miss")
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        usd = sum(count * price for count, price in zip(tokens, _USD_PER_MTOK, strict=True)) / 1e6
        return Asked(time.perf_counter() - started, kind, usd)

    with client, ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(ask, queries))
    good = [answer for answer in answers if isinstance(answer, Asked)]
    errors = [answer for answer in answers if isinstance(answer, str)]
    if not good:
        sys.exit(f"{base_url} answered nothing: {errors[0]}")
    return good, errors


@contextmanager
def _proxy(base_url: str) -> Iterator[str]:
    """A running ``llm-proxy serve`` with an empty cache; yields its base URL."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "llm-proxy.toml"
        settings.write_text(
            f'[cache]\ndirectory = "{directory}/cache"\n[backends.bench]\nbase_url = "{base_url}"\nauth = "caller"\n'
            f'[backends.bench.prices."{_MODEL}"]\n'
            f"input_usd_per_mtok = {_USD_PER_MTOK[0]}\noutput_usd_per_mtok = {_USD_PER_MTOK[1]}\n"
        )
        command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit("llm-proxy serve did not start")
            url = json.loads(line)["url"]
            _wait_until_ready(url)
            yield f"{url}/v1"
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _wait_until_ready(url: str) -> None:
    from urllib.request import urlopen

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(f"{url}/readyz", timeout=1) as answer:
            if json.load(answer)["encoder"] == "ok":
                return
        time.sleep(0.1)
    sys.exit(f'{url}: the encoder did not become ready; pip install "llm-proxy[cpu]", and see llm-proxy doctor')


@contextmanager
def _local_model() -> Iterator[str]:
    from tests.local_model.server import MISSING, LocalModelServer, is_installed

    if not is_installed():
        sys.exit(MISSING)
    with LocalModelServer() as server:
        yield server.base_url


def _table(figures: dict[str, Any], upstreams: list[str]) -> list[tuple[str, ...]]:
    names = ["hit_rate_exact", "hit_rate_semantic", "usd_without", "usd_with", "p50_without", "p50_with"]
    names += ["mean_without", "mean_with", "p50_hit", "errors"]
    rows = [(name, *(f"{figures[kind][name]:.6g}" for kind in upstreams)) for name in names]
    return [("", *upstreams), *rows]


if __name__ == "__main__":
    main()
