"""What asking a question is expected to cost: one place, read by the cache and the router alike.

An answer that is kept spares what asking again would cost, at the model that would be chosen; and a model is chosen for
what asking it is expected to cost. So both read this estimate::

    cost(m, prompt)  = price of m for (prompt tokens, predicted answer tokens) + usd_per_second * predicted latency
    predicted        = lower(bucket of the prompt's length, m)    seen there 3 times or more
                       lower(any prompt, m)                       else, seen 3 times or more
                       a prior: 300 answer tokens, 5 seconds      else
                       on trial: no answer, no wait               to choose a model, else: three times
                       never more than the request's max_tokens
    with a head      = its answer tokens * scale(m); the latency grows and shrinks with them, fourfold at most
    scale(m)         = (sum of the tokens that were seen + 4 * f) / (sum of those that were foretold for them + 4 * f)
    worth of answer  = min over the models that may give it: money, and time
                       at the model that gave it: the very tokens and seconds that it took
                       at another model: predicted, times how much longer this answer was than its own model's usual

``lower`` is the bound of `llm_proxy.route.arms`, never below half of the mean: an answer's length is never as uncertain
as a reward. Only the model that was asked shows its cost, so one that was never seen is tried where its prompt alone
costs less than others do: three times, whether it answers or not, and then the prior speaks. A head's tokens need no
trial, unless it is the latency that counts. ``f`` is the mean of what the head foretold: it is taken at its word until
calls tell otherwise. Models are known by backend and name, without the date that upstreams add to it. An unknown price
counts as infinite beside known ones, and as nothing where there is no other.

Source: Zhu et al., "On Optimal Caching and Model Multiplexing for Large Model Inference", arXiv 2306.02003.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from llm_proxy.backends.base import MODEL_CHARS
from llm_proxy.types import Usage

from .arms import PRIOR_OBSERVATIONS, ArmCosts
from .base import Expected

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .base import Finished

__all__ = ["PRIOR_COMPLETION_TOKENS", "PRIOR_LATENCY_S", "Asked", "CostEstimator", "Estimate", "Priced", "undated"]

PRIOR_COMPLETION_TOKENS = 300
"""Answer tokens expected of a model that was never seen: a few paragraphs."""
PRIOR_LATENCY_S = 5.0
"""Seconds expected of a model that was never seen."""

_LEAST_SEEN = 3
_FLOOR_SHARE = 0.5
_SCALE_SHARE = 1.0
_MOST_ARMS = 16_384
_ANY_PROMPT = -1
_FORETOLD, _TAKEN = "foretold", "taken"
_MOST_TIMES_USUAL = 4.0
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|latest)$")


class Priced(Protocol):
    """See `llm_proxy.backends.prices.Prices`."""

    def quote_usd(self, usage: Usage, *, model: str, backend: str = "", base_url: str = "") -> float | None:
        """About the price of one answer, dollars; None when it is not known."""

    def reread_usd(self, tokens: int, prompt_tokens: int, *, model: str, backend: str) -> float:
        """What tokens of a prompt of this length cost more than if they were cached, dollars; 0 without a price."""

    def wait_usd(self, latency_s: float, *, backend: str) -> float:
        """What it is worth not to wait that long for a backend, dollars."""


class Placed(Protocol):
    """A choice."""

    @property
    def place(self) -> int:
        """Of the candidate that was chosen."""


Choice = TypeVar("Choice", bound=Placed)


class Asked(NamedTuple):
    """A model that may be asked.

    Attributes:
        backend: Name of a configured backend; empty for the caller's own upstream.
        model: Model to ask.
        completion_tokens: Length of the answer that a head foretells, > 0; None to go by what was seen.
        cached_tokens: How much of the prompt the provider is thought to have cached, >= 0; None where it is no matter.
        most_tokens: Longest answer that is asked for; 0 where nothing is said.
        turns_to_wait: Answers that the backend has to give before it begins with this one, in answers of this one's
            length, >= 0.
        base_url: Where it is asked when no backend is named.
    """

    backend: str
    model: str
    completion_tokens: float | None = None
    cached_tokens: int | None = None
    most_tokens: int = 0
    turns_to_wait: float = 0.0
    base_url: str = ""


class Estimate(NamedTuple):
    """What asking a model is expected to take.

    Attributes:
        expected: Dollars; None when the price is not known.
        completion_tokens: Length of the answer, >= 0.
        latency_s: Until the answer is complete, >= 0; nan where it was not asked for and costs nothing.
        usd: What it costs to a choice, dollars: ``expected``; on trial, what the prompt costs; inf without a price.
        reread_usd: How much less it would cost, had the provider cached all of the prompt; 0 where that is no matter.
        wait_s: What it takes to a choice, seconds: ``latency_s``, on trial 0.
        is_on_trial: Whether too little was seen of the model to say.
    """

    expected: Expected | None
    completion_tokens: float
    latency_s: float
    usd: float
    wait_s: float
    reread_usd: float = 0.0
    is_on_trial: bool = False


class _Prompt(NamedTuple):
    """A prompt's length, and what is the same for every model that it may go to."""

    tokens: int
    bucket: int
    tokens_variance: float
    latency_variance: float
    is_timed: bool


class CostEstimator:
    """Learns tokens and latencies, and expects costs; thread-safe, O(1), bounded memory, no I/O.

    Args:
        prices: What tokens and seconds cost.
    """

    def __init__(self, prices: Priced) -> None:
        self._prices = prices
        self._tokens = _learner()
        self._latency_s = _learner()
        self._foretold = _learner()
        self._trials: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def observe(self, call: Finished) -> None:
        """Take in a finished call."""
        arm = _arm(call.backend, call.model)
        for query in (_bucket(call.prompt_tokens), _ANY_PROMPT):
            self._tokens.observe(query, arm, float(call.completion_tokens))
            self._latency_s.observe(query, arm, call.latency_s)
        if call.foretold_tokens is not None:
            self._foretold.observe(_FORETOLD, arm, call.foretold_tokens)
            self._foretold.observe(_TAKEN, arm, float(call.completion_tokens))

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
        return self._estimate(Asked(backend, model, base_url=base_url), self._prompt(prompt_tokens)).expected

    def estimate(self, asked: Asked, prompt_tokens: int) -> Estimate:
        """What asking a model is expected to take.

        Args:
            asked: The model.
            prompt_tokens: Length of the prompt, >= 0.
        """
        estimate = self._estimate(asked, self._prompt(prompt_tokens))
        return self._on_trial(estimate, asked, prompt_tokens) if self._is_on_trial(asked) else estimate

    def completion_tokens(self, asked: Asked, prompt_tokens: int) -> float:
        """How long the answer of a model is expected to be, tokens >= 0; no price is asked for.

        Args:
            asked: The model.
            prompt_tokens: Length of the prompt, >= 0.
        """
        arm, prompt, tokens = _arm(asked.backend, asked.model), self._prompt(prompt_tokens), asked.completion_tokens
        if tokens is None:
            seen = _predicted(self._tokens, arm, prompt.bucket, prompt.tokens_variance)
            tokens = PRIOR_COMPLETION_TOKENS if seen is None else seen
        else:
            tokens *= self._scale(arm)
        return min(tokens, asked.most_tokens) if asked.most_tokens else tokens

    def choose(
        self,
        candidates: Sequence[Asked],
        prompt_tokens: int,
        pick: Callable[[Sequence[Estimate]], Choice],
        *,
        by_latency: bool = False,
        is_asked: bool = True,
    ) -> tuple[Choice, list[Estimate]]:
        """What ``pick`` chooses, and the estimates of all; a candidate on trial is counted as tried.

        Args:
            candidates: At least one, all of them of configured backends; the only one is never on trial.
            prompt_tokens: Length of the prompt, >= 0.
            pick: Takes the estimates and gives a choice among them; must be quick and call nothing of this object.
            by_latency: Whether latencies count: then a model whose latency was never seen is on trial too.
            is_asked: Whether the candidate will be asked; else nothing is counted, and every latency is estimated.
        """
        prompt = self._prompt(prompt_tokens, is_timed=by_latency or not is_asked)  # they take time themselves
        estimates = [self._estimate(asked, prompt) for asked in candidates]
        tried = [place for place, asked in enumerate(candidates) if self._is_on_trial(asked, by_latency=by_latency)]
        if len(candidates) == 1 or not tried:
            return pick(estimates), estimates
        with self._lock:  # three trials are three, however many choose at once
            for place in tried:
                if self._is_on_trial(candidates[place], by_latency=by_latency):
                    estimates[place] = self._on_trial(estimates[place], candidates[place], prompt_tokens)
            choice = pick(estimates)
            if is_asked and estimates[choice.place].is_on_trial:
                self._trials[_arm(*candidates[choice.place][:2])] += 1
        return choice, estimates

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
        prompt = self._prompt(call.prompt_tokens)
        usual = _predicted(self._tokens, _arm(call.backend, call.model), prompt.bucket, prompt.tokens_variance)
        longer = _at_most_fourfold(call.completion_tokens / usual) if usual else 1.0
        found = [self._estimate(Asked(*other), prompt, longer).expected for other in others]
        known = [expected for expected in found if expected is not None]
        if cost_usd is not None or not known:
            known.append(own)
        return min(known, key=_usd)

    def _prompt(self, tokens: int, *, is_timed: bool = True) -> _Prompt:
        return _Prompt(tokens, _bucket(tokens), self._tokens.variance, self._latency_s.variance, is_timed)

    def _estimate(self, asked: Asked, prompt: _Prompt, longer: float = 1.0) -> Estimate:
        backend, model = asked.backend, asked.model
        arm = _arm(backend, model)
        second_usd = self._prices.wait_usd(1.0, backend=backend)
        is_timed, foretold, usual = prompt.is_timed or second_usd > 0.0, asked.completion_tokens, 0.0
        if is_timed or foretold is None:
            seen = _predicted(self._tokens, arm, prompt.bucket, prompt.tokens_variance)
            usual = PRIOR_COMPLETION_TOKENS if seen is None else seen
        if foretold is None:
            tokens = usual * longer
        else:
            tokens = foretold * self._scale(arm)
            longer = _at_most_fourfold(tokens / usual) if usual else 1.0
        if 0 < asked.most_tokens < tokens:
            tokens, longer = float(asked.most_tokens), longer * asked.most_tokens / tokens
        latency_s = math.nan
        if is_timed:
            seen = _predicted(self._latency_s, arm, prompt.bucket, prompt.latency_variance)
            latency_s = (PRIOR_LATENCY_S if seen is None else seen) * longer * (1.0 + asked.turns_to_wait)
        cost_usd = self._quote_usd(asked, prompt.tokens, round(tokens), asked.cached_tokens or 0)
        if cost_usd is None:
            return Estimate(None, tokens, latency_s, math.inf, latency_s)
        reread_usd = 0.0
        if asked.cached_tokens is not None:
            fresh = max(0, prompt.tokens - asked.cached_tokens)
            reread_usd = self._prices.reread_usd(fresh, prompt.tokens, model=model, backend=backend)
        expected = Expected(cost_usd, second_usd * latency_s if second_usd else 0.0)
        return Estimate(expected, tokens, latency_s, expected.usd, latency_s, reread_usd)

    def _quote_usd(self, asked: Asked, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> float | None:
        usage = Usage(prompt_tokens, completion_tokens, min(cached_tokens, prompt_tokens))
        return self._prices.quote_usd(usage, model=asked.model, backend=asked.backend, base_url=asked.base_url)

    def _scale(self, arm: Hashable) -> float:
        """By how much longer answers are than a head says; 1 while nothing was seen."""
        foretold = self._foretold.seen(_FORETOLD, arm)
        if not foretold.count:
            return 1.0
        taken, prior = self._foretold.seen(_TAKEN, arm), PRIOR_OBSERVATIONS * foretold.mean
        return (taken.count * taken.mean + prior) / (foretold.count * foretold.mean + prior)

    def _is_on_trial(self, asked: Asked, *, by_latency: bool = False) -> bool:
        """Whether too little is known; calls that fail, or that are still under way, teach nothing, and count too."""
        if asked.completion_tokens is not None and not by_latency:
            return False
        arm = _arm(asked.backend, asked.model)
        return self._tokens.seen(_ANY_PROMPT, arm).count < _LEAST_SEEN and self._trials[arm] < _LEAST_SEEN

    def _on_trial(self, estimate: Estimate, asked: Asked, prompt_tokens: int) -> Estimate:
        """The same for a model on trial: what asking takes even where nothing is said and nobody waits."""
        if estimate.expected is None:
            return estimate
        cost_usd = self._quote_usd(asked, prompt_tokens, 0, asked.cached_tokens or 0)
        return estimate._replace(usd=math.inf if cost_usd is None else cost_usd, wait_s=0.0, is_on_trial=True)


def _learner() -> ArmCosts:
    return ArmCosts(floor_share=_FLOOR_SHARE, scale_share=_SCALE_SHARE, most_arms=_MOST_ARMS)


def _predicted(learnt: ArmCosts, arm: Hashable, bucket: int, variance: float) -> float | None:
    seen = learnt.seen(bucket, arm)
    if seen.count < _LEAST_SEEN:
        seen = learnt.seen(_ANY_PROMPT, arm)
    return learnt.bound(seen, variance) if seen.count >= _LEAST_SEEN else None


def undated(model: str) -> str:
    """A model's name without the date, or ``latest``, that upstreams add to it; the beginning of a name without end."""
    return _undated(model[:MODEL_CHARS])


@lru_cache(maxsize=1024)
def _undated(model: str) -> str:
    return _DATE.sub("", model)


def _arm(backend: str, model: str) -> Hashable:
    return backend, undated(model)


def _at_most_fourfold(ratio: float) -> float:
    return min(max(ratio, 1 / _MOST_TIMES_USUAL), _MOST_TIMES_USUAL)


def _bucket(prompt_tokens: int) -> int:
    """Prompts of one bucket differ by less than a factor of four in length."""
    return max(prompt_tokens, 1).bit_length() // 2


def _usd(expected: Expected | None) -> float:
    return math.inf if expected is None else expected.usd
