"""What may be said behind ``%%chat`` and ``%llm_proxy``: read, and completed with Tab."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .session import Session

__all__ = ["WORDS", "ChatOptions", "chat_completions", "chat_options", "word_completions"]

WORDS = ("again", "last", "undo")
"""What may be said behind ``%llm_proxy``."""

_VALUES = ("--model", "--route", "--system")
_OPTIONS = (*_VALUES, "--no-cache")


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The options of one ``%%chat``; an empty text where one was not given.

    Attributes:
        model: Model or alias to ask.
        route: Route to ask.
        system: System message.
        is_new: Whether to ask upstream even where an answer is stored.
    """

    model: str = ""
    route: str = ""
    system: str = ""
    is_new: bool = False


def chat_options(line: str) -> ChatOptions:
    """Read the line behind ``%%chat``.

    Raises:
        ConfigError: It is not understood.
    """
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise ConfigError(f"%%chat {line}: {exc}") from exc
    values: dict[str, str] = {}
    is_new = False
    while words:
        name, mark, value = words.pop(0).partition("=")
        if name == "--no-cache" and not mark:
            is_new = True
        elif name not in _VALUES:
            raise ConfigError(f"%%chat knows {', '.join(_OPTIONS)}, not {name!r}; the question goes below the line")
        elif not mark and not words:
            raise ConfigError(f"%%chat {name} needs a value")
        else:
            values[name] = value if mark else words.pop(0)
    if values.get("--model") and values.get("--route"):
        raise ConfigError("%%chat takes --model or --route, not both: a route chooses the model")
    model, route, system = (values.get(name, "") for name in _VALUES)
    return ChatOptions(model, route, system, is_new)


def chat_completions(session: Session, event: Any) -> Sequence[str]:
    """Completions of the line behind ``%%chat``; see IPython's hook ``complete_command``.

    Args:
        session: Knows models and routes.
        event: Has ``text_until_cursor``.
    """
    words = event.text_until_cursor.split(" ")
    before = words[-2] if len(words) > 1 else ""
    if before == "--model":
        return session.models()
    if before == "--route":
        return sorted(session.config.routes)
    return [] if before == "--system" else [option for option in _OPTIONS if option not in words[:-1]]


def word_completions(event: Any) -> Sequence[str]:
    """The same of ``%llm_proxy``."""
    return () if any(event.text_until_cursor.split(" ")[1:-1]) else WORDS
