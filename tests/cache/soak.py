"""Mixed load of many processes on one cache directory at its byte budget: the directory keeps to it, memory is flat.

``python -m tests.cache.soak --processes 8 --seconds 600 --budget-bytes 268435456 --directory DIR --plot FILE`` prints
one line of JSON and ends with 0 when the directory never took more than the budget and 5 %, the memory of the processes
was flat after the warm-up, no verb failed, all processes know the same entries in the end, and the check finds nothing.

Each process asks skewed questions: a hit is counted, a miss is searched by meaning and then stored. Now and then one
removes an entry; a tenth of the entries expires; some are pinned. Memory and directory are looked at every second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.cache.build import build
from llm_proxy.cache.entry import Entry
from llm_proxy.config import CacheConfig
from llm_proxy.errors import LLMProxyError
from llm_proxy.runtime import SystemClock

if TYPE_CHECKING:
    from llm_proxy.cache.cache import Cache

DIM = 384
QUESTIONS = 400_000
SCOPES = 4
MOST_OVER = 1.05
FLAT_PER_MINUTE = 0.01
PINNED_ONE_IN = 500
ROUNDS = 4
MAINTAIN_EVERY_S = 10.0


def open_cache(directory: Path, budget_bytes: int) -> Cache:
    return build(CacheConfig(directory=directory, budget_bytes=budget_bytes), clock=SystemClock())


def key_of(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def vector_of(number: int) -> Any:
    import numpy as np

    vector = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def entry_of(number: int, *, ttl_s: float) -> Entry:
    digest = key_of(number)
    length = int(100 * 2 ** (int(digest[:4], 16) / 65536 * 6))  # 100 to 6,400 bytes
    return Entry(
        key=digest,
        scope=key_of(-number % SCOPES),
        text=f"question {number}",
        completion=json.dumps({"answer": number, "padding": "x" * length}).encode(),
        created_s=time.time(),
        expires_s=time.time() + ttl_s if number % 10 == 0 else None,
        model="m",
        cost_usd=1e-5 * 2 ** (int(digest[4:6], 16) / 32),
        encoder="soak",
        vector=vector_of(number),
    )


# -- one of many -------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, options: argparse.Namespace) -> None:
        self.cache = open_cache(options.directory, options.budget_bytes)
        self.random = random.Random(options.worker)
        self.ttl_s, self.pause_s = options.ttl_s, options.pause_ms / 1000
        self.counts: Counter[str] = Counter()
        self.maintained_s = time.monotonic()
        self.is_over = False
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_: object) -> None:
        self.is_over = True

    def run(self) -> None:
        parent = os.getppid()
        self.cache.open()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not self.is_over and os.getppid() == parent:
            self.counts["calls"] += 1
            try:
                self.step()
            except LLMProxyError as exc:
                self.counts["errors"] += 1
                sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
            time.sleep(self.random.uniform(0, 2 * self.pause_s))
        for number in range(ROUNDS):
            sys.stdin.readline()
            # In the last round nobody writes, not even to remove what has expired: all follow to the end.
            self.cache.maintain() if number < ROUNDS - 1 else self.cache.open()
            sys.stdout.write("done\n")
            sys.stdout.flush()
        keys = sorted(self.cache._view.keys())
        digest = hashlib.sha256("".join(keys).encode()).hexdigest()
        stats = self.cache.stats()
        result = {"counts": self.counts, "digest": digest, "entries": len(keys), "vectors": stats.vectors}
        sys.stdout.write(json.dumps(result | {"evicted": stats.evicted, "problems": stats.problems}) + "\n")
        self.cache.close()

    def step(self) -> None:
        number = int(QUESTIONS * self.random.random() ** 4)  # half of the calls go to 6 % of the questions
        chance = self.random.random()
        if chance < 0.01:
            self.counts["removed"] += self.cache._store.remove([key_of(number)])
        elif chance < 0.5:
            self.ask_exactly(number)
        else:
            self.ask_by_meaning(number)
        if time.monotonic() - self.maintained_s > MAINTAIN_EVERY_S:
            self.maintained_s = time.monotonic()
            self.cache.maintain()

    def ask_exactly(self, number: int) -> None:
        if self.cache.get(key_of(number)) is None:
            self.store(number)
        else:
            self.hit(number)

    def ask_by_meaning(self, number: int) -> None:
        found = self.cache.nearest(key_of(-number % SCOPES), f"question {number}", vector_of(number), encoder="soak")
        if found.entry is None:
            self.store(number)
        elif found.entry.key == key_of(number):
            self.hit(number)
        else:
            self.counts["errors"] += 1
            sys.stderr.write(f"question {number} got the answer of {found.entry.text}\n")

    def store(self, number: int) -> None:
        entry = entry_of(number, ttl_s=self.ttl_s)
        if number % PINNED_ONE_IN == 0:
            entry = replace(entry, is_pinned=True)
        self.counts["stored" if self.cache.admit(entry) else "refused"] += 1

    def hit(self, number: int) -> None:
        self.counts["hits"] += 1
        if self.cache.hit(key_of(number)):
            self.cache.tend()


# -- the whole ---------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    processes: int
    seconds: float
    budget_bytes: int
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    entries: int = 0
    evicted: int = 0
    views_agree: bool = False
    most_bytes: int = 0
    most_of_budget: float = 0.0
    most_by_file: dict[str, int] = field(default_factory=dict)
    rss_mib: float = 0.0
    rss_per_minute: float = 0.0
    is_ok: bool = False


def bytes_of(directory: Path) -> dict[str, int]:
    sizes = {}
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                sizes[path.name] = path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope_per_minute(seconds: list[float], values: list[float]) -> float:
    """Rise of the regression line over the last half, as a share of the mean, a minute."""
    import numpy as np

    half = len(values) // 2
    rise, _ = np.polyfit(seconds[half:], values[half:], 1)
    return float(rise * 60 / np.mean(values[half:]))


def fill(options: argparse.Namespace) -> None:
    """Store rare questions up to the budget, so that the load begins at it."""
    cache = open_cache(options.directory, options.budget_bytes)
    number, measured_bytes = QUESTIONS, 0
    while cache._view.used_bytes < 0.98 * cache._upkeep.room_bytes:
        if cache._view.used_bytes - measured_bytes > options.budget_bytes / 8:
            measured_bytes = cache._view.used_bytes
            cache.maintain()
        with cache._upkeep.writing, cache._upkeep.together():
            for _ in range(20):
                number -= 1
                cache._upkeep.write(entry_of(number, ttl_s=options.ttl_s))
    cache.close()


def start(options: argparse.Namespace, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cache.soak", "--directory", str(options.directory)]
    for name in ("budget_bytes", "ttl_s", "pause_ms"):
        command += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    return subprocess.Popen(
        [*command, "--worker", str(number + 1)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(options: argparse.Namespace) -> tuple[Verdict, list[dict[str, Any]]]:
    verdict = Verdict(options.processes, options.seconds, options.budget_bytes)
    fill(options)
    workers = [start(options, number) for number in range(options.processes)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        samples = _watch(options, workers)
        results = _ended(workers, verdict)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    _judge(options, verdict, samples, results)
    return verdict, samples


def _watch(options: argparse.Namespace, workers: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    samples = []
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < options.seconds:
        files = bytes_of(options.directory)
        rss = [rss_of(worker.pid) for worker in workers]
        samples.append({"s": now_s, "bytes": sum(files.values()), "files": files, "rss": rss})
        time.sleep(options.every_s)
    return samples


def _ended(workers: list[subprocess.Popen[str]], verdict: Verdict) -> list[dict[str, Any]]:
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for _ in range(ROUNDS):
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        time.sleep(0.1)
    results = []
    for worker in workers:
        assert worker.stdout is not None
        results.append(json.loads(worker.stdout.readline()))
        verdict.errors += worker.communicate(timeout=120)[1].splitlines()
    return results


def _judge(
    options: argparse.Namespace, verdict: Verdict, samples: list[dict[str, Any]], results: list[dict[str, Any]]
) -> None:
    verdict.counts = dict(sum((Counter(result["counts"]) for result in results), Counter()))
    verdict.evicted = sum(result["evicted"] for result in results)
    cache = open_cache(options.directory, options.budget_bytes)
    report = cache.check()
    verdict.findings = [*report.findings, *(problem for result in results for problem in result["problems"])]
    digest = hashlib.sha256("".join(cache._store.keys()).encode()).hexdigest()
    cache.close()
    verdict.entries = report.entries
    verdict.views_agree = {result["digest"] for result in results} == {digest}
    verdict.most_bytes = max(sample["bytes"] for sample in samples)
    verdict.most_of_budget = round(verdict.most_bytes / options.budget_bytes, 4)
    for sample in samples:
        for name, size in sample["files"].items():
            verdict.most_by_file[name] = max(size, verdict.most_by_file.get(name, 0))
    whole = [float(sum(sample["rss"])) for sample in samples]
    verdict.rss_mib = round(whole[-1] / (1 << 20) / options.processes, 1)
    verdict.rss_per_minute = round(slope_per_minute([sample["s"] for sample in samples], whole), 5)
    is_flat = verdict.rss_per_minute < FLAT_PER_MINUTE
    is_bounded = verdict.most_of_budget <= MOST_OVER
    verdict.is_ok = verdict.views_agree and is_flat and is_bounded and not verdict.errors and not verdict.findings


def plot(samples: list[dict[str, Any]], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    mib = 1 << 20
    seconds = [sample["s"] for sample in samples]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6))
    above.plot(seconds, [sample["bytes"] / mib for sample in samples], label="directory")
    for name in ("cache.db-wal", "index.snapshot", "index.snapshot.tmp"):
        above.plot(seconds, [sample["files"].get(name, 0) / mib for sample in samples], label=name, linewidth=0.8)
    above.axhline(options.budget_bytes / mib, color="black", linewidth=0.8, label="budget")
    above.axhline(MOST_OVER * options.budget_bytes / mib, color="red", linewidth=0.8, label="budget + 5 %")
    above.set(ylabel="MiB", ylim=(0, None))
    above.legend(fontsize=7)
    for number in range(options.processes):
        below.plot(seconds, [sample["rss"][number] / mib for sample in samples], linewidth=0.8)
    below.set(xlabel="seconds", ylabel="resident MiB of each process", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(options.plot)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--budget-bytes", type=int, default=1 << 28)
    parser.add_argument("--ttl-s", type=float, default=60.0)
    parser.add_argument("--pause-ms", type=float, default=2.0)
    parser.add_argument("--every-s", type=float, default=1.0)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        Worker(options).run()
        return 0
    verdict, samples = run(options)
    if options.plot is not None:
        plot(samples, options)
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    return 0 if verdict.is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
