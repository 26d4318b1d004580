"""Which neighbour of a question may be served: of its scope, near, nothing that differs, no evidence against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError, LLMProxyError

from .evidence import Verdict, decode_evidence, verdict
from .guard import agree
from .results import Lookup, Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.types import Clock

    from .entry import Entry
    from .index.base import Neighbour
    from .turns import Turns

__all__ = ["Matcher", "Question"]

_ROUNDING = 1e-6


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

    Args:
        threshold: Least cosine of one that is served, in [0, 1].
        get: The entry of a key, None where it is gone or expired.
        evidence: What the store keeps of an entry's hits.
        clock: Clocks.
    """

    def __init__(
        self,
        threshold: float,
        *,
        get: Callable[[str], Entry | None],
        evidence: Callable[[str], bytes],
        clock: Clock,
    ) -> None:
        self._threshold, self._get, self._evidence, self._clock = threshold, get, evidence, clock

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
        for neighbour in neighbours:
            if neighbour.similarity < self._threshold - similarity_error:
                refused.append(Refused(neighbour.key, neighbour.similarity, "similarity"))
                break
            entry = self._get(neighbour.key)
            if entry is None:
                continue  # the index still has a key that was removed from the store, or that expired
            similarity = question.similarity(entry, neighbour)
            reason = self._refusal(question, entry, similarity)
            if not reason:
                try:
                    found = verdict(similarity, None, decode_evidence(self._evidence(entry.key)))
                except CacheCorruptError as exc:  # it may have said that the answer is wrong
                    found, damage = Verdict(False), exc
                if found.is_served:
                    return Lookup(entry, min(1.0, similarity), tuple(refused), found.p_wrong, damage=damage)
                reason, doubted = "evidence", doubted or (entry, similarity)
            refused.append(Refused(entry.key, similarity, reason))
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
        return agree(question.text, entry.text) or self._difference_before(question, entry)

    def _difference_before(self, question: Question, entry: Entry) -> str:
        """Whether earlier turns differ in meaning, each by the rules for questions."""
        if not question.turns.texts and not entry.turns:
            return ""
        try:
            reworded = question.turns.reworded(entry.turns)
        except LLMProxyError:
            return "context"
        is_same = reworded is not None and all(
            cosine >= self._threshold - _ROUNDING and not agree(one, other) for one, other, cosine in reworded
        )
        return "" if is_same else "context"
