"""Were the semantic hits right? A share of them is asked upstream as well, beside the call, and the answers compared.

::

    hit is served ── drawn by chance? a seat free? ──> aside:  within the day's dollars? ── ask plainly ── judge
                                                                    │
        evidence of the entry <── same | different ─────────────────┘  a different answer is stored for its question

A question that was asked upstream because an entry's evidence is against it, or because chance had it so, tells of that
entry, too, for nothing; only a model that compares the two answers has its price.
Trouble in here costs a check and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.cache.evidence import Observation
from llm_proxy.cache.weighed import Decision, Weighed
from llm_proxy.errors import ConfigError
from llm_proxy.observe.events import CheckEvent
from llm_proxy.types import CHAT, ChatRequest, Outcome

from .asking import LIMIT_S, Asking, Bill, Fresh, chatting, is_plain, plainly, says
from .effects import Flow, aside, background, compute
from .flights import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_proxy.cache.base import AnswerCache
    from llm_proxy.cache.entry import Entry
    from llm_proxy.cache.evidence import Source
    from llm_proxy.config import CacheConfig
    from llm_proxy.encode.base import Encoding
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import JSON, Fingerprint

    from .allowance import Allowance
    from .outgoing import Dispatcher
    from .ports import Asker, Clock, Judge, Pricer
    from .settle import Settler

__all__ = ["LIMIT_S", "Checker", "Doubted", "Hit", "weighed_of"]

_NAMES_A_MODEL = "/deployments/"  # Azure's addresses: another model can't be asked there


@dataclass(frozen=True, slots=True)
class Hit:
    """A semantic hit that was served.

    Attributes:
        request: The call.
        entry: Whose answer it got.
        weighed: What was decided on that.
        outcome: What was said of it.
        fingerprint: Where the question's own answer would be kept.
        encoding: The encoded question.
    """

    request: ChatRequest
    entry: Entry
    weighed: Weighed
    outcome: Outcome
    fingerprint: Fingerprint
    encoding: Encoding | None


@dataclass(frozen=True, slots=True)
class Doubted:
    """An entry that was not served for its evidence, or by chance, and what was decided on it."""

    entry: Entry
    weighed: Weighed

    @property
    def is_drawn(self) -> bool:
        """Whether only chance kept it from being served."""
        return self.weighed.decision.reason == "explored"


class Checker:
    """Checks semantic hits. One a runtime; thread-safe as far as its parts are."""

    def __init__(
        self,
        settings: CacheConfig,
        *,
        cache: AnswerCache | None,
        dispatcher: Dispatcher,
        settler: Settler,
        judge: Judge,
        asker: Asker | None,
        allowance: Allowance,
        prices: Pricer,
        clock: Clock,
        troubles: Troubles,
        book: Callable[[CheckEvent], None],
        chance: Callable[[], float],
    ) -> None:
        self._settings, self._cache, self._dispatcher, self._settler = settings, cache, dispatcher, settler
        self._judge, self._asker, self._allowance = judge, asker, allowance
        self._asking = Asking(settings.max_entry_bytes, allowance=allowance, prices=prices, clock=clock)
        self._clock, self._troubles, self._book, self._chance = clock, troubles, book, chance
        self._bills: dict[int, tuple[Outcome, Bill]] = {}

    def begin(self, hit: Hit) -> Flow[None]:
        """Take a hit into account, and have it checked beside the call if it is drawn and may be asked upstream."""
        share = self._settings.check_share
        try:
            if self._cache is not None:
                self._cache.note_served(hit.weighed)
            if share and self._chance() < share and is_plain(hit.request) and self._allowance.sit():
                yield from aside(self._check(hit), self._allowance.leave)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("check", exc)

    def close(self) -> None:
        """Book what is under way: it was sent, and nothing is booked once the process has ended."""
        for outcome, bill in list(self._bills.values()):
            self._settle_bill(outcome, bill, None)

    def undo(self, outcome: Outcome) -> bool:
        """Take a semantic hit back: its pair becomes wrong evidence. Whether the entry is still there.

        Raises:
            CacheError: The evidence can't be written.
            ValueError: It was no semantic hit.
        """
        if outcome.kind != "semantic" or outcome.similarity is None:
            raise ValueError("only a semantic hit can be taken back: no other answer was meant for another question")
        is_there = self._cache is not None and self._cache.learn(weighed_of(outcome), "undo", is_same=False)
        self._note(outcome, "undo", False)
        return is_there

    def explore(self, ticket: Ticket) -> Flow[None]:
        """Compare the answer of a settled call with that of the entry it was not served."""
        doubted, ticket.doubted = ticket.doubted, None
        if doubted is None or ticket.entry is None:
            return
        try:
            if self._asker is None:
                yield from background(partial(self._explored, doubted, ticket, ticket.entry))
            elif doubted.is_drawn and self._allowance.sit():
                yield from aside(self._explored_by(self._asker, doubted, ticket, ticket.entry), self._allowance.leave)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("check", exc)

    # -- beside the call -----------------------------------------------------------------------------------------

    def _check(self, hit: Hit) -> Flow[None]:
        bill, is_same = Bill(), None
        self._bills[id(bill)] = hit.outcome, bill
        try:
            is_same = yield from self._compared(hit, bill)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("check", exc)
        finally:  # it may be cut off, and what was asked was paid for even so
            self._settle_bill(hit.outcome, bill, is_same)

    def _settle_bill(self, outcome: Outcome, bill: Bill, is_same: bool | None) -> None:
        if self._bills.pop(id(bill), None) is not None and bill.usd is not None:
            self._note(outcome, "shadow", is_same, bill.usd)

    def _compared(self, hit: Hit, bill: Bill) -> Flow[bool | None]:
        """Whether the question's own answer says the same; None where it is not asked, or nobody can tell."""
        request = plainly(hit.request)
        outgoing, destination = self._dispatcher.routed(request, hit.encoding)
        fresh = yield from self._asking.answer(request, outgoing, bill, expected=hit.entry.completion)
        if fresh is None:
            return None
        said = _both_said(hit.entry, fresh.completion)
        if said is None:
            return None
        is_same = yield from compute(partial(self._judge.compare, *said))
        if is_same is None and self._asker is not None:
            body = self._asker.body(hit.fingerprint.text or "", *said)
            is_same = yield from self._asked_model(self._asker, body, request, bill)
        if is_same is not None:
            ticket = self._ticket(hit, request, fresh, route=destination.route)
            yield from compute(partial(self._learn, hit, ticket, fresh.completion, is_same))
        return is_same

    def _asked_model(self, asker: Asker, body: JSON, request: ChatRequest, bill: Bill) -> Flow[bool | None]:
        if _NAMES_A_MODEL in request.endpoint:
            raise ConfigError(f"the judge {body['model']!r} can't be asked at an address that names another model")
        asking = chatting(request, body)
        outgoing, _ = self._dispatcher.routed(asking)
        answer = yield from self._asking.answer(asking, outgoing, bill, expected=b"")
        said = None if answer is None else says(answer.completion)
        return None if said is None else asker.verdict(said)

    def _ticket(self, hit: Hit, request: ChatRequest, fresh: Fresh, *, route: str) -> Ticket:
        """The ticket of an answer that no caller waits for, to keep it by."""
        sent = fresh.outgoing
        return Ticket(
            request,
            hit.fingerprint,
            Outcome("miss", key=hit.fingerprint.key, backend=sent.backend, route=route, model=sent.model),
            self._clock.monotonic() - fresh.took_s,
            self._settler.settle,
            self._settler.lost,
            encoding=hit.encoding,
            recorder=fresh.recorder,
            head_headers=fresh.headers,
        )

    # -- what was found ------------------------------------------------------------------------------------------

    def _learn(self, hit: Hit, ticket: Ticket, completion: JSON, is_same: bool) -> None:
        if self._cache is not None:
            self._cache.learn(hit.weighed, "shadow", is_same=is_same)
        # Upstream does not know what it did not store: who is to go on from a response gets another one.
        may_keep = hit.request.api == CHAT or hit.request.body.get("store") is False
        if (
            not is_same and may_keep and self._settler.keep(ticket, completion)
        ):  # and neither answer is the other question's
            self._observe(ticket.fingerprint.key, hit.weighed.similarity, source="shadow")

    def _explored(self, doubted: Doubted, ticket: Ticket, entry: Entry) -> None:
        try:
            said = _both_said(doubted.entry, json.loads(entry.completion))
            is_same = None if said is None else self._judge.compare(*said)
            self._learn_explored(doubted, ticket, entry, is_same)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("check", exc)
            return
        self._note_explored(doubted, ticket, is_same)

    def _explored_by(self, asker: Asker, doubted: Doubted, ticket: Ticket, entry: Entry) -> Flow[None]:
        """As `_explored`, beside the call; the judging model is asked where the answers are not plainly the same."""
        bill, is_same = Bill(), None
        try:
            said = _both_said(doubted.entry, json.loads(entry.completion))
            is_same = None if said is None else (yield from compute(partial(self._judge.compare, *said)))
            if said is not None and is_same is None:
                body = asker.body(ticket.fingerprint.text or "", *said)
                is_same = yield from self._asked_model(asker, body, ticket.request, bill)
            yield from compute(partial(self._learn_explored, doubted, ticket, entry, is_same))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note("check", exc)
        finally:  # it may be cut off, and what was asked was paid for even so
            self._note_explored(doubted, ticket, is_same, bill.usd)

    def _learn_explored(self, doubted: Doubted, ticket: Ticket, entry: Entry, is_same: bool | None) -> None:
        if is_same is not None and self._cache is not None:
            self._cache.learn(doubted.weighed, "explore", is_same=is_same)
        if is_same is False and ticket.outcome.is_stored:
            self._observe(entry.key, doubted.weighed.similarity, source="explore")

    def _note_explored(
        self, doubted: Doubted, ticket: Ticket, is_same: bool | None, cost_usd: float | None = None
    ) -> None:
        pair = ticket.outcome.with_changes(
            key=doubted.entry.key,
            asked=ticket.fingerprint.key,
            scope=doubted.entry.scope,
            similarity=doubted.weighed.similarity,
            p_wrong=doubted.weighed.decision.p_wrong,
            model=doubted.entry.model,
        )
        self._note(pair, "explore", is_same, cost_usd)

    def _observe(self, key: str, similarity: float, *, source: Source) -> None:
        """Its answer is not that of a question so near: known of no guard."""
        if self._cache is not None:
            self._cache.observe(key, Observation(self._clock.time(), similarity, None, False, source))

    def _note(self, pair: Outcome, source: Source, is_same: bool | None, cost_usd: float | None = None) -> None:
        self._book(
            CheckEvent(
                at_s=self._clock.time(),
                source=source,
                key=pair.key,
                asked=pair.asked,
                scope=pair.scope,
                route=pair.route,
                model=pair.model,
                similarity=pair.similarity or 0.0,
                p_wrong=pair.p_wrong,
                is_same=is_same,
                cost_usd=cost_usd,
            )
        )


def weighed_of(hit: Outcome) -> Weighed:
    """What was decided on a semantic hit, as far as what was said of it tells."""
    p_wrong = hit.p_wrong or 0.0
    return Weighed(hit.key, 0, hit.similarity or 0.0, 1.0 - p_wrong, hit.route, Decision(True, p_wrong, 0.0))


def _both_said(cached: Entry, fresh: JSON) -> tuple[str, str] | None:
    """What both answers say, where both are text."""
    one, other = says(json.loads(cached.completion)), says(fresh)
    return None if one is None or other is None else (one, other)
