"""The ``llm-proxy`` command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0, 1 for trouble, 2 for a wrong setting or argument."""
    from .app import app

    app(prog_name="llm-proxy")
