"""Leave to send one request: a slot, money set aside, or both; given back once, when the request is over.

::

    opened ── passed ... ── the terminal event, or the end: what the answer says it took
       │                  └ dropped: what came of it
       └ an error, no answer: nothing; one that was not waited for any longer: the prompt (`llm_proxy.engine.vain`)

It is over at the first of these, and when nobody holds the permit any more. The driver tells it (`llm_proxy.metered`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_proxy.types import CHAT, Usage
from llm_proxy.wire.apis import recorder_for
from llm_proxy.wire.chat import answering_model, usage_of

from .vain import estimated, is_late

if TYPE_CHECKING:
    from llm_proxy.types import Head
    from llm_proxy.wire.recorder import Recorder

__all__ = ["Permit"]

_EVENT = b"data:"
_NOTHING = Usage()


class Permit:
    """See the module's text.

    Args:
        over: Called once; takes the tokens, or None where an answer came and nobody knows how long it is, and the model
            that answered, empty where it does not say. Must be quick and not raise.
        prompt_tokens: About the length of the prompt, >= 0.
        limit_bytes: Longest answer to be read for what it says of itself.
        api: Which API the request is of.
    """

    def __init__(
        self, over: Callable[[Usage | None, str], object], *, prompt_tokens: int, limit_bytes: int, api: str = CHAT
    ) -> None:
        self._over = [over]  # a list gives its item to one caller only, whatever thread it is in
        self._prompt_tokens, self._limit_bytes = prompt_tokens, limit_bytes
        self._api = api
        self._recorder: Recorder | None = None
        self._is_answered = False
        self._events = 0

    def opened(self, head: Head) -> None:
        """The upstream answers."""
        self._is_answered = 200 <= head.status < 300
        if self._is_answered:
            self._recorder = recorder_for(head.headers, limit_bytes=self._limit_bytes, api=self._api)

    def passed(self, chunk: bytes) -> None:
        """Bytes of the body came."""
        recorder = self._recorder
        if recorder is None or not self._over:
            return
        if recorder.is_stream:
            self._events += chunk.count(_EVENT)
        if recorder.feed(chunk):
            self._give_back(*self._whole(recorder))

    def ended(self) -> None:
        """The body came to its end; without effect once the permit is given back."""
        recorder = self._recorder
        if recorder is not None and self._over and recorder.end():
            self._give_back(*self._whole(recorder))
        self.dropped()

    def dropped(self, error: BaseException | None = None) -> None:
        """Nobody reads any further, or it broke off, or no answer came, for this error; likewise."""
        if not self._is_answered:
            is_sent = error is not None and is_late(error)
            self._give_back(Usage(self._prompt_tokens) if is_sent else _NOTHING)
        elif self._events:  # of a stream: about one token each
            self._give_back(Usage(self._prompt_tokens, self._events))
        else:
            self._give_back(None)

    def __del__(self) -> None:
        self.dropped()

    def _whole(self, recorder: Recorder) -> tuple[Usage | None, str]:
        completion = recorder.completion() or {}  # a recorder that is complete has one
        usage = usage_of(completion, prompt_tokens=self._prompt_tokens)
        return usage or estimated(completion, self._prompt_tokens), answering_model(completion)

    def _give_back(self, usage: Usage | None, model: str = "") -> None:
        try:
            over = self._over.pop()
        except IndexError:
            return
        self._recorder = None
        over(usage, model)
