"""``llm-proxy models``: what the configured models cost, and who says so."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ._format import amount
from ._shared import Json, console, emit, settings, table, visible

if TYPE_CHECKING:
    from llm_proxy.backends.catalogue import Listed
    from llm_proxy.config import Config

__all__ = ["models"]


def models(context: typer.Context, as_json: Json = False) -> None:
    """Show the models of the settings with their prices and windows.

    Prices are dollars a million tokens: those of the settings, else those of
    the library genai-prices, with the day from which it says they hold. A
    model on this machine is free. A model without a price counts as one that
    costs nothing in sums, and as unknown where a route chooses.

    Examples:
        llm-proxy models
        llm-proxy models --json
    """
    from llm_proxy.backends.catalogue import models_of

    config = settings(context)
    found = models_of(config)
    if as_json:
        emit({"models": [asdict(one) for one in found]})
    elif not found:
        typer.echo(visible(_nothing(config), keep_lines=True))
    else:
        _show(found)


def _nothing(config: Config) -> str:
    """What to do where the settings name no models; calls name them, and go on all the same."""
    name = config.default_backend or next(iter(config.backends), "")
    if not name:
        return "The settings name no models, and no backends: llm-proxy init writes a file to begin with."
    return (
        f"The settings name no models: a call goes to backend {name}, whatever model it names.\n"
        f'To see prices, list some in [backends.{name}], as in models = ["gpt-4o-mini"], or as candidates of a route.'
    )


def _show(found: list[Listed]) -> None:
    from rich.text import Text

    rows = table()
    for name in ("model", "prompt", "cached", "answer", "window", "price from", "since", "other terms"):
        rows.add_column(name, justify="right" if name in ("prompt", "cached", "answer", "window") else "left")
    for one in found:
        prices = one.input_usd_per_mtok, one.cached_usd_per_mtok, one.output_usd_per_mtok
        window = "-" if one.context_tokens is None else amount(one.context_tokens)
        rest = one.source or "nobody knows", one.since or "-", ", ".join(one.terms) or "-"
        cells = f"{one.backend}/{one.model}", *map(_price, prices), window, *rest
        rows.add_row(*(Text(visible(cell)) for cell in cells))
    console().print(rows)


def _price(usd: float | None) -> str:
    return "-" if usd is None else "free" if usd == 0 else f"${usd:,.3f}".rstrip("0").rstrip(".")
