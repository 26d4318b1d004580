"""From a model's name to where the call goes: routes, aliases, backends, and the choice among candidates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_proxy.errors import RouterError
from llm_proxy.types import CHARS_PER_TOKEN

from .base import Decision, Destination, Router
from .rules import RuleRouter, has_image, prompt_chars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_proxy.config import BackendConfig, Config, RouteConfig
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

    from .base import Expected, Finished, Score
    from .costs import CostEstimator

__all__ = ["Selector"]


class Selector:
    """Resolves names, picks candidates and says what asking again would cost. Immutable but for what costs are learnt.

    Args:
        config: ``backends``, ``default_backend``, ``routes`` and ``aliases`` are read.
        routers: A router per route name, for those that shall not use the rules.
        costs: What asking is expected to cost; without it the weakest candidate that is good enough is taken.
    """

    def __init__(
        self, config: Config, routers: Mapping[str, Router] | None = None, costs: CostEstimator | None = None
    ) -> None:
        self._costs = costs
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

        Candidates that can't serve the request (tools, images, context window) are passed over. Of the others, weakest
        first, those from the score's quantile on are good enough; of these the one of least expected cost is taken, of
        equals the weakest.

        Raises:
            RouterError: No candidate can serve the request.
        """
        score, rivals = self._good_enough(request, destination.route, encoding)
        if self._costs is None or len(rivals) == 1:
            return Decision(*rivals[0], score.reason, score.value, rivals)
        choice = self._costs.cheapest(rivals, _tokens(request))
        known = "price unknown" if choice.expected is None else f"about ${choice.expected.usd:.6f}"
        why = "on trial among" if choice.is_trial else "cheapest of"
        reason = f"{score.reason}; {why} {len(rivals)}, {known}"
        return Decision(*rivals[choice.place], reason, score.value, rivals)

    def observe(self, call: Finished) -> None:
        """Learn from a finished call what asking costs."""
        if self._costs is not None:
            self._costs.observe(call)

    def again(self, call: Finished, cost_usd: float | None, rivals: Sequence[tuple[str, str]]) -> Expected | None:
        """What asking the same again is expected to cost: the least of the candidates that are good enough for it.

        Args:
            call: The call that was answered.
            cost_usd: What it cost, dollars; None when the price is not known.
            rivals: Those of its `Decision`; none when the model was named, which is then the only candidate.

        Returns:
            Dollars; None where costs are not estimated.
        """
        if self._costs is None:
            return None
        return self._costs.again(call, cost_usd, [rival for rival in rivals if rival != (call.backend, call.model)])

    def fallback(self, destination: Destination) -> Decision:
        """The strongest candidate of a route: what is asked when `decide` fails."""
        route: RouteConfig = self._routes[destination.route]
        return Decision(*_pair(route.candidates[-1]), "default", 1.0)

    def _good_enough(
        self, request: ChatRequest, route: str, encoding: Encoding | None
    ) -> tuple[Score, tuple[tuple[str, str], ...]]:
        candidates = self._routes[route].candidates
        able = [name for name in candidates if self._is_able(name, request)]
        if not able:
            raise RouterError(f"route {route!r}: no candidate of {list(candidates)} takes this request")
        score = self._routers[route].score(request, encoding)
        position = min(len(able) - 1, max(0, math.ceil(score.value * len(able)) - 1))
        return score, tuple(_pair(name) for name in able[position:])

    def _candidate(self, name: str) -> Destination:
        return self._at(*_pair(name))

    def _at(self, backend: str, model: str) -> Destination:
        base_url = self._backends[backend].base_url if backend else ""
        return Destination(identity=f"{base_url}|{model}", backend=backend, model=model)

    def _is_able(self, candidate: str, request: ChatRequest) -> bool:
        backend: BackendConfig = self._backends[candidate.partition("/")[0]]
        if request.body.get("tools") and not backend.has_tools:
            return False
        if has_image(request.messages) and not backend.has_images:
            return False
        return backend.context_tokens is None or _tokens(request) <= backend.context_tokens


def _pair(candidate: str) -> tuple[str, str]:
    backend, _, model = candidate.partition("/")
    return backend, model


def _tokens(request: ChatRequest) -> int:
    return math.ceil(prompt_chars(request.messages) / CHARS_PER_TOKEN)
