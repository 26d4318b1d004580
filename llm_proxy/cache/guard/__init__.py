"""Is this neighbour the same question? `compare` has the rules, `guard` asks them and a small model."""

from .guard import Guard, Judgement, load_shipped

__all__ = ["Guard", "Judgement", "load_shipped"]
