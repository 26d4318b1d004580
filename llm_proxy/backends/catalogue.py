"""The models that a configuration names, with what they cost, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .prices import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_proxy.config import BackendConfig, Config, PriceConfig

__all__ = ["Listed", "models_of"]

_LIBRARY = "genai-prices"


@dataclass(frozen=True, slots=True)
class Listed:
    """One model of one backend; prices in dollars a million tokens, None where they are not known.

    Attributes:
        backend: Name of the backend.
        model: Name of the model.
        input_usd_per_mtok: Of the prompt, at its shortest where the price grows with its length.
        cached_usd_per_mtok: Of the prompt, where the provider has it cached.
        output_usd_per_mtok: Of the answer.
        context_tokens: Window; None where nobody says.
        source: Who says what it costs: ``configuration``, ``this machine`` (nothing), the library with its version, or
            empty where nobody does.
        since: From which day on the price holds, as the library says, ISO 8601; None where it says none.
        terms: Other terms with a price of their own, e.g. ``batch``.
    """

    backend: str
    model: str
    input_usd_per_mtok: float | None = None
    cached_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None
    context_tokens: int | None = None
    source: str = ""
    since: str | None = None
    terms: tuple[str, ...] = ()


def models_of(config: Config) -> list[Listed]:
    """Every model that a backend, a route, a price or a limit names, by backend."""
    return [
        _listed(name, backend, model)
        for name, backend in config.backends.items()
        for model in dict.fromkeys(_named(config, name, backend))
    ]


def _named(config: Config, name: str, backend: BackendConfig) -> Iterator[str]:
    yield from backend.models
    for route in config.routes.values():
        for candidate in route.candidates:
            owner, _, model = candidate.partition("/")
            if owner == name:
                yield model
    yield from backend.prices
    yield from backend.limits


def _listed(name: str, backend: BackendConfig, model: str) -> Listed:
    known = None if is_loopback(backend.base_url) else _known(model, backend.base_url)
    own, limits = backend.prices.get(model), backend.limits.get(model)
    context = (limits.context_tokens if limits else None) or backend.context_tokens
    return Listed(
        name,
        model,
        context_tokens=context or (known["context_tokens"] if known else None),
        **(_configured(own) if own is not None else _free(backend) or (known["price"] if known else {})),
    )


def _configured(own: PriceConfig) -> dict[str, Any]:
    cached = own.input_usd_per_mtok if own.cached_usd_per_mtok is None else own.cached_usd_per_mtok
    return {
        "input_usd_per_mtok": own.input_usd_per_mtok,
        "cached_usd_per_mtok": cached,
        "output_usd_per_mtok": own.output_usd_per_mtok,
        "source": "configuration",
    }


def _free(backend: BackendConfig) -> dict[str, Any]:
    if not is_loopback(backend.base_url):
        return {}
    prices = dict.fromkeys(("input_usd_per_mtok", "cached_usd_per_mtok", "output_usd_per_mtok"), 0.0)
    return {**prices, "source": "this machine"}


def _known(model: str, base_url: str) -> dict[str, Any] | None:
    """What the library says of a model; None where it says nothing."""
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(), model, provider_api_url=base_url)
    except LookupError:
        return None
    price = found.model_price
    dear = _dollars(price.input_mtok)
    cached = _dollars(price.cache_read_mtok)
    return {
        "context_tokens": found.model.context_window,
        "price": {
            "input_usd_per_mtok": dear,
            "cached_usd_per_mtok": dear if cached is None else cached,
            "output_usd_per_mtok": _dollars(price.output_mtok),
            "source": f"{_LIBRARY} {version(_LIBRARY)}",
            "since": _since(found.model.prices, price),
            "terms": tuple(sorted({term for one in found.model.price_variants or () for term in one.when.values()})),
        },
    }


def _dollars(price: Any) -> float | None:
    """A price of the library's: one number, or steps, of which it is the first."""
    price = getattr(price, "base", price)
    return None if price is None else float(price)


def _since(prices: Any, price: Any) -> str | None:
    for one in prices if isinstance(prices, list) else ():
        start = getattr(one.constraint, "start_date", None)
        if one.prices == price and start is not None:
            return str(start)
    return None
