"""Is a cheap model's answer right? A graph says how likely, from both vectors and what the answer shows of itself.

The trees in ``router_models/answers`` read the numbers of `llm_proxy.route.answers` and one more, which a line over the
vectors of question and answer gives. Any of them may be absent: the trees know what to do without.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llm_proxy.errors import ConfigError, LLMProxyError, MissingDependencyError, RouterError
from llm_proxy.shipped import REINSTALL, libraries, model_folder, onnxruntime_errors, session

from .answers import FEATURES, features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.encode.base import Encoding

    from .adapt import Adaptation
    from .base import Reply

__all__ = ["AnswerScorer", "LazyScorer"]

_FIELDS = {"name": str, "graph": str, "encoders": list, "dim": int, "features": list, "sha256": dict}


class AnswerScorer:
    """The graph on ONNX Runtime, on one thread; loads when constructed. Safe to call from several threads at once.

    Args:
        folder: Folder with ``config.json`` and the graph, as ``router_models/answers``; None for the shipped one.
        own: A correction by marked answers of one's own; one that was fitted for another scorer has no effect.

    Raises:
        MissingDependencyError: ONNX Runtime or numpy is not installed, or the shipped graph is absent or damaged.
        ConfigError: ``folder`` holds no such graph.
    """

    def __init__(self, folder: Path | None = None, own: Adaptation | None = None) -> None:
        self._np, onnxruntime = libraries("the scorer", "numpy", "onnxruntime")
        self._foreign: tuple[type[Exception], ...] = (OSError, *onnxruntime_errors(onnxruntime))
        place = folder or model_folder("answers")
        try:
            settings = _settings(place)
            content = (place / settings["graph"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != settings["sha256"].get(settings["graph"]):
                raise ValueError(f"{settings['graph']} is not the file that config.json describes")
            self._session = session(onnxruntime, content)
            _check_signature(self._session)
        except self._foreign as exc:  # ValueError is among them
            raise _unusable(place, str(exc), is_shipped=folder is None) from exc
        self._dim = int(settings["dim"])
        self._name = f"{settings['name']}@{settings['sha256'][settings['graph']][:12]}"
        self.encoders: tuple[str, ...] = tuple(settings["encoders"])
        """Names of the encoders whose vectors it reads."""
        self._own = own if own is not None and own.scorer == self._name else None

    @property
    def name(self) -> str:
        """Identity of the weights."""
        return self._name

    def score(
        self,
        question: str,
        answer: Reply,
        *,
        asked: NDArray[np.float32] | None = None,
        said: NDArray[np.float32] | None = None,
    ) -> float:
        """The probability that an answer is right; see `logit`.

        Returns:
            In [0, 1], calibrated on the answers that it was trained on, or on those of the correction.
        """
        shown = features(question, answer)
        logit = self.logit(shown, asked=asked, said=said)
        if self._own is not None:
            logit = self._own.logit(logit, shown)
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, logit))))

    def logit(
        self,
        shown: Sequence[float],
        *,
        asked: NDArray[np.float32] | None = None,
        said: NDArray[np.float32] | None = None,
    ) -> float:
        """The logit of the probability that an answer is right, not corrected.

        Args:
            shown: What the answer shows, see `llm_proxy.route.answers.features`.
            asked: Vector of the question, shape ``(dim,)``, float32, unit norm; None where there is none.
            said: Vector of the answer, likewise.

        Returns:
            A finite number.

        Raises:
            RouterError: The graph failed, a vector has another shape, or what came out is no number.
        """
        numpy = self._np
        nothing = numpy.full(self._dim, numpy.nan, numpy.float32)
        feed = {
            "features": numpy.array([shown], numpy.float32),
            "question": (nothing if asked is None else asked)[None],
            "answer": (nothing if said is None else said)[None],
        }
        try:
            logit = float(self._session.run(["logit"], feed)[0][0, 0])
        except self._foreign as exc:
            raise RouterError(f"the scorer {self._name} could not run: {exc}") from exc
        if not math.isfinite(logit):
            raise RouterError(f"the scorer {self._name} gave {logit}")
        return logit


class Encodes(Protocol):
    """See `llm_proxy.encode.lazy.LazyEncoder`."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    def encode(self, text: str) -> Encoding:
        """Encode one text."""


class LazyScorer:
    """A scorer that loads with the first answer, with the encoder that makes its vectors; thread-safe.

    Args:
        encoder: Makes the vectors; None: answers are scored without.
        load: Makes the scorer.
    """

    def __init__(self, encoder: Encodes | None, load: Callable[[], AnswerScorer] = AnswerScorer) -> None:
        self._encoder, self._load = encoder, load
        self._lock = threading.Lock()
        self._scorer: AnswerScorer | None = None
        self._failure: LLMProxyError | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it can score, as far as is known: a scorer that could not be loaded is not tried again."""
        return self._failure is None

    def score(self, question: str, answer: Reply, encoding: Encoding | None) -> float:
        """The probability that an answer is right, in [0, 1]; takes a pass of the encoder, or two.

        Args:
            question: The last text of the user.
            answer: What a model said to it.
            encoding: The encoded question, where there is one; else it is encoded here.

        Raises:
            LLMProxyError: It can't be loaded or run.
        """
        scorer = self._scorer or self._loaded()
        encoder = self._encoder
        if encoder is None:
            return scorer.score(question, answer)
        try:
            asked = (encoder.encode(question) if encoding is None else encoding).vector
            if encoder.name not in scorer.encoders:  # known once it has loaded
                return scorer.score(question, answer)
            said = encoder.encode(answer.text).vector
        except LLMProxyError:
            return scorer.score(question, answer)  # nearly as sure: what the text shows tells the most
        return scorer.score(question, answer, asked=asked, said=said)

    def _loaded(self) -> AnswerScorer:
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._scorer is None:
                try:
                    self._scorer = self._load()
                except LLMProxyError as exc:
                    self._failure = exc
                    raise
            return self._scorer


def _settings(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "config.json").read_bytes())
    if not isinstance(settings, dict):
        raise ValueError("config.json: must be an object")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(settings.get(name), kind)]
    if wrong:
        raise ValueError(f"config.json: {', '.join(wrong)}: absent or of another kind")
    if Path(settings["graph"]).name != settings["graph"]:
        raise ValueError("config.json: graph must name a file of the folder itself")
    if tuple(settings["features"]) != FEATURES:
        raise ValueError("config.json: it was trained on other features than this version of llm-proxy computes")
    return settings


def _check_signature(session: Any) -> None:
    inputs, outputs = ({tensor.name for tensor in side} for side in (session.get_inputs(), session.get_outputs()))
    if inputs != {"features", "question", "answer"} or "logit" not in outputs:
        raise ValueError(f"the graph maps {sorted(inputs)} to {sorted(outputs)}")


def _unusable(folder: Path, why: str, *, is_shipped: bool) -> ConfigError | MissingDependencyError:
    if is_shipped:
        return MissingDependencyError(f"the scorer of this installation is damaged ({why}); {REINSTALL}")
    return ConfigError(f"{str(folder)!r} holds no usable scorer: {why}")
