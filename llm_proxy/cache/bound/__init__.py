"""The error of what is served stays under the user's rate: the rule, who keeps it, its parts, and plain vCache."""

from .bound import Bound
from .entry_model import Observed
from .routes import ErrorLimits, RouteBounds

__all__ = ["Bound", "ErrorLimits", "Observed", "RouteBounds"]
