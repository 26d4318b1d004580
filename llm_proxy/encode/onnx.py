"""The shipped encoder: ``tokenizers`` cuts the text, ONNX Runtime runs the graph where it works best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import ConfigError
from llm_proxy.shipped import CPU, libraries, tokenizer_of

from ._text import MOST_CHARS_PER_TOKEN, readable, seen_chars
from .base import Encoding
from .batching import Batcher
from .fallback import FallbackGraph, Note
from .graph import EncoderGraph
from .models import ModelFolder
from .providers import DEVICES, Choice, choose, compared

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OnnxEncoder"]

_BATCH = 64
_PROBE = "Which of these few words tell whether the vectors come out right? "


class OnnxEncoder:
    """An `llm_proxy.encode.base.Encoder` on ONNX Runtime; loads when constructed, takes about 70 MB.

    On processors it runs the int8 graph. Activations are quantised by the range of their whole tensor there, so texts
    are run one by one: the vector of a text never depends on its neighbours in a batch. On accelerators it runs the
    float graph over the same weights; texts that come at the same time are run together (`llm_proxy.encode.batching`),
    and the processor takes over when the accelerator fails (`llm_proxy.encode.fallback`).

    Args:
        folder: Folder with ``config.json``, ``tokenizer.json`` and the graphs, as ``router_models/encoder``; None for
            the one that ships with llm-proxy.
        providers: The one execution provider to use, by ONNX Runtime's name, whatever happens; of several the first.
            None: as ``device`` says.
        precision: ``int8`` or ``float``; None for what suits the provider.
        device: See `llm_proxy.config.EncoderConfig`.
        note: Counts each time that an accelerator is left.
        later: Runs a job beside the calls; a job is run at once where there is none.
        monotonic: Clock, seconds.

    Raises:
        MissingDependencyError: ONNX Runtime, tokenizers or numpy is not installed, or the shipped model is damaged.
        ConfigError: ``folder`` is no model folder, or a provider or precision does not exist.
    """

    def __init__(
        self,
        folder: Path | None = None,
        providers: Sequence[str] | None = None,
        *,
        precision: str | None = None,
        device: str = "auto",
        note: Note = lambda part, exc: None,
        later: Callable[[Callable[[], None]], object] = lambda job: job(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._np, self._ort, tokenizers = libraries("the encoder", "numpy", "onnxruntime", "tokenizers")
        if device not in DEVICES and device != "auto":
            raise ConfigError(f"device {device!r} must be auto or one of {', '.join(DEVICES)}")
        self._model, self._precision = ModelFolder.read(folder), precision
        self._window = self._model.window_tokens
        text = self._model.file("tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = tokenizer_of(tokenizers, text, self._window)
        self._unknown = self._tokenizer.token_to_id(self._model.unknown_token)
        self._note, self._later, self._monotonic = note, later, monotonic
        choice = self._pinned(providers) if providers is not None else self._chosen(device)
        self._name, self._dim, self._layers_dim = choice.graph.name, choice.graph.dim, choice.graph.layers_dim
        # Whether a text's vector is the same beside others, up to rounding.
        self._has_batches = self._precision_on(choice.graph.provider) != "int8"
        self.passed_over = choice.passed_over
        """Providers that were tried and are not used, each with the reason."""
        self._graph, self._batcher = self._made_safe(choice, must_be_quick=device == "auto")

    def after_fork(self) -> None:
        """In a child: leave the accelerator, which does not survive a fork, and forget the parent's callers."""
        if isinstance(self._graph, FallbackGraph):
            self._graph.after_fork()
        if self._batcher is not None:
            self._batcher.after_fork()

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
        return self._graph.provider

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
        batcher = self._batcher
        if batcher is not None and isinstance(self._graph, FallbackGraph) and self._graph.is_accelerated:
            vector, layers = batcher(ids)
        else:
            vector, layers = self._singly([ids])[0]
        return Encoding(vector, seen, layers if self.layers_dim else None)

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
        rows = [self._graph.run([self._tokens(text)[0] for text in part]) for part in parts]
        empty = (self._np.empty((0, width), self._np.float32) for width in (self.dim, self.layers_dim))
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

    def _singly(self, rows: Sequence[list[int]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return list(zip(*self._graph.run(rows), strict=True))

    def _precision_on(self, provider: str) -> str:
        chosen = self._precision or ("int8" if provider == CPU or "float" not in self._model.graphs else "float")
        if chosen not in self._model.graphs:
            raise ConfigError(f"precision {chosen!r} is not among {sorted(self._model.graphs)} of {self._model.path}")
        return chosen

    def _start(self, provider: str, precision: str | None = None) -> EncoderGraph:
        chosen = precision or self._precision_on(provider)
        return EncoderGraph(self._model, provider, chosen, (self._np, self._ort))

    def _pinned(self, providers: Sequence[str]) -> Choice[EncoderGraph]:
        there = self._ort.get_available_providers()
        missing = [name for name in providers if name not in there]
        if missing or not providers:
            names = ", ".join(missing) or "to use"
            raise ConfigError(f"ONNX Runtime has no provider {names}; it has {', '.join(there)}")
        return Choice(self._start(providers[0]), None, ())

    def _chosen(self, device: str) -> Choice[EncoderGraph]:
        return choose(device, self._ort.get_available_providers(), self._start, self._probes())

    def _probes(self) -> list[list[int]]:
        return [self._tokens(_PROBE * times)[0] for times in (1, self._window)]

    def _made_safe(
        self, choice: Choice[EncoderGraph], *, must_be_quick: bool
    ) -> tuple[EncoderGraph | FallbackGraph, Batcher[Any] | None]:
        """The graph with the processor behind it, and what batches its texts, where it is on an accelerator."""
        graph = choice.graph
        if choice.pace is None:
            return graph, None
        precision = self._precision_on(graph.provider)
        made = FallbackGraph(
            graph,
            start=partial(self._start, graph.provider),
            processor=partial(self._start, CPU, precision),
            compare=partial(compared, probes=self._probes(), must_be_quick=must_be_quick),
            pace=choice.pace,
            note=self._note,
            later=self._later,
            monotonic=self._monotonic,
        )
        return made, Batcher(self._singly) if self._has_batches else None
