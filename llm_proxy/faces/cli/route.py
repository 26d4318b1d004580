"""``llm-proxy route``: what there is to know and to do about routes."""

from __future__ import annotations

import typer

from .route_explain import explain

__all__ = ["route_app"]

route_app = typer.Typer(name="route", help="Explain how routes choose.", no_args_is_help=True)
route_app.command()(explain)
