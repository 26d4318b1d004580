"""What is made of near misses where a request is sent: examples of a weaker model's, or predicted output.

::

    asking   a route with examples, a weaker candidate? they go before its question (`llm_proxy.engine.exemplars`)
             else: near miss? a backend that takes predictions? parameters that go with one? does it pay?
             no near miss? a model nearby may answer first (`llm_proxy.engine.nearby`), and its answer is taken for one
               │ yes: what it may cost is set aside                    no: as it is
             send with prediction ── refused (400, 413, 415, 422, 501) ── send without, at once; not tried again there
               │
    settled  tokens accepted and rejected ── `llm_proxy.draft.prediction.Predictions`, and the account

It stands around whatever else sends a call. A request that is sent again, or elsewhere, is made from the call itself,
and so has no prediction. The answer is stored for the call's own question, as if it had come without.

Trouble in here counts, and the call goes on as it came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.draft.prediction import (
    AHEAD,
    Draft,
    Kind,
    Predictions,
    draft_in,
    may_be_predicted,
    with_prediction,
)
from llm_proxy.types import CHARS_PER_TOKEN, CHAT, Usage
from llm_proxy.wire.chat import unpredicted, usage_of
from llm_proxy.wire.failure import said_in

from .copies import without_key
from .effects import Flow, forward, read
from .exemplars import TAUGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import Head, Outgoing

    from .call import Call
    from .flights import Ticket
    from .nearby import Nearby
    from .outgoing import Dispatcher
    from .ports import Clock, Quoter, Sends
    from .settle import Settler

__all__ = ["NearMisses"]

_REFUSING = frozenset({400, 413, 415, 422, 501})
_ERROR_BYTES, _ERROR_S = 1 << 20, 10.0
_PREDICTED = "predicted"


@dataclass(slots=True, eq=False)
class _Stake:
    """A call that a prediction was thought of for, and what is set aside for it as long as somebody holds this.

    ``ahead_s`` is what it took to have the prediction written, seconds.
    """

    predictions: Predictions
    kind: Kind
    most_usd: float = 0.0
    is_sent: bool = False
    ahead_s: float = 0.0

    def __del__(self) -> None:
        self.free()

    def free(self) -> None:
        most_usd, self.most_usd = self.most_usd, 0.0
        if most_usd:
            self.predictions.give_back(most_usd)


class _Dressed(NamedTuple):
    """A request with its prediction, and what is at stake; or with its examples."""

    outgoing: Outgoing
    ticket: Ticket
    stake: _Stake | None


class _Ahead(NamedTuple):
    """A request whose prediction is to be written first, by the model of this name; and what is at stake."""

    outgoing: Outgoing
    ticket: Ticket
    stake: _Stake
    name: str


class NearMisses:
    """Sends calls with what near misses tell. One a runtime; thread-safe as far as its parts are.

    Args:
        config: ``draft`` and ``backends`` are read.
        attempts: Sends a request, as often as it takes.
        nearby: Has models write predictions first.
        dispatcher: Gives examples.
        settler: Is told which backend has a call.
        prices: What tokens cost.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        *,
        attempts: Sends,
        nearby: Nearby,
        dispatcher: Dispatcher,
        settler: Settler,
        prices: Quoter,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._attempts, self._dispatcher, self._settler = config, attempts, dispatcher, settler
        self._prices, self._clock, self._troubles, self._nearby = prices, clock, troubles, nearby
        self.predictions = Predictions(
            least_accepted=config.draft.least_accepted, max_extra_cost=config.draft.max_extra_cost
        )

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call, as `llm_proxy.engine.attempts.Attempts.asking` gives it."""
        try:
            dressed = self._dressed(call, outgoing)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on as it came
            self._troubles.note("draft", exc)
            dressed = None
        if dressed is None:
            return self._attempts.asking(call, outgoing)
        if isinstance(dressed, _Ahead):
            return self._foretold(call, dressed)
        return self._predicting(call, outgoing, dressed)

    def _dressed(self, call: Call, outgoing: Outgoing) -> _Dressed | _Ahead | None:
        """The request with its examples or its prediction, which may be still to come; None where it has neither."""
        ticket = call.ticket
        if ticket is None or call.led is None or call.request.api != CHAT or self._is_drafted_for(outgoing):
            return None
        told = self._dispatcher.with_examples(ticket, outgoing, call.call_id)
        if told is not None:
            return self._dressed_as(call, _Dressed(told, ticket, None), TAUGHT)
        if not self._takes_prediction(outgoing):
            return None
        near = next(((one, found) for one in ticket.near if (found := draft_in(one.entry.completion))), None)
        ahead = "" if near else self._nearby.named(outgoing.backend)
        kind = Kind.of(outgoing.backend, outgoing.model, near[0].similarity if near else 0.0)
        stake = _Stake(self.predictions, kind._replace(band=AHEAD) if ahead else kind)
        ticket.settle = partial(self._settled, stake, ticket.settle)
        if not may_be_predicted(call.request.body):
            return None
        if ahead:
            begin = partial(self.predictions.begin_ahead, stake.kind)
            is_begun = self._may_stake(stake, self._nearby.usual_tokens(ahead), begin, self._ahead_usd(ahead, outgoing))
            return _Ahead(outgoing, ticket, stake, ahead) if is_begun else None
        if near is None or not self._may_stake(stake, near[1].tokens, partial(self.predictions.begin, kind)):
            return None
        return self._predicted(call, outgoing, stake, ticket, near[1])

    def _predicted(self, call: Call, outgoing: Outgoing, stake: _Stake, ticket: Ticket, draft: Draft) -> _Dressed:
        ticket.is_predicted = stake.is_sent = True
        sent = replace(outgoing, body=with_prediction(outgoing.body, draft.text))
        return self._dressed_as(call, _Dressed(sent, ticket, stake), _PREDICTED)

    def _dressed_as(self, call: Call, dressed: _Dressed, word: str) -> _Dressed:
        call.add(word)
        return dressed

    def _is_drafted_for(self, outgoing: Outgoing) -> bool:
        """Whether another model drafts for this backend, which then needs the request as it came."""
        backend = self._config.backends.get(outgoing.backend)
        return backend is not None and bool(backend.draft_with)

    def _takes_prediction(self, outgoing: Outgoing) -> bool:
        backend = self._config.backends.get(outgoing.backend)
        if backend is None or not self._config.draft.predicted:
            return False
        own = backend.limits.get(outgoing.model)
        return backend.takes_prediction if own is None or own.takes_prediction is None else own.takes_prediction

    def _may_stake(self, stake: _Stake, tokens: int, begin: Callable[[float], bool], ahead_usd: float = 0.0) -> bool:
        """Whether a prediction of so many tokens may be had; what it may add to the bill is then at stake."""
        kind = stake.kind
        most_usd = self._prices.quote_usd(Usage(0, tokens), model=kind.model, backend=kind.backend)
        if most_usd is None or not begin(most_usd + ahead_usd):
            return False
        stake.most_usd = most_usd + ahead_usd
        return True

    def _ahead_usd(self, name: str, outgoing: Outgoing) -> float:
        """About what a model nearby takes for its answer to a request, dollars; 0 where nobody knows."""
        backend, _, model = name.partition("/")
        usage = Usage(len(outgoing.body) // CHARS_PER_TOKEN, self._nearby.usual_tokens(name))
        return self._prices.quote_usd(usage, model=model, backend=backend) or 0.0

    def _foretold(self, call: Call, asked: _Ahead) -> Flow[Head]:
        """Send a call with what a model nearby says to it, as far as it says something and there is room for it."""
        plain, ticket, stake, name = asked
        began_s = self._clock.monotonic()
        draft, ahead_usd = yield from self._nearby.draft(call, name)
        self.predictions.earned(0.0, ahead_usd)  # whatever becomes of the call
        stake.ahead_s, ticket.outcome = self._clock.monotonic() - began_s, call.outcome
        stake.free()
        if draft is None or not self._may_stake(stake, draft.tokens, self.predictions.set_aside):
            return (yield from self._sent(call, plain))
        dressed = self._predicted(call, plain, stake, ticket, draft)
        ticket.outcome = call.outcome
        return (yield from self._predicting(call, plain, dressed))

    def _predicting(self, call: Call, plain: Outgoing, dressed: _Dressed) -> Flow[Head]:
        pair = call.destination.backend, call.destination.model
        try:
            head = yield from self._sent(call, dressed.outgoing)
        except Exception:
            self._failed(dressed)
            raise
        if (call.destination.backend, call.destination.model) != pair or head.status < 400:
            return head
        self._failed(dressed)
        return (yield from self._again(call, plain, dressed, head)) if head.status in _REFUSING else head

    def _again(self, call: Call, plain: Outgoing, dressed: _Dressed, refusal: Head) -> Flow[Head]:
        """The same without a prediction, since that may be what was refused."""
        held = yield from read(refusal, limit_bytes=_ERROR_BYTES, limit_s=_ERROR_S, keeps_rest=False)
        self._undress(call, dressed)
        self._settler.given_up(call.outcome, call.sent, status=refusal.status)
        call.is_over = False
        head = yield from self._sent(call, without_key(plain))
        if dressed.stake is None:
            return head
        is_named = "prediction" in said_in(refusal.headers, held.body).message or b"prediction" in held.body
        if is_named or head.status < 400:
            self.predictions.refuses(plain.backend, plain.model)
        return head

    def _failed(self, dressed: _Dressed) -> None:
        if dressed.stake is not None:
            self.predictions.failed(dressed.stake.kind)

    def _undress(self, call: Call, dressed: _Dressed) -> None:
        """Have it known that a call is sent as it came after all."""
        ticket, stake = dressed.ticket, dressed.stake
        if stake is not None:
            ticket.is_predicted = stake.is_sent = False
            stake.free()
        else:
            self._dispatcher.without_examples(call.call_id, dressed.outgoing)
        word = TAUGHT if stake is None else _PREDICTED
        call.detail = call.detail.removesuffix(word).removesuffix("; ")
        ticket.outcome = call.outcome

    def _sent(self, call: Call, outgoing: Outgoing) -> Flow[Head]:
        asking = self._attempts.asking(call, outgoing)
        if asking is not None:
            return (yield from asking)
        self._settler.sent(call.outcome, call.sent)
        return (yield from forward(outgoing))

    # -- what came of it -------------------------------------------------------------------------------------------

    def _settled(self, stake: _Stake, settle: Callable[[Ticket], Flow[None]], ticket: Ticket) -> Flow[None]:
        """Settle, and learn what the answer says of its prediction, or what one takes without."""
        took_s = self._clock.monotonic() - (ticket.started_s if ticket.asked_s is None else ticket.asked_s)
        try:
            yield from settle(ticket)
        finally:
            try:
                self._learn(stake, ticket, took_s)
            except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
                self._troubles.note("draft", exc)
            stake.free()

    def _learn(self, stake: _Stake, ticket: Ticket, took_s: float) -> None:
        completion = ticket.recorder.completion() if ticket.recorder else None
        usage = usage_of(completion) if completion else None
        kind = stake.kind
        if usage is None or ticket.outcome.backend != kind.backend:
            return
        plain = unpredicted(usage)
        usd, plain_usd = self._usd(usage, kind), self._usd(plain, kind)
        self.predictions.earned(plain_usd, max(0.0, usd - plain_usd))
        if stake.is_sent:
            self.predictions.predicted(kind, usage, took_s)
        else:
            self.predictions.answered(kind, max(1, plain.completion_tokens), took_s - stake.ahead_s)

    def _usd(self, usage: Usage, kind: Kind) -> float:
        return self._prices.cost_usd(usage, model=kind.model, backend=kind.backend) or 0.0
