"""Texts that come at the same time go through the encoder together: for accelerators, where that takes no longer.

::

    a text comes, nothing runs      it is run at once, by its own thread
    a text comes, something runs    it waits for that run to end, a millisecond or two
    a run ends, texts wait          the thread of the oldest leads: it runs that text and those of like length with it
    a batch fails                   each of its texts is run alone, by its own thread
    nobody leads for a second       (its thread was interrupted) the one that waited leads

So nothing waits on an idle encoder, there is no timer and no thread besides the callers', and the batches are the
larger the more calls there are. Texts of like length only, because a batch is padded to its longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, RLock
from typing import Generic, TypeVar

from llm_proxy.errors import CacheError, LLMProxyError

__all__ = ["MOST_TEXTS", "MOST_TOKENS", "Batcher", "taken"]

MOST_TEXTS = 64
"""Of one batch."""
MOST_TOKENS = 4096
"""Of one batch, padding included."""
_PATIENCE_S = 1.0

R = TypeVar("R")


def taken(lengths: Sequence[int]) -> list[int]:
    """Which of the texts that wait go into the next batch. Pure.

    Args:
        lengths: Their tokens, oldest first; at least one.

    Returns:
        Their places, ascending: the oldest, and after it those of its bucket (powers of two from 16 on) for which there
        is room under `MOST_TEXTS` and `MOST_TOKENS`.
    """
    bucket = _bucket(lengths[0])
    most = min(MOST_TEXTS, max(1, MOST_TOKENS // max(bucket, lengths[0])))
    return [place for place, length in enumerate(lengths) if _bucket(length) == bucket][:most]


def _bucket(length: int) -> int:
    return 1 << max(4, (length - 1).bit_length())


class _Text(Generic[R]):
    """A text that waits; its thread is woken when it was run, when it shall lead, or when it shall go alone."""

    def __init__(self, row: list[int]) -> None:
        self.row = row
        self.woken = Event()
        self.leads = False
        self.found: R | None = None


class Batcher(Generic[R]):
    """Runs texts in batches; safe to call from many threads, which is what it is for.

    Args:
        run: Results of rows of tokens, in their order.
    """

    def __init__(self, run: Callable[[Sequence[list[int]]], Sequence[R]]) -> None:
        self._run = run
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's callers, whose threads a child does not have."""
        self._lock = RLock()  # reentrant: the garbage collector may end another call at any place
        self._waiting: list[_Text[R]] = []
        self._is_running = False

    def __call__(self, row: list[int]) -> R:
        """The result of one row; waits while others run.

        Raises:
            LLMProxyError: What ``run`` raises for this row alone.
        """
        text: _Text[R] = _Text(row)
        with self._lock:
            text.leads = not self._is_running
            self._is_running = True
            if not text.leads:
                self._waiting.append(text)
        if not text.leads and not self._is_woken(text):
            with self._lock:
                if text in self._waiting:
                    self._waiting.remove(text)
                    text.leads = self._is_running = True
        if text.leads:
            self._lead(text)
        return self._run([row])[0] if text.found is None else text.found

    def _is_woken(self, text: _Text[R]) -> bool:
        try:
            return text.woken.wait(_PATIENCE_S)
        except BaseException:  # interrupted: nobody must wait for a leader that has gone
            with self._lock:
                if text in self._waiting:
                    self._waiting.remove(text)
                is_leader = text.leads
            if is_leader:
                self._hand_on()
            raise

    def _lead(self, text: _Text[R]) -> None:
        with self._lock:
            texts = [text, *self._waiting]
            chosen = [texts[place] for place in taken([len(one.row) for one in texts])]
            self._waiting = [one for one in self._waiting if one not in chosen]
        try:
            found = self._run([one.row for one in chosen])
            if len(found) != len(chosen):  # whose is whose?
                raise CacheError(f"{len(found)} vectors of {len(chosen)} texts")
            for one, result in zip(chosen, found, strict=True):
                one.found = result
        except LLMProxyError:
            if len(chosen) == 1:
                raise
        finally:
            self._hand_on()
            for one in chosen:
                one.woken.set()

    def _hand_on(self) -> None:
        with self._lock:
            self._is_running = bool(self._waiting)
            if self._waiting:
                oldest = self._waiting.pop(0)
                oldest.leads = True
                oldest.woken.set()
