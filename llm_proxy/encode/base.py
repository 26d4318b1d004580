"""The encoder seam: text in, one unit vector and the part of the text that it stands for out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Encoder", "Encoding"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoded text.

    Attributes:
        vector: Shape ``(dim,)``, float32, unit L2 norm.
        seen_chars: How many leading characters of the text the vector stands for; less than ``len(text)``
            when the text is longer than the encoder's window, or holds what the encoder can't tell apart.
        layers: Means of inner layers, one after the other, shape ``(k,)``, float32, of any length: what the vector
            no longer keeps of a text's form, for routing heads. None where the encoder shows none.
    """

    vector: NDArray[np.float32]
    seen_chars: int
    layers: NDArray[np.float32] | None = None


class Encoder(Protocol):
    """Turns text into a unit vector; safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """Identity of the weights, e.g. ``all-MiniLM-L6-v2-int8@<sha256 of the model, 12 hex digits>``.

        Vectors of different names are never compared.
        """

    @property
    def dim(self) -> int:
        """Length of every vector, > 0."""

    def encode(self, text: str) -> Encoding:
        """Encode one text.

        Args:
            text: Any text, the empty one and lone surrogates included.

        Returns:
            A unit vector of ``dim`` float32 values and the characters it covers.

        Raises:
            LLMProxyError: The encoder could not load or run.
        """
