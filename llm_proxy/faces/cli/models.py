"""``llm-proxy models``: what the configured models cost, and who says so."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ._format import amount
from ._shared import Json, console, emit, settings, table, visible

if TYPE_CHECKING:
    from llm_proxy.backends.catalogue import Listed

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

    found = models_of(settings(context))
    if as_json:
        emit({"models": [asdict(one) for one in found]})
    elif not found:
        typer.echo("The settings name no models: set backends.NAME.models, or the candidates of a route.")
    else:
        _show(found)


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
