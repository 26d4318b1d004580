"""Values: dataclasses that nobody changes once they are made.

``dataclass(frozen=True)`` has each field set by a call, and an exact hit makes objects of some fifty fields. Of
a value it is the type checker that refuses to let a field be set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

__all__ = ["value"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots that compares and hashes by its fields, and whose fields are for reading."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
