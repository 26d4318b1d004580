"""The openai clients with the engine inside: change the import, keep the code.

Example:
    >>> from llm_proxy import OpenAI
    >>> client = OpenAI(api_key="...", llm_proxy={"cache": {"store": "memory"}})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import openai

from ._engine import runtime_for
from ._http import module_of
from .transport import AsyncProxyTransport, ProxyTransport

if TYPE_CHECKING:
    from llm_proxy.runtime import Settings

__all__ = ["AsyncAzureOpenAI", "AsyncOpenAI", "AzureOpenAI", "OpenAI", "wrap"]

ClientT = TypeVar("ClientT", openai.OpenAI, openai.AsyncOpenAI)


class _Proxied:
    """What the four clients share: construction and copying; calls are the openai package's own."""

    _client: Any

    def __init__(self, *args: Any, llm_proxy: Settings = None, **options: Any) -> None:
        given = options.get("http_client")
        if given is not None:
            options["http_client"] = proxied_copy(given, llm_proxy)
        super().__init__(*args, **options)
        if given is None:
            install(self._client, llm_proxy)

    def copy(self, *, llm_proxy: Settings = None, **options: Any) -> Self:
        """A client with some options replaced, `openai.OpenAI.copy`; it shares this one's engine and connections."""
        given = options.get("http_client")
        if given is not None and llm_proxy is None and not is_proxied(given):
            llm_proxy = self._client._transport.runtime
        if llm_proxy is not None:
            options["http_client"] = proxied_copy(given or self._client, llm_proxy)
        copied: Self = super().copy(**options)  # type: ignore[misc]
        return copied

    with_options = copy


class OpenAI(_Proxied, openai.OpenAI):
    """`openai.OpenAI` through the engine; one more argument, ``llm_proxy``: see `ProxyTransport`."""


class AsyncOpenAI(_Proxied, openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` through the engine; one more argument, ``llm_proxy``: see `ProxyTransport`."""


class AzureOpenAI(_Proxied, openai.AzureOpenAI):
    """`openai.AzureOpenAI` through the engine; one more argument, ``llm_proxy``: see `ProxyTransport`."""


class AsyncAzureOpenAI(_Proxied, openai.AsyncAzureOpenAI):
    """`openai.AsyncAzureOpenAI` through the engine; one more argument, ``llm_proxy``: see `ProxyTransport`."""


def wrap(client: ClientT, llm_proxy: Settings = None) -> ClientT:
    """A copy of an openai client, of the same class, whose calls go through the engine where it answers them.

    The client itself is not changed. Both share their connections: closing one closes them for the other.

    Args:
        client: Any openai client, Azure's and subclasses included.
        llm_proxy: Settings, see `ProxyTransport`.
    """
    proxied = proxied_copy(client._client, llm_proxy)
    wrapped: ClientT = client.copy(http_client=proxied)
    return wrapped


def proxied_copy(http_client: Any, llm_proxy: Settings) -> Any:
    """A shallow copy of an HTTP client, sharing its connections, with the engine in front of its transports."""
    if not hasattr(http_client, "_transport"):  # no HTTP client at all: the openai package says so
        return http_client
    if is_proxied(http_client) and llm_proxy is None:
        return http_client
    # The SDK's own classes close their connections when they are collected, and these are shared: take a parent.
    kind: Any = next(base for base in type(http_client).__mro__ if not hasattr(base, "__del__"))
    twin = kind.__new__(kind)
    twin.__dict__.update(http_client.__dict__)
    twin._llm_proxy_original = http_client  # kept alive for the same reason
    install(twin, llm_proxy)
    return twin


def is_proxied(http_client: Any) -> bool:
    """Whether the engine stands in front of an HTTP client already."""
    return isinstance(http_client._transport, (ProxyTransport, AsyncProxyTransport))


def install(http_client: Any, llm_proxy: Settings) -> None:
    """Put the engine in front of an HTTP client's transports.

    httpx has no public way to wrap the transports of a client, and building the client over one of ours instead
    would lose the proxies that it takes from the environment.
    """
    is_async = isinstance(http_client, module_of(http_client).AsyncClient)
    kind: Any = AsyncProxyTransport if is_async else ProxyTransport
    runtime = runtime_for(llm_proxy)

    def fronted(transport: Any) -> Any:
        if transport is None:  # a host that is exempt from proxies: the client's main transport serves it
            return None
        return kind(transport.inner if isinstance(transport, kind) else transport, llm_proxy=runtime)

    http_client._transport = fronted(http_client._transport)
    http_client._mounts = {pattern: fronted(transport) for pattern, transport in http_client._mounts.items()}
