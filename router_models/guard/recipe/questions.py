"""Pairs of general questions: groups of wordings filled with matters, and texts of people led in by other words."""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .asking import ASKED_OF_DOING
from .asking_health import ASKED_OF_HEALTH
from .asking_owned import ASKED_OF_MEASURES, ASKED_OF_OWNED
from .asking_things import ASKED_OF_THINGS
from .asking_world import ASKED_OF_THE_WORLD
from .data import Pair, gerund
from .edits import EDITS
from .families import FAMILIES
from .leads import ASIDES, EXCHANGED, LEADS
from .matters import MATTERS
from .pools import Pools, Text
from .subjects import ALIKE, DOINGS, TAILS
from .wordnet import WordNet

__all__ = ["Questions", "is_held_name"]

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_MINE = re.compile(r"\b(my|myself)\b")
_LONGEST = 24  # words
_HELD_SHARE = 0.25
_TAILED = 0.25
_OF_MANY = 0.3  # the groups of `asking_owned` are many and much alike


@dataclass(frozen=True, slots=True)
class _Way:
    """A group of wordings, and the kinds of things it takes."""

    name: str
    kinds: list[str]
    wordings: list[str]


def is_held_name(name: str) -> bool:
    """Whether a group of wordings, or a thing asked about, is kept for measuring."""
    return hashlib.sha256(b"general " + name.encode()).digest()[0] < 256 * _HELD_SHARE


class Questions:
    """Makes pairs by chance.

    Args:
        pools: Texts of people.
        net: WordNet.
        seed: The same seed gives the same pairs.
        held: Whether of the wordings and things those that are kept for measuring are taken, in place of the others.
    """

    def __init__(self, pools: Pools, net: WordNet, seed: int, *, held: bool = False) -> None:
        self._net, self._rng = net, random.Random(seed)
        self._ways = [
            way
            for text in (ASKED_OF_DOING, ASKED_OF_THINGS, ASKED_OF_HEALTH, ASKED_OF_THE_WORLD)
            for way in _ways(text)
            if is_held_name(way.name) is held
        ]
        self._many = [
            way for text in (ASKED_OF_OWNED, ASKED_OF_MEASURES) for way in _ways(text) if is_held_name(way.name) is held
        ]
        self._of_kind: dict[str, list[_Way]] = defaultdict(list)
        for way in (*self._ways, *self._many):
            for kind in way.kinds:
                self._of_kind[kind].append(way)
        self._things = {
            kind: [names for names in found if is_held_name(names[0]) is held]
            for kind, found in (_listed(DOINGS) | _listed(MATTERS)).items()
        }
        self._tails = [_names(part) for part in TAILS.replace("\n", ";").split(";") if part.strip()]
        self._alike = [tuple(_names(part)) for part in ALIKE.replace("\n", ";").split(";") if part.strip()]
        self._families = [family for family in _families() if is_held_name(family[0][0]) is held]
        self._texts = [] if held else _short(pools)

    def pairs(self, n: int) -> Iterator[Pair]:
        """N pairs; the shares of the kinds are fixed."""
        makers: dict[Callable[[], Pair | None], float] = {
            self._same: 3.4,
            self._other_thing: 1.6,
            self._other_way: 1.4,
            self._other_tail: 1.2,
            self._alike_words: 1.2,
            self._of_family: 1.6,
        }
        if self._texts:
            makers |= {self._led: 1.6, self._led_otherwise: 0.8}
        made = 0
        while made < n:
            pair = self._rng.choices(list(makers), list(makers.values()))[0]()
            if pair is not None and _core(pair.a) != _core(pair.b):
                made += 1
                pair.a, pair.b = self._ended(pair.a), self._ended(pair.b)
                if self._rng.random() < 0.5:
                    pair.a, pair.b = pair.b, pair.a
                yield pair

    # -- wordings and things -------------------------------------------------------------------------------------

    def _same(self) -> Pair:
        way, kind = self._way()
        tail = self._tail(way)
        names, others = self._named(way, kind)
        wording = self._rng.choice(way.wordings) if self._rng.random() < 0.3 else None
        a, b = (self._said(way, names, others, tail, 0.35, wording) for _ in range(2))
        return Pair(a, b, 1, f"ask:{way.name}", "questions", 0.9)

    def _other_thing(self) -> Pair | None:
        way, kind = self._way()
        tail = self._tail(way)
        names, others = self._named(way, kind)
        changed, _ = self._named(way, kind)
        if _near(names, changed) or (others and _near(others, changed)):
            return None
        wording = self._rng.choice(way.wordings) if self._rng.random() < 0.6 else None
        a = self._said(way, names, others, tail, 0.15, wording)
        b = self._said(way, changed, others, tail, 0.15, wording)
        return Pair(a, b, 0, f"ask-thing:{way.name}", "questions")

    def _other_way(self) -> Pair | None:
        way, kind = self._way()
        others = self._of_kind[kind]
        if way in self._many and self._rng.random() < 0.8:
            others = [other for other in others if other.name.partition("-")[0] == way.name.partition("-")[0]]
        other = self._rng.choice(others)
        if other is way or other.name.partition(".")[0] == way.name.partition(".")[0]:
            return None
        tail = self._tail(way)
        names, second = self._named(way, kind)
        second = second or self._named(other, kind)[1]
        a = self._said(way, names[:1], second, tail, 0.15)
        b = self._said(other, names[:1] if self._rng.random() < 0.8 else names, second, tail, 0.15)
        return Pair(a, b, 0, f"ask-way:{way.name}/{other.name}", "questions")

    def _other_tail(self) -> Pair | None:
        way, kind = self._way()
        if not _is_tailed(way):
            return None
        names, others = self._named(way, kind)
        one: list[str] = self._rng.choice(self._tails)
        other: list[str] = self._rng.choice(self._tails) if self._rng.random() < 0.5 else []
        if one is other:
            return None
        wording = self._rng.choice(way.wordings) if self._rng.random() < 0.6 else None
        a = self._said(way, names, others, one, 0.15, wording)
        b = self._said(way, names, others, other, 0.15, wording)
        return Pair(a, b, 0, f"ask-tail:{way.name}", "questions")

    def _alike_words(self) -> Pair | None:
        """A question or a text with one word for another that looks alike, and means something else."""
        way, kind = self._way()
        if self._texts and self._rng.random() < 0.4:
            a = b = self._rng.choice(self._texts).text
        else:
            names, others = self._named(way, kind)
            tail = self._tail(way)
            a, b = (self._said(way, names, others, tail, 0.0) for _ in range(2))
            b = a if self._rng.random() < 0.5 else b
        found = [
            (one, other)
            for pair in self._alike
            for one, other in (pair, pair[::-1])
            if f" {one} " in f" {b} " and f" {other} " not in f" {a} " and f" {one} " in f" {a} "
        ]
        if not found:
            return None
        one, other = self._rng.choice(found)
        made = f" {b} ".replace(f" {one} ", f" {other} ", 1).strip()
        return Pair(self._edited(a, 0.1), self._edited(made, 0.1), 0, "ask-alike", "questions", 0.9)

    def _of_family(self) -> Pair:
        """Two questions out of a family, of which each line asks one thing."""
        family = self._rng.choice(self._families)
        one = self._rng.choice(family)
        if self._rng.random() < 0.55 and len(one) > 1:
            a, b, label = *self._rng.sample(one, 2), 1
        else:
            other = self._rng.choice([line for line in family if line is not one])
            a, b, label = self._rng.choice(one), self._rng.choice(other), 0
        chance = 0.35 if label else 0.15
        return Pair(self._edited(a, chance), self._edited(b, chance), label, f"family-{label}", "questions")

    def _way(self) -> tuple[_Way, str]:
        while True:
            way = self._rng.choice(self._many if self._rng.random() < _OF_MANY else self._ways)
            kind = self._rng.choice(way.kinds)
            if self._things.get(kind):
                return way, kind

    def _named(self, way: _Way, kind: str) -> tuple[list[str], list[str]]:
        names = self._rng.choice(self._things[kind])
        others = self._rng.choice(self._things[kind])
        while len(self._things[kind]) > 1 and _near(names, others):
            others = self._rng.choice(self._things[kind])
        return names, others if "{m}" in " ".join(way.wordings) else []

    def _tail(self, way: _Way) -> list[str]:
        return self._rng.choice(self._tails) if _is_tailed(way) and self._rng.random() < _TAILED else []

    def _said(
        self, way: _Way, names: list[str], others: list[str], tail: list[str], edits: float, wording: str | None = None
    ) -> str:
        rng = self._rng
        text = _chosen(wording or rng.choice(way.wordings), rng)
        name = rng.choice(names)
        if re.search(r"\b(you|your)\b", text.partition("{")[0]) and not text.startswith(("can you", "could you")):
            name = _MINE.sub(lambda found: "your" if found[1] == "my" else "yourself", name)
        text = text.replace("{v}", name).replace("{g}", gerund(name)).replace("{n}", name)
        if others:
            text = text.replace("{m}", rng.choice(others))
        if tail:
            end = rng.choice(tail)
            text = f"{end}, {text}" if rng.random() < 0.15 else f"{text} {end}"
        return self._edited(text, edits)

    # -- texts of people -----------------------------------------------------------------------------------------

    def _led(self) -> Pair | None:
        """A text with its first words for others that lead in the same question."""
        text, found = self._lead()
        if found is None:
            return None
        group, rest = found
        b = _chosen(self._rng.choice(group), self._rng) + rest
        return Pair(self._edited(text.text, 0.2), self._edited(b, 0.5), 1, "led", text.source, 0.9)

    def _led_otherwise(self) -> Pair | None:
        """With first words that ask for something else."""
        text, found = self._lead()
        if found is None:
            return None
        rivals = next((line for line in EXCHANGED if found[0][0] in line), [])
        other = self._rng.choice([group for group in LEADS if group[0] in rivals] or [found[0]])
        if other is found[0]:
            return None
        b = _chosen(self._rng.choice(other), self._rng) + found[1]
        return Pair(text.text, self._edited(b, 0.15), 0, "led-other", text.source, 0.8)

    def _lead(self) -> tuple[Text, tuple[list[str], str] | None]:
        text = self._rng.choice(self._texts)
        for group in LEADS:
            for lead in group:
                if "(" not in lead and text.text.startswith(lead + " "):
                    return text, (group, text.text[len(lead) :])
        return text, None

    # -- what does not matter ------------------------------------------------------------------------------------

    def _edited(self, text: str, chance: float) -> str:
        while self._rng.random() < chance:
            name = self._rng.choices(list(EDITS), [weight for _, weight in EDITS.values()])[0]
            text = EDITS[name][0](text, self._rng, self._net) or text
        if self._rng.random() < chance / 6:
            text = self._rng.choice(ASIDES).format(text)
        return text

    def _ended(self, text: str) -> str:
        return text.rstrip("?. ") + self._rng.choice(["?", "?", "?", "", "", ".", "??", " ?"])


def _ways(text: str) -> list[_Way]:
    found: list[_Way] = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[-1].wordings.append(line.strip())
        else:
            name, *kinds = line.split()
            found.append(_Way(name, kinds, []))
    return found


def _listed(text: str) -> dict[str, list[list[str]]]:
    """Kinds and their things, each with all its names."""
    found: dict[str, list[list[str]]] = {}
    kind = ""
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[kind] += [_names(part) for part in line.split(";") if part.strip()]
        else:
            kind = line.strip()
            found[kind] = []
    return found


def _names(part: str) -> list[str]:
    return [name.strip() for name in part.split(" / ")]


def _families() -> list[list[list[str]]]:
    return [
        [_names(line) for line in family.strip().splitlines()] for family in FAMILIES.strip().split("\n\n") if family
    ]


def _short(pools: Pools) -> list[Text]:
    return [
        Text(" ".join(text.text.lower().rstrip("?. ").split()), text.source, text.topic)
        for text in pools.texts
        if len(text.text.split()) <= _LONGEST
    ]


def _chosen(wording: str, rng: random.Random) -> str:
    """One of each choice; a blank before what begins with an apostrophe is none."""
    while found := _CHOICE.search(wording):
        wording = wording[: found.start()] + rng.choice(found[1].split("|")) + wording[found.end() :]
    return " ".join(wording.split()).replace(" '", "'")


def _core(text: str) -> str:
    return text.rstrip("?. ")


def _near(names: list[str], others: list[str]) -> bool:
    return any(one in other or other in one for one in names for other in others)


def _is_tailed(way: _Way) -> bool:
    return "{v}" in " ".join(way.wordings)
