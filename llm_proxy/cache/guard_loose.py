"""What is written loosely: words of a search without the links between them, or in two words or one.

"Influenza map in New York", "influenza map new york" and "new york influenza map" look for the same thing: what stands
behind the link may also stand in front. Without a link nothing may change places: "train london paris" goes one way.
"""

from __future__ import annotations

from .guard_forms import is_same
from .guard_words import FUNCTION, LINKS, NEGATIONS, PARTED

__all__ = ["is_loosely_same"]

_SHORTEST = 3  # letters of a word that may be written together with another, or linked


def is_loosely_same(a: list[str], b: list[str], *, may_turn: bool) -> bool:
    """Whether two texts are the same words but for links that one of them leaves out, and spaces.

    Args:
        a: Words in order, as `llm_proxy.cache.guard_read.read` gives them.
        b: Words in order.
        may_turn: Whether what stands behind a link here may stand in front of all there.
    """
    links_a, links_b = _links(a), _links(b)
    if links_a and links_b and [a[at] for at in links_a] != [b[at] for at in links_b]:
        return False  # another link, not a missing one
    bare_a, bare_b = _without(a, links_a), _without(b, links_b)
    if _is_equal(bare_a, bare_b):
        return True
    if may_turn and not links_b and len(links_a) == 1:
        return _is_turned(a, links_a[0], b)
    return may_turn and not links_a and len(links_b) == 1 and _is_turned(b, links_b[0], a)


def _links(words: list[str]) -> list[int]:
    """Where links between two words of content stand: what stands behind a verb such as "log in" is none."""
    return [
        at
        for at in range(1, len(words) - 1)
        if words[at] in LINKS
        and _is_content(words[at - 1])
        and _is_content(words[at + 1])
        and words[at - 1] not in PARTED
    ]


def _is_content(word: str) -> bool:
    return word.isalpha() and len(word) >= _SHORTEST and word not in FUNCTION and word not in NEGATIONS


def _without(words: list[str], links: list[int]) -> list[str]:
    left_out = set(links)
    return [word for at, word in enumerate(words) if at not in left_out]


def _is_turned(a: list[str], link: int, b: list[str]) -> bool:
    turned = a[link + 1 :] + a[:link]
    # "Water glass" is no "glass of water".
    is_enough = len(turned) > 2 or a[link] != "of"
    return is_enough and all(map(_is_content, turned)) and _is_equal(turned, b)


def _is_equal(a: list[str], b: list[str]) -> bool:
    """Whether the words are the same where they stand, or differ by a space between two of them."""
    i = j = 0
    while i < len(a) and j < len(b):
        if is_same(a[i], b[j]):
            i, j = i + 1, j + 1
        elif _is_compound(a[i : i + 2], b[j]):
            i, j = i + 2, j + 1
        elif _is_compound(b[j : j + 2], a[i]):
            i, j = i + 1, j + 2
        else:
            return False
    return i == len(a) and j == len(b)


def _is_compound(parts: list[str], whole: str) -> bool:
    return len(parts) == 2 and all(map(_is_content, (*parts, whole))) and is_same(parts[0] + parts[1], whole)
