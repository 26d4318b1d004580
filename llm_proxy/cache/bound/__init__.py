"""The error of what is served stays under the user's rate: the rule (`bound`), its parts, and plain vCache."""

from .bound import Bound, Decision
from .entry_model import Observed
from .prior import p_same_of

__all__ = ["Bound", "Decision", "Observed", "p_same_of"]
