"""Heads on ONNX Runtime: how good each model's answer will be, and how long, from a question's vector and text.

A head is a folder::

    config.json    format, name, encoder, dim, layers, features, models, graph, sha256
    model.onnx     vector (n, dim) float32, features (n, F) float32, layers (n, layers) float32 unless that is 0
                   -> p_good (n, M) float32 in [0, 1], log_tokens (n, M) float32, NaN where nothing is known of lengths;
                   else the natural logarithm of one more than the tokens
    card.md        what it was trained on, how good it is, and where it is not

``llm_proxy.route.train`` writes such folders.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import ConfigError, RouterError
from llm_proxy.shipped import libraries, onnxruntime_errors, session

from .base import Prediction
from .features import FEATURES, text_features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.encode.base import Encoding

__all__ = ["FORMAT", "HeadConfig", "OnnxHead"]

FORMAT = 1
"""Of the folders that this version reads and writes."""

_MOST_LOG_TOKENS = 20.0  # half a billion: longer answers are a mistake
_OUTPUTS = {"p_good", "log_tokens"}


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What ``config.json`` says of a head.

    Attributes:
        name: Of the head, for people.
        encoder: Identity of the encoder whose vectors it reads, see `Encoder.name`.
        dim: Length of these vectors.
        layers: Length of `Encoding.layers` that it reads; 0 where it reads none.
        features: Names of the text features that it reads, in their order.
        models: Models that it knows, in the order of its outputs.
        graph: Name of the graph's file.
        sha256: Of the graph's bytes, 64 hex digits.
    """

    name: str
    encoder: str
    dim: int
    layers: int
    features: tuple[str, ...]
    models: tuple[str, ...]
    graph: str
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> HeadConfig:
        """Read a folder's ``config.json``.

        Raises:
            ConfigError: It is absent, no JSON, of another format, or lacks something; the message says which.
        """
        try:
            found = json.loads((folder / "config.json").read_bytes())
            return cls._checked(found)
        except (OSError, ValueError, RecursionError) as exc:
            raise ConfigError(f"{str(folder)!r} is no usable head: config.json: {exc}") from exc

    @classmethod
    def _checked(cls, found: Any) -> HeadConfig:
        if not isinstance(found, dict):
            raise ValueError("must be an object")
        if found.get("format") != FORMAT:
            raise ValueError(f"format is {found.get('format')!r}, this version reads {FORMAT}; train the head anew")
        texts = [name for name in ("name", "encoder", "graph", "sha256") if not isinstance(found.get(name), str)]
        lists = [name for name in ("features", "models") if not _is_texts(found.get(name))]
        sizes = [name for name in ("dim", "layers") if type(found.get(name)) is not int or found[name] < 0]
        if texts or lists or sizes:
            raise ValueError(f"{', '.join([*texts, *lists, *sizes])}: absent or of the wrong type")
        if not found["models"] or len(set(found["models"])) < len(found["models"]):
            raise ValueError("models: none, or one of them twice")
        unknown = [name for name in found["features"] if name not in FEATURES]
        if unknown:
            raise ValueError(f"features: {', '.join(unknown)}: unknown to this version; train the head anew")
        if Path(found["graph"]).name != found["graph"]:
            raise ValueError("graph: must name a file of the folder itself")
        values = {name: found[name] for name in ("name", "encoder", "dim", "layers", "graph", "sha256")}
        return cls(features=tuple(found["features"]), models=tuple(found["models"]), **values)

    def write(self, folder: Path) -> None:
        """Write ``config.json``."""
        values = {"format": FORMAT, **{name: getattr(self, name) for name in self.__slots__}}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class OnnxHead:
    """An `llm_proxy.route.base.Head` on ONNX Runtime, on one thread of the processor; loads when constructed.

    A head is a few matrices and trees: it takes less time there than a text takes to get to a GPU. Safe to share
    between threads.

    Args:
        folder: See the module's text.

    Raises:
        MissingDependencyError: ONNX Runtime or numpy is not installed.
        ConfigError: The folder holds no head, another one than its ``config.json`` describes, or a newer one.
    """

    def __init__(self, folder: Path) -> None:
        self._np, onnxruntime = libraries("routing by a head", "numpy", "onnxruntime")
        self._config = config = HeadConfig.read(folder)
        self._foreign = onnxruntime_errors(onnxruntime)
        try:
            content = (folder / config.graph).read_bytes()
        except (OSError, ValueError) as exc:  # ValueError: a name that no file can have
            raise _unusable(folder, f"{config.graph}: {getattr(exc, 'strerror', None) or exc}") from exc
        if hashlib.sha256(content).hexdigest() != config.sha256:
            raise _unusable(folder, f"{config.graph} is not the file that config.json describes")
        try:
            self._session = session(onnxruntime, content)
        except self._foreign as exc:
            raise _unusable(folder, f"{config.graph}: {exc}") from exc
        self._check_signature(folder)
        self._try(folder)
        self._places = None if config.features == FEATURES else [FEATURES.index(name) for name in config.features]

    @property
    def name(self) -> str:
        """Name and the first digits of the graph's hash."""
        return f"{self._config.name}@{self._config.sha256[:12]}"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that it knows."""
        return self._config.models

    @property
    def encoder(self) -> str:
        """Identity of the encoder whose vectors it reads."""
        return self._config.encoder

    def predict(self, text: str, encoding: Encoding) -> Mapping[str, Prediction]:
        """What to expect of each model; see `llm_proxy.route.base.Head.predict`.

        Raises:
            RouterError: The vector is of another length, or the graph failed or gave something else than numbers.
        """
        features = text_features(text)
        if self._places is not None:
            features = tuple(features[place] for place in self._places)
        layers = encoding.layers
        if self._config.layers and layers is None:
            raise RouterError(f"the head {self.name} reads inner layers, which this encoder does not show")
        row = self._np.array([features], self._np.float32)
        good, logs = self.run(encoding.vector[None], row, None if layers is None else layers[None])
        found = {}
        for model, p, log in zip(self.models, good[0].tolist(), logs[0].tolist(), strict=True):
            if not math.isfinite(p):
                raise RouterError(f"the head {self.name} gave something else than numbers")
            found[model] = Prediction(min(max(p, 0.0), 1.0), _tokens(log))
        return found

    def run(
        self, vectors: NDArray[np.float32], features: NDArray[np.float32], layers: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph.

        Args:
            vectors: Shape ``(n, dim)``, float32.
            features: Those of `HeadConfig.features`, shape ``(n, F)``, float32.
            layers: Shape ``(n, layers)``, float32; not read by a head whose ``layers`` is 0.

        Returns:
            ``p_good`` and ``log_tokens``, both shape ``(n, len(models))``, float32, as the graph gives them.

        Raises:
            RouterError: The graph failed, or gave another shape.
        """
        feed = {"vector": vectors, "features": features, **({"layers": layers} if self._config.layers else {})}
        try:
            good, logs = self._session.run(["p_good", "log_tokens"], feed)
        except self._foreign as exc:
            raise RouterError(f"the head {self.name} could not run: {exc}") from exc
        shape = (len(vectors), len(self.models))
        if good.shape != shape or logs.shape != shape:
            raise RouterError(f"the head {self.name} gave shapes {good.shape} and {logs.shape}, not {shape}")
        return good, logs

    def predict_many(
        self, vectors: NDArray[np.float32], features: NDArray[np.float32], layers: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What to expect of each model for many questions.

        Args:
            vectors: Shape ``(n, dim)``, float32.
            features: All of `FEATURES`, shape ``(n, F)``, float32.
            layers: Shape ``(n, k)``, float32; not read by a head that reads none.

        Returns:
            ``p_good``, shape ``(n, len(models))``, float32, in [0, 1], and ``log_tokens`` of the same shape.

        Raises:
            RouterError: The shapes are others, or the graph failed or gave something else than numbers.
        """
        read = features if self._places is None else features[:, self._places]
        good, logs = self.run(vectors, read, layers)
        if not self._np.isfinite(good).all():
            raise RouterError(f"the head {self.name} gave something else than numbers")
        return good.clip(0, 1), logs

    def _try(self, folder: Path) -> None:
        """Run it once: what loads and can't answer must not take the place of what can."""
        numpy, config = self._np, self._config
        sizes = (config.dim, len(config.features), config.layers)
        vector, features, layers = (numpy.zeros((1, size), numpy.float32) for size in sizes)
        try:
            good, logs = self.run(vector, features, layers)
            is_sound = numpy.isfinite(good).all() and good.dtype == logs.dtype == numpy.float32
        except (RouterError, TypeError) as exc:
            raise _unusable(folder, str(exc)) from exc
        if not is_sound:
            raise _unusable(folder, "it gives something else than numbers")

    def _check_signature(self, folder: Path) -> None:
        sides = self._session.get_inputs(), self._session.get_outputs()
        inputs, outputs = ({tensor.name for tensor in side} for side in sides)
        config = self._config
        wanted = {"vector": config.dim, "features": len(config.features)}
        wanted |= {"layers": config.layers} if config.layers else {}
        if inputs != set(wanted) or not outputs >= _OUTPUTS:
            raise _unusable(folder, f"its graph maps {sorted(inputs)} to {sorted(outputs)}")
        widths = {tensor.name: tensor.shape[-1] if tensor.shape else 0 for tensor in sides[0]}
        if widths != wanted:
            raise _unusable(folder, f"its graph reads {widths}, config.json says something else")


def _tokens(log: float) -> float | None:
    return max(1.0, math.expm1(min(log, _MOST_LOG_TOKENS))) if math.isfinite(log) else None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _unusable(folder: Path, why: str) -> ConfigError:
    return ConfigError(f"{str(folder)!r} is no usable head: {why}")
