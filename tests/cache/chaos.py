"""Many processes on one cache directory while one of them is killed every second; then everything is counted.

``python -m tests.cache.chaos --processes 20 --seconds 60 --directory DIR`` prints one line of JSON and ends with 0 when
no verb failed, nothing acknowledged was lost and the check finds nothing. A shorter second run has a budget so small
that every process evicts all the time: there the budget must hold and the check be clean.
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
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llm_proxy.cache.build import build
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import Entry
from llm_proxy.config import CacheConfig
from llm_proxy.errors import LLMProxyError

DIM = 16
SCOPES = 8
SMALL_BUDGET_BYTES = 1 << 20
SLACK_BYTES = 60_000  # what twenty processes may add between two looks at the log


class _SystemClock:
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class Verdict:
    mode: str
    processes: int
    seconds: float
    killed: int = 0
    acknowledged: int = 0
    lost: int = 0
    operations: int = 0
    errors: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    used_bytes: int = 0
    is_ok: bool = False


def open_cache(directory: Path, *, is_evicting: bool) -> Cache:
    budget_bytes = SMALL_BUDGET_BYTES if is_evicting else 1 << 40
    return build(CacheConfig(directory=directory, budget_bytes=budget_bytes), clock=_SystemClock())


def entry_of(name: str) -> Entry:
    import numpy as np

    digest = hashlib.sha256(name.encode()).hexdigest()
    vector = np.random.default_rng(int(digest[:12], 16)).standard_normal(DIM).astype(np.float32)
    return Entry(
        key=digest,
        scope=hashlib.sha256(digest[:1].encode() if int(digest[0], 16) < SCOPES else b"").hexdigest(),
        text=f"question {name}",
        completion=json.dumps({"name": name, "padding": "x" * (int(digest[1:4], 16) % 3000)}).encode(),
        created_s=time.time(),
        cost_usd=int(digest[4:7], 16) * 1e-6,
        encoder="chaos",
        vector=vector / np.linalg.norm(vector),
    )


# -- one of many -------------------------------------------------------------------------------------------------


class Worker:
    """Writes, reads, hits and removes; notes on disk what was acknowledged, after it was."""

    def __init__(self, directory: Path, notes: Path, number: int, *, is_evicting: bool) -> None:
        self.is_evicting = is_evicting
        self.cache = open_cache(directory, is_evicting=is_evicting)
        self.name = f"{number}-{os.getpid()}"
        self.log = os.open(notes / f"{self.name}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.errors = notes / f"{self.name}.errors"
        self.random = random.Random(self.name)
        self.kept: list[str] = []
        self.count = 0

    def note(self, mark: str, name: str) -> None:
        os.write(self.log, f"{mark} {name}\n".encode())

    def run(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:  # an orphan ends
            try:
                self.step()
            except LLMProxyError as exc:
                with self.errors.open("a") as file:
                    file.write(f"{type(exc).__name__}: {exc}\n")
            time.sleep(self.random.uniform(0, 0.004))

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.5 or not self.kept:
            self.write()
        elif chance < 0.75:
            self.read(self.random.choice(self.kept))
        elif chance < 0.9:
            self.search(self.random.choice(self.kept))
        elif chance < 0.97:
            self.cache.hit(entry_of(self.random.choice(self.kept)).key)
        else:
            name = self.kept.pop(self.random.randrange(len(self.kept)))
            self.note("-", name)  # before: from here on its absence is no loss
            self.cache._store.remove([entry_of(name).key])

    def write(self) -> None:
        self.count += 1
        name = f"{self.name}-{self.count}"
        if self.cache.admit(entry_of(name)):
            self.note("+", name)
            self.kept.append(name)

    def read(self, name: str) -> None:
        entry = self.cache.get(entry_of(name).key)
        if entry is None and not self.is_evicting:
            self.note("!", name)
        if entry is not None and json.loads(entry.completion)["name"] != name:
            self.note("!", name)

    def search(self, name: str) -> None:
        entry = entry_of(name)
        assert entry.vector is not None
        found = self.cache.nearest(entry.scope, entry.text, entry.vector, encoder="chaos")
        if found.entry is None and not self.is_evicting:
            self.note("!", name)


# -- the whole ---------------------------------------------------------------------------------------------------


def start(directory: Path, notes: Path, number: int, *, is_evicting: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.cache.chaos", "--directory", str(directory), "--notes", str(notes)]
    command += ["--worker", str(number), *(["--evicting"] if is_evicting else [])]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def run(directory: Path, processes: int, seconds: float, *, is_evicting: bool) -> Verdict:
    verdict = Verdict("evicting" if is_evicting else "keeping", processes, seconds)
    with tempfile.TemporaryDirectory() as notes_name:
        notes = Path(notes_name)
        workers = [start(directory, notes, number, is_evicting=is_evicting) for number in range(processes)]
        try:
            _storm(workers, directory, notes, verdict)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        _count(directory, notes, verdict)
    verdict.is_ok = not verdict.errors and not verdict.findings and not verdict.lost
    return verdict


def _storm(workers: list[subprocess.Popen[bytes]], directory: Path, notes: Path, verdict: Verdict) -> None:
    deadline_s = time.monotonic() + 120
    while len(list(notes.glob("*.log"))) < len(workers) and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the time counts from when all are at work
    end_s = time.monotonic() + verdict.seconds
    number = len(workers)
    while time.monotonic() < end_s:
        time.sleep(min(1.0, max(0.0, end_s - time.monotonic())))
        victim = random.randrange(len(workers))
        workers[victim].send_signal(signal.SIGKILL)
        workers[victim].wait()
        verdict.killed += 1
        workers[victim] = start(directory, notes, number, is_evicting=verdict.mode == "evicting")
        number += 1


def _count(directory: Path, notes: Path, verdict: Verdict) -> None:
    acknowledged: set[str] = set()
    withdrawn: set[str] = set()
    for path in notes.glob("*.log"):
        for line in path.read_text().splitlines():
            mark, name = line.split()
            verdict.operations += 1
            if mark == "!":
                verdict.errors.append(f"{name} was not found while its writer ran")
            else:
                (acknowledged if mark == "+" else withdrawn).add(name)
    for path in notes.glob("*.errors"):
        verdict.errors += path.read_text().splitlines()
    is_evicting = verdict.mode == "evicting"
    cache = open_cache(directory, is_evicting=is_evicting)
    cache.open()
    verdict.used_bytes = cache.stats().used_bytes
    report = cache.check()
    verdict.findings += report.findings
    if is_evicting and verdict.used_bytes > SMALL_BUDGET_BYTES:
        verdict.findings.append(f"{verdict.used_bytes} bytes are over the budget")
    verdict.acknowledged = len(acknowledged)
    if not is_evicting:
        missing = [name for name in acknowledged - withdrawn if cache.get(entry_of(name).key) is None]
        verdict.lost = len(missing)
    cache.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--directory", type=Path, required=True)
    for hidden in ("--notes", "--worker"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--evicting", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        Worker(options.directory, Path(options.notes), int(options.worker), is_evicting=options.evicting).run()
        return 0
    keeping = run(options.directory / "keeping", options.processes, options.seconds, is_evicting=False)
    evicting = run(options.directory / "evicting", options.processes, max(2.0, options.seconds / 6), is_evicting=True)
    is_ok = keeping.is_ok and evicting.is_ok
    sys.stdout.write(json.dumps({"ok": is_ok, "runs": [asdict(keeping), asdict(evicting)]}) + "\n")
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
