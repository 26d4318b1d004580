"""The earlier turns of two conversations, compared one by one; their last questions are compared elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llm_proxy.errors import CacheError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MOST_REWORDED", "NO_TURNS", "Turns"]

MOST_REWORDED = 4
"""Turns that may be worded differently: each takes two runs of the encoder."""


class Encoded(Protocol):
    """See `llm_proxy.encode.base.Encoding`."""

    @property
    def vector(self) -> NDArray[np.float32]:
        """Shape ``(dim,)``, float32, unit norm."""

    @property
    def seen_chars(self) -> int:
        """How many leading characters of the text it stands for."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A question's earlier turns that its scope leaves open.

    Attributes:
        texts: What the user said, oldest first.
        encode: Encodes a text; the same encoder that made the question's vector.
    """

    texts: tuple[str, ...]
    encode: Callable[[str], Encoded]

    def reworded(self, others: tuple[str, ...]) -> list[tuple[str, str, float]] | None:
        """Turns that differ from those of another conversation, each with the other's and their cosine, in [-1, 1].

        None where the two can't be the same: not as many turns, too many that differ, or one that the encoder reads
        in part.

        Raises:
            LLMProxyError: The encoder failed.
        """
        pairs = [pair for pair in zip(self.texts, others, strict=False) if pair[0] != pair[1]]
        if len(self.texts) != len(others) or len(pairs) > MOST_REWORDED:
            return None
        found = []
        for one, other in pairs:
            a, b = self.encode(one), self.encode(other)
            if a.seen_chars < len(one) or b.seen_chars < len(other):
                return None
            found.append((one, other, float(a.vector @ b.vector)))
        return found


def _nothing_to_encode(text: str) -> Encoded:
    raise CacheError(f"no encoder was given for {text[:40]!r}")


NO_TURNS = Turns((), _nothing_to_encode)
"""Of a question whose scope leaves none open."""
