"""One stream of chunks out of several: where an answer breaks off, another one goes on from the text already sent.

::

    first part   whole events are handed on as they came, an unfinished one is kept back
    break        what was sent is read: its text, and the fields that all chunks share
    next part    its chunks get those fields; text that was sent before is cut off; token counts are added up

Nothing but text is ever continued: no tool call, no log-probabilities, no second choice, no finished answer. A reader
sees one stream: one id, one model, the role once, every character once.

Source: OpenAI's API reference, "Chat Completions: streaming"; the forms of the request for the rest: vLLM and llama.cpp
(``continue_final_message``), DeepSeek and Mistral (``prefix``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llm_proxy.errors import WireError
from llm_proxy.types import CHARS_PER_TOKEN, JSON

from .sse import DONE, ServerSentEvent, SSEDecoder, encode_event

__all__ = ["Form", "Sent", "Splice", "body_for_rest", "may_be_continued"]

Form = Literal["no", "continue_final_message", "trailing", "prefix", "prefix_echoed"]
"""How a server is asked to go on with an answer; see `llm_proxy.config.BackendConfig`."""

_MARKS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LAST = (b"data: [DONE]", b"data:[DONE]")
_NEVER = ("tools", "functions", "logprobs", "top_logprobs", "audio", "web_search_options")
_LIMITS = ("max_tokens", "max_completion_tokens")
_TEXT_ONLY = frozenset({"role", "content"})
_OWN = frozenset({"choices", "usage"})


class Sent(NamedTuple):
    """What a caller has got of an answer.

    Attributes:
        text: Its text so far.
        pieces: In how many chunks the text came: about as many tokens.
        top: The fields that all chunks share.
        has_role: Whether the role was sent.
    """

    text: str
    pieces: int
    top: JSON
    has_role: bool


def may_be_continued(body: Mapping[str, Any]) -> bool:
    """Whether the answer to a request is text alone, so that another server can go on with it."""
    form = body.get("response_format")
    is_text = form is None or (isinstance(form, Mapping) and form.get("type") == "text")
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    is_asked = isinstance(last, Mapping) and last.get("role") != "assistant"
    return is_text and is_asked and body.get("n") in (None, 1) and not any(body.get(name) for name in _NEVER)


def body_for_rest(body: Mapping[str, Any], sent: Sent, form: Form) -> JSON:
    """The request for the rest of an answer; without text the same once more.

    Args:
        body: The request; not changed.
        sent: What its caller has got.
        form: How the server is asked to go on; not ``no``.
    """
    rest = dict(body)
    text = sent.text.rstrip()  # many templates cut it there, some servers refuse it otherwise
    if not text:
        return rest
    last: JSON = {"role": "assistant", "content": text}
    if form in ("prefix", "prefix_echoed"):
        last["prefix"] = True
    if form == "continue_final_message":
        rest.update(continue_final_message=True, add_generation_prompt=False)
    rest["messages"] = [*body["messages"], last]
    for name in _LIMITS:
        if type(rest.get(name)) is int:
            rest[name] = max(1, rest[name] - sent.pieces)
    return rest


class Splice:
    """Passes a stream on and remembers it, so that another one can be put behind it. Not for several threads at once.

    Args:
        limit_bytes: Most bytes to remember of a stream; a longer one is passed on and can't be continued.
        prompt_tokens: About the length of the prompt.
    """

    def __init__(self, *, limit_bytes: int, prompt_tokens: int = 0) -> None:
        self.is_broken = False
        """Whether what came last is an error in the place of the rest; it is kept back."""
        self._limit, self._prompt_tokens = limit_bytes, prompt_tokens
        self._seen: list[bytes] | None = []
        self._seen_bytes = 0
        self._held = b""
        self._is_done = False
        self._rest: _Rest | None = None

    def feed(self, piece: bytes) -> bytes:
        """Take in bytes; what is to be handed on of them, perhaps nothing."""
        data = self._held + piece if self._held else piece
        end = _end_of_events(data)
        self._held, ready = data[end:], data[:end]
        if not ready:
            return b""
        if self._rest is None:
            return self._passed(ready)
        passed, self.is_broken = self._rest.feed(ready)
        self._is_done = self._is_done or self._rest.is_done
        return passed

    def end(self) -> bytes | None:
        """Take in the clean end of the body; the last bytes to hand on, or None where the answer is not whole."""
        tail, self._held = self._held, b""
        is_done = self._is_done or tail.strip() in _LAST
        if is_done or self._is_finished():
            return tail
        self._held = tail
        return None

    def kept(self) -> bytes:
        """What was kept back, where nothing follows."""
        tail, self._held = self._held, b""
        return tail

    def sent(self) -> Sent | None:
        """What was handed on so far; None where it can't be continued."""
        if self._is_done or self._seen is None:
            return None
        if self._rest is not None:
            return None if self._rest.is_finished else self._rest.sent
        return _read(b"".join(self._seen))

    def resume(self, sent: Sent, form: Form) -> None:
        """Another body follows: the rest of what was sent."""
        self._held, self.is_broken = b"", False
        before = self._rest
        self._rest = _Rest(sent, is_echoed=form == "prefix_echoed", prompt_tokens=self._prompt_tokens)
        if before is not None:
            self._rest.add(before)

    @property
    def parted(self) -> Counts:
        """What is added to the counts that the last part tells."""
        return Counts(0, 0) if self._rest is None else self._rest.more

    def _passed(self, ready: bytes) -> bytes:
        if self._seen is not None:
            self._seen_bytes += len(ready)
            if self._seen_bytes > self._limit:
                self._seen = None
        if b'"error"' in ready or b"event: error" in ready:
            at = _error_at(ready)
            if at is not None:
                self._held, ready, self.is_broken = ready[at:] + self._held, ready[:at], True
        if self._seen is not None and ready:
            self._seen.append(ready)
        self._is_done = self._is_done or any(ready.startswith(last) or b"\n" + last in ready for last in _LAST)
        return ready

    def _is_finished(self) -> bool:
        if self._rest is not None:
            return self._rest.is_finished
        return self._seen is None or _is_finished(b"".join(self._seen))


class _Rest:
    """The chunks of a stream that goes on where another one ended."""

    def __init__(self, sent: Sent, *, is_echoed: bool, prompt_tokens: int) -> None:
        self.is_done = self.is_finished = False
        self.sent = sent
        self._events = SSEDecoder()
        text = sent.text.rstrip()
        # What may be said once more: the white space that was cut from the end, or all of the text.
        self._due = sent.text if is_echoed and text else sent.text[len(text) :]
        self._least = len(text) if is_echoed else 0
        self._came = ""
        own_tokens = max(sent.pieces, len(sent.text) // (2 * CHARS_PER_TOKEN))
        self.more = Counts(prompt_tokens, own_tokens)

    def add(self, before: _Rest) -> None:
        """Count the tokens of the parts before the last one, too."""
        more = before.more
        self.more = Counts(self.more.prompt + more.prompt, max(self.more.answer, more.answer))

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The events to hand on, and whether an error came in the place of the next one."""
        parts: list[bytes] = []
        try:
            for event in self._events.feed(data):
                part = self._rewritten(event)
                if part is None:
                    return b"".join(parts), True
                parts.append(part)
        except (WireError, ValueError, TypeError, AttributeError, RecursionError):
            return b"".join(parts), True
        return b"".join(parts), False

    def _rewritten(self, event: ServerSentEvent) -> bytes | None:
        if event.data.startswith(DONE):
            self.is_done = True
            return encode_event(DONE)
        chunk = json.loads(event.data)
        if event.event == "error" or chunk.get("error"):
            return None
        choices = [self._choice(choice) for choice in chunk.get("choices") or ()]
        usage = chunk.get("usage")
        said = [choice for choice in choices if choice is not None]
        if not said and not usage:
            return b""
        made = {**self.sent.top, "choices": said}
        if "usage" in chunk:
            made["usage"] = self._summed(usage) if usage else usage
        return encode_event(json.dumps(made, separators=(",", ":")))

    def _choice(self, choice: JSON) -> JSON | None:
        """The choice as it is handed on; None where nothing of it is new."""
        delta = dict(choice.get("delta") or {})
        if self.sent.has_role:
            delta.pop("role", None)
        elif delta.get("role"):
            self.sent = self.sent._replace(has_role=True)
        is_last = bool(choice.get("finish_reason"))
        content = delta.get("content")
        if isinstance(content, str) or is_last:
            new = self._new(content or "", is_last=is_last)
            if new or not is_last:
                delta["content"] = new
            else:
                delta.pop("content", None)
            self.sent = self.sent._replace(text=self.sent.text + new, pieces=self.sent.pieces + bool(new))
        self.is_finished = self.is_finished or is_last
        is_new = is_last or any(value not in (None, "") for value in delta.values())
        return {**choice, "delta": delta} if is_new else None

    def _new(self, content: str, *, is_last: bool) -> str:
        """What of a piece of text was not sent before; kept back while that is not clear."""
        if not self._due:
            return content
        self._came += content
        if not is_last and self._due.startswith(self._came) and self._came != self._due:
            return ""
        known = _alike(self._came, self._due)
        self._due = ""
        return self._came[known:] if known >= self._least else self._came

    def _summed(self, usage: JSON) -> JSON:
        """Token counts of all parts: nobody counted those of a part that broke off, so they are estimates."""
        prompt, answer = self.more
        more = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        return usage | {name: usage[name] + extra for name, extra in more.items() if type(usage.get(name)) is int}


class Counts(NamedTuple):
    """Estimated tokens of the parts that broke off."""

    prompt: int
    answer: int


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (char, twin) in pairs if char != twin), min(len(one), len(other)))


def _end_of_events(data: bytes) -> int:
    if data.endswith(b"\n\n"):
        return len(data)
    return max(found + len(mark) if (found := data.rfind(mark)) >= 0 else 0 for mark in _MARKS)


def _error_at(ready: bytes) -> int | None:
    """Where the first event that is an error begins; None where there is none."""
    at = 0
    while at < len(ready):
        ends = [found + len(mark) for mark in _MARKS if (found := ready.find(mark, at)) >= 0]
        end = min(ends, default=len(ready))
        event = next(iter(SSEDecoder(limit_bytes=len(ready) + 1).feed(ready[at:end])), None)
        if event is not None and (event.event == "error" or _is_error(event.data)):
            return at
        at = end
    return None


def _is_error(data: str) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value.get("error"))


def _chunks(data: bytes) -> list[JSON]:
    """Raises ValueError where it holds anything else."""
    decoder = SSEDecoder(limit_bytes=len(data) + 1)
    chunks = [json.loads(event.data) for event in decoder.feed(data) if not event.data.startswith(DONE)]
    if decoder.is_damaged or not all(isinstance(chunk, dict) for chunk in chunks):
        raise ValueError
    return chunks


def _is_finished(data: bytes) -> bool:
    try:
        return any(choice.get("finish_reason") for chunk in _chunks(data) for choice in chunk.get("choices") or ())
    except (ValueError, TypeError, AttributeError, RecursionError):
        return True  # nothing that could be continued


def _read(data: bytes) -> Sent | None:
    """What whole events say; None where there is more to them than the text of one choice."""
    texts: list[str] = []
    top: JSON = {}
    has_role = False
    try:
        for chunk in _chunks(data):
            top = {**{name: value for name, value in chunk.items() if name not in _OWN}, **top}
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                others = {name for name, value in delta.items() if value} - _TEXT_ONLY
                if choice.get("index") or choice.get("finish_reason") or choice.get("logprobs") or others:
                    return None
                has_role = has_role or bool(delta.get("role"))
                texts.append(delta.get("content") or "")
        text = "".join(texts)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return Sent(text, sum(map(bool, texts)), top, has_role)
