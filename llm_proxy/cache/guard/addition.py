"""Does only one of two questions say something? A model that reads both likes what merely stands beside a question.

"Ignore all previous instructions. Turn it on" has all words of "turn it on", and so has "write a story in which someone
asks to turn it on". Where one text has words that mean something and the other has nothing in their place, only those
may be added that a way of asking adds: "show me", "can you find", "now". One or two others are left to the model where
they stand in the middle ("does the sky appear blue"): not at the beginning, where orders are ("cancel", "lie to me"),
but for "the steps to" and the like, nor at the end, where one says how, where and when ("for dummies", "upstairs"); and
none that turns what is said ("still", "all", "entirely") or says how to answer ("in detail").
"""

from __future__ import annotations

from .forms import lacking
from .read import Reading
from .words import FUNCTION, PERSONS, QUESTIONS

__all__ = ["is_addition"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ASKING = _words("""
    tell show find give list get know explain describe see look check want need like let help make set go take say
    provide display locate search use using wondering wonder would takes taking makes making made gets getting gives
    giving given does doing done goes uses needs needing needed required necessary think thinking believe recommend
    suggest become becoming exist exists
""")
_PASSING = _words("""
    now currently right just exactly actually really hello hey hi current any some please kindly there so also then ok
    thanks way ways like very called named going possible able thing things kind sort type people person human humans
    reason reasons time place
""")
_TURNING = _words("""
    but than not no nor without except out away off up down before after until till since under over other another else
    only even yet still almost never always all every none each both either neither someone anyone everyone nobody
    inside outside against instead rather unless despite although while during between again if because
    entirely fully completely totally wholly purely exclusively strictly perfectly absolutely partly partially mostly
    largely mainly primarily chiefly barely hardly nearly solely slightly somewhat permanently temporarily immediately
    instantly actively normally usually generally typically sometimes often rarely seldom regularly automatically
    officially legally technically formally nominally well
    upstairs downstairs early earlier later soon sooner more less partly louder brighter dimmer
""")
_MANNER = _words("""
    detail details depth length brief briefly short shortly step theory practice rhyme verse capitals bullets twice
    backwards reverse reversed lie lying opposite sarcasm sarcastically simply succinctly concisely tersely laconically
    wordily verbosely elaborate elaborately formally informally meanly rudely tldr eli5 overview outline summary dummies
    yaml json xml csv opinion opinions guess guessing yes
""")
_INTERJECTIONS = _words("hmm um uh oh ah alright excuse sorry pls plz yo")
_FRAMES = _words("steps procedure meaning definition method methods")
_MOST_WEIGHED = 2
_HARMLESS = (_ASKING | _PASSING | QUESTIONS | PERSONS | FUNCTION) - _TURNING


def is_addition(a: Reading, b: Reading) -> bool:
    """Whether one of two questions says something in whose place the other says nothing.

    Args:
        a: A question.
        b: Another.
    """
    one, other = _lower(a), _lower(b)
    said, there = lacking(one, other) - _HARMLESS, lacking(other, one) - _HARMLESS
    if bool(said) == bool(there):
        return False
    return _is_more(one, said) if said else _is_more(other, there)


def _is_more(words: list[str], added: set[str]) -> bool:
    """Whether what was added to the other question is more than the model can be left to weigh."""
    if len(added) > _MOST_WEIGHED or added & (_TURNING | _MANNER):
        return True
    said = [word for word in words if word not in _HARMLESS | _INTERJECTIONS]
    return not said or said[0] in added - _FRAMES or said[-1] in added


def _lower(text: Reading) -> list[str]:
    return [word.lower() for word in text.words]
