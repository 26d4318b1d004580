"""Which requests the engine answers: by path and method, for every face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_proxy.types import API_PATHS
from llm_proxy.wire.apis import OTHERS

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.runtime import Runtime
    from llm_proxy.types import ChatRequest

__all__ = ["PATHS", "api_at", "why_not_routed"]

PATHS = {"/v1" + path: api for api, path in API_PATHS.items()}
"""Paths of the proxy that the engine answers, and the API of each."""

_KEPT_UPSTREAM = ("previous_response_id", "conversation")


def api_at(path: str) -> str:
    """The API that a path of any server leads to, by how it ends; empty for none."""
    return next((api for api, end in API_PATHS.items() if path.endswith(end)), "")


def why_not_routed(runtime: Runtime, call: ChatRequest) -> str:
    """Why a call is refused that names a route where none may choose; empty where it may go on.

    A route's candidates are chat models that answer the same question. Vectors of two models can't be compared, and
    few chat models go on from a bare prompt: which model is asked is not left to chance there. What an earlier response
    or a conversation was, only the server knows that has it.
    """
    other = OTHERS.get(call.api)
    known = next((name for name in _KEPT_UPSTREAM if call.body.get(name)), "")
    if other is None or (other.is_routed and not known):
        return ""
    route = runtime.selector.resolve(call).route
    if not route:
        return ""
    leads = f"{call.model!r} leads to the route {route!r}"
    if not other.is_routed:
        return f"{leads}; name a model for {call.path}"
    servers = _servers_of(runtime.config, route)
    if len(servers) < 2:
        return ""
    return f"{leads} of {len(servers)} servers, and only one knows the {known}: name its model, as BACKEND/MODEL"


def _servers_of(config: Config, route: str) -> set[tuple[str, str | None]]:
    """The addresses of a route's candidates, and the accounts there."""
    names = {candidate.partition("/")[0] for candidate in config.routes[route].candidates}
    return {(config.backends[name].base_url, config.backends[name].key()) for name in names}
