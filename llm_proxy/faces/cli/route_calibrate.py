"""``llm-proxy route calibrate``: the tolerance that does what one wants to reference traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_proxy.errors import ConfigError

from ._entries import opened
from ._format import amount, share
from ._progress import progress
from ._route_log import (
    Prices,
    check_encoder,
    configured_prices,
    heads_of,
    known_to,
    load,
    log_of,
    open_encoder,
    plain,
    predictions,
)
from ._route_tables import number, show_rows
from ._shared import Json, emit, settings, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.config import Config
    from llm_proxy.route.calibrate import Calibrated, Setting
    from llm_proxy.route.heads import OnnxHead

    _Said = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

__all__ = ["calibrate"]


_StrongShare = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Share of calls for the strongest candidate.")
]
_QualityOfBest = Annotated[
    float | None, typer.Option(min=0.01, max=1, metavar="SHARE", help="Share of the best candidate's quality to keep.")
]
_Log = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Reference traffic, .jsonl with prompts; otherwise the cached questions."),
]
_FromLog = Annotated[
    bool, typer.Option("--from-log", help="Reference traffic: the calls that the log of outcomes keeps.")
]
_Route = Annotated[str, typer.Option(metavar="NAME", help="The route; the first one when there is no auto.")]
_Head = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the head, or shipped; otherwise the route's own.")
]
_Limit = Annotated[int, typer.Option(min=1, metavar="N", help="Most questions to look at, evenly drawn.")]


def calibrate(
    context: typer.Context,
    *,
    strong_share: _StrongShare = None,
    quality_of_best: _QualityOfBest = None,
    log: _Log = None,
    from_log: _FromLog = False,
    route: _Route = "",
    head: _Head = None,
    prices: Prices = "",
    limit: _Limit = 2_000,
    as_json: Json = False,
) -> None:
    """Find the setting of a route that gives a share of strong calls, or keeps a share of the quality.

    A route asks the cheapest candidate whose probability of a good answer is
    at least quality times that of the best one; or, where usd_per_good_answer
    is set, the one whose good answers are worth the most after costs. What a
    value does depends on the questions: it is tried on reference traffic, by
    the head's own predictions. Nobody is asked.

    Examples:
        llm-proxy route calibrate --strong-share 0.3
        llm-proxy route calibrate --quality-of-best 0.95 --log outcomes.jsonl
        llm-proxy route calibrate --quality-of-best 0.95 --from-log
    """
    if (strong_share is None) == (quality_of_best is None):
        raise ConfigError("say one of --strong-share and --quality-of-best")
    config = settings(context)
    name = _name_of(config, route)
    found = load(head or _own_head(config, name))
    candidates = _candidates(config, name, found.models)
    own = name if name in config.routes else ""
    said = _said_of_log(config, found, own, limit) if from_log else _said_of_texts(config, found, log, limit)
    p_good, usd = _of_candidates(config, found, (name, candidates), said, prices)
    ways, questions = _ways(p_good, usd, strong_share, quality_of_best), len(said[-1])
    if as_json:
        found_by = {one.setting: plain(one) for one in ways}
        emit({"route": name, "candidates": list(candidates), "questions": questions, **found_by})
    else:
        _show(name, candidates, questions, ways, _head_line(config, name, head))


def _of_candidates(
    config: Config, head: OnnxHead, asked: tuple[str, Sequence[str]], said: _Said, prices: str
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Of the candidates of a route, for each question: how probable a good answer is, and what it costs."""
    from llm_proxy.route.plan import names_in

    (name, candidates), (p_good, log_tokens, chars) = asked, said
    called = config.routes[name].known_as if name in config.routes else {}
    pairs = zip(candidates, names_in(head.models, candidates, called), strict=True)
    columns = [head.models.index(known_to(head.models, one, name)) for one, name in pairs]
    return p_good[:, columns], _usd(config, candidates, chars, log_tokens[:, columns], prices)


def _ways(
    p_good: NDArray[np.float32], usd: NDArray[np.float64], strong_share: float | None, quality_of_best: float | None
) -> list[Calibrated]:
    """What each setting has to be."""
    from llm_proxy.route.calibrate import for_score, for_share

    # Where all is free, what a good answer is worth decides nothing.
    settings_of: tuple[Setting, ...] = ("quality", "usd_per_good_answer") if usd.any() else ("quality",)
    if strong_share is not None:
        return [for_share(p_good, usd, strong_share, by) for by in settings_of]
    return [for_score(p_good, usd, quality_of_best or 1.0, by) for by in settings_of]


def _head_line(config: Config, route: str, head: Path | None) -> list[str]:
    """The setting without which the route would be decided by another head than the one that was looked at."""
    if head is None or head.absolute() == _own_head(config, route).absolute():
        return []
    return [f"head = {json.dumps(str(head), ensure_ascii=False)}"]


def _show(
    name: str, candidates: Sequence[str], questions: int, ways: Sequence[Calibrated], settings_before: Sequence[str]
) -> None:
    heads = ("", *(f"{one.setting} = {one.value:g}" for one in ways))
    rows = [(f"calls to {one}", *(f"{way.shares[at]:.1%}" for way in ways)) for at, one in enumerate(candidates)]
    rows.append(("good answers a call, foreseen", *(number(way.score) for way in ways)))
    rows.append(("  of the best candidate's", *(share(way.score, way.best_score) for way in ways)))
    rows.append(("  of its cost", *(share(way.usd, way.best_usd) for way in ways)))
    show_rows(heads, rows, title=f"By {amount(questions)} questions")
    lines = [f"[routes.{name}]", *settings_before, f"quality = {ways[0].value:g}"]
    lines += [f"# or: {way.setting} = {way.value:g}" for way in ways[1:]]
    typer.echo(visible("\n" + "\n".join(lines), keep_lines=True))


def _name_of(config: Config, route: str) -> str:
    """The route that is looked at; ``auto`` without any."""
    if route and route not in config.routes:
        raise ConfigError(f"there is no route {route!r}; there is {', '.join(config.routes) or 'none'}")
    return route or ("auto" if "auto" in config.routes else next(iter(config.routes), "auto"))


def _own_head(config: Config, route: str) -> Path:
    """The folder of the head that decides for a route."""
    own = config.routes[route].head if route in config.routes else ""
    return Path(own).expanduser() if own else heads_of(config)


def _candidates(config: Config, route: str, models: tuple[str, ...]) -> tuple[str, ...]:
    """The route's candidates; without any route, all that the head knows."""
    if route not in config.routes:
        return models
    candidates = config.routes[route].candidates
    if len(candidates) < 2:
        raise ConfigError(f"route {route!r} has one candidate only: add another to routes.{route}.candidates")
    return candidates


def _said_of_texts(config: Config, head: OnnxHead, log: Path | None, limit: int) -> _Said:
    """What a head says of texts, and how long these are."""
    import numpy

    texts = _sampled(_texts(config, log), limit)
    with progress("Encoding", len(texts)) as step:
        p_good, log_tokens = predictions(head, open_encoder(config), texts, step)
    return p_good, log_tokens, numpy.array([len(text) for text in texts], numpy.float32)


def _said_of_log(config: Config, head: OnnxHead, route: str, limit: int) -> _Said:
    """What a head says of the questions that the log of outcomes keeps, and how long these are."""
    source = log_of(config, route=route, only_graded=False)
    check_encoder(head, source.encoder)
    seen = source.seen(limit)
    return *head.predict_many(seen.vectors, seen.features, seen.layers), seen.chars


def _texts(config: Config, log: Path | None) -> list[str]:
    if log is not None:
        from llm_proxy.route.traffic import read_prompts

        return read_prompts(log)
    from llm_proxy.cache.entry import readable

    with opened(config) as store:
        entries = (readable(stored.record) for stored in store.scan()) if store is not None else ()
        texts = list(dict.fromkeys(entry.text for entry in entries if entry is not None and entry.text.strip()))
    if not texts:
        raise ConfigError("no question is cached yet: name reference traffic with --log FILE")
    return texts


def _sampled(texts: list[str], limit: int) -> list[str]:
    """At most so many, evenly out of all."""
    return texts if len(texts) <= limit else [texts[at * len(texts) // limit] for at in range(limit)]


def _usd(
    config: Config,
    candidates: Sequence[str],
    chars: NDArray[np.float32],
    log_tokens: NDArray[np.float32],
    typed: str,
) -> NDArray[np.float64]:
    """What each candidate is expected to cost for each question."""
    import numpy

    from llm_proxy.route.calibrate import USUAL_TOKENS, expected_usd, read_prices
    from llm_proxy.types import CHARS_PER_TOKEN

    known = read_prices(typed, candidates) if typed else configured_prices(config, candidates)
    if known is None:
        raise ConfigError("not all prices are known: give them with --prices NAME=IN/OUT,… or backends.NAME.prices")
    lengths = numpy.where(numpy.isnan(log_tokens), USUAL_TOKENS, numpy.exp(log_tokens))
    return expected_usd((chars / CHARS_PER_TOKEN).clip(min=1.0), lengths.astype(numpy.float32), known)
