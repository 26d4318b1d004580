"""Numbers, in digits or words, and their units, in one spelling each."""

from __future__ import annotations

import re

from .words import CASED, LARGE, MONTHS, ORDINALS, SMALL, UNITS

__all__ = ["with_numbers"]

_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
_LAST_DAY = 31
_LARGEST = 10**15  # a longer row of number words is read as several


def with_numbers(words: list[str]) -> list[str]:
    """The same words with numbers in digits, and a unit's one spelling behind a number.

    Args:
        words: In lower case, in order; digits are words.
    """
    found: list[str] = []
    at, is_behind_number = 0, False
    while at < len(words):
        word = words[at]
        is_number = True
        if word[0].isdecimal():
            at = _take_digits(words, at, found)
        elif word in ORDINALS and not (is_behind_number and word in UNITS):
            found.append(ORDINALS[word])
        elif word in SMALL or word in LARGE:
            value, at = _number_in_words(words, at)
            if found[-1:] != ["what"] or value != 1:  # which one
                found.append(str(value))
        else:
            is_number = False
            found.append(_unit(word) if is_behind_number else word)
            if word == "per" and is_behind_number and words[at + 1 : at + 2] == ["cent"]:
                found[-1:], at = ["percent"], at + 1
        is_behind_number = is_number
        at += 1
    return _dated(found) if not MONTHS.keys().isdisjoint(map(str.lower, found)) else found


def _unit(word: str) -> str:
    """A unit's one spelling: also of KM, but not of Mb or MW, where capitals count."""
    lower = word.lower()
    return UNITS.get(word) or (UNITS[lower] if len(word) > 1 and lower in UNITS and lower not in CASED else word)


def _dated(words: list[str]) -> list[str]:
    """The same words with every date as day and month: of January 5th, 5 Jan and the 5th of January."""
    found: list[str] = []
    at = 0
    while at < len(words):
        month = MONTHS.get(words[at].lower(), "")
        before = found[-2] if found[-1:] == ["of"] and len(found) > 1 else (found or [""])[-1]
        after = words[at + 1] if at + 1 < len(words) else ""
        if not month or not (before[:1].isdecimal() or after[:1].isdecimal()):
            found.append(words[at])
        elif _is_day(before) and not _is_day(after):
            del found[-2 if found[-1] == "of" else -1 :]
            found += (before.removesuffix("th"), month)
        elif _is_day(after) and not _is_day(before) and words[at + 2 : at + 3] != ["percent"]:
            found += (after.removesuffix("th"), month)
            at += 1
        else:
            found.append(month)
        at += 1
    return found


def _is_day(word: str) -> bool:
    digits = word.removesuffix("th")
    return digits.isascii() and digits.isdecimal() and len(digits) < 3 and 1 <= int(digits) <= _LAST_DAY


def _take_digits(words: list[str], at: int, found: list[str]) -> int:
    digits = words[at].replace(",", "") if _THOUSANDS.match(words[at]) else words[at]
    following = words[at + 1] if at + 1 < len(words) else ""
    if following in {"am", "pm"}:
        digits = digits.removesuffix(":00")
    if following in {"st", "nd", "rd", "th"}:
        found.append(f"{digits}th")
        return at + 1
    if following in LARGE and digits.isascii() and digits.isdecimal() and len(digits) < 16:
        found.append(str(int(digits) * LARGE[following]))
        return at + 1
    found.append(digits)
    return at


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
