"""A cascade: a cheap model is asked first, its answer is looked at, and a stronger one is asked where it is doubtful.

::

    steps    the candidates that can take the request, weakest first: `cascade_steps` at most, the last the strongest
    held     all but the last are asked, and their answers held back ── good enough? ── yes: handed on as it came
               │ no, cut, empty, an error, or nobody can tell
    last     is asked, and its answer is handed on as it comes

Good enough is what could not be held back to its end: it is too long, or a stream that takes longer than
`cascade_buffer_s`, whose caller has waited long enough. So is a well-formed call of a tool, and JSON where it was asked
for. Of texts it is those that the scorer gives `cascade_bar` or more, that the judging model takes for right, or that a
second cheap model agrees with. Whatever goes wrong while an answer is looked at, the next candidate is asked: it costs
money, and no quality. Where the last one fails, the best of the answers that were doubtful but whole is handed on, and
not stored. Once bytes were handed on, nothing is asked again.

Whether a route that says ``cascade = "auto"`` asks in a cascade is for `llm_proxy.route.ways` to say, by what cascades
of its calls have seen.

The flow runs where a request would be sent from (`llm_proxy.engine.effects.Launch`), so all who share the flight get
the answer that is handed on, whoever of them leaves meanwhile.

Source: FrugalGPT, arXiv 2305.05176; agreement: arXiv 2407.02348.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.errors import LimitReached
from llm_proxy.route.base import Destination, Reply
from llm_proxy.route.looks import Look
from llm_proxy.types import CHAT, JSON, Outcome
from llm_proxy.wire.chat import usage_of
from llm_proxy.wire.recorder import recorder_for

from . import admission
from .call import Grade
from .copies import plainly, raw_of, within, without_key
from .effects import Flow, Held, Late, background, compute, forward, hold
from .exemplars import TAUGHT
from .sight import Thought, at_sight, reply_of, text_of
from .vain import came_of, is_late, prompt_of

if TYPE_CHECKING:
    from llm_proxy.config import Config, RouteConfig
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import ChatRequest, Head, Outgoing, Usage

    from .call import Call
    from .flights import Ticket
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock, Scorer, SecondOpinion
    from .settle import Settler

__all__ = ["Cascade"]

SCORING_S = 2.0
"""Longest wait for the scorer: it takes two passes of the encoder, and loads with the first answer."""

_UNSEEN, _KEPT_BACK = "unseen", ("busy", "over-budget")
_STREAM_OVERHEAD = 16  # as in `llm_proxy.wire.recorder`

Steps = tuple[tuple[str, str], ...]


class _Trial(NamedTuple):
    """One candidate's answer: what was thought of it, and what it cost where its caller does not get it."""

    step: tuple[str, str]
    thought: Thought
    head: Head | None = None
    text: str = ""
    usd: float = 0.0
    is_checked: bool = False
    is_taught: bool = False


class Cascade:
    """Asks the candidates of a route one after the other. One a runtime; thread-safe as far as its parts are."""

    def __init__(
        self,
        config: Config,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        gate: Gate,
        scorer: Scorer,
        opinion: SecondOpinion,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._dispatcher, self._settler, self._gate = config, dispatcher, settler, gate
        self.scorer, self._opinion, self._clock, self._troubles = scorer, opinion, clock, troubles

    def steps(self, call: Call) -> Steps:
        """Whom a call asks in turn, pairs of backend and model, two or more; empty where it is asked in no cascade."""
        route = self._config.routes.get(call.destination.route)
        is_one = call.request.api == CHAT and call.request.body.get("n") in (None, 1)
        if route is None or not route.cascade or not is_one:
            return ()
        if not (route.cascade_judge or route.cascade_agree_with or self.scorer.is_usable):
            return ()  # every answer would be given up
        ladder = self._dispatcher.ladder(call.request, call.destination)
        return () if len(ladder) < 2 else (*ladder[: min(route.cascade_steps, len(ladder)) - 1], ladder[-1])

    def is_weighed(self, call: Call) -> bool:
        """Whether the route of a call that has steps left it open whether they are gone."""
        return self._route(call).cascade == "auto"

    def weighed(self, call: Call, steps: Steps) -> Steps:
        """The steps of a call whose route left it open, and whose selector has decided; empty to do what that says."""
        named = call.destination.backend, call.destination.model
        try:
            choice = self._dispatcher.way(call)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the selector's choice
            self._troubles.note("cascade", exc)
            return ()
        call.reason = f"{call.reason}; {choice.reason}"
        if choice.way == "select":
            return ()
        if call.ticket is not None:  # what asking again costs is not what the selector thought
            call.ticket.rivals, call.ticket.foretold_tokens = (), None
        call.word, call.is_checked = choice.word, choice.is_checked and named == steps[-1]
        return steps if named in (steps[0], steps[-1]) else (named, steps[-1])

    def turn_to(self, call: Call, step: tuple[str, str]) -> Outgoing:
        """Turn a call to one of its steps; what is to be sent there."""
        backend, model = step
        call.destination = replace(call.destination, backend=backend, model=model)
        if call.ticket is not None:
            call.ticket.asked_s, call.ticket.outcome = self._clock.monotonic(), call.outcome
            call.ticket.grades = call.grades
        return self._dispatcher.request(call.request, call.destination)

    def asking(self, call: Call, steps: Steps) -> Flow[Head]:
        """Ask one after the other; the head of the answer that is handed on.

        Raises:
            Exception: Whatever the face's HTTP library raises while the last one is asked, where no answer is at hand.
        """
        sent, trials = call.sent, list[_Trial]()
        for step in steps[:-1]:
            trial = yield from self._tried(call, step, sent)
            trials.append(trial)
            if trial.head is not None and trial.thought.is_good:
                self._look(call, steps, trials)
                return trial.head
            if trial.is_checked:
                break
        call.tried += (steps[-1][1],)
        outgoing = self.turn_to(call, steps[-1])
        self._settler.sent(call.outcome, sent)
        self._look(call, steps, trials)
        kept = max((trial for trial in trials[::-1] if trial.head), key=_p_right, default=None)
        if kept is not None and kept.head is not None:
            return (yield from self._last(call, outgoing, kept, kept.head))
        return (yield from forward((yield from self._gate.enter(call, outgoing))))

    def _tried(self, call: Call, step: tuple[str, str], sent: object) -> Flow[_Trial]:
        """The answer of one step; where it is not good enough, what it took is booked."""
        outgoing = self.turn_to(call, step)
        taught = self._dispatcher.with_examples(call.ticket, outgoing, call.call_id)
        self._settler.sent(call.outcome, sent)
        started_s, usd, is_checked = self._clock.monotonic(), 0.0, False
        held, thought = yield from self._held(call, taught or outgoing)
        took_s, text = self._clock.monotonic() - started_s, ""
        if held is not None and (held.is_whole or held.head.status != 200):
            completion = self._completion(held)
            thought = yield from self._thought_of(call, held.head.status, completion)
            is_checked = call.is_checked and thought.is_good and thought.is_whole
            thought = thought._replace(is_good=thought.is_good and not is_checked)
            if completion is not None:
                text = text_of(completion) if thought.is_whole else ""
                usd = 0.0 if thought.is_good else (yield from self._book(call, outgoing, completion, took_s))
            elif held.head.status == 200:
                yield from self._spend(call, outgoing, came_of(outgoing, held.head, held.body))
        call.tried += (f"{outgoing.model} {thought.words}",)
        if thought.source is not None:
            call.grades += (Grade(*step, thought.source, thought.p_right or 0.0, thought.tokens),)
        if taught is not None and (held is None or held.head.status != 200):
            self._dispatcher.without_examples(call.call_id, taught)  # nothing is known of what they help
        if held is None or not thought.is_good:
            if thought.words in _KEPT_BACK or (held is not None and self._is_loading(outgoing.backend, held)):
                self._settler.withdrawn(call.outcome, sent)
            else:
                self._settler.given_up(call.outcome, sent, status=held.head.status if held is not None else 0)
            head = held.head if held is not None and thought.is_whole else None
            return _Trial(step, thought, head, text, usd, is_checked, taught is not None)
        if taught is not None:
            call.add(TAUGHT)
        if call.ticket is not None:
            call.ticket.outcome, call.ticket.is_storable = call.outcome, thought.words != _UNSEEN
            call.ticket.grades = call.grades
            call.ticket.asked_s = self._clock.monotonic() - took_s  # what it took to look at it was not the model's
        return _Trial(step, thought, held.head, text)

    def _held(self, call: Call, outgoing: Outgoing) -> Flow[tuple[Held | None, Thought]]:
        limit_bytes, limit_s, wait_s = self._limits(call)
        outgoing = within(without_key(outgoing), wait_s, call.request.timeout_s)
        try:
            admitted = yield from self._gate.enter(call, outgoing)
            held = yield from hold(admitted, limit_bytes=limit_bytes, limit_s=limit_s, wait_s=wait_s)
        except LimitReached as exc:
            return None, Thought(False, exc.word)
        except Exception as exc:  # noqa: BLE001 - of any HTTP library: the next candidate is asked
            if is_late(exc):
                yield from self._spend(call, outgoing, prompt_of(outgoing))
            return None, Thought(False, "late" if isinstance(exc, Late) else "failed")
        return held, Thought(True, _UNSEEN, None)

    def _is_loading(self, backend: str, held: Held) -> bool:
        self._gate.saw(backend, held.head.status)
        return self._gate.loading_s(backend, held.head.status, held.body) > 0

    def _limits(self, call: Call) -> tuple[int, float, float]:
        """Of a candidate's answer: bytes, seconds that a stream is held back, and seconds that it is waited for."""
        limit_bytes, route = self._config.cache.max_entry_bytes, self._route(call)
        if call.request.is_stream:
            return limit_bytes * _STREAM_OVERHEAD, route.cascade_buffer_s, route.cascade_wait_s
        return limit_bytes, math.inf, route.cascade_wait_s

    def _last(self, call: Call, outgoing: Outgoing, kept: _Trial, at_hand: Head) -> Flow[Head]:
        """The last one's answer, or, where it fails, the best that was held; an error of the request itself stays."""
        limit_bytes, status, why = self._limits(call)[0], 0, "failed"
        limit_s = 0.0 if call.request.is_stream else math.inf  # whoever wants it whole loses nothing by waiting
        try:
            admitted = yield from self._gate.enter(call, outgoing)
            held = yield from hold(admitted, limit_bytes=limit_bytes, limit_s=limit_s)
            status = held.head.status
            if status != 429 and status < 500:
                return held.head
            why = f"status-{status}"
        except LimitReached as exc:
            why = exc.word
        except Exception as exc:  # noqa: BLE001 - of any HTTP library: there is an answer at hand
            if is_late(exc):
                yield from self._spend(call, outgoing, prompt_of(outgoing))
        if why in _KEPT_BACK:
            self._settler.withdrawn(call.outcome, call.sent)
        else:
            self._settler.given_up(call.outcome, call.sent, status=status)
        call.tried = (*call.tried[:-1], f"{outgoing.model} {why}", kept.step[1])
        call.spent_usd = max(0.0, call.spent_usd - kept.usd)  # it is what the caller gets
        call.detail = call.detail or "doubtful"
        if kept.is_taught:
            call.add(TAUGHT)
        self.turn_to(call, kept.step)
        if call.ticket is not None:
            call.ticket.is_storable, call.ticket.is_learnt, call.ticket.look = False, True, None
        return at_hand

    def _look(self, call: Call, steps: Steps, trials: Sequence[_Trial]) -> None:
        """Have the ways of a route compared by this call, where it leaves it open which to go."""
        if call.word is None or any(trial.thought.p_right is None for trial in trials):
            return
        try:
            route = self._route(call)
            beside = (route.cascade_agree_with or route.cascade_judge).partition("/")[::2]
            taken = self._dispatcher.taken(call.request, call.destination, steps, beside)
            if taken is None or not taken.is_known:
                return
            look = Look(
                call.word,
                is_last_named=call.word.named == "/".join(steps[-1]),
                taken=taken,
                p_right=[_p_right(trial) for trial in trials],
                is_escalated=not (trials[-1].thought.is_good or trials[-1].is_checked),
                read=sum(trial.thought.is_read for trial in trials),
                text=trials[0].text,
                is_checked=len(trials) == 1 and trials[0].is_checked,
            )
            if not trials[-1].thought.is_good and call.ticket is not None:
                call.ticket.look = look  # what the last one says tells more
            else:
                self._dispatcher.learn(look)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on
            self._troubles.note("cascade", exc)

    def looked(self, ticket: Ticket) -> Flow[None]:
        """Have the ways compared by a call whose last candidate was asked, once its answer is complete."""
        look, ticket.look = ticket.look, None
        if look is not None:
            completion = ticket.recorder.completion() if ticket.recorder else None
            yield from background(partial(self._compare, look, completion))

    def _compare(self, look: Look, completion: JSON | None) -> None:
        try:
            if admission.rejection(completion) == "" and completion is not None:
                is_same = self._opinion.compare(look.text, text_of(completion)) if look.text else None
                self._dispatcher.learn(look, is_same)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: nobody waits for it
            self._troubles.note("cascade", exc)

    def _thought_of(self, call: Call, status: int, completion: JSON | None) -> Flow[Thought]:
        """What is thought of a whole answer."""
        is_whole = False
        try:
            said = at_sight(call.request, status, completion)
            if said is not None or completion is None:
                return said or Thought(False, "no-answer")
            route, text, usage, is_whole = self._route(call), text_of(completion), usage_of(completion), True
            if route.cascade_agree_with:
                thought = yield from self._agreed(call, route.cascade_agree_with, text)
            elif route.cascade_judge:
                thought = yield from self._judged(call, route.cascade_judge, text)
            else:
                thought = yield from self._scored(call, route.cascade_bar, reply_of(completion, text))
            return thought._replace(tokens=usage.completion_tokens if usage else None)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the next candidate is asked
            self._troubles.note("cascade", exc)
            return Thought(False, "trouble", None, is_whole)

    def _scored(self, call: Call, bar: float, answer: Reply) -> Flow[Thought]:
        encoding = call.ticket.encoding if call.ticket is not None else None
        score = partial(self.scorer.score, call.request.question, answer, encoding)
        p_right = yield from compute(score, SCORING_S)
        return Thought(p_right >= bar, f"{p_right:.2f}", p_right, is_whole=True, source="score")

    def _agreed(self, call: Call, named: str, text: str) -> Flow[Thought]:
        other = yield from self._asked(call, named, plainly(call.request))
        doubt = Thought(False, "alone", is_whole=True, is_read=True)
        if other is None:
            return doubt
        is_same = yield from compute(partial(self._opinion.agree, text, text_of(other)), SCORING_S)
        doubt = doubt._replace(source="agreement")
        return doubt._replace(is_good=True, words="agreed", p_right=1.0) if is_same else doubt

    def _judged(self, call: Call, named: str, text: str) -> Flow[Thought]:
        body = self._opinion.judging(named.partition("/")[2], call.request.question, text)
        said = yield from self._asked(call, named, replace(call.request, body=body, raw=raw_of(body)))
        doubt = Thought(False, "doubted", is_whole=True, is_read=True, source=None if said is None else "judge")
        if said is None or not self._opinion.approves(text_of(said)):
            return doubt
        return doubt._replace(is_good=True, words="approved", p_right=1.0)

    def _asked(self, call: Call, named: str, request: ChatRequest) -> Flow[JSON | None]:
        """The whole answer of a model beside the cascade, which is booked; None where it gives none."""
        backend, _, model = named.partition("/")
        outgoing = self._dispatcher.request(request, Destination("", backend=backend, model=model))
        wait_s, limit_bytes = self._route(call).cascade_wait_s, self._config.cache.max_entry_bytes
        outgoing = within(without_key(outgoing), wait_s, None)
        started_s = self._clock.monotonic()
        admitted = yield from self._gate.enter(call, outgoing)
        try:
            held = yield from hold(admitted, limit_bytes=limit_bytes, limit_s=wait_s, keeps_rest=False, wait_s=wait_s)
        except Exception as exc:
            if is_late(exc):
                yield from self._spend(call, outgoing, prompt_of(outgoing))
            raise
        if held.head.status != 200:
            return None
        completion = self._completion(held)
        if completion is None:
            yield from self._spend(call, outgoing, came_of(outgoing, held.head, held.body))
            return None
        yield from self._book(call, outgoing, completion, self._clock.monotonic() - started_s)
        return None if admission.rejection(completion) else completion

    def _book(self, call: Call, outgoing: Outgoing, completion: JSON, took_s: float) -> Flow[float]:
        """Book an answer that the caller does not get; what it cost, dollars."""
        asked = Outcome("miss", backend=outgoing.backend, model=outgoing.model)
        return (yield from self._paid(call, partial(self._settler.tried, call.request, asked, completion, took_s)))

    def _spend(self, call: Call, outgoing: Outgoing, usage: Usage) -> Flow[float]:
        """Book a request without an answer; what it cost, dollars."""
        asked = Outcome("miss", backend=outgoing.backend, model=outgoing.model)
        return (yield from self._paid(call, partial(self._settler.price_usd, usage, asked)))

    def _paid(self, call: Call, usd_of: Callable[[], float]) -> Flow[float]:
        usd = 0.0
        try:
            usd = yield from compute(usd_of)
            call.spent_usd += usd
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on
            self._troubles.note("cascade", exc)
        if call.ticket is not None:  # booked from there if its caller leaves before the end
            call.ticket.outcome = call.outcome
        return usd

    def _completion(self, held: Held) -> JSON | None:
        recorder = recorder_for(held.head.headers, limit_bytes=self._config.cache.max_entry_bytes)
        if recorder is None:
            return None
        recorder.feed(held.body)
        recorder.end()
        return recorder.completion()

    def _route(self, call: Call) -> RouteConfig:
        return self._config.routes[call.destination.route]


def _p_right(trial: _Trial) -> float:
    return trial.thought.p_right or 0.0
