"""What later answers said of an entry's hits by meaning, and what follows from it for the next such question.

An observation is one comparison: a question was as similar to the entry as this, its own answer was asked for, and the
two did or did not say the same. An entry keeps its newest ones in the store, beside its record, as JSON::

    [[at_s, similarity, p_same or null, 1 or 0, source], ...]        oldest first
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Literal, get_args

from llm_proxy.errors import CacheCorruptError

__all__ = [
    "MOST_OBSERVATIONS",
    "Observation",
    "Source",
    "decode_evidence",
    "encode_evidence",
    "interval",
    "is_against",
    "is_taken_back",
    "readable_evidence",
    "upper_limit",
    "with_observation",
]

Source = Literal["shadow", "undo", "explore"]
"""Who compared: a hit that was also asked upstream, a person who took a hit back, a question that was asked instead."""

MOST_OBSERVATIONS = 32
"""Of an entry, the newest: some two kilobytes at the most."""

_MOST_BYTES = 1 << 14

MARGIN = 0.02
"""Cosines this far above a wrong one are not trusted either."""

OUTWEIGHED_BY = 16
"""Later right answers that outweigh a wrong one, each as far from the entry as the question, or further."""

SURE = 0.9
"""Probability of the same answer from which on a wrong one means that the guard was misled."""

_SAME_COSINE = 2e-6  # it is kept to six places
_HALVINGS = 60
_NEGLIGIBLE = 1e-17


@dataclass(frozen=True, slots=True)
class Observation:
    """One comparison of an entry's answer with the one that its question got upstream.

    Attributes:
        at_s: Unix time.
        similarity: Cosine of the question and the entry's, in [-1, 1].
        p_same: What the guard took for the probability that they share an answer, in [0, 1]; None where it has none.
        is_same: Whether the answers said the same.
        source: Who compared.
    """

    at_s: float
    similarity: float
    p_same: float | None
    is_same: bool
    source: Source


def is_against(similarity: float, evidence: tuple[Observation, ...]) -> bool:
    """Whether an entry's evidence forbids to serve its answer, whatever the guard says.

    After a wrong answer it is not served to questions that are as far from it, or further, nor to those a little
    nearer, until enough later ones were right. A wrong one counts where the guard was `SURE` that it was right, or
    where nothing is known of that: of others it has warned.

    Args:
        similarity: Cosine of the question and the entry's, in [-1, 1].
        evidence: Observations of the entry, oldest first.
    """
    wrong = [seen for seen in evidence if _has_misled(seen) and similarity <= seen.similarity + MARGIN]
    if not wrong:
        return False
    last = max(at for at, seen in enumerate(evidence) if seen in wrong)
    later = sum(seen.is_same and seen.similarity <= similarity + MARGIN for seen in evidence[last + 1 :])
    return later < OUTWEIGHED_BY * len(wrong)


def is_taken_back(similarity: float, evidence: tuple[Observation, ...]) -> bool:
    """Whether somebody took a hit of this question back, and too few answers were right since to serve it again.

    Args:
        similarity: Cosine of the question and the entry's, in [-1, 1].
        evidence: Observations of the entry, oldest first.
    """
    said = [at for at, seen in enumerate(evidence) if seen.source == "undo" and not seen.is_same]
    same = [at for at in said if abs(evidence[at].similarity - similarity) < _SAME_COSINE]
    return bool(same) and sum(seen.is_same for seen in evidence[same[-1] + 1 :]) < OUTWEIGHED_BY


def with_observation(evidence: tuple[Observation, ...], observation: Observation) -> tuple[Observation, ...]:
    """The evidence with one more observation; beyond `MOST_OBSERVATIONS` the oldest right ones go, then the oldest.

    Right ones of nearer questions say nothing for those that a wrong one stands against, and must not push it out.
    """
    kept = [*evidence, observation]
    while len(kept) > MOST_OBSERVATIONS:
        del kept[next((at for at, seen in enumerate(kept) if seen.is_same), 0)]
    return tuple(kept)


def encode_evidence(evidence: tuple[Observation, ...]) -> bytes:
    """The bytes that `decode_evidence` reads back; times to the millisecond, other numbers to six places."""
    rows = [
        (
            round(seen.at_s, 3),
            round(seen.similarity, 6),
            None if seen.p_same is None else round(seen.p_same, 6),
            int(seen.is_same),
            seen.source,
        )
        for seen in evidence
    ]
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_evidence(data: bytes) -> tuple[Observation, ...]:
    """The observations of an entry, none for no bytes.

    Raises:
        CacheCorruptError: They are not what `encode_evidence` writes.
    """
    if not data:
        return ()
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it has {len(data)} bytes")
        return tuple(_observation(*row) for row in json.loads(data))
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise CacheCorruptError(f"the evidence of an entry can't be read: {exc}") from exc


def readable_evidence(data: bytes) -> tuple[Observation, ...]:
    """The same; none where they can't be read, for who is about to write them anew."""
    try:
        return decode_evidence(data)
    except CacheCorruptError:
        return ()


def upper_limit(wrong: int, checked: int, confidence: float = 0.95) -> float:
    """One-sided upper limit of an error rate, exact.

    Args:
        wrong: Errors, in [0, ``checked``].
        checked: Trials, >= 0.
        confidence: How sure the limit is, in (0, 1).

    Returns:
        The limit, in [0, 1]; 1 where nothing was checked.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934.
    """
    if wrong >= checked:
        return 1.0
    low, high = wrong / checked, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(wrong, checked, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def interval(wrong: int, checked: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval of an error rate; see `upper_limit`.

    Returns:
        Lower and upper limit, in [0, 1]; (0, 1) where nothing was checked.
    """
    half = (1 + confidence) / 2
    return (1 - upper_limit(checked - wrong, checked, half) if wrong else 0.0), upper_limit(wrong, checked, half)


def _has_misled(seen: Observation) -> bool:
    return not seen.is_same and (seen.p_same is None or seen.p_same >= SURE)


def _at_most(wrong: int, checked: int, rate: float) -> float:
    """Probability of at most so many errors; ``rate`` above ``wrong / checked``, where terms fall towards 0 errors."""
    chosen = math.lgamma(checked + 1) - math.lgamma(wrong + 1) - math.lgamma(checked - wrong + 1)
    term = total = math.exp(chosen + wrong * math.log(rate) + (checked - wrong) * math.log1p(-rate))
    for count in range(wrong, 0, -1):
        term *= count * (1 - rate) / ((checked - count + 1) * rate)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total


def _observation(at_s: object, similarity: object, p_same: object, is_same: object, source: object) -> Observation:
    if not (_is_number(at_s) and _is_number(similarity) and (p_same is None or _is_number(p_same))):
        raise ValueError("a number is none")
    if is_same not in (0, 1) or source not in get_args(Source):
        raise ValueError("an outcome or its source is unknown")
    return Observation(at_s, similarity, p_same, bool(is_same), source)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
