"""From a model's name to where the call goes: routes, aliases, backends, and the choice among candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_proxy.backends.base import MODEL_CHARS
from llm_proxy.errors import RouterError

from .base import NO_LIFT, Amounts, Decision, Destination
from .costs import Asked
from .health import Health

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

    from .base import Expected, Finished, Head, Router
    from .costs import CostEstimator
    from .explain import Explanation
    from .plan import Heads, Route

__all__ = ["Selector"]

_REMEMBERED = 256  # destinations


class Selector:
    """Resolves names, picks candidates and says what asking again would cost. Immutable but for what is learnt.

    Args:
        config: ``backends``, ``default_backend``, ``routes`` and ``aliases`` are read.
        routers: A router per route name, for those that shall not use the rules.
        costs: What asking is expected to cost; without it the weakest candidate that is good enough is taken.
        heads: The head of each route that has one, or what gives it.
        note: Takes the name of a part and its trouble: a head that fails is counted, and the rules decide.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        config: Config,
        routers: Mapping[str, Router] | None = None,
        costs: CostEstimator | None = None,
        *,
        heads: Mapping[str, Head] | Heads | None = None,
        note: Callable[[str, Exception], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._costs, self._config = costs, config
        self._backends = config.backends
        self._default = config.default_backend or next(iter(config.backends), "")
        self._aliases, self._settings = config.aliases, config.routes
        self._claims: dict[str, str] = {}
        self._known: dict[tuple[str, str], Destination] = {}
        for name, backend in self._backends.items():
            for model in backend.models:
                self._claims.setdefault(model, name)
        self.health = Health(monotonic)
        self._routes: Mapping[str, Route] = {}
        if config.routes:  # else nothing is chosen, and nothing that chooses is imported
            self._prepare(routers or {}, heads, note or (lambda part, exc: None), monotonic)
        # Who else calls a route by this name may choose among other models: both can share one cache directory.
        self._identities = {
            name: f"route:{name}|" + " ".join(self._at(*pair).identity for pair in route.pairs)
            for name, route in self._routes.items()
        }

    def _prepare(
        self,
        routers: Mapping[str, Router],
        heads: Mapping[str, Head] | Heads | None,
        note: Callable[[str, Exception], None],
        monotonic: Callable[[], float],
    ) -> None:
        from .plan import Planner
        from .sessions import Sessions
        from .ways import Ways

        self.ways, self._sessions = Ways(), Sessions(monotonic=monotonic)
        self._planner = Planner(
            self._config,
            routers=routers,
            costs=self._costs,
            heads=heads if callable(heads) else dict(heads or {}).get,
            health=self.health,
            sessions=self._sessions,
            note=note,
        )
        self._routes = self._planner.routes

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
        claimed = self._claims.get(name, "")
        # A call that has an address of its own keeps it unless the configuration names its model.
        if claimed or not request.endpoint:
            return self._at(claimed or self._default, name)
        base_url = request.endpoint.removesuffix(request.path)
        return Destination(identity=f"{base_url}|{name}", model=name if name != model else "")

    def wants_vector(self, route: str) -> bool:
        """Whether a route is decided by a head, which needs the encoded question."""
        return self._planner.head_of(self._routes[route])[0] is not None

    def decide(
        self,
        request: ChatRequest,
        destination: Destination,
        encoding: Encoding | None,
        conversation: str = "",
        lift: Mapping[tuple[str, str], float] = NO_LIFT,
    ) -> Decision:
        """The candidate of a route that will be asked; see `llm_proxy.route.plan` for how.

        Args:
            request: The call.
            destination: Its route.
            encoding: Its encoded question; without it the rules decide.
            conversation: What the call belongs to, as a hash; empty for nothing.
            lift: How good candidates are with examples, as a share of the best, by pair of backend and model.

        Raises:
            RouterError: No candidate can serve the request.
        """
        route = self._routes[destination.route]
        plan = self._planner.plan(request, route, encoding, conversation, is_asked=True, lift=lift)
        pair, word, needs = route.pairs[plan.place], plan.case.word, plan.case.needs
        if conversation:
            self._sessions.note((route.name, conversation), pair, needs.prompt_tokens, plan.forgone)
        rivals = tuple(route.pairs[place] for place in plan.rivals)
        foretold = word.predictions[plan.place].completion_tokens if word.predictions else None
        if foretold is not None and needs.output_tokens:
            foretold = min(foretold, float(needs.output_tokens))
        return Decision(*pair, plan.reason, word.score, rivals, foretold, word.by)

    def explain(
        self, request: ChatRequest, destination: Destination, encoding: Encoding | None, conversation: str = ""
    ) -> Explanation:
        """What `decide` would do, and why, for every candidate; nothing is counted and nobody is asked."""
        from .explain import explained, unexplained

        route = self._routes[destination.route]
        try:
            plan = self._planner.plan(request, route, encoding, conversation, is_asked=False)
        except RouterError as exc:
            _, refusals = self._planner.refusals(request, route)
            return unexplained(route, refusals, self.fallback(destination, str(exc)))
        rivals = tuple(route.pairs[place] for place in plan.rivals)
        estimates = {} if self._costs is None else dict(zip(plan.asked, plan.estimates, strict=True))
        for place, refusal in enumerate(plan.refusals):
            if self._costs is not None and place not in estimates and not refusal:
                asked = self._planner.asked(plan.case, place)
                estimates[place] = self._costs.estimate(asked, plan.case.needs.prompt_tokens)
        word = plan.case.word
        decision = Decision(*route.pairs[plan.place], plan.reason, word.score, rivals, None, word.by)
        return replace(explained(route, plan, decision, estimates), way=self._way(destination.route, decision))

    def _way(self, route: str, decision: Decision) -> str:
        """In which way a call is asked, in a few words."""
        from .looks import Word

        settings = self._settings[route]
        if not settings.cascade or len(settings.candidates) < 2:
            return ""
        if settings.cascade != "auto":
            return "cascade, as the route says"
        named = Word(route, decision.by, f"{decision.backend}/{decision.model}")
        return self.ways.choose(named, settings.quality, is_asked=False).reason

    def takes(self, request: ChatRequest, destination: Destination, pairs: Sequence[tuple[str, str]]) -> Amounts | None:
        """What asking each of some models is expected to take.

        Args:
            request: The call.
            destination: Its route.
            pairs: Backends and models; of the first ones the last is the measure.

        Returns:
            Dollars, or seconds where the route goes by latency or not every price is known; None where costs are not
            estimated.
        """
        if self._costs is None:
            return None
        needs, _ = self._planner.refusals(request, self._routes[destination.route])
        asked = [Asked(*pair, most_tokens=needs.output_tokens) for pair in pairs]
        found = [self._costs.estimate(one, needs.prompt_tokens) for one in asked]
        usd = tuple(one.expected.usd for one in found if one.expected is not None)
        if self._settings[destination.route].objective == "cost" and len(usd) == len(found) and any(usd):
            return Amounts(usd, True)
        return Amounts(tuple(one.latency_s for one in found), False)

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

    def ladder(self, request: ChatRequest, destination: Destination) -> tuple[tuple[str, str], ...]:
        """The candidates of a route that can take a request and are well, weakest first; empty where none can."""
        route = self._routes[destination.route]
        return tuple(route.pairs[place] for place in self._planner.ladder(request, route))

    def fallbacks(self, request: ChatRequest, destination: Destination, cause: str) -> Sequence[tuple[str, str]]:
        """Who may be asked where a destination's backend gave no answer, pairs of backend and model, the best first."""
        from .fallback import fallbacks

        route = self._routes.get(destination.route)
        natural = () if route is None else [route.pairs[at] for at in self._planner.ladder(request, route)[::-1]]
        return fallbacks(self._config, request, destination, cause, natural=natural, resting_s=self.health.resting_s)

    def fallback(self, destination: Destination, why: str = "default") -> Decision:
        """The strongest candidate of a route: what is asked when `decide` fails."""
        return Decision(*self._routes[destination.route].pairs[-1], why, 1.0)

    def _at(self, backend: str, model: str) -> Destination:
        known = self._known.get((backend, model))
        if known is None:
            base_url = self._backends[backend].base_url if backend else ""
            known = Destination(identity=f"{base_url}|{model}", backend=backend, model=model)
            if len(model) > MODEL_CHARS:
                return known
            if len(self._known) >= _REMEMBERED:  # callers may name anything
                self._known.clear()
            self._known[backend, model] = known
        return known
