"""Which neighbour of a question may be served: of its scope, near, nothing that differs, no evidence against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError, LLMProxyError

from .evidence import Verdict, decode_evidence, verdict
from .guard import Guard, Judgement
from .guard.probability import JUDGED
from .results import Lookup, Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.types import Clock

    from .entry import Entry
    from .index.base import Neighbour
    from .turns import Turns

__all__ = ["Matcher", "Question"]

_ROUNDING, _P_ROUNDING = 1e-6, 1e-9
_UNCHECKED_PART = 0.4
_MOST_RUNS = 2  # of the pair model for one question: each takes about a millisecond
_OTHER_CONTEXT = Judgement("context", 0.0)


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
    """

    scope: str
    text: str
    vector: NDArray[np.float32]
    encoder: str
    max_age_s: float | None
    turns: Turns

    def similarity(self, entry: Entry, neighbour: Neighbour) -> float:
        """The cosine to full precision, where the entry still is the one that the index knows."""
        if entry.vector is None or entry.vector.shape != self.vector.shape:
            return neighbour.similarity
        return float(entry.vector @ self.vector)


class Matcher:
    """Looks at neighbours, nearest first, until one may be served.

    An answer is served where ``1 - p_same <= .4 max_error_rate`` by the guard, and no evidence is against it. Not up to
    the whole rate, since nobody may be checking whether the guard is right.

    Args:
        threshold: Least cosine of one that is served, in [0, 1].
        max_error_rate: Largest share of hits by meaning that may be wrong, in (0, 1).
        guard: Says how likely one answer serves two texts.
        get: The entry of a key, None where it is gone or expired.
        evidence: What the store keeps of an entry's hits.
        clock: Clocks.
    """

    def __init__(
        self,
        threshold: float,
        max_error_rate: float,
        *,
        guard: Guard,
        get: Callable[[str], Entry | None],
        evidence: Callable[[str], bytes],
        clock: Clock,
    ) -> None:
        self._threshold, self._least_p_same = threshold, 1.0 - _UNCHECKED_PART * max_error_rate - _P_ROUNDING
        self._guard, self._get, self._evidence, self._clock = guard, get, evidence, clock

    def match(self, question: Question, neighbours: Iterable[Neighbour], similarity_error: float) -> Lookup:
        """What may be served for a question.

        Args:
            question: What is asked.
            neighbours: What the index found in its scope, nearest first.
            similarity_error: How far the index's cosines may be off, >= 0.
        """
        refused: list[Refused] = []
        doubted: tuple[Entry, float] | None = None
        damage: CacheCorruptError | None = None
        runs = iter(range(_MOST_RUNS))
        for neighbour in neighbours:
            if neighbour.similarity < self._threshold - similarity_error:
                refused.append(Refused(neighbour.key, neighbour.similarity, "similarity"))
                break
            entry = self._get(neighbour.key)
            if entry is None:
                continue  # the index still has a key that was removed from the store, or that expired
            similarity = question.similarity(entry, neighbour)
            reason = self._refusal(question, entry, similarity)
            judged = Judgement(reason, 0.0) if reason else self._judged(question, entry, similarity, runs)
            if judged.p_same >= self._least_p_same:
                try:
                    found = verdict(similarity, judged.p_same, decode_evidence(self._evidence(entry.key)))
                except CacheCorruptError as exc:  # it may have said that the answer is wrong
                    found, damage = Verdict(False), exc
                if found.is_served:
                    return Lookup(entry, min(1.0, similarity), tuple(refused), found.p_wrong, damage=damage)
                judged, doubted = Judgement("evidence", 0.0), doubted or (entry, similarity)
            refused.append(Refused(entry.key, similarity, judged.reason or "similarity"))
        nearest = refused[0].similarity if refused else 0.0
        other, other_similarity = doubted or (None, 0.0)
        return Lookup(None, nearest, tuple(refused), None, other, other_similarity, damage)

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

    def _judged(self, question: Question, entry: Entry, similarity: float, runs: Iterator[int]) -> Judgement:
        """What the guard says of the two texts, and of the turns before them that differ."""
        judged = self._judged_texts(question.text, entry.text, similarity, runs)
        if judged.p_same < self._least_p_same or not (question.turns.texts or entry.turns):
            return judged
        try:
            reworded = question.turns.reworded(entry.turns)
        except LLMProxyError:
            reworded = None
        if reworded is None:
            return _OTHER_CONTEXT
        p_same = judged.p_same
        for one, other, cosine in reworded:
            if cosine >= self._threshold - _ROUNDING:
                p_same *= self._judged_texts(one, other, cosine, runs).p_same
            else:
                p_same = 0.0
        return Judgement("", p_same) if p_same >= self._least_p_same else _OTHER_CONTEXT

    def _judged_texts(self, one: str, other: str, similarity: float, runs: Iterator[int]) -> Judgement:
        judged = self._guard.judge(one, other, similarity)
        if judged.p_same >= self._least_p_same or judged.reason not in JUDGED or next(runs, None) is None:
            return judged
        return self._guard.judge_closely(one, other, similarity, judged)
