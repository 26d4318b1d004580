"""The reverse proxy under load, beside its upstream alone and beside another proxy: ``python -m benchmarks.proxy``.

The upstream is simulated (`benchmarks._upstream`), on loopback, in a process of its own, and answers at once. The proxy
is the real ``llm-proxy serve`` with an empty cache on disk, encoder and guard as they ship.

All processes share the machine, as they do where somebody starts them: a worker is one process, whose event loop takes
at most one core, and whose threads (they encode and search) may take the others. ``--pinned`` is stricter: where there
are two cores or more, a server that is measured has only the last one, with all its threads (as many as ``--workers``),
and upstream and load generator share the others.

Throughput (``_rps``) is taken with ``--connections``; times (``_p50``) with one connection, so that they hold no queue:
what the proxy adds is its median less the upstream's own. All are taken in rounds, one after the other, and the median
of the rounds counts: a busy machine slows neighbours alike.

``passthrough`` asks with ``Cache-Control: no-store``: nothing is looked up or stored. ``miss`` is the whole way: each
question is new, looked up, encoded, forwarded and stored. A ``semantic_hit`` has other blanks each time, so that it is
never an exact one. ``asgi`` is a bare ASGI application under the same server, which no proxy of this kind can pass.
``--peer litellm`` measures ``litellm --num_workers 1`` in the same rounds, without a cache for what is passed through
and with its cache in memory for exact hits.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from ._load import BLANKS, UNIQUE, Load, generator_name, measure, pinned
from ._report import arguments, report
from ._upstream import upstream

_MODEL = "gpt-4o-mini"
_THINGS = ("sourdough bread", "a fruit cake", "an apple pie", "vegetable soup", "tomato sauce", "fresh pasta")
_HEADERS = {"authorization": "Bearer sk-bench"}
_PAST_THE_CACHE = {**_HEADERS, "cache-control": "no-store"}
_START_S = 120.0
_IDLE_TICKS = 3


@dataclass(frozen=True)
class Cores:
    """Which cores run what; empty: any."""

    served: tuple[int, ...]
    others: tuple[int, ...]


def main() -> None:
    """Run and report."""
    options = arguments(
        "proxy",
        __doc__,
        connections=(int, 16, "connections at a time, for throughput"),
        workers=(int, 1, "processes that serve"),
        pinned=(bool, False, "let each worker have one core, and nothing else run there"),
        seconds=(float, 2.0, "length of each measurement"),
        rounds=(int, 3, "times that each is taken"),
        peer=(str, "", "another proxy beside it: litellm, or empty"),
        peer_python=(Path, Path(sys.executable), "interpreter of the environment that the peer is installed in"),
    )
    if options.peer not in ("", "litellm"):
        sys.exit(f"--peer {options.peer}: there is only litellm")
    cores = _cores(options.workers) if options.pinned else Cores((), ())
    print(f"simulated upstream; load by {generator_name()}; served on cores {_named(cores.served)}")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        figures = _figures(stack, Path(directory), options, cores)
    report("proxy", figures, options, table=[(name, _shown(value)) for name, value in figures.items()])


def _figures(stack: ExitStack, directory: Path, options: Any, cores: Cores) -> dict[str, Any]:
    direct = stack.enter_context(upstream(cores=cores.others))
    floor = stack.enter_context(_served(_asgi_command(), cores.served))
    proxy = stack.enter_context(_served(_proxy_command(directory, direct, options.workers), cores.served))
    semantic = _prepare(proxy.url)
    loads = {
        "upstream": Load(direct, (_body("What is up?"),), _HEADERS),
        "asgi": Load(floor.url, (_body("What is up?"),), _HEADERS),
        "passthrough": Load(proxy.url, (_body("What is up?"),), _PAST_THE_CACHE),
        "exact_hit": Load(proxy.url, tuple(_body(_asked("do", thing)) for thing in _THINGS), _HEADERS, "exact"),
        "exact_hit_stream": Load(proxy.url, (_body(_asked("do", _THINGS[0]), stream=True),), _HEADERS, "exact"),
        "semantic_hit": Load(proxy.url, tuple(_body(f"{text}{BLANKS}") for text in semantic), _HEADERS, "semantic"),
        "upstream_stream": Load(direct, (_body("What is up?", stream=True),), _HEADERS),
        "stream": Load(proxy.url, (_body("What is up?", stream=True),), _PAST_THE_CACHE),
    }
    peers = _peer_loads(stack, directory, direct, options, cores) if options.peer else {}
    # Last in its round: what it leaves to be done in the background must not slow the others.
    miss = Load(proxy.url, (_body(f"What is number {UNIQUE} about?"),), _HEADERS)
    found = _measured({**loads, **peers, "miss": miss}, options, cores, proxy)
    figures = _of_one(found, "") | {"rss_mib": proxy.rss_mib()}
    figures |= {"asgi_rps": found["asgi"]["rps"], "miss_rps": found["miss"]["rps"]}
    if peers:
        figures |= _of_one(found, "peer_")
        figures["passthrough_times_peer"] = figures["passthrough_rps"] / figures["peer_passthrough_rps"]
    figures |= {f"{name}_errors": row["errors"] for name, row in found.items() if row["errors"]}
    figures |= {"errors": sum(row["errors"] for row in found.values()), "troubles": _readiness(proxy.url)["troubles"]}
    figures |= {"generator": generator_name(), "connections": options.connections, "workers": options.workers}
    return figures | {"cores": _named(cores.served)}


def _measured(loads: dict[str, Load], options: Any, cores: Cores, proxy: _Server) -> dict[str, dict[str, float]]:
    """Of each load the throughput, the median time of a single caller, and all errors."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in loads}
    errors = dict.fromkeys(loads, 0)
    for turn in range(options.rounds + 1):  # the first round is to warm up
        _until(proxy.is_idle, "the proxy has nothing left to do")
        for name, load in loads.items():
            seconds = options.seconds if turn else 1.0
            many = measure(load, connections=options.connections, seconds=seconds, cores=cores.others)
            one = measure(load, connections=1, seconds=seconds, cores=cores.others)
            errors[name] += many.errors + one.errors
            if turn:
                rows[name].append((many.rps, one.p50_ms, one.p99_ms, many.p50_ms))
    keys = ("rps", "p50", "p99", "loaded_p50")
    return {
        name: dict(zip(keys, map(statistics.median, zip(*found, strict=True)), strict=True)) | {"errors": errors[name]}
        for name, found in rows.items()
    }


def _of_one(found: dict[str, dict[str, float]], who: str) -> dict[str, float]:
    """The contract's keys of one proxy; those that it was not measured by are left out."""
    figures: dict[str, float] = {} if who else {"upstream_rps": found["upstream"]["rps"]}
    for name in ("passthrough", "exact_hit", "exact_hit_stream", "semantic_hit"):
        if who + name in found:
            figures |= {f"{who}{name}_rps": found[who + name]["rps"], f"{who}{name}_p50": found[who + name]["p50"]}
    figures[f"{who}passthrough_added_p50"] = found[f"{who}passthrough"]["p50"] - found["upstream"]["p50"]
    figures[f"{who}stream_rps"] = found[f"{who}stream"]["rps"]
    figures[f"{who}stream_added_p50"] = found[f"{who}stream"]["p50"] - found["upstream_stream"]["p50"]
    return figures


def _prepare(url: str) -> list[str]:
    """Have some answers stored; returns questions in other words that are served by them."""
    _until(lambda: {_readiness(url)[part] for part in ("encoder", "cache")} == {"ok"}, "encoder and cache are ready")
    for thing in _THINGS:
        _asked_once(url, _asked("do", thing))
    _until(lambda: "hit" in _asked_once(url, _asked("do", _THINGS[0])), "an answer is served again")
    others = [_asked("can", thing) for thing in _THINGS]
    _until(lambda: "semantic" in _asked_once(url, others[0]), "a question in other words is served")
    return [text for text in others if "semantic" in _asked_once(url, text)]


def _asked(verb: str, thing: str) -> str:
    return f"How {verb} I make {thing} at home?"


def _body(text: str, *, stream: bool = False) -> str:
    body: dict[str, Any] = {"model": _MODEL, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    return json.dumps(body)


def _asked_once(url: str, text: str) -> str:
    headers = {**_HEADERS, "content-type": "application/json"}
    with urlopen(Request(f"{url}/chat/completions", _body(text).encode(), headers), timeout=10) as answer:
        return str(answer.headers.get("cache-status", ""))


def _readiness(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/readyz", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            if is_so():
                return
        time.sleep(0.2)
    sys.exit(f"waited {_START_S:.0f} s in vain: {what}")


# -- the servers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Server:
    """A running server; its base URL up to and with ``/v1``."""

    url: str
    pid: int

    def is_idle(self) -> bool:
        """Whether it took hardly any time of the processor in half a second."""
        before = sum(map(_ticks, _family(self.pid)))
        time.sleep(0.5)
        return sum(map(_ticks, _family(self.pid))) - before <= _IDLE_TICKS

    def rss_mib(self) -> float:
        """Memory that it and its children have resident, at this moment; 0 where the system does not say."""
        return sum(map(_rss_mib, _family(self.pid)))


@contextmanager
def _served(command: list[str], cores: tuple[int, ...], environment: dict[str, str] | None = None) -> Iterator[_Server]:
    """A server that says its port, alone or as JSON, in its first line."""
    process = subprocess.Popen(
        pinned(command, cores), stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(command)} did not start")
        said = json.loads(line)
        port = said["port"] if isinstance(said, dict) else said
        yield _Server(f"http://127.0.0.1:{port}/v1", process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _proxy_command(directory: Path, base_url: str, workers: int) -> list[str]:
    settings = directory / "llm-proxy.toml"
    settings.write_text(
        f'[cache]\ndirectory = "{directory}/cache"\n[backends.bench]\nbase_url = "{base_url}"\nauth = "caller"\n'
    )
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
    return [*command, "--workers", str(workers)] if workers > 1 else command


def _asgi_command() -> list[str]:
    return [sys.executable, "-m", "benchmarks._asgi_floor"]


def _peer_loads(stack: ExitStack, directory: Path, direct: str, options: Any, cores: Cores) -> dict[str, Load]:
    plain = stack.enter_context(_litellm(directory / "plain.yaml", direct, options, cores, cache=False))
    cached = stack.enter_context(_litellm(directory / "cached.yaml", direct, options, cores, cache=True))
    return {
        "peer_passthrough": Load(plain, (_body("What is up?"),), _HEADERS),
        "peer_stream": Load(plain, (_body("What is up?", stream=True),), _HEADERS),
        "peer_exact_hit": Load(cached, (_body(_asked("do", _THINGS[0])),), _HEADERS),
    }


@contextmanager
def _litellm(path: Path, direct: str, options: Any, cores: Cores, *, cache: bool) -> Iterator[str]:
    """LiteLLM's proxy with one model, as its documentation sets it up; without logs, telemetry and look-ups online."""
    model = {"model": f"openai/{_MODEL}", "api_base": direct, "api_key": "sk-bench"}
    settings: dict[str, Any] = {"cache": cache, "telemetry": False, "request_timeout": 30}
    if cache:
        settings["cache_params"] = {"type": "local"}
    listed: dict[str, Any] = {"model_list": [{"model_name": _MODEL, "litellm_params": model}]}
    listed |= {"litellm_settings": settings, "general_settings": {"dangerously_permit_weak_or_unset_master_key": True}}
    path.write_text(json.dumps(listed))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(options.peer_python), "-m", "litellm.proxy.proxy_cli", "--config", str(path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(options.workers)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        pinned(command, cores.served), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**kept, **offline}
    )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _until(lambda: _asked_once(url, "Is it there?") is not None, "litellm takes calls")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _cores(workers: int) -> Cores:
    known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(known) <= workers:
        return Cores((), ())
    return Cores(tuple(known[-workers:]), tuple(known[:-workers]))


def _named(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores)) or "any"


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.is_file() else []
    return [pid, *(one for child in found for one in _family(int(child)))]


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def _ticks(pid: int) -> int:
    """Time that a process took of the processor, in hundredths of a second; 0 where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    fields = stat.read_text().rpartition(")")[2].split() if stat.is_file() else []
    return int(fields[11]) + int(fields[12]) if fields else 0


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
