"""Settings of what is learnt from use: the log of outcomes, and the comparison of routed answers."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field

from .base import Frozen

__all__ = ["CompareSettings", "OutcomeSettings"]

_JUDGES = ("exact", "normalised", "similar")


class OutcomeSettings(Frozen):
    """What is kept of routed calls, to learn from."""

    outcomes: bool = Field(
        True,
        description="Keep what `llm-proxy route train` learns from, of calls that a route decided: the question's "
        "vector and plain facts of its text, who was asked, and what became of the answer. No prompts, no answers, no "
        "keys.",
    )
    outcome_rows: int = Field(
        50_000,
        gt=0,
        description="Most routed calls kept; the oldest go first, and those of which nothing is known before others.",
    )
    outcome_days: float = Field(180.0, gt=0, description="Older ones go, days.")
    outcome_bytes: int = Field(
        256 << 20, ge=1 << 20, description="Most bytes that they may take, 1048576 (1 MiB) or more."
    )
    prompts: bool = Field(
        False,
        description="Also keep the questions of routed calls as they were asked, at most 8,000 characters each, and "
        "show questions on the dashboard.",
    )


class CompareSettings(Frozen):
    """How a route finds out how well its candidates answer."""

    compare_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of answers that are compared, beside the call, with that of another candidate: of a cheaper "
        "one with the strongest, of the strongest with a cheaper one. It costs what asking costs.",
    )
    compare_usd_per_day: float = Field(
        0.1, ge=0, description="Most dollars that this may take on one day (UTC); without a price none is made."
    )
    compare_judge: str = Field(
        "normalised",
        description="What says whether the weaker answer is as good: `exact`, `normalised` or `similar`, as "
        "`cache.judge`, or `BACKEND/MODEL`, which is asked.",
    )

    def compare_lack(self, backends: Collection[str], known: str) -> str:
        """What a comparison lacks: the setting and what it must be; empty for nothing. ``known`` tells the backends."""
        backend, _, model = self.compare_judge.partition("/")
        if self.compare_judge in _JUDGES or (backend in backends and model):
            return ""
        wanted = f"{', '.join(_JUDGES)} or BACKEND/MODEL with BACKEND {known}"
        return f"compare_judge must be {wanted}, not {self.compare_judge!r}"
