"""An encoder that loads in the background, and rests for a while after it failed or was late too often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError, LLMProxyError

from .base import Encoder, Encoding

if TYPE_CHECKING:
    from llm_proxy.config import EncoderConfig

    from .fallback import Note

__all__ = ["LazyEncoder", "build"]

_WINDOWFUL = "a text that fills the window " * 100
_LATE_BEFORE_OPEN = 5
_TIMED_RUNS = 3
_DENSEST = 5  # characters of the text above a token, blanks counted: hardly a text has more tokens than characters
_KEPT = 0.9  # of the slowest time, with each text: three seconds are forgotten after 46 texts of a millisecond


class LazyEncoder:
    """An `llm_proxy.encode.base.Encoder` that loads another one later; safe to share between threads.

    A load that failed is not tried again for ``retry_after_s``: every call in between gets the same error at once.
    A loaded encoder that is slow opens a circuit: after five time-outs in a row ``is_open`` is true for
    ``retry_after_s``, and callers don't wait. After that one more time-out opens it again, and one success closes it.

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
        self._submit: Callable[[Callable[[], None]], object] | None = None
        self._window_s, self._window_chars, self._recent_s = float("inf"), 1, 0.0
        self.after_fork()

    def after_fork(self) -> None:
        """Take new locks in a child, where nobody would release the old ones; what has loaded stays."""
        self._loading = RLock()  # held while loading; the state below has its own
        # Both reentrant: the garbage collector may end another call, on the same thread, at any place.
        self._state = RLock()
        self._is_started = self._is_started and self.is_ready
        forget = getattr(self._encoder, "after_fork", None)
        if forget is not None:
            forget()

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
    def failure(self) -> str:
        """Why the last load came to nothing; empty when it did not, or when there was none."""
        failure = self._failure
        return "" if self.is_ready or failure is None else str(failure)

    @property
    def slowest_s(self) -> float:
        """How long a text may take, seconds; inf while the encoder has not loaded.

        The greater of two: the best of three runs with a text that fills the window, timed after the load; and the
        longest of the latest texts, where each text lets the memory fade: ``recent = max(took, 0.9 * recent)``. So
        a single slow run counts for some tens of texts, not for ever.
        """
        return max(self._recent_s, self._window_s)

    def may_take_s(self, *texts: str) -> float:
        """How long these texts may take, one after the other, seconds; inf while the encoder has not loaded.

        As `slowest_s`, but of the text that fills the window only the share that each fills at most. It tells whether
        an encoder is quick enough to be called without a thread that waits for it.
        """
        share = sum(min(1.0, _DENSEST * len(text) / self._window_chars) for text in texts)
        return self.slowest_s if self._window_s == float("inf") else max(self._recent_s, share * self._window_s)

    @property
    def is_open(self) -> bool:
        """Whether it has been late so often that callers should not wait for it now."""
        with self._state:
            return self._late_in_a_row >= _LATE_BEFORE_OPEN and self._monotonic() < self._open_until_s

    def start(self, submit: Callable[[Callable[[], None]], object]) -> None:
        """Load in the background.

        Args:
            submit: Runs a function later in another thread, e.g. ``pool.submit``; called once, and for each `later`.
                That of a later call takes the place of the first one's.
        """
        with self._state:
            self._submit = submit
            if self._is_started:
                return
            self._is_started = True
        submit(self._warm)

    def later(self, job: Callable[[], None]) -> None:
        """Run a job of the encoder in another thread; at once, where `start` was not called."""
        submit = self._submit
        if submit is None:
            job()
        else:
            submit(job)

    def encode(self, text: str) -> Encoding:
        """Encode one text, loading first where that has not been done; see `llm_proxy.encode.base.Encoder.encode`.

        Raises:
            LLMProxyError: What the load raised, or the encoder.
        """
        encoder = self._encoder or self._loaded_now()
        started_s = self._monotonic()
        encoding = encoder.encode(text)
        took_s = self._monotonic() - started_s
        self._recent_s = max(took_s, _KEPT * self._recent_s)
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
            # The first run of a session takes longer than the others.
            self._window_chars = max(1, encoder.encode(_WINDOWFUL).seen_chars)
            self._window_s = min(self._timed(encoder) for _ in range(_TIMED_RUNS))
        except LLMProxyError:
            return  # `_loaded_now` keeps the error; the next caller of `encode` gets it and counts it

    def _timed(self, encoder: Encoder) -> float:
        started_s = self._monotonic()
        encoder.encode(_WINDOWFUL)
        return self._monotonic() - started_s

    def _loaded_now(self) -> Encoder:
        with self._loading:
            if self._encoder is not None:
                return self._encoder
            if self._failure is not None and self._monotonic() < self._retry_at_s:
                raise self._failure.with_traceback(None)  # each raise adds to the traceback of the kept error
            try:
                self._encoder = self._load()
            finally:
                self._settle(sys.exc_info()[1])
            return self._encoder

    def _settle(self, failure: BaseException | None) -> None:
        """Remember how a load ended; time-outs before the encoder had loaded say nothing about it and are forgotten."""
        self._retry_at_s = self._monotonic() + self._retry_after_s
        if self._encoder is not None:
            self._failure = None
            self.note_success()
        elif isinstance(failure, LLMProxyError):
            self._failure = failure
        else:
            self._failure = CacheError(f"the encoder could not be loaded: {type(failure).__name__}: {failure}")


def build(
    config: EncoderConfig,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    note: Note = lambda part, exc: None,
) -> LazyEncoder:
    """The encoder that a configuration asks for; nothing is loaded or imported yet.

    Args:
        config: The settings.
        monotonic: Clock, seconds.
        note: Counts each time that an accelerator fails and the processor takes over.
    """
    if config.kind == "sentence-transformers":
        return LazyEncoder(partial(_sentence_transformers, config.model), monotonic=monotonic)

    def load() -> Encoder:
        from .onnx import OnnxEncoder

        folder = Path(config.model).expanduser() if config.model else None
        return OnnxEncoder(folder, device=config.device, note=note, later=made.later, monotonic=monotonic)

    made = LazyEncoder(load, monotonic=monotonic)
    return made


def _sentence_transformers(model: str) -> Encoder:
    from .sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(model or "sentence-transformers/all-MiniLM-L6-v2")
