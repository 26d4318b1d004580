"""Outcomes: how well models answered questions, read from JSON lines, for training and measuring a router.

Three forms of a line, also mixed::

    {"prompt": "…", "scores": {"gpt-4o-mini": 0.8, "gpt-4o": 1}, "tokens": {"gpt-4o": 212}, "group": "support"}
    {"prompt": "…", "score": [0.8, 1], "otok": [null, 212], "ptok": 40, "group": "support"}
    {"prompt": "…", "model": "gpt-4o", "score": 1, "otok": 212}

A score is in [0, 1], or null where the model was not asked. Lists follow a list of models: the line's own ``models``,
or one for the whole file. Lengths, prompt tokens, dollars (``usd`` by model, or the list ``cost``) and a group
(``group``, else ``task``) may be absent. Lines of one prompt become one row with the mean of what they say.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llm_proxy.errors import ConfigError
from llm_proxy.types import CHARS_PER_TOKEN

from .traffic import lines_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Graded", "Outcomes", "Source", "collect", "models_of", "read_outcomes"]

_MOST_ROWS = 1_000_000
_MOST_TEXT_CHARS = 1 << 30
_SHOWN_CHARS = 60
_LISTS = {"score": "scores", "otok": "tokens", "cost": "usd"}
_LENGTHS = ("tokens", "usd")
_MOST = 1e9  # tokens or dollars of one answer: more is a mistake, and its square would drown the rest


@dataclass(frozen=True, slots=True)
class Graded:
    """How well some models answered one question.

    Attributes:
        prompt: The question, not empty.
        scores: By model, in [0, 1].
        tokens: Length of the answer by model, >= 0.
        usd: What the answer cost by model, >= 0.
        prompt_tokens: > 0; None where not known.
        group: What kind of question it is; empty where not known.
    """

    prompt: str
    scores: Mapping[str, float]
    tokens: Mapping[str, float]
    usd: Mapping[str, float]
    prompt_tokens: float | None = None
    group: str = ""


class Source(Protocol):
    """Where outcomes come from other than a file, e.g. a ledger in which answers were graded."""

    def graded(self) -> Iterable[Graded]:
        """Every graded question, oldest first; may be asked again."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of ``n`` questions and ``M`` models.

    Attributes:
        models: Their names.
        prompts: Questions, no two alike.
        scores: Shape ``(n, M)``, float32, in [0, 1]; NaN where the model was not asked.
        tokens: Shape ``(n, M)``, float32, length of the answer; NaN where not known.
        usd: Shape ``(n, M)``, float32, what the answer cost, dollars; NaN where not known.
        prompt_tokens: Shape ``(n,)``, float32, > 0; by the characters where not known.
        groups: Kind of each question; empty where not known.
        lines: Lines that were read; more than ``n`` where prompts repeat.
        sha256: Of the file, 64 hex digits; of the prompts and scores for other sources.
        chars: Shape ``(n,)``, float32: lengths of the questions, where ``prompts`` are only names that stand for them;
            None where they are the questions themselves.
    """

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: NDArray[np.float32]
    tokens: NDArray[np.float32]
    usd: NDArray[np.float32]
    prompt_tokens: NDArray[np.float32]
    groups: tuple[str, ...]
    lines: int
    sha256: str
    chars: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, chosen: Sequence[int] | NDArray[np.intp]) -> Outcomes:
        """The same with some rows only, in that order."""
        return replace(
            self,
            prompts=tuple(self.prompts[at] for at in chosen),
            scores=self.scores[chosen],
            tokens=self.tokens[chosen],
            usd=self.usd[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            groups=tuple(self.groups[at] for at in chosen),
            chars=None if self.chars is None else self.chars[chosen],
        )

    def of(self, *models: str) -> Outcomes:
        """The same with some models only, in that order.

        Raises:
            ConfigError: A model is not among them.
        """
        missing = [name for name in models if name not in self.models]
        if missing:
            raise ConfigError(f"no outcomes of {_shown(missing[0])}; there are those of {', '.join(self.models)}")
        places = [self.models.index(name) for name in models]
        parts = {name: getattr(self, name)[:, places] for name in ("scores", *_LENGTHS)}
        return replace(self, models=models, **parts)

    def asked(self) -> NDArray[np.intp]:
        """Rows in which every model has a score."""
        import numpy

        return numpy.flatnonzero(~numpy.isnan(self.scores).any(axis=1))


def read_outcomes(
    path: Path, *, models: Sequence[str] | None = None, clip: bool = False, lengths_only: bool = False
) -> Outcomes:
    """Read a file of JSON lines.

    Args:
        path: ``.jsonl``, perhaps gzipped (``.gz``).
        models: Which models the lists of the lines are of; see `models_of`.
        clip: Take the nearer end for scores outside [0, 1], which some measures of texts give.
        lengths_only: Only the lengths of answers are wanted: lines without scores will do.

    Raises:
        ConfigError: It can't be read, a line is wrong (the message gives its number), or nothing can be learnt from it.
    """
    found = _assembled(_graded(path, models, clip), str(path), lambda: _sha256(path))
    if not lengths_only:
        return _asked(found, str(path))
    if not found.tokens.size or not (found.tokens >= 0).any():
        raise ConfigError(f"{path} has no lengths of answers")
    return found


def collect(source: Source, name: str = "the log") -> Outcomes:
    """The outcomes of another source than a file.

    Args:
        source: Where they are.
        name: What an error calls it.

    Raises:
        ConfigError: Nothing can be learnt from them.
    """
    digest = hashlib.sha256()

    def noted() -> Iterator[Graded]:
        for one in source.graded():
            digest.update(json.dumps([one.prompt, sorted(one.scores.items())]).encode())
            yield one

    found = _assembled(noted(), name, digest.hexdigest)
    return _asked(found, name)


def models_of(path: Path, file: Path | None = None) -> tuple[str, ...]:
    """The models that the lists of a file of outcomes are of.

    Args:
        path: The file of outcomes.
        file: Where they are named; None for a ``models.json`` beside it.

    Returns:
        Their names; none where there is no ``models.json``. The file holds a list, or ``{"models": [...]}``; instead of
        a list there may be an object with one list for each file of outcomes, by its name with or without endings.

    Raises:
        ConfigError: The file that was named is not there, or it holds something else.
    """
    if file is None and not (path.parent / "models.json").is_file():
        return ()
    file = file or path.parent / "models.json"
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} can't be read: {exc}") from exc
    listed = found.get("models", found) if isinstance(found, dict) else found
    if isinstance(listed, dict):
        names = (path.name, path.name.removesuffix(".gz"), path.name.partition(".")[0])
        listed = next((listed[name] for name in names if name in listed), None)
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) and name for name in listed):
        raise ConfigError(f'{file} must hold {{"models": [names]}}')
    if len(set(listed)) < len(listed):
        raise ConfigError(f"{file} names a model twice")
    return tuple(listed)


def _graded(path: Path, models: Sequence[str] | None, clip: bool) -> Iterator[Graded]:
    for number, line in lines_of(path):
        try:
            yield _row(json.loads(line), models, clip)
        except (ValueError, RecursionError) as exc:
            why = "not JSON" if isinstance(exc, (json.JSONDecodeError, UnicodeDecodeError, RecursionError)) else exc
            raise ConfigError(f"{path} line {number}: {why}") from exc


def _row(found: Any, models: Sequence[str] | None, clip: bool) -> Graded:
    if not isinstance(found, dict):
        raise ValueError("must be an object")
    prompt = found.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError('"prompt" must be a text that is not empty')
    listed = found.get("models", models)
    tables = {name: _table(found, name, plain, listed) for plain, name in _LISTS.items()}
    if not tables["scores"] and not tables["tokens"]:
        raise ValueError('no score: expected "scores": {MODEL: number}, or "score": [numbers]')
    tables["scores"] = _scores(tables["scores"], clip)
    for name in _LENGTHS:
        for model, value in tables[name].items():
            if not 0 <= value <= _MOST:
                raise ValueError(f"{name} of {_shown(model)} must be between 0 and {_MOST:g}, not {value}")
    tokens: Any = found.get("prompt_tokens", found.get("ptok"))
    return Graded(
        prompt=prompt.encode("utf-8", "replace").decode(),  # a lone surrogate is no text for an encoder
        **tables,
        prompt_tokens=tokens if _is_number(tokens) and 0 < tokens <= _MOST else None,
        group=str(found.get("group") or found.get("task") or ""),
    )


def _scores(found: Mapping[str, float], clip: bool) -> dict[str, float]:
    if clip:
        return {model: min(1.0, max(0.0, value)) for model, value in found.items()}
    for model, value in found.items():
        if not 0 <= value <= 1:
            raise ValueError(f"the score of {_shown(model)} must be in [0, 1], not {value}")
    return dict(found)


def _table(found: Mapping[str, Any], name: str, plain: str, models: Any) -> dict[str, float]:
    """Numbers by model, from an object or a list; what is null is left out."""
    values = found.get(name)
    if values is None:
        values = _by_model(found, plain, models)
    elif not isinstance(values, dict):
        raise ValueError(f'"{name}" must be an object of numbers by model')
    if not all(model.strip() for model in values):
        raise ValueError(f'"{name}": a model without a name')
    wrong = next((model for model, value in values.items() if value is not None and not _is_number(value)), None)
    if wrong is not None:
        raise ValueError(f"{name} of {_shown(wrong)} must be a number, not {_shown(values[wrong])}")
    return {model: float(value) for model, value in values.items() if value is not None}


def _by_model(found: Mapping[str, Any], plain: str, models: Any) -> dict[str, Any]:
    values = found.get(plain)
    if values is None:
        return {}
    if not isinstance(values, list):
        if isinstance(found.get("model"), str):
            return {found["model"]: values}
        raise ValueError(f'"{plain}" must be a list of numbers, or a number beside "model"')
    if not models or not isinstance(models, (list, tuple)) or not all(isinstance(name, str) for name in models):
        raise ValueError(f'"{plain}" is a list: name the models in models.json beside the file, or in "models"')
    if len(values) != len(models):
        raise ValueError(f'"{plain}" has {len(values)} values, but there are {len(models)} models')
    return dict(zip(models, values, strict=True))


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}") from exc


def _assembled(found: Iterable[Graded], name: str, sha256: Callable[[], str]) -> Outcomes:
    rows: dict[str, list[Graded]] = {}
    lines = chars = 0
    for one in found:
        lines += 1
        if one.prompt not in rows:
            chars += len(one.prompt)
        rows.setdefault(one.prompt, []).append(one)
        if lines > _MOST_ROWS or chars > _MOST_TEXT_CHARS:
            limit = f"{_MOST_ROWS:,} lines or {_MOST_TEXT_CHARS >> 20} Mi characters"
            raise ConfigError(f"{name} has more than {limit}: use a part of it")
    if not rows:
        raise ConfigError(f"{name} has no outcomes: each line must hold a prompt and scores")
    return _arrays(rows, lines, sha256())


def _arrays(rows: Mapping[str, Sequence[Graded]], lines: int, sha256: str) -> Outcomes:
    import numpy

    models = tuple(dict.fromkeys(name for ones in rows.values() for one in ones for name in (*one.scores, *one.tokens)))
    columns = {model: at for at, model in enumerate(models)}

    def filled(part: str) -> NDArray[np.float32]:
        total = numpy.zeros((len(rows), len(models)))
        count = numpy.zeros((len(rows), len(models)))
        for at, ones in enumerate(rows.values()):
            for one in ones:
                for model, value in getattr(one, part).items():
                    if model in columns:
                        total[at, columns[model]] += value
                        count[at, columns[model]] += 1
        return numpy.where(count > 0, total / numpy.maximum(count, 1), numpy.nan).astype(numpy.float32)

    known = [next((one.prompt_tokens for one in ones if one.prompt_tokens), None) for ones in rows.values()]
    lengths = [tokens or max(1.0, len(prompt) / CHARS_PER_TOKEN) for prompt, tokens in zip(rows, known, strict=True)]
    return Outcomes(
        models=models,
        prompts=tuple(rows),
        scores=filled("scores"),
        tokens=filled("tokens"),
        usd=filled("usd"),
        prompt_tokens=numpy.array(lengths, numpy.float32),
        groups=tuple(next((one.group for one in ones if one.group), "") for ones in rows.values()),
        lines=lines,
        sha256=sha256,
    )


def _asked(outcomes: Outcomes, name: str) -> Outcomes:
    """Only the models that have a score, where something can be learnt of them."""
    import numpy

    known = ~numpy.isnan(outcomes.scores)
    asked = [model for model, column in zip(outcomes.models, known.T, strict=True) if column.any()]
    if not asked:
        raise ConfigError(f"{name} has no score")
    if len(asked) < 2:
        raise ConfigError(f"{name} has scores of {asked[0]!r} only: a route chooses between two models or more")
    scores = outcomes.scores[known]
    if scores.min() == scores.max():
        raise ConfigError(f"{name}: every score is {scores[0]:g}: there is nothing to learn which model is good enough")
    return outcomes.of(*asked)
