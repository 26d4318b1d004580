"""What was decided on a neighbour of a question: frozen values, of which the engine remembers what it is to compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Decision", "Weighed"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a neighbour.

    Attributes:
        is_served: Whether its answer may be served; else the model is to be asked.
        p_wrong: How likely that answer is wrong, an upper estimate, in [0, 1].
        ask_probability: With which probability the model was to be asked, in [0, 1]; 1 where chance had no part in it.
        reason: Why the model is to be asked: p_wrong is too large, the question was served too often, or chance had it
            so. Empty where the answer may be served.
    """

    is_served: bool
    p_wrong: float
    ask_probability: float
    reason: Literal["", "unsure", "repeated", "explored"] = ""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A neighbour of a question, and what was decided.

    Attributes:
        key: Of its entry.
        asked: Number of the question, for counting how often it was served that entry.
        similarity: Cosine of the question and the entry's, in [-1, 1].
        p_same: The guard's probability that one answer serves both, in [0, 1].
        route: Name of the route that was asked; empty where a model was named.
        decision: Whether its answer may be served.
    """

    key: str
    asked: int
    similarity: float
    p_same: float
    route: str
    decision: Decision
