"""What an answer costs in dollars: configured prices first, then the ``genai-prices`` library's."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm_proxy.types import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.config import BackendConfig

__all__ = ["Prices", "is_loopback"]

logger = logging.getLogger("llm_proxy")
_LOOPBACK = frozenset({"localhost", "0.0.0.0", "::"})
_MTOK = 1_000_000


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine, by a name or address that no other machine can have."""
    try:
        host = urlsplit(url).hostname or ""
        return host in _LOOPBACK or ip_address(host).is_loopback
    except ValueError:  # a name: whoever owns it can call it 127.0.0.1.example.com
        return False


class Prices:
    """Looks prices up; thread-safe. A model on this machine is free unless configured otherwise."""

    def __init__(self, backends: Mapping[str, BackendConfig]) -> None:
        self._backends = backends
        self._unknown: set[str] = set()

    def warm(self) -> None:
        """Load the price table now, so that no call waits for it."""
        self._listed(Usage(), "gpt-4o-mini", "https://api.openai.com/v1")

    def cost_usd(self, usage: Usage, *, model: str, backend: str = "", base_url: str = "") -> float | None:
        """Price of one answer.

        Args:
            usage: Its token counts.
            model: Model that answered.
            backend: Name of a configured backend, or empty.
            base_url: Where it was asked when no backend is named.

        Returns:
            Dollars, >= 0; None when the price is not known, which is logged once a model.
        """
        settings = self._backends.get(backend)
        if settings is not None:
            base_url = settings.base_url
            own = settings.prices.get(model)
            if own is not None:
                spent = usage.prompt_tokens * own.input_usd_per_mtok + usage.completion_tokens * own.output_usd_per_mtok
                return spent / _MTOK
        if is_loopback(base_url):
            return 0.0
        return self._listed(usage, model, base_url)

    def _listed(self, usage: Usage, model: str, base_url: str) -> float | None:
        # Imported here: its table takes about a tenth of a second to load.
        from genai_prices import Usage as ListedUsage
        from genai_prices import calc_price

        listed = ListedUsage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=min(usage.cached_tokens, usage.prompt_tokens),
            output_tokens=usage.completion_tokens,
        )
        try:
            return float(calc_price(listed, model, provider_api_url=base_url).total_price)
        except LookupError:
            pass
        try:
            return float(calc_price(listed, model).total_price)
        except LookupError:
            if model not in self._unknown:
                self._unknown.add(model)
                logger.warning("no price is known for model %r; set backends.NAME.prices to count its cost", model)
            return None
