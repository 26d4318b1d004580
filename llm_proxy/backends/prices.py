"""What an answer costs in dollars: configured prices first, then the ``genai-prices`` library's."""

from __future__ import annotations

import logging
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_proxy.types import Usage

from .base import MODEL_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.config import BackendConfig, PriceConfig

__all__ = ["Prices", "is_loopback"]

logger = logging.getLogger("llm_proxy")
_LOOPBACK = frozenset({"localhost", "0.0.0.0", "::"})
_MTOK = 1_000_000
_MOST_WARNINGS = 32  # an upstream that echoes the model's name would have each call log a line
_SHOWN_CHARS = 80
_MOST_QUOTES = 4096
# What the library calls the terms that answers are served on.
_TERMS = {tier: {"service_tier": tier} for tier in ("flex", "priority", "fast")} | {"batch": {"processing": "batch"}}


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine, by a name or address that no other machine can have."""
    try:
        host = urlsplit(url).hostname or ""
        return host in _LOOPBACK or ip_address(host).is_loopback
    except ValueError:  # a name: whoever owns it can call it 127.0.0.1.example.com
        return False


class Prices:
    """Looks prices up; thread-safe. A model on this machine is free unless configured otherwise.

    The library's prices are those of providers it knows by their address. Nobody knows what another host takes for a
    model of the same name: such an answer has no price.
    """

    def __init__(self, backends: Mapping[str, BackendConfig]) -> None:
        self._backends = backends
        self._warned: set[tuple[str, str]] = set()
        self._quotes: dict[tuple[str, str, int], tuple[float, float, float] | None] = {}

    def warm(self) -> None:
        """Load the price table now, so that no call waits for it."""
        _listed(Usage(), "gpt-4o-mini", "https://api.openai.com/v1")

    def cost_usd(
        self, usage: Usage, *, model: str, asked: str = "", backend: str = "", base_url: str = ""
    ) -> float | None:
        """Price of one answer.

        Args:
            usage: Its token counts.
            model: Model that answered, as the upstream names it: often a dated snapshot of the one that was asked.
            asked: Model that was asked; its price counts where the answering model has none.
            backend: Name of a configured backend, or empty.
            base_url: Where it was asked when no backend is named.

        Returns:
            Dollars, >= 0; None when the price is not known, which is logged once for a model and host.
        """
        names = list(dict.fromkeys(name for name in (model, asked) if name))
        settings = self._backends.get(backend)
        if settings is not None:
            base_url = settings.base_url
            own = next((settings.prices[name] for name in names if name in settings.prices), None)
            if own is not None:
                return _configured(usage, own)
        if is_loopback(base_url):
            return 0.0
        for name in names:
            if len(name) > MODEL_CHARS:  # none that is listed, and of a megabyte it takes long to find that out
                continue
            with suppress(LookupError):
                return _listed(usage, name, base_url)
        self._warn(model, base_url)
        return None

    def quote_usd(self, usage: Usage, *, model: str, backend: str = "", base_url: str = "") -> float | None:
        """About the price of one answer, for choosing: the rates are looked up once for prompts of about one length.

        Args:
            usage: Its expected token counts.
            model: Model to ask.
            backend: Name of a configured backend, or empty.
            base_url: Where it is asked when no backend is named.

        Returns:
            Dollars, >= 0; None when the price is not known.
        """
        rates = self._quoted(usage.prompt_tokens, model=model, backend=backend, base_url=base_url)
        if rates is None:
            return None
        fresh, cached, completion = rates
        quote = (usage.prompt_tokens - usage.cached_tokens) * fresh + usage.completion_tokens * completion
        return quote + usage.cached_tokens * cached

    def reread_usd(self, tokens: int, prompt_tokens: int, *, model: str, backend: str) -> float:
        """What tokens cost more than if the provider had cached them, dollars.

        Args:
            tokens: How many, >= 0.
            prompt_tokens: Length of the prompt that they are of, >= 0.
            model: Model to ask.
            backend: Name of a configured backend.

        Returns:
            Dollars; 0 without a discount, or when the price is not known.
        """
        rates = self._quoted(prompt_tokens, model=model, backend=backend, base_url="")
        return 0.0 if rates is None else tokens * (rates[0] - rates[1])

    def wait_usd(self, latency_s: float, *, backend: str) -> float:
        """What it is worth not to wait that long for a backend, dollars; 0 where its configuration does not say."""
        settings = self._backends.get(backend)
        return 0.0 if settings is None else settings.usd_per_second * latency_s

    def _quoted(
        self, prompt_tokens: int, *, model: str, backend: str, base_url: str
    ) -> tuple[float, float, float] | None:
        if len(model) > MODEL_CHARS:  # not to be remembered, and the price of no other
            return self._rates(prompt_tokens, model=model, backend=backend, base_url=base_url)
        key = backend or base_url, model, prompt_tokens.bit_length()
        if key not in self._quotes:
            if len(self._quotes) >= _MOST_QUOTES:
                self._quotes.clear()
            self._quotes[key] = self._rates(prompt_tokens, model=model, backend=backend, base_url=base_url)
        return self._quotes.get(key)

    def _rates(
        self, prompt_tokens: int, *, model: str, backend: str, base_url: str
    ) -> tuple[float, float, float] | None:
        """Dollars a prompt token, a cached one and a completion token, for prompts of this length: some have steps."""
        prompt = max(prompt_tokens, 1)
        usages = Usage(prompt), Usage(prompt, 0, prompt), Usage(prompt, _MTOK)
        found = [self.cost_usd(usage, model=model, backend=backend, base_url=base_url) for usage in usages]
        known = [cost for cost in found if cost is not None]
        if len(known) < len(found):
            return None
        fresh, cached, both = known
        return fresh / prompt, cached / prompt, (both - fresh) / _MTOK

    def _warn(self, model: str, base_url: str) -> None:
        shown = model[:_SHOWN_CHARS], base_url[:_SHOWN_CHARS]
        if len(self._warned) >= _MOST_WARNINGS or shown in self._warned:
            return
        self._warned.add(shown)
        logger.warning(
            "no price is known for model %r at %s; set backends.NAME.prices to count its cost%s",
            *shown,
            "" if len(self._warned) < _MOST_WARNINGS else "; no more of these will be logged",
        )


def _configured(usage: Usage, own: PriceConfig) -> float:
    cached_rate = own.input_usd_per_mtok if own.cached_usd_per_mtok is None else own.cached_usd_per_mtok
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    prompt = (usage.prompt_tokens - cached) * own.input_usd_per_mtok + cached * cached_rate
    return (prompt + usage.completion_tokens * own.output_usd_per_mtok) / _MTOK


def _listed(usage: Usage, model: str, base_url: str) -> float:
    """The library's price; raises LookupError where it has none."""
    # Imported here: its table takes about a tenth of a second to load.
    from genai_prices import Usage as ListedUsage
    from genai_prices import calc_price

    if not base_url:  # the library would take this for a provider that nobody named
        raise LookupError(model)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    plain = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens, "cache_read_tokens": cached}
    more = {
        "cache_write_tokens": min(usage.cache_write_tokens, usage.prompt_tokens - cached),
        "input_audio_tokens": min(usage.prompt_audio_tokens, usage.prompt_tokens),
        "output_audio_tokens": min(usage.completion_audio_tokens, usage.completion_tokens),
    }
    told = {name: count for name, count in more.items() if count}
    terms = _TERMS.get(usage.service_tier)
    try:
        found = calc_price(ListedUsage(**plain, **told), model, provider_api_url=base_url, price_context=terms)
    except ValueError:  # counts that don't agree with each other: then as if they had not been told
        found = calc_price(ListedUsage(**plain), model, provider_api_url=base_url, price_context=terms)
    return float(found.total_price)
