"""What is wrong with settings, in one sentence a person can act on. Pure; secrets are never quoted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from .variables import Steps, kind_of

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["sentence"]

_SECRETS = frozenset({"api_key", "keys"})
_MOST = 5
_WORDS = {
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "tuple_type": "must be a list",
    "missing": "is missing",
}


def sentence(exc: ValidationError, model: type[BaseModel], origins: Mapping[Steps, str]) -> str:
    """One line for everything that is wrong.

    Args:
        exc: What pydantic found.
        model: The settings that were checked.
        origins: Where a value came from, a file or a variable, by the steps to it.
    """
    errors = exc.errors(include_url=False)
    parts = [_one(error, model, origins) for error in errors[:_MOST]]
    more = [f"and {len(errors) - _MOST} more"] if len(errors) > _MOST else []
    return "wrong setting: " + "; ".join([*parts, *more])


def _one(error: ErrorDetails, model: type[BaseModel], origins: Mapping[Steps, str]) -> str:
    steps = error["loc"]
    where = ".".join(str(step) for step in steps)
    origin = _origin(steps, origins)
    suffix = f" (from {origin})" if origin else ""
    if error["type"] == "extra_forbidden":
        return f"{where} is not a setting{_hint(steps, model)}{suffix}"
    return f"{where} {_complaint(error)}{suffix}".lstrip()


def _complaint(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind in _WORDS:
        return _WORDS[kind]
    text = re.sub(r"^\w+ should ", "must ", error["msg"])
    text = re.sub(r", (unable|got) .*| after validation, not \d+$", "", text)
    return text + _quoted(error)


def _quoted(error: ErrorDetails) -> str:
    value: Any = error["input"]
    if _SECRETS.intersection(error["loc"]) or not isinstance(value, (str, int, float, bool)):
        return ""
    text = repr(value)
    return f", not {text}" if len(text) <= 60 else ""


def _hint(steps: Steps, model: type[BaseModel]) -> str:
    from difflib import get_close_matches  # only what is wrong needs it

    siblings: type[BaseModel] = kind_of(model, steps[:-1])
    wrong = str(steps[-1])
    near = get_close_matches(wrong, siblings.model_fields, n=1)
    if near:
        return f"; did you mean {'.'.join([*map(str, steps[:-1]), near[0]])}?"
    elsewhere = [section for section in model.model_fields if kind_of(model, (section, wrong)) and len(steps) == 1]
    homes = [section for section in elsewhere if isinstance(kind_of(model, (section,)), type)]
    if homes:
        return f"; did you mean {homes[0]}.{wrong}?"
    return f"; known are {', '.join(siblings.model_fields)}"


def _origin(steps: Steps, origins: Mapping[Steps, str]) -> str:
    for length in range(len(steps), 0, -1):
        if steps[:length] in origins:
            return origins[steps[:length]]
    return next((origin for known, origin in origins.items() if steps and known[: len(steps)] == steps), "")
