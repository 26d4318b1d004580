"""The rows of the disk store's log: see `llm_proxy.cache.stores.disk`."""

from __future__ import annotations

import json

from .base import Change

__all__ = ["log_key", "step_of"]


def log_key(sequence: int) -> str:
    """The key of a step; keys are ordered as their numbers are."""
    return f"l:{sequence:020d}"


def step_of(sequence: int, key: str, mode: object, filename: object, value: object) -> list[Change] | None:
    """The changes of one row of the log, or None when it is not one that this store writes."""
    if key != log_key(sequence) or mode != 1 or filename is not None or type(value) is not str:
        return None
    try:
        operation, *items = json.loads(value)
        if operation == "touch":
            return [Change(sequence, "touch", str(key), int(hits)) for key, hits in items]
        if operation in ("put", "remove"):
            return [Change(sequence, operation, str(key)) for key in items]
    except (ValueError, TypeError, RecursionError):
        pass
    return None
