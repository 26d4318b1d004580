"""Which execution provider of ONNX Runtime runs the encoder: the first that really works, the processor last.

::

    named        the one that `encoder.device` names, where it works
    auto         CUDA, MIGraphX, ROCm, DirectML, CoreML in this order, where it works and is no slower
    works        its session starts, and the vectors of two probe texts are those of the processor, nearly
    no slower    with the probe that fills the window: what loses there would lose everywhere

TensorRT and OpenVINO are tried only when they are named. TensorRT builds an engine for each length of text, which takes
minutes; OpenVINO on a processor took 2.5 times as long as ONNX Runtime's own kernels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.shipped import CPU

if TYPE_CHECKING:
    from .graph import Graph

__all__ = ["AUTOMATIC", "DEVICES", "Choice", "Pace", "choose", "compared"]

logger = logging.getLogger("llm_proxy")

DEVICES = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""Execution providers by what `encoder.device` calls them."""
AUTOMATIC = tuple(DEVICES[name] for name in ("cuda", "migraphx", "rocm", "directml", "coreml"))
"""Providers that are tried unasked, in this order."""

_LEAST_COSINE = 0.95  # the float graph is at .989 or more on the reference texts; what computes wrongly is near 0
_TIMED_RUNS = 3

G = TypeVar("G", bound="Graph")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the processor takes: a line through two measurements.

    Attributes:
        tokens: Tokens of the shorter and of the longer probe.
        took_s: What they took, seconds.
    """

    tokens: tuple[int, int]
    took_s: tuple[float, float]

    def expected_s(self, tokens: int) -> float:
        """What a text of so many tokens takes, or texts of so many together; no less than the shorter probe."""
        (short, long), (short_s, long_s) = self.tokens, self.took_s
        share = (tokens - short) / max(1, long - short)
        return short_s + max(0.0, share) * max(0.0, long_s - short_s)


@dataclass(frozen=True, slots=True)
class Choice(Generic[G]):
    """What was chosen.

    Attributes:
        graph: On the provider that will be used.
        pace: The processor's; None where the processor is used.
        passed_over: Providers that could have been used, each with why it is not.
    """

    graph: G
    pace: Pace | None
    passed_over: tuple[tuple[str, str], ...]


def choose(
    device: str,
    there: Sequence[str],
    start: Callable[[str], G],
    probes: Sequence[list[int]],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice[G]:
    """Start the provider that will be used; each that is passed over is logged.

    Args:
        device: ``auto``, or a key of `DEVICES`.
        there: What this ONNX Runtime was built with.
        start: Starts a graph on a provider.
        probes: Tokens of a short text and of one that fills the window.
        clock: Seconds.

    Raises:
        LLMProxyError: What ``start`` raises for the processor.
    """
    is_named, passed_over, processor = device != "auto", list[tuple[str, str]](), None
    for provider in (DEVICES[device],) if is_named else AUTOMATIC:
        if provider == CPU or (provider not in there and not is_named):
            continue
        try:
            if provider not in there:
                raise CacheError(f"this ONNX Runtime was built without it; it has {', '.join(there)}")
            graph = start(provider)
            processor = start(CPU) if processor is None else processor
            pace = compared(graph, processor, probes, must_be_quick=not is_named, clock=clock)
        except LLMProxyError as exc:
            passed_over.append((provider, str(exc)))
            logger.warning("llm-proxy: the encoder does not use %s: %s", provider, exc)
        else:
            return Choice(graph, pace, tuple(passed_over))
    return Choice(start(CPU) if processor is None else processor, None, tuple(passed_over))


def compared(
    graph: Graph,
    processor: Graph,
    probes: Sequence[list[int]],
    *,
    must_be_quick: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """How long the processor takes for texts that another provider gives nearly the same vectors for.

    Args:
        graph: On the other provider.
        processor: On the processor.
        probes: See `choose`.
        must_be_quick: Whether the other one must take no longer for the last of them.
        clock: Seconds.

    Raises:
        CacheError: A run failed, a vector is another one, or it took longer.
    """
    paces = [(_timed(graph, row, clock), _timed(processor, row, clock)) for row in probes]
    for row in probes:
        cosine = float((graph.run([row])[0] * processor.run([row])[0]).sum())
        if not cosine >= _LEAST_COSINE:  # false for NaN too
            raise CacheError(f"its vectors are others than the processor's (cosine {cosine:.3f})")
    graph_s, processor_s = paces[-1]
    if must_be_quick and graph_s > processor_s:
        raise CacheError(f"it is slower: {1e3 * graph_s:.1f} ms for a long text, {1e3 * processor_s:.1f} ms here")
    (short, long), (_, short_s), (_, long_s) = map(len, probes), *paces
    return Pace((short, long), (short_s, long_s))


def _timed(graph: Graph, row: list[int], clock: Callable[[], float]) -> float:
    """Seconds that a text takes: the best of three runs, the first one apart."""
    graph.run([row])
    times = []
    for _ in range(_TIMED_RUNS):
        started_s = clock()
        graph.run([row])
        times.append(clock() - started_s)
    return min(times)
