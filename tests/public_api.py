"""The public interface as text: every name of `llm_proxy` and `llm_proxy.testing`, with signatures.

`tests/public_api.txt` is this text as it was promised last; `tests/test_public_api.py` compares. After a change that is
meant: ``python -m tests.public_api --write``, and a line in CHANGELOG.md that says what breaks.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["FROZEN", "described"]

FROZEN = Path(__file__).with_suffix(".txt")
_MODULES = ("llm_proxy", "llm_proxy.testing")


def described() -> str:
    """The interface of today."""
    return "\n".join(line for module in _MODULES for line in _module(module)) + "\n"


def _module(name: str) -> Iterator[str]:
    module = __import__(name, fromlist=["__all__"])
    for public in sorted(module.__all__):
        value = getattr(module, public)
        if inspect.isclass(value):
            yield from _class(f"{name}.{public}", value)
        elif callable(value):
            yield f"def {name}.{public}{_signature(value)}"
        else:
            yield f"{name}.{public}: {type(value).__name__}"


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"class {name}({', '.join(_bases(kind))})"
    if "__init__" in _own(kind) or dataclasses.is_dataclass(kind):
        yield f"    __init__{_signature(kind.__init__)}"
    for member, value in sorted(_own(kind).items()):
        if member.startswith(("_", "model_")):
            continue
        if isinstance(value, property):
            yield f"    {member}: {inspect.signature(value.fget).return_annotation}"  # type: ignore[arg-type]
        elif callable(value) or isinstance(value, (classmethod, staticmethod)):
            yield f"    {member}{_signature(getattr(kind, member))}"


def _bases(kind: type) -> Iterator[str]:
    """What callers may catch or pass it as: classes of this package and of Python, and the first of another's."""
    foreign = 0
    for base in kind.__mro__[1:]:
        is_ours = base.__module__.startswith(("llm_proxy", "builtins"))
        foreign += not is_ours
        if not base.__name__.startswith("_") and base is not object and (is_ours or foreign == 1):
            yield base.__name__


def _own(kind: type) -> dict[str, Any]:
    """Members that this package gives a class: those of openai's, httpx's and pydantic's are theirs to change."""
    ours = [base for base in reversed(kind.__mro__) if base.__module__.startswith("llm_proxy")]
    return {name: value for base in ours for name, value in vars(base).items()}


def _signature(value: Any) -> str:
    return str(inspect.signature(value))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FROZEN.write_text(described(), encoding="utf-8")
    else:
        sys.stdout.write(described())
