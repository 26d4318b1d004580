"""What ``llm-proxy doctor`` finds: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Attributes:
        topic: What was looked at, a word or two.
        state: ``ok``; ``warning``: works, with less; ``problem``: something asked for doesn't work.
        message: What was found.
        remedy: What to do; empty when all is well.
    """

    topic: str
    state: State
    message: str
    remedy: str = ""
