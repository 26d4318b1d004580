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
money, and no quality. Once bytes were handed on, nothing is asked again.

The flow runs where a request would be sent from (`llm_proxy.engine.effects.Launch`), so all who share the flight get
the answer that is handed on, whoever of them leaves meanwhile.

Source: FrugalGPT, arXiv 2305.05176; agreement: arXiv 2407.02348.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.route.base import Destination, Reply
from llm_proxy.types import JSON, Outcome, texts_of
from llm_proxy.wire.chat import usage_of
from llm_proxy.wire.recorder import recorder_for

from . import admission
from .call import Grade
from .effects import Flow, Held, compute, forward, hold

if TYPE_CHECKING:
    from llm_proxy.config import Config, RouteConfig
    from llm_proxy.observe.events import GradeSource, Troubles
    from llm_proxy.types import ChatRequest, Head, Outgoing

    from .call import Call
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock, Scorer, SecondOpinion
    from .settle import Settler

__all__ = ["Cascade"]

SCORING_S = 2.0
"""Longest wait for the scorer: it takes two passes of the encoder, and loads with the first answer."""

BESIDE_S = 60.0
"""Longest time for the answer of a judging or an agreeing model."""

_UNSEEN = "unseen"
_STREAM_OVERHEAD = 16  # as in `llm_proxy.wire.recorder`
_NOT_SENT = ("stream", "stream_options", "store", "metadata")
_NOT_OURS = "idempotency-key"  # it stands for one request, and others are sent before it
_LIMITS = ("max_tokens", "max_completion_tokens")


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
        self._scorer, self._opinion, self._clock, self._troubles = scorer, opinion, clock, troubles

    def steps(self, call: Call) -> tuple[tuple[str, str], ...]:
        """Whom a call asks in turn, pairs of backend and model, two or more; empty where it is asked in no cascade."""
        route = self._config.routes.get(call.destination.route)
        if route is None or not route.cascade or call.request.body.get("n") not in (None, 1):
            return ()
        if not (route.cascade_judge or route.cascade_agree_with or self._scorer.is_usable):
            return ()  # every answer would be given up
        ladder = self._dispatcher.ladder(call.request, call.destination)
        return () if len(ladder) < 2 else (*ladder[: min(route.cascade_steps, len(ladder)) - 1], ladder[-1])

    def turn_to(self, call: Call, step: tuple[str, str]) -> Outgoing:
        """Turn a call to one of its steps; what is to be sent there."""
        backend, model = step
        call.destination = replace(call.destination, backend=backend, model=model)
        if call.ticket is not None:
            call.ticket.asked_s, call.ticket.outcome = self._clock.monotonic(), call.outcome
            call.ticket.grades = call.grades
        return self._dispatcher.request(call.request, call.destination)

    def asking(self, call: Call, steps: tuple[tuple[str, str], ...]) -> Flow[Head]:
        """Ask one after the other; the head of the answer that is handed on.

        Raises:
            Exception: Whatever the face's HTTP library raises while the last one is asked.
        """
        sent = call.sent
        for step in steps[:-1]:
            head = yield from self._tried(call, self.turn_to(call, step), sent)
            if head is not None:
                return head
        call.tried += (steps[-1][1],)
        outgoing = self.turn_to(call, steps[-1])
        self._settler.sent(call.outcome, sent)
        return (yield from forward((yield from self._gate.enter(call, outgoing))))

    def _tried(self, call: Call, outgoing: Outgoing, sent: object) -> Flow[Head | None]:
        """The answer of one step where it is good enough; else None, and what it took is booked."""
        self._settler.sent(call.outcome, sent)
        started_s = self._clock.monotonic()
        held = yield from self._held(call, outgoing)
        took_s = self._clock.monotonic() - started_s
        thought = _Thought(held is not None, "failed" if held is None else _UNSEEN)
        if held is not None and (held.is_whole or held.head.status != 200):
            completion = self._completion(held)
            thought = yield from self._thought_of(call, held.head.status, completion)
            if not thought.is_good and completion is not None:
                yield from self._book(call, outgoing, completion, took_s)
        call.tried += (f"{outgoing.model} {thought.words}",)
        if thought.source is not None:
            call.grades += (Grade(outgoing.backend, outgoing.model, thought.source, thought.score, thought.tokens),)
        if held is None or not thought.is_good:
            self._settler.given_up(call.outcome, sent, status=held.head.status if held is not None else 0)
            return None
        if call.ticket is not None:
            call.ticket.outcome, call.ticket.is_storable = call.outcome, thought.words != _UNSEEN
            call.ticket.grades = call.grades
        return held.head

    def _held(self, call: Call, outgoing: Outgoing) -> Flow[Held | None]:
        limit_bytes, limit_s = self._config.cache.max_entry_bytes, float("inf")
        if call.request.is_stream:
            limit_bytes, limit_s = limit_bytes * _STREAM_OVERHEAD, self._route(call).cascade_buffer_s
        try:
            admitted = yield from self._gate.enter(call, _without_key(outgoing))
            return (yield from hold(admitted, limit_bytes=limit_bytes, limit_s=limit_s))
        except Exception:  # noqa: BLE001 - of any HTTP library: the next candidate is asked
            return None

    def _thought_of(self, call: Call, status: int, completion: JSON | None) -> Flow[_Thought]:
        """What is thought of a whole answer."""
        try:
            said = _at_sight(call.request, status, completion)
            if said is not None or completion is None:
                return said or _Thought(False, "no-answer")
            route, text, usage = self._route(call), _text_of(completion), usage_of(completion)
            if route.cascade_agree_with:
                thought = yield from self._agreed(call, route.cascade_agree_with, text)
            elif route.cascade_judge:
                thought = yield from self._judged(call, route.cascade_judge, text)
            else:
                thought = yield from self._scored(call, route.cascade_bar, _answer_of(completion, text))
            return thought._replace(tokens=usage.completion_tokens if usage else None)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the next candidate is asked
            self._troubles.note("cascade", exc)
            return _Thought(False, "trouble")

    def _scored(self, call: Call, bar: float, answer: Reply) -> Flow[_Thought]:
        encoding = call.ticket.encoding if call.ticket is not None else None
        score = partial(self._scorer.score, call.request.question, answer, encoding)
        p_right = yield from compute(score, SCORING_S)
        return _Thought(p_right >= bar, f"{p_right:.2f}", "score", p_right)

    def _agreed(self, call: Call, named: str, text: str) -> Flow[_Thought]:
        other = yield from self._asked(call, named, _plainly(call.request))
        if other is None:
            return _Thought(False, "alone")
        is_same = yield from compute(partial(self._opinion.agree, text, _text_of(other)), SCORING_S)
        return _Thought(is_same, "agreed" if is_same else "alone", "agreement", float(is_same))

    def _judged(self, call: Call, named: str, text: str) -> Flow[_Thought]:
        body = self._opinion.judging(named.partition("/")[2], call.request.question, text)
        said = yield from self._asked(call, named, replace(call.request, body=body, raw=_raw(body)))
        if said is None:
            return _Thought(False, "doubted")
        is_right = self._opinion.approves(_text_of(said))
        return _Thought(is_right, "approved" if is_right else "doubted", "judge", float(is_right))

    def _asked(self, call: Call, named: str, request: ChatRequest) -> Flow[JSON | None]:
        """The whole answer of a model beside the cascade, which is booked; None where it gives none."""
        backend, _, model = named.partition("/")
        outgoing = self._dispatcher.request(request, Destination("", backend=backend, model=model))
        outgoing = replace(outgoing, timeout_s=min(outgoing.timeout_s or BESIDE_S, BESIDE_S))
        started_s, limit_bytes = self._clock.monotonic(), self._config.cache.max_entry_bytes
        admitted = yield from self._gate.enter(call, _without_key(outgoing))
        held = yield from hold(admitted, limit_bytes=limit_bytes, limit_s=BESIDE_S, keeps_rest=False)
        completion = self._completion(held) if held.head.status == 200 else None
        if completion is None:
            return None
        yield from self._book(call, outgoing, completion, self._clock.monotonic() - started_s)
        return None if admission.rejection(completion) else completion

    def _book(self, call: Call, outgoing: Outgoing, completion: JSON, took_s: float) -> Flow[None]:
        """Book an answer that the caller does not get."""
        asked = Outcome("miss", backend=outgoing.backend, model=outgoing.model)
        try:
            call.spent_usd += yield from compute(partial(self._settler.tried, call.request, asked, completion, took_s))
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on
            self._troubles.note("cascade", exc)
        if call.ticket is not None:  # booked from there if its caller leaves before the end
            call.ticket.outcome = call.outcome

    def _completion(self, held: Held) -> JSON | None:
        recorder = recorder_for(held.head.headers, limit_bytes=self._config.cache.max_entry_bytes)
        if recorder is None:
            return None
        recorder.feed(held.body)
        recorder.end()
        return recorder.completion()

    def _route(self, call: Call) -> RouteConfig:
        return self._config.routes[call.destination.route]


class _Thought(NamedTuple):
    """Whether an answer is good enough, and why in a word; a number is the probability that it is right.

    Where somebody looked at what it says: who, what came of it in [0, 1], and how long the answer is.
    """

    is_good: bool
    words: str
    source: GradeSource | None = None
    score: float = 0.0
    tokens: int | None = None


def _at_sight(request: ChatRequest, status: int, completion: JSON | None) -> _Thought | None:
    """What can be said of an answer by its form alone; None where it has to be read."""
    if status != 200:
        return _Thought(False, f"status-{status}")
    rejection = admission.rejection(completion)
    is_cut_as_asked = rejection == "finish-length" and any(request.body.get(name) for name in _LIMITS)
    if completion is None or (rejection and not is_cut_as_asked):
        return _Thought(False, rejection)
    message = completion["choices"][0]["message"]
    if is_cut_as_asked and (message.get("refusal") or not (_text_of(completion).strip() or message.get("tool_calls"))):
        return _Thought(False, "refusal" if message.get("refusal") else "empty")
    calls = [call.get("function") for call in message.get("tool_calls") or ()] or [message.get("function_call")]
    if any(calls) or message.get("tool_calls"):
        is_sound = all(_is_json(call["arguments"]) for call in calls if call)
        return _Thought(is_sound, "call" if is_sound else "bad-call")
    form = request.body.get("response_format")
    if isinstance(form, dict) and str(form.get("type")).startswith("json"):
        is_sound = _is_json(_text_of(completion))
        return _Thought(is_sound, "json" if is_sound else "bad-json")
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _text_of(completion: JSON) -> str:
    return "\n".join(texts_of(completion["choices"][0]["message"].get("content")))


def _answer_of(completion: JSON, text: str) -> Reply:
    choice = completion["choices"][0]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    logprobs = tuple(float(token["logprob"]) for token in tokens)
    return Reply(text, finish_reason=str(choice.get("finish_reason") or ""), logprobs=logprobs)


def _plainly(request: ChatRequest) -> ChatRequest:
    """The same request for an answer in one piece, that leaves nothing behind upstream."""
    body = {name: value for name, value in request.body.items() if name not in _NOT_SENT}
    return replace(request, body=body, raw=_raw(body))


def _without_key(outgoing: Outgoing) -> Outgoing:
    return replace(outgoing, headers=[(name, value) for name, value in outgoing.headers if name != _NOT_OURS])


def _raw(body: JSON) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
