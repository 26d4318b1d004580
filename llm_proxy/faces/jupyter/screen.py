"""Shows an answer while it comes: as Markdown where a notebook is looking, as plain text in a terminal.

What a model says is not trusted. Markdown may hold HTML, which a notebook runs: outside fenced code a ``<`` that
could begin a tag gets an invisible space behind it, and links lead to the web or nowhere. Source: CommonMark 0.31,
sections 4.5, 6.3 and 6.6.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["Live", "Plain", "Screen", "harmless", "screen_for", "show"]

_EVERY_S = 0.05  # an update costs a message and a layout of the page
_BREAK = "\u200b"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \w+#.-]*$")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\](?=\(|:)(?!.[ ]*<?(?:https?://|mailto:|#))")


class Screen(Protocol):
    """Takes an answer in pieces."""

    def write(self, piece: str) -> None:
        """Show one piece more."""

    def end(self, note: str, card: Any = None) -> None:
        """Show that nothing more comes, and what became of the call: a sentence, and what shows itself."""


class Plain:
    """A terminal: pieces as they are."""

    def write(self, piece: str) -> None:
        """Write a piece at once."""
        sys.stdout.write(piece)
        sys.stdout.flush()

    def end(self, note: str, card: Any = None) -> None:
        """Write the sentence below."""
        sys.stdout.write(f"\n[{note}]\n")


class Live:
    """A notebook: one display that is replaced as the answer grows, at most twenty times a second.

    Args:
        display: `IPython.display.display`.
        markdown: `IPython.display.Markdown`.
    """

    def __init__(self, display: Any, markdown: Any) -> None:
        self._display, self._markdown = display, markdown
        self._text, self._shown = "", ""
        self._shown_s = time.monotonic()
        self._handle = display(markdown(""), display_id=True)

    def write(self, piece: str) -> None:
        """Take a piece; it is there a moment later."""
        self._text += piece
        if time.monotonic() - self._shown_s >= _EVERY_S:
            self._update()

    def end(self, note: str, card: Any = None) -> None:
        """Show all of it, and what became of the call below."""
        self._update()
        if card is not None:
            self._display(card)

    def _update(self) -> None:
        if self._text != self._shown:
            self._handle.update(self._markdown(harmless(self._text)))
            self._shown = self._text
        self._shown_s = time.monotonic()


def screen_for(shell: Any) -> Screen:
    """What shows answers in an IPython shell: one with a kernel has a page that looks at it."""
    if getattr(shell, "kernel", None) is None:
        return Plain()
    from IPython.display import Markdown, display

    return Live(display, Markdown)


def show(pieces: Iterable[str], screen: Screen) -> str:
    """Show an answer as it comes; all of its text. What came before an interruption stays."""
    said = []
    for piece in pieces:
        if piece:
            said.append(piece)
            screen.write(piece)
    return "".join(said)


def harmless(text: str) -> str:
    """Markdown that looks the same and runs nothing; fenced code stays as it is, to the letter."""
    lines, fence = [], ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        if fence:
            closes = re.fullmatch(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*", bare)
            fence = "" if closes else fence
        else:
            opens = _FENCE.match(bare)
            fence = opens[1] if opens else ""
            line = line if opens else _TAG.sub("<" + _BREAK, _LINK.sub("]" + _BREAK, line))
        lines.append(line)
    return "".join(lines)
