"""What tells a reworded prompt from one with a fault: features of two prompts, for `rewordings`.

Each word of content of one prompt is looked for in the other: as itself, as a synonym, by the encoder's vector of the word
in its place. What must be equal in every rewording (numbers, names, negations, lines) is counted beside it, and the pair
model reads sentence by sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from llm_proxy.cache.guard.words import ARTICLES, AUXILIARIES, FUNCTION, NEGATIONS, PERSONS, SMALL

from .wordnet import WordNet

__all__ = ["EXACT", "NAMES", "Contexts", "Prompt", "Words", "features"]

Array = np.ndarray[Any, Any]
_TOKEN = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*|[^\sA-Za-z\d]")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][A-Za-z]+")
_END = re.compile(r"[.!?](?=\s|$)")
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+")
_LIGHT = (FUNCTION | PERSONS | ARTICLES.keys() | AUXILIARIES.keys() | {"please", "kindly", "carefully"}) - NEGATIONS
_LAYERS = ("LayerNormalization_91", "LayerNormalization_49")  # the last, and that of the third layer
_RELATIONS = ("same", "synonym", "similar", "broader", "sibling", "none")
_KINDS = ("last", "third", "both", "unlike")
_WEIGHTS = dict(zip(_RELATIONS, (1.0, 0.9, 0.8, 0.7, 0.3, 0.0), strict=True))
_ENDINGS = (
    ("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ly", ""),
)  # fmt: skip
_SAME, _UNREAD = 9.0, -9.0  # logits: of a sentence that did not change, and of one that the pair model cannot read


@dataclass(frozen=True)
class Prompt:
    """A prompt, its words, and of each word the vectors of two layers of the encoder, unit norm.

    Attributes:
        text: The prompt.
        words: Its words, numbers and signs, as far as the encoder's window reaches.
        inner: Shape ``(2, len(words), dim)``.
        vector: Of the whole.
    """

    text: str
    words: list[str]
    inner: Array
    vector: Array

    @cached_property
    def numbers(self) -> set[str]:
        """Its numbers, those in words as digits."""
        found = (str(SMALL.get(word.lower(), word)) for word in _TOKEN.findall(self.text))
        return {word for word in found if word[0].isdecimal()}

    @cached_property
    def lower(self) -> set[str]:
        """Its words in lower case."""
        return {word.lower() for word in _TOKEN.findall(self.text)}

    @cached_property
    def n_negations(self) -> int:
        """How many of its words negate."""
        return sum(word in NEGATIONS or word.endswith("n't") for word in map(str.lower, _TOKEN.findall(self.text)))

    @cached_property
    def lines(self) -> list[str]:
        """Its lines, without blank ones."""
        return [line.strip() for line in self.text.splitlines() if line.strip()]


class Contexts:
    """Runs the shipped encoder with its inner layers shown.

    Args:
        folder: Of the encoder.
    """

    def __init__(self, folder: Path) -> None:
        import onnx
        import onnxruntime
        import tokenizers

        model = onnx.load(folder / "model.onnx")
        shown = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in _LAYERS]
        model.graph.output.extend(shown)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)

    def read(self, text: str) -> Prompt:
        """Words of a text with their vectors; the parts of a word that the tokenizer cuts are averaged."""
        found = self._tokenizer.encode(text)
        ids = np.array([found.ids], np.int64)
        *layers, vector = self._session.run(
            [*_LAYERS, "vector"], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        )
        words: list[tuple[int, int]] = []
        parts: list[list[int]] = []
        for at, (start, end) in enumerate(found.offsets):
            if start == end:
                continue
            if words and words[-1][1] == start and text[start - 1].isalpha() and text[start].isalpha():
                words[-1] = (words[-1][0], end)
                parts[-1].append(at)
            else:
                words.append((start, end))
                parts.append([at])
        inner = np.stack([[layer[0, rows].mean(0) for rows in parts] for layer in layers])
        inner /= np.linalg.norm(inner, axis=2, keepdims=True)
        return Prompt(text, [text[start:end] for start, end in words], inner, vector[0])


class Words:
    """How two words are related in WordNet, in any of their meanings."""

    def __init__(self, net: WordNet) -> None:
        self._net = net
        self.relation = lru_cache(maxsize=None)(self._relation)
        self.is_opposite = lru_cache(maxsize=None)(self._is_opposite)
        self._bases = lru_cache(maxsize=None)(self._all_bases)
        self._meanings = lru_cache(maxsize=None)(self._all_meanings)

    def _all_bases(self, word: str) -> frozenset[str]:
        found = {word} | {
            word.removesuffix(end) + start for end, start in _ENDINGS if word.endswith(end) and len(word) > 4
        }
        known = {base for base in found if any(self._net.is_known(base, kind) for kind in "nvar")}
        return frozenset(known | {word})

    def _all_meanings(self, word: str) -> dict[str, frozenset[tuple[str, int]]]:
        """Meanings of a word: its own, similar ones, broader ones."""
        return {
            sign: frozenset(
                meaning
                for base in self._bases(word)
                for kind in "nvar"
                for meaning in self._net.meanings(base, kind, sign)
            )
            for sign in ("", "&", "@")
        }

    def _relation(self, one: str, other: str) -> str:
        """The nearest of `_RELATIONS`."""
        if self._bases(one) & self._bases(other):
            return "same"
        a, b = self._meanings(one), self._meanings(other)
        if a[""] & b[""]:
            return "synonym"
        if a[""] & b["&"] or a["&"] & b[""]:
            return "similar"
        if a[""] & b["@"] or a["@"] & b[""]:
            return "broader"
        return "sibling" if a["@"] & b["@"] else "none"

    def _is_opposite(self, one: str, other: str) -> bool:
        theirs = self._bases(other)
        return any(
            not theirs.isdisjoint(self._net.antonyms(base, kind)) for base in self._bases(one) for kind in "nvar"
        )


NAMES = [
    "cosine", "numbers", "names", "negations", "lines", "sentences", "order", "longest", "shortest", "signs",
    *(
        f"{side} {name}"
        for side in ("a", "b")
        for name in (*_RELATIONS, "opposites", *(f"{kind} {n}" for kind in _KINDS for n in (1, 2, 3)))
    ),
    "sentence 1", "sentence 2", "sentence 3", "sentences mean",
]  # fmt: skip
"""Names of the features, in order."""
EXACT = ("numbers", "names", "negations", "lines", "sentences")
"""Features that are 0 where nothing that must be equal differs."""


def features(a: Prompt, b: Prompt, words: Words, logit: Callable[[str, str], float | None]) -> list[float]:
    """What `NAMES` says, of a prompt and another one.

    ``a same`` to ``a none`` are shares of the words of content of the first by how the nearest word of the second is
    related; ``opposites`` is how many have their opposite there; then come the three least cosines with the nearest word
    of the second, by each layer, by both and the relation together, and of those words alone that are not related. The
    last are the three least logits of the pair model over the sentences, and their mean.
    """
    names = [
        name for one, other in ((a, b), (b, a)) for name in _NAME.findall(one.text) if name.lower() not in other.lower
    ]
    lengths = [0]
    if len(a.lines) == len(b.lines):
        lengths = [len(one.split()) - len(other.split()) for one, other in zip(a.lines, b.lines, strict=True)]
    signs = [{sign for sign in prompt.text if not sign.isalnum() and not sign.isspace()} for prompt in (a, b)]
    logits = sorted(_logits(a.lines, b.lines, logit))
    return [
        float(a.vector @ b.vector),
        len(a.numbers ^ b.numbers),
        len(names),
        abs(a.n_negations - b.n_negations),
        abs(len(a.lines) - len(b.lines)),
        abs(len(_END.findall(a.text)) - len(_END.findall(b.text))),
        _turned(a.words, b.words),
        max(lengths),
        min(lengths),
        len(signs[0] ^ signs[1]),
        *_side(a, b, words),
        *_side(b, a, words),
        *[*logits, _SAME, _SAME][:3],
        sum(logits) / len(logits),
    ]


def _logits(a: list[str], b: list[str], logit: Callable[[str, str], float | None]) -> list[float]:
    """Of the sentences one by one, where line by line they are as many; else of whole lines."""
    if len(a) != len(b):
        return [_UNREAD]
    found: list[float] = []
    for one, other in zip(a, b, strict=True):
        x, y = _SENTENCE.split(one), _SENTENCE.split(other)
        pairs = zip(x, y, strict=True) if len(x) == len(y) else [(one, other)]
        for p, q in pairs:
            read = _SAME if p.lower() == q.lower() else logit(p, q)
            found.append(_UNREAD if read is None else read)
    return found or [_SAME]


def _turned(a: list[str], b: list[str]) -> int:
    """How often words of content that stand once in each change their order."""
    count_a, count_b = (Counter(map(str.lower, words)) for words in (a, b))
    place = {word.lower(): at for at, word in enumerate(b)}
    content = (word for word in map(str.lower, a) if word.isalpha() and word not in _LIGHT)
    order = [place[word] for word in content if count_a[word] == 1 == count_b[word]]
    return sum(one > other for one, other in pairwise(order))


def _side(a: Prompt, b: Prompt, words: Words) -> list[float]:
    places = [at for at, word in enumerate(a.words) if word.isalpha() and len(word) > 1 and word.lower() not in _LIGHT]
    if not places or not b.words:
        return [0.0] * (len(_RELATIONS) + 1 + 3 * len(_KINDS))
    others = [word for word in b.lower if word.isalpha() and word not in _LIGHT]
    nearest = np.einsum("lad,lbd->lab", a.inner[:, places], b.inner).max(2)
    related: list[str] = []
    n_opposites = 0
    for at in places:
        word = a.words[at].lower()
        found = min((words.relation(word, other) for other in others), key=_RELATIONS.index, default="none")
        related.append(found)
        n_opposites += found != "same" and any(words.is_opposite(word, other) for other in others)
    counts = Counter(related)
    weight = np.array([_WEIGHTS[found] for found in related])
    together = nearest[0] + nearest[1] + 0.5 * weight
    kinds = [(nearest[0], weight < 1), (nearest[1], weight < 1), (together, weight < 1), (nearest.sum(0), weight < 0.7)]
    least = [_least(values[chosen], float(values.max())) for values, chosen in kinds]
    shares = [counts[found] / len(places) for found in _RELATIONS]
    return [*shares, n_opposites, *(value for row in least for value in row)]


def _least(values: Array, otherwise: float) -> list[float]:
    return [*np.sort(values)[:3], otherwise, otherwise, otherwise][:3]
