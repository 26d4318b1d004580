"""The doctor's look at the installation: Python, packages, keys, settings, local servers, prices."""

from __future__ import annotations

import platform
import sqlite3
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from llm_proxy.backends.discover import discover
from llm_proxy.config import Config, environment, load, settings_file
from llm_proxy.errors import ConfigError

from ._findings import Finding
from ._keyless import REMEDY, keyless, sentence

if TYPE_CHECKING:
    from llm_proxy.config import BackendConfig

    from ._findings import State

__all__ = ["keys", "optional", "packages", "prices", "servers", "settings"]

_CORE = ("openai", "diskcache", "pydantic", "uvicorn", "typer", "rich", "genai-prices")
_EXTRAS = ("faiss-cpu", "tokenizers", "numpy")
_PROXY = ("aiohttp", "httptools", "uvloop")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY")
_OPENAI_MAJORS = range(2, 4)
_OLD_PRICES = timedelta(days=180)


def packages() -> Iterator[Finding]:
    """Python, and the packages of the core and of the extras."""
    from llm_proxy import __version__

    names = f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    is_old = sys.version_info < (3, 11)
    yield Finding("python", "problem" if is_old else "ok", names, "use Python 3.11 or later" if is_old else "")
    found = {name: _version(name) for name in _CORE}
    missing = [name for name, number in found.items() if number is None]
    listed = ", ".join(f"{name} {number}" for name, number in found.items() if number is not None)
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        yield Finding("packages", "problem", f"{', '.join(missing)} not installed", remedy)
    yield Finding("packages", "ok", f"llm-proxy {__version__}, {listed}")
    yield from _openai(found["openai"])
    yield from _extras()


def _openai(number: str | None) -> Iterator[Finding]:
    if number is None:
        return
    if not number.partition(".")[0].isdigit() or int(number.partition(".")[0]) not in _OPENAI_MAJORS:
        yield Finding("openai", "warning", f"openai {number} is untested", 'pip install "openai>=2.9,<4"')
    try:
        from llm_proxy.faces._http import family_name
    except ImportError as exc:  # it imports the family, which a broken installation lacks
        yield Finding(
            "openai", "problem", f"openai {number} can't be used: {exc}", "pip install --force-reinstall openai"
        )
        return
    family = family_name()
    yield Finding("openai", "ok", f"clients use {family} {_version(family)}")


def _extras() -> Iterator[Finding]:
    runtimes = {name: number for name in _RUNTIMES if (number := _version(name)) is not None}
    if len(runtimes) > 1:
        yield Finding(
            "extras",
            "problem",
            "onnxruntime and onnxruntime-gpu are both installed: they overwrite each other's files",
            'pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "llm-proxy[cpu]" or "llm-proxy[gpu]"',
        )
    extras = {name: _version(name) for name in _EXTRAS}
    missing = [name for name, number in extras.items() if number is None]
    if not runtimes:
        missing.append("onnxruntime")
    present = {name: number for name, number in {**extras, **runtimes}.items() if number is not None}
    listed = ", ".join(f"{name} {number}" for name, number in present.items())
    if missing:
        message = f"{', '.join(missing)} not installed: only repeated questions are answered, not equivalent ones"
        yield Finding("extras", "warning", message, 'pip install "llm-proxy[cpu]"')
    if listed:
        yield Finding("extras", "ok", listed)


def optional(config: Config) -> Iterator[Finding]:
    """The extras that nothing needs: a faster proxy; and OpenTelemetry, where it is asked for."""
    yield _extra("proxy", _PROXY, "ok", "the proxy serves without, slower")
    if config.observe.otel:
        yield _extra("otel", ("opentelemetry-api",), "problem", "observe.otel needs it")


def _extra(extra: str, names: tuple[str, ...], state: State, without: str) -> Finding:
    found = {name: _version(name) for name in names}
    missing = ", ".join(name for name, number in found.items() if number is None)
    if missing:
        return Finding(extra, state, f"{missing} not installed: {without}", f'pip install "llm-proxy[{extra}]"')
    return Finding(extra, "ok", ", ".join(f"{name} {number}" for name, number in found.items()))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def settings(path: Path | None) -> tuple[Config, list[Finding]]:
    """The settings, or the defaults where they are wrong; with what was found."""
    file = settings_file(path)
    try:
        config = load(path)
    except ConfigError as exc:
        remedy = "correct it; docs/settings.md lists every setting"
        return Config(), [Finding("settings", "problem", str(exc), remedy)]
    source = f"{file}" if file is not None else "defaults and environment; no llm-proxy.toml here"
    return config, [Finding("settings", "ok", source)]


def keys(config: Config) -> Iterator[Finding]:
    """Which keys are there; never what they are."""
    for name in _KEYS:
        value = environment(name)
        if value is not None and value != value.strip():
            yield Finding("keys", "warning", f"{name} is set, with white space around it", f"set {name} again without")
        else:
            yield Finding("keys", "ok", f"{name} is {'set' if value else 'not set'}")
    for name, backend in config.backends.items():
        yield from _backend_key(name, backend)
        if name in keyless(config):
            yield Finding("keys", "warning", sentence(name), REMEDY.format(name=name))


def _backend_key(name: str, backend: BackendConfig) -> Iterator[Finding]:
    if backend.api_key_env is None:
        source = "set in the settings" if backend.api_key is not None else "not configured"
        yield Finding("keys", "ok", f"backend {name}: key {source}")
    elif backend.key() is not None:
        yield Finding("keys", "ok", f"backend {name}: {backend.api_key_env} is set")
    else:
        message = f"backend {name}: {backend.api_key_env} is not set"
        yield Finding("keys", "problem", message, f"export {backend.api_key_env}=...")


def servers() -> Iterator[Finding]:
    """Model servers on this machine."""
    found = discover()
    for server in found:
        models = ", ".join(server.models[:3]) + (f" and {len(server.models) - 3} more" if server.models[3:] else "")
        yield Finding("local server", "ok", f"{server.name} at {server.base_url}: {models or 'no model loaded'}")
    if not found:
        yield Finding("local server", "ok", "none found on the usual loopback ports")


def prices(today: date) -> Iterator[Finding]:
    """The price table, and how old it is at most: the newest change of a price in it that is in force."""
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as exc:
        yield Finding("prices", "problem", f"genai-prices can't be used: {exc}", "pip install -U genai-prices")
        return
    models = [model for provider in get_snapshot().providers for model in provider.models]
    changes = [
        start
        for model in models
        for price in (model.prices if isinstance(model.prices, list) else ())
        if isinstance(start := getattr(price.constraint, "start_date", None), date) and start <= today
    ]
    newest = max(changes, default=None)
    message = f"{len(models)} models in genai-prices {_version('genai-prices')}, newest change of {newest or 'no date'}"
    if newest is None or today - newest > _OLD_PRICES:
        yield Finding("prices", "warning", message, "pip install -U genai-prices")
    else:
        yield Finding("prices", "ok", message)
