"""The commands, what they share (``--config``, ``--version``), and how an error is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import llm_proxy

from ._shared import Group, Shared
from .budget import budget
from .cache import cache_app
from .demo_command import demo
from .doctor import doctor
from .health import health
from .init import init
from .keys import keys_app
from .models import models
from .route import route_app
from .run import run
from .serve import serve
from .stats import stats

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    name="llm-proxy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"llm-proxy {llm_proxy.__version__}")
        raise typer.Exit


@app.callback()
def shared(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Settings file; otherwise LLM_PROXY_CONFIG, else ./llm-proxy.toml."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """The same OpenAI calls, cheaper and faster: repeated and equivalent questions are answered from a cache.

    Examples:
        llm-proxy init
        llm-proxy demo
        llm-proxy serve
    """
    context.obj = Shared(config)


app.command()(init)
app.command()(serve)
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(run)
app.command()(demo)
app.command()(stats)
app.add_typer(cache_app)
app.add_typer(route_app)
app.add_typer(keys_app)
app.command()(models)
app.command()(budget)
app.command()(doctor)
app.command()(health)
