"""The cache as it ships, without an upstream: what is stored and asked goes the way that a call's text goes.

Fingerprint, encoder, the scope that the encoder's window narrows, the store in memory, the FAISS index and
`Cache.nearest` are the real ones with no setting changed but ``store``, which decides nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from llm_proxy.cache.build import build
from llm_proxy.cache.entry import Entry
from llm_proxy.cache.turns import Turns
from llm_proxy.config import CacheConfig, EncoderConfig
from llm_proxy.encode import lazy
from llm_proxy.engine.fingerprint import fingerprint, narrowed
from llm_proxy.types import Fingerprint
from llm_proxy.wire.chat import parse_request

if TYPE_CHECKING:
    from llm_proxy.cache.results import Lookup
    from llm_proxy.encode.base import Encoding
    from llm_proxy.encode.lazy import LazyEncoder

__all__ = ["ShippedCache", "encode_all", "shipped_encoder"]

_COMPLETION = b'{"choices":[{"finish_reason":"stop","index":0,"message":{"content":"yes","role":"assistant"}}]}'
_SETTINGS = CacheConfig(store="memory")


class _Clock:
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def shipped_encoder() -> LazyEncoder:
    """The encoder of the default settings, loaded.

    Raises:
        LLMProxyError: It can't be loaded; the message says what to install.
    """
    encoder = lazy.build(EncoderConfig())
    encoder.encode("")
    return encoder


def encode_all(texts: Iterable[str], encoder: LazyEncoder) -> dict[str, Encoding]:
    """Each text and its encoding; every text is encoded once, on all cores, and by itself, as in a call."""
    unique = list(dict.fromkeys(texts))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(encoder.encode, unique, chunksize=16), strict=True))


class ShippedCache:
    """One cache with all defaults; texts are given with the tenant, so that one cache serves for many pairs.

    Args:
        encoder: From `shipped_encoder`.
        settings: Other settings than the defaults, for tests.
    """

    def __init__(self, encoder: LazyEncoder, settings: CacheConfig = _SETTINGS) -> None:
        self._encoder, self._settings = encoder, settings
        self._cache = build(settings, clock=_Clock())
        self._cache.open()  # a program does so in the background when it starts: the pair model loads

    def store(self, text: str, encoding: Encoding, *, tenant: str) -> str:
        """Store an answer to a question, as `llm_proxy.engine.settle` does; returns the key of its entry."""
        return self._store(self._fingerprint(_said(text), tenant), encoding)

    def store_messages(self, messages: list[dict[str, str]]) -> str:
        """Store an answer to a conversation that ends with a question; returns the key of its entry."""
        return self._store(self._fingerprint(messages, "one"), self._encoder.encode(messages[-1]["content"]))

    def _store(self, found: Fingerprint, encoding: Encoding) -> str:
        is_semantic, text = found.text is not None, found.text or ""
        entry = Entry(
            key=found.key,
            scope=narrowed(found.scope, text, encoding.seen_chars) if is_semantic else found.scope,
            text=text,
            turns=found.turns,
            completion=_COMPLETION,
            created_s=time.time(),
            model="any",
            has_usage=True,
            encoder=self._encoder.name if is_semantic else "",
            vector=encoding.vector if is_semantic else None,
            seen_chars=encoding.seen_chars if is_semantic else 0,
        )
        if not self._cache.admit(entry):
            raise SystemExit(f"the cache did not take an answer to {text[:80]!r}")
        return found.key

    def ask(self, text: str, encoding: Encoding, *, tenant: str) -> Lookup | None:
        """What a search by meaning finds, as the engine searches; None for a text that is never matched."""
        question = self.question(text, encoding, tenant=tenant)
        return question and self.decide(question, encoding)

    def question(self, text: str, encoding: Encoding, *, tenant: str) -> tuple[str, str] | None:
        """The scope to search and the text, or None for a text that is never matched."""
        found = self._fingerprint(_said(text), tenant)
        return None if found.text is None else (narrowed(found.scope, found.text, encoding.seen_chars), found.text)

    def decide(self, question: tuple[str, str], encoding: Encoding) -> Lookup:
        """The decision alone: neighbours, and which of them may be served."""
        scope, text = question
        return self._cache.nearest(scope, text, encoding.vector, encoder=self._encoder.name, max_age_s=None)

    def served(self, messages: list[dict[str, str]]) -> str | None:
        """The key of the entry that a conversation is served by meaning, or None."""
        found = self._fingerprint(messages, "one")
        if found.text is None:
            return None
        encoding = self._encoder.encode(found.text)
        scope, turns = narrowed(found.scope, found.text, encoding.seen_chars), Turns(found.turns, self._encoder.encode)
        looked = self._cache.nearest(scope, found.text, encoding.vector, encoder=self._encoder.name, turns=turns)
        return None if looked.entry is None else looked.entry.key

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def _fingerprint(self, messages: list[dict[str, str]], tenant: str) -> Fingerprint:
        body = {"model": "any", "messages": messages}
        request = parse_request(json.dumps(body).encode(), headers={"authorization": f"Bearer {tenant}"})
        found = fingerprint(request, destination="any", settings=self._settings)
        if not isinstance(found, Fingerprint):
            raise SystemExit(f"{messages[-1]['content'][:80]!r} is not looked up: {found.reason}")
        return found


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
