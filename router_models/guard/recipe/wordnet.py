"""Words and how they are related, out of WordNet 3.0 as Debian's ``wordnet-base`` lays it down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

__all__ = ["WordNet", "inflected"]

FOLDER = Path("/usr/share/wordnet")
_KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_OF_NUMBER = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
_HYPERNYM, _INSTANCE, _ANTONYM, _SIMILAR = "@", "@i", "!", "&"
_VOWELS = frozenset("aeiou")


@dataclass(slots=True)
class Synset:
    """One meaning: the words for it, and its relations as ``(sign, offset, own word, other word)``."""

    words: list[str]
    relations: list[tuple[str, int, int, int]] = field(default_factory=list)


class WordNet:
    """Looks words up; reads all files once, when constructed (about two seconds).

    Args:
        folder: Where ``data.noun`` and the others are.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._synsets: dict[str, dict[int, Synset]] = {}
        self._senses: dict[tuple[str, str], list[int]] = {}
        self._below: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._counts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        self.irregular: set[str] = set()
        for name, kind in _KINDS.items():
            self._synsets[kind] = dict(_synsets(folder / f"data.{name}"))
            self._read_senses(folder / f"index.{name}", kind)
            for line in (folder / f"{name}.exc").read_text().splitlines():
                self.irregular.update(line.split())
            for offset, synset in self._synsets[kind].items():
                for sign, other, *_ in synset.relations:
                    if sign in {_HYPERNYM, _INSTANCE}:
                        self._below[kind, other].append(offset)
        for line in (folder / "cntlist.rev").read_text().splitlines():
            key, number, count = line.split()
            lemma, _, rest = key.partition("%")
            self._counts[lemma, _OF_NUMBER[rest[0]]][int(number)] = int(count)

    def _read_senses(self, path: Path, kind: str) -> None:
        for line in path.read_text().splitlines():
            if line.startswith(" "):
                continue
            parts = line.split()
            number = int(parts[2])
            self._senses[parts[0], kind] = [int(offset) for offset in parts[-number:]]

    def frequency(self, lemma: str, kind: str) -> int:
        """How often a word was met in texts whose senses were marked, as a noun, verb, adjective or adverb."""
        return sum(self._counts.get((lemma, kind), {}).values())

    def kind(self, lemma: str) -> str:
        """What a word mostly is: n, v, a, r; the empty string when that is not clear."""
        counts = {kind: self.frequency(lemma, kind) + ((lemma, kind) in self._senses) for kind in "nvar"}
        kind = max(counts, key=counts.__getitem__)
        return kind if counts[kind] and counts[kind] >= 0.8 * sum(counts.values()) else ""

    def is_known(self, lemma: str, kind: str) -> bool:
        """Whether there is such a noun, verb, adjective or adverb."""
        return (lemma, kind) in self._senses

    def lemmas(self) -> Iterable[tuple[str, str]]:
        """All words with their kind."""
        return self._senses.keys()

    def main_sense(self, lemma: str, kind: str, share: float = 0.6) -> int | None:
        """The meaning that most uses of a word have; None where no one prevails."""
        senses = self._senses.get((lemma, kind), [])
        if len(senses) == 1:
            return senses[0]
        counts = self._counts.get((lemma, kind), {})
        if not senses or not counts or counts.get(1, 0) < share * sum(counts.values()):
            return None
        return senses[0]

    def synonyms(self, lemma: str, kind: str, *, is_common: bool = True) -> list[str]:
        """Other words for the main meaning of a word, of which it is the main meaning too; rare ones when asked for."""
        sense = self.main_sense(lemma, kind)
        if sense is None:
            return []
        words = [word for word in self._synsets[kind][sense].words if word != lemma]
        return [
            word
            for word in words
            if self.main_sense(word, kind) == sense and (self.frequency(word, kind) or not is_common)
        ]

    def meanings(self, lemma: str, kind: str, sign: str) -> list[tuple[str, int]]:
        """All meanings of a word, or with the sign of a relation those that its meanings are so related to."""
        senses = self._senses.get((lemma, kind), [])
        if not sign:
            return [(kind, sense) for sense in senses]
        return [
            (kind, other)
            for sense in senses
            for found, other, *_ in self._synsets[kind][sense].relations
            if found == sign
        ]

    def antonyms(self, lemma: str, kind: str) -> list[str]:
        """Opposites of a word in any of its meanings."""
        found: list[str] = []
        for sense in self._senses.get((lemma, kind), []):
            synset = self._synsets[kind][sense]
            for sign, other, own, theirs in synset.relations:
                if sign == _ANTONYM and own and synset.words[own - 1] == lemma:
                    found.append(self._synsets[kind][other].words[theirs - 1])
        return list(dict.fromkeys(found))

    def siblings(self, lemma: str, kind: str, *, most: int = 200) -> list[str]:
        """Words for other things of the same sort: other colours for a colour."""
        sense = self.main_sense(lemma, kind, 0.4)
        if sense is None:
            return []
        own = set(self._synsets[kind][sense].words)
        found: dict[str, None] = {}
        for sign, parent, *_ in self._synsets[kind][sense].relations:
            if sign in {_HYPERNYM, _INSTANCE}:
                for offset in self._below[kind, parent][:most]:
                    word = self._synsets[kind][offset].words[0]
                    if offset != sense and word not in own:
                        found[word] = None
        return list(found)

    def broader(self, lemma: str, kind: str) -> list[str]:
        """Words for the sort of thing that a word stands for."""
        sense = self.main_sense(lemma, kind)
        if sense is None:
            return []
        relations = self._synsets[kind][sense].relations
        return [self._synsets[kind][other].words[0] for sign, other, *_ in relations if sign == _HYPERNYM]

    @cached_property
    def common(self) -> dict[str, list[str]]:
        """Words in use, by kind, single words in lower case."""
        return {
            kind: sorted(
                lemma
                for (lemma, of), counts in self._counts.items()
                if of == kind and sum(counts.values()) > 2 and lemma.isalpha() and lemma.islower() and len(lemma) > 2
            )
            for kind in "nvar"
        }


def _synsets(path: Path) -> list[tuple[int, Synset]]:
    found = []
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        parts = line.partition(" | ")[0].split()
        n_words = int(parts[3], 16)
        words = [word.partition("(")[0] for word in parts[4 : 4 + 2 * n_words : 2]]
        at = 4 + 2 * n_words
        relations = []
        for start in range(at + 1, at + 1 + 4 * int(parts[at]), 4):
            sign, offset, _, ends = parts[start : start + 4]
            relations.append((sign, int(offset), int(ends[:2], 16), int(ends[2:], 16)))
        found.append((int(parts[0]), Synset(words, relations)))
    return found


def inflected(lemma: str, form: str) -> str:
    """A regular word in another form.

    Args:
        lemma: One word in lower case.
        form: "" for itself, "s", "ing" or "ed".
    """
    if not form:
        return lemma
    if form == "s":
        if lemma.endswith(("s", "x", "z", "ch", "sh")):
            return lemma + "es"
        return lemma[:-1] + "ies" if lemma.endswith("y") and lemma[-2:-1] not in _VOWELS else lemma + "s"
    if lemma.endswith("e") and not lemma.endswith(("ee", "oe", "ye")):
        return lemma[:-1] + form
    if form == "ed" and lemma.endswith("y") and lemma[-2:-1] not in _VOWELS:
        return lemma[:-1] + "ied"
    is_short = len(lemma) < 5 and lemma[-1:] not in {"w", "x", "y", *_VOWELS}
    if is_short and lemma[-2:-1] in _VOWELS and lemma[-3:-2] not in _VOWELS:
        return lemma + lemma[-1] + form
    return lemma + form
