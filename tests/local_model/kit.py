"""What the tests of the client and the proxy before the real model share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .server import LocalModelServer

FRANCE = "What is the capital of France?"
FRANCE_REWORDED = "What's the capital of France?"
PARIS = "The capital of France is Paris."
AUSTRALIA, CANBERRA = "What is the capital of Australia?", "The capital of Australia is Canberra."
AUSTRIA, VIENNA = "What is the capital of Austria?", "The capital of Austria is Vienna."
TO_THIRTY = "Count to 30."
COUNTED = ", ".join(str(number) for number in range(1, 31)) + "."
TOO_LONG = "word " * 600  # a stream of it is a success without a body
CALLERS = 8  # at once
NO_END = {"1": -100}  # the model talks on until max_tokens or the end of its window
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
FORCED_TOOL: Any = {
    "tools": [{"type": "function", "function": {"name": "show", "parameters": CITY}}],
    "tool_choice": {"type": "function", "function": {"name": "show"}},
}


def asking(text: str, **options: Any) -> dict[str, Any]:
    """The arguments of one call."""
    return {"model": "tiny", "temperature": 0, "messages": [{"role": "user", "content": text}], **options}


def joined(chunks: Iterable[Any]) -> str:
    """What the chunks of a stream say."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tool_arguments(chunks: Iterable[Any]) -> str:
    """What the chunks of a stream call their tool with."""
    calls = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    return "".join(call.function.arguments or "" for call in calls)


def until(happened: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Whether something happens in time; looked at every 20 ms, for it happens in another process."""
    deadline = time.monotonic() + limit_s
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


class Asked:
    """How often the model is asked from here on, by the server's own log."""

    def __init__(self, server: LocalModelServer) -> None:
        self._server = server
        self._before = self._count()

    def _count(self) -> int:
        return self._server.log_path.read_text(encoding="utf-8").count('"POST /v1/chat/completions')

    def is_(self, times: int) -> bool:
        """Whether it is so many; the server writes its line when it answers, which may be a moment later."""
        until(lambda: self._count() - self._before >= times)
        return self._count() - self._before == times
