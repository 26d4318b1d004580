"""``llm-proxy route train``: a head from a log of outcomes."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._progress import progress
from ._route_answers import adapt
from ._route_log import (
    Clip,
    LogFile,
    ModelsFile,
    Prices,
    Route,
    Strong,
    Weak,
    as_kept,
    encoded,
    gathered,
    heads_of,
    open_encoder,
    plain,
    prices_for,
)  # fmt: skip
from ._route_tables import show_choice, show_models, show_pair
from ._shared import Json, emit, say, settings, visible

if TYPE_CHECKING:
    from llm_proxy.route.train.make import Made

__all__ = ["train"]


def train(
    context: typer.Context,
    file: LogFile = None,
    *,
    models: ModelsFile = None,
    weak: Weak = "",
    strong: Strong = "",
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of heads; otherwise heads in cache.directory.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, metavar="N", help="Parts of the cross-validation.")] = 5,
    prices: Prices = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="What the head is called.")] = "own-traffic",
    clip: Clip = False,
    route: Route = "",
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Marked answers: correct the scorer of cascades by them instead."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Install the head even if it does not beat the length of the prompt.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a head on a log of outcomes, and install it if it is worth having.

    Each line of the log has a prompt, the score of each model's answer in
    [0, 1], and perhaps lengths and a group:
    {"prompt": "…", "scores": {"gpt-4o-mini": 0.8, "gpt-4o": 1}, "tokens":
    {"gpt-4o": 212}, "group": "support"}. Without a file it is what the proxy
    kept itself: feedback, comparisons, and what cascades thought of answers.

    The head is measured by cross-validation beside the length of the prompt,
    TF-IDF and chance, and on kinds of questions (groups) that it has not seen.
    It is written with a card and a reliability plot as a new version that
    running proxies pick up. A head that does not beat the length of the prompt
    and chance beyond doubt is not written, and the exit code is 1.

    With --answers, each line has a question, an answer, and whether it was
    good: {"question": "…", "answer": "…", "good": true}.

    Examples:
        llm-proxy route train
        llm-proxy route train outcomes.jsonl
        llm-proxy route train outcomes.jsonl.gz --weak gpt-4o-mini --strong gpt-4o --to heads
        llm-proxy route train --answers marked.jsonl
    """
    config = settings(context)
    if answers is not None:
        adapt(config, answers, as_json=as_json)
        return
    outcomes, source = gathered(config, file, models, clip=clip, route=route)
    known = prices_for(config, outcomes, prices)

    from llm_proxy.route.train.card import Origin, verdict
    from llm_proxy.route.train.make import make, ready

    weak, strong = ready(outcomes, weak, strong)
    encoder = open_encoder(config) if source is None else source.encoder
    log = encoded(outcomes, encoder) if source is None else as_kept(outcomes, source.seen())
    today, until_s = datetime.now(UTC).strftime("%Y-%m-%d"), 0.0 if source is None else source.newest_s
    origin = Origin(name, file.name if file else "the log of outcomes", encoder.name, _command(), today, until_s)
    with progress("Training", 2 * folds + 1) as step:
        made = make(log, origin, weak=weak, strong=strong, prices=known, folds=folds, step=step)
    is_installed = made.measured.pair.is_worth_it or force
    version = _installed(made, to or heads_of(config)) if is_installed else None
    said = verdict(made.measured.pair)
    if as_json:
        path = str(version) if version else None
        emit({"installed": is_installed, "version": path, "verdict": said, **plain(made)})
    else:
        _show(made, said, version, has_prices=known is not None)
    if version is None:
        raise typer.Exit(1)


def _installed(made: Made, directory: Path) -> Path:
    from llm_proxy.route.heads import OnnxHead
    from llm_proxy.route.versions import save_version, use_version

    version = save_version(directory, made.files)
    OnnxHead(version)  # what can't be loaded is never put in use
    use_version(version)
    return version


def _show(made: Made, said: str, version: Path | None, *, has_prices: bool) -> None:
    show_pair(made.measured.pair)
    show_models(made.measured.models)
    if made.choice:
        show_choice(made.choice)
    else:
        say(
            "No costs: no prompt has scores of all models."
            if has_prices
            else "No costs: not all prices are known; give them with --prices NAME=IN/OUT,…"
        )
    typer.echo(visible(said))
    if version is None:
        typer.echo("It was not installed. With --force it is; more outcomes, or better ones, may do more.")
    else:
        typer.echo(visible(f"Installed in {version}; its figures are in card.md there."))


def _command() -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(word).name if "/" in word and "=" not in word else word for word in sys.argv[1:]]
    return shlex.join(["llm-proxy", *words])
