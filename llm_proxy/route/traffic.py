"""Reference traffic: the questions of a log, whatever else its lines hold."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from llm_proxy.errors import ConfigError

__all__ = ["lines_of", "read_prompts"]

_MOST_LINE_BYTES = 64 << 20
_MOST_TEXT_CHARS = 1 << 30
_NAMES = ("prompt", "question", "text", "query")


def read_prompts(path: Path) -> list[str]:
    """The questions of a file of JSON lines, each once, in their order.

    Args:
        path: ``.jsonl``, perhaps gzipped (``.gz``). A line holds a text, or an object with ``prompt``, ``question``,
            ``text`` or ``query``, or a chat completion's request under ``request`` or ``body``, or is such a request:
            its last user message counts.

    Raises:
        ConfigError: It can't be read, a line is not JSON (the message gives its number), or there is no question.
    """
    found: dict[str, None] = {}
    chars = 0
    for number, line in lines_of(path):
        try:
            text = _question(json.loads(line))
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"{path} line {number}: not JSON") from exc
        if text.strip() and text not in found:
            found[text.encode("utf-8", "replace").decode()] = None
            chars += len(text)
        if chars > _MOST_TEXT_CHARS:
            raise ConfigError(f"{path} has more than {_MOST_TEXT_CHARS >> 20} Mi characters: use a part of it")
    if not found:
        raise ConfigError(f"{path} has no questions: a line is to hold a prompt, or a request with messages")
    return list(found)


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Args:
        path: Perhaps gzipped (``.gz``).

    Raises:
        ConfigError: It can't be read, or a line is longer than 64 MiB.
    """
    number = 0
    try:
        with _plain(path) as stream:
            while line := stream.readline(_MOST_LINE_BYTES + 1):
                number += 1
                if len(line) > _MOST_LINE_BYTES:
                    raise ConfigError(f"{path} line {number}: longer than {_MOST_LINE_BYTES >> 20} MiB")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as exc:
        raise ConfigError(f"{path} can't be read: {getattr(exc, 'strerror', None) or exc}") from exc


@contextmanager
def _plain(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.open(raw) as unpacked:
            yield unpacked  # type: ignore[misc]  # a GzipFile reads as any binary file


def _question(found: Any) -> str:
    if isinstance(found, str):
        return found
    if not isinstance(found, dict):
        return ""
    named = next((found[name] for name in _NAMES if isinstance(found.get(name), str)), None)
    if named is not None:
        return str(named)
    request = next((found[name] for name in ("request", "body") if isinstance(found.get(name), dict)), found)
    messages = request.get("messages")
    said = [
        message["content"]
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str)
    ]
    return str(said[-1]) if said else ""
