"""``llm-proxy route``: what there is to know and to do about routes."""

from __future__ import annotations

import typer

from .route_calibrate import calibrate
from .route_eval import evaluate
from .route_explain import explain
from .route_outcomes import outcomes
from .route_train import train

__all__ = ["route_app"]

_HELP = """Explain how routes choose, train and measure them.

Examples:
    llm-proxy route explain "What is the capital of France?"
    llm-proxy route train
"""
route_app = typer.Typer(name="route", help=_HELP, no_args_is_help=True)
route_app.command()(explain)
route_app.command()(calibrate)
route_app.command()(train)
route_app.command("eval")(evaluate)
route_app.command()(outcomes)
