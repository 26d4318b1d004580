"""Step 6 of the life of a call: which request is sent where."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.backends.openai_compatible import outgoing_for
from llm_proxy.errors import LLMProxyError
from llm_proxy.route.base import Decision
from llm_proxy.types import Outgoing

from .chains import at_one_server, goes_on_from
from .effects import Flow, Late
from .encoding import in_time
from .fingerprint import conversation_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding
    from llm_proxy.observe.events import GradeEvent, Troubles
    from llm_proxy.route.base import Destination
    from llm_proxy.route.looks import Choice, Look, Taken
    from llm_proxy.types import ChatRequest

    from .call import Call
    from .exemplars import Exemplars
    from .flights import Ticket
    from .ports import Chooser, QuestionEncoder, Quoter

__all__ = ["Dispatcher"]


class Dispatcher:
    """Makes the requests for upstreams. One a runtime; thread-safe as far as its parts are.

    Args:
        config: Settings.
        selector: Chooses.
        troubles: Counts what goes wrong.
        encoder: Encodes questions for routes that are decided by their vectors.
        prices: What tokens cost, for routes that give examples; None: they give none.
    """

    def __init__(
        self,
        config: Config,
        *,
        selector: Chooser,
        troubles: Troubles,
        encoder: QuestionEncoder | None = None,
        prices: Quoter | None = None,
    ) -> None:
        self._config, self._selector, self._troubles, self._encoder = config, selector, troubles, encoder
        has_examples = prices is not None and any(route.examples for route in config.routes.values())
        self.exemplars: Exemplars | None = None
        if prices is not None and has_examples:
            from .exemplars import Exemplars

            self.exemplars = Exemplars(config, prices)

    def resolve(self, request: ChatRequest) -> Destination:
        """Where the request's model name leads."""
        return self._selector.resolve(request)

    def decide(
        self, request: ChatRequest, destination: Destination, encoding: Encoding | None, ticket: Ticket | None = None
    ) -> Decision:
        """The candidate of a route that is asked: the strongest one where the router is in trouble.

        Args:
            request: The call.
            destination: Its route.
            encoding: Its encoded question, where there is one.
            ticket: The call's, where it has one: its near misses may help weaker candidates.
        """
        try:
            conversation = conversation_of(request, self._config.cache.tenant)
            lift = {} if self.exemplars is None or ticket is None else self.exemplars.lift(ticket)
            return self._selector.decide(request, destination, encoding, conversation, lift)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the strongest candidate is asked
            self._troubles.note("router", exc)
            said = str(exc) if isinstance(exc, LLMProxyError) else type(exc).__name__
            return self._selector.fallback(destination, f"default: {said}")

    def encoded(self, call: Call) -> Flow[Encoding | None]:
        """The call's encoded question, where its route needs one: by the one pass of the encoder that a call has.

        That was made where the cache was searched. Else it is made here, and the cache gets it when it stores the
        answer. None where it is not needed, late or failed, or there is no text: the rules decide then.
        """
        ticket, encoder = call.ticket, self._encoder
        if ticket is not None and ticket.encoding is not None:
            return ticket.encoding
        try:
            text = call.request.question
            is_tried = call.is_encoded or encoder is None or encoder.is_open or not text.strip()
            if is_tried or encoder is None or not self._selector.wants_vector(call.destination.route):
                return None
            encoding = yield from self._encoding(text, encoder)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the rules decide
            self._troubles.note("encoder" if isinstance(exc, LLMProxyError) else "engine", exc)
            return None
        if ticket is not None and ticket.fingerprint.text == text:
            ticket.encoding = encoding
        return encoding

    def _encoding(self, text: str, encoder: QuestionEncoder) -> Flow[Encoding | None]:
        try:
            encoding = yield from in_time(partial(encoder.encode, text), (text,), encoder, self._config.encoder)
        except Late:
            return None
        encoder.note_success()
        return encoding

    def with_examples(
        self, ticket: Ticket | None, outgoing: Outgoing, call_id: str, *, is_served: bool = True
    ) -> Outgoing | None:
        """A request with examples before its question, see `Exemplars.dressed`; None where it gets none."""
        if self.exemplars is None or ticket is None:
            return None
        try:
            return self.exemplars.dressed(ticket, outgoing, call_id, is_served=is_served)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call is sent as it came
            self._troubles.note("draft", exc)
            return None

    def without_examples(self, call_id: str, outgoing: Outgoing) -> None:
        """Have it known that a call was sent as it came after all."""
        if self.exemplars is not None:
            self.exemplars.forget(call_id, outgoing)

    def heard(self, grade: GradeEvent) -> None:
        """Have it known how good an answer was."""
        if self.exemplars is not None:
            self.exemplars.heard(grade)

    def ladder(self, request: ChatRequest, destination: Destination) -> tuple[tuple[str, str], ...]:
        """Candidates of a route that can take a request, weakest first; none where the router is in trouble."""
        try:
            return self._knowing(request, destination, self._selector.ladder(request, destination))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the strongest candidate is asked
            self._troubles.note("router", exc)
            return ()

    def way(self, call: Call) -> Choice:
        """Whether a call, for which its route has decided, is asked so or in a cascade."""
        from llm_proxy.route.looks import Word

        destination = call.destination
        word = Word(destination.route, call.by, f"{destination.backend}/{destination.model}")
        return self._selector.ways.choose(word, self._config.routes[destination.route].quality)

    def taken(
        self, request: ChatRequest, destination: Destination, steps: Sequence[tuple[str, str]], beside: Sequence[str]
    ) -> Taken | None:
        """What asking the steps of a cascade is expected to take; None where that is not estimated."""
        from llm_proxy.route.looks import Taken

        route, pairs = self._config.routes[destination.route], list(steps)
        has_beside = bool(beside[0])
        if has_beside:
            pairs.append((beside[0], beside[1]))
        found = self._selector.takes(request, destination, pairs)
        if found is None:
            return None
        worth = route.usd_per_good_answer if found.is_money else None
        amounts = found.amounts
        return Taken(amounts[: len(steps)], amounts[-1] if has_beside else 0.0, worth, route.cascade_bar)

    def learn(self, look: Look, is_same: bool | None = None) -> None:
        """Take in what both ways took for one call, and whether the last candidate came to the same as the first."""
        ways = self._selector.ways
        if look.is_checked and is_same is not None:
            ways.check(look.word, look.p_right[0], is_right=is_same)
        ways.observe(look.word, look.burdens(is_same, ways.excess(look.word)))

    def fallbacks(self, request: ChatRequest, destination: Destination, cause: str) -> Sequence[tuple[str, str]]:
        """Who may be asked instead of a destination's backend, the best first; nobody in case of trouble."""
        try:
            return self._knowing(request, destination, self._selector.fallbacks(request, destination, cause))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: what the backend said is handed on
            self._troubles.note("router", exc)
            return ()

    def _knowing(
        self, request: ChatRequest, destination: Destination, pairs: Sequence[tuple[str, str]]
    ) -> tuple[tuple[str, str], ...]:
        """Those of some candidates that know what a call goes on from: all but for what one server alone keeps."""
        if not destination.backend or not goes_on_from(request):
            return tuple(pairs)
        return at_one_server(self._config, pairs, destination.backend)

    def _decided(self, request: ChatRequest, destination: Destination, encoding: Encoding | None) -> Decision:
        """Who answers for a route in one call: of a cascade its last, whose answer nobody has to look at."""
        route = self._config.routes.get(destination.route)
        ladder = self._selector.ladder(request, destination) if route is not None and route.cascade else ()
        if ladder:
            return Decision(*ladder[-1], "the last of the cascade", 1.0)
        return self.decide(request, destination, encoding)

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
            decision = self._decided(request, destination, encoding)
            destination = replace(destination, backend=decision.backend, model=decision.model)
        return self.request(request, destination), destination
