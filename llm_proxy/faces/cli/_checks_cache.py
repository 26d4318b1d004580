"""The doctor's look at what serves answers: the encoder with its providers, the guard, the cache, the ledger."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llm_proxy.encode.extras import exact_only, pip_line
from llm_proxy.errors import ConfigError, LLMProxyError, MissingDependencyError

from ._entries import opened
from ._findings import Finding
from ._format import SHARED, amount, milliseconds, size

if TYPE_CHECKING:
    from llm_proxy.config import CacheConfig, Config, EncoderConfig

__all__ = ["cache", "encoder", "guard", "ledger"]

_SAMPLE = "Which of the two is the larger one?"
_OTHER_SAMPLE = "Which one of the two is larger?"
_REMEDIES = {
    "CUDAExecutionProvider": 'install a driver and libraries that it finds: pip install "llm-proxy[gpu]"; or set '
    'encoder.device = "cpu"'
}
_NO_REMEDY = 'update its driver, or set encoder.device = "cpu"'
_ENOUGH = 10_000  # entries to count: the doctor is quick
_REMEDY = "llm-proxy cache check --repair; or remove the folder: the cache begins anew"


def encoder(config: Config) -> Iterator[Finding]:
    """Whether vectors can be made, by each provider that the encoder would use: each encodes a text here and now."""
    if not config.cache.enabled or not config.cache.semantic:
        yield Finding("encoder", "ok", "not used: the settings ask for exact hits only")
        return
    if exact_only(config):
        yield Finding("encoder", "warning", "not usable: see extras", pip_line(config))
        return
    if config.encoder.kind == "onnx":
        yield from _providers(config.encoder)
    else:
        yield _tried(config.encoder)


def guard(config: Config) -> Iterator[Finding]:
    """Whether the pair model runs: it judges two texts here and now."""
    if not config.cache.enabled or not config.cache.semantic or exact_only(config):
        return
    from llm_proxy.cache.guard import load_shipped

    try:
        model = load_shipped()
        model.logit(_SAMPLE, _OTHER_SAMPLE)
        started_s = time.perf_counter()
        model.logit(_SAMPLE, _OTHER_SAMPLE)
    except LLMProxyError as exc:
        yield _broken(f"{exc}: semantic hits go by rules alone", exc, topic="guard")
    else:
        yield Finding("guard", "ok", f"pair model: {milliseconds(time.perf_counter() - started_s)} a pair")


def _providers(settings: EncoderConfig) -> Iterator[Finding]:
    from llm_proxy.encode.onnx import OnnxEncoder
    from llm_proxy.encode.providers import AUTOMATIC, DEVICES
    from llm_proxy.shipped import CPU, libraries

    there = libraries("the encoder", "onnxruntime")[0].get_available_providers()
    folder = Path(settings.model).expanduser() if settings.model else None
    try:
        made = OnnxEncoder(folder, device=settings.device)
        latency_s = _timed(made)
    except LLMProxyError as exc:
        yield _broken(str(exc), exc)
        return
    yield Finding("encoder", "ok", f"{made.name} on {made.provider}: {milliseconds(latency_s)} a text")
    for provider, why in made.passed_over:
        yield Finding("encoder", "warning", f"{provider} is not used: {why}", _REMEDIES.get(provider, _NO_REMEDY))
    if settings.device != "auto":
        return
    for name, provider in DEVICES.items():
        if provider in there and provider not in (*AUTOMATIC, CPU):
            yield Finding("encoder", "ok", f'{provider} is there, and used only where encoder.device = "{name}"')


def _tried(settings: EncoderConfig) -> Finding:
    from llm_proxy.encode.lazy import build

    made = build(settings)
    try:
        latency_s = _timed(made)
    except LLMProxyError as exc:
        return _broken(str(exc), exc)
    return Finding("encoder", "ok", f"{made.name}: {milliseconds(latency_s)} a text")


def _timed(made: object) -> float:
    """Seconds that one text takes, the first one of a session apart."""
    made.encode(_SAMPLE)  # type: ignore[attr-defined]
    started_s = time.perf_counter()
    made.encode(_SAMPLE)  # type: ignore[attr-defined]
    return time.perf_counter() - started_s


def _broken(message: str, exc: LLMProxyError, *, topic: str = "encoder") -> Finding:
    if isinstance(exc, MissingDependencyError):
        remedy = 'pip install --force-reinstall "llm-proxy[cpu]"'
    else:
        remedy = (
            "correct encoder.model" if isinstance(exc, ConfigError) else "report it, with the version of onnxruntime"
        )
    return Finding(topic, "problem", message, remedy)


def cache(config: Config) -> Iterator[Finding]:
    """Whether the cache opens and can be written, how full it is, and who may read it."""
    settings = config.cache
    if settings.enabled and settings.tenant.startswith("fixed:"):
        yield Finding("cache", "warning", SHARED, "set cache.tenant to api_key, user or header:NAME")
    if not settings.enabled:
        yield Finding("cache", "warning", "off: cache.enabled is false", "set cache.enabled = true")
    elif settings.store == "memory":
        yield Finding("cache", "ok", "in memory: it ends with the program")
    else:
        yield from _directory(settings)
        yield from _entries(config)


def _directory(settings: CacheConfig) -> Iterator[Finding]:
    place = settings.directory
    there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not there.is_dir():
        yield Finding("cache", "problem", f"{there} is not a folder", "set another cache.directory")
        return
    is_effective = os.access in os.supports_effective_ids
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=is_effective):
        yield Finding("cache", "problem", f"{there} may not be written", "set another cache.directory")
        return
    mode = stat.S_IMODE(there.stat().st_mode)
    if there == place and mode & 0o077:
        message = f"other users may look into {place}, which holds prompts"
        yield Finding("cache", "warning", message, f"chmod 700 {place}", fix="rights")
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < settings.budget_bytes:
        message = f"{size(free_bytes)} free for {place}, less than cache.budget_bytes ({size(settings.budget_bytes)})"
        yield Finding("cache", "warning", message, "make room, or lower cache.budget_bytes")
    if there != place:
        yield Finding("cache", "ok", f"{place} will be made by the first call")


def _entries(config: Config) -> Iterator[Finding]:
    from llm_proxy.cache import snapshot
    from llm_proxy.cache.build import SNAPSHOT_NAME

    try:
        with opened(config) as store:
            if store is None:
                return
            store.touch({})  # a write that changes nothing
            count = sum(1 for _ in islice(store.scan(), _ENOUGH + 1))
            used_bytes = store.size_bytes()
    except LLMProxyError as exc:
        yield Finding("cache", "problem", str(exc), _remedy(str(exc)))
        return
    entries = amount(count) if count <= _ENOUGH else f"more than {amount(_ENOUGH)}"
    yield Finding("cache", "ok", f"{config.cache.directory}: {entries} entries, {size(used_bytes)}")
    path = config.cache.directory / SNAPSHOT_NAME
    try:
        saved = snapshot.load(path) if path.exists() else None
    except (LLMProxyError, OSError) as exc:
        remedy = "llm-proxy cache check --repair; until then it is built anew"
        yield Finding("index", "warning", str(exc), remedy, fix="snapshot")
        return
    absent = [name for name in ("faiss", "numpy") if find_spec(name) is None]
    if saved is None:
        yield Finding("index", "ok", "no snapshot yet: built from the entries at start")
    elif absent:
        message = f"snapshot of {size(path.stat().st_size)}, which is of use with {' and '.join(absent)} only"
        yield Finding("index", "ok", message)
    else:
        vectors = sum(len(block.keys) for block in saved.blocks)
        yield Finding("index", "ok", f"snapshot of {amount(vectors)} vectors, {size(path.stat().st_size)}")


def _remedy(message: str) -> str:
    """What to do about a cache that does not open: one that is sound, and only not for this program, stays."""
    if "update llm-proxy" in message:
        return "update llm-proxy, or set another cache.directory"
    return "set another cache.directory" if "another program" in message else _REMEDY


def ledger(config: Config) -> Iterator[Finding]:
    """Whether the numbers of ``llm-proxy stats`` can be read."""
    from llm_proxy.observe.totals import totals
    from llm_proxy.runtime import LEDGER_NAME

    if not config.observe.ledger or config.cache.store != "disk":
        return
    try:
        calls = totals(config.cache.directory / LEDGER_NAME)["calls"]
    except LLMProxyError as exc:
        yield Finding("ledger", "problem", str(exc), "move it away: a new one is begun")
        return
    yield Finding("ledger", "ok", f"{amount(calls)} calls")
