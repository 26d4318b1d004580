"""From a log of outcomes to a head: measured, learnt from all rows, exported, with its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llm_proxy.errors import ConfigError, MissingDependencyError
from llm_proxy.route.features import FEATURES
from llm_proxy.route.heads import FORMAT, HeadConfig
from llm_proxy.route.metrics import Bin

from .card import Origin, card
from .choice import Choice, choice_of
from .evaluate import Encoded, features_of
from .export import to_onnx
from .fit import Inputs
from .measure import LEAST_ROWS, Measured, both_asked, measure
from .plot import reliability_svg
from .prior import shipped_prior

if TYPE_CHECKING:
    from llm_proxy.encode.base import Encoder
    from llm_proxy.route.outcomes import Outcomes

__all__ = ["Made", "encode", "ends", "head_files", "make", "ready"]

_EVERY = 16
_LEAST_ASKED = 20


@dataclass(frozen=True, slots=True)
class Made:
    """A head that is ready to be written.

    Attributes:
        measured: What it is worth.
        choice: What choosing among all models is worth; None where no prices are known.
        files: Contents by name: ``model.onnx``, ``config.json``, ``card.md``, ``reliability.svg``.
    """

    measured: Measured
    choice: Choice | None
    files: dict[str, bytes]


def encode(outcomes: Outcomes, encoder: Encoder, *, step: Callable[[int], None] = lambda done: None) -> Encoded:
    """What a head sees of the prompts; a long one is cut by the encoder.

    Args:
        outcomes: ``n`` rows.
        encoder: That of the proxy that will use the head.
        step: Called with the number of prompts that are done.

    Raises:
        LLMProxyError: The encoder could not load or run.
    """
    import numpy

    vectors, layers = [], []
    for done, prompt in enumerate(outcomes.prompts, 1):
        encoding = encoder.encode(prompt)
        vectors.append(encoding.vector)
        layers.append(() if encoding.layers is None else encoding.layers)
        if done % _EVERY == 0 or done == len(outcomes):
            step(done)
    inner = numpy.array(layers, numpy.float32).reshape(len(layers), -1)
    made = Inputs(numpy.array(vectors, numpy.float32), features_of(outcomes.prompts), inner)
    prior = shipped_prior(encoder.name, dim=made.vectors.shape[-1], layers=inner.shape[1])
    return Encoded(outcomes, made, prior)


def ends(outcomes: Outcomes, weak: str = "", strong: str = "") -> tuple[str, str]:
    """The two models whose choice is measured: those that were named, else those of the lowest and highest mean score.

    Args:
        outcomes: ``n`` rows, two models or more.
        weak: Name, or empty.
        strong: Name, or empty.

    Raises:
        ConfigError: A name is not among the models, or both are one.
    """
    import numpy

    outcomes.of(*(name for name in (weak, strong) if name))
    total = numpy.nansum(outcomes.scores, axis=0)
    count = (~numpy.isnan(outcomes.scores)).sum(axis=0)
    asked = {name: n for name, n in zip(outcomes.models, count.tolist(), strict=True) if n}
    often = [name for name, n in asked.items() if n >= _LEAST_ASKED]  # one that was asked twice may have any mean
    order = sorted(
        (name for name in (often if len(often) > 1 else asked) if name not in (weak, strong)),
        key=lambda name: float(total[outcomes.models.index(name)] / count[outcomes.models.index(name)]),
    )
    weak = weak or (order.pop(0) if order else "")
    strong = strong or (order.pop() if order else "")
    if not weak or not strong or weak == strong:
        raise ConfigError("two different models are needed: name the weak and the strong one")
    return weak, strong


def ready(outcomes: Outcomes, weak: str = "", strong: str = "") -> tuple[str, str]:
    """Whether a head can be made of a log at all, asked before its prompts are encoded.

    Args:
        outcomes: ``n`` rows.
        weak: Name of the weak model; see `ends`.
        strong: Name of the strong one.

    Returns:
        The names of both.

    Raises:
        ConfigError: There are too few rows, or a model is not among the outcomes, or no prompt was put to both.
        MissingDependencyError: The extra ``train`` is not installed.
    """
    for package in ("onnx", "sklearn"):
        if find_spec(package) is None:
            raise MissingDependencyError(f'training needs {package}: pip install "llm-proxy[train]"')
    if len(outcomes) < LEAST_ROWS:
        raise ConfigError(f"{len(outcomes)} different prompts are too few to learn from: {LEAST_ROWS} are the least")
    weak, strong = ends(outcomes, weak, strong)
    both = len(both_asked(outcomes, weak, strong))
    if both < LEAST_ROWS:
        raise ConfigError(
            f"only {both} prompts have scores of both {weak} and {strong}, too few to measure by: {LEAST_ROWS} are the "
            "least; routes.NAME.compare_share asks two models the same"
        )
    return weak, strong


def make(
    log: Encoded,
    origin: Origin,
    *,
    weak: str = "",
    strong: str = "",
    prices: Sequence[tuple[float, float]] | None = None,
    folds: int = 5,
    step: Callable[[int], None] = lambda done: None,
) -> Made:
    """Measure and make a head.

    Args:
        log: What to learn from.
        origin: What the card says of how it was made.
        weak: Name of the weak model; see `ends`.
        strong: Name of the strong one.
        prices: Of each model, dollars per million prompt tokens and answer tokens; none for what the log says itself;
            None where neither is known.
        folds: Of the cross-validation, > 1.
        step: Called with the number of rounds done, of ``2 * folds + 1`` at most.

    Raises:
        ConfigError: Too little can be learnt from the log, or a model is not in it.
        MissingDependencyError: The extra ``train`` is not installed.
    """
    weak, strong = ready(log.outcomes, weak, strong)
    measured = measure(log, weak, strong, folds=folds, step=step)
    choice = None
    if prices is not None:
        choice = choice_of(log.outcomes, measured.p_good, measured.log_tokens, prices)
    bins: dict[str, Sequence[Bin]] = {one.model: one.bins for one in measured.models}
    files = {
        **head_files(log, name=origin.name, encoder=origin.encoder, until_s=origin.until_s),
        "card.md": card(origin, log.outcomes, measured, choice, prior=log.prior.name if log.prior else "").encode(),
        "reliability.svg": reliability_svg(bins).encode(),
    }
    step(2 * folds + 1)
    return Made(measured, choice, files)


def head_files(
    log: Encoded, *, name: str, encoder: str, models: Sequence[str] = (), until_s: float = 0.0
) -> dict[str, bytes]:
    """Learn from all rows, and give what the folder of a head must hold: ``model.onnx`` and ``config.json``.

    Args:
        log: What to learn from.
        name: Of the head.
        encoder: Identity of the encoder that made the vectors.
        models: Whom the head is to know; none for all models of the log that were asked 20 times or more. Of others
            nothing can be learnt, and a route that has one as a candidate goes by the rules.
        until_s: Unix time of the last call of the log of outcomes; 0 for a file.

    Raises:
        MissingDependencyError: The extra ``train`` is not installed.
    """
    fitted = log.fit(models or _often_asked(log.outcomes))
    dim, layers = log.inputs.vectors.shape[1], log.inputs.layers.shape[1]
    graph = to_onnx(fitted, dim=dim, layers=layers)
    config = HeadConfig(
        name=name,
        encoder=encoder,
        dim=dim,
        layers=layers,
        features=FEATURES,
        models=fitted.models,
        graph="model.onnx",
        sha256=hashlib.sha256(graph).hexdigest(),
    )
    source = {"sha256": log.outcomes.sha256, "rows": len(log.outcomes), **({"until_s": until_s} if until_s else {})}
    settings = {"format": FORMAT, **asdict(config), "trained_on": source}
    return {"model.onnx": graph, "config.json": (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()}


def _often_asked(outcomes: Outcomes) -> tuple[str, ...]:
    import numpy

    asked = (~numpy.isnan(outcomes.scores)).sum(axis=0)
    often = tuple(name for name, times in zip(outcomes.models, asked.tolist(), strict=True) if times >= _LEAST_ASKED)
    return often or outcomes.models
