"""The ``llm-proxy`` command."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0, 1 for trouble, 2 for a wrong setting or argument."""
    from .app import app

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":  # a terminal or file not of UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is
    app(prog_name="llm-proxy")
