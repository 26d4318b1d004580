"""One kernel's use of llm-proxy, from ``%load_ext`` to ``%unload_ext``: the engine, its calls, and the last hit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakMethod, ref

import openai

from llm_proxy.config import environment
from llm_proxy.errors import ConfigError
from llm_proxy.faces._http import httpx, module_of
from llm_proxy.faces.transport import ProxyTransport, users_of
from llm_proxy.runtime import Runtime, Settings, alive, close_all, runtime_for
from llm_proxy.sinks import ledger_path
from llm_proxy.types import Outcome
from llm_proxy.wire.sse import DONE, SSEDecoder

from .fronting import Fronting
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llm_proxy.config import Config

__all__ = ["Heard", "Session", "pieces_of"]


@dataclass(frozen=True, slots=True)
class Heard:
    """A call that an openai client made: what was sent, what became of it, and the engine it went through."""

    request: Any
    outcome: Outcome
    runtime: Runtime
    http_client: ReferenceType[Any]


class Session:
    """The engine of a kernel; `close` leaves nothing behind.

    Args:
        settings: See `llm_proxy.ProxyTransport`.

    Raises:
        ConfigError: A setting is wrong.
    """

    def __init__(self, settings: Settings = None) -> None:
        before = alive()
        self.runtime = runtime_for(settings)
        self._is_ours = all(known is not self.runtime for known in before)
        self.tally = Tally()
        self.model = ""
        """What ``%%chat`` asked last."""
        self.last: Heard | None = None
        self.last_hit: Heard | None = None
        self._spares: dict[Runtime, Any] = {}
        self._fronting = Fronting(self.runtime, _weakly(self._note))
        self.runtime.add_sink(_weakly(self.tally.__call__))  # the engine may outlive this
        self._fronting.begin()

    @property
    def config(self) -> Config:
        """The settings."""
        return self.runtime.config

    @property
    def ledger(self) -> Path | None:
        """Where the calls of all programs with these settings are written down; None where they are not."""
        return ledger_path(self.config)

    def close(self) -> int:
        """Have every client do without the engine, and end it with its threads.

        Returns:
            How many transports of clients made with `llm_proxy.OpenAI` and the like still use this engine, which goes
            on for them then.
        """
        ours, spares = self._fronting, [spare._transport for spare in self._spares.values()]
        others = [user for user in users_of(self.runtime) if not ours.owns(user) and user not in spares]
        ours.end()
        for spare in self._spares.values():
            spare.close()
        self._spares.clear()
        self.last = self.last_hit = None
        if self._is_ours and not others:
            close_all(self.runtime)
        return len(others)

    # -- asking --------------------------------------------------------------------------------------------------

    def client(self) -> Any:
        """An openai client that goes through the engine.

        Without a key in the environment it gets one that says so, where the settings have backends: they have keys
        of their own.

        Raises:
            openai.OpenAIError: There is neither a key nor a backend.
        """
        key = environment("OPENAI_API_KEY")
        return openai.OpenAI(api_key=key or "none") if key or self.config.backends else openai.OpenAI()

    def default_model(self) -> str:
        """What to ask where nobody says: the last model, the route ``auto``, the only route, or a backend's first.

        Raises:
            ConfigError: Nothing says so.
        """
        routes = self.config.routes
        models = [f"{name}/{model}" for name, backend in self.config.backends.items() for model in backend.models]
        known = [self.model, *(["auto"] if "auto" in routes else []), *(routes if len(routes) == 1 else []), *models]
        found = next((name for name in known if name), "")
        if not found:
            raise ConfigError("say which model to ask: --model NAME, or --route NAME")
        return found

    def models(self) -> Sequence[str]:
        """Names that may be asked, as far as they are known here: those of the settings, and those asked before."""
        config = self.config
        named = [f"{name}/{model}" for name, backend in config.backends.items() for model in backend.models]
        asked = [model for _, model in self.tally.now()[0].answered if model]
        return sorted({*named, *config.aliases, *asked})

    def again(self, hit: Heard) -> Any:
        """Ask a hit's question anew, as it was sent but for ``Cache-Control: no-cache``, which has the answer replaced.

        An async client's connections belong to its loop: such a question is sent over one of its own.

        Returns:
            The response, with its body still to come.
        """
        http_client = hit.http_client()
        if http_client is None or http_client.is_closed or _is_async(http_client):
            http_client = self._spare_for(hit.runtime)
        response = http_client.send(_request_again(hit.request), stream=True)
        self._note(http_client, response)
        return response

    def undo(self, hit: Heard) -> bool:
        """Take a semantic hit back; see `llm_proxy.runtime.Runtime.undo`."""
        return hit.runtime.undo(hit.outcome)

    def settled(self, outcome: Outcome) -> Outcome:
        """What became of a call whose answer has been read to its end: by then it is known whether it was stored."""
        event = self.tally.newest(outcome.key) if outcome.key else None
        return outcome if event is None else event.outcome

    def _spare_for(self, runtime: Runtime) -> Any:
        """A client of the session's own, for questions whose client is gone; it asks what the question names."""
        if runtime not in self._spares:
            self._spares[runtime] = httpx.Client(transport=ProxyTransport(llm_proxy=runtime))
        return self._spares[runtime]

    def _note(self, http_client: Any, response: Any) -> None:
        """Remember a response of a client; told of every one."""
        outcome = response.extensions.get("llm_proxy")
        if not isinstance(outcome, Outcome):
            return
        runtime = getattr(http_client._transport, "runtime", self.runtime)
        self.last = Heard(response.request, outcome, runtime, ref(http_client))
        if outcome.status == "hit":
            self.last_hit = self.last


def pieces_of(response: Any) -> Iterator[str]:
    """The text of a chat completion as it comes, plain or streamed; closes the response.

    Args:
        response: An HTTP response with its body still to come.

    Raises:
        ValueError: It is no chat completion.
    """
    with closing(response):
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            yield _text_of(json.loads(response.read()), "message")
            return
        decoder = SSEDecoder()
        for chunk in response.iter_bytes():
            for event in decoder.feed(chunk):
                if event.data.strip() != DONE:
                    yield _text_of(json.loads(event.data), "delta")


def _text_of(value: Mapping[str, Any], name: str) -> str:
    """The text of the first choice; what has none, a tool call for one, gives none."""
    if "error" in value:
        raise ValueError(f"the answer is an error: {json.dumps(value['error'])[:500]}")
    choices = value.get("choices") or [{}]
    return (choices[0].get(name) or {}).get("content") or ""


def _request_again(sent: Any) -> Any:
    headers = [(name, value) for name, value in sent.headers.raw if name.lower() != b"cache-control"]
    return module_of(sent).Request(
        sent.method,
        sent.url,
        headers=[*headers, (b"cache-control", b"no-cache")],
        content=sent.content,
        extensions={name: sent.extensions[name] for name in ("timeout",) if name in sent.extensions},
    )


def _is_async(http_client: Any) -> bool:
    return isinstance(http_client, module_of(http_client).AsyncClient)


def _weakly(method: Callable[..., Any]) -> Callable[..., None]:
    """A function that calls a method as long as somebody else keeps its object."""
    known = WeakMethod(method)

    def call(*args: Any) -> None:
        found = known()
        if found is not None:
            found(*args)

    return call
