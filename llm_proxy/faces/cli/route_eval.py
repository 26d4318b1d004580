"""``llm-proxy route eval``: what a head is worth on a log of outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError

from ._progress import progress
from ._route_log import (
    Clip,
    LogFile,
    ModelsFile,
    Prices,
    Route,
    Strong,
    Weak,
    gathered,
    heads_of,
    load,
    open_encoder,
    plain,
    predictions,
    prices_for,
)  # fmt: skip
from ._route_tables import show_choice, show_models, show_pair
from ._shared import Json, emit, say, settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.config import Config
    from llm_proxy.logged import LogSource
    from llm_proxy.route.heads import OnnxHead
    from llm_proxy.route.outcomes import Outcomes

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    file: LogFile = None,
    *,
    models: ModelsFile = None,
    weak: Weak = "",
    strong: Strong = "",
    head: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the head; otherwise heads in cache.directory.")
    ] = None,
    prices: Prices = "",
    clip: Clip = False,
    route: Route = "",
    as_json: Json = False,
) -> None:
    """Measure a head on a log of outcomes that it was not trained on.

    Shown are APGR and CPT of the choice between two models beside the length
    of the prompt and chance, how well each model's answers are foreseen, and
    what choosing among all models would have scored and cost. Models that the
    head does not know are left out. The form of the log is that of route train.
    Without a file it is what the proxy kept of calls since the head was trained.

    Examples:
        llm-proxy route eval
        llm-proxy route eval outcomes.jsonl
        llm-proxy route eval later.jsonl --head heads --prices gpt-4o-mini=0.15/0.6,gpt-4o=2.5/10
    """
    config = settings(context)
    place = head or heads_of(config)
    since_s = _trained_until_s(place) if file is None else 0.0
    outcomes, source = gathered(config, file, models, clip=clip, route=route, since_s=since_s)
    found = load(place)
    known = [name for name in outcomes.models if name in found.models]
    if len(known) < 2:
        raise ConfigError(
            f"the head knows {', '.join(found.models)}; the log is of {', '.join(outcomes.models)}: two models must be "
            "in both"
        )
    outcomes = outcomes.of(*known)
    priced = prices_for(config, outcomes, prices)
    columns = [found.models.index(name) for name in known]
    p_good, log_tokens = _said(config, found, outcomes, source)
    p_good, log_tokens = p_good[:, columns], log_tokens[:, columns]

    from llm_proxy.route.train.choice import choice_of
    from llm_proxy.route.train.make import ends
    from llm_proxy.route.train.measure import model_figures, pair_figures

    pair = pair_figures(outcomes, p_good, *ends(outcomes, weak, strong))
    each = model_figures(outcomes, p_good, log_tokens)
    choice = None if priced is None else choice_of(outcomes, p_good, log_tokens, priced)
    has_learnt = outcomes.sha256 == _trained_on(place)
    if as_json:
        emit(
            {
                "head": found.name,
                "is_trained_on_this": has_learnt,
                **plain({"pair": pair, "models": each, "choice": choice}),
            }
        )
        return
    show_pair(pair)
    show_models(each)
    if choice:
        show_choice(choice)
    if has_learnt:
        say("The head learnt from this very file: these figures flatter it. Those of card.md do not.")


def _said(
    config: Config, head: OnnxHead, outcomes: Outcomes, source: LogSource | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the head says of the questions: by what was kept of them, or encoded here."""
    if source is not None:
        seen = source.seen()
        return head.predict_many(seen.vectors, seen.features, seen.layers)
    with progress("Encoding", len(outcomes)) as step:
        return predictions(head, open_encoder(config), outcomes.prompts, step)


def _trained_on(directory: Path) -> str:
    """SHA-256 of the log that a head learnt from; empty where it does not say."""
    return str(_origin(directory).get("sha256", ""))


def _trained_until_s(directory: Path) -> float:
    """Unix time of the last call that a head learnt from; 0 where it learnt from a file."""
    return float(_origin(directory).get("until_s", 0.0))


def _origin(directory: Path) -> dict[str, Any]:
    import json

    from llm_proxy.route.versions import current_version

    settings = json.loads((current_version(directory) / "config.json").read_bytes())
    return dict(settings.get("trained_on", {}))
