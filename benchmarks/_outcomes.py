"""What the benchmarks of routers share: outcomes split in two, and the vectors of their prompts."""

from __future__ import annotations

import hashlib
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import LLMProxyError
from llm_proxy.route.outcomes import models_of, read_outcomes
from llm_proxy.route.train.evaluate import Encoded, features_of
from llm_proxy.route.train.fit import Inputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OPTIONS", "asked_all", "entry_of", "finite", "is_held_out", "known_lengths", "sides"]

OPTIONS: dict[str, tuple[Any, ...]] = {
    "train": (
        Path,
        None,
        "outcomes to learn from: .jsonl, also .gz, with prompt, score and otok, or scores and tokens",
    ),
    "test": (Path, None, "outcomes to measure on; without it a fifth of --train, which is then not learnt from"),
    "models": (Path, None, "models.json that names the models of the lists; else the one beside each file"),
    "vectors_cache": (Path, None, "folder that keeps the vectors for the next run"),
}


def entry_of(options: Namespace, models: str) -> str:
    """What a run is called among others in the file of record: the folder of its data, and the models."""
    file = options.train or options.test
    folder = file.resolve().parent.name if file is not None else ""
    return f"{folder}: {models}"


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is among the fifth that no benchmark learns from: by its SHA-256."""
    return int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16) % 5 == 0


def sides(options: Namespace, *, lengths_only: bool = False) -> tuple[Encoded, Encoded]:
    """What to learn from and what to measure on.

    Args:
        options: With those of `OPTIONS`.
        lengths_only: Lines without scores will do.

    Returns:
        Both; nothing to learn from where the head that ships is measured on ``--test`` alone.

    Raises:
        SystemExit: A file can't be used.
    """
    import numpy

    if options.train is None and options.test is not None and getattr(options, "shipped", False) is not False:
        test = _encoded(options.test, options, lengths_only)
        return test.rows(numpy.zeros(0, numpy.intp)), test
    if options.train is None:
        sys.exit("name a file of outcomes: --train FILE")
    train = _encoded(options.train, options, lengths_only)
    if options.test is not None:
        return train, _encoded(options.test, options, lengths_only)
    held = numpy.array([is_held_out(prompt) for prompt in train.outcomes.prompts])
    if held.all() or not held.any():
        sys.exit(f"{options.train} has too few prompts to hold some out: name --test FILE")
    return train.rows(numpy.flatnonzero(~held)), train.rows(numpy.flatnonzero(held))


def asked_all(side: Encoded, *models: str) -> Encoded:
    """Some models only, and the rows in which each of them has a score.

    Raises:
        SystemExit: A model is not there, or no row has all.
    """
    try:
        outcomes = side.outcomes.of(*models)
    except LLMProxyError as exc:
        sys.exit(str(exc))
    rows = outcomes.asked()
    if not len(rows):
        sys.exit(f"no row has scores of {' and '.join(models)}")
    return Encoded(outcomes, side.inputs).rows(rows)


def known_lengths(side: Encoded, model: str) -> Encoded:
    """The rows in which the length of the model's answer is known."""
    import numpy

    return side.rows(numpy.flatnonzero(~numpy.isnan(side.outcomes.of(model).tokens[:, 0])))


def finite(value: Any) -> Any:
    """Figures as JSON takes them: null for what is no number, e.g. an APGR where there is no gap to recover."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encoded(path: Path, options: Namespace, lengths_only: bool) -> Encoded:
    try:
        models = models_of(path, options.models)
        outcomes = read_outcomes(path, models=models, clip=True, lengths_only=lengths_only)
        vectors, layers = _vectors(outcomes.prompts, options.vectors_cache)
    except LLMProxyError as exc:
        sys.exit(str(exc))
    return Encoded(outcomes, Inputs(vectors, features_of(outcomes.prompts), layers))


def _vectors(prompts: tuple[str, ...], folder: Path | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors and means of inner layers."""
    import numpy

    encoder = OnnxEncoder()
    name = hashlib.sha256("\0".join([encoder.name, *prompts]).encode()).hexdigest()[:24]
    file = folder / f"{name}.npz" if folder is not None else None
    if file is not None and file.is_file():
        with numpy.load(file, allow_pickle=False) as kept:
            return kept["vectors"], kept["layers"]
    vectors, layers = encoder.encode_layers(prompts)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        numpy.savez(file, vectors=vectors, layers=layers)
    return vectors, layers
