"""Settings as nested tables, before they are checked: read from a file, and laid over one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_proxy.errors import ConfigError

from .variables import Steps

__all__ = ["from_file", "leaves", "merged"]


def from_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: It can't be read, or is not TOML.
    """
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        remedy = "; llm-proxy init writes one" if isinstance(exc, FileNotFoundError) else ""
        raise ConfigError(f"configuration file {path} can't be read: {exc.strerror or exc}{remedy}") from exc
    except (ValueError, RecursionError) as exc:  # also of numbers and nesting that are too long for Python
        raise ConfigError(f"configuration file {path} is not TOML: {exc}") from exc


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over others."""
    result = dict(below)
    for name, value in above.items():
        known = result.get(name)
        if isinstance(value, Mapping) and known is not None:
            # What is below and no table stays, for the check to refuse.
            result[name] = merged(known, value) if isinstance(known, Mapping) else known
        else:
            result[name] = value
    return result


def leaves(table: Mapping[str, Any], above: Steps = ()) -> Iterator[Steps]:
    """Steps to every value that is no table."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name)
