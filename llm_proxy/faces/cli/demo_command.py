"""``llm-proxy demo``: the options of the demonstration; `.demo` does it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ._shared import Json, emit

__all__ = ["Kind", "demo"]


class Kind(StrEnum):
    """Who answers the questions of the demo."""

    auto = "auto"
    openai = "openai"
    local = "local"
    simulated = "simulated"


def demo(
    provider: Annotated[
        Kind, typer.Option(help="Who answers; auto: OpenAI with a key, else a local server, else a simulation.")
    ] = Kind.auto,
    as_json: Json = False,
) -> None:
    """Ask two hundred questions and show what the cache saved.

    The questions go through the real client, engine, encoder and disk store
    in a temporary folder. With OPENAI_API_KEY they cost less than a cent.

    Examples:
        llm-proxy demo
        llm-proxy demo --provider simulated --json
    """
    from rich.console import Console

    from .demo import as_json as as_data
    from .demo import choose_provider, run_demo, show

    chosen = choose_provider(provider.value)
    console = Console(stderr=as_json, highlight=False)
    console.print(chosen.sentence, markup=False)
    result = run_demo(chosen, console)
    if as_json:
        emit(as_data(result))
    else:
        show(result, console)
