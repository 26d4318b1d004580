"""What a request passes before it is sent: the budgets, then the queue of its backend.

::

    enter    budget ── spent? ── `LimitReached`
             queue ─── full? ─── `LimitReached`, and the money is given back
               │ waits until it is its turn, no longer than its caller does
             permit: goes with the request (`llm_proxy.engine.permit`), and gives back slot and money when it is over
    asking   a server that may be loading its model is asked again for `cold_start_s`, while it says that it does
             of a route: where the wait is predicted to be longer than `max_wait_s`, or a limit is reached, another
             candidate: those that are good enough, then the stronger ones, then the others

Trouble here counts, and the request is sent as if there were no limits; where `budget.strict` is set, it is not sent.
Backends without a limit, and calls without a budget, pass without a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.backends.base import Ask
from llm_proxy.errors import LimitReached
from llm_proxy.types import Usage
from llm_proxy.wire.chat import error_body

from .effects import Flow, Late, compute, forward, hold, pause, stand
from .fingerprint import payer_of
from .permit import Permit
from .ports import Ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.route.base import Size
    from llm_proxy.types import ChatRequest, Head, Outcome, Outgoing

    from .call import Call
    from .outgoing import Dispatcher
    from .ports import Clock, Foresight, Line, Pricer, Purse, Starts, Turn
    from .settle import Settler

__all__ = ["COLD_PAUSE_S", "Gate", "refusal"]

COLD_PAUSE_S = 0.5
"""Before a server that loads its model is asked again."""

_LONGEST_RETRY_S = 60  # the openai client passes over longer ones
_ERROR_BYTES = 1 << 16


class Gate:
    """Where requests wait and are counted. One a runtime; thread-safe as far as its parts are.

    Args:
        config: Settings.
        dispatcher: Makes requests for other candidates.
        settler: Is told which backend has a call.
        lines: The queues of backends that have one.
        purse: The budgets; None where there are none.
        own_purse: The same for calls whose key has a budget of its own; None where no keys are issued.
        cold: The backends that may be loading a model.
        prices: What tokens cost.
        foresight: How long requests and answers are.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        lines: Mapping[str, Line],
        purse: Purse | None,
        own_purse: Purse | None = None,
        cold: Starts,
        prices: Pricer,
        foresight: Foresight,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._dispatcher, self._settler = config, dispatcher, settler
        self._lines, self._purse, self._own_purse, self._cold = lines, purse, own_purse, cold
        self._prices, self._foresight = prices, foresight
        self._clock, self._troubles = clock, troubles
        self._keys = frozenset(key.get_secret_value() for key in config.server.keys)

    def is_open(self, call: Call, outgoing: Outgoing) -> bool:
        """Whether nothing limits a request, so that there is nothing to enter."""
        return (
            self._purse_of(call) is None
            and outgoing.backend not in self._lines
            and not self._cold.wait_s(outgoing.backend)
        )

    def saw(self, backend: str, status: int) -> None:
        """Take in what a backend answered."""
        self._cold.saw(backend, status)

    def loading_s(self, backend: str, status: int, body: bytes) -> float:
        """How long a backend that `saw` this answer is waited for, seconds; 0 where it says nothing of a model to load.

        Args:
            backend: Its name.
            status: HTTP status code.
            body: The answer's body, or its beginning.
        """
        return self._cold.wait_s(backend) if self._cold.is_loading(status, body) else 0.0

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head]:
        """Enter and send; a route's call is turned to another candidate where that one can begin and this one can't.

        Raises:
            LimitReached: None can.
            Exception: Whatever the face's HTTP library raises.
        """
        self._settler.sent(call.outcome, call.sent)
        began_s = self._clock.monotonic()
        while True:
            admitted = yield from self.admitted(call, outgoing)
            wait_s = self._cold.wait_s(admitted.backend)
            if not wait_s:
                return (yield from forward(admitted))
            if call.ticket is not None:
                call.ticket.asked_s = self._clock.monotonic()
            held = yield from hold(admitted, limit_bytes=_ERROR_BYTES, limit_s=0.0)  # of an answer, its first piece
            is_waited = self._clock.monotonic() - began_s >= wait_s
            if is_waited or not self._cold.is_loading(held.head.status, held.body):
                return held.head
            outgoing = replace(admitted, permit=None)
            yield from pause(COLD_PAUSE_S)

    def enter(self, call: Call, outgoing: Outgoing, *, wait_s: float | None = None) -> Flow[Outgoing]:
        """Wait until a request may be sent; the same request, with the permit that gives back what it took.

        Args:
            call: The call that the request is for.
            outgoing: The request.
            wait_s: Longest wait for a slot, seconds, > 0; None: as long as the caller waits.

        Raises:
            LimitReached: It may not be sent.
        """
        line, purse = self._lines.get(outgoing.backend), self._purse_of(call)
        if line is None and purse is None:
            return outgoing
        taken = _Taken(outgoing, call.request.base_url, self._size(call, outgoing), line, purse)
        try:
            if purse is not None:
                yield from self._reserved(call, taken, purse)
            if line is not None:
                limits = [limit for limit in (wait_s, call.request.timeout_s) if limit is not None]
                taken.turn = yield from self._turn(call, line, taken.size, min(limits, default=None))
        except BaseException:
            taken.is_left = True
            self._settle(taken, Usage())
            raise
        permit = Permit(
            partial(self._over, taken),
            prompt_tokens=taken.size.prompt_tokens,
            limit_bytes=self._config.cache.max_entry_bytes,
            api=call.request.api,
        )
        return replace(outgoing, permit=permit)

    def refused(self, call: Call, why: LimitReached) -> Ready:
        """What the caller of a call gets that is not sent."""
        self._settler.withdrawn(call.outcome, call.sent)
        outcome = call.outcome.with_changes(status="refused", forward="", detail=why.code.replace("_", "-"))
        self._settler.passed(call.request, outcome, call.started_s, status=429)
        call.leave()
        return refusal(outcome, why)

    def close(self) -> None:
        """Have written what is to be written; calling it again is safe."""
        for purse in (self._purse, self._own_purse):
            if purse is not None:
                purse.close()

    # -- whom to ask -----------------------------------------------------------------------------------------------

    def admitted(self, call: Call, outgoing: Outgoing) -> Flow[Outgoing]:
        """Enter; a route's call is turned to another candidate where that one can begin and this one can't.

        Raises:
            LimitReached: None can.
        """
        route = self._config.routes.get(call.destination.route)
        if route is None:
            return (yield from self.enter(call, outgoing))
        most_s = float("inf") if route.max_wait_s is None else route.max_wait_s
        first: LimitReached | None = None
        if self._wait_s(call, outgoing) <= most_s:
            try:
                return (yield from self.enter(call, outgoing))
            except LimitReached as exc:
                first = exc
        for pair in self.others(call):
            other = self._dispatcher.request(call.request, replace(call.destination, backend=pair[0], model=pair[1]))
            if self._wait_s(call, other) > most_s:
                continue
            try:
                admitted = yield from self.enter(call, other)
            except LimitReached as exc:
                first = first or exc
                continue
            self._turn_to(call, pair)
            return admitted
        if first is not None:
            raise first
        return (yield from self.enter(call, outgoing))  # all are busy: the one that was chosen is waited for

    def others(self, call: Call) -> Iterator[tuple[str, str]]:
        """The other candidates of a call's route that can take it, the best first; none without a route."""
        is_routed = call.destination.route in self._config.routes
        ladder = self._dispatcher.ladder(call.request, call.destination) if is_routed else ()
        own = call.destination.backend, call.destination.model
        at = ladder.index(own) if own in ladder else len(ladder)
        rivals = [pair for pair in (call.ticket.rivals if call.ticket is not None else ()) if pair in ladder]
        yield from (pair for pair in dict.fromkeys((*rivals, *ladder[at + 1 :], *reversed(ladder[:at]))) if pair != own)

    def _turn_to(self, call: Call, pair: tuple[str, str]) -> None:
        self._settler.withdrawn(call.outcome, call.sent)
        call.reason += f"; {call.destination.backend} is at its limit"
        call.destination = replace(call.destination, backend=pair[0], model=pair[1])
        if call.ticket is not None:
            call.ticket.outcome = call.outcome
        self._settler.sent(call.outcome, call.sent)

    def _wait_s(self, call: Call, outgoing: Outgoing) -> float:
        line = self._lines.get(outgoing.backend)
        return 0.0 if line is None else line.expected_wait_s(self._size(call, outgoing).expected_tokens)

    def _size(self, call: Call, outgoing: Outgoing) -> Size:
        foretold = call.ticket.foretold_tokens if call.ticket is not None else None
        return self._foresight.size(call.request, outgoing.backend, outgoing.model, foretold)

    # -- the queue -------------------------------------------------------------------------------------------------

    def _turn(self, call: Call, line: Line, size: Size, limit_s: float | None) -> Flow[Turn]:
        """A slot, waited for."""
        turn: Turn = line.enter(size.expected_tokens, self._tenant(call.request))
        if turn.begun_s is not None:
            return turn
        try:
            yield from stand(partial(line.when_called, turn), limit_s)
        except Late as exc:
            line.leave(turn)
            raise LimitReached(
                "this call waited for a free slot of its backend as long as its time-out allows; come again later",
                code="queue_timeout",
                retry_after_s=line.expected_wait_s(size.expected_tokens),
            ) from exc
        except BaseException:
            line.leave(turn)
            raise
        if call.ticket is not None:  # what is learnt of the backend's speed is not to hold the wait
            call.ticket.asked_s = self._clock.monotonic()
        return turn

    def _over(self, taken: _Taken, usage: Usage | None, model: str) -> None:
        """A request is over; may come from the garbage collector."""
        if taken.line is not None:
            taken.line.leave(taken.turn)
        self._settle(taken, usage, model)

    # -- the budgets -----------------------------------------------------------------------------------------------

    def _purse_of(self, call: Call) -> Purse | None:
        """The budgets that a call is counted on."""
        holder = call.request.holder
        return self._own_purse if self._purse is None and holder is not None and holder.has_budget else self._purse

    def _reserved(self, call: Call, taken: _Taken, purse: Purse) -> Flow[None]:
        try:
            yield from compute(partial(self._reserve, call, taken, purse))
        except LimitReached:
            raise
        except Exception as exc:  # the fail-open boundary: calls go on without budgets
            self._troubles.note("budget", exc)
            if self._config.budget.strict:
                raise LimitReached("the budget can't be read, and it is strict", code="budget_unavailable") from exc

    def _reserve(self, call: Call, taken: _Taken, purse: Purse) -> None:
        """Prices load with the first call, and a file is written: not for an event loop.

        A caller who leaves does not end the thread that is at it: whoever of the two comes second gives all back.
        """
        size = taken.size
        usd, is_priced = self._usd(taken, Usage(size.prompt_tokens, size.most_tokens))
        tokens, is_free = size.prompt_tokens + size.most_tokens, is_priced and usd == 0.0
        tenant, route = self._tenant(call.request), call.destination.route
        ask = Ask(tenant, route, taken.outgoing.backend, usd, tokens, is_free, call.request.holder)
        reservation = purse.reserve(ask)
        if reservation is not None:
            taken.held.append(reservation)
        if taken.is_left:
            self._settle(taken, Usage())

    def _settle(self, taken: _Taken, usage: Usage | None, model: str = "") -> None:
        if taken.purse is None:
            return
        try:
            reservation = taken.held.pop()  # a list gives its item to one caller only, whatever thread it is in
        except IndexError:
            return
        usage = usage or Usage(taken.size.prompt_tokens, taken.size.most_tokens)
        try:
            usd, _ = self._usd(taken, usage, model)
            taken.purse.settle(reservation, usd, usage.prompt_tokens + usage.completion_tokens)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: a caller never pays for the budget
            self._troubles.note("budget", exc)

    def _usd(self, taken: _Taken, usage: Usage, model: str = "") -> tuple[float, bool]:
        """Dollars, and whether a price is known; as the ledger has it, by the model that answered."""
        asked = taken.outgoing
        usd = self._prices.cost_usd(
            usage, model=model or asked.model, asked=asked.model, backend=asked.backend, base_url=taken.base_url
        )
        if usd is not None:
            return usd, True
        tokens = usage.prompt_tokens + usage.completion_tokens
        return tokens * self._config.budget.unpriced_usd_per_mtok / 1e6, False

    def _tenant(self, request: ChatRequest) -> str:
        return payer_of(request, self._config.cache.tenant, self._keys)


def refusal(outcome: Outcome, why: LimitReached) -> Ready:
    """What a caller gets whose request is not sent: of a queue another try is worth its while, of a budget none is."""
    is_queue = why.code.startswith("queue")
    headers = [("content-type", "application/json"), ("x-should-retry", "true" if is_queue else "false")]
    if why.retry_after_s is not None:
        headers.append(("retry-after", str(min(_LONGEST_RETRY_S, int(why.retry_after_s) + 1))))
    body = error_body(str(why), type="rate_limit_exceeded" if is_queue else "insufficient_quota", code=why.code)
    return Ready(429, (*headers, *outcome.headers), body, outcome)


@dataclass(slots=True)
class _Taken:
    """What a request has of slots and money, and whether its caller left before it had all."""

    outgoing: Outgoing
    base_url: str
    size: Size
    line: Line | None
    purse: Purse | None
    turn: Turn | None = None
    held: list[object] = field(default_factory=list)
    is_left: bool = False
