"""Which requests the engine answers: by path and method, for every face."""

from __future__ import annotations

from llm_proxy.types import API_PATHS

__all__ = ["PATHS", "api_at"]

PATHS = {"/v1" + path: api for api, path in API_PATHS.items()}
"""Paths of the proxy that the engine answers, and the API of each."""


def api_at(path: str) -> str:
    """The API that a path of any server leads to, by how it ends; empty for none."""
    return next((api for api, end in API_PATHS.items() if path.endswith(end)), "")
