"""Pairs of orders and questions to assistants, and natural texts with one word replaced by another of its kind."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from .commands import COMMANDS, IDLE_WORDS, KINDS, THINGS
from .data import Pair
from .edits import EDITS, word_form
from .pools import Pools, Text
from .wordnet import WordNet

__all__ = ["Orders"]

_SLOT = re.compile(r"\{([a-z]+)2?\}")
_WORD = re.compile(r"[a-z][a-z']+")
_LONGEST = 20  # words
_STRESSED = ["show", "find", "get", "give", "tell", "play", "book", "add", "make", "set", "turn", "switch", "put"]
_VERBS = [
    line.split(", ")
    for line in """
turn off, switch off, shut off, turn off
turn on, switch on
show me, give me, let me see, display
find, search for, look for, look up, locate
get, find, fetch
play, put on, start playing
i want to hear, i'd like to hear, i want to listen to, i would like to listen to, let me hear
book, reserve, make a reservation for
remove, delete, erase, get rid of
add, put, insert
tell me, let me know, inform me
create, make, set up
cancel, call off
start, begin, launch, open
i need, i want, i would like, i'd like
what is, what's, tell me, give me
is there, are there any
lower, reduce, decrease, turn down
raise, increase, turn up
remind me, give me a reminder
""".strip().splitlines()
]


class Orders:
    """Makes pairs by chance.

    Args:
        pools: Texts of people.
        net: WordNet.
        seed: The same seed gives the same pairs.
    """

    def __init__(self, pools: Pools, net: WordNet, seed: int) -> None:
        self._net, self._rng = net, random.Random(seed)
        self._texts = [
            Text(" ".join(text.text.lower().split()), text.source, text.topic)
            for text in pools.texts
            if len(text.text.split()) <= _LONGEST
        ]
        self._by_topic: dict[tuple[str, str], list[str]] = defaultdict(list)
        for text in self._texts:
            self._by_topic[text.source, text.topic].append(text.text)
        self._kind_of: dict[str, list[int]] = defaultdict(list)
        for at, words in enumerate(KINDS):
            for word in words:
                self._kind_of[word].append(at)

    def pairs(self, n: int) -> Iterator[Pair]:
        """N pairs; the shares of the kinds are fixed."""
        makers: dict[Callable[[], Pair | None], float] = {
            self._same: 3.0,
            self._other_thing: 2.2,
            self._reworded: 1.8,
            self._other_of_kind: 1.2,
            self._other_of_topic: 1.0,
        }
        made = 0
        while made < n:
            pair = self._rng.choices(list(makers), list(makers.values()))[0]()
            if pair is not None and pair.a != pair.b:
                made += 1
                if self._rng.random() < 0.5:
                    pair.a, pair.b = pair.b, pair.a
                yield pair

    def _same(self) -> Pair:
        group = self._rng.choice(COMMANDS)
        a, b = self._rng.sample(group, 2)
        things = self._things([a, b])
        if set(_SLOT.findall(a)) != set(_SLOT.findall(b)):
            b = a
        return Pair(
            self._dressed(_filled(a, things)), self._dressed(_filled(b, things)), 1, "order-same", "orders", 0.9
        )

    def _other_thing(self) -> Pair | None:
        group = self._rng.choice(COMMANDS)
        a, b = self._rng.sample(group, 2)
        things = self._things([a, b])
        if self._rng.random() < 0.5:
            b = a
        slots = sorted(slot for slot in things if f"{{{slot}}}" in a and f"{{{slot}}}" in b)
        if not slots:
            return None
        changed = dict(things)
        slot = self._rng.choice(slots)
        changed[slot] = self._rng.choice(THINGS[slot.rstrip("2")])
        if changed[slot] in things[slot] or things[slot] in changed[slot]:
            return None
        return Pair(self._dressed(_filled(a, things)), self._dressed(_filled(b, changed)), 0, "order-other", "orders")

    def _things(self, texts: list[str]) -> dict[str, str]:
        names = {found[0][1:-1] for text in texts for found in re.finditer(r"\{[a-z]+2?\}", text)}
        chosen: dict[str, str] = {}
        for name in sorted(names):
            values = [value for value in THINGS[name.rstrip("2")] if value not in chosen.values()]
            chosen[name] = self._rng.choice(values)
        return chosen

    def _dressed(self, text: str) -> str:
        if self._rng.random() < 0.3:
            text = self._rng.choice(IDLE_WORDS).format(text)
        for _ in range(self._rng.choice([0, 0, 1])):
            text = self._edited(text)
        return text

    def _edited(self, text: str) -> str:
        name = self._rng.choices(list(EDITS), [weight for _, weight in EDITS.values()])[0]
        return EDITS[name][0](text, self._rng, self._net) or text

    def _reworded(self) -> Pair | None:
        """A text of a person with its verb for another of the same meaning, and idle words around it."""
        text = self._rng.choice(self._texts)
        a = b = text.text
        n = 0
        found = [(one, other) for words in _VERBS for one in words for other in words if one != other]
        found = [(one, other) for one, other in found if f" {b} ".startswith(f" {one} ") or f" {one} the " in b]
        if found:
            one, other = self._rng.choice(found)
            b, n = f" {b} ".replace(f" {one} ", f" {other} ", 1).strip(), 2
        if b.split()[0] in _STRESSED or self._rng.random() < 0.2:
            b, n = self._rng.choice(IDLE_WORDS).format(b), n + 1
        for _ in range(self._rng.randint(1, 3)):
            made = self._edited(b)
            n += made != b
            b = made
        return Pair(a, b, 1, "verb-same", text.source, 0.9) if n > 1 else None

    def _other_of_kind(self) -> Pair | None:
        text = self._rng.choice(self._texts)
        padded = f" {text.text} "
        found = [word for word in self._kind_of if f" {word} " in padded]
        if not found:
            return None
        word = max(found, key=len) if self._rng.random() < 0.5 else self._rng.choice(found)
        other = self._rng.choice(KINDS[self._rng.choice(self._kind_of[word])])
        if other in word or word in other:
            return None
        b = padded.replace(f" {word} ", f" {other} ", 1).strip()
        return Pair(text.text, self._dressed(b), 0, "kind-other", text.source)

    def _other_of_topic(self) -> Pair | None:
        """With a word of another text on the same matter in place of one of its own."""
        text = self._rng.choice(self._texts)
        if not text.topic:
            return None
        donor = self._rng.choice(self._by_topic[text.source, text.topic])
        own, theirs = self._content(text.text), self._content(donor)
        pairs = [
            (word, other)
            for word, (lemma, kind) in own.items()
            for other, (foreign, its) in theirs.items()
            if kind == its and kind in "na" and other not in own and foreign not in self._net.synonyms(lemma, kind)
        ]
        if not pairs:
            return None
        word, other = self._rng.choice(pairs)
        b = re.sub(rf"\b{re.escape(word)}\b", other, text.text, count=1)
        return Pair(text.text, self._dressed(b), 0, "topic-other", text.source, 0.9)

    def _content(self, text: str) -> dict[str, tuple[str, str]]:
        forms = {word: word_form(word, self._net) for word in _WORD.findall(text)}
        return {word: found[:2] for word, found in forms.items() if found}


def _filled(text: str, things: dict[str, str]) -> str:
    for slot, value in things.items():
        text = text.replace(f"{{{slot}}}", value)
    return text
