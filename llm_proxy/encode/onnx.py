"""The shipped encoder: ONNX Runtime runs the graph, ``tokenizers`` cuts the text, on one thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import CacheError, ConfigError, MissingDependencyError
from llm_proxy.shipped import onnxruntime_errors, silence_onnxruntime

from ._text import MOST_CHARS_PER_TOKEN, readable, seen_chars
from .base import Encoding
from .models import ModelFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OnnxEncoder"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_BATCH = 64


class OnnxEncoder:
    """An `llm_proxy.encode.base.Encoder` on ONNX Runtime; loads when constructed, takes about 70 MB.

    On processors it runs the int8 graph. Activations are quantised by the range of their whole tensor there, so
    texts are run one by one: the vector of a text never depends on its neighbours in a batch, and on one thread a
    batch would save nothing. On accelerators it runs the float graph over the same weights, in batches.

    Args:
        folder: Folder with ``config.json``, ``tokenizer.json`` and the graphs, as ``router_models/encoder``; None for
            the one that ships with llm-proxy.
        providers: Execution providers in order of preference, by ONNX Runtime's names; None for CUDA where it works,
            else the processor.
        precision: ``int8`` or ``float``; None for what suits the provider.

    Raises:
        MissingDependencyError: ONNX Runtime, tokenizers or numpy is not installed, or the shipped model is damaged.
        ConfigError: ``folder`` is no model folder, or a provider or precision does not exist.
    """

    def __init__(
        self, folder: Path | None = None, providers: Sequence[str] | None = None, *, precision: str | None = None
    ) -> None:
        silence_onnxruntime()
        try:
            import numpy
            import onnxruntime
            import tokenizers
        except ImportError as exc:
            raise MissingDependencyError(f'the encoder needs {exc.name}: pip install "llm-proxy[cpu]"') from exc
        self._np, self._ort = numpy, onnxruntime
        model = ModelFolder.read(folder)
        self._foreign = onnxruntime_errors(onnxruntime)
        self._session, chosen = self._open(model, providers, precision)
        self._has_batches = chosen != "int8"
        self._dim, self._window = model.dim, model.window_tokens
        self._layers_dim = _layers_dim(self._session)
        self._outputs = ["vector", "layers"] if self._layers_dim else ["vector"]
        self._name = f"{model.name}-{chosen}@{model.sha256[model.graphs[chosen]][:12]}"
        text = model.file("tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._window)
        self._unknown = self._tokenizer.token_to_id(model.unknown_token)

    @property
    def name(self) -> str:
        """Identity of the weights and their arithmetic, e.g. ``all-MiniLM-L6-v2-int8@<12 hex digits>``."""
        return self._name

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._dim

    @property
    def window_tokens(self) -> int:
        """Most tokens of a text that its vector stands for, the two special ones included."""
        return self._window

    @property
    def provider(self) -> str:
        """The execution provider that is really in use, e.g. ``CPUExecutionProvider``."""
        return str(self._session.get_providers()[0])

    @property
    def layers_dim(self) -> int:
        """Length of `Encoding.layers`; 0 where the graph shows none."""
        return self._layers_dim

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, at most ``window_tokens``."""
        return len(self._tokens(text)[0])

    def encode(self, text: str) -> Encoding:
        """Encode one text; see `llm_proxy.encode.base.Encoder.encode`.

        Raises:
            CacheError: ONNX Runtime failed, or gave something else than a unit vector.
        """
        ids, seen = self._tokens(text)
        vectors, layers = self._run([ids])
        return Encoding(vectors[0], seen, layers[0] if self._layers_dim else None)

    def encode_batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of many texts, the same as one by one (on accelerators up to rounding).

        Returns:
            Shape ``(len(texts), dim)``, float32, rows of unit length.

        Raises:
            CacheError: As for `encode`.
        """
        return self.encode_layers(texts)[0]

    def encode_layers(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of many texts, and the means of inner layers beside them.

        Returns:
            As for `encode_batch`; and shape ``(len(texts), k)``, float32, see `Encoding.layers`, where k is 0 for a
            graph that shows none.

        Raises:
            CacheError: As for `encode`.
        """
        size = _BATCH if self._has_batches else 1
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        rows = [self._run([self._tokens(text)[0] for text in part]) for part in parts]
        empty = (self._np.empty((0, width), self._np.float32) for width in (self._dim, self._layers_dim))
        vectors, layers = (self._np.concatenate(found) for found in zip(empty, *rows, strict=True))
        return vectors, layers

    def _tokens(self, text: str) -> tuple[list[int], int]:
        part, sound = readable(text, self._window * MOST_CHARS_PER_TOKEN)
        found = self._tokenizer.encode(part)
        ids: list[int] = found.ids
        is_cut = len(part) < len(text) or (len(ids) == self._window and bool(found.overflowing))
        if not is_cut and self._unknown not in ids:
            return ids, sound
        return ids, min(sound, seen_chars(ids, found.offsets, self._unknown))

    def _run(self, rows: list[list[int]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        numpy, most = self._np, max(map(len, rows))
        feed = {
            "input_ids": numpy.array([row + [0] * (most - len(row)) for row in rows], numpy.int64),
            "attention_mask": numpy.array([[1] * len(row) + [0] * (most - len(row)) for row in rows], numpy.int64),
        }
        try:
            vectors, *others = self._session.run(self._outputs, feed)
        except self._foreign as exc:
            raise CacheError(f"the encoder {self._name} could not run: {exc}") from exc
        if vectors.shape != (len(rows), self._dim):
            raise CacheError(f"the encoder {self._name} gave shape {vectors.shape}, not {(len(rows), self._dim)}")
        lengths = numpy.einsum("ij,ij->i", vectors, vectors)
        if not all(math.isclose(length, 1.0, abs_tol=1e-3) for length in lengths.tolist()):  # false for NaN too
            raise CacheError(f"the encoder {self._name} gave a vector that is not of unit length")
        return vectors, others[0] if others else numpy.empty((len(rows), 0), numpy.float32)

    def _open(self, model: ModelFolder, providers: Sequence[str] | None, precision: str | None) -> tuple[Any, str]:
        """A session and its precision: with the providers named or none; else with what starts, the processor last."""
        there = self._ort.get_available_providers()
        wanted = list(providers) if providers is not None else [name for name in (_CUDA, _CPU) if name in there]
        missing = [name for name in wanted if name not in there]
        if missing or not wanted:
            names = ", ".join(missing) or "to use"
            raise ConfigError(f"ONNX Runtime has no provider {names}; it has {', '.join(there)}")
        chosen = precision or ("int8" if wanted[0] == _CPU or "float" not in model.graphs else "float")
        if chosen not in model.graphs:
            raise ConfigError(f"precision {chosen!r} is not among {sorted(model.graphs)} of {model.path}")
        for name in {model.graphs["int8"], model.graphs[chosen]}:  # the float graph reads its weights from the other
            model.file(name)
        try:
            session = self._start(model.path / model.graphs[chosen], wanted)
        except self._foreign as exc:
            if providers is None and wanted[0] != _CPU:
                return self._open(model, [_CPU], precision)
            raise model.unusable(f"{model.graphs[chosen]}: {exc}") from exc
        if session.get_providers()[0] != wanted[0]:
            if providers is None:
                return self._open(model, [_CPU], precision)
            raise ConfigError(f"{wanted[0]} did not start; are its libraries installed?")
        _check_signature(model, session)
        return session, chosen

    def _start(self, path: Path, providers: list[str]) -> Any:
        if _CUDA in providers and hasattr(self._ort, "preload_dlls"):
            self._ort.preload_dlls()  # finds the CUDA libraries that the gpu extra brings as packages
        options = self._options()  # without the fallback of ONNX Runtime, which prints
        return self._ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # The graph is fused as it should be; further fusions pick a slower kernel for Add and LayerNormalization.
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # Texts of every length come by: an arena keeps the largest buffers for ever and saves no time here.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 3
        return options


def _check_signature(model: ModelFolder, session: Any) -> None:
    inputs, outputs = ({tensor.name for tensor in side} for side in (session.get_inputs(), session.get_outputs()))
    if inputs != {"input_ids", "attention_mask"} or "vector" not in outputs:
        raise model.unusable(
            f"the graph maps {sorted(inputs)} to {sorted(outputs)}, not input_ids and attention_mask to vector"
        )


def _layers_dim(session: Any) -> int:
    """Length of the inner layers' means; 0 for a graph that shows none, or none of a fixed length."""
    width = next((tensor.shape[-1] for tensor in session.get_outputs() if tensor.name == "layers"), 0)
    return width if isinstance(width, int) else 0
