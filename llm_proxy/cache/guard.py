"""Is this neighbour the same question? The part of the answer that needs no model.

Vectors of two questions lie close when they speak of the same thing, and "turn it on" speaks of the same thing as "turn
it off". So every word, number and sign must agree, in order, but for what is known to change nothing: articles,
punctuation, polite and idle words, "how do I" for "how can I", number and person, a few synonyms, a clause moved to the
front, and what searches leave out. A wrong refusal costs a hit, a wrong hit costs trust: what is not known differs.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from .guard_forms import is_form, is_same, keys
from .guard_loose import is_loosely_same
from .guard_order import is_rearranged
from .guard_read import Reading, read
from .guard_words import GIVING, NEGATIONS, NOT, OPPOSITES, PERSONS, PREFIXES, QUESTIONS

__all__ = ["agree"]

_REMEMBERED_CHARS = 2_000


def agree(one: str, other: str) -> str:
    """Why two questions cannot share an answer, as far as their wording tells.

    Args:
        one: A question; any text.
        other: Another.

    Returns:
        What was found to differ: "quotes", "operators", "numbers", "negation", "names", "person", "question", "words",
        "direction" or "tense"; the empty string when they mean the same.
    """
    if one == other:
        return ""
    a, b = _reading(one), _reading(other)
    if a.quotes != b.quotes:
        return "quotes"
    if a.words == b.words or (len(a.words) == len(b.words) and all(map(is_same, a.words, b.words))):
        return _difference_beside(a, b)
    if is_loosely_same(a.words, b.words, may_turn=not (a.auxiliaries or b.auxiliaries)):
        return _difference_beside(a, b)
    if is_rearranged(a.words, b.words) or is_rearranged(b.words, a.words):
        if _is_giving(a, b) and sorted(a.words) != sorted(b.words):
            return "words"
        # Moved clauses take their auxiliaries along; of one kind they cannot have changed places.
        is_one_kind = a.auxiliaries == b.auxiliaries and len(set(a.auxiliaries)) <= 1
        return "" if is_one_kind else "tense"
    return _difference(a, b)


def _reading(text: str) -> Reading:
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else read(text)


@lru_cache(maxsize=512)
def _remembered(text: str) -> Reading:
    """A question is compared with several neighbours, and popular entries with several questions."""
    return read(text)


def _difference_beside(a: Reading, b: Reading) -> str:
    """What differs beside the words, which are the same."""
    if a.auxiliaries != b.auxiliaries:
        return "tense"
    if _is_giving(a, b) and any(map(is_form, a.words, b.words)):
        return "words"
    # Articles may be left out; the same ones in another order stand before other words.
    return "direction" if a.articles != b.articles and sorted(a.articles) == sorted(b.articles) else ""


def _is_giving(a: Reading, b: Reading) -> bool:
    """Whether something is to be made, and one thing is not several."""
    return not GIVING.isdisjoint((*a.words[:1], *b.words[:1]))


# -- saying why --------------------------------------------------------------------------------------------------


def _difference(a: Reading, b: Reading) -> str:
    if _signs(a.words) != _signs(b.words):
        return "operators"
    only_a, only_b = _only(a.words, b.words), _only(b.words, a.words)
    both = only_a | only_b
    if not both:
        return "direction"
    if any(word[0].isdecimal() for word in both):
        return "numbers"
    if _is_negated(both) or _is_opposed(only_a, only_b):
        return "negation"
    if not a.names.isdisjoint(map(str.casefold, only_a)) or not b.names.isdisjoint(map(str.casefold, only_b)):
        return "names"
    if not both.isdisjoint(PERSONS):
        return "person"
    return "question" if not both.isdisjoint(QUESTIONS) else "words"


def _signs(words: list[str]) -> list[str]:
    return [word for word in words if not word[0].isalnum() and word[0] != NOT]


def _only(words: list[str], others: list[str]) -> set[str]:
    """Words that the other text lacks, or has fewer times."""
    more = (Counter(words) - Counter(others)).keys()
    known = {key for word in set(others).difference(words) for key in keys(word)}
    return {word for word in more if known.isdisjoint(keys(word))}


def _is_negated(words: set[str]) -> bool:
    return any(word[0] == NOT or word in NEGATIONS for word in words)


def _is_opposed(only_a: set[str], only_b: set[str]) -> bool:
    a = {form for word in only_a for form in _forms(word)}
    b = {form for word in only_b for form in _forms(word)}
    if any(prefix + word in other for one, other in ((a, b), (b, a)) for word in one for prefix in PREFIXES):
        return True
    return any((x & a and y & b) or (x & b and y & a) for x, y in OPPOSITES)


def _forms(word: str) -> frozenset[str]:
    return keys(word) | {word.removesuffix(ending) for ending in ("ed", "d", "ing")} | {word.removesuffix("ing") + "e"}
