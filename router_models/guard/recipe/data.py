"""Pairs to learn from: made by recipe from what people ask, and the training parts of labelled sets."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .edits import EDITS, Edit, dense, slips
from .faults import FAULTS
from .frames import GROUPS, SLOTS
from .pools import Pools, Text, rows
from .wordnet import WordNet, inflected

__all__ = ["Maker", "Pair", "Slotted", "gerund", "labelled"]

_VOWELS = "aeiou"
_COUNTED = re.compile(r"[.!?]+$")
_GERUNDS = {
    verb: verb + verb[-1] * doubled + "ing"
    for verbs, doubled in (("begin forget quit submit unplug unclog", 1), ("open edit visit", 0))
    for verb in verbs.split()
} | {"lie": "lying", "die": "dying", "cancel": "cancelling", "be": "being", "see": "seeing", "tie": "tying"}


@dataclass(slots=True)
class Pair:
    """Two texts and whether one answer serves both.

    Attributes:
        a: A text.
        b: Another.
        label: 1 for the same question, 0 for another, -1 where nobody knows.
        kind: How it was made.
        source: Data set that its words come from.
        weight: How far the label is to be trusted, 0 to 1.
        cosine: Of the encoder; None where it was not asked.
    """

    a: str
    b: str
    label: int
    kind: str
    source: str = ""
    weight: float = 1.0
    cosine: float | None = None

    def as_row(self) -> dict[str, object]:
        """As written to files."""
        return asdict(self)


def labelled(data: Path, name: str) -> Iterator[Pair]:
    """Pairs of one of the labelled sets."""
    for row in rows(data / name / "pairs.jsonl.gz"):
        yield Pair(row["a"], row["b"], row["label"], row.get("kind") or row.get("src") or "", name)


class Maker:
    """Makes pairs by chance.

    Args:
        pools: Texts and phrases.
        net: WordNet.
        seed: The same seed gives the same pairs.
    """

    def __init__(self, pools: Pools, net: WordNet, seed: int) -> None:
        self._pools, self._net, self._rng = pools, net, random.Random(seed)
        self._plain = [
            Text(" ".join(text.text.lower().split()), text.source, text.topic)
            for text in pools.texts
            if len(text.text.split()) <= 24
        ]
        by_source: dict[str, list[Text]] = defaultdict(list)
        for text in self._plain:
            by_source[text.source].append(text)
        self._by_source = [by_source[source] for source in sorted(by_source)]
        self._source_weights = [len(texts) ** 0.5 for texts in self._by_source]
        self._groups = list(GROUPS)
        self._of_slot: dict[str, list[str]] = defaultdict(list)
        for group, slot in SLOTS.items():
            self._of_slot[slot].append(group)

    def pairs(self, n: int) -> Iterator[Pair]:
        """Up to n pairs; the shares of the kinds are fixed."""
        kinds: list[tuple[Callable[[], Pair | None], float]] = [
            (self._frame_same, 2.0),
            (self._frame_other_group, 1.2),
            (self._frame_other_fill, 1.8),
            (self._edited, 2.2),
            (self._faulty, 4.0),
            (self._reworded, 1.6),
        ]
        makers, weights = zip(*kinds, strict=True)
        made = 0
        while made < n:
            pair = self._rng.choices(makers, weights)[0]()
            if pair is not None and pair.a != pair.b:
                made += 1
                yield self._dressed(pair)

    # -- frames --------------------------------------------------------------------------------------------------

    def _frame_same(self) -> Pair:
        group = self._rng.choice(self._groups)
        fill = self._fill(SLOTS[group])
        one, other = self._rng.sample(GROUPS[group], 2) if len(GROUPS[group]) > 1 else GROUPS[group] * 2
        a, b = one.format(**fill), other.format(**fill)
        return Pair(self._edit(a, 0.25), self._edit(b, 0.4), 1, f"frame:{group}", "frames")

    def _frame_other_group(self) -> Pair:
        slot = self._rng.choice(list(self._of_slot))
        groups = self._of_slot[slot]
        group, other = self._rng.sample(groups, 2)
        fill = self._fill(slot)
        a, b = (self._rng.choice(GROUPS[name]).format(**fill) for name in (group, other))
        return Pair(self._edit(a, 0.2), self._edit(b, 0.2), 0, f"frame:{group}/{other}", "frames")

    def _frame_other_fill(self) -> Pair | None:
        group = self._rng.choice(self._groups)
        slot = SLOTS[group]
        fill = self._fill(slot)
        other = dict(fill)
        key = self._rng.choice([key for key in ("v", "n", "s", "m", "p") if key in fill])
        changed = self._fault(fill[key]) if self._rng.random() < 0.7 else self._fill(slot)[key]
        if changed is None or changed == fill[key]:
            return None
        other[key] = changed
        if key == "v":
            other["g"] = gerund(changed)
        same = self._rng.random() < 0.5
        one = self._rng.choice(GROUPS[group])
        two = one if same else self._rng.choice(GROUPS[group])
        return Pair(
            self._edit(one.format(**fill), 0.15), self._edit(two.format(**other), 0.15), 0, f"fill:{group}", "frames"
        )

    def _fill(self, slot: str) -> dict[str, str]:
        rng, phrases = self._rng, self._pools.phrases
        if slot == "v":
            phrase = rng.choice(phrases["v"])
            return {"v": phrase, "g": gerund(phrase)}
        if slot == "s":
            return {"s": rng.choice(phrases["s"]), "p": rng.choice(phrases["p"])}
        fill = {"n": rng.choice(phrases["n"]), "p": rng.choice(phrases["p"])}
        if slot == "nm":
            fill["m"] = rng.choice(phrases["n"])
        return fill

    # -- edits and faults ----------------------------------------------------------------------------------------

    def _text(self) -> Text:
        return self._rng.choice(self._rng.choices(self._by_source, self._source_weights)[0])

    def _edited(self) -> Pair | None:
        text = self._text()
        a, b, names = text.text, text.text, []
        for _ in range(self._rng.randint(1, 4)):
            is_a = self._rng.random() < 0.3
            name, made = self._apply(EDITS, a if is_a else b)
            if made is not None:
                names.append(name)
                a, b = (made, b) if is_a else (a, made)
        return Pair(a, b, 1, "edit:" + "+".join(sorted(set(names))), text.source) if names else None

    def _faulty(self) -> Pair | None:
        text = self._text()
        name, b = self._apply(FAULTS, text.text)
        if b is None or (sorted(b.split()) == sorted(text.text.split()) and name != "turned"):
            return None
        a = text.text
        for _ in range(self._rng.choice([0, 0, 1, 1, 2])):
            a, b = self._edit(a, 0.5), self._edit(b, 0.5)
        return Pair(a, b, 0, f"fault:{name}", text.source)

    def _reworded(self) -> Pair | None:
        """Reworded throughout, and in half of the cases with a fault beside."""
        text = self._text()
        way = dense if self._rng.random() < 0.75 else slips
        b = way(text.text, self._rng, self._net)
        if b is None:
            return None
        if self._rng.random() < 0.5:
            return Pair(self._edit(text.text, 0.3), b, 1, f"{way.__name__}-same", text.source)
        name, changed = self._apply(FAULTS, b)
        return Pair(text.text, changed, 0, f"{way.__name__}:{name}", text.source) if changed else None

    def _apply(self, table: dict[str, tuple[Edit, float]], text: str) -> tuple[str, str | None]:
        names = list(table)
        name = self._rng.choices(names, [table[name][1] for name in names])[0]
        made = table[name][0](text, self._rng, self._net)
        return name, made if made and made != text else None

    def _edit(self, text: str, chance: float) -> str:
        if self._rng.random() >= chance:
            return text
        return self._apply(EDITS, text)[1] or text

    def _fault(self, text: str) -> str | None:
        for _ in range(4):
            made = self._apply(FAULTS, text)[1]
            if made is not None and len(made.split()) <= 14:
                return made
        return None

    def _dressed(self, pair: Pair) -> Pair:
        """In either order, with or without a question mark."""
        rng = self._rng
        if rng.random() < 0.5:
            pair.a, pair.b = pair.b, pair.a
        if SLOTS and rng.random() < 0.5:
            style = rng.random()
            pair.a = _COUNTED.sub("", pair.a) + ("?" if style < 0.8 else "")
            pair.b = _COUNTED.sub("", pair.b) + ("?" if 0.15 < style < 0.95 else "")
        return pair


def gerund(phrase: str) -> str:
    """A phrase that begins with a verb, as a noun: "reset my password", "resetting my password"."""
    if phrase.startswith("not "):
        return "not " + gerund(phrase.removeprefix("not "))
    verb, _, rest = phrase.partition(" ")
    return f"{_GERUNDS.get(verb) or inflected(verb, 'ing')} {rest}".strip()


class Slotted:
    """Pairs out of utterances whose slots are marked: the same values in other words, and other values in the same words.

    Args:
        data: Folder of the data sets.
        name: ``slots_snips`` or ``slots_hwu64``.
        seed: The same seed gives the same pairs.
    """

    def __init__(self, data: Path, name: str, seed: int) -> None:
        self._rng, self._name = random.Random(seed), name
        self._shapes: dict[tuple[str, tuple[str, ...]], list[tuple[str, dict[str, str]]]] = defaultdict(list)
        values: dict[str, set[str]] = defaultdict(set)
        for row in rows(data / name / "utterances.jsonl.gz"):
            text = " ".join(row["text"].lower().split())
            slots = {slot: value.lower() for slot, value in row["slots"]}
            if len(slots) != len(row["slots"]) or any(text.count(value) != 1 for value in slots.values()):
                continue
            for slot, value in slots.items():
                text = text.replace(value, "{" + slot.replace(" ", "_") + "}")
                values[slot].add(value)
            if text.count("{") == len(slots):
                self._shapes[row["intent"], tuple(sorted(slots))].append((text, slots))
        self._values = {slot: sorted(found) for slot, found in values.items()}
        self._keys = [key for key, found in sorted(self._shapes.items()) if len({text for text, _ in found}) > 1]
        self._weights = [len(self._shapes[key]) ** 0.7 for key in self._keys]

    def pairs(self, n: int) -> Iterator[Pair]:
        """N pairs, half of them the same question."""
        rng = self._rng
        made = 0
        while made < n:
            key = rng.choices(self._keys, self._weights)[0]
            (one, slots), (other, _) = rng.sample(self._shapes[key], 2)
            is_same = rng.random() < 0.5 or not slots
            changed = dict(slots)
            if not is_same:
                slot = rng.choice(sorted(slots))
                changed[slot] = rng.choice(self._values[slot])
                other = one if rng.random() < 0.5 else other
                if changed[slot] in slots[slot] or slots[slot] in changed[slot]:
                    continue
            a, b = _filled(one, slots), _filled(other, changed)
            if a != b:
                made += 1
                weight = 0.6 if is_same and not slots else 0.8 if is_same else 1.0
                yield Pair(a, b, int(is_same), "slots-same" if is_same else "slots-other", self._name, weight)


def _filled(text: str, slots: dict[str, str]) -> str:
    for slot, value in slots.items():
        text = text.replace("{" + slot.replace(" ", "_") + "}", value)
    return text
