"""How well the scorer tells right answers of cheap models from wrong ones: ``python -m benchmarks.answers``.

``--responses`` are files of answers (``id``, ``model``, ``correct``, ``response``), ``--rows`` those of their questions
(``id``, ``prompt``, and perhaps ``task`` or ``group``); by default ``rows.jsonl.gz`` beside each. The shipped scorer is
asked with both vectors of the shipped encoder, where it knows that one (``has_vectors``), as in a cascade. It was
trained on some files: only on others do its figures mean anything. Its card tells which, and what a split inside them
gave.

``auc`` is the area under the ROC curve; beside it ``auc_question``, what the question alone tells (a ridge over its
vector for each model, fitted on four fifths of the questions and asked about the fifth, in turn), and ``auc_length``,
short answers first. ``calibration_error`` is the mean distance between what was said and what was right, by tenths.
``kept`` and ``right_kept`` belong to the bars of ``bars``. With ``--strong`` and ``models.json`` beside the rows they
become a cascade: ``accuracy`` where that model answers what is given up, ``strong_share`` how often it is asked.

Times are of one thread, ms: ``vector_p50`` (the encoder's pass over an answer), ``features_p50``, ``graph_p50``.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import LLMProxyError
from llm_proxy.route.answers import features
from llm_proxy.route.base import Reply
from llm_proxy.route.scorer import AnswerScorer

from ._report import arguments, report
from ._served import encode_all, shipped_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.encode.lazy import LazyEncoder

__all__ = ["Marked", "auc", "by_question", "main", "measure", "read"]

BARS = (0.5, 0.6, 0.7, 0.8, 0.9)
_FOLDS, _RIDGE, _TIMED = 5, 10.0, 200


@dataclass(frozen=True, slots=True)
class Marked:
    """An answer with its mark; ``strong`` is the score of the strong model on the same question, where it is known."""

    prompt: str
    model: str
    task: str
    response: str
    is_right: bool
    strong: float | None = None


def main() -> None:
    """Run and report."""
    options = arguments(
        "answers",
        __doc__,
        responses=(Path, [], "files of answers with marks, .jsonl, also .gz", "+"),
        rows=(Path, [], "files of their questions; by default rows.jsonl.gz beside each file of answers", "+"),
        strong=(str, "", "model of models.json that answers what is given up"),
        limit=(int, 0, "answers to take from each file; 0: all"),
    )
    if not options.responses:
        sys.exit("--responses: name at least one file")
    files = [(path, read(path, options)) for path in options.responses]
    try:
        encoder, scorer = shipped_encoder(), AnswerScorer()
        found = [{"file": f"{path.parent.name}/{path.name}", **measure(rows, encoder, scorer)} for path, rows in files]
    except LLMProxyError as exc:
        sys.exit(str(exc))
    figures = {"files": found, "scorer": scorer.name, "encoder": encoder.name, "strong": options.strong}
    report("answers", figures, options, table=_table(found))


def read(path: Path, options: Namespace) -> list[Marked]:
    """The answers of a file.

    Raises:
        SystemExit: A file can't be read, or a question is missing.
    """
    try:
        asked = {row["id"]: row for source in options.rows or [path.parent / "rows.jsonl.gz"] for row in _lines(source)}
        strong = _strong(path, options)
        found = [_marked(line, asked[line["id"]], strong) for line in _lines(path)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise SystemExit(f"{path} can't be read: {exc!r}") from exc
    if len(found) < 2:
        raise SystemExit(f"{path} has no two answers")
    return found[: options.limit or None]


def measure(rows: list[Marked], encoder: LazyEncoder, scorer: AnswerScorer) -> dict[str, Any]:
    """All figures of one file."""
    import numpy

    vectors = encode_all((text for row in rows for text in (row.prompt, row.response)), encoder)
    has_vectors = encoder.name in scorer.encoders

    def scored(row: Marked) -> float:
        both = {"asked": vectors[row.prompt].vector, "said": vectors[row.response].vector} if has_vectors else {}
        return scorer.score(row.prompt, Reply(row.response), **both)

    said = numpy.array([scored(row) for row in rows])
    is_right = numpy.array([row.is_right for row in rows])
    scores = {"": said, "_question": by_question(rows, vectors, is_right)}
    scores["_length"] = numpy.array([-len(row.response) for row in rows], float)

    def areas(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        found = {f"auc{name}": auc(is_right[chosen], score[chosen]) for name, score in scores.items()}
        return {"n": int(chosen.sum()), "right": float(is_right[chosen].mean()), **found}

    groups = {
        kind: {name: areas(numpy.array([getattr(row, kind) == name for row in rows])) for name in names}
        for kind, names in (("model", {row.model: 0 for row in rows}), ("task", {row.task: 0 for row in rows}))
    }
    return {
        **areas(numpy.ones(len(rows), bool)),
        "has_vectors": has_vectors,
        "models": groups["model"],
        "tasks": groups["task"],
        "calibration_error": _calibration_error(said, is_right),
        "bars": [_at(bar, rows, said, is_right) for bar in BARS],
        **_times(rows[:_TIMED], encoder, scorer),
    }


def auc(is_right: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, ties counted half; None where all are right, or none.

    Source: Mann and Whitney, "On a test of whether one of two random variables is stochastically larger", 1947.
    """
    import numpy

    _, place, count = numpy.unique(score, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(count) - (count - 1) / 2)[place]
    right = int(is_right.sum())
    wrong = len(is_right) - right
    if not right or not wrong:
        return None
    return float((ranks[is_right].sum() - right * (right + 1) / 2) / (right * wrong))


def by_question(rows: list[Marked], vectors: dict[str, Any], is_right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What the questions alone tell: a ridge for each model, never asked about a question that it was fitted on."""
    import numpy

    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    fold = numpy.array([places[row.prompt] % _FOLDS for row in rows])
    models = numpy.array([row.model for row in rows])
    x = numpy.array([vectors[row.prompt].vector for row in rows], float)
    found = numpy.full(len(rows), float(is_right.mean()))
    for model in dict.fromkeys(models):
        for held in range(_FOLDS):
            known, other = (models == model) & (fold != held), (models == model) & (fold == held)
            if known.any() and other.any():
                mean, base = x[known].mean(axis=0), is_right[known].mean()
                a = x[known] - mean
                weights = numpy.linalg.solve(a.T @ a + _RIDGE * numpy.eye(a.shape[1]), a.T @ (is_right[known] - base))
                found[other] = (x[other] - mean) @ weights + base
    return found


def _calibration_error(said: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    import numpy

    tenth = numpy.minimum((said * 10).astype(int), 9)
    parts = [tenth == place for place in numpy.unique(tenth)]
    return float(sum(part.mean() * abs(said[part].mean() - is_right[part].mean()) for part in parts))


def _at(bar: float, rows: list[Marked], said: NDArray[np.float64], is_right: NDArray[np.bool_]) -> dict[str, Any]:
    kept = said >= bar
    found: dict[str, Any] = {"bar": bar, "kept": float(kept.mean())}
    found["right_kept"] = float(is_right[kept].mean()) if kept.any() else None
    if all(row.strong is not None for row in rows):
        strong = [float(row.strong or 0.0) for row in rows]
        final = [own if keep else other for own, other, keep in zip(is_right, strong, kept, strict=True)]
        found |= {"accuracy": statistics.fmean(final), "strong_share": 1.0 - found["kept"]}
        found["accuracy_strong"] = statistics.fmean(strong)
    return found


def _times(rows: list[Marked], encoder: LazyEncoder, scorer: AnswerScorer) -> dict[str, float]:
    vector = encoder.encode("").vector

    def whole(row: Marked) -> object:
        return scorer.score(row.prompt, Reply(row.response), asked=vector, said=vector)

    features_p50 = _p50(rows, lambda row: features(row.prompt, Reply(row.response)))
    return {
        "vector_p50": _p50(rows, lambda row: encoder.encode(row.response)),
        "features_p50": features_p50,
        "graph_p50": _p50(rows, whole) - features_p50,
    }


def _p50(rows: list[Marked], do: Callable[[Marked], object]) -> float:
    took = []
    for row in rows:
        started_s = time.perf_counter()
        do(row)
        took.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(took)


def _table(found: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    yield "", "n", "right", "AUC", "question alone", "length alone"
    for file in found:
        for name, row in ((file["file"], file), *file["models"].items(), *file["tasks"].items()):
            yield name, row["n"], *(_shown(row[key]) for key in ("right", "auc", "auc_question", "auc_length"))
        yield "calibration error", "", "", _shown(file["calibration_error"])
        yield "ms: vector, features, graph", *(_shown(file[f"{part}_p50"]) for part in ("vector", "features", "graph"))
        for at in file["bars"]:
            cells = [f"{name} {_shown(value)}" for name, value in at.items() if name != "bar"]
            yield (f"bar {at['bar']}", *cells)
        if not file["has_vectors"]:
            yield ("without vectors: the scorer was trained on those of another encoder",)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _strong(path: Path, options: Namespace) -> int | None:
    """The place of the strong model among the scores."""
    if not options.strong:
        return None
    beside = (options.rows or [path])[0].parent / "models.json"
    names: list[str] = json.loads(beside.read_text(encoding="utf-8"))["models"]
    if options.strong not in names:
        sys.exit(f"--strong {options.strong}: {beside} has no such model")
    return names.index(options.strong)


def _marked(line: dict[str, Any], asked: dict[str, Any], strong: int | None) -> Marked:
    score = None if strong is None else asked["score"][strong]
    task = str(asked.get("group") or asked.get("task") or "")
    return Marked(asked["prompt"], line["model"], task, line["response"], bool(line["correct"]), score)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


if __name__ == "__main__":
    main()
