"""Has every openai client that is made from now on go through one engine, and takes that back exactly.

Not the module is replaced but the two constructors, so that a class that was imported before counts as well, and so
do its subclasses: those of Azure, and those of frameworks.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import openai

from llm_proxy.faces._http import module_of
from llm_proxy.faces.client import install, is_proxied, proxied_copy

if TYPE_CHECKING:
    from llm_proxy.runtime import Runtime

__all__ = ["Fronting"]

Heard = Callable[[Any, Any], None]
"""Takes an HTTP client and a response of it."""


class Fronting:
    """The engine in front of new clients, from `begin` to `end`; thread-safe.

    Clients that were there before stay as they are, and so do their copies (``with_options``). A client that somebody
    gave an HTTP client of his own gets a copy of that one, sharing its connections; one that goes through this engine
    already is listened to as it is.

    Args:
        runtime: The engine.
        heard: Told of every response of these clients; must not raise.
    """

    def __init__(self, runtime: Runtime, heard: Heard) -> None:
        self._runtime, self._heard = runtime, heard
        self._originals: dict[type, Any] = {}
        self._placed: WeakKeyDictionary[Any, _Placed] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_on = False

    def begin(self) -> None:
        """Change the constructors."""
        with self._lock:
            self._is_on = True
            for kind in (openai.OpenAI, openai.AsyncOpenAI):
                self._originals[kind] = (kind.__dict__["__init__"], self._around(kind.__init__))
                kind.__init__ = self._originals[kind][1]  # type: ignore[method-assign]

    def end(self) -> None:
        """Put the constructors back, and have the clients made meanwhile do without the engine.

        A constructor that somebody else has changed since stays theirs; ours inside it does nothing any more.
        """
        with self._lock:
            self._is_on = False
            for kind, (original, ours) in self._originals.items():
                if kind.__dict__["__init__"] is ours:
                    kind.__init__ = original  # type: ignore[misc]
            self._originals.clear()
            placed = list(self._placed.items())
            self._placed.clear()
        for http_client, was in placed:
            was.take_back(http_client)

    def owns(self, transport: object) -> bool:
        """Whether a transport was put where it is by this."""
        return any(transport in placed.transports for placed in list(self._placed.values()))

    def _around(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(client: Any, *args: Any, **options: Any) -> None:
            original(client, *args, **options)
            if self._is_on:
                self._front(client, was_given=options.get("http_client") is not None)

        return __init__

    def _front(self, client: Any, *, was_given: bool) -> None:
        http_client = client._client
        is_ready = was_given and is_proxied(http_client)  # llm-proxy's own clients, or over a transport of somebody's
        if was_given and not is_ready and _is_of_the_sdk(http_client):
            return  # the copy of a client: what its original has, it has
        if is_ready and (http_client in self._placed or http_client._transport.runtime is not self._runtime):
            return
        before = _Placed(http_client)
        if was_given and not is_ready:
            http_client = client._client = proxied_copy(http_client, self._runtime)
        elif not is_ready:
            install(http_client, self._runtime)
        before.transports = [] if is_ready else _transports(http_client)
        before.hook = _hook(http_client, self._heard)
        hooks = http_client.event_hooks
        http_client.event_hooks = {**hooks, "response": [*hooks["response"], before.hook]}
        with self._lock:
            self._placed[http_client] = before


class _Placed:
    """What an HTTP client had before, and what it was given."""

    def __init__(self, http_client: Any) -> None:
        self._transport, self._mounts = http_client._transport, http_client._mounts
        self.transports: list[Any] = []
        self.hook: Any = None

    def take_back(self, http_client: Any) -> None:
        if http_client._transport in self.transports:  # else somebody has put another one there
            http_client._transport, http_client._mounts = self._transport, self._mounts
        hooks = http_client.event_hooks
        http_client.event_hooks = {**hooks, "response": [hook for hook in hooks["response"] if hook is not self.hook]}


def _transports(http_client: Any) -> list[Any]:
    return [http_client._transport, *(one for one in http_client._mounts.values() if one is not None)]


def _is_of_the_sdk(http_client: Any) -> bool:
    """Whether the openai package made an HTTP client for itself, which only a copy of a client is given."""
    return type(http_client).__name__ in ("SyncHttpxClientWrapper", "AsyncHttpxClientWrapper") and type(
        http_client
    ).__module__.startswith("openai.")


def _hook(http_client: Any, heard: Heard) -> Any:
    is_async = isinstance(http_client, module_of(http_client).AsyncClient)

    known = ref(http_client)  # it has the hook, and is to go when nobody else has it

    def hook(response: Any) -> None:
        heard(known(), response)

    async def async_hook(response: Any) -> None:
        heard(known(), response)

    return async_hook if is_async else hook
