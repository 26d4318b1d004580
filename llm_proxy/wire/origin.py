"""Do the chunks of a stream belong to one answer? A server, or a gateway before it, may send two into one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Origin"]

_MOST_IDS = 256


class Origin:
    """What the chunks of one stream say of whose they are: an id and a model.

    By the book all say the same. Azure leaves both empty where a chunk is about filters only, which says nothing. Some
    servers give each chunk an id of its own, so that ids that differ tell of two answers only where one comes again, or
    there are two of them in all.

    Source: OpenAI's API reference, "Chat Completions: streaming": each chunk has the same id.
    """

    def __init__(self) -> None:
        self._model = ""
        self._ids: set[str] = set()
        self._is_repeated = self._is_other_model = False

    @property
    def is_mixed(self) -> bool:
        """Whether the chunks are of more than one answer."""
        count = len(self._ids)
        return self._is_other_model or count == 2 or (count > 2 and self._is_repeated)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Look at one chunk, or at another object that has an id and a model."""
        model, id = chunk.get("model"), chunk.get("id")
        if model and isinstance(model, str):
            self._is_other_model = self._is_other_model or model != (self._model or model)
            self._model = model
        if id and isinstance(id, str):
            self._is_repeated = self._is_repeated or id in self._ids
            if len(self._ids) < _MOST_IDS:
                self._ids.add(id)
