"""The dashboard: one page, and the data it shows."""

from .app import Dashboard

__all__ = ["Dashboard"]
