"""The values that flow through the engine: frozen, typed, units in their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from ._shown import html_of, pretty_of, sf_string
from ._spans import span_of_model
from .holders import Holder
from .values import value

__all__ = [
    "API_PATHS",
    "CHAT",
    "ECHOED",
    "Bypass",
    "ChatRequest",
    "Clock",
    "Controls",
    "Fingerprint",
    "Head",
    "Outcome",
    "Outgoing",
    "Permit",
    "Usage",
    "texts_of",
]

JSON = dict[str, Any]
HitKind = Literal["exact", "semantic", ""]
HeaderList = Sequence[tuple[str, str]]
Forward = Literal["bypass", "uri-miss", "miss", "request", "stale", ""]

CHAT = "chat"
API_PATHS = {
    CHAT: "/chat/completions", "completions": "/completions", "embeddings": "/embeddings", "responses": "/responses",
}  # fmt: skip
"""The APIs that the engine answers, and where each stands below a base URL."""

ECHOED = ("metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
"""Of a request to responses: what no answer depends on, and every answer repeats."""

HIT_ID_CHARS = 16
"""Of the question's key, to name a semantic hit by."""

CHARS_PER_TOKEN = 4
"""Characters of English that make a token, as a rule of thumb: where no tokenizer counts."""


class Clock(Protocol):
    """The time, injected."""

    def time(self) -> float:
        """Unix time, seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer, each >= 0.

    Attributes:
        prompt_tokens: All of the prompt.
        completion_tokens: All that is billed as answer, reasoning and rejected predictions included.
        cached_tokens: Of the prompt, read from the provider's cache.
        reasoning_tokens: Of the answer, thought and not said.
        cache_write_tokens: Of the prompt, written to the provider's cache.
        prompt_audio_tokens: Of the prompt, heard.
        completion_audio_tokens: Of the answer, spoken.
        accepted_tokens: Of the answer, taken from a predicted output.
        rejected_tokens: Of the answer, predicted and not used.
        service_tier: Terms it was served on, as the upstream names them, e.g. ``flex``; empty for the usual ones.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    prompt_audio_tokens: int = 0
    completion_audio_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class Controls:
    """What the caller asked of the cache by ``Cache-Control`` (RFC 9111 section 5.2.1).

    Attributes:
        no_store: Neither look up nor store.
        no_cache: Do not look up; store and replace.
        only_if_cached: Answer 504 rather than ask upstream.
        max_age_s: Oldest entry that is acceptable, seconds; None for any age.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None


@value
class ChatRequest:
    """One call as it came, of chat completions or of another of `API_PATHS`; see `llm_proxy.wire.apis`.

    Attributes:
        body: The parsed JSON object; read-only by agreement.
        raw: The bytes it was parsed from; what is forwarded unless the route changes the model.
        headers: Request headers, names in lower case; repeated ones as one list, joined by commas.
        endpoint: URL that the call would go to by itself, with its query, which may choose what answers; empty
            where the face has none (the proxy).
        controls: What the caller asked of the cache.
        timeout_s: How long the caller is ready to wait for a byte, or None for ever.
        received_s: Unix time of arrival.
        holder: Who holds the issued key that it came with; None where it came with none.
        api: Which API it is of.
        view: What another API has instead of messages, in their form; None for chat completions.
    """

    body: Mapping[str, Any]
    raw: bytes
    headers: Mapping[str, str]
    endpoint: str = ""
    controls: Controls = Controls()
    timeout_s: float | None = None
    received_s: float = 0.0
    holder: Holder | None = None
    api: str = CHAT
    view: Sequence[Any] | None = None

    @property
    def model(self) -> str:
        """The model asked for; empty when absent or not a string."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    @property
    def base_url(self) -> str:
        """Where OpenAI's paths begin at the endpoint, e.g. ``https://api.openai.com/v1``; empty without one."""
        return self.endpoint.partition("?")[0].removesuffix(self.path)

    @property
    def path(self) -> str:
        """Where its API stands below a base URL."""
        return API_PATHS[self.api]

    def raw_for(self, model: str) -> bytes:
        """The body that asks another model: no other byte differs, so that no number is rounded on its way.

        Args:
            model: Name to put in place of the one that was asked for; empty to leave it.

        Raises:
            ValueError: ``raw`` is not the JSON object that it was parsed from, or has no model.
        """
        if model in ("", self.model):
            return self.raw
        text = self.raw.decode()
        start, end = span_of_model(text)
        return f"{text[:start]}{json.dumps(model)}{text[end:]}".encode()

    @property
    def messages(self) -> Sequence[Any]:
        """The conversation; empty when absent or not a list."""
        if self.view is not None:
            return self.view
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else ()

    @property
    def question(self) -> str:
        """The user's last text, wherever it stands; parts are joined by line feeds. Empty when there is none."""
        for message in reversed(self.messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return "\n".join(texts_of(message.get("content")))
        return ""

    @property
    def is_stream(self) -> bool:
        """Whether the caller wants server-sent events."""
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether token counts belong in the answer: always, but for a stream of chunks, where they are on request."""
        if not self.is_stream or self.api == "responses":
            return True
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def form(self) -> str:
        """Callers of one form can share the very bytes of one answer."""
        echoed = "" if self.api != "responses" else repr([self.body.get(name) for name in ECHOED])
        return f"{self.is_stream}|{self.wants_usage}|{self.headers.get('accept-encoding', '')}|{echoed}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Where an answer to a request may be found.

    Attributes:
        key: Hash of all that changes the answer, 64 hex digits.
        scope: The same without the last user text, 64 hex digits.
        text: The last user text, or None when only the exact key may be used.
        turns: User texts before it that are not in the scope, since they may be worded differently; oldest first.
    """

    key: str
    scope: str
    text: str | None
    turns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """The cache has nothing to do with this call; ``reason`` is one lower-case word or two, joined by a hyphen."""

    reason: str


class Permit(Protocol):
    """Leave to send one request; told what becomes of it, and given back with that. See `llm_proxy.engine.permit`."""

    def opened(self, head: Head) -> None:
        """The upstream answers."""

    def passed(self, chunk: bytes) -> None:
        """Bytes of the body came."""

    def ended(self) -> None:
        """The body came to its end; without effect once the permit is given back."""

    def dropped(self, error: BaseException | None = None) -> None:
        """Nobody reads any further, or it broke off, or no answer came, for this error; likewise."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to an upstream.

    Attributes:
        url: Absolute URL; empty means: send the caller's request as it came.
        headers: All headers to send, names in lower case.
        body: Bytes to send.
        backend: Name of the backend in the configuration; empty for the caller's own upstream.
        model: Model that is asked there.
        timeout_s: Longest wait for a byte, or None for the caller's own.
        permit: Told what becomes of the request, where a limit wants to know.
    """

    url: str
    headers: HeaderList
    body: bytes
    backend: str = ""
    model: str = ""
    timeout_s: float | None = None
    permit: Permit | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of an upstream's answer, with the body still to come.

    Attributes:
        status: HTTP status code.
        headers: As received, names in lower case.
        body: Iterator of bytes (sync) or async iterator of bytes, with ``close`` or ``aclose``; consumed once.
        extensions: What the face's HTTP library attached; passed back untouched.
    """

    status: int
    headers: HeaderList
    body: Any
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def header(self, name: str) -> str:
        """Value of the last header ``name`` (lower case), or the empty string."""
        return next((value for key, value in reversed(self.headers) if key == name), "")


@value
class Outcome:
    """What llm-proxy did with one call: ``response.extensions["llm_proxy"]``.

    Attributes:
        status: Where the answer came from; ``refused``: llm-proxy itself said no, e.g. for a limit, and asked nobody.
        kind: How the entry was found, on a hit.
        forward: Why the call went upstream, in the words of RFC 9211 section 2.2, where ``status`` alone does not
            say it; empty when it did not go there.
        detail: Why the cache was bypassed or could not be used, or the call refused; empty when there is nothing to
            say.
        key: Exact key of the entry served or written; empty on a bypass.
        similarity: Cosine of question and entry in [-1, 1]; 1.0 on an exact hit, None otherwise.
        age_s: Age of the entry served, seconds.
        backend: Backend that answered; empty for the caller's own upstream.
        route: Route that decided; empty when the model was named.
        model: Model that answered or was asked.
        saved_usd: Money that asking again was expected to cost, and that this hit spared.
        cost_usd: Money that this call cost, where the price is known.
        is_stored: Whether the answer was written; None while it is still under way.
        is_shared: Whether the call joined an identical one that was under way.
        asked: Exact key of the question; on a semantic hit not the entry's. With ``key`` it names the pair.
        scope: Where a semantic hit was found; empty otherwise.
        p_wrong: Probability that a semantic hit is wrong, in [0, 1]: as the guard says, mended by what comparing hits
            found. None where it is no semantic hit.
        reason: Why this model was asked, in a few words, where a route decided.
        cascade: What became of each candidate that a cascade asked, e.g. ``small 0.31, large``; empty without one.
        call_id: What names a call that a route decided, for feedback; empty where it is not kept.
        attempts: What became of each request that was sent, where there was more than one, e.g. ``local/small 503,
            cloud/large``; empty otherwise.
    """

    status: Literal["hit", "miss", "bypass", "refused"]
    kind: HitKind = ""
    forward: Forward | None = None
    detail: str = ""
    key: str = ""
    similarity: float | None = None
    age_s: float = 0.0
    backend: str = ""
    route: str = ""
    model: str = ""
    saved_usd: float = 0.0
    cost_usd: float | None = None
    is_stored: bool | None = None
    is_shared: bool = False
    asked: str = ""
    scope: str = ""
    p_wrong: float | None = None
    reason: str = ""
    cascade: str = ""
    call_id: str = ""

    _repr_html_, _repr_pretty_ = html_of, pretty_of

    @property
    def id(self) -> str:
        """What feedback names this answer by, the header ``x-llm-proxy-id``; empty where none can be given."""
        return self.asked[:HIT_ID_CHARS] if self.kind == "semantic" else self.call_id

    attempts: str = ""

    def with_changes(self, **changes: Any) -> Outcome:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    @property
    def cache_status(self) -> str:
        """Value of the ``Cache-Status`` header. Source: RFC 9211 section 2."""
        if self.status == "hit":
            details: list[str] = [self.kind]
            if self.kind == "semantic":
                details.append(f"similarity={self.similarity:.3f}")
                details += [] if self.p_wrong is None else [f"p_wrong={self.p_wrong:.3f}"]
            return f"llm-proxy; hit; detail={sf_string('; '.join(details))}"
        default = "bypass" if self.status == "bypass" else "uri-miss"
        forward = default if self.forward is None else self.forward
        parts = ["llm-proxy", *([f"fwd={forward}"] if forward else [])]
        if self.is_stored:
            parts.append("stored")
        if self.is_shared:
            parts.append("collapsed")
        if self.detail:
            parts.append(f"detail={sf_string(self.detail)}")
        return "; ".join(parts)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Response headers that say the same to any client."""
        rows = [("cache-status", self.cache_status)]
        if self.status == "hit":
            rows += [("age", str(int(self.age_s))), ("x-llm-proxy-saved-usd", f"{self.saved_usd:.8f}")]
        if self.id:
            rows.append(("x-llm-proxy-id", self.id))
        if self.backend:
            rows.append(("x-llm-proxy-backend", self.backend))
        if self.route:
            rows.append(("x-llm-proxy-route", self.route))
        if self.cascade:
            rows.append(("x-llm-proxy-cascade", sf_string(self.cascade)))
        if self.attempts:
            rows.append(("x-llm-proxy-attempts", sf_string(self.attempts)))
        return tuple(rows)


def texts_of(content: object) -> list[str]:
    """The texts in a message's ``content``: itself, or those of its parts that have one."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    found = [part.get("text") for part in parts if isinstance(part, dict)]
    return [text for text in found if isinstance(text, str)]
