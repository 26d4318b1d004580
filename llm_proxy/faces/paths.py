"""Paths: which are the proxy's own, and which are only another spelling of one.

A backend may read ``/v1//chat/completions`` or ``/v1/chat/%63ompletions`` as the path that the engine serves. Passed on
as it came, such a call would be neither counted, limited nor cached, so it is refused. A path that no spelling of it
makes one of the proxy's own passes as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from ._asgi_io import Refused

__all__ = ["CHAT", "METHODS", "MODELS", "OWN", "refuse_other_spelling"]

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
OWN = (CHAT, "/v1/responses", "/v1/completions", "/v1/embeddings", MODELS, "/healthz", "/readyz", "/metrics")
"""What the engine or the proxy itself answers, or is the account of what something costs."""

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""What a path may be asked by, where it does not say itself."""

_BELOW = "/llm-proxy/"
_MOST_TURNS = 4  # of decoding: what is encoded more often than that no server decodes
_WITHOUT_PREFIX = frozenset(path.removeprefix("/v1") for path in OWN if path.startswith("/v1/"))


@lru_cache(maxsize=256)
def refuse_other_spelling(raw_path: str) -> None:
    """Refuse a path that a server may take for one of the proxy's own, though it is spelled otherwise.

    Those are doubled, trailing and reversed slashes, dot segments, parameters behind ``;``, capitals, percent encoding
    of what needs none, once or more often, and the same without ``/v1``, below which some servers answer as well.

    Args:
        raw_path: The path as it came, still encoded.

    Raises:
        Refused: 404, with the path that is meant.
    """
    meant = _plain(raw_path)
    meant = f"/v1{meant}" if meant in _WITHOUT_PREFIX else meant
    is_own = meant in OWN or meant.startswith(_BELOW)
    if is_own and meant != raw_path and not (meant.startswith(_BELOW) and raw_path.startswith(_BELOW)):
        raise Refused(404, f"there is no such path; {meant[:100]!r} is meant", code="not_found")


def _plain(path: str) -> str:
    """The path as the most lenient server would read it."""
    for _ in range(_MOST_TURNS):
        decoded = unquote(path, "latin-1")
        if decoded == path:
            break
        path = decoded
    segments: list[str] = []
    for segment in re.split(r"[/\\]+", path.lower()):
        name = segment.partition(";")[0].strip("\t\r\n \0")
        if name == "..":
            segments = segments[:-1]
        elif name not in {"", "."}:
            segments.append(name)
    return "/" + "/".join(segments)
