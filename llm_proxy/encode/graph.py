"""A graph of the encoder on one execution provider: rows of tokens in, checked vectors out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llm_proxy.errors import CacheError, ConfigError
from llm_proxy.shipped import CPU, onnxruntime_errors, session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .models import ModelFolder

__all__ = ["EncoderGraph", "Graph", "Vectors"]

Vectors = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
"""Vectors, shape ``(n, dim)``, rows of unit length, and means of inner layers, ``(n, k)``, k >= 0; both float32."""


class Graph(Protocol):
    """What makes vectors of tokens; safe to call from several threads at once."""

    @property
    def provider(self) -> str:
        """The execution provider that it runs on, by ONNX Runtime's name."""

    def run(self, rows: Sequence[list[int]]) -> Vectors:
        """Vectors of texts.

        Args:
            rows: Token ids of at least one text, of any lengths.

        Raises:
            CacheError: The graph failed, or gave something else than unit vectors.
        """


class EncoderGraph:
    """A `Graph` on ONNX Runtime; loads when constructed.

    Args:
        model: The folder that holds it.
        provider: Execution provider, by ONNX Runtime's name.
        precision: Which of the folder's graphs.
        libraries: numpy and onnxruntime.

    Raises:
        MissingDependencyError: The shipped graph is damaged.
        ConfigError: The folder's graph is damaged or another one, or the provider does not start.
    """

    def __init__(self, model: ModelFolder, provider: str, precision: str, libraries: tuple[Any, Any]) -> None:
        self._np, onnxruntime = libraries
        self._foreign = onnxruntime_errors(onnxruntime)
        for name in {model.graphs["int8"], model.graphs[precision]}:  # the float graph reads its weights from the other
            model.file(name)
        self.name = f"{model.name}-{precision}@{model.identity(precision)[:12]}"
        """Identity of the weights and their arithmetic."""
        self.dim = model.dim
        """Length of a vector."""
        if provider != CPU and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds the CUDA libraries that the gpu extra brings as packages
        path = model.path / model.graphs[precision]
        try:
            self._session = session(onnxruntime, path, [provider], is_fused=True)
        except self._foreign as exc:
            raise model.unusable(f"{path.name}: {exc}") from exc
        self._provider = str(self._session.get_providers()[0])
        if self._provider != provider:
            raise ConfigError(f"{provider} did not start; are its libraries installed?")
        _check_signature(model, self._session)
        self.layers_dim = _layers_dim(self._session)
        """Length of the inner layers' means; 0 for a graph that shows none, or none of a fixed length."""

    @property
    def provider(self) -> str:
        """See `Graph.provider`."""
        return self._provider

    def run(self, rows: Sequence[list[int]]) -> Vectors:
        """Vectors of texts; see `Graph.run`."""
        numpy, most = self._np, max(map(len, rows))
        feed = {
            "input_ids": numpy.array([row + [0] * (most - len(row)) for row in rows], numpy.int64),
            "attention_mask": numpy.array([[1] * len(row) + [0] * (most - len(row)) for row in rows], numpy.int64),
        }
        try:
            vectors, *others = self._session.run(["vector", "layers"] if self.layers_dim else ["vector"], feed)
        except self._foreign as exc:
            raise CacheError(f"the encoder {self.name} could not run: {exc}") from exc
        if vectors.shape != (len(rows), self.dim):
            raise CacheError(f"the encoder {self.name} gave shape {vectors.shape}, not {(len(rows), self.dim)}")
        lengths = numpy.einsum("ij,ij->i", vectors, vectors)
        if not all(math.isclose(length, 1.0, abs_tol=1e-3) for length in lengths.tolist()):  # false for NaN too
            raise CacheError(f"the encoder {self.name} gave a vector that is not of unit length")
        return vectors, others[0] if others else numpy.empty((len(rows), 0), numpy.float32)


def _check_signature(model: ModelFolder, session: Any) -> None:
    inputs, outputs = ({tensor.name for tensor in side} for side in (session.get_inputs(), session.get_outputs()))
    if inputs != {"input_ids", "attention_mask"} or "vector" not in outputs:
        raise model.unusable(
            f"the graph maps {sorted(inputs)} to {sorted(outputs)}, not input_ids and attention_mask to vector"
        )


def _layers_dim(session: Any) -> int:
    width = next((tensor.shape[-1] for tensor in session.get_outputs() if tensor.name == "layers"), 0)
    return width if isinstance(width, int) else 0
