"""Whether two words are forms of one word, or mean the same: files and file, runs and run, purchase and buy.

Other forms are words of their own: "who plays" and "who played" are two questions, parks and parking are two things.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from .synonyms import IRREGULAR, SYNONYMS, UNINFLECTED
from .words import CASED, FUNCTION, HOMOGRAPHS, NOT

__all__ = ["is_form", "is_gerund", "is_same", "keys", "lacking"]

_TOLD_APART = FUNCTION | HOMOGRAPHS | CASED
_LONGEST = 40  # characters of a word of which forms are looked for
_DOUBLED = "bdfgklmnprstz"
_VOWELS = "aeiouy"
_OUR = re.compile(  # not "mourning" and "morning", nor Harbourne
    r"\A(arm|behavi|clam|col|endeav|fav|ferv|flav|glam|harb|hon|hum|lab|neighb|od|parl|ranc|rig|rum|sav|splend|tum|val"
    r"|vap|vig)our(?=\Z|s|ed|er|ing|ab|it|ful|less|ho|al|ly|ist)"
)


def is_same(one: str, other: str) -> bool:
    """Whether two words may stand for each other; symmetric.

    Args:
        one: A word as `llm_proxy.cache.guard.read.read` gives it: a capital in it tells it from another word.
        other: Another.
    """
    if one == other:
        return True
    if not one.islower() and not other.islower():
        return one + "s" == other or other + "s" == one  # APIs; but "Co" is not "CO", nor "getId" "GetId"
    one, other = _plain(one), _plain(other)
    return not keys(one).isdisjoint(keys(other))


def _plain(word: str) -> str:
    """In lower case, as who does not care for capitals writes it, where that is no word of its own."""
    lower = word.lower()
    return word if word[0] == "=" or lower in _TOLD_APART else lower


def is_form(one: str, other: str) -> bool:
    """Whether two words differ in number or person only."""
    return one != other and not _bases(one).isdisjoint(_bases(other))


def keys(word: str) -> frozenset[str]:
    """What stands for a word and all its forms: two words in lower case are the same when these meet."""
    return _keys(word) if len(word) <= _LONGEST else frozenset((word,))


def lacking(words: list[str], others: list[str]) -> set[str]:
    """Words that another text lacks in all forms, or has fewer times."""
    more = (Counter(words) - Counter(others)).keys()
    known = {key for word in set(others).difference(words) for key in keys(word)}
    return {word for word in more if known.isdisjoint(keys(word))}


@lru_cache(maxsize=4096)
def _keys(word: str) -> frozenset[str]:
    stem = word.lstrip(NOT)
    negation = word[: len(word) - len(stem)]
    return frozenset(negation + SYNONYMS.get(base, base) for base in _bases(stem))


def _bases(word: str) -> frozenset[str]:
    """The words that a word may be a form of, itself among them, in one spelling."""
    if not word.isascii() or not word.isalpha():
        return frozenset((word,))
    if word in IRREGULAR:
        return frozenset((word, IRREGULAR[word]))
    found = {word}
    if len(word) > 3 and word not in UNINFLECTED and word.endswith("s") and word[-2] not in "sui":
        found.update(_without_s(word))
    return frozenset(map(_spelt, found - (HOMOGRAPHS - {word})))


def is_gerund(word: str, verb: str) -> bool:
    """Whether a word is a verb with "ing" behind: running, calling, making, visiting. "Hoping" is of "hope" alone."""
    stem = word.removesuffix("ing")
    if stem == word or not any(letter in _VOWELS for letter in stem):
        return False
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] in _DOUBLED:
        return verb == stem[:-1] or (verb == stem and stem[-1] in "lsfz")
    vowels = sum(letter in _VOWELS for letter in stem)
    is_short = len(stem) > 1 and vowels == 1 and stem[-1] not in "wxy" + _VOWELS and stem[-2] in _VOWELS
    return verb == stem + "e" or (verb == stem and not is_short)


def _without_s(word: str) -> tuple[str, ...]:
    if word.endswith("ies"):
        return word[:-1], word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        return word[:-1], word[:-2]
    return (word[:-1],)


def _spelt(word: str) -> str:
    """One spelling of what British and American English spell differently."""
    if len(word) > 5 and "is" in word:
        word = word.replace("isation", "ization")
        if word.endswith("ise"):
            word = word[:-3] + "ize"
    if len(word) > 4 and "our" in word:
        word = _OUR.sub(r"\1or", word)
    if len(word) > 4 and word.endswith("tre"):
        word = word[:-3] + "ter"
    return word
