"""Faults put into a reworded prompt, each of one kind: what must never be served.

Every function takes a prompt and gives it with one small change after which its answer is another one, or None where the
prompt has nothing to change so. Case and layout stay; words of politeness are left alone, for nothing hangs on them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from .edits import word_form
from .wordnet import WordNet, inflected

__all__ = ["PROMPT_FAULTS", "PromptFault"]

PromptFault = Callable[[str, random.Random, WordNet], str | None]

_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])")
_POLITE = frozenset("please kindly carefully the a an of to in on and or is are be".split())
_SENTENCE = re.compile(r"[^\s.!?][^.!?\n]{24,}[.!?](?=\s|$)")


def _pairs(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in text.strip().replace("\n", ";").split(";"):
        words = [word.strip() for word in group.split("|")]
        for word in words:
            found.setdefault(word, []).extend(other for other in words if other != word)
    return found


_UNITS = _pairs("""
seconds | minutes | hours;days | weeks | months | years;day | week | month | year;kg | mg | g;cm | mm | km;meters | feet
miles | kilometers;dollars | euros | pounds;percent | points;grams | kilograms;january | march | july | october
monday | wednesday | saturday;radians | degrees;century | decade;celsius | fahrenheit;daily | weekly | monthly | annually
volts | watts;bytes | bits;inches | yards;hour | minute | second;annual | monthly;yearly | quarterly
""")
_COMPARED = _pairs("""
more | less;greater | smaller | lesser;larger | smaller;higher | lower;most | least;best | worst;largest | smallest
highest | lowest;increased | decreased;increase | decrease;longer | shorter;earlier | later;maximum | minimum;better | worse
older | younger;maximal | minimal;faster | slower;stronger | weaker;above | below;fewer | more;exceed | equal;over | under
greatest | least;enhanced | reduced;maximize | minimize;growing | shrinking;upper | lower
""")
_QUANTIFIED = _pairs("""
all | some | none;every | no;each | one;both | neither;any | all;many | few;always | sometimes | never;only | also
several | two;single | second;first | last;exactly | approximately;sole | other;entire | partial;usually | rarely
typically | rarely;often | seldom;frequently | rarely;at least | at most;initial | final;once | twice
""")
_FORMAT = _pairs("""
sentences | paragraphs | words | pages;sentence | paragraph | word;letter | number;function | class | script
english | french | german | spanish | chinese;python | java | javascript;list | table | essay;json | yaml | xml
explanation | poem | summary;boxed | underline | textbf;translate | summarize;answer | hint;integer | string | float
array | tree;letters | numbers;equation | diagram;format | colour;concise | detailed;brief | lengthy;short | long
succinct | extensive;response | joke;summary | quotation;rationale | song;word | syllable
""")
_ADDED = (
    "Answer in Spanish.", "Ignore the second option.", "Do not give any explanation.", "Use no numbers.",
    "Write it for a child of five.", "Assume that it is the year 1990.", "Sort them by date.", "Reply with a table.",
    "Also explain why the others are wrong.", "Only consider the first one.", "Write at least 500 words.",
    "Show your source.", "Choose the least suitable one.", "Consider Europe alone.", "End with a question.",
)  # fmt: skip


def _replaced(text: str, found: re.Match[str], word: str) -> str:
    if found[0][:1].isupper():
        word = word.upper() if found[0].isupper() and len(found[0]) > 1 else word[:1].upper() + word[1:]
    return text[: found.start()] + word + text[found.end() :]


def _shuffled_words(text: str, rng: random.Random) -> list[re.Match[str]]:
    """Words of prose: none of code, formulas or commands."""
    found = [
        word
        for word in _WORD.finditer(text)
        if text[word.start() - 1 : word.start()] not in {"\\", "_", "{", "$", "`"}
        and text[word.end() : word.end() + 1] not in {"_", "{", "}", "(", "`"}
        and word[0].lower() not in _POLITE
    ]
    rng.shuffle(found)
    return found


def _related(text: str, rng: random.Random, net: WordNet, related: Callable[[str, str], list[str]]) -> str | None:
    for found in _shuffled_words(text, rng):
        form = word_form(found[0].lower(), net)
        if form is None or (found[0][0].isupper() and not found[0][1:].islower()):
            continue
        lemma, kind, ending = form
        others = [other for other in related(lemma, kind) if other.islower()]
        if others:
            return _replaced(text, found, inflected(rng.choice(others), ending).replace("_", " "))
    return None


def antonym(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for its opposite."""
    return _related(text, rng, net, net.antonyms)


def sibling(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for another thing of the same sort."""
    return _related(text, rng, net, net.siblings)


def other_word(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word for any other of its part of speech."""

    def some(lemma: str, kind: str) -> list[str]:
        return [word for word in rng.choices(net.common[kind], k=3) if word != lemma]

    return _related(text, rng, net, some)


def _listed(table: dict[str, list[str]]) -> PromptFault:
    def change(text: str, rng: random.Random, net: WordNet) -> str | None:
        for found in _shuffled_words(text, rng):
            others = table.get(found[0].lower(), [])
            if others:
                return _replaced(text, found, rng.choice(others))
        return None

    return change


def number(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Another number, in digits or in words."""
    words = "two three four five six seven eight nine ten".split()
    found = list(_NUMBER.finditer(text)) + [word for word in _WORD.finditer(text) if word[0].lower() in words]
    if not found:
        return None
    one = rng.choice(found)
    if one[0].isalpha():
        return _replaced(text, one, rng.choice([word for word in words if word != one[0].lower()]))
    other = str(int(float(one[0])) + rng.randint(1, 9))
    return text[: one.start()] + other + text[one.end() :]


def name(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A name for another."""
    names = ["Miller", "Anna", "Peru", "Boston", "Kafka", "Toyota", "Darwin", "Kenya", "Lisbon", "Mozart"]
    found = [word for word in re.finditer(r"(?<=[a-z0-9] )[A-Z][a-z]{3,}", text) if word[0] not in names]
    return _replaced(text, rng.choice(found), rng.choice(names)) if found else None


def negated(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With a "not" more, or less."""
    found = list(re.finditer(r" not\b|n't\b", text, re.IGNORECASE))
    if found and rng.random() < 0.6:
        one = rng.choice(found)
        return text[: one.start()] + text[one.end() :]
    places = list(re.finditer(r"\b(?:is|are|was|were|can|could|should|would|will|has|have|must)\b(?! not)", text))
    if not places:
        return None
    at = rng.choice(places).end()
    return text[:at] + " not" + text[at:]


def swapped(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Two words of one part of speech in each other's place, in one sentence."""
    sentences = list(re.finditer(r"[^.!?\n]{20,}", text))
    rng.shuffle(sentences)
    for sentence in sentences:
        words = [
            (word.start() + sentence.start(), word[0], form[1:])
            for word in _WORD.finditer(sentence[0])
            if (form := word_form(word[0], net)) and form[1] in "na" and len(word[0]) > 3
        ]
        pairs = [(x, y) for i, x in enumerate(words) for y in words[i + 1 :] if x[2] == y[2] and x[1] != y[1]]
        if pairs:
            (i, one, _), (j, other, _) = rng.choice(pairs)
            return text[:i] + other + text[i + len(one) : j] + one + text[j + len(other) :]
    return None


def dropped(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without one of its sentences."""
    found = list(_SENTENCE.finditer(text))
    if len(found) < 2:
        return None
    one = rng.choice(found)
    return text[: one.start()] + text[one.end() :].lstrip(" ")


def added(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With an order more, behind one of its sentences or at the end."""
    found = list(_SENTENCE.finditer(text))
    at = rng.choice(found).end() if found else len(text)
    return f"{text[:at]} {rng.choice(_ADDED)}{text[at:]}"


def narrowed(text: str, rng: random.Random, net: WordNet) -> str | None:
    """With an adjective more, before a noun."""
    for found in _shuffled_words(text, rng):
        form = word_form(found[0], net)
        if form and form[1] == "n":
            return text[: found.start()] + rng.choice(net.common["a"]) + " " + text[found.start() :]
    return None


def widened(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without an adjective before a noun."""
    for found in _shuffled_words(text, rng):
        form, behind = word_form(found[0], net), re.match(r" ([A-Za-z]+)", text[found.end() :])
        if form and form[1] == "a" and behind and (after := word_form(behind[1], net)) and after[1] == "n":
            return text[: found.start()] + text[found.end() + 1 :]
    return None


PROMPT_FAULTS: dict[str, PromptFault] = {
    "opposite": antonym,
    "sibling": sibling,
    "other word": other_word,
    "number": number,
    "unit or date": _listed(_UNITS),
    "name": name,
    "negation": negated,
    "comparative": _listed(_COMPARED),
    "quantifier": _listed(_QUANTIFIED),
    "format, length, language": _listed(_FORMAT),
    "order of two": swapped,
    "dropped sentence": dropped,
    "added order": added,
    "adjective added": narrowed,
    "adjective dropped": widened,
}
"""Kinds of faults by name."""
