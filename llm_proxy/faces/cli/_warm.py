"""Past calls, played to the engine again with an upstream that answers from the log.

So what may be stored, under which key, at what cost and with which vector is decided where it always is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from llm_proxy.errors import ConfigError, WireError

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.observe.events import CallEvent
    from llm_proxy.runtime import Runtime
    from llm_proxy.types import ChatRequest, Outcome, Outgoing

__all__ = ["API_KEY_VARIABLE", "Caller", "Warmed", "warm_from"]

API_KEY_VARIABLE = "OPENAI_API_KEY"
_PATH = "/chat/completions"
_ACCOUNT = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
_CHUNK = "chat.completion.chunk"
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Warmed:
    """What became of the calls of a log.

    Attributes:
        calls: Calls with an answer.
        stored: Answers that are in the store now.
        vectors: How many of them can be found by meaning.
        skipped: Calls and lines that were passed over, by reason.
        first_broken: Number and fault of the first lines that could not be read.
    """

    calls: int = 0
    stored: int = 0
    vectors: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_broken: list[tuple[int, str]] = field(default_factory=list)

    def skip(self, reason: str) -> None:
        """Count one more."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Who will make the same calls, and where to: both are part of the keys.

    Attributes:
        base_url: Where the client sends its calls; empty: to the configured backends, or else to OpenAI.
        headers: Headers that the cache looks at, names in lower case.
    """

    base_url: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, *, base_url: str, key_variable: str, headers: Iterable[str]) -> Caller:
        """As the openai client would make the calls with this environment.

        Raises:
            ConfigError: A header is not of the form NAME:VALUE, or the address is no URL.
        """
        from llm_proxy.config import environment

        parts = urlsplit(base_url)
        if base_url and not (parts.scheme in {"http", "https"} and parts.hostname):
            raise ConfigError(f"--base-url must be an http or https URL, as a rule with /v1, not {base_url!r}")

        rows = {name: value for name, variable in _ACCOUNT.items() if (value := environment(variable))}
        key = environment(key_variable)
        if key:
            rows["authorization"] = f"Bearer {key}"
        for header in headers:
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise ConfigError(f"--header must be NAME:VALUE, not {header!r}")
            rows[name.strip().lower()] = value.strip()
        return cls(base_url.rstrip("/"), rows)

    def endpoint(self, config: Config) -> str:
        """The URL that a call goes to by itself; empty where the configured backends are to decide."""
        from llm_proxy.config import OPENAI_BASE_URL, environment

        if not self.base_url and config.backends:
            return ""
        return (self.base_url or environment("OPENAI_BASE_URL") or OPENAI_BASE_URL).rstrip("/") + _PATH


@dataclass(frozen=True, slots=True)
class _Past:
    """One call of a log."""

    request: Mapping[str, Any]
    answer: Any
    latency_s: float


class _LogClock:
    """Says that it is the moment of the call that is played."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.passed_s = 0.0

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.passed_s


def warm_from(config: Config, files: Sequence[BinaryIO], caller: Caller, count: Warmed) -> Iterator[int]:
    """Store the answers of logs; yields how many bytes it has read, after each line.

    Args:
        config: The settings that the same calls will be made with.
        files: Lines of JSON; see ``llm-proxy cache warm --help``.
        caller: Who will make them.
        count: Is kept up to date.

    Raises:
        ConfigError: The calls are told apart by their key, and there is none.
        LLMProxyError: The cache cannot be written.
    """
    from llm_proxy.backends.openai_compatible import credentials_of

    if config.cache.tenant == "api_key" and not credentials_of(caller.headers):
        raise ConfigError(
            f"answers are kept apart by API key: set {API_KEY_VARIABLE}, or name the variable of the key that the "
            "calls will be made with (--tenant-key-env), or set cache.tenant"
        )
    player = _Player(config, caller, count)
    try:
        for read_bytes, past in _calls(files, count):
            if past is not None:
                player.play(past)
            yield read_bytes
    finally:
        player.close()


class _Player:
    def __init__(self, config: Config, caller: Caller, count: Warmed) -> None:
        from llm_proxy.boarding import Flights
        from llm_proxy.cache.build import build
        from llm_proxy.config import load
        from llm_proxy.drive import Driver
        from llm_proxy.runtime import Runtime, SystemClock

        self._caller, self._count = caller, count
        self._clock = _LogClock()
        self._outcomes: list[Outcome] = []
        self._cache = build(config.cache, clock=SystemClock(), routes=config.routes)
        self._cache.open()
        # What is played is no call: it has no place in the ledger.
        quiet = load(config, observe={"ledger": False})
        self._runtime: Runtime = Runtime(quiet, clock=self._clock, sinks=(self._note,), cache=self._cache)
        self._runtime.prices.warm()
        self._driver = Driver(Flights(), self._runtime.pool, background=lambda call: call())
        self._endpoint = caller.endpoint(config)

    def play(self, past: _Past) -> None:
        """Have one call answered from the log, and stored."""
        self._count.calls += 1
        try:
            request = self._request(past)
        except WireError:
            self._count.skip("no-chat-request")
            return
        reason = self._reason(past, request)
        if reason:
            self._count.skip(reason)
            return
        raw = json.dumps(past.answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
        served = self._driver.serve(self._runtime.engine.answer(request), lambda going: self._head(raw, going, past))
        for _ in served.rest or ():
            pass
        self._settled()

    def close(self) -> None:
        """Write what is pending."""
        self._runtime.close()

    def _note(self, event: CallEvent) -> None:
        self._outcomes.append(event.outcome)

    def _settled(self) -> None:
        outcome = self._outcomes.pop()
        if not outcome.is_stored:
            self._count.skip(outcome.detail or "refused")
            return
        self._count.stored += 1
        entry = self._cache.get(outcome.key)
        self._count.vectors += entry is not None and entry.vector is not None

    def _request(self, past: _Past) -> ChatRequest:
        from llm_proxy.wire.chat import parse_request

        try:
            raw = json.dumps(past.request).encode()
        except (ValueError, RecursionError) as exc:
            raise WireError(f"the request can't be written as JSON: {exc}") from exc
        # Not looked up: a similar question's answer would be taken for this one's.
        headers = {**self._caller.headers, "cache-control": "no-cache"}
        created = past.answer.get("created") if isinstance(past.answer, dict) else None
        now_s = time.time()
        self._clock.now_s = float(created) if type(created) is int and 0 < created < now_s else now_s
        return parse_request(raw, headers=headers, endpoint=self._endpoint, received_s=self._clock.now_s)

    def _reason(self, past: _Past, request: ChatRequest) -> str:
        """Why a call is passed over before it is played, or empty."""
        from llm_proxy.engine.fingerprint import fingerprint
        from llm_proxy.types import Bypass

        answer, config = past.answer, self._runtime.config
        if isinstance(answer, list) or (isinstance(answer, dict) and answer.get("object") == _CHUNK):
            return "stream"
        if not isinstance(answer, dict) or answer.get("error"):
            return "error"
        ttl_s = config.cache.ttl_s
        if ttl_s is not None and self._clock.now_s + ttl_s <= time.time():
            return "expired"
        destination = self._runtime.selector.resolve(request)
        found = fingerprint(request, destination=destination.identity, settings=config.cache)
        if isinstance(found, Bypass):
            return found.reason
        return "present" if self._cache.get(found.key) is not None else ""

    def _head(self, raw: bytes, _: Outgoing, past: _Past) -> Any:
        from llm_proxy.types import Head

        self._clock.passed_s += past.latency_s
        rows = (("content-type", "application/json"), ("content-length", str(len(raw))))
        return Head(200, rows, (chunk for chunk in (raw,)))


def _calls(files: Sequence[BinaryIO], count: Warmed) -> Iterator[tuple[int, _Past | None]]:
    """Bytes read, and the call that a line completes, if it does."""
    from llm_proxy.cache.transfer import MOST_TOLD, lines_of

    asked: dict[str, Any] = {}
    read_bytes = 0
    for file in files:
        for number, line, length in lines_of(file):
            read_bytes += length
            if number == 1:
                _check_kind(line or b"")
            past = None
            if line is None or line.strip():
                try:
                    past = _call_of(line, asked, count)
                except (ValueError, RecursionError) as exc:
                    count.skip("broken")
                    if len(count.first_broken) < MOST_TOLD:
                        place = f" ({file.name})" if len(files) > 1 else ""
                        count.first_broken.append((number, f"{exc}{place}"))
            yield read_bytes, past
    for _ in asked:
        count.skip("unanswered")


def _check_kind(first: bytes) -> None:
    """Refuse what is another kind of file altogether, rather than call each of its lines broken."""
    from llm_proxy.cache.transfer import FORMAT

    if first.startswith(_GZIP):
        raise ConfigError("the log is compressed: gunzip -c FILE | llm-proxy cache warm -")
    if first.startswith(b'{"format":"%b"' % FORMAT.encode()):
        raise ConfigError("this is an export, not a log of calls: llm-proxy cache import FILE")


def _call_of(line: bytes | None, asked: dict[str, Any], count: Warmed) -> _Past | None:
    data = None if line is None else json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("it is too long" if line is None else "it is no JSON object")
    name = data.get("custom_id")
    request, answer = data.get("request", data.get("body")), data.get("response")
    if isinstance(answer, dict) and "body" in answer:  # as a batch has it
        answer = answer["body"] if answer.get("status_code", 200) == 200 else {"error": True}
    if request is None and isinstance(name, str) and name in asked:
        request = asked.pop(name)
    if request is not None and answer is None and isinstance(name, str) and not data.get("error"):
        asked[name] = request
        return None
    if not isinstance(request, dict):
        raise ValueError("it has no request, or answers one that no line before it has")
    if answer is None and data.get("error"):
        count.skip("error")
        return None
    if answer is None:
        raise ValueError("it has no response")
    latency_s = data.get("latency_s")
    is_span = isinstance(latency_s, (int, float)) and not isinstance(latency_s, bool) and 0 <= latency_s < 1e6
    return _Past(request, answer, float(latency_s) if is_span and latency_s is not None else 0.0)
