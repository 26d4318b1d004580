"""``llm-proxy route train --answers``: the scorer of cascades, corrected by answers that somebody marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llm_proxy.errors import ConfigError

from ._format import amount, share
from ._route_log import open_encoder
from ._shared import emit, visible

if TYPE_CHECKING:
    from llm_proxy.config import Config

__all__ = ["adapt"]


def adapt(config: Config, file: Path, *, as_json: bool) -> None:
    """Correct the scorer by the marked answers of a file; what reads the correction is said.

    Raises:
        ConfigError: The settings have another encoder than the scorer reads, or the correction can't be written.
        RouterError: The file can't be read, or it holds too few answers, or all are right, or all wrong.
    """
    from llm_proxy.route.adapt import OWN_NAME, adapted_to, read_marked
    from llm_proxy.route.scorer import AnswerScorer

    marked = read_marked(file)
    scorer, encoder = AnswerScorer(), open_encoder(config)
    if encoder.name not in scorer.encoders:
        raise ConfigError(f"the scorer reads vectors of {', '.join(scorer.encoders)}, not of {encoder.name}")
    own = adapted_to(marked, scorer, encoder.encode)
    path = config.cache.directory / OWN_NAME
    try:
        own.save(path)
    except OSError as exc:
        raise ConfigError(f"{path} can't be written: {exc.strerror or exc}") from exc
    right = sum(row.is_right for row in marked)
    if as_json:
        emit({"path": str(path), "scorer": own.scorer, "answers": own.answers, "right": right})
        return
    typer.echo(visible(f"By {amount(own.answers)} answers, {share(right, own.answers)} of them right: {path}"))
    typer.echo("Cascades use it from the next start on. Delete the file to undo it.")
