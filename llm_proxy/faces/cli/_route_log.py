"""What the commands on logs of outcomes share: where heads lie, reading, encoding, prices, and figures as data."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoder
    from llm_proxy.logged import LogSource, Seen
    from llm_proxy.route.heads import OnnxHead
    from llm_proxy.route.outcomes import Outcomes
    from llm_proxy.route.train.evaluate import Encoded

__all__ = [
    "Clip", "LogFile", "ModelsFile", "Prices", "Route", "Strong", "Weak", "as_kept", "check_encoder",
    "configured_prices", "encoded", "gathered", "heads_of", "known_to", "load", "log_of", "open_encoder", "plain",
    "predictions", "prices_for", "read_log",
]  # fmt: skip

_OPENAI = "https://api.openai.com/v1"
_SAMPLE = 1000

LogFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="Outcomes: .jsonl, perhaps gzipped (.gz); otherwise the log of outcomes."),
]
Route = Annotated[str, typer.Option(metavar="NAME", help="Without a file: outcomes of this route only.")]
ModelsFile = Annotated[
    Path | None,
    typer.Option("--models", metavar="FILE", help="Names of the models of lists; else models.json beside the log."),
]
Weak = Annotated[str, typer.Option(metavar="NAME", help="The weak model; otherwise the one of the lowest mean score.")]
Strong = Annotated[str, typer.Option(metavar="NAME", help="The strong model; otherwise the one of the highest.")]
Prices = Annotated[
    str,
    typer.Option(
        metavar="NAME=IN/OUT,…",
        help="Dollars per million tokens, or a JSON file {NAME: [IN, OUT]}; otherwise the log's own, or the settings'.",
    ),
]
Clip = Annotated[bool, typer.Option("--clip", help="Take 0 or 1 for scores outside of them instead of refusing.")]


def heads_of(config: Config) -> Path:
    """The folder of heads where none is named."""
    return config.cache.directory / "heads"


def read_log(file: Path, models: Path | None, *, clip: bool) -> Outcomes:
    """The outcomes of a file; see `llm_proxy.route.outcomes`.

    Raises:
        ConfigError: It can't be used.
    """
    from llm_proxy.route.outcomes import models_of, read_outcomes

    return read_outcomes(file, models=models_of(file, models), clip=clip)


def gathered(
    config: Config, file: Path | None, models: Path | None, *, clip: bool, route: str, since_s: float = 0.0
) -> tuple[Outcomes, LogSource | None]:
    """The outcomes of a file; where none is named those of the log of outcomes, and that log.

    Raises:
        ConfigError: They can't be used.
        CacheError: The log can't be read.
    """
    if file is not None:
        return read_log(file, models, clip=clip), None
    source = log_of(config, route=route, since_s=since_s)
    return source.outcomes(), source


def log_of(config: Config, **which: Any) -> LogSource:
    """The log of outcomes of the settings; see `llm_proxy.logged.LogSource`.

    Raises:
        ConfigError: None is kept, or it holds nothing that can be used.
        CacheError: It can't be read.
    """
    from llm_proxy.learning import outcomes_path
    from llm_proxy.logged import LogSource

    path = outcomes_path(config)
    if path is None:
        raise ConfigError(
            "no outcomes are kept with these settings: name a file, or have observe.outcomes = true and "
            'cache.store = "disk"'
        )
    return LogSource(path, open_encoder(config), **which)


def as_kept(outcomes: Outcomes, seen: Seen) -> Encoded:
    """The outcomes of the log with what a head sees of their questions, which was kept."""
    from llm_proxy.route.train.evaluate import Encoded
    from llm_proxy.route.train.fit import Inputs

    return Encoded(outcomes, Inputs(seen.vectors, seen.features, seen.layers))


def open_encoder(config: Config) -> Encoder:
    """The encoder that a proxy of these settings has, loaded.

    Raises:
        LLMProxyError: It could not be loaded.
    """
    from llm_proxy.encode.lazy import build

    encoder = build(config.encoder)
    encoder.encode("")
    return encoder


def encoded(outcomes: Outcomes, encoder: Encoder) -> Encoded:
    """The prompts as a head sees them, with a bar on a terminal."""
    from llm_proxy.route.train.make import encode

    with progress("Encoding", len(outcomes)) as step:
        return encode(outcomes, encoder, step=step)


def prices_for(config: Config, outcomes: Outcomes, typed: str) -> list[tuple[float, float]] | None:
    """Prices of the models of a log: those typed; none where the log says what each answer cost; else the settings'.

    Returns:
        Of each model, dollars per million prompt tokens and answer tokens; None where one is not known.

    Raises:
        ConfigError: What was typed is wrong.
    """
    import numpy

    from llm_proxy.route.calibrate import read_prices

    if typed:
        return read_prices(typed, outcomes.models)
    if not numpy.isnan(outcomes.usd[~numpy.isnan(outcomes.scores)]).any():
        return []
    return configured_prices(config, outcomes.models)


def configured_prices(config: Config, models: Sequence[str]) -> list[tuple[float, float]] | None:
    """Prices by the settings and the price library, of ``MODEL`` or ``BACKEND/MODEL``; None where one is not known."""
    from llm_proxy.backends.prices import Prices
    from llm_proxy.types import Usage

    book = Prices(config.backends)
    found = []
    for name in models:
        backend, model = _at(config, name)
        base_url = "" if backend else _OPENAI
        asked = book.quote_usd(Usage(_SAMPLE, 0), model=model, backend=backend, base_url=base_url)
        both = book.quote_usd(Usage(_SAMPLE, _SAMPLE), model=model, backend=backend, base_url=base_url)
        if asked is None or both is None:
            return None
        found.append((asked * 1_000_000 / _SAMPLE, (both - asked) * 1_000_000 / _SAMPLE))
    return found


def load(directory: Path) -> OnnxHead:
    """The head in use of a folder of heads, or the head in a folder; ``shipped`` is the one that ships.

    Raises:
        LLMProxyError: There is none, or it can't be loaded.
    """
    from llm_proxy.route.heads import OnnxHead
    from llm_proxy.route.tiers import SHIPPED, shipped_head
    from llm_proxy.route.versions import current_version

    return OnnxHead(shipped_head() if directory == Path(SHIPPED) else current_version(directory))


def predictions(
    head: OnnxHead, encoder: Encoder, texts: Sequence[str], step: Callable[[int], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a head says of some questions.

    Returns:
        ``p_good``, shape ``(n, M)``, float32; and ``log_tokens``, of the same shape, natural logarithm of the length,
        NaN where it says nothing of lengths.

    Raises:
        ConfigError: The head reads vectors of another encoder.
        LLMProxyError: The encoder or the head could not run.
    """
    import numpy

    check_encoder(head, encoder)
    p_good, log_tokens = [], []
    for done, text in enumerate(texts, 1):
        found = head.predict(text, encoder.encode(text))
        lengths = [found[model].completion_tokens for model in head.models]
        p_good.append([found[model].p_good for model in head.models])
        log_tokens.append([math.nan if length is None else math.log1p(length) for length in lengths])
        step(done)
    return numpy.array(p_good, numpy.float32), numpy.array(log_tokens, numpy.float32)


def check_encoder(head: OnnxHead, encoder: Encoder) -> None:
    """Refuse a head that reads vectors of another model than the settings' encoder makes, as the proxy does.

    Raises:
        ConfigError: It does.
    """
    from llm_proxy.route.lazy import same_model

    if not same_model(head.encoder, encoder.name):
        raise ConfigError(
            f"the head {head.name} reads vectors of {head.encoder}, but the settings have the encoder {encoder.name}: "
            "train one for it"
        )


def known_to(models: Sequence[str], candidate: str, known_as: str | None = None) -> str:
    """What a head calls a candidate; see `llm_proxy.route.plan.name_in`.

    Raises:
        ConfigError: The head does not know it.
    """
    from llm_proxy.route.plan import name_in

    found = name_in(models, candidate, known_as)
    if found is None:
        raise ConfigError(
            f"the head knows nothing of {candidate!r}; it knows {', '.join(models)}: say which of them it is, in "
            "routes.NAME.known_as"
        )
    return found


def plain(value: Any) -> Any:
    """Figures as JSON takes them: what is no number becomes null; arrays and files are left out."""
    if is_dataclass(value):
        pairs = {one.name: getattr(value, one.name) for one in fields(value)}
        return {name: plain(one) for name, one in pairs.items() if not hasattr(one, "shape") and name != "files"}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _at(config: Config, name: str) -> tuple[str, str]:
    """The backend that serves a model, empty where the settings name none, and the model."""
    prefix, _, rest = name.partition("/")
    if rest and prefix in config.backends:
        return prefix, rest
    candidates = [candidate for route in config.routes.values() for candidate in route.candidates]
    places = [backend for backend, _, model in (one.partition("/") for one in candidates) if model == name]
    places += [backend for backend, settings in config.backends.items() if name in {*settings.models, *settings.prices}]
    return next(iter(places), config.default_backend or next(iter(config.backends), "")), name
