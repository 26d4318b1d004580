"""``llm-proxy route`` with the head that ships, and with a cascade that the route leaves open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faces.cli_kit import invoke, invoke_json, settled

SETTINGS = """
[backends.b]
base_url = "https://b.test/v1"
prices = { small = { input_usd_per_mtok = 1, output_usd_per_mtok = 1 }, large = { input_usd_per_mtok = 9, output_usd_per_mtok = 9 } }

[routes.auto]
candidates = ["b/small", "b/large"]
head = "shipped"
cascade = "auto"

[routes.turned]
candidates = ["b/small", "b/large"]
known_as = { "b/small" = "strong" }
"""  # noqa: E501


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with settled(monkeypatch):
        Path("llm-proxy.toml").write_text(SETTINGS, encoding="utf-8")
        yield


@pytest.fixture
def prompts() -> str:
    rows = [
        {"prompt": f"{kind} {number}"} for number in range(20) for kind in ("What is", "Prove that n! > 2^n for n >")
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "prompts.jsonl"


def test_it_is_calibrated(prompts: str) -> None:
    options = ("route", "calibrate", "--head", "shipped", "--strong-share", "0.5", "--log", prompts)
    found = invoke_json(*options)["quality"]
    assert found["shares"] == pytest.approx([0.5, 0.5], abs=0.05)
    assert 0.3 < found["value"] < 0.999
    assert invoke_json(*options, "--route", "turned")["quality"]["shares"] != found["shares"]


def test_the_route_s_own_head_is_looked_at(prompts: str) -> None:
    options = ("route", "calibrate", "--strong-share", "0.5", "--log", prompts)
    assert invoke_json(*options) == invoke_json(*options, "--head", "shipped")
    assert "head =" not in invoke(*options).stdout


@pytest.mark.parametrize("own", ["", "heads"])
def test_the_settings_it_prints_name_the_head(prompts: str, own: str) -> None:
    options = ("route", "calibrate", "--head", "shipped", "--strong-share", "0.5", "--log", prompts)
    assert "head =" not in invoke(*options).stdout, "it is the route's own"
    text = Path("llm-proxy.toml").read_text(encoding="utf-8")
    Path("llm-proxy.toml").write_text(text.replace('head = "shipped"', f'head = "{own}"'), encoding="utf-8")
    assert '\nhead = "shipped"\nquality = ' in invoke(*options).stdout


def test_it_decides_and_the_way_is_told() -> None:
    found = invoke_json("route", "explain", "What is the capital of France?")
    assert (found["decided_by"], found["way"]) == ("head", "cascade: 0 of 50 calls measured")
    assert found["options"][0]["p_good"] < found["options"][1]["p_good"]
    assert "In which way: cascade: 0 of 50 calls measured." in invoke("route", "explain", "What is it?").stdout
    assert "In which way" not in invoke("route", "explain", "What is it?", "--route", "turned").stdout
