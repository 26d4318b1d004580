"""Mixed load on a real ``llm-proxy serve`` at its limits: every answer is right, and nothing grows.

``python -m tests.faces.soak --seconds 1800 --plot FILE`` prints one line of JSON and ends with 0 when all of this held:

- every answer belongs to its question, is whole, and no other tenant's; no status came that should not;
- each call reached the provider as often as it had to, and calls, hits, tokens and dollars of the ledger are those
  that the callers and the provider saw; a caller who left in mid-stream ended the call upstream;
- resident memory, open files and threads were flat by the rule of `tests.faces.soak.judge`, and the connections of the
  load are gone after it;
- the proxy counted no trouble, its log has no traceback, it evicted, refused connections beyond the limit, and ended
  with 0 at SIGTERM.

The provider is simulated (`tests.faces.soak.provider`). The cache is small, so that it evicts all the time; the
backend has fewer slots than there are callers, and the proxy fewer connections than a crowd brings every twenty
seconds. Settings are read anew every minute, and somebody looks at the dashboard and the metrics. In a run of six
minutes and more nobody calls for half a minute after a third of it, and before its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.faces.keys import add
from llm_proxy.holders import Holder
from tests.faces.soak.callers import MOST_BODY_BYTES, PRICES, TENANTS, Callers
from tests.faces.soak.judge import Flatness, Sample, judged, plot, sample

CONNECTIONS = 64
SLOTS = 16
_CROWD_S = 2.0
_LOOK_EVERY_S = 5.0
_REST_S = 12.0
_PAUSE_S, _LONG_S = 30.0, 360.0  # pools of threads give back what was idle for ten seconds
_MOST_FILES_MORE = SLOTS + 10  # after the load: connections to the provider that are kept for the next call, and stores
_EVICTED = re.compile(r"^llm_proxy_cache_evicted_total (\d+)", re.MULTILINE)


@dataclass
class Verdict:
    """What a run found; `is_ok` is all of it together."""

    seconds: float
    calls: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, dict[int, int]] = field(default_factory=dict)
    collapsed: int = 0
    left: int = 0
    crowded: int = 0
    evicted: int = 0
    reloads: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    flatness: dict[str, dict[str, float]] = field(default_factory=dict)
    grown: list[str] = field(default_factory=list)
    files_before: int = 0
    files_after: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    is_ok: bool = False


class Run:
    """One run on a proxy that is up.

    Args:
        callers: Who makes the load.
        pid: The proxy's process.
        settings: Its file of settings.
    """

    def __init__(self, callers: Callers, pid: int, settings: Path) -> None:
        self.callers, self.pid, self.settings = callers, pid, settings
        self.port = int(callers.url.rpartition(":")[2])
        self.samples: list[Sample] = []
        self.crowded = self.evicted = self.reloads = self.rest = 0
        self.troubles: dict[str, int] = {}
        self._watcher = {"authorization": f"Bearer {callers.keys['w']}"}

    async def load(self, options: argparse.Namespace) -> None:
        """The load, and all that goes on beside it; ends by itself."""
        self.began_s = time.monotonic()
        events = [self._crowding(options.crowd_s), self._reloading(options.reload_s)]
        beside = [self._sampling(), *events, self._looking(), self._listening(), self._resting(options.seconds)]
        tasks = [asyncio.ensure_future(one) for one in beside]
        load = asyncio.ensure_future(self.callers.run(options.callers, options.pause_ms / 1000))
        await asyncio.wait([load, *tasks], timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # none of them ends by itself, but by an error
            task.cancel()
        self.callers.is_over = True
        await load

    async def _sampling(self) -> None:
        while True:
            calls = sum(sum(row.values()) for row in self.callers.tally.statuses.values())
            self.samples.append(
                sample(self.pid, time.monotonic() - self.began_s, calls, port=self.port, rest=self.rest)
            )
            await asyncio.sleep(1.0)

    async def _resting(self, whole_s: float) -> None:
        """In a long run nobody calls for a while, after a third of it and before its end."""
        for number, at_s in enumerate((whole_s / 3, whole_s - _PAUSE_S - 2.0), 1):
            await asyncio.sleep(max(0.0, self.began_s + at_s - time.monotonic()))
            if whole_s >= _LONG_S:
                self.callers.rests_until_s, self.rest = time.monotonic() + _PAUSE_S, number
                await asyncio.sleep(_PAUSE_S)
                self.rest = 0
        await asyncio.sleep(whole_s)

    async def _crowding(self, every_s: float) -> None:
        """Now and then as many connections as the limit allows, beside those of the load."""
        while True:
            await asyncio.sleep(every_s / 2)
            self.callers.crowded_until_s = time.monotonic() + _CROWD_S + 5.0
            said = await asyncio.gather(*(self._crowd() for _ in range(CONNECTIONS)))
            self.crowded += sum(b" 503 " in head for head in said)
            await asyncio.sleep(every_s / 2 - _CROWD_S)

    async def _crowd(self) -> bytes:
        port = int(self.callers.url.rpartition(":")[2])
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                head = await reader.readline()
                await asyncio.sleep(_CROWD_S)
                return head
            finally:
                writer.close()
        return b""

    async def _reloading(self, every_s: float) -> None:
        """SIGHUP, with settings that differ in something."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()  # the counters begin anew
            text = self.settings.read_text()
            old, new = ("idle_s = 75", "idle_s = 76") if "idle_s = 75" in text else ("idle_s = 76", "idle_s = 75")
            self.settings.write_text(text.replace(old, new))
            os.kill(self.pid, signal.SIGHUP)
            self.reloads += 1

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Read dashboard, metrics and readiness."""
        try:
            async with aiohttp.ClientSession(self.callers.url, headers=self._watcher) as session:
                for path in ("/llm-proxy/summary", "/llm-proxy/calls", "/metrics", "/readyz"):
                    async with session.get(path) as response:
                        raw = await response.text()
                    self._looked(path, response.status, raw)
        except (aiohttp.ClientError, TimeoutError) as exc:
            self.callers.tally.complain(f"looking: {type(exc).__name__} {exc}")

    def _looked(self, path: str, status: int, raw: str) -> None:
        if status == 503 and time.monotonic() < self.callers.crowded_until_s:
            return
        if status != 200:
            self.callers.tally.complain(f"{path}: {status} {raw[:200]}")
        elif path == "/readyz":
            for name, count in json.loads(raw)["troubles"].items():
                self.troubles[name] = max(count, self.troubles.get(name, 0))
        elif path == "/metrics" and (found := _EVICTED.search(raw)):
            self.evicted = max(self.evicted, int(found[1]))

    async def _listening(self) -> None:
        """The dashboard's stream, read for some seconds again and again; new settings end it."""
        while True:
            await asyncio.sleep(1.0)
            with suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=_LOOK_EVERY_S)
                async with (
                    aiohttp.ClientSession(self.callers.url, headers=self._watcher, timeout=timeout) as session,
                    session.get("/llm-proxy/events") as response,
                ):
                    await response.read()


def _start(stack: ExitStack, command: list[str], log: Path) -> tuple[subprocess.Popen[str], Any]:
    """A server that says where it is as JSON in its first line; killed with the block."""
    file = stack.enter_context(log.open("w"))
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=file,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def _settings(folder: Path, budget_bytes: int, provider: int, resetting: int) -> str:
    prices = "".join(
        f'[backends.{backend}.prices."{model}"]\ninput_usd_per_mtok = {row[0]}\noutput_usd_per_mtok = {row[1]}\n'
        for backend in ("main", "narrow")
        for model, row in PRICES.items()
    )
    return (
        f'[cache]\ndirectory = "{folder}/cache"\nbudget_bytes = {budget_bytes}\n'
        "[encoder]\nwait_s = 2\nturn_s = 2\n"  # else a busy machine does without hits by meaning
        f"[server]\nmax_connections = {CONNECTIONS}\nmax_body_bytes = {MOST_BODY_BYTES}\nidle_s = 75\n"
        f'[backends.main]\nbase_url = "http://127.0.0.1:{provider}/v1"\nconcurrency = {SLOTS}\n'
        f'[backends.narrow]\nbase_url = "http://127.0.0.1:{provider}/v1"\nconcurrency = 1\nqueue_length = 1\n'
        f'[backends.broken]\nbase_url = "http://127.0.0.1:{resetting}/v1"\n'
        f'[routes.auto]\ncandidates = ["main/small", "main/m"]\n{prices}'
    )


def _issue(folder: Path) -> dict[str, str]:
    """The keys of `TENANTS`: one has a budget, one may ask few models, one little at a time."""
    more: dict[str, dict[str, Any]] = {
        "a2": {"usd_per_day": 10_000.0}, "c": {"models": ("m", "auto")}, "p": {"requests_per_minute": 20},
        "w": {"may_watch": True},
    }  # fmt: skip
    path = folder / "cache-keys.json"
    return {
        name: add(path, Holder("", name, tenant, **more.get(name, {})), now_s=time.time())[0]
        for name, tenant in TENANTS.items()
    }


async def _ready(run: Run) -> None:
    """Wait until cache and encoder are there."""
    for _ in range(600):
        async with aiohttp.ClientSession(run.callers.url) as session, session.get("/readyz") as response:
            state = await response.json()
        if (state["cache"], state["encoder"]) == ("ok", "ok"):
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(f"the proxy is not ready: {state}")


async def _soaked(run: Run, options: argparse.Namespace, provider: str) -> tuple[Verdict, dict[str, Any]]:
    await _ready(run)
    verdict = Verdict(options.seconds, files_before=sample(run.pid, 0).fds)
    await run.load(options)
    await run.look()
    await asyncio.sleep(min(_REST_S, 3.0 + options.seconds / 10))
    verdict.files_after = sample(run.pid, 0).fds
    async with aiohttp.ClientSession(provider) as session, session.get("/soak/counts") as response:
        return verdict, await response.json()


def soak(options: argparse.Namespace, folder: Path) -> tuple[Verdict, list[Sample]]:
    """Start provider and proxy, load them, end them, and judge."""
    settings = folder / "llm-proxy.toml"
    with ExitStack() as stack:
        _, ports = _start(stack, ["tests.faces.soak.provider"], folder / "provider.log")
        settings.write_text(_settings(folder, options.budget_bytes, *ports))
        keys = _issue(folder)
        command = ["llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
        proxy, said = _start(stack, [*command, "--workers", str(options.workers)], folder / "proxy.log")
        callers = Callers(f"http://127.0.0.1:{said['port']}", keys, seed=options.seed)
        run = Run(callers, proxy.pid, settings)
        verdict, counts = asyncio.run(_soaked(run, options, f"http://127.0.0.1:{ports[0]}"))
        proxy.send_signal(signal.SIGTERM)
        code = proxy.wait(60)
    tally = callers.tally
    tally.against_provider(counts)
    verdict.sums = tally.against_ledger(folder / "cache" / "ledger.sqlite3")
    if code:
        tally.complain(f"the proxy ended with {code}")
    if "Traceback" in (log := (folder / "proxy.log").read_text()):
        tally.complain(f"the log: {log[:2000]}")
    for name, count in run.troubles.items():
        tally.complain(f"{count} troubles of {name}")
    _judge(verdict, run)
    return verdict, run.samples


def _judge(verdict: Verdict, run: Run) -> None:
    tally = run.callers.tally
    verdict.calls, verdict.collapsed, verdict.left = tally.calls, tally.collapsed, len(tally.left)
    verdict.hits = dict(tally.hits)
    verdict.statuses = {kind: dict(row) for kind, row in sorted(tally.statuses.items())}
    verdict.crowded, verdict.evicted, verdict.reloads = run.crowded, run.evicted, run.reloads
    for name, count in (("evictions", run.evicted), ("refused connections", run.crowded)):
        if not count:
            tally.complain(f"there were no {name}: the load was not at the limit")
    if verdict.files_after > verdict.files_before + _MOST_FILES_MORE:
        tally.complain(f"{verdict.files_after} files are open after the load, {verdict.files_before} before it")
    found: dict[str, Flatness] = judged(run.samples)
    verdict.flatness = {
        name: {key: round(value, 3) for key, value in asdict(row).items()} for name, row in found.items()
    }
    verdict.grown = [name for name, row in found.items() if not row.is_flat]
    verdict.wrong, verdict.problems = tally.wrong, tally.problems
    verdict.is_ok = not verdict.wrong and not verdict.grown


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 where something was wrong or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--callers", type=int, default=40)
    parser.add_argument("--pause-ms", type=float, default=100.0, help="mean rest of a caller between calls")
    parser.add_argument("--reload-s", type=float, default=60.0, help="time from one SIGHUP to the next")
    parser.add_argument("--crowd-s", type=float, default=20.0, help="time from one crowd to the next")
    parser.add_argument("--budget-bytes", type=int, default=2 << 20, help="of the cache")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--samples", type=Path, help="file for what was sampled, one line of JSON a second")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        verdict, samples = soak(options, Path(name))
    if options.samples is not None:
        options.samples.write_text("".join(json.dumps(asdict(row)) + "\n" for row in samples))
    if options.plot is not None:
        plot(samples, options.plot)
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    return 0 if verdict.is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
