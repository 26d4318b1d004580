"""Step 6 of the life of a call: which request is sent where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llm_proxy.backends.openai_compatible import outgoing_for
from llm_proxy.types import Outgoing

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding
    from llm_proxy.observe.events import Troubles
    from llm_proxy.route.base import Decision, Destination
    from llm_proxy.types import ChatRequest

    from .ports import Chooser

__all__ = ["Dispatcher"]


class Dispatcher:
    """Makes the requests for upstreams. One a runtime; thread-safe as far as its parts are."""

    def __init__(self, config: Config, *, selector: Chooser, troubles: Troubles) -> None:
        self._config, self._selector, self._troubles = config, selector, troubles

    def resolve(self, request: ChatRequest) -> Destination:
        """Where the request's model name leads."""
        return self._selector.resolve(request)

    def decide(self, request: ChatRequest, destination: Destination, encoding: Encoding | None) -> Decision:
        """The candidate of a route that is asked: the strongest one where the router is in trouble."""
        try:
            return self._selector.decide(request, destination, encoding)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the strongest candidate is asked
            self._troubles.note("router", exc)
            return self._selector.fallback(destination)

    def request(self, request: ChatRequest, destination: Destination) -> Outgoing:
        """The request to send for a destination that is no route, or whose route has decided.

        Raises:
            BackendUnavailable: No backend is configured for the model.
        """
        if not destination.route and not destination.backend and request.endpoint:
            return Outgoing(url="", headers=(), body=request.raw_for(destination.model), model=request.model)
        return outgoing_for(
            request,
            name=destination.backend,
            backends=self._config.backends,
            default=self._selector.default_backend,
            model=destination.model,
        )

    def routed(self, request: ChatRequest, encoding: Encoding | None = None) -> tuple[Outgoing, Destination]:
        """The request that would be sent for a call without a cache, and where it goes.

        Raises:
            BackendUnavailable: No backend is configured for the model.
        """
        destination = self.resolve(request)
        if destination.route:
            decision = self.decide(request, destination, encoding)
            destination = replace(destination, backend=decision.backend, model=decision.model)
        return self.request(request, destination), destination
