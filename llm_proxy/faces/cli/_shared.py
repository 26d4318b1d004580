"""What every command needs: its settings, one-line errors, JSON, and text that can't command the terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llm_proxy.errors import ConfigError, LLMProxyError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from llm_proxy.config import Config

__all__ = ["Group", "Json", "Shared", "console", "emit", "one_line", "say", "settings", "table", "visible"]

_PIPED_COLUMNS = 160
_LAYOUT = frozenset("\n\t")

Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]


@dataclass(frozen=True)
class Shared:
    """The options before the command."""

    config: Path | None = None


class Group(TyperGroup):
    """A command whose errors are one line on stderr; exit code 2 for a wrong setting, 1 for any other trouble."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LLMProxyError as exc:
            say(f"llm-proxy: {one_line(str(exc))}")
            raise typer.Exit(2 if isinstance(exc, ConfigError) else 1) from exc
        except ModuleNotFoundError as exc:  # e.g. entries with vectors, written where the extras are
            say(f'llm-proxy: this needs {exc.name}: pip install "llm-proxy[cpu]"')
            raise typer.Exit(1) from exc


def settings(context: typer.Context) -> Config:
    """The settings that the command works with.

    Raises:
        ConfigError: A setting is wrong.
    """
    from llm_proxy.config import load

    return load(context.obj.config)


def emit(value: Any) -> None:
    """Print a value as one line of JSON: the last, and the only one, on stdout."""
    typer.echo(json.dumps(value))


def say(text: str) -> None:
    """Print a line on stderr."""
    typer.echo(visible(text), err=True)


def console() -> Console:
    """Where tables go; wide when it isn't a terminal, so that a pipe gets whole lines."""
    from rich.console import Console

    screen = Console(highlight=False, markup=False, emoji=False)
    return screen if screen.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_PIPED_COLUMNS)


def table(title: str = "") -> Table:
    """An empty table in the house's looks. Its cells must be `rich.text.Text`: a plain string is read as markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False, show_edge=False
    )


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Text that can't command a terminal: every character that doesn't print is shown as its escape, e.g. ``\x1b``.

    Those are control characters, and also the ones that turn the direction of writing or have no width.

    Args:
        text: Anything, lone surrogates included.
        keep_lines: Leave line feeds and tabs as they are.
    """
    kept = _LAYOUT if keep_lines else frozenset[str]()
    return "".join(
        character if character.isprintable() or character in kept else _escaped(character) for character in text
    )


def one_line(text: str, limit: int = 0) -> str:
    """Visible text on one line, white space run together, at most ``limit`` characters when that is given."""
    line = visible(" ".join(text.split()))
    return line if not limit or len(line) <= limit else line[: limit - 1] + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
