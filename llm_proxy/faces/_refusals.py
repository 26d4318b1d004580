"""What becomes known of requests that the proxy refuses before they are calls: counts, and rows of those it can name.

::

    nobody knows who asked   401, 403 of a web page: counted by status, and no row: no stranger fills the ledger
    who asked was let in     400, 403, 408, 413, 415, 429 of one of the four APIs: a row as well, 60 a minute at most

What the engine refuses (budgets, queues, routes) it books itself.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from llm_proxy.engine.asked import asked_by
from llm_proxy.observe.events import CallEvent
from llm_proxy.types import ChatRequest, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.holders import Holder
    from llm_proxy.runtime import Runtime

    from ._asgi_io import Refused

__all__ = ["Refusals"]

_MOST_A_MINUTE = 60
_LEFT = 499  # the caller did
_WORDS = {400: "invalid-request", 408: "too-slow", 413: "request-too-large", 415: "content-encoding"}


class Refusals:
    """Counts and books; a part of `llm_proxy.faces.asgi.ProxyApp`, for its event loop.

    Args:
        runtime: Takes the events, and has the clock.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._minute, self._rows = -math.inf, 0
        self.by_status: Counter[int] = Counter()
        """Requests by the status that they were refused with."""

    def count(self, refused: Refused) -> None:
        """Count a refusal, whoever asked."""
        self.by_status[refused.status] += 1

    def book(self, refused: Refused, api: str, headers: Mapping[str, str], holder: Holder | None) -> None:
        """Have a row written of a refusal, unless there were many in this minute.

        Args:
            refused: Why.
            api: What was asked for, one of `llm_proxy.types.API_PATHS`.
            headers: Request headers, names in lower case.
            holder: Who holds the issued key that was presented.
        """
        clock = self._runtime.clock
        minute = clock.monotonic() // 60
        if minute != self._minute:
            self._minute, self._rows = minute, 0
        if refused.status == _LEFT or self._rows >= _MOST_A_MINUTE:
            return
        self._rows += 1
        word = refused.code or _WORDS.get(refused.status, "refused")
        request = ChatRequest({}, b"", headers, received_s=clock.time(), holder=holder, api=api)
        self._runtime.emit(
            CallEvent(
                at_s=request.received_s,
                outcome=Outcome("refused", forward="", detail=word.replace("_", "-")),
                latency_s=0.0,  # it was not served
                http_status=refused.status,
                **asked_by(request, keeps_questions=False),
            )
        )
