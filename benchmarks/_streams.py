"""Requests made of labelled pairs, with new topics arriving, and what each text's neighbours are.

What is assumed of a file of pairs (a, b, label), beyond what it says:

- Label 1 is transitive: texts joined by pairs of label 1 have one answer.
- Label 0 holds for all texts of the two answers. Within one answer it holds for its own pair alone.
- Of other pairs nothing is assumed: they are never neighbours. Files leave out many pairs that do ask the same ("delete
  the grocery list", "erase the grocery list"), so to count them as different would make errors of right hits.
- All texts that pairs of either label join are one topic: paraphrases, and traps that sound alike.

And of the requests:

- A fifth of the topics is known from the beginning; the others arrive one by one until the last request, those of one
  file after those of the file before it.
- A topic is asked for in proportion to ``1 / rank ** 0.8`` among those that have arrived, ranks being drawn, and a text
  of it likewise, so that wordings repeat.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

from ._pairs import read_pairs

__all__ = ["Near", "Questions", "near", "questions", "requests"]

_EXPONENT = 0.8
_KNOWN_FIRST = 0.2


@dataclass(frozen=True)
class Questions:
    """Texts, and which of them share an answer.

    Attributes:
        texts: Different texts.
        answers: Of each text the number of its answer.
        topics: Texts of each topic, by number, topics of the first file first.
        files: Of each topic the number of its file.
        different: Pairs of answers that are said to differ, smaller number first.
        contested: Pairs of texts of one answer that are said to differ, smaller number first.
    """

    texts: list[str]
    answers: list[int]
    topics: list[list[int]]
    files: list[int]
    different: frozenset[tuple[int, int]]
    contested: frozenset[tuple[int, int]]

    def is_same(self, one: int, other: int) -> bool | None:
        """Whether two texts share an answer; None where the file does not tell."""
        a, b = self.answers[one], self.answers[other]
        if a == b:
            return (min(one, other), max(one, other)) not in self.contested
        return False if (min(a, b), max(a, b)) in self.different else None


def questions(files: Sequence[Path]) -> Questions:
    """Read files of pairs, as `read_pairs` does."""
    numbers: dict[str, int] = {}
    answers, topics = _Joined(), _Joined()
    file_of: list[int] = []
    zeros: list[tuple[int, int]] = []
    for file, path in enumerate(files):
        for pair in read_pairs(path):
            one, other = (numbers.setdefault(text, len(numbers)) for text in (pair.a, pair.b))
            file_of += [file] * (len(numbers) - len(file_of))
            topics.join(one, other)
            if pair.is_equal:
                answers.join(one, other)
            else:
                zeros.append((min(one, other), max(one, other)))
    by_topic: dict[int, list[int]] = {}
    for text in numbers.values():
        by_topic.setdefault(topics.root(text), []).append(text)
    all_topics = sorted(by_topic.values(), key=lambda texts: file_of[texts[0]])
    roots = [answers.root(text) for text in range(len(numbers))]
    answers_of = [(min(a, b), max(a, b)) for one, other in zeros for a, b in [(roots[one], roots[other])]]
    return Questions(
        texts=list(numbers),
        answers=roots,
        topics=all_topics,
        files=[file_of[texts[0]] for texts in all_topics],
        different=frozenset(pair for pair in answers_of if pair[0] != pair[1]),
        contested=frozenset(pair for pair, (a, b) in zip(zeros, answers_of, strict=True) if a == b),
    )


def requests(found: Questions, count: int, seed: int) -> list[int]:
    """Numbers of the texts that are asked, one after another.

    Args:
        found: From `questions`.
        count: How many requests.
        seed: Of all that is drawn.
    """
    rng = random.Random(seed)
    order = sorted(range(len(found.topics)), key=lambda topic: (found.files[topic], rng.random()))
    ranks = list(range(1, len(order) + 1))
    rng.shuffle(ranks)
    sums = list(accumulate(rank**-_EXPONENT for rank in ranks))
    wordings: dict[int, tuple[list[int], list[float]]] = {}
    asked = []
    for at in range(count):
        here = max(1, round(len(order) * (_KNOWN_FIRST + (1 - _KNOWN_FIRST) * at / count)))
        topic = order[min(bisect(sums, rng.random() * sums[here - 1]), here - 1)]
        if topic not in wordings:
            texts = rng.sample(found.topics[topic], len(found.topics[topic]))
            wordings[topic] = texts, list(accumulate((rank + 1) ** -_EXPONENT for rank in range(len(texts))))
        texts, cumulated = wordings[topic]
        asked.append(rng.choices(texts, cum_weights=cumulated)[0])
    return asked


@dataclass(frozen=True)
class Near:
    """Of each text that is asked, the nearest others, nearest first.

    Attributes:
        texts: Their numbers.
        similarities: Their cosines.
    """

    texts: dict[int, array[int]]
    similarities: dict[int, array[float]]

    def within(self, text: int, indexed: Container[int], most: int) -> list[tuple[int, float]]:
        """The nearest that are in an index, with their similarities."""
        pairs = zip(self.texts[text], self.similarities[text], strict=True)
        return list(islice((pair for pair in pairs if pair[0] in indexed), most))


def near(found: Questions, asked: set[int]) -> Near:
    """Encode texts with the shipped encoder, and compare those of a topic where the file tells whether they differ."""
    import numpy as np

    from llm_proxy.encode.onnx import OnnxEncoder

    encoder = OnnxEncoder(providers=["CPUExecutionProvider"])
    order = sorted(asked, key=lambda text: len(found.texts[text]))  # alike lengths together: nothing is padded
    rows = np.empty((len(order), encoder.dim), np.float32)
    for start in range(0, len(order), 64):
        rows[start : start + 64] = encoder.encode_batch([found.texts[text] for text in order[start : start + 64]])
    row_of = {text: row for row, text in enumerate(order)}
    texts, similarities = {}, {}
    for topic in found.topics:
        here = [text for text in topic if text in row_of]
        if not here:
            continue
        of_topic = rows[[row_of[text] for text in here]]
        cosines = of_topic @ of_topic.T
        for at, text in enumerate(here):
            nearest = (here_at for here_at in np.argsort(-cosines[at], kind="stable").tolist() if here_at != at)
            known = [other for other in nearest if found.is_same(text, here[other]) is not None]
            texts[text] = array("l", [here[other] for other in known])
            similarities[text] = array("f", [min(1.0, float(cosines[at, other])) for other in known])
    return Near(texts, similarities)


class _Joined:
    """Sets of numbers that are joined two by two."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def root(self, number: int) -> int:
        """A number that stands for its set."""
        while (above := self._above.get(number, number)) != number:
            self._above[number] = number = self._above.get(above, above)
        return number

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        self._above[self.root(one)] = self.root(other)
