"""What single settings must be: each function gives the value back, or raises ValueError with a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["OPENAI_BASE_URL", "base_url", "directory", "names", "optional_file", "tenant", "variable"]

OPENAI_BASE_URL = "https://api.openai.com/v1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def directory(value: Path) -> Path:
    """An absolute path of a folder, which need not be there."""
    if value == Path() or "\0" in str(value):
        raise ValueError("must be the path of a folder")
    try:
        return value.expanduser().absolute()
    except (RuntimeError, OSError) as exc:
        raise ValueError(f"can't be resolved: {exc}") from exc


def optional_file(value: Path | None) -> Path | None:
    """An absolute path of a file, which need not be there; or none."""
    if value is not None and (value == Path() or "\0" in str(value)):
        raise ValueError("must be the path of a file")
    return None if value is None else directory(value)


def base_url(value: str) -> str:
    """An http or https URL without credentials, query and fragment; no slash at the end."""
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if is_url and parts.username is not None:
        raise ValueError("must not hold a user or password; use api_key_env")
    if not is_url or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"must be an absolute http or https URL, e.g. {OPENAI_BASE_URL}")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment; it ends with the path, as a rule /v1")
    return value.rstrip("/")


def tenant(value: str) -> str:
    """What separates callers."""
    kind, _, name = value.partition(":")
    if value in {"api_key", "user"} or (kind in {"header", "fixed"} and name):
        return value
    raise ValueError(f"must be api_key, user, header:NAME or fixed:NAME, not {value!r}")


def variable(value: str | None) -> str | None:
    """Name of an environment variable."""
    if value is not None and not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable; a key itself belongs in that variable")
    return value


def names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A table whose keys are names."""
    for name in value:
        if not _NAME.fullmatch(name):
            raise ValueError(f"name {name!r} must be letters, digits and . _ - only")
    return value
