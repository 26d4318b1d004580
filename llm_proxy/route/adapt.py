"""The scorer on your own traffic: what it says of an answer is corrected by what became of answers like it.

The shipped scorer knows exam questions. On other tasks its order is worth less, and its probabilities are off; some
hundred marked answers mend both. A logistic regression is fitted on its logit and on what the answers show::

    logit' = a * logit + b + w . x           x: the numbers of `FEATURES` over their spread, 0 where not known
    penalty = (a - 1)^2 * n0 + |w|^2 * n0    n0 = 30: answers that it takes to doubt the shipped scorer

So no answers at all leave it as it is. The minimum is found by Newton's method.

Source: Platt, "Probabilistic outputs for support vector machines", 1999, for the two numbers a and b.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.errors import ConfigError, RouterError

from .answers import FEATURES, features
from .base import Reply

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.encode.base import Encoding

    from .scorer import AnswerScorer

__all__ = ["OWN_NAME", "Adaptation", "MarkedAnswer", "adapted_to", "fit", "read_marked"]

OWN_NAME = "answers.json"
"""File of the correction in use, in the cache's directory."""

_DOUBT = 30.0
_LEAST = 20
_STEPS = 30
_MOST = 4.0  # spreads from the mean: one strange answer must not decide


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A correction of one scorer.

    Attributes:
        scorer: Name of the scorer that it was fitted for.
        slope: Factor of the logit.
        offset: Added to it.
        means: Mean of each feature, as many as `FEATURES`.
        weights: What a spread of each feature beyond its mean adds.
        spreads: Standard deviation of each feature, > 0.
        answers: How many it was fitted on.
    """

    scorer: str
    slope: float
    offset: float
    means: tuple[float, ...]
    weights: tuple[float, ...]
    spreads: tuple[float, ...]
    answers: int

    def logit(self, logit: float, shown: Sequence[float]) -> float:
        """The corrected logit.

        Args:
            logit: What the scorer said.
            shown: What the answer shows, in the order of `FEATURES`; NaN where not known.
        """
        rows = zip(shown, self.means, self.spreads, self.weights, strict=True)
        known = ((value, mean, spread, weight) for value, mean, spread, weight in rows if not math.isnan(value))
        further = sum(weight * _bounded((value - mean) / spread) for value, mean, spread, weight in known)
        return self.slope * logit + self.offset + further

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: The file can't be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "features": list(FEATURES)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Adaptation:
        """Read what `save` wrote.

        Raises:
            ConfigError: The file is missing, damaged, or made for other features.
        """
        try:
            found = json.loads(path.read_bytes())
            names = found.pop("features")
            made = cls(**found | {name: tuple(map(float, found[name])) for name in ("means", "weights", "spreads")})
            numbers = (made.slope, made.offset, *made.means, *made.weights, *made.spreads)
            sizes = {len(made.means), len(made.weights), len(made.spreads)}
            if tuple(names) != FEATURES or sizes != {len(FEATURES)} or not all(map(math.isfinite, numbers)):
                raise ValueError("it is of another version, or not finite")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(f"{path} can't be used to correct the scorer: {exc}; fit it anew") from exc
        return made


class MarkedAnswer(NamedTuple):
    """An answer of one's own traffic, and whether it was right."""

    question: str
    answer: str
    is_right: bool


def read_marked(path: Path) -> list[MarkedAnswer]:
    """Marked answers of a file: JSON lines with ``question``, ``answer`` and ``good`` (true, false, or a share of 1).

    Raises:
        RouterError: The file can't be read; the message names the line.
    """
    found = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_marked(line, f"{path} line {number}"))
    except (OSError, UnicodeDecodeError) as exc:
        raise RouterError(f"{path} can't be read: {exc}") from exc
    return found


def adapted_to(rows: Sequence[MarkedAnswer], scorer: AnswerScorer, encode: Callable[[str], Encoding]) -> Adaptation:
    """The correction of a scorer by marked answers; takes two passes of the encoder for each.

    Args:
        rows: The answers.
        scorer: What is corrected.
        encode: Encodes a text, by an encoder that the scorer reads.

    Raises:
        RouterError: There are too few, see `fit`.
    """
    import numpy

    shown = [features(row.question, Reply(row.answer)) for row in rows]
    logits = [
        scorer.logit(known, asked=encode(row.question).vector, said=encode(row.answer).vector)
        for row, known in zip(rows, shown, strict=True)
    ]
    is_right = numpy.array([row.is_right for row in rows], bool)
    return fit(scorer.name, numpy.array(logits), numpy.array(shown, float).reshape(-1, len(FEATURES)), is_right)


def _marked(line: str, place: str) -> MarkedAnswer:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise RouterError(f"{place}: not JSON") from exc
    question, answer, good = map(row.get, ("question", "answer", "good")) if isinstance(row, dict) else (None,) * 3
    if not isinstance(question, str) or not isinstance(answer, str):
        raise RouterError(f'{place}: must be an object with "question" and "answer", which are text, and "good"')
    if not isinstance(good, (bool, int, float)) or not 0 <= good <= 1:
        raise RouterError(f'{place}: "good" must be true, false or a number from 0 to 1')
    return MarkedAnswer(question, answer, good >= 0.5)


def fit(
    scorer: str, logits: NDArray[np.float64], shown: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> Adaptation:
    """Fit a correction on marked answers.

    Args:
        scorer: Name of the scorer.
        logits: What it said of each, shape ``(n,)``, finite.
        shown: What each shows, shape ``(n, len(FEATURES))``; NaN where not known.
        is_right: Whether it was right, shape ``(n,)``.

    Raises:
        RouterError: There are fewer than 20 answers, or all are right, or all wrong.
    """
    import numpy

    right = int(numpy.count_nonzero(is_right))
    if len(is_right) < _LEAST or right in (0, len(is_right)):
        raise RouterError(
            f"{len(is_right)} marked answers, {right} of them right: it takes {_LEAST} or more, of both kinds"
        )
    known = ~numpy.isnan(shown)
    counts = numpy.maximum(known.sum(axis=0), 1)
    filled = numpy.where(known, shown, 0.0)
    means = filled.sum(axis=0) / counts
    deviations = numpy.where(known, shown - means, 0.0)
    spreads = numpy.sqrt((deviations**2).sum(axis=0) / counts)
    spreads[spreads < 1e-9] = 1.0
    x = numpy.column_stack([logits, numpy.clip(deviations / spreads, -_MOST, _MOST)])
    slope, weights, offset = _newton(x, is_right.astype(float))
    return Adaptation(
        scorer,
        slope,
        offset,
        means=tuple(means.tolist()),
        weights=tuple(weights.tolist()),
        spreads=tuple(spreads.tolist()),
        answers=len(is_right),
    )


def _newton(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], float]:
    """Slope of the first column, weights of the others, and the offset."""
    import numpy

    x = numpy.column_stack([x, numpy.ones(len(x))])
    start = numpy.zeros(x.shape[1])
    start[0] = 1.0  # the scorer as it is
    penalty = numpy.full(x.shape[1], _DOUBT)
    penalty[-1] = 1e-3
    found = start.copy()
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + numpy.exp(-numpy.clip(x @ found, -30.0, 30.0)))
        gradient = x.T @ (p - y) + penalty * (found - start)
        curvature = (x.T * numpy.maximum(p * (1.0 - p), 1e-6)) @ x + numpy.diag(penalty)
        step = numpy.linalg.solve(curvature, gradient)
        found -= step / max(1.0, float(numpy.abs(step).max()) / 5.0)  # the first steps may go too far
    return float(found[0]), found[1:-1], float(found[-1])


def _bounded(value: float) -> float:
    return max(-_MOST, min(_MOST, value))
