"""How one request is routed, step by step; `llm_proxy.route.select` acts on it and explains it.

::

    able      candidates that can take the request            `llm_proxy.route.able`
    open      those that are not resting after failures,      `llm_proxy.route.health`
              all that are able where none is left
    rivals    those that are good enough: by the head, when   `llm_proxy.route.quality`
              it knows every candidate and there is a vector,
              else by the rules: from the score's quantile on
    estimates what each would take; of the one that the       `llm_proxy.route.costs`, `llm_proxy.route.sessions`
              conversation is on, with its cached turns
    choice    by the route's terms                            `llm_proxy.route.quality`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.errors import RouterError

from .able import Abilities, Needs, abilities_of, needs_of, why_not
from .base import NO_LIFT
from .costs import Asked, Estimate, undated
from .quality import Terms, Verdict, choose, least_good, lifted, needed, predictions_for
from .rules import RuleRouter
from .sessions import LEAST_CACHED_TOKENS, Sessions, Stay
from .tiers import TIERS, tier_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import Config, RouteConfig
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

    from .base import Head, Prediction, Router
    from .costs import CostEstimator
    from .health import Health

__all__ = ["Heads", "Plan", "Planner", "Route", "name_in"]


def name_in(models: Sequence[str], candidate: str, known_as: str | None = None) -> str | None:
    """What a head that knows these models calls a candidate; None where it does not know it.

    Args:
        models: Names of a head's models.
        candidate: ``BACKEND/MODEL``, or the name of a model.
        known_as: What the settings say that it is called; None for nothing. Else it is looked for as ``BACKEND/MODEL``,
            as ``MODEL``, and as that without a date at its end.
    """
    if known_as is not None:
        return known_as if known_as in models else None
    model = candidate.partition("/")[2] or candidate
    exact = next((name for name in (candidate, model) if name in models), None)
    if exact is not None:
        return exact
    return next((name for name in models if undated(name) == undated(model)), None)


def names_in(models: Sequence[str], candidates: Sequence[str], known_as: Mapping[str, str]) -> list[str | None]:
    """What a head that knows these models calls candidates, weakest first; see `name_in`, and of tiers their place."""
    usual: dict[str, str] = {}
    if tuple(models) == TIERS and set(candidates) != set(TIERS):
        usual = {one: tier_of(place, len(candidates)) for place, one in enumerate(candidates)}
    return [name_in(models, one, known_as.get(one, usual.get(one))) for one in candidates]


Heads = Callable[[str], "Head | None"]
"""The head of a route, by its name; None where there is none, or where it has not loaded yet. Must be quick."""

_UNKNOWN = Estimate(None, 0.0, 0.0, math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class Route:
    """A route, made ready; every sequence is in the order of its candidates.

    Attributes:
        name: Its name.
        candidates: ``BACKEND/MODEL``, weakest first.
        pairs: The same as pairs.
        abilities: What they can do.
        concurrency: Answers that their backends work on at a time; None for any number.
        known_as: What a head calls them, where it is not the model's name.
        terms: How it chooses.
    """

    name: str
    candidates: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    abilities: tuple[Abilities, ...]
    concurrency: tuple[int | None, ...]
    known_as: Mapping[str, str]
    terms: Terms

    @classmethod
    def of(cls, name: str, settings: RouteConfig, config: Config) -> Route:
        """The route of these settings."""
        pairs = tuple((backend, model) for backend, _, model in (one.partition("/") for one in settings.candidates))
        backends = [config.backends[backend] for backend, _ in pairs]
        return cls(
            name=name,
            candidates=settings.candidates,
            pairs=pairs,
            abilities=tuple(abilities_of(backend, pair[1]) for backend, pair in zip(backends, pairs, strict=True)),
            concurrency=tuple(backend.concurrency for backend in backends),
            known_as=settings.known_as,
            terms=Terms(settings.quality, settings.usd_per_good_answer, settings.objective),
        )

    def names_in(self, models: Sequence[str]) -> tuple[str | None, ...]:
        """What a head that knows these models calls the candidates; None for those that it does not know.

        One that knows tiers calls each by its place, see `llm_proxy.route.tiers`, but for what `known_as` says.
        """
        return tuple(names_in(models, self.candidates, self.known_as))


class Word(NamedTuple):
    """What the head or the rules say of a request.

    Attributes:
        score: How strong a model it needs, in [0, 1].
        reason: Why, in a few words.
        predictions: The head's, of every candidate; empty where the rules speak.
        by: Who speaks: the head's name, or ``rules``.
        lack: Why the head does not speak; empty where it does.
    """

    score: float
    reason: str
    predictions: tuple[Prediction, ...] = ()
    lack: str = ""
    by: str = "rules"


class Case(NamedTuple):
    """What a choice depends on, beside the candidates.

    Attributes:
        route: Where the request goes.
        needs: What it asks.
        word: What the head or the rules say.
        stay: Its conversation so far; None for a new one.
        cached: How much of that is cached, tokens, by backend and model; None where the prompt is too short for that.
    """

    route: Route
    needs: Needs
    word: Word
    stay: Stay | None
    cached: Mapping[tuple[str, str], int] | None


@dataclass(slots=True)
class Plan:
    """How one request is routed; places are those among the route's candidates.

    Attributes:
        case: What it depends on.
        refusals: Why each candidate can't take the request; empty where it can.
        resting_s: For how much longer each is passed over, seconds.
        least_p_good: From which probability on a candidate is good enough; None where that is not what decides.
        asked: Places whose estimates follow.
        estimates: Of these, in this order.
        rivals: Places that are good enough.
        place: The candidate that is asked.
        reason: Why, in a few words.
    """

    case: Case
    refusals: list[str]
    resting_s: list[float]
    least_p_good: float | None
    asked: list[int]
    estimates: list[Estimate]
    rivals: tuple[int, ...]
    place: int
    reason: str

    @property
    def forgone(self) -> dict[tuple[str, str], float]:
        """What the conversation has paid more than each candidate would have taken; see `llm_proxy.route.sessions`."""
        route, stay = self.case.route, self.case.stay
        found = dict(stay.forgone) if stay is not None else {}
        if self.case.cached is None:
            return found
        paid = self.estimates[self.asked.index(self.place)].usd
        for place, estimate in zip(self.asked, self.estimates, strict=True):
            if estimate.expected is not None:
                more = paid - (estimate.usd - estimate.reread_usd)
                found[route.pairs[place]] = max(0.0, found.get(route.pairs[place], 0.0) + more)
        found.pop(route.pairs[self.place], None)
        return found


class Planner:
    """Makes plans. Immutable but for its parts, which are thread-safe.

    Args:
        config: ``backends`` and ``routes`` are read.
        routers: A router per route name, for those that shall not use the rules.
        costs: What asking is expected to take; without it the weakest that is good enough is taken.
        heads: The heads of routes.
        health: Who is failing, and how busy backends are.
        sessions: Where conversations are.
        note: Takes the name of a part and its trouble; a head that fails is counted, and the rules decide.
    """

    def __init__(
        self,
        config: Config,
        *,
        routers: Mapping[str, Router],
        costs: CostEstimator | None,
        heads: Heads,
        health: Health,
        sessions: Sessions,
        note: Callable[[str, Exception], None],
    ) -> None:
        self.routes = {name: Route.of(name, settings, config) for name, settings in config.routes.items()}
        self._routers: dict[str, Router] = {
            name: RuleRouter(long_prompt_chars=settings.long_prompt_chars) for name, settings in config.routes.items()
        } | dict(routers)
        self._costs, self._heads, self._health, self._sessions, self._note = costs, heads, health, sessions, note
        self._known: dict[str, tuple[str, tuple[str, ...], str]] = {}

    def head_of(self, route: Route) -> tuple[Head | None, str]:
        """The head that decides for a route, or None and why there is none."""
        head = self._heads(route.name)
        if head is None:
            return None, "no head"
        if len(route.pairs) == 1:
            return None, "nothing to choose"
        lack = self._known_to(route, head)[2]
        return (None, lack) if lack else (head, "")

    def refusals(self, request: ChatRequest, route: Route) -> tuple[Needs, list[str]]:
        """What a request asks, and why each candidate can't take it; empty where it can."""
        needs = needs_of(request)
        return needs, [why_not(needs, abilities) for abilities in route.abilities]

    def plan(
        self,
        request: ChatRequest,
        route: Route,
        encoding: Encoding | None,
        conversation: str,
        *,
        is_asked: bool,
        lift: Mapping[tuple[str, str], float] = NO_LIFT,
    ) -> Plan:
        """How a request is routed.

        Args:
            request: The call.
            route: Where it goes.
            encoding: Its encoded question, where there is one.
            conversation: What it belongs to; empty for nothing.
            is_asked: Whether the candidate will be asked; else nothing is counted.
            lift: How good candidates are with examples, as a share of the best.

        Raises:
            RouterError: No candidate can take it.
        """
        needs, refusals = self.refusals(request, route)
        able, resting_s, open_ = self._standing(route, refusals)
        if not able:
            said = ", ".join(f"{one} ({why})" for one, why in zip(route.candidates, refusals, strict=True))
            raise RouterError(f"route {route.name!r}: no candidate takes this request: {said}")
        word = self._word(request, route, encoding, lift)
        least = _least_p_good(open_, word, route.terms)
        asked = _asked(open_, word, least)
        stay = self._sessions.current((route.name, conversation)) if conversation else None
        is_cacheable = stay is not None and needs.prompt_tokens >= LEAST_CACHED_TOKENS
        cached = self._sessions.cached_tokens(stay) if stay is not None and is_cacheable else None
        case = Case(route, needs, word, stay, cached)
        verdict, estimates = self._chosen(case, asked, is_asked=is_asked)
        place = asked[verdict.place]
        reason = _reason(word, verdict, estimates, place)
        if len(open_) < len(able):
            reason += f"; {len(able) - len(open_)} resting after failures"
        if stay is not None and route.pairs[place] == stay.pair:
            reason += "; as the conversation so far"
        rivals = tuple(asked[at] for at in verdict.rivals)
        return Plan(case, refusals, resting_s, least, asked, estimates, rivals, place, reason)

    def ladder(self, request: ChatRequest, route: Route) -> list[int]:
        """Places of the candidates that can take a request and are well, or of all that can where none is."""
        return self._standing(route, self.refusals(request, route)[1])[2]

    def _standing(self, route: Route, refusals: Sequence[str]) -> tuple[list[int], list[float], list[int]]:
        """Who is able, for how long each is passed over, and who is open; see the module's text."""
        able = [place for place, refusal in enumerate(refusals) if not refusal]
        resting_s = [self._health.resting_s(*pair) for pair in route.pairs]
        return able, resting_s, [place for place in able if not resting_s[place]] or able

    def asked(self, case: Case, place: int) -> Asked:
        """A candidate as the estimates see it."""
        route, needs = case.route, case.needs
        pair, limit = route.pairs[place], route.concurrency[place]
        backend, model = pair
        return Asked(
            backend,
            model,
            case.word.predictions[place].completion_tokens if case.word.predictions else None,
            None if case.cached is None else case.cached.get(pair, 0),
            needs.output_tokens,
            0.0 if limit is None else max(0, self._health.under_way(backend) - limit + 1) / limit,
        )

    def _chosen(self, case: Case, places: list[int], *, is_asked: bool) -> tuple[Verdict, list[Estimate]]:
        route, predictions, stay = case.route, case.word.predictions, case.stay
        current = next((at for at, place in enumerate(places) if stay and route.pairs[place] == stay.pair), None)
        p_good = [predictions[place].p_good for place in places] if predictions else ()
        forgone = [stay.forgone.get(route.pairs[place], 0.0) for place in places] if stay and stay.forgone else ()
        pick = partial(choose, terms=route.terms, p_good=p_good, current=current, forgone=forgone)
        if self._costs is None:
            estimates = [_UNKNOWN] * len(places)
            return pick(estimates), estimates
        asked = [self.asked(case, place) for place in places]
        by_latency = route.terms.objective == "latency"
        return self._costs.choose(asked, case.needs.prompt_tokens, pick, by_latency=by_latency, is_asked=is_asked)

    def _word(
        self, request: ChatRequest, route: Route, encoding: Encoding | None, lift: Mapping[tuple[str, str], float]
    ) -> Word:
        predictions, lack = self._predictions(request, route, encoding)
        if predictions:
            predictions = lifted(predictions, route.pairs, lift)
            p_good = [prediction.p_good for prediction in predictions]
            return Word(needed(p_good), "", predictions, by=self._known[route.name][0])
        score = self._routers[route.name].score(request, encoding)
        return Word(score.value, score.reason, (), lack)

    def _predictions(
        self, request: ChatRequest, route: Route, encoding: Encoding | None
    ) -> tuple[tuple[Prediction, ...], str]:
        head, lack = self.head_of(route)
        if head is None or encoding is None:
            return (), lack or "no vector"
        names = self._known_to(route, head)[1]
        try:
            return predictions_for(names, head.predict(request.question, encoding), head=head.name), ""
        except RouterError as exc:
            self._note("router", exc)
            return (), str(exc)

    def _known_to(self, route: Route, head: Head) -> tuple[str, tuple[str, ...], str]:
        """A head's name, what it calls the candidates, and whom it does not know; kept, as it seldom changes."""
        name = head.name  # asked first: a head may be replaced by another while calls go on, also in between
        known = self._known.get(route.name)
        if known is None or known[0] != name:
            names = route.names_in(head.models)
            unknown = [candidate for candidate, name in zip(route.candidates, names, strict=True) if name is None]
            lack = f"head {name!r} does not know {', '.join(unknown)}" if unknown else ""
            known = self._known[route.name] = name, tuple(name or "" for name in names), lack
        return known


def _least_p_good(open_: list[int], word: Word, terms: Terms) -> float | None:
    if not word.predictions or terms.usd_per_good_answer is not None:
        return None
    return least_good(terms.quality, [word.predictions[place].p_good for place in open_])


def _asked(open_: list[int], word: Word, least_p_good: float | None) -> list[int]:
    """Places of those among which costs decide."""
    if not word.predictions:
        return open_[min(len(open_) - 1, max(0, math.ceil(word.score * len(open_)) - 1)) :]
    if least_p_good is None:
        return open_
    return [place for place in open_ if word.predictions[place].p_good >= least_p_good]


def _reason(word: Word, verdict: Verdict, estimates: Sequence[Estimate], place: int) -> str:
    said = f"p_good {word.predictions[place].p_good:.2f}" if word.predictions else word.reason
    estimate = estimates[verdict.place]
    if estimate is _UNKNOWN or (len(estimates) == 1 and not word.predictions):
        return said
    if len(estimates) == 1:
        return f"{said}; the only one that is good enough, {_price(estimate)}"
    why = "on trial among" if estimate.is_on_trial else f"{verdict.why} of"
    return f"{said}; {why} {len(estimates)}, {_price(estimate)}"


def _price(estimate: Estimate) -> str:
    return "price unknown" if estimate.expected is None else f"about ${estimate.expected.usd:.6f}"
