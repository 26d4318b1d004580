"""Is this neighbour the same question? The part of the answer that needs no model: what must agree to the letter.

Vectors of two questions lie close when they speak of the same thing, and "turn it on" speaks of the same thing as "turn
it off". So a neighbour is refused when one of these differs: numbers with their units, negation, a word against its
opposite, quoted text and code, names, and who does what to whom. A wrong refusal costs a hit, a wrong hit costs trust.

Each text is read once, in time linear in its length.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from .guard_words import (
    ALTERNATIVES,
    ARTICLES,
    LARGE,
    NEGATION_SIGNS,
    NEGATIONS,
    OPPOSITES,
    ORDINALS,
    PLAIN,
    PREFIXES,
    SMALL,
    UNITS,
)

__all__ = ["agree"]

_SPELLING = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e\xab\xbb", '"')
    | dict.fromkeys("\u2212\u2013\u2014", "-")
)
_QUOTED = re.compile(r"```.*?```|`[^`]*`|\"[^\"\n]*\"|(?<!\w)'[^'\n]+'(?!\w)", re.DOTALL)
# Every alternative ends where another kind of character begins: no text makes it go back and forth.
_TOKEN = re.compile(r"[-+]?\d+(?:[.,:/]\d+)*[^\W\d_]*(?:-[^\W_]+)*|[^\W_]+(?:['.-][^\W_]+)*[+#]*|[$€£¥%°]|[.!?:\n]")
_OPENING = re.compile(r"'(?<!\w')")
_NUMBER = re.compile(r"([-+]?)(\d+(?:[.,:/]\d+)*)([^\W\d_]*)$")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_NUMBER_WORDS = frozenset((*SMALL, *LARGE, *ORDINALS))
_ENDS = frozenset(".!?:\n")
_ZEROS = {word: "0" * (len(str(value)) - 1) for word, value in LARGE.items() if word != "dozen"}

_TOWARDS = frozenset({"to", "into"})
_REMEMBERED_CHARS = 2_000
_LARGEST = 10**15  # a longer row of number words is read as several

_Number = tuple[str, str]


@dataclass(slots=True)
class _Reading:
    """What of a text must agree.

    Attributes:
        quotes: Quoted text and code.
        words: All other words in lower case, in order.
        numbers: Numbers and their units; the unit is empty where none follows.
        ones: The word "one" where it stands alone, with its unit: it may be a number or not.
        negations: How many words negate.
        names: Words whose form says that they are names, in lower case.
    """

    quotes: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    numbers: Counter[_Number] = field(default_factory=Counter)
    ones: Counter[_Number] = field(default_factory=Counter)
    negations: int = 0
    names: set[str] = field(default_factory=set)


def agree(one: str, other: str) -> str:
    """Why two questions cannot share an answer, as far as their wording tells.

    Args:
        one: A question; any text.
        other: Another.

    Returns:
        "quotes", "numbers", "negation", "names" or "direction" for the first thing found to differ; the empty string
        when they may mean the same.
    """
    if one == other:
        return ""
    a, b = _reading(one), _reading(other)
    if a.quotes != b.quotes and sorted(a.quotes) != sorted(b.quotes):
        return "quotes"
    if not _same_numbers(a, b):
        return "numbers"
    if a.negations != b.negations or (a.negations and _is_negation_moved(a.words, b.words)):
        return "negation"
    if _lacks_name(a, b) or _lacks_name(b, a):
        return "names"
    return _word_against_word(a.words, b.words)


# -- reading -----------------------------------------------------------------------------------------------------


def _reading(text: str) -> _Reading:
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else _read(text)


@lru_cache(maxsize=512)
def _remembered(text: str) -> _Reading:
    """A question is compared with several neighbours, and popular entries with several questions."""
    return _read(text)


def _read(text: str) -> _Reading:
    reading = _Reading()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_SPELLING)
        reading.negations = sum(text.count(sign) for sign in NEGATION_SIGNS)
    if '"' in text or "`" in text or ("'" in text and _OPENING.search(text)):
        reading.quotes = [quoted.strip("`\"'").strip() for quoted in _QUOTED.findall(text)]
        text = _QUOTED.sub(" ", text)
    _sort_tokens(_TOKEN.findall(text), reading, is_shouted=text.isupper())
    words = reading.words
    if not _NUMBER_WORDS.isdisjoint(words) or ("-" in text and any("-" in word for word in words)):
        _count_number_words(reading)
    if not NEGATIONS.isdisjoint(words):
        reading.negations += sum(word in NEGATIONS for word in words)
    if "n't" in text or "N'T" in text:
        reading.negations += sum(word.endswith("n't") for word in words)
    return reading


def _sort_tokens(tokens: list[str], reading: _Reading, *, is_shouted: bool) -> None:
    words, is_first, currency = reading.words, True, ""
    for at, token in enumerate(tokens):
        if token.islower() and token.isalpha():
            words.append(token)
        elif token in _ENDS:
            is_first = True
            continue
        elif token[0].isdecimal() or (token[0] in "+-"):
            _take_number(token, tokens[at + 1 : at + 3], currency, reading)
        elif not token[0].isalnum():
            currency = UNITS.get(token, "")
            continue
        else:
            word = token.casefold().removesuffix("'s")
            words.append(word)
            if word not in PLAIN and not is_shouted and _is_name(token, is_first=is_first):
                reading.names.add(word)
        is_first, currency = False, ""


def _is_name(token: str, *, is_first: bool) -> bool:
    if token[0].isupper() and not is_first:
        return True
    # iPhone, SQL, gpt-4: no matter where.
    return any(map(str.isupper, token[1:])) or not token.replace("-", "").replace("'", "").replace(".", "").isalpha()


def _take_number(token: str, following: list[str], currency: str, reading: _Reading) -> None:
    head, *tail = token[1:].split("-") if token[0] in "+-" else token.split("-")
    sign = "-" if token[0] == "-" else ""
    for part in (head, *tail):
        found = _NUMBER.match(part)
        if found is None:
            reading.words.append(part.casefold())
            continue
        _, digits, suffix = found.groups()
        suffix = suffix.casefold()
        value = sign + _value(digits)
        if suffix in {"st", "nd", "rd", "th"}:
            reading.numbers[value, "th"] += 1
        elif suffix and suffix not in UNITS:  # 3d, 4x4: a name
            reading.names.add(part.casefold())
            reading.words.append(part.casefold())
        else:
            after = tail[0:1] if part is head and tail else following
            unit, large = (UNITS[suffix], "") if suffix else _unit_of(after)
            if large and digits.isdecimal():
                value += _ZEROS[large]
            reading.numbers[value, unit or currency or ("" if digits.isdecimal() else large)] += 1
            reading.words.append(value)
        sign = ""


def _unit_of(following: list[str]) -> tuple[str, str]:
    """The unit that the words after a number name, and the large number word that they begin with."""
    words = [word.casefold() for word in following]
    large = words.pop(0) if words and words[0] in _ZEROS else ""
    if not words:
        return "", large
    if words[0] == "°":
        return UNITS.get("°" + words[1], "°") if len(words) > 1 else "°", large
    return UNITS.get(words[0], ""), large


def _value(digits: str) -> str:
    """One spelling of equal numbers: 1,000 and 1000; 3.0 and 3."""
    if _THOUSANDS.match(digits):
        digits = digits.replace(",", "")
    whole, point, rest = digits.partition(".")
    if point and rest.isdecimal() and whole.isdecimal():
        rest = rest.rstrip("0")
        return f"{whole}.{rest}" if rest else whole
    return digits


def _count_number_words(reading: _Reading) -> None:
    words = [part for word in reading.words for part in (word.split("-") if "-" in word else (word,))]
    at = 0
    while at < len(words):
        word = words[at]
        if word in ORDINALS:
            reading.numbers[str(ORDINALS[word]), "th"] += 1
        elif (word in SMALL or word in LARGE) and not (word in _ZEROS and at and words[at - 1][-1:].isdecimal()):
            value, at = _number_in_words(words, at)
            following = words[at + 1 : at + 2]
            unit = UNITS.get(following[0], "") if following else ""
            (reading.ones if word == "one" and value == 1 else reading.numbers)[str(value), unit] += 1
        at += 1


def _number_in_words(words: list[str], at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place of its last word."""
    total = current = 0
    last = at
    while at < len(words) and current < _LARGEST and total < _LARGEST:
        word = words[at]
        small = SMALL.get(word)
        if small is not None:
            fits = current == 0 or current % 100 == 0 or (current % 10 == 0 and current % 100 > 10 and 0 < small < 10)
            if not fits or (current == 0 and at != last and total == 0):
                break
            current += small
            last = at
        elif word in LARGE:
            current = max(1, current) * LARGE[word]
            if LARGE[word] >= 1000:
                total, current = total + current, 0
            last = at
        elif word != "and" or last == at or current % 100 or not total + current:
            break
        at += 1
    return total + current, last


# -- comparing ---------------------------------------------------------------------------------------------------


def _same_numbers(a: _Reading, b: _Reading) -> bool:
    if a.numbers == b.numbers:
        return True
    # "One day" may be 1 day of the other text, or just a day.
    return a.numbers - b.numbers <= b.ones and b.numbers - a.numbers <= a.ones


def _is_negation_moved(a: list[str], b: list[str]) -> bool:
    """Whether each text negates a word that the other one has without negation."""
    negated_a, negated_b = _negated(a), _negated(b)
    return not (negated_a - negated_b).isdisjoint(b) and not (negated_b - negated_a).isdisjoint(a)


def _negated(words: list[str]) -> set[str]:
    found, is_negated = set(), False
    for word in words:
        if word in NEGATIONS or word.endswith("n't"):
            is_negated = True
        elif is_negated and word not in PLAIN:
            found.add(word)
            is_negated = False
    return found


def _lacks_name(reading: _Reading, other: _Reading) -> bool:
    if not reading.names:
        return False
    words = set(other.words)
    return any(
        not (name in words or name + "s" in words or (name[-1] == "s" and name[:-1] in words)) for name in reading.names
    )


def _word_against_word(a: list[str], b: list[str]) -> str:
    count_a, count_b = Counter(a), Counter(b)
    more_a = [word for word, count in count_a.items() if count > count_b.get(word, 0)]
    more_b = [word for word, count in count_b.items() if count > count_a.get(word, 0)]
    if more_a and more_b:
        only_a, only_b = set(map(_stem, more_a)), set(map(_stem, more_b))
        if _is_prefixed(only_a, only_b) or _is_prefixed(only_b, only_a):
            return "negation"
        reason = _opposed(only_a, only_b)
        if reason:
            return reason
    if _has_way(count_a) and _has_way(count_b) and _is_turned(a, b):
        return "direction"
    return "direction" if PLAIN.issuperset(more_a) and PLAIN.issuperset(more_b) and _is_reordered(a, b) else ""


@lru_cache(maxsize=4096)
def _stem(word: str) -> str:
    """A rough stem: enough that forms of one word meet."""
    if word.endswith("ing") and len(word) > 5:
        word = word[:-3]
    elif word.endswith(("ed", "es")) and len(word) > 4:
        word = word[:-2]
    elif word.endswith("s") and len(word) > 3 and word[-2] != "s":
        word = word[:-1]
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) > 2 else word


def _sides() -> dict[str, list[tuple[int, int, str]]]:
    """Of each stem: its class, its side there, and what it means that two sides meet."""
    sides: dict[str, list[tuple[int, int, str]]] = {}
    classes = [(sides_, "negation") for sides_ in OPPOSITES]
    classes += [(tuple((word,) for word in line.split()), "names") for line in ALTERNATIVES]
    for number, (members, reason) in enumerate(classes):
        for side, words in enumerate(members):
            for word in words:
                sides.setdefault(_stem(word), []).append((number, side, reason))
    return sides


_SIDES = _sides()


def _opposed(only_a: set[str], only_b: set[str]) -> str:
    found = {number: side for word in only_a for number, side, _ in _SIDES.get(word, ())}
    if not found:
        return ""
    for word in only_b:
        for number, side, reason in _SIDES.get(word, ()):
            if found.get(number, side) != side:
                return reason
    return ""


def _is_prefixed(words: set[str], bare: set[str]) -> bool:
    """Whether a word here is one there with a negating prefix: unlock, disagree, non-smoking."""
    return any(
        word.startswith(prefix) and len(word) > len(prefix) + 2 and word[len(prefix) :] in bare
        for word in words
        if word.startswith(PREFIXES)
        for prefix in PREFIXES
    )


def _has_way(words: Counter[str]) -> bool:
    return "to" in words or "into" in words


def _is_turned(a: list[str], b: list[str]) -> bool:
    """Whether one goes from x to y and the other from y to x."""
    origins_a, targets_a = _ends_of_ways(a)
    origins_b, targets_b = _ends_of_ways(b)
    return bool((origins_a & targets_b) - origins_b) and bool((targets_a & origins_b) - targets_b)


def _ends_of_ways(words: list[str]) -> tuple[set[str], set[str]]:
    origins, targets = set(), set()
    kept = [word for word in words if word not in ARTICLES]
    for before, after in pairwise(kept):
        if before == "from":
            origins.add(after)
        elif before in _TOWARDS:
            targets.add(after)
        if after in _TOWARDS:
            origins.add(before)
    return origins, targets


def _is_reordered(a: list[str], b: list[str]) -> bool:
    """Whether the same content comes in another order; a clause moved to the front or the end is allowed."""
    if "from" in a and "from" in b and "to" in a and "to" in b:  # then `_is_turned` has judged the ends
        a, b = _without_ends(a), _without_ends(b)
    a = [word for word in a if word not in PLAIN]
    b = [word for word in b if word not in PLAIN]
    if a == b or len(a) != len(b) or Counter(a) != Counter(b):
        return False
    is_rotated = len(a) > 2 and f"\n{chr(10).join(a)}\n" in f"\n{chr(10).join(b + b)}\n"
    return not is_rotated


def _without_ends(words: list[str]) -> list[str]:
    kept = [word for word in words if word not in ARTICLES]
    return [word for before, word in pairwise(["", *kept]) if before != "from" and before not in _TOWARDS]
