"""What happens once an answer is complete: admission, store, index, eviction, and the event of the call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.cache.entry import Entry
from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.observe.events import CallEvent
from llm_proxy.route.base import Expected, Finished
from llm_proxy.types import Usage
from llm_proxy.wire.chat import answering_model, response_says_no_store, unpredicted, usage_of, without_prediction

from . import admission
from .asked import asked_by
from .effects import Flow, background, compute
from .fingerprint import narrowed
from .ports import as_shared
from .vain import counted, estimated, less, sent_tokens

if TYPE_CHECKING:
    from llm_proxy.cache.base import AnswerCache, Attachable
    from llm_proxy.config import CacheConfig
    from llm_proxy.observe.events import Sink, Troubles
    from llm_proxy.types import JSON, ChatRequest, Outcome

    from .flights import Ticket
    from .ports import Appraiser, Clock, Pricer, QuestionEncoder, Watch

__all__ = ["Settler", "attach_vector"]

_VAGUE = ("aborted", "incomplete")  # the recorder knows better: most clients leave when a body is no answer


class Settler:
    """Ends calls. One a runtime; thread-safe as far as its parts are."""

    def __init__(
        self,
        settings: CacheConfig,
        *,
        cache: AnswerCache | None,
        encoder: QuestionEncoder | None,
        prices: Pricer,
        clock: Clock,
        troubles: Troubles,
        sink: Sink,
        appraiser: Appraiser | None = None,
        watch: Watch | None = None,
        keeps_questions: bool = False,
    ) -> None:
        self._settings, self._appraiser, self._watch = settings, appraiser, watch
        self._cache, self._encoder, self._prices = cache, encoder, prices
        self._clock, self._troubles, self._sink = clock, troubles, sink
        self._keeps_questions = keeps_questions

    def settle(self, ticket: Ticket) -> Flow[None]:
        """Store a complete answer where it may be stored; runs once, before its terminal chunk is handed on."""
        if ticket.is_settled:
            return
        ticket.is_settled = True
        self._ended(ticket.outcome, ticket, is_well=True)
        completion: JSON | None = None
        try:
            completion = ticket.recorder.completion() if ticket.recorder else None
            self._learn(ticket, _counted(ticket, completion))
            yield from self._store(ticket, completion)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: a caller never pays for the cache
            self._troubles.note("cache", exc)
            ticket.outcome = ticket.outcome.with_changes(is_stored=False, detail="trouble")
        finally:  # the last caller may leave while the store is writing, and the call is booked even so
            self._emit(ticket, usage=_counted(ticket, completion))

    def lost(self, ticket: Ticket, reason: str) -> None:
        """Book an answer that ended without its terminal event; nothing is stored.

        Args:
            ticket: The call's; what its recorder says of the body comes first.
            reason: ``aborted``, ``incomplete``, or the name of the error that broke it off.
        """
        if ticket.is_settled:
            return
        ticket.is_settled = True
        known = ticket.recorder.reason if ticket.recorder and reason in _VAGUE else "unfinished"
        ticket.outcome = ticket.outcome.with_changes(is_stored=False)
        if known == "too-large":  # a large answer is no error
            ticket.outcome = ticket.outcome.with_changes(detail=known)
        else:
            ticket.error = reason if known == "unfinished" else f"body-{known}"
        self._ended(ticket.outcome, ticket, is_well=None if ticket.error == "aborted" else not ticket.error)
        self._emit(ticket)

    def followed(self, request: ChatRequest, ticket: Ticket, started_s: float) -> None:
        """Book a call that shared the answer of an identical one, ``ticket``'s; its tokens are booked there."""
        self._sink(
            CallEvent(
                at_s=request.received_s,
                outcome=as_shared(ticket.outcome),
                latency_s=self._clock.monotonic() - started_s,
                is_stream=request.is_stream,
                error=ticket.error if ticket.is_settled else "aborted",
                **asked_by(request, keeps_questions=self._keeps_questions),
            )
        )

    def hit(self, request: ChatRequest, entry: Entry, outcome: Outcome, started_s: float) -> bool:
        """Book a hit; the entry's worth grows by it. Returns whether `tend` is due."""
        try:
            is_due = self._cache is not None and self._cache.hit(entry.key)
        except CacheError as exc:
            self._troubles.note("cache", exc)
            is_due = False
        latency_s = self._clock.monotonic() - started_s
        self._sink(
            CallEvent(
                at_s=request.received_s,
                outcome=outcome,
                latency_s=latency_s,
                saved_s=max(0.0, entry.latency_s - latency_s),
                is_stream=request.is_stream,
                **asked_by(request, keeps_questions=self._keeps_questions),
            )
        )
        return is_due

    def tend(self) -> Flow[None]:
        """Have what hits changed written, in the background: a hit itself waits for no disk."""
        try:
            yield from background(self._tend)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: a caller never pays for the cache
            self._troubles.note("cache", exc)

    def sent(self, outcome: Outcome, call: object) -> None:
        """Have it known that a request is under way, which ``call`` stands for until its answer is over."""
        if self._watch is not None:
            self._watch.began(outcome.backend, call, model=outcome.model)

    def passed(
        self,
        request: ChatRequest,
        outcome: Outcome,
        started_s: float,
        *,
        status: int,
        error: str = "",
        sent: object | None = None,
    ) -> None:
        """Book a call whose answer is not recorded: bypassed, refused or failed.

        Args:
            request: The call.
            outcome: What is known of it.
            started_s: Monotonic time of arrival.
            status: HTTP status; 0 where none came.
            error: Name of what was raised, or ``aborted``; empty where a status came.
            sent: What stood for its request, see `sent`; None where none was sent.
        """
        if sent is not None:
            self._ended(outcome, sent, is_well=_is_well(status, error))
        if 200 <= status < 300:  # what this answer costs is not known, only what a cascade spent before it
            outcome = outcome.with_changes(cost_usd=None)
        latency_s = self._clock.monotonic() - started_s
        self._sink(
            CallEvent(
                at_s=request.received_s,
                outcome=outcome,
                latency_s=latency_s,
                http_status=status,
                is_stream=request.is_stream,
                error=error,
                **asked_by(request, keeps_questions=self._keeps_questions),
            )
        )

    def keep(self, ticket: Ticket, completion: JSON) -> bool:
        """Store an answer that no caller waited for, where it may be stored; it is not booked."""
        return self._cache is not None and self._admit(ticket, completion, self._cache)

    def _ended(
        self,
        outcome: Outcome,
        call: object,
        *,
        is_well: bool | None,
        is_refused: bool = False,
        asked_s: float = 0.0,
    ) -> None:
        if self._watch is not None:
            names = outcome.backend, outcome.model
            self._watch.ended(*names, call, is_well=is_well, is_refused=is_refused, asked_s=asked_s)

    def given_up(
        self, outcome: Outcome, call: object, *, status: int, is_refused: bool = False, asked_s: float = 0.0
    ) -> None:
        """Have it known that a request is over, and brought no answer that is handed on; see `Watch.ended`.

        Args:
            outcome: Names the backend and the model.
            call: As for `sent`.
            status: HTTP status; 0 where none came. A 200 whose body is an error, or breaks off, counts as 0.
            is_refused: There was no connection.
            asked_s: How long the backend asked to be left alone, seconds.
        """
        self._ended(outcome, call, is_well=_is_well(status, "failed"), is_refused=is_refused, asked_s=asked_s)

    def withdrawn(self, outcome: Outcome, call: object) -> None:
        """Have it known that a request that `sent` announced is not sent: that says nothing of its backend."""
        self._ended(outcome, call, is_well=None)

    def tried(self, request: ChatRequest, asked: Outcome, completion: JSON, latency_s: float) -> float:
        """Have the estimates learn from an answer that its caller does not get.

        Args:
            request: The call that was sent.
            asked: Names the backend and the model.
            completion: The answer.
            latency_s: What it took, seconds.

        Returns:
            What it cost, dollars; 0 where that is not known.
        """
        usage = usage_of(completion, prompt_tokens=_prompt_tokens(request))
        if usage is not None and self._appraiser is not None:
            counts = usage.prompt_tokens, usage.completion_tokens
            self._appraiser.observe(Finished(asked.backend, asked.model, *counts, latency_s))
        return self.price_usd(usage or counted(completion, _prompt_tokens(request)), asked)

    def let_go(self, outcome: Outcome, call: object) -> None:
        """Have it known that a request was cancelled, which says nothing of its backend."""
        self._ended(outcome, call, is_well=None)

    def price_usd(self, usage: Usage, asked: Outcome) -> float:
        """What so many tokens cost at the model that an outcome names, dollars; 0 where that is not known."""
        return self._prices.cost_usd(usage, model=asked.model, backend=asked.backend) or 0.0

    def _tend(self) -> None:
        try:
            if self._cache is not None:
                self._cache.tend()
        except CacheError as exc:
            self._troubles.note("cache", exc)

    def _emit(self, ticket: Ticket, *, usage: Usage | None = None) -> None:
        self._sink(
            CallEvent(
                at_s=ticket.request.received_s,
                outcome=ticket.outcome,
                latency_s=self._clock.monotonic() - ticket.started_s,
                http_status=200 if ticket.recorder is not None else 0,  # only such answers are recorded
                usage=usage,
                is_stream=ticket.request.is_stream,
                error=ticket.error,
                **asked_by(ticket.request, keeps_questions=self._keeps_questions),
            )
        )

    def _store(self, ticket: Ticket, completion: JSON | None) -> Flow[None]:
        reason = admission.rejection_for(ticket.request, completion)
        reason = reason or ("mixed" if ticket.recorder and ticket.recorder.is_mixed else "")
        reason = reason or ("" if ticket.is_storable else "unseen")
        if completion is None or reason:
            ticket.outcome = ticket.outcome.with_changes(
                is_stored=False, detail=ticket.outcome.detail or reason, cost_usd=self._all_usd(ticket, completion)
            )
            return
        if self._cache is None:
            return
        is_stored = yield from compute(partial(self._admit, ticket, completion, self._cache))
        ticket.outcome = ticket.outcome.with_changes(is_stored=is_stored)
        entry = ticket.entry
        if is_stored and entry is not None and entry.text and entry.vector is None and self._encoder is not None:
            yield from background(partial(self._attach, entry, self._cache, self._encoder))

    def _all_usd(self, ticket: Ticket, completion: JSON | None) -> float | None:
        """What a call cost whose answer is not stored, the tries of a cascade included; None where nobody knows."""
        usage = _counted(ticket, completion) or estimated(completion, _all_prompt_tokens(ticket))
        model = answering_model(completion or {}) or ticket.outcome.model
        cost_usd = None if usage is None else self._cost_usd(usage, model, ticket)
        return None if cost_usd is None else cost_usd + (ticket.outcome.cost_usd or 0.0)

    def _admit(self, ticket: Ticket, completion: JSON, cache: AnswerCache) -> bool:
        entry = ticket.entry = self._entry(ticket, completion)
        if self._settings.obey_no_store and response_says_no_store(ticket.head_headers):
            ticket.outcome = ticket.outcome.with_changes(detail="no-store")
            return False
        return cache.admit(entry)

    def _entry(self, ticket: Ticket, completion: JSON) -> Entry:
        """The entry of an answer, and to the call's outcome what it cost: the two differ, see `_worth`."""
        request, outcome, print_ = ticket.request, ticket.outcome, ticket.fingerprint
        now_s, latency_s = self._clock.time(), self._clock.monotonic() - ticket.started_s
        usage = usage_of(completion, prompt_tokens=_prompt_tokens(request))
        raw = (ticket.recorder.raw_completion() if ticket.recorder else None) or b""
        raw = without_prediction(completion) if ticket.is_predicted else raw
        model = answering_model(completion) or outcome.model
        text = "" if print_.text is None or admission.is_call_for(request, completion) else print_.text
        encoding = ticket.encoding if text and self._encoder is not None else None
        counts = usage or ticket.usage or counted(completion, _all_prompt_tokens(ticket))
        cost_usd = self._cost_usd(counts, model, ticket)
        again, again_usd = counts, cost_usd
        if ticket.is_predicted:
            again = unpredicted(counts)
            again_usd = self._cost_usd(again, model, ticket)
        worth = self._worth(ticket, again, latency_s=latency_s, cost_usd=again_usd)
        spent_usd = outcome.cost_usd or 0.0  # by a cascade, on answers that were given up
        ticket.outcome = outcome.with_changes(cost_usd=(cost_usd or 0.0) + spent_usd, model=model)
        return Entry(
            key=print_.key,
            scope=narrowed(print_.scope, text, encoding.seen_chars) if encoding else print_.scope,
            text=text,
            completion=raw,
            created_s=now_s,
            expires_s=None if self._settings.ttl_s is None else now_s + self._settings.ttl_s,
            model=model,
            backend=outcome.backend,
            cost_usd=max(0.0, worth.cost_usd + spent_usd),  # what was drafted may have been cheaper than it is worth
            wait_usd=worth.wait_usd,
            latency_s=latency_s,
            has_usage=usage is not None or request.wants_usage,
            encoder=self._encoder.name if encoding and self._encoder else "",
            vector=encoding.vector if encoding else None,
            seen_chars=encoding.seen_chars if encoding else 0,
            turns=print_.turns if text else (),
        )

    def _cost_usd(self, usage: Usage, model: str, ticket: Ticket) -> float | None:
        asked, own = ticket.outcome, less(usage, ticket.parted)
        return self._prices.cost_usd(
            own, model=model, asked=asked.model, backend=asked.backend, base_url=ticket.request.base_url
        )

    def _learn(self, ticket: Ticket, usage: Usage | None) -> None:
        """Have the estimates learn what the model that was asked has taken, whether its answer is stored or not."""
        if self._appraiser is not None and usage is not None and not ticket.is_learnt:
            asked_s = ticket.started_s if ticket.asked_s is None else ticket.asked_s
            usage = unpredicted(usage) if ticket.is_predicted else usage
            self._appraiser.observe(_finished(ticket, usage, self._clock.monotonic() - asked_s))

    def _worth(self, ticket: Ticket, usage: Usage, *, latency_s: float, cost_usd: float | None) -> Expected:
        """What the answer spares when it is served: what asking again is expected to cost, not what asking did cost.

        They are the same where the model was named. A route may have cheaper candidates that are good enough, and would
        choose them the next time: a hit saves no more than these.
        """
        asked = ticket.outcome
        spent = Expected(cost_usd or 0.0, self._prices.wait_usd(latency_s, backend=asked.backend))
        if self._appraiser is None:
            return spent
        return self._appraiser.again(_finished(ticket, usage, latency_s), cost_usd, ticket.rivals) or spent

    def _attach(self, entry: Entry, cache: AnswerCache, encoder: QuestionEncoder) -> None:
        try:
            attach_vector(entry, cache=cache, encoder=encoder)
        except LLMProxyError as exc:
            self._troubles.note("encoder", exc)


def attach_vector(entry: Entry, *, cache: Attachable, encoder: QuestionEncoder) -> None:
    """Encode the text of a stored entry, which has its scope not narrowed, and give it the vector."""
    encoding = encoder.encode(entry.text)
    cache.attach(
        entry.key,
        scope=narrowed(entry.scope, entry.text, encoding.seen_chars),
        vector=encoding.vector,
        encoder=encoder.name,
        seen_chars=encoding.seen_chars,
    )


def _finished(ticket: Ticket, usage: Usage, latency_s: float) -> Finished:
    """The call as the estimates see it; its outcome must still name the model that was asked."""
    asked = ticket.outcome
    counts = usage.prompt_tokens, usage.completion_tokens
    return Finished(asked.backend, asked.model, *counts, latency_s, ticket.foretold_tokens)


def _is_well(status: int, error: str) -> bool | None:
    """What a refused or passed call says of its backend; nothing where it may be the request's fault, or the key's."""
    if status == 0:
        return None if error == "aborted" else False
    if status == 429 or status >= 500:
        return False
    return True if status < 400 else None


def _counted(ticket: Ticket, completion: JSON | None) -> Usage | None:
    """Token counts of an answer that came to its end: what it says itself, or what is known else."""
    if completion is None:
        return None
    return usage_of(completion, prompt_tokens=_prompt_tokens(ticket.request)) or ticket.usage


def _prompt_tokens(request: ChatRequest) -> int:
    return sent_tokens(request.raw)


def _all_prompt_tokens(ticket: Ticket) -> int:
    return _prompt_tokens(ticket.request) + (ticket.parted.prompt_tokens if ticket.parted else 0)
