"""Step 4: the encoder works for a call, within its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .effects import Flow, Late, compute

if TYPE_CHECKING:
    from llm_proxy.config import EncoderConfig

    from .ports import QuestionEncoder

__all__ = ["in_time"]

T = TypeVar("T")


def in_time(
    work: Callable[[], T], texts: tuple[str, ...], encoder: QuestionEncoder, settings: EncoderConfig
) -> Flow[T]:
    """What ``work`` returns, which encodes texts; counts against the encoder what it began and did not end in time.

    Raises:
        Late: It took longer than ``wait_s``, or was not begun within ``turn_s``.
        Exception: What ``work`` raises.
    """
    # An encoder that should take no more than half of the limit will keep within it, so no thread has to watch it. One
    # that has not loaded yet holds up threads for longer than anybody should wait for a turn.
    is_quick = encoder.may_take_s(*texts) <= settings.wait_s / 2
    turn_s = settings.turn_s if encoder.slowest_s < math.inf else 0.0
    try:
        return (yield from compute(work, settings.wait_s, is_quick=is_quick, turn_s=turn_s))
    except Late as late:
        if late.is_begun:
            encoder.note_timeout()
        raise
