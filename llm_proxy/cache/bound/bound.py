"""Serve this neighbour's answer, or ask the model: so that few of the answers served are wrong.

::

    p_wrong = what the guard says, mended by what came of it on this route (population.py, an upper limit), and raised
              by what is known against the entry (entry_model.py)
    slack   = max_error_rate * hits - wrong hits, as the account below has it, at most a part of what was compared
    limit   = max_error_rate * min(2, first + .4 max(0, slack - 2))     where slack >= 0
            = max_error_rate * first / (1 - slack)^2                    where it is not
    first   = .4; where questions are asked by chance .1 without hits, and .4 from 5 / max_error_rate hits on
    p_wrong > limit: ask
    hits of this question so far, not compared, * p_wrong > max_error_rate: ask, once
    else: ask with a small probability all the same, serve otherwise

    where questions are asked by chance, all are at first, until
    trials >= 50 and (failures + 1/2) / (trials + 1) <= max_error_rate

So a new entry is served when guard and population alone are sure enough. More risk is taken only once enough was
compared, and there were so many hits that two wrong ones can be afforded, since the first may be asked for twice; after
too many wrong ones less is taken until the rate is kept again. While nothing is ever compared the limit is
``.4 max_error_rate``.

**The same question again.** Its hits are one gamble, not many: if the answer is wrong they all are, and one popular
mistake would outweigh hundreds of right ones. So a question is served an entry's answer a few times, fewer where that
is less sure, and is then asked upstream. What comes is stored as its own, to be served by key from then on.

**Trials.** Where questions are asked by chance, a guard that is far too sure of this route's questions is found out
before anybody is served: all are asked until few enough turned out wrong, by the mean of Jeffreys' prior. That an entry
was right doesn't make it safer for a question that the guard is unsure of; that was tried, and let too many through.

**The account.** A served answer teaches nothing unless it is checked. So the number of wrong hits is estimated: where m
is p_wrong, y whether the answer is wrong, q the probability of asking, and c the share of hits that are checked in the
background, or fewer as it turned out,

    account += m                       for each hit
    account += (y - m) / c             for each hit that was checked; or, where none are (c = 0),
    account += (y - m) (1 - q) / q     for each that was asked instead

In expectation this is the number of wrong hits, whatever m is: the guard may be badly calibrated, or become so when new
topics arrive, and the limit follows all the same. How soon depends on q, so q grows

- with the square of ``p_wrong / max_error_rate``: what is nearly too risky is verified when it is first met;
- with the hits of this question that nobody checked;
- while few have been compared on this route.

A debt is forgiven slowly as questions are asked and compared, for while nothing is served no hit can pay for it; where
nothing is ever compared, as questions are asked that could be served without it.

**Who keeps it.** One `Bound` for each route and max_error_rate, in `llm_proxy.cache.bound.routes`, which puts `to_json`
into the store, beside the entries it learnt from. An entry's observations stay with the entry.

Source: the account is the augmented inverse propensity estimate, Robins, Rotnitzky & Zhao, JASA 89, 1994; a limit that
follows the errors seen: Gibbs & Candes, "Adaptive conformal inference under distribution shift", arXiv 2106.00170.
Asking with a probability instead of a threshold: `llm_proxy.cache.bound.vcache`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_proxy.cache.evidence import MOST_OBSERVATIONS
from llm_proxy.cache.weighed import Decision

from .entry_model import pooled
from .population import MOST_SEEN, Population

if TYPE_CHECKING:
    from .entry_model import Observed

__all__ = ["SUMS", "Bound"]

SUMS = ("hits", "wrong", "compared", "checked", "trials", "failures")
"""What a bound counts, beside its population; all but ``wrong`` is never negative."""

_LIMIT_FIRST = 0.4  # of max_error_rate
_LIMIT_PER_WRONG = 0.4  # the same, for each wrong hit that can be afforded
_LIMIT_MOST = 2.0
_LEAST_PART, _ENOUGH = 0.25, 5.0  # of the limit at first; wrong hits that could be afforded where it is whole
_RESERVE = 2.0  # wrong hits that could be afforded before more is risked: one question may be asked several times
_SLACK_PER_COMPARED = 0.2
_REMEMBERED_HITS = 2_000.0  # so that the good years of a cache don't pay for a bad week
_FORGIVEN_AFTER = 1_000.0  # comparisons, or questions that were withheld
_ASK_LEAST = 0.02
_ASK_MOST = 0.9
_ASK_UNCHECKED = 0.05
_DOUBTED_AT_FIRST = 0.15
_LEAST_TRIALS = 50.0
_REMEMBERED_TRIALS = 1_000.0
_SAME_QUESTION = 1e-6
_ROUNDING = 1e-9


class Bound:
    """Keeps wrong answers a small share of those served on one route. Not thread-safe: who shares it locks it.

    Args:
        max_error_rate: Largest share of served answers that may be wrong, in (0, 1).
        explore_share: Share of questions that are asked although they could be served, at a p_wrong of max_error_rate;
            in [0, 1]. With 0 none are.
        check_share: Share of hits that is checked in the background, drawn evenly, in [0, 1].

    Raises:
        ValueError: One of them is out of range.
    """

    def __init__(self, max_error_rate: float, *, explore_share: float = 0.0, check_share: float = 0.0) -> None:
        if not 0.0 < max_error_rate < 1.0:
            raise ValueError(f"max_error_rate is {max_error_rate}: it must be above 0 and below 1")
        for name, share in (("explore_share", explore_share), ("check_share", check_share)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} is {share}: it must be from 0 to 1")
        self._max_error_rate, self._explore_share, self._check_share = max_error_rate, explore_share, check_share
        self._population = Population()
        self._hits = self._wrong = self._compared = self._checked = 0.0
        self._trials = self._failures = 0.0

    @property
    def limit(self) -> float:
        """Largest p_wrong of an answer that may be served at this moment."""
        slack, first = self._slack, _LIMIT_FIRST
        if self._explore_share:
            first *= min(1.0, _LEAST_PART + (1.0 - _LEAST_PART) * self._max_error_rate * self._hits / _ENOUGH)
        if slack < 0.0:
            return self._max_error_rate * first / (1.0 - slack) ** 2
        slack = min(max(0.0, slack - _RESERVE), _SLACK_PER_COMPARED * self._compared)
        return self._max_error_rate * min(_LIMIT_MOST, first + _LIMIT_PER_WRONG * slack)

    def p_wrong(self, similarity: float, p_same: float, observations: Sequence[Observed] = ()) -> float:
        """How likely an entry's answer is wrong for a question, an upper estimate.

        Args:
            similarity: Cosine of question and entry, in [-1, 1].
            p_same: The guard's probability that both ask the same, in [0, 1].
            observations: Of the entry, oldest first; the newest 32 count. One without a p_same counts as one as sure as
                this question.

        Returns:
            In [0, 1], falling with p_same; 1 where this very question was answered wrongly when last compared.
        """
        alike = (each for each in reversed(observations) if abs(each.similarity - similarity) <= _SAME_QUESTION)
        last = next(alike, None)
        if last and not last.is_same:
            return 1.0
        known = self._population.p_wrong
        seen = [
            (1.0 - known(p_same if each.p_same is None else each.p_same), each.is_same)
            for each in observations[-MOST_OBSERVATIONS:]
        ]
        at_least = known(p_same)
        return max(at_least, 1.0 - pooled(1.0 - at_least, seen))

    def decide(
        self,
        similarity: float,
        p_same: float,
        observations: Sequence[Observed] = (),
        *,
        coin: float,
        unchecked: int = 0,
    ) -> Decision:
        """Whether an entry's answer may be served for a question; changes nothing.

        Args:
            similarity: Cosine of question and entry, in [-1, 1].
            p_same: The guard's probability that both ask the same, in [0, 1].
            observations: Of the entry, oldest first.
            coin: Drawn evenly from [0, 1), for this question; 1 where it can't be asked by chance.
            unchecked: How often this question was served that answer since it was last asked, >= 0.
        """
        p_wrong = self.p_wrong(similarity, p_same, observations)
        if p_wrong > self.limit + _ROUNDING:
            return Decision(False, p_wrong, 1.0, "unsure")
        if unchecked * p_wrong > self._max_error_rate:
            return Decision(False, p_wrong, 1.0, "repeated")
        if self._explore_share and not self._is_tried and coin < 1.0:
            return Decision(False, p_wrong, 1.0, "explored")
        ask = self._ask_probability(p_wrong, unchecked)
        return Decision(True, p_wrong, ask) if coin >= ask else Decision(False, p_wrong, ask, "explored")

    # -- learning ------------------------------------------------------------------------------------------------

    def note_hit(self, decision: Decision) -> None:
        """Take a served answer into the account."""
        fade = 1.0 - 1.0 / _REMEMBERED_HITS
        self._hits = self._hits * fade + 1.0
        self._checked *= fade
        self._wrong = self._wrong * fade + decision.p_wrong

    def note_asked(self, decision: Decision, p_same: float, *, is_same: bool) -> None:
        """Learn from a question that was asked: its fresh answer was compared with the neighbour's.

        Args:
            decision: What was decided on that neighbour: not served.
            p_same: The guard's probability at the time, in [0, 1].
            is_same: Whether the answers were equivalent.
        """
        self._population.learn(p_same, is_same)
        if decision.reason == "explored":
            fade = 1.0 - 1.0 / _REMEMBERED_TRIALS
            self._trials, self._failures = self._trials * fade + 1.0, self._failures * fade + (not is_same)
        self._wrong += min(0.0, self._slack) / _FORGIVEN_AFTER
        if 0.0 < decision.ask_probability < 1.0:
            self._compared += 1.0
            if not self._check_share:
                odds = (1.0 - decision.ask_probability) / decision.ask_probability
                self._wrong += odds * ((not is_same) - decision.p_wrong)

    def note_checked(self, p_wrong: float, p_same: float, *, is_same: bool) -> None:
        """Learn from a hit that was checked in the background, as ``check_share`` has it.

        Args:
            p_wrong: As it was decided, in [0, 1].
            p_same: The guard's probability at the time, in [0, 1].
            is_same: Whether the fresh answer was equivalent.
        """
        self._population.learn(p_same, is_same)
        self._compared += 1.0
        self._checked += 1.0
        share = min(
            self._check_share or 1.0, self._checked / max(1.0, self._hits)
        )  # some that were drawn came to nothing
        self._wrong += ((not is_same) - p_wrong) / share

    def note_unsure(self, decision: Decision) -> None:
        """Forgive a little of a debt where nothing is compared, and a debt alone kept an answer from being served.

        Else a few hits that were taken back before there were many would end them for good.
        """
        is_comparing = self._explore_share > 0.0 or self._check_share > 0.0
        if not is_comparing and decision.p_wrong <= self._max_error_rate * _LIMIT_FIRST:
            self._wrong += min(0.0, self._slack) / _FORGIVEN_AFTER

    def note_undone(self, p_wrong: float, p_same: float) -> None:
        """Learn from a hit that its user took back; it is no sample, so it never widens the limit.

        Args:
            p_wrong: As it was decided, in [0, 1].
            p_same: The guard's probability at the time, in [0, 1].
        """
        self._population.learn(p_same, is_same=False)
        self._wrong += 1.0 - p_wrong

    # -- keeping -------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, object]:
        """All it has learnt, as JSON has it."""
        sums = {name: getattr(self, f"_{name}") for name in SUMS}
        return {**sums, "bands": self._population.to_json()}

    def restore(self, value: Mapping[str, object]) -> None:
        """Take up what `to_json` gave.

        Raises:
            ValueError: It is something else; nothing is changed then.
        """
        numbers = [value.get(name) for name in SUMS]
        bands = value.get("bands")
        if not isinstance(bands, Mapping):
            raise ValueError("what a bound has learnt must have its bands")
        found = [float(number) for number in numbers if isinstance(number, int | float) and abs(number) <= MOST_SEEN]
        if len(found) < len(SUMS) or any(
            number < 0.0 for name, number in zip(SUMS, found, strict=True) if name != "wrong"
        ):
            raise ValueError(f"{', '.join(SUMS)} of a bound can't be {numbers}")
        self._population = Population.from_json(bands)
        for name, number in zip(SUMS, found, strict=True):
            setattr(self, f"_{name}", number)

    @property
    def _is_tried(self) -> bool:
        # Source: Brown, Cai & DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16, 2001.
        is_right = (self._failures + 0.5) / (self._trials + 1.0) <= self._max_error_rate
        return self._trials >= _LEAST_TRIALS and is_right

    @property
    def _slack(self) -> float:
        return self._max_error_rate * self._hits - self._wrong

    def _ask_probability(self, p_wrong: float, unchecked: int) -> float:
        if not self._explore_share:
            return 0.0
        risk = (p_wrong / self._max_error_rate) ** 2
        ask = _ASK_LEAST + (self._explore_share + _ASK_UNCHECKED * unchecked) * risk
        return min(_ASK_MOST, ask + _DOUBTED_AT_FIRST / (_DOUBTED_AT_FIRST + self._compared))
