"""``GET /v1/models``: what all backends offer, and the names that the configuration adds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.openai_compatible import headers_for
from llm_proxy.errors import BackendError
from llm_proxy.types import Head, Outgoing

from ._asgi_io import BROKEN

if TYPE_CHECKING:
    from llm_proxy.runtime import Runtime

__all__ = ["list_models", "named_model"]

_WAIT_S = 5.0
_LIMIT_BYTES = 4 << 20
_OWNER = "llm-proxy"
# What says who asks. Not the rest: a conditional or coded answer could not be read here.
_ASKING = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project", "user-agent")

Row = dict[str, Any]


async def list_models(
    runtime: Runtime, headers: Mapping[str, str], send: Callable[..., Awaitable[Head]], *, is_whole: bool = False
) -> Row | None:
    """The list as OpenAI shapes it; None when the only backend's own list says all there is.

    A model of a backend that is not the default is listed as ``BACKEND/MODEL`` unless the configuration claims its
    plain name. A backend that doesn't answer within 5 s is represented by the models that the configuration lists.

    Args:
        runtime: Its configuration names the backends.
        headers: The caller's, names in lower case.
        send: Sends a request, see `llm_proxy.faces._upstream.Upstream.send`.
        is_whole: Whether it is wanted in any case.
    """
    config = runtime.config
    if not is_whole and len(config.backends) == 1 and not config.routes and not config.aliases:
        return None
    names = list(config.backends)
    lists = await asyncio.gather(*(_models_of(runtime, name, headers, send) for name in names))
    rows: dict[str, Row] = {}
    for name, found in zip(names, lists, strict=True):
        claimed = config.backends[name].models
        for row in (*found, *(_row(model, name) for model in claimed)):
            model = row["id"]
            is_plain = name == runtime.selector.default_backend or model in claimed
            identity = model if is_plain else f"{name}/{model}"
            rows.setdefault(identity, {**row, "id": identity})
    for identity in (*config.routes, *config.aliases):
        rows[identity] = _row(identity, _OWNER)
    return {"object": "list", "data": list(rows.values())}


def named_model(runtime: Runtime, name: str) -> Row | None:
    """A route or an alias as OpenAI shapes a model; None for any other name."""
    config = runtime.config
    return _row(name, _OWNER) if name in config.routes or name in config.aliases else None


async def _models_of(
    runtime: Runtime, name: str, headers: Mapping[str, str], send: Callable[..., Awaitable[Head]]
) -> list[Row]:
    backend = runtime.config.backends[name]
    is_default = name == runtime.selector.default_backend
    asking = [(key, headers[key]) for key in _ASKING if key in headers]
    outgoing = Outgoing(
        url=backend.base_url + "/models",
        headers=headers_for(backend, asking, is_default=is_default),
        body=b"",
        backend=name,
        timeout_s=_WAIT_S,
    )
    try:
        async with asyncio.timeout(_WAIT_S):
            head = await send(outgoing, method="GET")
            try:
                body = await _read(head)
            finally:
                await head.body.aclose()
        return list(_rows(json.loads(body))) if head.status == 200 else []
    except (BackendError, *BROKEN, TimeoutError, ValueError, RecursionError):
        return []


async def _read(head: Head) -> bytes:
    body = b""
    async for chunk in head.body:
        body += chunk
        if len(body) > _LIMIT_BYTES:
            break  # cut JSON does not parse: as good as no list
    return body


def _rows(value: Any) -> Iterator[Row]:
    rows = value.get("data") if isinstance(value, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            yield row


def _row(identity: str, owner: str) -> Row:
    return {"id": identity, "object": "model", "created": 0, "owned_by": owner}
