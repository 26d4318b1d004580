"""A graph on an accelerator while that works, and on the processor while it does not.

::

    runs        on the accelerator
    a run fails, or gives no unit vectors
                the processor answers that call; where it can't either, the text is at fault and nothing changes
    50 runs in a row, each over 3 times what the processor takes
    either      the accelerator rests: 60 s, after each vain attempt twice as long, an hour at most
    rested      a new session is started and compared with the processor, beside the calls; if it works it is used

The processor runs the same graph in the same arithmetic, so vectors of before and after belong together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from threading import RLock

from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.shipped import CPU

from .graph import Graph, Vectors
from .providers import Pace

__all__ = ["FallbackGraph", "Note", "Rest"]

logger = logging.getLogger("llm_proxy")

Note = Callable[[str, Exception], object]
"""Counts a trouble of a part."""

_REST_S, _LONGEST_REST_S = 60.0, 3600.0
_SLOW_TIMES, _SLOW_RUNS = 3.0, 50


class Rest:
    """When an accelerator rests; not thread-safe.

    Args:
        pace: How long the processor takes.
        monotonic: Clock, seconds.
    """

    def __init__(self, pace: Pace, monotonic: Callable[[], float]) -> None:
        self._pace, self._monotonic = pace, monotonic
        self._slow_in_a_row, self._rest_s, self._until_s = 0, _REST_S, -float("inf")

    def is_too_slow(self, tokens: int, took_s: float) -> bool:
        """Take in a run that went well; whether it was the last of so many slow ones that the processor is better."""
        is_slow = took_s > _SLOW_TIMES * self._pace.expected_s(tokens)
        self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
        return self._slow_in_a_row >= _SLOW_RUNS

    def begin(self) -> float:
        """Rest from now on; for how long, seconds."""
        rest_s = self._rest_s
        self._until_s, self._slow_in_a_row = self._monotonic() + rest_s, 0
        self._rest_s = min(_LONGEST_REST_S, 2 * rest_s)
        return rest_s

    @property
    def is_over(self) -> bool:
        """Whether it has rested for long enough."""
        return self._monotonic() >= self._until_s

    def ended_well(self) -> None:
        """It works again: the next rest is a short one."""
        self._rest_s = _REST_S


class FallbackGraph:
    """A `llm_proxy.encode.graph.Graph` as the module's text says; safe to share between threads.

    Args:
        graph: On the accelerator.
        start: Starts a graph on the accelerator anew.
        processor: Starts the same graph on the processor.
        compare: Raises LLMProxyError where two graphs give different vectors for the same texts.
        pace: How long the processor takes.
        note: Counts each time that the accelerator is left.
        later: Runs a job beside the calls.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        start: Callable[[], Graph],
        processor: Callable[[], Graph],
        compare: Callable[[Graph, Graph], object],
        pace: Pace,
        note: Note,
        later: Callable[[Callable[[], None]], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._start_processor, self._compare = start, processor, compare
        self._note, self._later, self._monotonic = note, later, monotonic
        self._rest = Rest(pace, monotonic)
        self._provider = graph.provider
        self._fast: Graph | None = graph
        self._processor: Graph | None = None
        self._left_behind: Graph | None = None
        self._is_returning = self._is_child = False
        self._lock, self._starting = RLock(), RLock()

    def after_fork(self) -> None:
        """Run on the processor from now on, in a child: what drives an accelerator does not survive a fork."""
        self._lock, self._starting = RLock(), RLock()
        self._left_behind = self._fast or self._left_behind  # not freed here: it would call the driver
        self._fast, self._is_child, self._is_returning = None, True, False

    @property
    def provider(self) -> str:
        """The execution provider that is in use now."""
        return self._provider if self.is_accelerated else CPU

    @property
    def is_accelerated(self) -> bool:
        """Whether the accelerator is in use now."""
        return self._fast is not None

    def run(self, rows: Sequence[list[int]]) -> Vectors:
        """Vectors of texts; see `llm_proxy.encode.graph.Graph.run`.

        Raises:
            CacheError: The processor failed too.
        """
        fast = self._fast
        if fast is None:
            self._return_in_time()
            return self._processor_graph().run(rows)
        started_s = self._monotonic()
        try:
            found = fast.run(rows)
        except CacheError as exc:
            found = self._processor_graph().run(rows)
            self._leave(fast, str(exc))
            return found
        tokens = len(rows) * max(map(len, rows))
        with self._lock:
            is_too_slow = self._rest.is_too_slow(tokens, self._monotonic() - started_s)
        if is_too_slow:
            self._leave(fast, f"{_SLOW_RUNS} runs in a row took over {_SLOW_TIMES:.0f} times as long as here")
        return found

    def _leave(self, fast: Graph, why: str) -> None:
        with self._lock:
            if self._fast is not fast:  # another thread has left it
                return
            self._fast = None
            rest_s = self._rest.begin()
        self._note("encoder", CacheError(f"{self._provider}: {why}; the processor encodes for {rest_s:.0f} s"))

    def _processor_graph(self) -> Graph:
        if self._processor is None:
            with self._starting:
                if self._processor is None:
                    self._processor = self._start_processor()
        return self._processor

    def _return_in_time(self) -> None:
        with self._lock:
            if self._is_child or self._is_returning or not self._rest.is_over:
                return
            self._is_returning = True
        try:
            self._later(self._return)
        except RuntimeError:  # a pool that is closed: the program ends
            self._is_returning = False

    def _return(self) -> None:
        works = False
        try:
            graph = self._start()
            self._compare(graph, self._processor_graph())
            works = True
        except LLMProxyError as exc:
            logger.info("llm-proxy: %s still does not work: %s", self._provider, exc)
        finally:
            with self._lock:
                self._is_returning = False
                if works:
                    self._rest.ended_well()
                    self._fast = graph
                else:
                    self._rest.begin()
        logger.info("llm-proxy: the encoder is on %s", self.provider)
