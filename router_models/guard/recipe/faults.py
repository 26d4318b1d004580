"""Small changes that make another question of one. Each takes a text in lower case and gives another, or None."""

from __future__ import annotations

import random
import re

from .edits import Edit, word_form
from .wordnet import WordNet, inflected

__all__ = ["FAULTS"]

_OPPOSED = [
    tuple(line.split(" | "))
    for line in """
on | off;up | down;in | out;before | after;more | less;most | least;best | worst;good | bad;high | low;highest | lowest
largest | smallest;big | small;first | last;with | without;open | close;start | stop;begin | end;increase | decrease
add | remove;buy | sell;import | export;upload | download;enable | disable;allow | prevent;always | never;all | some;all | no
every | any;some | no;both | neither;many | few;can | can't;is | isn't;do | don't;should | shouldn't;old | new;hot | cold
left | right;day | night;morning | evening;today | tomorrow;yesterday | today;this | next;next | last;cheap | expensive
cheapest | most expensive;fast | slow;early | late;earlier | later;male | female;men | women;boy | girl;husband | wife
his | her;he | she;him | her;my | your;i | you;me | you;we | they;win | lose;send | receive;borrow | lend;teach | learn;push | pull
increase | reduce;longer | shorter;older | younger;better | worse;over | under;above | below;inside | outside;to | from
minimum | maximum;advantages | disadvantages;benefits | risks;possible | impossible;legal | illegal;safe | unsafe
android | iphone;windows | linux;facebook | instagram;google | amazon;python | java;india | china;english | french;pc | phone
monday | friday;week | month;month | year;minutes | hours;days | weeks;kg | pounds;miles | km;dollars | euros;am | pm
once | twice;percent | times;who | what;where | when;why | how;how | why;what | why;when | where;what | who;how | when
how much | how many;how long | how often;should | can;can | should;will | did;is | was;are | were;do | did;does | did
at least | at most;more than | less than;only | also;to | for;for | with;by | for;in | of;from | for;best | cheapest;best | first
best | fastest;easiest | fastest;cost | time;how to | why;cause | cure;symptoms | causes;price | size;name | age;number | name
""".strip()
    .replace("\n", ";")
    .split(";")
]
_NEGATABLE = re.compile(r"\b(is|are|was|were|do|does|did|can|could|should|would|will|has|have)\b(?! not)")
_NUMBER = re.compile(r"\d+")
_ADDED = (
    "in india; in the us; in germany; in london; in canada; in china; in 2015; in 2016; this year; today; for beginners; "
    "for kids; for women; for men; on android; on an iphone; on windows; in python; in java; in spanish; at night; in "
    "winter; for free; in one week; without a degree; without money; without exercise; without a credit card; with a "
    "friend; after marriage; as a student; at home; by car; in high school; in the first year; for a small business; "
    "if i am under 18; at the age of 40; from abroad; over the phone; in the long term; for my mother; again"
).split("; ")
_ADJECTIVES = (
    "old new small big indian american german female male young free cheap expensive online public private digital "
    "electric chemical financial medical legal local international national daily used second chinese modern ancient "
    "mechanical wooden black white red blue green first last commercial military religious political social mental "
    "physical natural artificial"
).split()
_TAIL = re.compile(
    r"^(?P<q>.{12,}?) (?:in|on|at|for|with|without|from|during|after|before|using|by) (?:[a-z0-9']+ ?){1,4}$"
)
_TURNED = re.compile(
    r"^(?P<h>.*?)\b(?P<a>(?:[a-z0-9']+ )?[a-z0-9']+) (?P<j>to|than|into|from|of|over|on|for|in|by|with|affect|cause|beat) "
    r"(?P<b>[a-z0-9']+)(?P<t>.*)$"
)
_SMALL = frozenset("a an the to of in on at for with by from i me my you your it is are do be or and how what".split())


def opposed(text: str, rng: random.Random, net: WordNet) -> str | None:
    """One of two opposed or rival words for the other."""
    padded = f" {text} "
    found = [(a, b) for pair in _OPPOSED for a, b in (pair, pair[::-1]) if f" {a} " in padded]
    if not found:
        return None
    one, other = rng.choice(found)
    return padded.replace(f" {one} ", f" {other} ", 1).strip()


def antonym(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for its opposite."""
    return _related(text, rng, net, net.antonyms)


def sibling(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for something else of the same sort."""
    return _related(text, rng, net, net.siblings)


def other_word(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for any other of its kind."""

    def some(lemma: str, kind: str) -> list[str]:
        return [word for word in rng.choices(net.common[kind], k=3) if word != lemma]

    return _related(text, rng, net, some)


def _related(text: str, rng: random.Random, net: WordNet, related: object) -> str | None:
    words = text.split()
    order = list(range(len(words)))
    rng.shuffle(order)
    for at in order:
        found = None if words[at] in _SMALL else word_form(words[at], net)
        if found is None:
            continue
        lemma, kind, form = found
        others = [word for word in related(lemma, kind) if word.islower()]  # type: ignore[operator]
        if others:
            words[at] = inflected(rng.choice(others), form).replace("_", " ")
            return " ".join(words)
    return None


def negated(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With a "not" more, or less."""
    for sign in (" not ", "n't "):
        if sign in text and rng.random() < 0.8:
            return text.replace(sign, " ", 1)
    found = list(_NEGATABLE.finditer(text))
    if not found:
        return "don't " + text if net.is_known(text.split()[0], "v") else None
    at = rng.choice(found).end()
    return (
        text[:at] + rng.choice([" not", "n't"]) + text[at:]
        if not text[:at].endswith("can")
        else text[:at] + "not" + text[at:]
    )


def other_number(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Another number."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    one = rng.choice(found)
    value = int(one[0]) if len(one[0]) < 12 else 7
    other = rng.choice([value + rng.randint(1, 9), value * 10, max(value - rng.randint(1, 3), 0), rng.randint(2, 99)])
    return text[: one.start()] + str(other) + text[one.end() :] if other != value else None


def added(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With something more at the end: a place, a time, a condition."""
    return f"{text.rstrip('?. ')} {rng.choice(_ADDED)}" if len(text.split()) > 2 else None


def narrowed(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With an adjective more."""
    words = text.split()
    places = [at for at, word in enumerate(words) if (found := word_form(word, net)) and found[1] == "n" and at > 1]
    if not places:
        return None
    at = rng.choice(places)
    return " ".join((*words[:at], rng.choice(_ADJECTIVES), *words[at:]))


def cut(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without what stands at the end."""
    found = _TAIL.match(text.rstrip("?. "))
    return found["q"] if found and len(found["q"].split()) > 2 else None


def dropped(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without an adjective or the first noun of two."""
    words = text.split()
    forms = [word_form(word, net) for word in words]
    places = [
        at
        for at in range(1, len(words) - 1)
        if forms[at] and forms[at + 1] and forms[at][1] in "na" and forms[at + 1][1] == "n"  # type: ignore[index]
    ]
    if not places:
        return None
    at = rng.choice(places)
    return " ".join(words[:at] + words[at + 1 :])


def turned(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Two parts in each other's place."""
    found = _TURNED.match(text)
    if not found:
        return None
    a, b = found["a"], found["b"]
    first, _, last = a.rpartition(" ")
    if last in _SMALL or b in _SMALL or last == b:
        return None
    return f"{found['h']}{first + ' ' if first else ''}{b} {found['j']} {last}{found['t']}".strip()


FAULTS: dict[str, tuple[Edit, float]] = {
    "opposed": (opposed, 3.0),
    "antonym": (antonym, 2.0),
    "sibling": (sibling, 3.0),
    "other-word": (other_word, 1.5),
    "negated": (negated, 1.5),
    "other-number": (other_number, 2.0),
    "added": (added, 1.5),
    "narrowed": (narrowed, 1.0),
    "cut": (cut, 1.0),
    "dropped": (dropped, 1.0),
    "turned": (turned, 1.5),
}
"""Each fault with how often it is tried."""
