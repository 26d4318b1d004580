"""How many tokens to draft: as many as bring the answer soonest, and none where that is none.

::

    l(a, k) = (1 - a^(k+1)) / (1 - a)     tokens that a step with k drafted ones is expected to bring
    T(k)    = c + s * k                   seconds of such a step, and T(0) of a token of plain answers
    H(k)    = (n - 1) * r * k             seconds that the other calls under way wait longer, together, for its sake
    k       = argmax of l(a, k) / (T(k) + H(k)) over 0..most, as far as the extra cost of k is allowed
    a       = kept / (kept + missed)      of drafted tokens; those behind a missed one tell nothing

``r`` is what a drafted token adds to the time that the target takes to score. A server with room does not get slower by
it; one without has it taken from the others in the same pass, who wait as long for it as the call that it is for. While
a pass takes time in proportion to its tokens, beyond a fixed part, this finds the ``k`` that brings all calls together
the most tokens a second, whether one of them drafts or all do.

``a`` is a moving average, and so are the lines, which are fitted by least squares for each load apart (calls under way,
by powers of two). Whatever the model says, drafting also stops where the calls that were drafted took longer than plain
ones are known to take.

Where nothing is drafted, a call now and then tries: one of 4, and each time that it doesn't pay twice as rare, down to
one of 64; heavier loads are tried as rarely as lighter ones. A trial is a step, and goes on as the model says; where
others are under way, as if they had room for it, but in short steps, until six were seen and ``r`` can be told. So what
it takes to find out that acceptance has risen, or that there is room again, is bounded, and the median call never pays
for it.

Source: Liu et al., "TurboSpec", arXiv 2406.14066, sections 3 and 4 (goodput, its estimate, and k = 0).
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

__all__ = ["FREE", "Goodput", "Price", "Way", "expected_tokens"]

_DECAY = 0.97  # of what a step tells, with each later one: some thirty steps count
_CALL_DECAY = 0.7
_TRIAL_DECAY = 0.25  # what was found long ago is not to outweigh what is found now
_MARGIN = 1.05  # drafting must promise this much, or the plain way is taken
_FIRST_EVERY, _LAST_EVERY = 4, 64
_TRIAL_LENGTHS, _BUSY_TRIAL_LENGTHS = (6, 3), (4, 2)
_LEAST_PLAIN, _LEAST_DRAFTED = 3, 2.0
_LEAST_TOLD = 6  # steps: what a token adds is multiplied by all others under way, and so is what is wrong about it
_SPREAD = 0.01  # of the square of the mean: less, and a slope can't be told
_MOST_WAYS = 1024


class Way(NamedTuple):
    """What is learnt of for itself: a backend's model, how it is drafted, and the kind of request."""

    backend: str
    model: str
    way: str
    kind: str = ""


class Price(NamedTuple):
    """What drafting adds to the bill, in shares of what the call costs by itself, each >= 0.

    Attributes:
        step: For a step, whatever it drafts.
        token: For a drafted token.
        tokens: Answer tokens expected of the call.
    """

    step: float = 0.0
    token: float = 0.0
    tokens: float = 0.0

    def share(self, acceptance: float, length: int) -> float:
        """What steps of so many drafted tokens add to the whole call."""
        steps = self.tokens / expected_tokens(acceptance, length)
        return steps * (self.step + length * self.token)


FREE = Price()


def expected_tokens(acceptance: float, length: int) -> float:
    """Tokens that a step brings, the target's own among them, in [1, ``length`` + 1].

    Args:
        acceptance: Probability that a drafted token is kept, in [0, 1].
        length: Drafted tokens, >= 0.

    Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192, equation 1.
    """
    if acceptance >= 1.0:
        return length + 1.0
    return (1.0 - acceptance ** (length + 1)) / (1.0 - acceptance)


class Goodput:
    """Learns what drafting brings, and says how much of it to do. Thread-safe, O(``most``), bounded memory, no I/O.

    Args:
        most: Longest draft, tokens, >= 0.
        max_extra_cost: Most that drafting may add to a call's cost, as a share of it, >= 0.
    """

    def __init__(self, *, most: int = 10, max_extra_cost: float = 0.25) -> None:
        self._most, self._max_extra_cost = most, max_extra_cost
        self._known: dict[Way, _Known] = {}
        self._steps: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, way: Way, *, load: int = 1, price: Price = FREE) -> int:
        """How many tokens the first step of a call is to draft; 0: the call is asked plainly. Counts the call.

        Args:
            way: What the call is.
            load: Calls under way at the backend, this one included, >= 1.
            price: What drafting adds to the bill.
        """
        with self._lock:
            known = self._of(way)
            trials = known.trials_at(_bucket(load))
            is_told = load == 1 or known.added_s(_bucket(load)) is not None
            length = self._best(known, load, price) if is_told and not known.is_slower else 0
            if length:
                self._steps[way.backend] += 1
                trials.every, trials.idle = _FIRST_EVERY, 0
                return length
            if known.plain_calls < _LEAST_PLAIN:
                return 0
            lengths = _TRIAL_LENGTHS if load == 1 else _BUSY_TRIAL_LENGTHS
            length = min(self._most, lengths[trials.count % 2])
            if price.step + length * price.token > self._max_extra_cost or not trials.is_due():
                return 0
            for bucket, others in known.trials.items():  # one at a time, whatever the load
                others.idle = 0
                if bucket > _bucket(load):
                    others.every = max(others.every, trials.every)
            self._steps[way.backend] += 1
            known.kept, known.missed = known.kept * _TRIAL_DECAY, known.missed * _TRIAL_DECAY
            return length

    def length(self, way: Way, *, load: int = 1, price: Price = FREE) -> int:
        """How many tokens the next step of a call that is drafted is to draft; 0: go on without. Changes nothing."""
        with self._lock:
            return self._best(self._of(way), load, price)

    def acceptance(self, way: Way) -> float:
        """The share of drafted tokens that is kept, in (0, 1); 0.5 while nothing is known."""
        with self._lock:
            return self._of(way).acceptance

    def saw(self, way: Way, *, kept: int, missed: int) -> None:
        """Learn from a step.

        Args:
            way: What the call is.
            kept: Drafted tokens that were kept, >= 0.
            missed: Those that were looked at and not kept: 0 or 1 where a draft is read up to the first wrong one.
        """
        with self._lock:
            known = self._of(way)
            known.kept = known.kept * _DECAY + kept
            known.missed = known.missed * _DECAY + missed

    def took(self, way: Way, length: int, seconds: float, *, load: int = 1, drafting_s: float = 0.0) -> None:
        """Learn what a step of ``length`` >= 1 drafted tokens has taken.

        Args:
            way: What the call is.
            length: Tokens that were asked for.
            seconds: Of the whole step.
            load: Calls under way at the backend, this one included, >= 1.
            drafting_s: What of it the drafting took, which no other call waits for.
        """
        with self._lock:
            known, bucket = self._of(way), _bucket(load)
            self._steps[way.backend] += 1
            known.steps.setdefault(bucket, _Line()).add(length, seconds)
            known.scored.setdefault(bucket, _Line()).add(length, seconds - drafting_s)

    def steps(self, backend: str) -> int:
        """How often drafts were begun and scored there so far: a plain answer beside them took longer for their sake.

        What a busy server takes for plain answers must be learnt from those that no draft came between, or both would
        seem slow.
        """
        with self._lock:
            return self._steps[backend]

    def finished(self, way: Way, tokens: int, seconds: float, *, load: int = 1, is_drafted: bool = False) -> None:
        """Learn what a whole answer of ``tokens`` >= 1 tokens has taken, from the request to its end."""
        with self._lock:
            known = self._of(way)
            if not is_drafted:
                known.plain_calls += 1
                known.plain.setdefault(_bucket(load), _Line()).add(tokens, seconds)
                return
            plain = _nearest(known.plain, _bucket(load))
            if plain is not None:
                ratio = seconds / max(plain.at(tokens), 1e-9)
                known.ratio = ratio if known.drafted == 0 else known.ratio * _CALL_DECAY + ratio * (1 - _CALL_DECAY)
                known.drafted += 1

    def chosen(self, way: Way, *, load: int = 1) -> tuple[int, float]:
        """For reports: the length that a step would have now, and the acceptance that is reckoned with."""
        return self.length(way, load=load), self.acceptance(way)

    def _of(self, way: Way) -> _Known:
        known = self._known.get(way)
        if known is None:
            while len(self._known) >= _MOST_WAYS:
                del self._known[next(iter(self._known))]
            known = self._known[way] = _Known()
        return known

    def _best(self, known: _Known, load: int, price: Price) -> int:
        """The length of greatest goodput; where the line of the steps is not spread enough to be one, half of it."""
        bucket = _bucket(load)
        line, plain = known.steps.get(bucket), _nearest(known.plain, bucket)
        if line is None or plain is None:
            return 0
        acceptance, others_s = known.acceptance, (load - 1) * (known.added_s(bucket) or 0.0)
        best, most_tokens_per_s = 0, _MARGIN / max(plain.slope_or_share, 1e-9)
        for length in range(1, self._most + 1):
            tokens_per_s = expected_tokens(acceptance, length) / max(line.at(length) + others_s * length, 1e-9)
            is_allowed = price.share(acceptance, length) <= self._max_extra_cost
            if is_allowed and tokens_per_s > most_tokens_per_s:
                best, most_tokens_per_s = length, tokens_per_s
        if load > 1 and known.added_s(bucket) is None:
            return min(best, _BUSY_TRIAL_LENGTHS[line.count % 2])
        return best if line.is_spread or best < 2 else best // 2


class _Line:
    """Seconds by tokens: a straight line through what was measured, recent measurements first."""

    __slots__ = ("_w", "_x", "_xx", "_xy", "_y", "count", "told_slope")

    def __init__(self) -> None:
        self._w = self._x = self._y = self._xx = self._xy = 0.0
        self.count = 0
        """How often something was measured."""
        self.told_slope: float | None = None
        """Seconds a token, as of when it could last be told; None before, and after a few measurements alone."""

    def add(self, tokens: int, seconds: float) -> None:
        self._w = self._w * _DECAY + 1.0
        self._x = self._x * _DECAY + tokens
        self._y = self._y * _DECAY + seconds
        self._xx = self._xx * _DECAY + tokens * tokens
        self._xy = self._xy * _DECAY + tokens * seconds
        self.count += 1
        if self.is_spread and self.count >= _LEAST_TOLD:
            self.told_slope = self._fitted()[1]

    @property
    def is_spread(self) -> bool:
        mean = self._x / self._w
        return self._xx / self._w - mean * mean > _SPREAD * mean * mean

    @property
    def slope_or_share(self) -> float:
        """Seconds a token: the slope, or where none can be told the mean by its tokens."""
        slope = self._fitted()[1] if self.is_spread else 0.0
        return slope or self._y / self._x

    def at(self, tokens: int) -> float:
        """Seconds; beyond what was measured in proportion, below it no less, where no line can be told."""
        mean_x, mean_y = self._x / self._w, self._y / self._w
        if not self.is_spread:
            return mean_y * max(1.0, tokens / mean_x)
        start, slope = self._fitted()
        return start + slope * tokens

    def _fitted(self) -> tuple[float, float]:
        mean_x, mean_y = self._x / self._w, self._y / self._w
        slope = max(0.0, (self._xy / self._w - mean_x * mean_y) / (self._xx / self._w - mean_x * mean_x))
        if slope * mean_x > mean_y:
            return 0.0, mean_y / mean_x
        return mean_y - slope * mean_x, slope


class _Trials:
    """When a call tries what does not seem to pay."""

    __slots__ = ("count", "every", "idle")

    def __init__(self, every: int, idle: int) -> None:
        self.every, self.idle, self.count = every, idle, 0

    def is_due(self) -> bool:
        self.idle += 1
        if self.idle < self.every:
            return False
        self.idle, self.count = 0, self.count + 1
        self.every = min(self.every * 2, _LAST_EVERY)
        return True


class _Known:
    """What is known of one way."""

    __slots__ = ("drafted", "kept", "missed", "plain", "plain_calls", "ratio", "scored", "steps", "trials")

    def __init__(self) -> None:
        self.kept = self.missed = self.ratio = 0.0
        self.plain_calls = self.drafted = 0
        self.plain: dict[int, _Line] = {}
        self.steps: dict[int, _Line] = {}
        self.scored: dict[int, _Line] = {}
        self.trials: dict[int, _Trials] = {}

    @property
    def acceptance(self) -> float:
        return (self.kept + 0.5) / (self.kept + self.missed + 1.0)

    @property
    def is_slower(self) -> bool:
        return self.drafted >= _LEAST_DRAFTED and self.ratio > 1.0

    def added_s(self, bucket: int) -> float | None:
        """What a drafted token adds to the time of scoring at this load, seconds; None where that can't be told."""
        line = self.scored.get(bucket)
        return None if line is None else line.told_slope

    def trials_at(self, bucket: int) -> _Trials:
        """Those of a load; of a new one as rare as those of the next lighter load, but for the very first."""
        if bucket not in self.trials:
            lighter = max((other for other in self.trials if other < bucket), default=0)
            every = self.trials[lighter].every if lighter else _FIRST_EVERY
            self.trials[bucket] = _Trials(every, 0 if self.trials else _FIRST_EVERY - 1)
        return self.trials[bucket]


def _bucket(load: int) -> int:
    return max(1, load).bit_length()


def _nearest(lines: dict[int, _Line], bucket: int) -> _Line | None:
    """The line of this load, or of the next one that was measured."""
    return lines[min(lines, key=lambda other: abs(other - bucket))] if lines else None
