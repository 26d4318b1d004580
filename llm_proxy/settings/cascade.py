"""The settings of routes that ask a cheap model first and look at its answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .base import Frozen

__all__ = ["CascadeSettings"]


_SAID = {"true": True, "1": True, "false": False, "0": False, "auto": "auto"}


def _way(value: Any) -> Any:
    found = _SAID.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, (bool, str)):
        raise ValueError('must be true, false or "auto"')
    return found


class CascadeSettings(Frozen):
    """Whom a route asks, whether in a cascade, and how; see `llm_proxy.engine.cascade`."""

    candidates: tuple[str, ...] = Field(min_length=1, description="`BACKEND/MODEL` names, weakest and cheapest first.")
    cascade: Annotated[bool | Literal["auto"], BeforeValidator(_way)] = Field(
        False,
        description="Ask the weakest candidate first, look at its answer, and ask a stronger one where it is doubtful; "
        '`"auto"`: where that was measured to take less than what the selector says.',
    )
    cascade_bar: float = Field(
        0.7, ge=0, le=1, description="In a cascade, an answer that is right less likely than this is given up."
    )
    cascade_steps: int = Field(
        2, ge=2, description="Most candidates that a cascade asks; the last of them is always the strongest."
    )
    cascade_buffer_s: float = Field(
        10.0,
        ge=0,
        description="Longest time that a stream is held back to be looked at; one that takes longer is passed on as "
        "it comes.",
    )
    cascade_wait_s: float = Field(
        60.0,
        gt=0,
        description="Longest time that a cascade waits for the whole answer of any candidate but the last, and of a "
        "judging or agreeing model; then the next candidate is asked.",
    )
    cascade_judge: str = Field(
        "", description="`BACKEND/MODEL` that is asked whether an answer is right; empty: the scorer that ships says."
    )
    cascade_agree_with: str = Field(
        "",
        description="`BACKEND/MODEL` that is asked the same, instead: an answer is good enough where both come to one "
        "result.",
    )

    def cascade_lack(self, backends: Collection[str], known: str) -> str:
        """What a cascade lacks: the setting and what it must be; empty for nothing. ``known`` tells the backends."""
        if self.cascade and len(self.candidates) < 2:
            return "cascade needs two candidates or more"
        for name in ("cascade_judge", "cascade_agree_with"):
            backend, _, model = (value := getattr(self, name)).partition("/")
            if value and not (backend in backends and model):
                return f"{name} must be BACKEND/MODEL with BACKEND {known}, not {value!r}"
        return ""
