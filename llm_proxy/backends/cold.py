"""Servers on this machine that load their model only now: waited for, as that is no outage.

llama.cpp's server answers 503 with ``{"error": {"message": "Loading model", ...}}`` meanwhile, others with 503 and
``{"error": "Model ... is currently loading"}``. Ollama lets the first call wait by itself.

Source: llama.cpp, ``tools/server/README.md``, on errors and ``/health``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .prices import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.config import BackendConfig

__all__ = ["ColdStarts", "is_loading"]

_UNAVAILABLE = 503


def is_loading(status: int, body: bytes) -> bool:
    """Whether an answer says that the model is being loaded.

    Args:
        status: HTTP status code.
        body: The answer's body, or its beginning.
    """
    if status != _UNAVAILABLE:
        return False
    try:
        error = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    message = error.get("message") if isinstance(error, dict) else error
    return isinstance(message, str) and "loading" in message.lower()


class ColdStarts:
    """Which backends may still be loading: those on this machine, until they answer; thread-safe.

    Args:
        backends: Settings by name.
    """

    def __init__(self, backends: Mapping[str, BackendConfig]) -> None:
        self._waits_s = {
            name: backend.cold_start_s
            for name, backend in backends.items()
            if backend.cold_start_s and is_loopback(backend.base_url)
        }
        self._cold = set(self._waits_s)

    def wait_s(self, backend: str) -> float:
        """How long a backend is waited for, seconds; 0 where it is not cold."""
        return self._waits_s[backend] if backend in self._cold else 0.0

    def is_loading(self, status: int, body: bytes) -> bool:
        """See `is_loading`."""
        return is_loading(status, body)

    def saw(self, backend: str, status: int) -> None:
        """Take in the status of an answer: one that was restarted may be loading again."""
        if status != _UNAVAILABLE:
            self._cold.discard(backend)
        elif backend in self._waits_s:
            self._cold.add(backend)
