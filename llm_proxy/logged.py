"""The log of outcomes as training data: what a head sees of each question was kept, so no prompt is needed.

Most rows know of one model or two: a score that is not there is missing, never 0. Where several say how good an answer
was, the surest counts: feedback, then a comparison, a judging model, an agreement, and last the scorer of a cascade.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from .errors import ConfigError
from .observe.events import GradeSource
from .observe.outcome_rows import Logged, logged
from .route.features import FEATURES
from .route.lazy import same_model
from .route.outcomes import Graded, collect
from .types import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .encode.base import Encoder
    from .route.outcomes import Outcomes

__all__ = ["LogSource", "Seen"]

_SURENESS = {source: place for place, source in enumerate(get_args(GradeSource))}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a head sees of ``n`` questions.

    Attributes:
        vectors: Shape ``(n, dim)``, float32, rows of unit length.
        layers: Shape ``(n, k)``, float32; k may be 0.
        features: Shape ``(n, F)``, float32, in the order of `llm_proxy.route.features.FEATURES`.
        chars: Shape ``(n,)``, float32: lengths of the questions.
    """

    vectors: NDArray[np.float32]
    layers: NDArray[np.float32]
    features: NDArray[np.float32]
    chars: NDArray[np.float32]


class LogSource:
    """A `llm_proxy.route.outcomes.Source` over the log of outcomes; read when constructed.

    Args:
        path: The log.
        encoder: The vectors must be of its model; it encodes prompts that were kept where theirs are not.
        route: Of one route only; empty for all.
        since_s: Only calls after this Unix time.
        only_graded: Only calls of which something is known.

    Raises:
        CacheError: The file is there but can't be read as a log of outcomes.
        ConfigError: It holds nothing that can be used.
    """

    def __init__(
        self, path: Path, encoder: Encoder, *, route: str = "", since_s: float = 0.0, only_graded: bool = True
    ) -> None:
        self.encoder = encoder
        self._rows: list[tuple[str, Logged]] = []
        self._seen: dict[str, tuple[NDArray[np.float32], ...]] = {}
        self.unusable = 0
        """Calls without a vector of this encoder."""
        self.newest_s = since_s
        """Unix time of the last call."""
        for row in logged(path, since_s=since_s, route=route, only_graded=only_graded):
            arrays = _arrays(row, encoder)
            if arrays is None:
                self.unusable += 1
                continue
            # A question is told by what a head sees of it: two that look alike to it are one to learn from.
            identity = hashlib.sha256(b"|".join(part.astype("<f2").tobytes() for part in arrays)).hexdigest()
            self._seen.setdefault(identity, arrays)
            self._rows.append((identity, row))
            self.newest_s = max(self.newest_s, row.at_s)
        self._keep_one_shape()
        if not self._rows:
            raise ConfigError(_nothing(path, route, since_s, self.unusable, only_graded=only_graded))
        pairs = dict.fromkeys(pair for _, row in self._rows for pair in _pairs(row))
        backends: dict[str, set[str]] = {}
        for backend, model in pairs:
            backends.setdefault(model, set()).add(backend)
        self._names = {
            (backend, model): model if len(backends[model]) == 1 else f"{backend}/{model}" for backend, model in pairs
        }

    def __len__(self) -> int:
        return len(self._rows)

    def _keep_one_shape(self) -> None:
        """Leave out what an encoder of that name made before it showed other layers."""
        shapes = {name: tuple(map(len, arrays)) for name, arrays in self._seen.items()}
        wanted = shapes[self._rows[-1][0]] if self._rows else ()
        kept = [(name, row) for name, row in self._rows if shapes[name] == wanted]
        self.unusable += len(self._rows) - len(kept)
        self._rows, self._seen = kept, {name: self._seen[name] for name, _ in kept}

    def graded(self) -> Iterator[Graded]:
        """Every graded question, oldest first, under a name that stands for it."""
        for identity, row in self._rows:
            scores, tokens, usd = self._found(row)
            if scores:
                yield Graded(
                    prompt=identity,
                    scores=scores,
                    tokens=tokens,
                    usd=usd,
                    prompt_tokens=row.prompt_tokens or max(1.0, row.chars / CHARS_PER_TOKEN),
                    group=row.route,
                )

    def outcomes(self) -> Outcomes:
        """All outcomes, with the questions themselves where all of them were kept.

        Raises:
            ConfigError: Nothing can be learnt from them.
        """
        import numpy

        found = collect(self, "the log of outcomes")
        texts = {identity: row.prompt for identity, row in self._rows if row.prompt and len(row.prompt) == row.chars}
        prompts = [texts[identity] for identity in found.prompts if identity in texts]
        if len(set(prompts)) == len(found):
            return replace(found, prompts=tuple(prompts))
        chars = {identity: row.chars for identity, row in self._rows}
        return replace(found, chars=numpy.array([chars[name] for name in found.prompts], numpy.float32))

    def seen(self, most: int = 0) -> Seen:
        """What a head sees of every question, each once, oldest first; the rows of `outcomes` where all are graded.

        Args:
            most: At most so many, evenly out of all; 0 for all.
        """
        import numpy

        chars = {identity: row.chars for identity, row in self._rows}
        names: Sequence[str] = list(self._seen)
        if 0 < most < len(names):
            names = [names[at * len(names) // most] for at in range(most)]
        parts = zip(*(self._seen[name] for name in names), strict=True)
        vectors, layers, features = (numpy.array(part, numpy.float32).reshape(len(names), -1) for part in parts)
        return Seen(vectors, layers, features, numpy.array([chars[name] for name in names], numpy.float32))

    def _found(self, row: Logged) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Scores, tokens and dollars by model; of each score the surest source."""
        scores: dict[str, float] = {}
        tokens: dict[str, float] = {}
        usd: dict[str, float] = {}
        for grade in sorted(row.grades, key=lambda one: -_SURENESS.get(one.source, len(_SURENESS))):
            name = self._names[grade.backend, grade.model]
            scores[name] = grade.score
            _put(tokens, name, grade.completion_tokens)
            _put(usd, name, grade.cost_usd)
        name = self._names[row.backend, row.model]
        if name in scores:
            _put(tokens, name, row.completion_tokens)
            _put(usd, name, row.cost_usd)
        return scores, tokens, usd


def _put(values: dict[str, float], name: str, value: float | None) -> None:
    if value is not None:
        values[name] = value


def _pairs(row: Logged) -> Iterator[tuple[str, str]]:
    yield row.backend, row.model
    yield from ((grade.backend, grade.model) for grade in row.grades)


def _arrays(row: Logged, encoder: Encoder) -> tuple[NDArray[np.float32], ...] | None:
    """Vector, layers and features; None where they can't be had."""
    import numpy

    if row.features is None:
        return None
    features = numpy.frombuffer(row.features, "<f2").astype(numpy.float32)
    if len(features) != len(FEATURES):  # of another version
        return None
    if row.vector is not None and same_model(row.encoder, encoder.name):
        vector = numpy.frombuffer(row.vector, "<f2").astype(numpy.float32)
        layers = numpy.frombuffer(row.layers or b"", "<f2").astype(numpy.float32)
    elif row.prompt and len(row.prompt) == row.chars:
        encoding = encoder.encode(row.prompt)
        vector = encoding.vector
        layers = numpy.zeros(0, numpy.float32) if encoding.layers is None else encoding.layers
    else:
        return None
    return vector / numpy.float32(numpy.linalg.norm(vector) or 1.0), layers, features


def _nothing(path: Path, route: str, since_s: float, unusable: int, *, only_graded: bool) -> str:
    what = "outcomes" if only_graded else "calls"
    where = f" of the route {route!r}" if route else ""
    when = " since the head was trained" if since_s else ""
    if unusable:
        return f"{path} has no {what}{where}{when} with vectors of this encoder; {unusable} have none, or another's"
    return (
        f"{path} has no {what}{where}{when} yet: they come from feedback (x-llm-proxy-feedback), from "
        "routes.NAME.compare_share, and from cascades"
    )
