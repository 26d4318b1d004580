"""An encoder that loads in the background, and is left alone for a while when it fails or is late."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError, LLMProxyError

from .base import Encoder, Encoding

if TYPE_CHECKING:
    from llm_proxy.config import EncoderConfig

__all__ = ["LazyEncoder", "build"]

_WINDOWFUL = "a text that fills the window " * 100
_LATE_BEFORE_OPEN = 5


class LazyEncoder:
    """An `llm_proxy.encode.base.Encoder` around one that is not there yet; safe to share between threads.

    A load that failed is not tried again for ``retry_after_s``: every call in between gets the same error at once.
    Apart from that it keeps a circuit for an encoder that is there but slow: after five time-outs in a row
    ``is_open`` says for ``retry_after_s`` that waiting is not worth it; then one more time-out opens it again, and
    one success closes it.

    Args:
        load: Makes the encoder; may take seconds. Called once, from one thread, unless it fails.
        retry_after_s: Rest after a failed load, and of an open circuit, seconds, > 0.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        *,
        retry_after_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._retry_after_s, self._monotonic = load, retry_after_s, monotonic
        self._encoder: Encoder | None = None
        self._failure: LLMProxyError | None = None
        self._retry_at_s = self._open_until_s = -float("inf")
        self._late_in_a_row, self._is_started = 0, False
        self._slowest_s = float("inf")
        self._loading = Lock()  # held while loading; the state below has its own
        self._state = Lock()

    @property
    def name(self) -> str:
        """Identity of the weights.

        Raises:
            CacheError: It has not loaded yet.
        """
        return self._loaded().name

    @property
    def dim(self) -> int:
        """Length of every vector.

        Raises:
            CacheError: It has not loaded yet.
        """
        return self._loaded().dim

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded."""
        return self._encoder is not None

    @property
    def slowest_s(self) -> float:
        """The longest that one text has taken, seconds: a text as long as the window first, then any; inf before.

        It tells whether an encoder is quick enough to be called without a thread to wait for it.
        """
        return self._slowest_s

    @property
    def is_open(self) -> bool:
        """Whether it has been late so often that callers should not wait for it now."""
        with self._state:
            return self._late_in_a_row >= _LATE_BEFORE_OPEN and self._monotonic() < self._open_until_s

    def start(self, submit: Callable[[Callable[[], None]], object]) -> None:
        """Load in the background.

        Args:
            submit: Runs a function later in another thread, e.g. ``pool.submit``; called at most once in all.
        """
        with self._state:
            if self._is_started:
                return
            self._is_started = True
        submit(self._warm)

    def encode(self, text: str) -> Encoding:
        """Encode one text, loading first where that has not been done; see `llm_proxy.encode.base.Encoder.encode`.

        Raises:
            LLMProxyError: What the load raised, or the encoder.
        """
        encoder = self._encoder or self._loaded_now()
        started_s = self._monotonic()
        encoding = encoder.encode(text)
        self._slowest_s = max(self._slowest_s, self._monotonic() - started_s)
        return encoding

    def note_timeout(self) -> None:
        """Count a vector that came too late."""
        with self._state:
            self._late_in_a_row += 1
            if self._late_in_a_row >= _LATE_BEFORE_OPEN:
                self._open_until_s = self._monotonic() + self._retry_after_s

    def note_success(self) -> None:
        """Count a vector that came in time."""
        if self._late_in_a_row:
            with self._state:
                self._late_in_a_row = 0

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            raise CacheError("the encoder has not loaded yet")
        return self._encoder

    def _warm(self) -> None:
        try:
            encoder = self._loaded_now()
            encoder.encode(_WINDOWFUL)  # the first run of a session takes longer than the others
            started_s = self._monotonic()
            encoder.encode(_WINDOWFUL)
            self._slowest_s = self._monotonic() - started_s
        except LLMProxyError:
            return  # kept for the next caller of `encode`, who says so where it is counted

    def _loaded_now(self) -> Encoder:
        with self._loading:
            if self._encoder is not None:
                return self._encoder
            if self._failure is not None and self._monotonic() < self._retry_at_s:
                raise self._failure.with_traceback(None)  # else each raise would lengthen the kept traceback
            try:
                self._encoder = self._load()
            finally:
                self._settle(sys.exc_info()[1])
            return self._encoder

    def _settle(self, failure: BaseException | None) -> None:
        """Remember how a load ended. Time-outs of callers that came too early say nothing about the encoder."""
        self._retry_at_s = self._monotonic() + self._retry_after_s
        if self._encoder is not None:
            self._failure = None
            self.note_success()
        elif isinstance(failure, LLMProxyError):
            self._failure = failure
        else:
            self._failure = CacheError(f"the encoder could not be loaded: {type(failure).__name__}: {failure}")


def build(config: EncoderConfig, *, monotonic: Callable[[], float] = time.monotonic) -> LazyEncoder:
    """The encoder that a configuration asks for; nothing is loaded or imported yet."""
    if config.kind == "sentence-transformers":
        return LazyEncoder(partial(_sentence_transformers, config.model), monotonic=monotonic)
    return LazyEncoder(partial(_onnx, config.model), monotonic=monotonic)


def _onnx(model: str) -> Encoder:
    from .onnx import OnnxEncoder

    return OnnxEncoder(Path(model).expanduser() if model else None)


def _sentence_transformers(model: str) -> Encoder:
    from .sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(model or "sentence-transformers/all-MiniLM-L6-v2")
