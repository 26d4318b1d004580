"""What routed calls teach: each is noted in the log of outcomes, and a share of the answers compared with another's.

::

    answer is settled ── noted ── drawn by chance? a seat free? ──> aside:  within the day's dollars?
        a cheaper candidate answered: the strongest is asked; the strongest did: a cheaper one is ── plainly ── judge
        the cheaper one <── 1 as good, 0 not, nothing where nobody can tell      the strongest <── 1, by convention

The convention has a weakness: nobody looks whether the strongest candidate is right. What is learnt is where a cheaper
one does as well as it. Trouble in here costs an outcome and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.observe.events import GradeEvent, HitEvent, RoutedEvent
from llm_proxy.route.base import Destination
from llm_proxy.wire.chat import usage_of

from . import admission
from .asking import Bill, is_plain, plainly, raw, says, without_key
from .effects import Flow, aside, compute
from .fingerprint import owner_of, tenant_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import ChatRequest, Outcome, Usage

    from .allowance import Allowance
    from .asking import Asking
    from .call import Call, Grade
    from .flights import Ticket
    from .outgoing import Dispatcher
    from .ports import Asker, Clock, Judge
    from .shadow import Hit

__all__ = ["Learner", "Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a route's answers are compared.

    Attributes:
        share: Of the answers, in (0, 1].
        judge: Compares two answers, the weaker candidate's first.
        asker: What it is by a model, where one is asked.
        allowance: What may be spent.
        asking: Asks within it.
    """

    share: float
    judge: Judge
    asker: Asker | None
    allowance: Allowance
    asking: Asking


class _Answered(NamedTuple):
    """A candidate and its answer."""

    backend: str
    model: str
    text: str
    usage: Usage | None
    cost_usd: float | None


class Learner:
    """Notes and compares. One a runtime; thread-safe as far as its parts are.

    Args:
        config: ``routes`` and ``cache.tenant`` are read.
        log: Takes events; None: nothing is kept.
        ways: Of the routes whose answers are compared.
        new_id: Makes an id that no other call has.
        dispatcher: Makes requests.
        encoder: Identity of the encoder whose vectors calls have.
        clock: Clocks.
        troubles: Counts what goes wrong.
        chance: Draws from [0, 1).
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Callable[[RoutedEvent | HitEvent | GradeEvent], None] | None,
        ways: Mapping[str, Way],
        new_id: Callable[[], str],
        dispatcher: Dispatcher,
        encoder: Callable[[], str],
        clock: Clock,
        troubles: Troubles,
        chance: Callable[[], float],
    ) -> None:
        self._routes, self._tenant = config.routes, config.cache.tenant
        self._is_kept, self._log = log is not None, log or _forget
        self._ways, self._new_id, self._dispatcher = ways, new_id, dispatcher
        self._encoder, self._clock, self._troubles, self._chance = encoder, clock, troubles, chance
        self._bills: dict[int, tuple[Outcome, Bill]] = {}

    def id_for(self, call: Call) -> str:
        """What will name a call; empty where it is not kept: no route decides, or its caller wants nothing stored."""
        is_decided = call.destination.route and not call.kept_by
        is_kept = self._is_kept and is_decided and not call.request.controls.no_store
        return self._new_id() if is_kept else ""

    def served(self, hit: Hit) -> None:
        """Note who got a semantic hit, and may take it back."""
        if not self._is_kept:
            return
        try:
            self._log(HitEvent(self._clock.time(), hit.outcome.id, self._owner(hit.outcome.id, hit.request)))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("outcomes", exc)

    def passed(self, call: Call, status: int) -> None:
        """Note a call whose answer is not recorded, if there is one."""
        if not call.call_id or status != 200:
            return
        encoding = call.ticket.encoding if call.ticket is not None else None
        try:
            self._log(self._event(call.request, call.outcome, encoding))
            self._note_grades(call.outcome, call.grades)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on
            self._troubles.note("outcomes", exc)

    def settled(self, ticket: Ticket, asked: Outcome) -> Flow[None]:
        """Note a call whose answer is there, and have it compared if it is drawn.

        Args:
            ticket: The call's, settled.
            asked: Its outcome before that, which names the model that was asked.
        """
        if not asked.call_id or ticket.recorder is None:
            return
        try:
            completion = ticket.recorder.completion()
            if completion is None:
                return
            # What a cascade paid for other answers is not the price of this one.
            cost_usd = None if ticket.grades else ticket.outcome.cost_usd
            usage = usage_of(completion)
            event = self._event(ticket.request, asked, ticket.encoding)
            self._log(replace(event, usage=usage, cost_usd=cost_usd))
            self._note_grades(asked, ticket.grades)
            way = self._ways.get(asked.route)
            text = None if way is None or admission.rejection(completion) else says(completion)
            if text is None or way is None or not self._is_drawn(ticket.request, way) or not way.allowance.sit():
                return
            first = _Answered(asked.backend, asked.model, text, usage, cost_usd)
            yield from aside(self._compare(ticket, asked, first, way), way.allowance.leave)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("outcomes", exc)

    def close(self) -> None:
        """Book what is under way: it was sent, and nothing is booked once the process has ended."""
        for asked, bill in list(self._bills.values()):
            self._settle_bill(asked, bill)

    # -- beside the call -----------------------------------------------------------------------------------------

    def _is_drawn(self, request: ChatRequest, way: Way) -> bool:
        return self._chance() < way.share and is_plain(request) and request.body.get("n") in (None, 1)

    def _compare(self, ticket: Ticket, asked: Outcome, first: _Answered, way: Way) -> Flow[None]:
        bill = Bill()
        self._bills[id(bill)] = asked, bill
        try:
            yield from self._compared(ticket, asked, first, way, bill)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("comparison", exc)
        finally:  # it may be cut off, and what was asked was paid for even so
            self._settle_bill(asked, bill)

    def _compared(self, ticket: Ticket, asked: Outcome, first: _Answered, way: Way, bill: Bill) -> Flow[None]:
        known = {(grade.backend, grade.model) for grade in ticket.grades}
        pair = self._other(ticket.request, asked, known)
        if pair is None:
            return
        request = plainly(ticket.request)
        outgoing = self._dispatcher.request(request, Destination("", backend=pair[0], model=pair[1]))
        outgoing = self._dispatcher.with_examples(ticket, outgoing, asked.call_id, is_served=False) or outgoing
        fresh = yield from way.asking.answer(request, outgoing, bill, expected=first.text.encode("utf-8", "replace"))
        text = says(fresh.completion) if fresh is not None else None
        if fresh is None or text is None:
            return
        second = _Answered(*pair, text, usage_of(fresh.completion), fresh.cost_usd)
        weak, strong = self._by_strength(asked.route, first, second)
        is_good = yield from self._judged(ticket.request, weak.text, strong.text, way, bill)
        if is_good is not None:
            self._grade(asked, weak, float(is_good))
            self._grade(asked, strong, 1.0)

    def _other(self, request: ChatRequest, asked: Outcome, known: set[tuple[str, str]]) -> tuple[str, str] | None:
        """Whose answer is asked for: the strongest candidate's, or, where that answered, a cheaper one's."""
        ladder = self._dispatcher.ladder(request, Destination("", route=asked.route))
        first = asked.backend, asked.model
        if "/".join(first) not in self._routes[asked.route].candidates:
            return None  # a fallback from elsewhere: nothing is to be learnt of it
        if not ladder or ladder[-1] != first:
            return ladder[-1] if ladder else None
        cheaper = [pair for pair in ladder[:-1] if pair not in known]  # a cascade has looked at those it tried
        return cheaper[int(self._chance() * len(cheaper))] if cheaper else None

    def _by_strength(self, route: str, first: _Answered, second: _Answered) -> tuple[_Answered, _Answered]:
        order = self._routes[route].candidates
        places = [order.index(f"{one.backend}/{one.model}") for one in (first, second)]
        return (first, second) if places[0] < places[1] else (second, first)

    def _judged(self, request: ChatRequest, weak: str, strong: str, way: Way, bill: Bill) -> Flow[bool | None]:
        is_good = yield from compute(partial(way.judge.compare, weak, strong))
        if is_good is not None or way.asker is None:
            return is_good
        body = way.asker.body(request.question, weak, strong)
        backend, _, model = str(body["model"]).partition("/")
        asking = without_key(replace(request, body=body, raw=raw(body)))
        outgoing = self._dispatcher.request(asking, Destination("", backend=backend, model=model))
        answer = yield from way.asking.answer(asking, outgoing, bill, expected=b"")
        said = says(answer.completion) if answer is not None else None
        return None if said is None else way.asker.verdict(said)

    # -- what is written -----------------------------------------------------------------------------------------

    def _event(self, request: ChatRequest, asked: Outcome, encoding: Encoding | None) -> RoutedEvent:
        return RoutedEvent(
            at_s=self._clock.time(),
            call_id=asked.call_id,
            owner=self._owner(asked.call_id, request),
            route=asked.route,
            candidates=self._routes[asked.route].candidates,
            backend=asked.backend,
            model=asked.model,
            question=request.question,
            encoder=self._encoder() if encoding is not None else "",
            vector=encoding.vector if encoding is not None else None,
            layers=encoding.layers if encoding is not None else None,
        )

    def _owner(self, call_id: str, request: ChatRequest) -> str:
        return owner_of(call_id, tenant_of(request, self._tenant))

    def _note_grades(self, asked: Outcome, grades: tuple[Grade, ...]) -> None:
        for grade in grades:
            self._book(asked, GradeEvent(0.0, "", "", *grade))

    def _grade(self, asked: Outcome, answered: _Answered, score: float) -> None:
        tokens = answered.usage.completion_tokens if answered.usage is not None else None
        pair = answered.backend, answered.model
        self._book(asked, GradeEvent(0.0, "", "", *pair, "comparison", score, tokens, answered.cost_usd))

    def _settle_bill(self, asked: Outcome, bill: Bill) -> None:
        if self._bills.pop(id(bill), None) is not None and bill.usd:
            self._book(asked, GradeEvent(0.0, "", "", "", "", "comparison", None, spent_usd=bill.usd))

    def _book(self, asked: Outcome, grade: GradeEvent) -> None:
        grade = replace(grade, at_s=self._clock.time(), call_id=asked.call_id, route=asked.route)
        self._log(grade)
        self._dispatcher.heard(grade)


def _forget(event: RoutedEvent | HitEvent | GradeEvent) -> None:
    """Keep nothing."""
