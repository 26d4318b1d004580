"""Which models a configuration names, what they cost, and who says so."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from llm_proxy.backends.catalogue import Listed, _since, models_of
from llm_proxy.config import Config

LIBRARY = f"genai-prices {version('genai-prices')}"


def listed(**backends: Any) -> list[Listed]:
    return models_of(Config(backends=backends))


def test_the_settings_come_first() -> None:
    price = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}
    own = {"base_url": "https://own.test/v1", "prices": {"m": price, "n": {**price, "cached_usd_per_mtok": 0.5}}}
    assert listed(own={**own, "context_tokens": 9, "limits": {"n": {"context_tokens": 5}}}) == [
        Listed("own", "m", 2.0, 2.0, 8.0, 9, "configuration"),
        Listed("own", "n", 2.0, 0.5, 8.0, 5, "configuration"),
    ]


def test_a_model_on_this_machine_is_free() -> None:
    assert listed(local={"base_url": "http://127.0.0.1:9/v1", "models": ["gpt-4o"]}) == [
        Listed("local", "gpt-4o", 0.0, 0.0, 0.0, None, "this machine")
    ]


def test_the_library_knows_providers_by_their_address() -> None:
    known, unknown = listed(openai={"base_url": "https://api.openai.com/v1", "models": ["gpt-5", "unheard-of"]})
    assert (known.input_usd_per_mtok, known.cached_usd_per_mtok, known.output_usd_per_mtok) == (1.25, 0.125, 10.0)
    assert known.context_tokens == 400_000
    assert (known.source, known.since) == (LIBRARY, None)
    assert {"batch", "flex"} <= set(known.terms)
    assert unknown == Listed("openai", "unheard-of")
    assert listed(reseller={"base_url": "https://reseller.test/v1", "models": ["gpt-5"]}) == [
        Listed("reseller", "gpt-5")
    ]


def test_prices_with_steps_and_without_a_cached_one() -> None:
    (steps,) = listed(anthropic={"base_url": "https://api.anthropic.com/v1", "models": ["claude-sonnet-4-5"]})
    assert steps.input_usd_per_mtok == 3.0
    (old,) = listed(openai={"base_url": "https://api.openai.com/v1", "models": ["gpt-4"]})
    assert old.cached_usd_per_mtok == old.input_usd_per_mtok == 30.0


def test_whatever_names_a_model() -> None:
    backends = {
        "a": {"base_url": "https://a.test/v1", "models": ["one"], "limits": {"three": {}}},
        "b": {"base_url": "https://b.test/v1"},
    }
    config = Config(backends=backends, routes={"auto": {"candidates": ["a/two", "b/x/y", "a/one"]}})
    assert [(one.backend, one.model) for one in models_of(config)] == [
        ("a", "one"),
        ("a", "two"),
        ("a", "three"),
        ("b", "x/y"),
    ]


def test_the_day_from_which_a_price_holds() -> None:
    class One:
        def __init__(self, prices: str, start: str | None) -> None:
            self.prices = prices
            self.constraint = type("Constraint", (), {"start_date": start})() if start else None

    prices = [One("old", None), One("new", "2026-10-14")]
    assert _since(prices, "new") == "2026-10-14"
    assert _since(prices, "old") is None
    assert _since("one", "one") is None
