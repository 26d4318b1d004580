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
    "wrap",
]

__version__ = "0.1.0"

_HOME = {
    "Config": "config",
    "Outcome": "types",
    "Runtime": "runtime",
    "AsyncProxyTransport": "faces.transport",
    "ProxyTransport": "faces.transport",
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


def __dir__() -> list[str]:
    return __all__
