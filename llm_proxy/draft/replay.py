"""Which cached answers are worth asking again of a stronger model: pure.

::

    gain = uses * (quality of the strongest - quality of who answered) * worth of a good answer      dollars
    uses = hits * horizon / age      as many in the time to come as there were in the time before, by proportion
    plan = those whose gain is more than what asking costs, most gain for a dollar first, within the budget

Source: Yu et al., "IC-Cache", arXiv 2501.12689, section 4.3 (replay where the expected gain exceeds the cost).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Weak", "expected_uses", "planned"]

_LEAST_AGE_S = 3600.0
"""A younger entry counts as this old, or its first hits would promise thousands."""


class Weak(NamedTuple):
    """An entry that a weaker model answered.

    Attributes:
        key: Its key.
        uses: How often it is expected to be served, >= 0.
        rise: How much better the strongest model's answers are, in [-1, 1].
        cost_usd: What asking that one is expected to cost, dollars, >= 0.
        worth_usd: What a good answer is worth, dollars, >= 0.
    """

    key: str
    uses: float
    rise: float
    cost_usd: float
    worth_usd: float

    @property
    def gain_usd(self) -> float:
        """What asking again is expected to be worth, dollars."""
        return self.uses * self.rise * self.worth_usd


def expected_uses(hits: int, age_s: float, horizon_s: float) -> float:
    """How often an entry will be served in the time to come.

    Args:
        hits: How often it was, >= 0.
        age_s: In which time, >= 0.
        horizon_s: The time to come, > 0.
    """
    return hits * horizon_s / max(age_s, _LEAST_AGE_S)


def planned(weak: Iterable[Weak], budget_usd: float) -> list[Weak]:
    """Those to ask again, in their order; together they are expected to cost no more than the budget.

    One that is too dear for what is left is passed over, and cheaper ones behind it may still find room.

    Args:
        weak: Entries.
        budget_usd: Dollars, >= 0.
    """
    paying = [one for one in weak if one.gain_usd > one.cost_usd]
    paying.sort(key=lambda one: (-one.gain_usd / max(one.cost_usd, 1e-12), one.key))
    found: list[Weak] = []
    for one in paying:
        if one.cost_usd <= budget_usd:
            budget_usd -= one.cost_usd
            found.append(one)
    return found
