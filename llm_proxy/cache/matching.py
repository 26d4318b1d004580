"""Which neighbour of a question may be served: of its scope, near, nothing that differs, no evidence against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError, LLMProxyError

from .evidence import decode_evidence, is_against
from .guard import Guard, Judgement
from .near import NOWHERE, Near, Reach
from .results import Lookup, Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.types import Clock

    from .bound import RouteBounds
    from .entry import Entry
    from .index.base import Neighbour
    from .turns import Turns
    from .weighed import Weighed

__all__ = ["Matcher", "Question"]

_ROUNDING, _P_ROUNDING = 1e-6, 1e-9
_MOST_RUNS = 2  # of the pair model for one question: each takes about a millisecond
_OTHER_CONTEXT = Judgement("context", 0.0)
_DOUBTED = frozenset({"evidence", "explored"})
_ASKED = frozenset({"explored", "repeated"})
_OF_NO_USE = frozenset({"scope", "encoder", "age"})  # to nobody: of others, not to be compared, or not wanted


@dataclass(slots=True)
class _Runs:
    """How much of the pair model one question may have, and how much p_wrong."""

    limit: float
    left: int = _MOST_RUNS

    def is_enough(self, p_same: float) -> bool:
        """Whether the model need not be asked."""
        return 1.0 - p_same <= self.limit + _P_ROUNDING

    def take(self) -> bool:
        """Take one run, if there is one left."""
        self.left -= 1
        return self.left >= 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        scope: Its scope.
        text: The question.
        vector: Its vector, shape ``(dim,)``, float32, unit norm.
        encoder: Name of the encoder that made it.
        max_age_s: Oldest entry that is acceptable, seconds; None for any age.
        turns: Earlier turns that the scope leaves open.
        route: Name of the route that was asked; empty where a model was named.
        may_explore: Whether it may be asked upstream although an answer could be served.
    """

    scope: str
    text: str
    vector: NDArray[np.float32]
    encoder: str
    max_age_s: float | None
    turns: Turns
    route: str = ""
    may_explore: bool = True

    def similarity(self, entry: Entry, neighbour: Neighbour) -> float:
        """The cosine to full precision, where the entry still is the one that the index knows."""
        if entry.vector is None or entry.vector.shape != self.vector.shape:
            return neighbour.similarity
        return float(entry.vector @ self.vector)


class Matcher:
    """Looks at neighbours, nearest first, until one may be served.

    An answer is served where the guard and the bound of the route (`llm_proxy.cache.bound`) take it to be wrong rarely
    enough, and no evidence is against it.

    Args:
        threshold: Least cosine of one that is served, in [0, 1].
        bounds: Decide by what came of such hits.
        guard: Says how likely one answer serves two texts.
        get: The entry of a key, None where it is gone or expired.
        evidence: What the store keeps of an entry's hits.
        clock: Clocks.
        reach: How far near misses are looked for.
    """

    def __init__(
        self,
        threshold: float,
        bounds: RouteBounds,
        *,
        guard: Guard,
        get: Callable[[str], Entry | None],
        evidence: Callable[[str], bytes],
        clock: Clock,
        reach: Reach = NOWHERE,
    ) -> None:
        self._threshold, self._bounds, self._reach = threshold, bounds, reach
        self._guard, self._get, self._evidence, self._clock = guard, get, evidence, clock

    def match(self, question: Question, neighbours: Iterable[Neighbour], similarity_error: float) -> Lookup:
        """What may be served for a question.

        Args:
            question: What is asked.
            neighbours: What the index found in its scope, nearest first.
            similarity_error: How far the index's cosines may be off, >= 0.
        """
        refused: list[Refused] = []
        near: list[Near] = []
        rest = iter(neighbours)
        doubted: tuple[Entry, Weighed] | None = None
        damage: CacheCorruptError | None = None
        runs = _Runs(self._bounds.limit(question.route))
        for neighbour in rest:
            if neighbour.similarity < self._threshold - similarity_error:
                refused.append(Refused(neighbour.key, neighbour.similarity, "similarity"))
                near += self._farther(question, chain((neighbour,), rest))
                break
            entry = self._get(neighbour.key)
            if entry is None:
                continue  # the index still has a key that was removed from the store, or that expired
            similarity = question.similarity(entry, neighbour)
            reason = self._refusal(question, entry, similarity)
            judged = Judgement(reason, 0.0) if reason else self._judged(question, entry, similarity, runs)
            reason = judged.reason or "similarity"
            if judged.p_same > 0.0:
                weighed, reason, harm = self._weighed(question, entry, similarity, judged)
                damage = harm or damage
                if not reason:
                    return Lookup(entry, min(1.0, similarity), tuple(refused), weighed=weighed, damage=damage)
                if doubted is None and (reason in _DOUBTED or self._bounds.is_comparing):
                    doubted = entry, weighed
            refused.append(Refused(entry.key, similarity, reason))
            near += [] if reason in _OF_NO_USE else [Near(entry, similarity, judged.p_same)]
            if reason in _ASKED:
                break
        other, of_other = doubted or (None, None)
        nearest = refused[0].similarity if refused else 0.0
        return Lookup(None, nearest, tuple(refused), other, of_other, damage, tuple(near[: self._reach.most]))

    def _farther(self, question: Question, neighbours: Iterable[Neighbour]) -> list[Near]:
        """Near misses among those that are too far to be served; only where nothing is."""
        found: list[Near] = []
        for neighbour in neighbours:
            if neighbour.similarity < self._reach.similarity or len(found) >= self._reach.most:
                break
            entry = self._get(neighbour.key)
            if entry is None or self._refusal(question, entry, 1.0):
                continue
            found.append(Near(entry, question.similarity(entry, neighbour), 0.0))
        return found

    def _weighed(
        self, question: Question, entry: Entry, similarity: float, judged: Judgement
    ) -> tuple[Weighed, str, CacheCorruptError | None]:
        """What the bound decides; why not to serve, or empty; what is wrong with evidence that can't be read."""
        decide = partial(self._bounds.decide, entry.key, question.text, similarity, judged.p_same, route=question.route)
        try:
            seen = decode_evidence(self._evidence(entry.key))
        except CacheCorruptError as exc:  # it may have said that the answer is wrong
            return decide(may_explore=False), "evidence", exc
        weighed = decide(seen, may_explore=question.may_explore)
        if is_against(similarity, seen):
            return weighed, "evidence", None
        if weighed.decision.reason != "unsure":
            return weighed, weighed.decision.reason, None
        is_by_evidence = bool(seen) and decide(may_explore=False).decision.is_served
        return weighed, "evidence" if is_by_evidence else judged.reason or "similarity", None

    def _refusal(self, question: Question, entry: Entry, similarity: float) -> str:
        if entry.scope != question.scope:
            return "scope"
        if entry.encoder != question.encoder:
            return "encoder"
        if not similarity >= self._threshold - _ROUNDING:  # NaN compares false, and so is refused
            return "similarity"
        if question.max_age_s is not None and entry.age_s(self._clock.time()) > question.max_age_s:
            return "age"
        return ""

    def _judged(self, question: Question, entry: Entry, similarity: float, runs: _Runs) -> Judgement:
        """What the guard says of the two texts, and of the turns before them that differ."""
        judged = self._judged_texts(question.text, entry.text, similarity, runs)
        if judged.p_same <= 0.0 or not (question.turns.texts or entry.turns):
            return judged
        try:
            reworded = question.turns.reworded(entry.turns)
        except LLMProxyError:
            reworded = None
        if reworded is None:
            return _OTHER_CONTEXT
        if not reworded:
            return judged
        p_same = judged.p_same
        for one, other, cosine in reworded:
            if cosine >= self._threshold - _ROUNDING:
                p_same *= self._judged_texts(one, other, cosine, runs).p_same
            else:
                p_same = 0.0
        return Judgement("", p_same) if runs.is_enough(p_same) else _OTHER_CONTEXT

    def _judged_texts(self, one: str, other: str, similarity: float, runs: _Runs) -> Judgement:
        judged = self._guard.judge(one, other, similarity)
        if runs.is_enough(judged.p_same) or not self._guard.can_judge(one, other, judged) or not runs.take():
            return judged
        return self._guard.judge_closely(one, other, similarity, judged)
