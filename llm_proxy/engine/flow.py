"""The life of a call, top to bottom: `Engine.answer`; at the terminal event, `llm_proxy.engine.settle`.

The engine is pure: it yields effects (`llm_proxy.engine.effects`) and never does I/O itself. Trouble inside it
never breaks a call: it is counted, logged once, and the call is forwarded as it came.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from llm_proxy.cache.turns import Turns
from llm_proxy.errors import CacheError, LimitReached, LLMProxyError, WireError
from llm_proxy.types import CHAT, Bypass, HitKind, Outcome
from llm_proxy.wire.apis import recorder_for, replay_as

from .call import Call
from .effects import Flow, Late, await_flight, board, compute, forward, launch
from .encoding import in_time
from .fingerprint import fingerprint, narrowed
from .flights import Failed, Joined, Lacking, Landed, Leading, Sharing, Ticket
from .ports import Answer, Live, Ready
from .refusing import absent
from .shadow import Doubted, Hit

if TYPE_CHECKING:
    from llm_proxy.cache.base import AnswerCache, Found, State
    from llm_proxy.cache.entry import Entry
    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import ChatRequest, Fingerprint, Head, Outgoing

    from .cascade import Cascade
    from .chains import Chains
    from .flights import Flight
    from .gate import Gate
    from .learn import Learner
    from .outgoing import Dispatcher
    from .ports import Clock, QuestionEncoder
    from .settle import Settler
    from .shadow import Checker

__all__ = ["Engine"]

_OPENING_S = 1.0  # a call waits no longer than this for the store to open: another process may have locked it


class Engine:
    """Decides what becomes of a call. One a runtime, shared by all faces; thread-safe as far as its parts are."""

    def __init__(
        self,
        config: Config,
        *,
        cache: AnswerCache | None,
        encoder: QuestionEncoder | None,
        dispatcher: Dispatcher,
        settler: Settler,
        checker: Checker,
        cascade: Cascade | None,
        learner: Learner,
        gate: Gate,
        chains: Chains,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config = config
        self._cache, self._encoder = cache, encoder
        self._dispatcher, self._settler, self._checker, self._cascade = dispatcher, settler, checker, cascade
        self._learner, self._gate, self._chains = learner, gate, chains
        self._clock, self._troubles = clock, troubles

    @property
    def cache_state(self) -> State | None:
        """How the cache is; None where there is none."""
        return None if self._cache is None else self._cache.state

    def answer(self, request: ChatRequest) -> Flow[Answer]:
        """The life of a call: 1 fingerprint, 2 exact lookup, 3 in-flight, 4 encode, 5 neighbours, 6 route, 8 forward.

        Step 9 is `Settler.settle`. Steps 6 to 8 of a route that asks one model after the other: `Cascade`.

        Raises:
            BackendUnavailable: No backend is configured for the model.
            Exception: Whatever the face's HTTP library raises while forwarding, unchanged.
        """
        call = Call(request, self._dispatcher.resolve(request), self._clock.monotonic())
        try:
            answer: Answer | None = None if request.api == CHAT else (yield from self._chains.refused(call))
            answer = answer or (yield from self._from_cache(call))
            if answer is None:
                try:
                    answer = yield from self._from_upstream(call)
                except LimitReached as exc:
                    answer = self._gate.refused(call, exc)
            else:
                if call.is_tending_due:
                    yield from self._settler.tend()
                if call.served is not None:
                    self._learner.served(call.served)
                    yield from self._checker.begin(call.served)
        except BaseException as exc:
            self._give_up(call, exc)
            raise
        return answer

    def _from_cache(self, call: Call) -> Flow[Answer | None]:
        try:
            return (yield from self._look_up(call))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call is forwarded as it came
            self._troubles.note("cache" if isinstance(exc, LLMProxyError) else "engine", exc)
            call.detail = "trouble"
            if call.fingerprint is None:
                call.bypass = "trouble"
            if call.led is None:
                call.leave()
            return None

    def _give_up(self, call: Call, exc: BaseException) -> None:
        """The call ends without an answer: its caller left, or the upstream gave none."""
        led = call.led
        if led is not None and (not call.is_sent or isinstance(exc, Exception)):
            led.fail()
        if led is None or (led.is_over and not led.ticket.is_settled):
            error = type(exc).__name__ if isinstance(exc, Exception) else "aborted"
            sent = call.sent if call.is_sent and not call.is_over else None
            self._settler.passed(call.request, call.outcome, call.started_s, status=0, error=error, sent=sent)
        else:  # others may wait for the answer: the flight books this call when it ends
            led.ticket.is_left = True
        call.leave()

    # -- 1 to 5: from the cache ----------------------------------------------------------------------------------

    def _look_up(self, call: Call) -> Flow[Answer | None]:
        controls = call.request.controls
        found = fingerprint(call.request, destination=call.destination.identity, settings=self._config.cache)
        if isinstance(found, Bypass) or self._cache is None:
            call.bypass = found.reason if isinstance(found, Bypass) else "disabled"
            return absent(call, self._settler) if controls.only_if_cached else None
        call.fingerprint = found
        if controls.no_cache:
            call.forward = "request"
            call.flight, call.seat = yield from board(self._new_ticket(call, found), is_shareable=False)
            return None
        cache = self._cache if self._cache.is_open else (yield from self._opened_cache(call, self._cache))
        if (hit := self._exact(call, found, cache)) is not None:
            return hit
        ticket = self._new_ticket(call, found)  # an exact hit does without
        if controls.only_if_cached:
            return (yield from self._semantic(call, ticket, cache)) or absent(call, self._settler)
        shared = yield from self._in_flight(call, ticket)
        if shared is not None:
            return shared
        if call.led is not None and call.led.has_forerunner:
            hit = self._exact(call, found, cache)
        return hit or (yield from self._semantic(call, ticket, cache))

    def _opened_cache(self, call: Call, cache: AnswerCache) -> Flow[AnswerCache | None]:
        """The cache once its store is open; None when it can't be opened, or not soon: the call is then a miss."""
        try:
            yield from compute(cache.open_store, _OPENING_S, is_quick=True)
        except Late:
            cache.note_timeout()
            call.forward, call.detail = "miss", "cache-late"
            return None
        except CacheError as exc:
            self._doubt(call, exc)
            return None
        return cache

    def _exact(self, call: Call, found: Fingerprint, cache: AnswerCache | None) -> Ready | None:
        try:
            entry = None if cache is None else cache.get(found.key)
            if entry is None or not self._may_serve(entry, call):
                return None
            return self._hit(call, entry, "exact", 1.0)
        except (CacheError, WireError) as exc:  # an entry that can't be read is asked for again, and replaced
            self._doubt(call, exc)
            return None

    def _doubt(self, call: Call, exc: Exception) -> None:
        self._troubles.note("cache", exc)
        call.forward, call.detail = "miss", "trouble"

    def _in_flight(self, call: Call, ticket: Ticket) -> Flow[Answer | None]:
        """Share the answer to an identical call under way; None when this call has to find its answer by itself."""
        for _ in range(2):  # when the answer lacks something, all callers who need that ask once more, together
            joined = yield from self._join(call, ticket)
            match joined:
                case Leading():
                    return None
                case Sharing(flight, seat, head):
                    seat.left = partial(self._settler.followed, call.request, flight.ticket, call.started_s)
                    return Live(head, flight.ticket.outcome, flight, seat, is_shared=True)
                case Landed(entry, known):
                    is_hit = known.status == "hit"
                    kind, similarity = (known.kind, known.similarity) if is_hit else ("exact", 1.0)
                    return self._hit(call, entry, kind, similarity, p_wrong=known.p_wrong, is_shared=True)
                case Lacking():
                    continue
                case Failed():
                    break
                case _:
                    assert_never(joined)
        # A failure is not shared: every caller who waited sends a request of its own.
        call.flight, call.seat = yield from board(ticket, is_shareable=False)
        return None

    def _join(self, call: Call, ticket: Ticket) -> Flow[Joined]:
        """Take a seat in the flight of this key, and wait until it is clear what it brings."""
        request = call.request
        flight, seat = call.flight, call.seat = yield from board(ticket, is_shareable=True)
        if flight.ticket is ticket:
            return Leading()
        is_same_form = flight.ticket.request.form == request.form
        # A stream is passed on as it comes. A plain answer is handed on whole, so the caller loses nothing by waiting
        # for its end, and a failure is seen in time to send a request of its own.
        to_the_end = not (is_same_form and request.is_stream)
        yield from await_flight(flight, to_the_end=to_the_end, wait_s=request.timeout_s)
        if is_same_form and flight.head is not None and flight.error is None:
            return Sharing(flight, seat, flight.head)
        call.leave()
        if flight.entry is None:
            return Failed()
        return Landed(flight.entry, flight.ticket.outcome) if self._may_serve(flight.entry, call) else Lacking()

    def _semantic(self, call: Call, ticket: Ticket, cache: AnswerCache | None) -> Flow[Answer | None]:
        encoder, text = self._encoder, ticket.fingerprint.text
        if text is None or cache is None or encoder is None or encoder.is_open:
            return None
        call.is_encoded = True
        search = partial(self._search, ticket, text, cache=cache, encoder=encoder)
        texts = (text, *ticket.fingerprint.turns, *ticket.fingerprint.turns)  # a turn in another's words, too
        try:
            found = yield from in_time(search, texts, encoder, self._config.encoder)
        except Late as late:
            call.detail = "encoder-late" if late.is_begun else "encoder-busy"
            return None
        if found is None:
            call.detail = "encoder-failed"
            return None
        encoder.note_success()
        entry, weighed, ticket.near = found.entry, found.weighed, found.near
        if entry is not None and weighed is not None and self._may_serve(entry, call):
            answer = self._hit(call, entry, "semantic", found.similarity, p_wrong=weighed.decision.p_wrong)
            call.served = Hit(call.request, entry, weighed, answer.outcome, ticket.fingerprint, ticket.encoding)
            return answer
        if found.doubted is not None and weighed is not None:
            ticket.doubted = Doubted(found.doubted, weighed)
        if found.refusal:
            call.detail = f"refused={found.refusal}; similarity={found.similarity:.3f}"
        return None

    def _search(self, ticket: Ticket, text: str, *, cache: AnswerCache, encoder: QuestionEncoder) -> Found | None:
        """Steps 4 and 5 in one piece: a second hop to a worker thread would cost more than the search itself."""
        try:
            encoding = ticket.encoding = encoder.encode(text)
        except LLMProxyError as exc:
            self._troubles.note("encoder", exc)
            return None
        scope = narrowed(ticket.fingerprint.scope, text, encoding.seen_chars)
        found = cache.nearest(
            scope,
            text,
            encoding.vector,
            encoder=encoder.name,
            max_age_s=ticket.request.controls.max_age_s,
            turns=Turns(ticket.fingerprint.turns, encoder.encode),
            route=ticket.outcome.route,
            may_explore=not ticket.request.controls.only_if_cached,
        )
        if found.damage is not None:
            self._troubles.note("evidence", found.damage)
        return found

    def _may_serve(self, entry: Entry, call: Call) -> bool:
        """Whether an entry may be served; else the call notes why not. Source: RFC 9211 section 2.2."""
        max_age_s = call.request.controls.max_age_s
        now_s = self._clock.time()
        if entry.is_expired(now_s):
            call.forward = "stale"
        elif max_age_s is not None and entry.age_s(now_s) > max_age_s:
            call.forward = "request"
        elif call.request.wants_usage and not entry.has_usage:
            call.forward = "miss"
        else:
            return True
        return False

    def _hit(
        self,
        call: Call,
        entry: Entry,
        kind: HitKind,
        similarity: float | None,
        *,
        p_wrong: float | None = None,
        is_shared: bool = False,
    ) -> Ready:
        request, is_semantic = call.request, kind == "semantic"
        outcome = Outcome(
            "hit",
            kind,
            key=entry.key,
            similarity=similarity,
            age_s=entry.age_s(self._clock.time()),
            backend=entry.backend,
            route=call.destination.route,
            model=entry.model,
            saved_usd=entry.cost_usd,
            is_shared=is_shared,
            asked=call.fingerprint.key if call.fingerprint else "",
            scope=entry.scope if is_semantic else "",
            p_wrong=p_wrong,
        )
        replayed = replay_as(entry.completion, request)
        if call.led is not None:
            call.led.ticket.outcome = outcome
            call.led.answer(entry)
        call.leave()
        call.is_tending_due = self._settler.hit(request, entry, outcome, call.started_s)
        return Ready(200, (("content-type", replayed.content_type), *outcome.headers), replayed.body, outcome)

    # -- 6 to 8: from upstream -----------------------------------------------------------------------------------

    def _from_upstream(self, call: Call) -> Flow[Answer]:
        call.call_id, led = self._learner.id_for(call), call.led
        outgoing, asking = yield from self._sending(call)
        call.is_sent = True
        if asking is None:
            self._settler.sent(call.outcome, call.sent)
        if led is None:
            head = yield from (forward(outgoing) if asking is None else asking)
        else:
            led.ticket.outcome = call.outcome
            head = yield from launch(outgoing, led, partial(self._opened, led), asking)
        self._gate.saw(call.destination.backend, head.status)
        if led is not None and led.head is not None:
            return Live(head, led.ticket.outcome, led, call.seat)
        sent = None if call.is_over else call.sent
        self._settler.passed(call.request, call.outcome, call.started_s, status=head.status, sent=sent)
        self._learner.passed(call, head.status)
        return Live(head, call.outcome)

    def _sending(self, call: Call) -> Flow[tuple[Outgoing, Flow[Head] | None]]:
        """What is sent, and the flow that sends it and more; None where that is all."""
        cascade = self._cascade
        steps = cascade.steps(call) if cascade is not None else ()
        if cascade is None or not steps or cascade.is_weighed(call):
            outgoing = yield from self._route(call)
            steps = cascade.weighed(call, steps) if cascade is not None and steps else ()
        if cascade is None or not steps:
            return outgoing, self._chains.asking(call, outgoing)
        return cascade.turn_to(call, steps[0]), cascade.asking(call, steps)

    def _route(self, call: Call) -> Flow[Outgoing]:
        if call.destination.route and not call.destination.backend:  # else it was turned to who can go on
            encoding = yield from self._dispatcher.encoded(call)
            decision = self._dispatcher.decide(call.request, call.destination, encoding, call.ticket)
            if call.ticket:
                call.ticket.rivals, call.ticket.foretold_tokens = decision.rivals, decision.foretold_tokens
            call.reason, call.by = decision.reason, decision.by
            call.destination = replace(call.destination, backend=decision.backend, model=decision.model)
        return self._dispatcher.request(call.request, call.destination)

    def _opened(self, flight: Flight, head: Head) -> None:
        limit_bytes, api = self._config.cache.max_entry_bytes, flight.ticket.request.api
        recorder = recorder_for(head.headers, limit_bytes=limit_bytes, api=api) if head.status == 200 else None
        if recorder is None:
            flight.fail()
            return
        flight.ticket.recorder, flight.ticket.head_headers = recorder, head.headers
        flight.open(head)

    def _settle(self, ticket: Ticket) -> Flow[None]:
        """Step 9; the answer also tells of an entry that was passed over because of its evidence."""
        asked = ticket.outcome
        yield from self._settler.settle(ticket)
        yield from self._checker.explore(ticket)
        yield from self._learner.settled(ticket, asked)
        if self._cascade is not None:
            yield from self._cascade.looked(ticket)

    def _new_ticket(self, call: Call, found: Fingerprint) -> Ticket:
        ticket = call.ticket = Ticket(
            request=call.request,
            fingerprint=found,
            outcome=call.outcome,
            started_s=call.started_s,
            settle=self._settle,
            lost=self._settler.lost,
        )
        return ticket
