"""Any model of the sentence-transformers library as the encoder: more languages, longer windows, more memory."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import CacheError, ConfigError, MissingDependencyError

from ._text import MOST_CHARS_PER_TOKEN, readable, seen_chars
from .base import Encoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEncoder"]


class SentenceTransformersEncoder:
    """An `llm_proxy.encode.base.Encoder` on sentence-transformers; loads when constructed.

    One text at a time: a tokenizer of this library changes its own settings for each call and refuses a second
    caller meanwhile.

    Args:
        model: Name of a model or path of a folder, as ``SentenceTransformer`` takes it; a name may be downloaded.
        device: Where it runs, e.g. ``cpu`` or ``cuda``; None leaves the choice to the library.

    Raises:
        MissingDependencyError: The library is not installed.
        ConfigError: The model is not there or can't be loaded.
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as exc:
            hint = 'pip install "llm-proxy[sentence-transformers]"'
            raise MissingDependencyError(f"encoder.kind sentence-transformers needs {exc.name}: {hint}") from exc
        try:
            self._model: Any = SentenceTransformer(model, device=device)
        except (OSError, ValueError, RuntimeError) as exc:
            raise ConfigError(f"encoder.model {model!r} could not be loaded by sentence-transformers: {exc}") from exc
        self._lock = Lock()
        self._window: int | None = self._model.max_seq_length
        self._prompt: str = (self._model.prompts or {}).get(self._model.default_prompt_name) or ""
        self._name = f"{Path(model).name}@{_weights_hash(self._model)[:12]}"
        self._dim = len(self._vector(""))

    @property
    def name(self) -> str:
        """Name of the model and hash of its weights and its way of pooling, 12 hex digits."""
        return self._name

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._dim

    def encode(self, text: str) -> Encoding:
        """Encode one text; see `llm_proxy.encode.base.Encoder.encode`.

        Raises:
            CacheError: The model failed, or gave something else than a unit vector.
        """
        most = len(text) if self._window is None else self._window * MOST_CHARS_PER_TOKEN
        part, sound = readable(text, most)
        with self._lock:
            return Encoding(self._vector(part), min(sound, self._seen(part, is_cut=len(part) < len(text))))

    def _vector(self, text: str) -> NDArray[np.float32]:
        import numpy as np

        try:
            found = self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)
        except (RuntimeError, ValueError) as exc:
            raise CacheError(f"the encoder {self._name} could not run: {exc}") from exc
        vector = np.asarray(found, np.float32)
        if vector.ndim != 1 or not abs(float(vector @ vector) - 1) < 1e-3:  # also refuses NaN
            raise CacheError(f"the encoder {self._name} gave {vector.shape}, not one vector of unit length")
        return vector

    def _seen(self, part: str, *, is_cut: bool) -> int:
        tokenizer, start = self._model.tokenizer, len(self._prompt)
        if not getattr(tokenizer, "is_fast", False):  # has no positions: trust it with whole short texts only
            return len(part) if not is_cut and start + len(part) < (self._window or len(part) + 1) - 2 else 0
        limit = {} if self._window is None else {"truncation": True, "max_length": self._window}
        found = tokenizer(self._prompt + part, return_offsets_mapping=True, **limit)
        ids, offsets = found["input_ids"], [(a - start, b - start) for a, b in found["offset_mapping"]]
        seen = max(0, seen_chars(ids, offsets, tokenizer.unk_token_id))
        is_whole = not is_cut and tokenizer.unk_token_id not in ids and not part[seen:].strip()
        return len(part) if is_whole else seen


def _weights_hash(model: Any) -> str:
    """Hash of all that decides a vector: weights, window, prompt and the modules in their order."""
    uint8 = import_module("torch").uint8
    state = hashlib.sha256(repr((model.max_seq_length, model.prompts, model.default_prompt_name)).encode())
    for module in model:
        pooling = getattr(module, "get_pooling_mode_str", lambda: "")()
        state.update(f"{type(module).__name__} {pooling}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy())
    return state.hexdigest()
