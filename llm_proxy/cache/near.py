"""A neighbour of a question that is not served: frozen values, for what can be made of what is almost an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .entry import Entry

__all__ = ["NOWHERE", "Near", "Reach"]


@dataclass(frozen=True, slots=True)
class Near:
    """A near miss: an entry of the question's own scope, and so of its tenant, whose answer is not served for it.

    Attributes:
        entry: Whose question is near.
        similarity: Cosine of the two questions, in [-1, 1].
        p_same: The guard's probability that one answer serves both, in [0, 1]; 0 where it was not asked, too.
    """

    entry: Entry
    similarity: float
    p_same: float


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a search looks for near misses.

    Attributes:
        similarity: Least cosine, in [0, 1]. Those above the least of a hit were looked at in any case; what is below
            it is read from the store, where nothing is served.
        most: Most of them, >= 0; the nearest.
    """

    similarity: float = 1.0
    most: int = 4


NOWHERE = Reach()
"""No further than a search for a hit looks."""
