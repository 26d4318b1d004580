"""llm-proxy: the same OpenAI code, cheaper and faster.

Repeated and equivalent questions are answered from a cache; every other call goes where it would have gone, or to
the model that a route chooses. Importing this package loads nothing: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .errors import (
        BackendError,
        BackendTimeout,
        BackendUnavailable,
        CacheCorruptError,
        CacheError,
        ConfigError,
        LimitReached,
        LLMProxyError,
        MissingDependencyError,
        RouterError,
        UnknownCallError,
        WireError,
    )
    from .faces.client import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, wrap
    from .faces.feedback import feedback
    from .faces.stats import Calls, stats
    from .faces.transport import AsyncProxyTransport, ProxyTransport
    from .runtime import Runtime
    from .types import Outcome

__all__ = [
    "AsyncAzureOpenAI",
    "AsyncOpenAI",
    "AsyncProxyTransport",
    "AzureOpenAI",
    "BackendError",
    "BackendTimeout",
    "BackendUnavailable",
    "CacheCorruptError",
    "CacheError",
    "Calls",
    "Config",
    "ConfigError",
    "LLMProxyError",
    "LimitReached",
    "MissingDependencyError",
    "OpenAI",
    "Outcome",
    "ProxyTransport",
    "RouterError",
    "Runtime",
    "UnknownCallError",
    "WireError",
    "__version__",
    "feedback",
    "stats",
    "wrap",
]

__version__ = "0.1.0"

_HOME = {
    "Config": "config",
    "Outcome": "types",
    "Runtime": "runtime",
    "AsyncProxyTransport": "faces.transport",
    "ProxyTransport": "faces.transport",
    "Calls": "faces.stats",
    "stats": "faces.stats",
    "AsyncAzureOpenAI": "faces.client",
    "AsyncOpenAI": "faces.client",
    "AzureOpenAI": "faces.client",
    "OpenAI": "faces.client",
    "feedback": "faces.feedback",
    "wrap": "faces.client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME.get(name, 'errors')}")
    value = globals()[name] = getattr(module, name)
    return value


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext llm_proxy``; see `llm_proxy.faces.jupyter.extension`."""
    from .faces.jupyter.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext llm_proxy``."""
    from .faces.jupyter.extension import unload

    unload(shell)


def __dir__() -> list[str]:
    return __all__
