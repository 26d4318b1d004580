"""Is this neighbour the same question? The part of the answer that needs no model.

Vectors of two questions lie close when they speak of the same thing, and "turn it on" speaks of the same thing as "turn
it off". So every word, number and sign must agree, in order, but for what is known to change nothing: articles,
punctuation, polite and idle words, "how do I" for "how can I", number and person, a few synonyms, a clause moved to the
front, and what searches leave out. A wrong refusal costs a hit, a wrong hit costs trust: what is not known differs.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache, partial

from .forms import is_form, is_same, keys, lacking
from .loose import is_loosely_same
from .order import is_rearranged
from .read import Reading, read
from .words import (
    ABOUT_WORDS,
    ACTING,
    AUXILIARIES,
    CASES,
    GIVING,
    NEGATIONS,
    NOT,
    OPPOSITES,
    PERSONS,
    PREFIXES,
    QUESTIONS,
    TIMES,
)

__all__ = ["agree", "reading"]

_REMEMBERED_CHARS = 2_000
_DEFINITE = frozenset({"the", "my"})
_STATING = frozenset({"what", "who", "is", "are", "am", "was", "were"})
_ASKING = frozenset((*AUXILIARIES, "do", "does"))
_HAVING = frozenset({"have", "has", "had"})
_WH = frozenset({"what", "which", "who", "when", "where", "why", "how"})
_BARE = 2  # words: "what", and what it is about


def agree(one: str, other: str) -> str:
    """Why two questions cannot share an answer, as far as their wording tells.

    Args:
        one: A question; any text.
        other: Another.

    Returns:
        What was found to differ: "quotes", "operators", "numbers", "negation", "names", "person", "question", "words",
        "direction", "command" (one tells to do what the other asks about), "tense" or "language" (one is not English,
        and they are not the same); the empty string when they mean the same.
    """
    if one == other:
        return ""
    a, b = reading(one), reading(other)
    if a.quotes != b.quotes:
        return "quotes"
    if a.is_foreign or b.is_foreign:
        return "" if a.words == b.words and a.is_foreign == b.is_foreign else "language"
    if a.words != b.words and (_is_about_words(a) or _is_about_words(b)):
        return "quotes"
    if a.words == b.words or (len(a.words) == len(b.words) and all(map(is_same, a.words, b.words))):
        return _difference_beside(a, b)
    if is_loosely_same(a.words, b.words, is_search=not (a.auxiliaries or b.auxiliaries)):
        return _difference_beside(a, b)
    has_who = a.words[:1] == ["who"] or b.words[:1] == ["who"]  # "who killed hamlet", "who did hamlet kill"
    if not has_who and (is_rearranged(a.words, b.words) or is_rearranged(b.words, a.words)):
        if (_is_giving(a, b) and sorted(a.words) != sorted(b.words)) or _is_other_one(a, b, has_forms=False):
            return "words"
        # Moved clauses take their auxiliaries along; of one kind they cannot have changed places.
        is_one_kind = a.auxiliaries == b.auxiliaries and len(set(a.auxiliaries)) <= 1
        return "" if is_one_kind else "tense"
    return _difference(a, b)


def _is_about_words(reading: Reading) -> bool:
    return not ABOUT_WORDS.isdisjoint(map(str.lower, reading.words))


def reading(text: str) -> Reading:
    """A text as `read.read` gives it, remembered for a while."""
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else read(text)


@lru_cache(maxsize=512)
def _remembered(text: str) -> Reading:
    """A question is compared with several neighbours, and popular entries with several questions."""
    return read(text)


def _difference_beside(a: Reading, b: Reading) -> str:
    """What differs beside the words, which are the same."""
    if a.auxiliaries != b.auxiliaries:
        return "tense"
    if (a.opening in _ASKING) != (b.opening in _ASKING):  # "can I fly", "I can fly"
        return "question"
    has_forms = any(map(is_form, a.words, b.words))
    if (_is_giving(a, b) and has_forms) or _is_other_one(a, b, has_forms=has_forms):
        return "words"
    if has_forms and any(map(partial(_are_names, a.names, b.names), a.words, b.words)):
        return "names"
    # Articles may be left out; the same ones in another order stand before other words.
    return "direction" if a.articles != b.articles and sorted(a.articles) == sorted(b.articles) else ""


def _is_giving(a: Reading, b: Reading) -> bool:
    """Whether something is to be made, and one thing is not several."""
    return not GIVING.isdisjoint((*a.words[:1], *b.words[:1]))


def _is_other_one(a: Reading, b: Reading, *, has_forms: bool) -> bool:
    """Whether one asks of a thing that is known, and the other of any: "my IP address", "an IP address"."""
    if a.articles == b.articles:
        return False
    if has_forms and _DEFINITE.isdisjoint(a.articles) != _DEFINITE.isdisjoint(b.articles):
        return True  # "is the dog dangerous", "are dogs dangerous"
    only_a, only_b = Counter(a.articles) - Counter(b.articles), Counter(b.articles) - Counter(a.articles)
    is_stating = a.opening in _STATING and b.opening in _STATING
    return _is_known(only_a, only_b, a, is_stating=is_stating) or _is_known(only_b, only_a, b, is_stating=is_stating)


def _is_known(articles: Counter[str], others: Counter[str], reading: Reading, *, is_stating: bool) -> bool:
    """Whether these articles tell of a known thing and those of any, or of none."""
    if "my" in articles and "the" not in others:
        return is_stating or "a" in others  # "the meaning of my life", "the meaning of life"; "my refund", "a refund"
    if "the" not in articles or not is_stating or "my" in others:
        return False
    is_bare = reading.words[:1] == ["what"] and len(reading.words) == _BARE  # "what is the time", "what is time"
    return "a" in others or is_bare


def _are_names(names: set[str], others: set[str], one: str, other: str) -> bool:
    """Whether two forms of a word are two names: Adam and Adams."""
    return one.islower() and one in names and other in others and is_form(one, other)


# -- saying why --------------------------------------------------------------------------------------------------


def _difference(a: Reading, b: Reading) -> str:
    if _signs(a.words) != _signs(b.words):
        return "operators"
    only_a, only_b = lacking(a.words, b.words), lacking(b.words, a.words)
    both = only_a | only_b
    if not both or _is_swapped(a, b) or _is_who_moved(a, b):
        return "direction"
    if any(word[0].isdecimal() for word in both):
        return "numbers"
    if _is_negated(both) or _is_opposed(only_a, only_b):
        return "negation"
    if _is_told(a, b) or _is_told(b, a):
        return "command"
    if _is_to_come(a, b) or _is_to_come(b, a) or _is_of_another_time(a, b):
        return "tense"
    if not a.names.isdisjoint(map(str.lower, only_a)) or not b.names.isdisjoint(map(str.lower, only_b)):
        return "names"
    if not both.isdisjoint(PERSONS):
        return "person"
    return "question" if not both.isdisjoint(QUESTIONS) else "words"


def _is_swapped(a: Reading, b: Reading) -> bool:
    """Whether persons differ in case alone: "did anna invite me", "did I invite anna"."""
    one, other = (
        [CASES.get(word.lower(), word) for word in (*each.words, *filter(CASES.get, each.articles))] for each in (a, b)
    )
    return len(one) == len(other) and not lacking(one, other) and not lacking(other, one)


def _is_who_moved(a: Reading, b: Reading) -> bool:
    """Whether who acts in one is who something is done to in the other: "who killed him", "who did he kill"."""
    is_who = a.words[:1] == b.words[:1] == ["who"]
    return is_who and any("who do" in word or "who did" in word for word in {*a.auxiliaries} ^ {*b.auxiliaries})


def _is_told(a: Reading, b: Reading) -> bool:
    """Whether one tells to do what the other asks about: "cancel my order", "is my order cancelled"."""
    return a.opening in ACTING and b.opening in _ASKING | _HAVING | _WH


def _is_to_come(a: Reading, b: Reading) -> bool:
    """Whether one asks of what will be, and the other of what has been: "will it snow", "has it snowed"."""
    is_past = not {"did", "was"}.isdisjoint(b.auxiliaries) or b.opening in _HAVING
    return "will" in a.auxiliaries and "will" not in b.auxiliaries and is_past


def _is_of_another_time(a: Reading, b: Reading) -> bool:
    """Whether both want yes or no, of two times: "is it hot in Dubai", "does it get hot in Dubai"."""
    times = {_time(a), _time(b)}
    return len(times) == 2 and "" not in times


def _time(reading: Reading) -> str:
    time = TIMES.get(reading.opening, "")
    return "later" if time == "now" and "going" in reading.words else time


def _signs(words: list[str]) -> list[str]:
    return [word for word in words if not word[0].isalnum() and word[0] != NOT]


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
