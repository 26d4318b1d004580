"""From a model's name to where the call goes: routes, aliases, backends, and the choice among candidates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_proxy.errors import RouterError
from llm_proxy.types import CHARS_PER_TOKEN

from .base import Decision, Destination, Router
from .rules import RuleRouter, has_image, prompt_chars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.config import BackendConfig, Config, RouteConfig
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

__all__ = ["Selector"]


class Selector:
    """Resolves names and picks candidates. Immutable after construction.

    Args:
        config: ``backends``, ``default_backend``, ``routes`` and ``aliases`` are read.
        routers: A router per route name, for those that shall not use the rules.
    """

    def __init__(self, config: Config, routers: Mapping[str, Router] | None = None) -> None:
        self._backends = config.backends
        self._default = config.default_backend or next(iter(config.backends), "")
        self._routes = config.routes
        self._aliases = config.aliases
        self._routers: dict[str, Router] = {
            name: RuleRouter(long_prompt_chars=route.long_prompt_chars) for name, route in config.routes.items()
        } | dict(routers or {})
        # Who else calls a route by this name may choose among other models: both can share one cache directory.
        self._identities = {
            name: f"route:{name}|" + " ".join(self._candidate(candidate).identity for candidate in route.candidates)
            for name, route in config.routes.items()
        }

    @property
    def default_backend(self) -> str:
        """Backend of models that no other claims; empty when none is configured."""
        return self._default

    def resolve(self, request: ChatRequest) -> Destination:
        """Where the request's model name leads: alias, route, ``BACKEND/MODEL``, a backend's list, the default."""
        model = request.model
        name = self._aliases.get(model, model)
        if name in self._routes:
            return Destination(identity=self._identities[name], route=name)
        prefix, _, rest = name.partition("/")
        if rest and prefix in self._backends:
            return self._at(prefix, rest)
        claimed = next((key for key, backend in self._backends.items() if name in backend.models), "")
        # A call that has an address of its own keeps it unless the configuration names its model.
        if claimed or not request.endpoint:
            return self._at(claimed or self._default, name)
        base_url = request.endpoint.removesuffix("/chat/completions")
        return Destination(identity=f"{base_url}|{name}", model=name if name != model else "")

    def decide(self, request: ChatRequest, destination: Destination, encoding: Encoding | None) -> Decision:
        """The candidate of a route that will be asked.

        Candidates that can't serve the request (tools, images, context window) are passed over; of the others,
        weakest first, the one at the score's quantile is taken.

        Raises:
            RouterError: No candidate can serve the request.
        """
        route = self._routes[destination.route]
        able = [name for name in route.candidates if self._is_able(name, request)]
        if not able:
            raise RouterError(
                f"route {destination.route!r}: no candidate of {list(route.candidates)} takes this request"
            )
        score = self._routers[destination.route].score(request, encoding)
        position = min(len(able) - 1, max(0, math.ceil(score.value * len(able)) - 1))
        backend, _, model = able[position].partition("/")
        return Decision(backend, model, score.reason, score.value)

    def fallback(self, destination: Destination) -> Decision:
        """The strongest candidate of a route: what is asked when `decide` fails."""
        route: RouteConfig = self._routes[destination.route]
        backend, _, model = route.candidates[-1].partition("/")
        return Decision(backend, model, "default", 1.0)

    def _candidate(self, name: str) -> Destination:
        backend, _, model = name.partition("/")
        return self._at(backend, model)

    def _at(self, backend: str, model: str) -> Destination:
        base_url = self._backends[backend].base_url if backend else ""
        return Destination(identity=f"{base_url}|{model}", backend=backend, model=model)

    def _is_able(self, candidate: str, request: ChatRequest) -> bool:
        backend: BackendConfig = self._backends[candidate.partition("/")[0]]
        if request.body.get("tools") and not backend.has_tools:
            return False
        if has_image(request.messages) and not backend.has_images:
            return False
        tokens = prompt_chars(request.messages) / CHARS_PER_TOKEN
        return backend.context_tokens is None or tokens <= backend.context_tokens
