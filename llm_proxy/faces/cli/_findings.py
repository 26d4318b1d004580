"""What ``llm-proxy doctor`` finds: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Fix", "State"]

State = Literal["ok", "warning", "problem"]
Fix = Literal["", "rights", "snapshot"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    Attributes:
        topic: What was looked at, a word or two.
        state: ``ok``; ``warning``: works, with less; ``problem``: something asked for doesn't work.
        message: What was found.
        remedy: What to do; empty when all is well.
        fix: What ``--fix`` would do by itself; empty where that is left to a person.
    """

    topic: str
    state: State
    message: str
    remedy: str = ""
    fix: Fix = ""
