"""Step 7: a small model drafts, and the one that was asked says how far it agrees; its own words are the answer.

::

    plan      may the call be drafted, and does it pay? ── no ──> sent as ever (`llm_proxy.engine.attempts`)
    draft     a few tokens of the small model               it is late, or fails: on without drafts
    score     prompt + confirmed + draft, in one request    it can't be told: sent as ever, from the start
    take      the longest beginning that the target agrees with, and its own next token (`llm_proxy.draft.confirmed`)
      └─ repeated until the answer is over; without a draft, the target goes on by itself for a stretch

A stream is handed on as it is confirmed: its body is one that breaks off after each step, and goes on with the next one
(`llm_proxy.engine.effects.Mend`). How long drafts are, and whether there are any, says `llm_proxy.draft.goodput`. All
requests pass the gate, and what they cost is the call's.

Source: Leviathan et al., arXiv 2211.17192; from the client: Liu et al., "TurboSpec", arXiv 2406.14066.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.backends.base import MODEL_CHARS
from llm_proxy.draft.goodput import FREE, Goodput, Price, Way
from llm_proxy.draft.greedy import is_greedy
from llm_proxy.draft.template import prompt_for
from llm_proxy.route.base import Destination
from llm_proxy.types import CHARS_PER_TOKEN, CHAT, Usage

from .drafted import Meter, Plan, whole_usage
from .effects import Flow, compute, forward, mend, read
from .stepping import Stepping

if TYPE_CHECKING:
    from llm_proxy.config import BackendConfig, Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import Head, Outcome, Outgoing

    from .call import Call
    from .gate import Gate
    from .outgoing import Dispatcher
    from .ports import Clock, Load, Sends
    from .settle import Settler

__all__ = ["Drafting"]

_REST_S = 300.0
_PATIENCE_S = 600.0  # for a whole answer, where nobody says: as long as the openai client waits for a byte
_USUAL_TOKENS = 300.0
_LONG_CHARS = (1_000, 8_000)


class Drafting:
    """Sends calls with drafts where that pays, and as ever where not. One a runtime; thread-safe as its parts are.

    Args:
        config: ``draft`` and ``backends`` are read.
        sends: What sends calls without drafts.
        dispatcher: Makes the requests.
        settler: Books what became of them.
        gate: Where each request waits until it may be sent.
        goodput: Says how much to draft.
        load: Calls under way at a backend.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        sends: Sends,
        *,
        dispatcher: Dispatcher,
        settler: Settler,
        gate: Gate,
        goodput: Goodput,
        load: Load,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._config, self._sends, self._dispatcher = config, sends, dispatcher
        self._settler, self._gate, self._goodput, self._load = settler, gate, goodput, load
        self._clock, self._troubles = clock, troubles
        self._resting: dict[str, float] = {}

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call; see `Attempts.asking`, which it is where nothing may be drafted."""
        plan = self._planned(call, outgoing)
        plain = self._sends.asking(call, outgoing)
        if plan is not None:
            return self._asking(plan, plain)
        backend = self._config.backends.get(outgoing.backend)
        is_counted = backend is not None and backend.draft_with and call.led is None and call.request.is_stream
        return self._counted(call, outgoing, plain) if is_counted else plain

    # -- whether ---------------------------------------------------------------------------------------------------

    def _planned(self, call: Call, outgoing: Outgoing) -> Plan | None:
        backend = self._config.backends.get(outgoing.backend)
        if backend is None or not backend.draft_with or backend.scores == "no" or call.request.api != CHAT:
            return None
        try:
            if self._rests(outgoing.backend) or not is_greedy(call.request.body, backend.greedy_when):
                return None
            return self._plan(call, outgoing, backend)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call is sent as ever
            self._troubles.note("draft", exc)
            return None

    def _plan(self, call: Call, outgoing: Outgoing, backend: BackendConfig) -> Plan | None:
        """Who drafts, and the texts to begin with; None where a template can't say them."""
        drafter, _, model = backend.draft_with.partition("/")
        drafts = self._config.backends[drafter]
        prompt = ""
        if backend.scores == "echo":
            prompt = prompt_for(call.request.messages, backend.template) or ""
        draft_prompt = prompt_for(call.request.messages, drafts.template)
        if not draft_prompt or (backend.scores == "echo" and not prompt):
            return None
        chars, own = len(draft_prompt), backend.limits.get(outgoing.model)
        size = sum(chars > limit for limit in _LONG_CHARS)
        return Plan(
            call=call,
            target=outgoing,
            drafter=self._dispatcher.request(call.request, Destination("", backend=drafter, model=model)),
            prompt=prompt,
            draft_prompt=draft_prompt,
            way=Way(outgoing.backend, outgoing.model[:MODEL_CHARS], "verified", f"size-{size}"),
            greedy={"temperature": 0, **backend.greedy_when},
            draft_greedy={"temperature": 0, **drafts.greedy_when},
            wait_s=self._config.draft.wait_s,
            patience_s=min(outgoing.timeout_s or _PATIENCE_S, call.request.timeout_s or _PATIENCE_S),
            context_tokens=(own.context_tokens if own is not None else None) or backend.context_tokens,
        )

    def _rests(self, backend: str) -> bool:
        return self._clock.monotonic() < self._resting.get(backend, 0.0)

    def rest(self, backend: str) -> None:
        """Leave a backend alone for a while: it does not score, or does not draft."""
        self._resting[backend] = self._clock.monotonic() + _REST_S

    def _price(self, plan: Plan) -> Price:
        """What drafting adds to the bill, in shares of what the call costs by itself; nothing where it is free."""
        prompt = len(plan.draft_prompt) / CHARS_PER_TOKEN
        most = plan.most_tokens
        tokens = _USUAL_TOKENS if most is None else min(_USUAL_TOKENS, most)
        target, drafter = plan.target_outcome, plan.drafter_outcome
        usd = partial(self._usd, target)
        call_usd = usd(prompt, tokens)
        plan.most_extra_usd = self._config.draft.max_extra_cost * call_usd
        step_usd = usd(prompt + tokens / 2, 1.0) + self._usd(drafter, prompt + tokens / 2, 0.0)
        if call_usd <= 0.0:
            return FREE if step_usd <= 0.0 else Price(float("inf"), 0.0, tokens)
        return Price(step_usd / call_usd, (usd(1.0, 0.0) + self._usd(drafter, 0.0, 1.0)) / call_usd, tokens)

    def _usd(self, asked: Outcome, prompt: float, answer: float) -> float:
        return self._settler.price_usd(Usage(round(prompt), round(answer)), asked)

    # -- how -------------------------------------------------------------------------------------------------------

    def _asking(self, plan: Plan, plain: Flow[Head] | None) -> Flow[Head]:
        call, length = plan.call, 0
        plan.load = 1 + self._load.under_way(plan.target.backend)
        try:
            plan.price = yield from compute(partial(self._price, plan))
            if not self._rests(plan.drafter.backend):
                length = self._goodput.begin(plan.way, load=plan.load, price=plan.price)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call is sent as ever
            self._troubles.note("draft", exc)
        if not length:
            return (yield from self._measured(plan, plain))
        self._settler.sent(call.outcome, call.sent)
        stepping = Stepping(
            plan,
            settler=self._settler,
            gate=self._gate,
            goodput=self._goodput,
            load=self._load.under_way,
            clock=self._clock,
            troubles=self._troubles,
            rest=self.rest,
            plainly=partial(self._rest, plan),
        )
        head = yield from stepping.begun(length)
        if head is None:
            self._settler.withdrawn(call.outcome, call.sent)
            return (yield from self._plainly(call, plan.target, plain))
        return (yield from self._mended(call, plan.target, head, stepping)) if call.request.is_stream else head

    def _counted(self, call: Call, outgoing: Outgoing, plain: Flow[Head] | None) -> Flow[Head]:
        """Send a call as ever, and count it until its end: it makes the others slower, and they it."""
        head = yield from self._plainly(call, outgoing, plain)
        return (yield from self._mended(call, outgoing, head, Meter(lambda tokens: None)))

    def _mended(self, call: Call, outgoing: Outgoing, head: Head, body: Meter | Stepping) -> Flow[Head]:
        if call.led is None:  # else its ticket counts
            self._load.began(outgoing.backend, body)
        return (yield from mend(head, body))

    def _plainly(self, call: Call, outgoing: Outgoing, plain: Flow[Head] | None) -> Flow[Head]:
        """Send the call as ever, by the flow that does so where there is one."""
        if plain is not None:
            return (yield from plain)
        self._settler.sent(call.outcome, call.sent)
        return (yield from forward(outgoing))

    def _rest(self, plan: Plan) -> Flow[Head]:
        """Send the call as ever, for an answer whose bytes can be read here."""
        rows = [(name, value) for name, value in plan.target.headers if name != "accept-encoding"]
        plan.target = replace(plan.target, headers=[*rows, ("accept-encoding", "identity")])
        return (yield from self._plainly(plan.call, plan.target, self._sends.asking(plan.call, plan.target)))

    def _measured(self, plan: Plan, plain: Flow[Head] | None) -> Flow[Head]:
        """Send the call as ever, and learn what that took."""
        began_s, steps = self._clock.monotonic(), self._goodput.steps(plan.way.backend)
        head = yield from self._plainly(plan.call, plan.target, plain)
        if head.status != 200:
            return head

        def over(tokens: int) -> None:
            if steps == self._goodput.steps(plan.way.backend):
                self._goodput.finished(plan.way, tokens, self._clock.monotonic() - began_s, load=plan.load)

        if plan.call.request.is_stream:
            return (yield from self._mended(plan.call, plan.target, head, Meter(over)))
        limit_bytes = self._config.cache.max_entry_bytes
        held = yield from read(head, limit_bytes=limit_bytes, limit_s=float("inf"))
        usage = whole_usage(held, limit_bytes)
        if usage is not None and usage.completion_tokens:
            over(usage.completion_tokens)
        return held.head
