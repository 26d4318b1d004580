from __future__ import annotations

import logging
from typing import Any

import pytest

from llm_proxy.backends.base import MODEL_CHARS
from llm_proxy.backends.prices import Prices, is_loopback
from llm_proxy.config import Config
from llm_proxy.types import Usage

OPENAI = "https://api.openai.com/v1"
USAGE = Usage(1_000_000, 1_000_000)
BACKENDS = Config(
    backends={
        "own": {
            "base_url": "https://own.test/v1",
            "prices": {"m": {"input_usd_per_mtok": 2, "output_usd_per_mtok": 8}},
        },
        "local": {
            "base_url": "http://localhost:1/v1",
            "prices": {"rented": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 0}},
        },
        "openai": {"base_url": OPENAI},
    }
).backends


def cost(model: str, usage: Usage = USAGE, **where: Any) -> float | None:
    return Prices(BACKENDS).cost_usd(usage, model=model, **where)


class TestConfigured:
    def test_prices_come_first(self) -> None:
        assert cost("m", backend="own") == 10
        assert cost("m", Usage(500_000, 0), backend="own") == 1
        assert cost("rented", backend="local") == 1

    def test_the_price_of_the_asked_model_counts_for_its_snapshot(self) -> None:
        assert cost("m-2024-07-18", asked="m", backend="own") == 10
        assert cost("m", asked="rented", backend="own") == 10

    def test_waiting(self) -> None:
        backends = Config(backends={"own": {"base_url": OPENAI, "usd_per_second": 0.25}}).backends
        assert Prices(backends).wait_usd(4.0, backend="own") == 1.0
        assert Prices(backends).wait_usd(4.0, backend="") == 0.0

    def test_a_model_on_this_machine_is_free(self) -> None:
        assert cost("gpt-4o-mini", backend="local") == 0
        assert cost("gpt-4o-mini", base_url="http://127.0.0.1:11434/v1") == 0


class TestListed:
    def test_a_known_model_has_its_price(self) -> None:
        listed = cost("gpt-4o-mini", base_url=OPENAI)
        assert listed == pytest.approx(0.75)
        assert cost("gpt-4o-mini", backend="openai") == listed
        assert cost("gpt-4o-mini-2024-07-18", base_url=OPENAI) == listed

    def test_cached_tokens_cost_less_and_are_never_more_than_all(self) -> None:
        some, all_of_it = Usage(1_000_000, 0, 500_000), Usage(1_000_000, 0, 1_000_000)
        listed = [cost("gpt-4o-mini", usage, base_url=OPENAI) for usage in (Usage(1_000_000), some, all_of_it)]
        assert listed == sorted(listed, reverse=True)
        assert cost("gpt-4o-mini", Usage(1_000_000, 0, 9_000_000), base_url=OPENAI) == listed[2]

    def test_terms_have_their_own_prices(self) -> None:
        """gpt-5: half the price for flex and for batches. Source: genai-prices' table."""
        million = 1_000_000
        usages = [Usage(million, million, service_tier=tier) for tier in ("", "flex", "batch")]
        usual, *half = (cost("gpt-5", usage, base_url=OPENAI) for usage in usages)
        assert half == [usual / 2] * 2
        assert cost("gpt-4", Usage(1_000_000, service_tier="flex"), base_url=OPENAI) == pytest.approx(30.0), "none"

    def test_writing_to_the_cache_costs_more(self) -> None:
        """claude-sonnet-4-5: $3 a million, $3.75 written to the cache, above 200,000 tokens twice as much."""
        where = {"base_url": "https://api.anthropic.com/v1"}
        assert cost("claude-sonnet-4-5", Usage(100_000), **where) == pytest.approx(0.3)
        assert cost("claude-sonnet-4-5", Usage(100_000, cache_write_tokens=100_000), **where) == pytest.approx(0.375)
        assert cost("claude-sonnet-4-5", Usage(100_000, cache_write_tokens=9**9), **where) == pytest.approx(0.375)

    def test_counts_that_contradict_each_other_are_left_out(self) -> None:
        usage = Usage(1_000, 0, cached_tokens=900, prompt_audio_tokens=900)
        assert cost("gpt-4o-audio-preview", usage, base_url=OPENAI) == cost(
            "gpt-4o-audio-preview", Usage(1_000, 0, 900), base_url=OPENAI
        )

    def test_rejected_predictions_are_billed_as_answer(self) -> None:
        usual, predicted = Usage(10, 100), Usage(10, 100, accepted_tokens=20, rejected_tokens=60)
        assert cost("gpt-4o", predicted, base_url=OPENAI) == cost("gpt-4o", usual, base_url=OPENAI)

    @pytest.mark.parametrize("where", [{"base_url": "https://reseller.test/v1"}, {"backend": "own"}, {}])
    def test_nobody_knows_what_another_host_takes(self, where: Any) -> None:
        assert cost("gpt-4o-mini", **where) is None

    def test_the_asked_model_counts_where_the_answering_one_has_no_price(self) -> None:
        listed = cost("gpt-4o-mini", base_url=OPENAI)
        assert cost("unheard-of", asked="gpt-4o-mini", base_url=OPENAI) == listed
        assert cost("gpt-4o-mini", asked="unheard-of", base_url=OPENAI) == listed

    def test_an_unknown_model_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        prices = Prices(BACKENDS)
        with caplog.at_level(logging.WARNING, logger="llm_proxy"):
            for _ in range(3):
                assert prices.cost_usd(USAGE, model="unheard-of", base_url=OPENAI) is None
            assert prices.cost_usd(USAGE, model="", base_url=OPENAI) is None
        assert [record.getMessage().split(";")[0] for record in caplog.records] == [
            f"no price is known for model 'unheard-of' at {OPENAI}", f"no price is known for model '' at {OPENAI}",
        ]  # fmt: skip

    def test_a_name_without_end_is_not_looked_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """None is listed, and it would be compared with all that are."""
        looked_up: list[str] = []
        monkeypatch.setattr("llm_proxy.backends.prices._listed", lambda usage, name, url: looked_up.append(name) or 1.0)
        assert cost("m" * (MODEL_CHARS + 1), asked="m" * MODEL_CHARS, backend="openai") == 1.0
        assert looked_up == ["m" * MODEL_CHARS]

    def test_an_upstream_that_echoes_names_fills_no_log(self, caplog: pytest.LogCaptureFixture) -> None:
        prices = Prices(BACKENDS)
        for number in range(200):
            assert prices.cost_usd(USAGE, model=f"{number}" * 99, asked="unheard-of", base_url=OPENAI) is None
        assert len(caplog.records) == 32
        assert caplog.records[-1].getMessage().endswith("no more of these will be logged")
        assert max(len(record.getMessage()) for record in caplog.records) < 300

    def test_warming_says_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        Prices(BACKENDS).warm()
        assert caplog.records == []


class TestQuotes:
    def test_they_agree_with_the_price(self) -> None:
        prices = Prices(BACKENDS)
        for usage in (Usage(1000, 300), Usage(1, 0), Usage(0, 7), Usage(130_000, 9)):
            for where in ({"backend": "own", "model": "m"}, {"base_url": OPENAI, "model": "gpt-4o-mini"}):
                assert prices.quote_usd(usage, **where) == pytest.approx(prices.cost_usd(usage, **where), rel=1e-6)

    def test_they_are_looked_up_once_for_prompts_of_one_length(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prices = Prices(BACKENDS)
        asked: list[Any] = []
        monkeypatch.setattr(prices, "cost_usd", lambda usage, **where: asked.append(usage) or 0.0)
        for tokens in (100, 101, 127):
            assert prices.quote_usd(Usage(tokens, 5), model="m", backend="own") == 0.0
        assert len(asked) == 3
        prices.quote_usd(Usage(128, 5), model="m", backend="own")
        assert len(asked) == 6

    def test_cached_tokens_at_their_own_rate(self) -> None:
        """gpt-4o-mini: $0.15 a million prompt tokens, half of it when cached. Source: genai-prices' table."""
        fresh, half = (
            Prices(BACKENDS).quote_usd(Usage(2_000, 0, cached), model="gpt-4o-mini", base_url=OPENAI)
            for cached in (0, 2_000)
        )
        assert fresh == pytest.approx(0.0003)
        assert half == pytest.approx(0.00015)

    @pytest.mark.parametrize(("rate", "expected"), [(None, 12.0), (1.0, 9.0), (0.0, 8.0)])
    def test_a_configured_price_may_say_what_cached_tokens_cost(self, rate: float | None, expected: float) -> None:
        own = {"input_usd_per_mtok": 4.0, "output_usd_per_mtok": 0.0, "cached_usd_per_mtok": rate}
        prices = Prices(Config(backends={"own": {"base_url": "https://own.test/v1", "prices": {"m": own}}}).backends)
        usage = Usage(3_000_000, 0, 1_000_000)
        assert prices.cost_usd(usage, model="m", backend="own") == expected
        assert prices.quote_usd(usage, model="m", backend="own") == pytest.approx(expected)
        assert prices.cost_usd(Usage(1, 0, 9), model="m", backend="own") == pytest.approx(
            (4 if rate is None else rate) / 1e6
        )

    def test_none_where_there_is_no_price(self) -> None:
        prices = Prices(BACKENDS)
        assert prices.quote_usd(USAGE, model="unheard-of", backend="own") is None
        assert prices.quote_usd(USAGE, model="unheard-of", backend="own") is None

    def test_memory_is_bounded(self) -> None:
        prices = Prices(BACKENDS)
        for number in range(5000):
            prices.quote_usd(Usage(1, 1), model=f"{number}", backend="local")
        assert len(prices._quotes) == 904


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8080/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:80/", True),
        ("http://0.0.0.0:1", True),
        ("https://api.openai.com/v1", False),
        ("http://127.0.0.1.evil.test/", False),
        ("http://localhost.evil.test/", False),
        ("//[::1", False),
        ("", False),
        ("/v1", False),
    ],
)
def test_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
