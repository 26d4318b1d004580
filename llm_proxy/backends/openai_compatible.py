"""A request for an OpenAI-compatible server: its URL, its key, its model, everything else as the caller sent it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from llm_proxy.errors import BackendUnavailable
from llm_proxy.types import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm_proxy.config import BackendConfig
    from llm_proxy.types import ChatRequest, HeaderList

__all__ = [
    "ACCOUNT_HEADERS",
    "CREDENTIALS",
    "HOP_BY_HOP",
    "KEY_HEADERS",
    "credentials_of",
    "headers_for",
    "outgoing_for",
]

# Source: RFC 9110 section 7.6.1; host and content-length are made anew for the new request.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "proxy-authenticate", "proxy-authorization", "host", "content-length",
})  # fmt: skip
KEY_HEADERS = ("authorization", "api-key", "x-api-key")
"""Where clients put their key: OpenAI's, Azure's, and what many gateways read."""
ACCOUNT_HEADERS = ("openai-organization", "openai-project")
"""Which account of a key's owner is asked and pays."""
CREDENTIALS = frozenset({*KEY_HEADERS, *ACCOUNT_HEADERS, "cookie"})
"""Headers by which a backend may know who asks."""


def credentials_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The secrets that a request presents: what admits a caller, and what separates it from others.

    Args:
        headers: Request headers, names in lower case.

    Returns:
        Pairs of header and secret, in the order of `KEY_HEADERS`. Of ``Authorization: Bearer`` it is the token; of
        another scheme the whole value, which a space keeps from ever being equal to a token.
    """
    return _credentials(tuple([headers.get(name, "") for name in KEY_HEADERS]))


@lru_cache(maxsize=256)
def _credentials(values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Of the values of `KEY_HEADERS`: read several times a call, and the same with each call of a client."""
    found = []
    for name, value in zip(KEY_HEADERS, values, strict=True):
        secret = value.strip()
        if name == "authorization" and secret:
            scheme, _, token = secret.partition(" ")
            secret = token.strip() if scheme.lower() == "bearer" else f"{scheme} {token.strip()}"
        if secret:
            found.append((name, secret))
    return tuple(found)


def outgoing_for(
    request: ChatRequest, *, name: str, backends: Mapping[str, BackendConfig], default: str, model: str
) -> Outgoing:
    """The request that asks ``model`` at the backend ``name``.

    Raises:
        BackendUnavailable: No backend is configured under this name.
    """
    backend = backends.get(name)
    if backend is None:
        raise BackendUnavailable(f"no backend serves the model {request.model!r}; configure one under [backends]")
    return Outgoing(
        url=backend.base_url + request.path,
        headers=headers_for(backend, request.headers.items(), is_default=name == default),
        body=request.raw_for(model),
        backend=name,
        model=model or request.model,
        timeout_s=backend.timeout_s,
    )


def headers_for(backend: BackendConfig, headers: Iterable[tuple[str, str]], *, is_default: bool) -> HeaderList:
    """The caller's headers (names in lower case) as a backend gets them.

    The caller's credentials go only where the configuration lets them: ``auth = "caller"``, which is what the
    default backend without a key of its own has. A caller who brings none then gets the backend's key, if any.
    """
    key = backend.key()
    auth = backend.auth or ("key" if key else "caller" if is_default else "none")
    rows = [(name, value) for name, value in headers if name not in HOP_BY_HOP]
    if auth == "caller" and (key is None or any(name in KEY_HEADERS for name, _ in rows)):
        return rows
    kept = [(name, value) for name, value in rows if name not in CREDENTIALS]
    return kept if auth == "none" or key is None else [*kept, ("authorization", f"Bearer {key}")]
