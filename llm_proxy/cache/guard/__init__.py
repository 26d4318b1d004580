"""Is this neighbour the same question? `compare` says it; the other modules read and match for it."""

from .compare import agree

__all__ = ["agree"]
