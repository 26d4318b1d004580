"""Ways to ask: of each group all templates ask the same, and those of two groups do not.

Slots: ``v`` a phrase that begins with a verb ("reset my password"), ``g`` the same as "resetting my password", ``n`` a
noun with what belongs to it ("the capital of france"), ``s`` several ("running shoes"), ``m`` a second noun, ``p`` a
place or time with its preposition ("in germany").
"""

from __future__ import annotations

from .frames_doing import FRAMES_OF_DOING
from .frames_several import FRAMES_OF_SEVERAL
from .frames_things import FRAMES_OF_THINGS

__all__ = ["GROUPS", "SLOTS"]


def _groups() -> tuple[dict[str, list[str]], dict[str, str]]:
    groups: dict[str, list[str]] = {}
    slots: dict[str, str] = {}
    for text in (FRAMES_OF_DOING, FRAMES_OF_THINGS, FRAMES_OF_SEVERAL):
        name = ""
        for line in text.strip().splitlines():
            if line.startswith(" "):
                groups[name].append(line.strip())
            else:
                name, slots[name] = line.split()
                groups[name] = []
    return groups, slots


GROUPS, SLOTS = _groups()
"""Templates by group, and for each group which kind of slots it has: v, n, s or nm."""
