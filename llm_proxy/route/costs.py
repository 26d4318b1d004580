"""What asking a question is expected to cost: one place, read by the cache and the router alike.

An answer that is kept spares what asking again would cost, at the model that would be chosen; and a model is chosen for
what asking it is expected to cost. So both read this estimate::

    cost(m, prompt)  = price of m for (prompt tokens, predicted answer tokens) + usd_per_second * predicted latency
    predicted        = lower(bucket of the prompt's length, m)    seen there 3 times or more
                       lower(any prompt, m)                       else, seen 3 times or more
                       a prior: 300 answer tokens, 5 seconds      else
                       on trial: no answer, no wait               to choose a model, else: three times
    worth of answer  = min over the models that may give it: money, and time
                       at the model that gave it: the very tokens and seconds that it took
                       at another model: predicted, times how much longer this answer was than its own model's usual

``lower`` is the bound of `llm_proxy.route.arms`, never below half of the mean: an answer's length is never as uncertain
as a reward. Only the model that was asked shows its cost, so one that was never seen is tried where its prompt alone
costs less than others do: three times, whether it answers or not, and then the prior speaks. Models are known by
backend and name, without the date that upstreams add to it. An unknown price counts as infinite beside known ones, and
as nothing where there is no other.

Source: Zhu et al., "On Optimal Caching and Model Multiplexing for Large Model Inference", arXiv 2306.02003.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm_proxy.types import Usage

from .arms import ArmCosts
from .base import Expected

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .base import Finished

__all__ = ["PRIOR_COMPLETION_TOKENS", "PRIOR_LATENCY_S", "Choice", "CostEstimator", "Priced"]

PRIOR_COMPLETION_TOKENS = 300
"""Answer tokens expected of a model that was never seen: a few paragraphs."""
PRIOR_LATENCY_S = 5.0
"""Seconds expected of a model that was never seen."""

_LEAST_SEEN = 3
_MODEL_CHARS = 200  # upstreams name their models themselves
_FLOOR_SHARE = 0.5
_SCALE_SHARE = 1.0
_MOST_ARMS = 16_384
_ANY_PROMPT = -1
_MOST_TIMES_USUAL = 4.0
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|latest)$")


class Priced(Protocol):
    """See `llm_proxy.backends.prices.Prices`."""

    def quote_usd(self, usage: Usage, *, model: str, backend: str = "", base_url: str = "") -> float | None:
        """About the price of one answer, dollars; None when it is not known."""

    def wait_usd(self, latency_s: float, *, backend: str) -> float:
        """What it is worth not to wait that long for a backend, dollars."""


class Choice(NamedTuple):
    """A candidate, and why.

    Attributes:
        place: Its place among the candidates.
        expected: What it is expected to cost; None when no candidate's price is known.
        is_trial: Whether it is taken to see what it costs.
    """

    place: int
    expected: Expected | None
    is_trial: bool


class CostEstimator:
    """Learns tokens and latencies, and expects costs; thread-safe, O(1), bounded memory, no I/O.

    Args:
        prices: What tokens and seconds cost.
    """

    def __init__(self, prices: Priced) -> None:
        self._prices = prices
        self._tokens = _learner()
        self._latency_s = _learner()
        self._trials: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def observe(self, call: Finished) -> None:
        """Take in a finished call."""
        arm = _arm(call.backend, call.model)
        for query in (_bucket(call.prompt_tokens), _ANY_PROMPT):
            self._tokens.observe(query, arm, float(call.completion_tokens))
            self._latency_s.observe(query, arm, call.latency_s)

    def observe_all(self, calls: Iterable[Finished]) -> None:
        """Take in finished calls, oldest first."""
        for call in calls:
            self.observe(call)

    def expected(self, backend: str, model: str, prompt_tokens: int, *, base_url: str = "") -> Expected | None:
        """What asking a model is expected to cost.

        Args:
            backend: Name of a configured backend; empty for the caller's own upstream.
            model: Model to ask.
            prompt_tokens: Length of the prompt, >= 0.
            base_url: Where it is asked when no backend is named.

        Returns:
            Dollars; None when the price is not known.
        """
        return self._expected(backend, model, prompt_tokens, 1.0, base_url)

    def cheapest(self, candidates: Sequence[tuple[str, str]], prompt_tokens: int) -> Choice:
        """The candidate whose expected cost is the least, of equals the first; one on trial is counted as tried.

        Args:
            candidates: Pairs of backend and model, at least one, all of them configured.
            prompt_tokens: Length of the prompt, >= 0.
        """
        costs = [self.expected(backend, model, prompt_tokens) for backend, model in candidates]
        if len(candidates) == 1:
            return Choice(0, costs[0], False)
        with self._lock:
            both = list(zip(candidates, costs, strict=True))
            on_trial = [cost is not None and self._is_on_trial(*candidate) for candidate, cost in both]
            least = [
                self._least_usd(*candidate, prompt_tokens) if is_trial else _usd(cost)
                for (candidate, cost), is_trial in zip(both, on_trial, strict=True)
            ]
            place = least.index(min(least))
            if on_trial[place]:
                self._trials[_arm(*candidates[place])] += 1
        return Choice(place, costs[place], on_trial[place])

    def again(self, call: Finished, cost_usd: float | None, others: Sequence[tuple[str, str]] = ()) -> Expected:
        """What asking the same question again is expected to cost: what its answer is worth.

        Args:
            call: The call that was answered; ``model`` is the one that was asked.
            cost_usd: What it cost, dollars; None when the price is not known.
            others: Further candidates that may serve the question, pairs of backend and model.

        Returns:
            The least of the candidates; zero dollars where no price is known.
        """
        own = Expected(cost_usd or 0.0, self._prices.wait_usd(call.latency_s, backend=call.backend))
        if not others:
            return own
        usual = self._predicted(self._tokens, call.backend, call.model, call.prompt_tokens)
        longer = min(max(call.completion_tokens / usual, 1 / _MOST_TIMES_USUAL), _MOST_TIMES_USUAL) if usual else 1.0
        found = [self._expected(*other, call.prompt_tokens, longer, "") for other in others]
        known = [expected for expected in found if expected is not None]
        if cost_usd is not None or not known:
            known.append(own)
        return min(known, key=_usd)

    def _expected(self, backend: str, model: str, prompt_tokens: int, longer: float, base_url: str) -> Expected | None:
        tokens = self._predicted(self._tokens, backend, model, prompt_tokens)
        latency_s = self._predicted(self._latency_s, backend, model, prompt_tokens)
        tokens = (PRIOR_COMPLETION_TOKENS if tokens is None else tokens) * longer
        latency_s = (PRIOR_LATENCY_S if latency_s is None else latency_s) * longer
        usage = Usage(prompt_tokens, round(tokens))
        cost_usd = self._prices.quote_usd(usage, model=model, backend=backend, base_url=base_url)
        if cost_usd is None:
            return None
        return Expected(cost_usd, self._prices.wait_usd(latency_s, backend=backend))

    def _is_on_trial(self, backend: str, model: str) -> bool:
        """Whether too little is known; calls that fail, or that are still under way, teach nothing, and count too."""
        arm = _arm(backend, model)
        return max(self._tokens.seen(_ANY_PROMPT, arm).count, self._trials[arm]) < _LEAST_SEEN

    def _least_usd(self, backend: str, model: str, prompt_tokens: int) -> float:
        """What asking costs even where nothing is said and nobody waits, dollars."""
        cost_usd = self._prices.quote_usd(Usage(prompt_tokens, 0), model=model, backend=backend)
        return math.inf if cost_usd is None else cost_usd

    def _predicted(self, learnt: ArmCosts, backend: str, model: str, prompt_tokens: int) -> float | None:
        arm = _arm(backend, model)
        for query in (_bucket(prompt_tokens), _ANY_PROMPT):
            if learnt.seen(query, arm).count >= _LEAST_SEEN:
                return learnt.lower(query, arm)
        return None


def _learner() -> ArmCosts:
    return ArmCosts(floor_share=_FLOOR_SHARE, scale_share=_SCALE_SHARE, most_arms=_MOST_ARMS)


def _arm(backend: str, model: str) -> Hashable:
    return backend, _DATE.sub("", model[:_MODEL_CHARS])


def _bucket(prompt_tokens: int) -> int:
    """Prompts of one bucket differ by less than a factor of four in length."""
    return max(prompt_tokens, 1).bit_length() // 2


def _usd(expected: Expected | None) -> float:
    return math.inf if expected is None else expected.usd
