"""The head that ships knows no model by name, but tiers: who is which is said by a candidate's place."""

from __future__ import annotations

from pathlib import Path

from llm_proxy.shipped import model_folder

__all__ = ["SHIPPED", "TIERS", "shipped_head", "tier_of"]

SHIPPED = "shipped"
"""What ``head`` says of a route that uses it; a folder of this name is ``./shipped``."""

TIERS = ("weak", "middle", "strong")
"""What it calls its models, weakest first."""


def tier_of(place: int, candidates: int) -> str:
    """The tier of a candidate: the first is weak, the last strong, and all others are between.

    Args:
        place: Of the candidate among those of its route, weakest first.
        candidates: How many there are, > 1.
    """
    return TIERS[0] if place == 0 else TIERS[-1] if place == candidates - 1 else TIERS[1]


def shipped_head() -> Path:
    """Its folder.

    Raises:
        MissingDependencyError: This installation came without it.
    """
    return model_folder("heads") / "tiers"
