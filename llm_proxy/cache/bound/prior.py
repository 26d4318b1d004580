"""A probability for what a guard says that only agrees or names a difference."""

from __future__ import annotations

import math

__all__ = ["p_same_of"]

_NEAR, _AGREED, _AGREED_FAR = 0.88, 0.9975, 0.95
_DIFFERENT = 0.05
_EVEN_AT, _STEEPNESS = 0.88, 12.0


def p_same_of(reason: str, similarity: float) -> float:
    """How likely two questions ask the same, before anything is known of the population.

    Cautious guesses, to be mended by `llm_proxy.cache.bound.population`. Where the guard agrees, far from the vectors'
    agreement, it has been wrong now and then ("cab" and "taxi"). Where only words differ, similarity says a little;
    where a number, name or negation does, nothing.

    Args:
        reason: What `llm_proxy.cache.guard.agree` found to differ; empty where it agrees.
        similarity: Cosine of the two, in [-1, 1].

    Returns:
        In (0, 1); grows with similarity.
    """
    if not reason:
        return _AGREED if similarity >= _NEAR else _AGREED_FAR
    if reason != "words":
        return _DIFFERENT
    return 1.0 / (1.0 + math.exp(-_STEEPNESS * (similarity - _EVEN_AT)))
