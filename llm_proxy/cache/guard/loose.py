"""What is written loosely: words of a search without the links between them, or in two words or one.

"Influenza map in New York", "influenza map new york" and "new york influenza map" look for the same thing: what stands
behind the link may also stand in front. Without a link nothing may change places: "train london paris" goes one way.
"""

from __future__ import annotations

from .forms import is_same
from .words import ABOUT, FUNCTION, LINKS, LOCAL, NEGATIONS, PARTED

__all__ = ["is_loosely_same"]

_SHORT = 3  # words, the link among them
_KINDS = frozenset({"kind", "kinds", "sort", "sorts", "type", "types", "glass", "cup", "box", "bag", "piece"})
_QUANTIFIERS = frozenset({"all", "extra", "every", "any", "some"})  # "all ready" is not "already"
_SHORTEST = 3  # letters of a word that may be written together with another, or linked


def is_loosely_same(a: list[str], b: list[str], *, is_search: bool) -> bool:
    """Whether two texts are the same words but for links that one of them leaves out, and spaces.

    Args:
        a: Words in order, as `llm_proxy.cache.guard.read.read` gives them.
        b: Words in order.
        is_search: Whether both lack auxiliaries: only then a link may be left out, and what stands behind a link here
            may stand in front of all there.
    """
    links_a, links_b = _links(a), _links(b)
    if not (links_a or links_b) or not is_search:
        return _is_equal(a, b)
    if links_a and links_b and [a[at] for at in links_a] != [b[at] for at in links_b]:
        return False  # another link, not a missing one
    if not all(_may_go(a, at) for at in links_a) or not all(_may_go(b, at) for at in links_b):
        return _is_equal(a, b)
    bare_a, bare_b = _without(a, links_a), _without(b, links_b)
    if _is_equal(bare_a, bare_b):
        return True
    if not links_b and len(links_a) == 1:
        return _is_turned(a, links_a[0], b)
    return not links_a and len(links_b) == 1 and _is_turned(b, links_b[0], a)


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


def _may_go(words: list[str], at: int) -> bool:
    """Whether the words say the same without the link: not "songs about lennon", "men in black", "glass of wine"."""
    head, is_short = words[at - 1], len(words) == _SHORT
    if words[at] == "about":
        return head in ABOUT
    if words[at] == "in" and is_short:
        return head in LOCAL
    return words[at] != "of" or not (is_short or head in _KINDS)


def _is_content(word: str) -> bool:
    return word.isalpha() and len(word) >= _SHORTEST and word not in FUNCTION and word not in NEGATIONS


def _without(words: list[str], links: list[int]) -> list[str]:
    left_out = set(links)
    return [word for at, word in enumerate(words) if at not in left_out]


def _is_turned(a: list[str], link: int, b: list[str]) -> bool:
    turned = a[link + 1 :] + a[:link]
    # "Water glass" is no "glass of water".
    if a[link] == "in" and b[: len(a) - link - 1] != a[link + 1 :]:
        return False  # "symptoms in humans" are not "human symptoms": places have one form
    return all(map(_is_content, turned)) and _is_equal(turned, b)


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
    return (
        len(parts) == 2
        and parts[0] not in _QUANTIFIERS
        and all(map(_is_content, (*parts, whole)))
        and is_same(parts[0] + parts[1], whole)
    )
