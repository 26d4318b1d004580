"""The same words in another order that say the same: few orders do.

A clause or phrase may move to the front ("when prices rise, does demand fall"), two ends of a way may change places
with their words ("to Denver from Boston"), a particle may follow its object ("turn the light on"), and "is it safe to
eat fish" may be "is eating fish safe". All else is refused: who does what to whom is told by order alone.
"""

from __future__ import annotations

from .forms import is_gerund, is_same
from .words import DAYS, PARTICLES, PHRASAL, STARTERS

__all__ = ["is_rearranged"]

_SYMMETRIC = frozenset({"difference", "differences", "similarities", "distance", "choose", "decide"})
_LONGEST = 200  # words; every place where a clause may begin is tried
_FARTHEST = 4  # words between a verb and its particle


def is_rearranged(a: list[str], b: list[str]) -> bool:
    """Whether the second text is the first with one part moved, and means the same.

    Args:
        a: Words in order.
        b: Words in order.
    """
    if len(a) == len(b) + 2:
        return _is_turned_round(a, b)
    if len(a) != len(b) or len(a) > _LONGEST:
        return False
    return _is_fronted(a, b) or _is_way_swapped(a, b) or _is_particle_moved(a, b) or _is_choice_swapped(a, b)


def _is_equal(a: list[str], b: list[str]) -> bool:
    return len(a) == len(b) and all(map(is_same, a, b))


def _is_fronted(a: list[str], b: list[str]) -> bool:
    """Whether the end of the first text, a whole clause or phrase, begins the second."""
    for at in range(1, len(a)):
        is_part = a[at] in STARTERS or (a[at] in DAYS and at == len(a) - 1)
        if is_part and a[at] == b[0] and _is_equal(a[at:] + a[:at], b):
            return True
    return False


def _is_way_swapped(a: list[str], b: list[str]) -> bool:
    """Whether "from x to y" there is "to y from x" here."""
    if a.count("from") != 1:
        return False
    origin = a.index("from")
    target = _end(a, origin + 1)
    if a[target : target + 1] not in (["to"], ["into"]):
        return False
    end = _end(a, target + 1)
    return _is_equal(a[:origin] + a[target:end] + a[origin:target] + a[end:], b)


def _end(words: list[str], at: int) -> int:
    while at < len(words) and words[at] not in STARTERS and words[at] not in {"by", "of", "and", "or"}:
        at += 1
    return at


def _is_particle_moved(a: list[str], b: list[str]) -> bool:
    """Whether a particle follows its verb here and the object there."""
    for at in range(1, len(a)):
        if a[at] in PARTICLES and a[at - 1] in PHRASAL:
            break
    else:
        return False
    for to in range(at + 1, min(at + 1 + _FARTHEST, len(a))):
        if a[to] in STARTERS or a[to] in PARTICLES:
            return False
        if b[to] == a[at]:
            return _is_equal(a[:at] + a[at + 1 : to + 1] + [a[at]] + a[to + 1 :], b)
    return False


def _is_choice_swapped(a: list[str], b: list[str]) -> bool:
    """Whether "between x and y" or "x or y" at the end here is "between y and x" or "y or x" there."""
    if a.count("or") == 1:
        middle, starts = a.index("or"), range(1, a.index("or"))
    elif (
        not _SYMMETRIC.isdisjoint(a)
        and a.count("between") == 1
        and a.count("and") == 1
        and a.index("between") < a.index("and")
    ):
        middle, starts = a.index("and"), range(a.index("between") + 1, a.index("between") + 2)
    else:
        return False
    after = a[middle + 1 :]
    if a[middle] == "or":  # of two choices of several words nobody knows where the first begins
        starts = range(middle - len(after), middle - len(after) + 1)
    elif not STARTERS.isdisjoint(a[starts[0] :]):
        return False
    swapped = [*after, a[middle]]
    return any(
        a[start] == b[start + len(swapped)] and _is_equal([*a[:start], *swapped, *a[start:middle]], b)
        for start in starts
        if start > 0 and start + len(swapped) < len(b)
    )


def _is_turned_round(a: list[str], b: list[str]) -> bool:
    """Whether "it is safe to eat fish" there is "eating fish is safe" here."""
    if len(a) < 4 or a[0] != "it" or a[2] != "to" or not is_gerund(b[0], a[3]):
        return False
    return _is_equal([*a[4:], a[1]], b[1:])
