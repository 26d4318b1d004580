"""``llm-proxy models`` and ``llm-proxy budget``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.backends.base import Ask
from llm_proxy.backends.budget import Budget
from llm_proxy.config import BudgetLimit
from llm_proxy.limits import BUDGET_NAME
from tests.faces.cli_kit import invoke, invoke_json, settled


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(
        """
[backends.openai]
base_url = "https://api.openai.com/v1"
models = ["gpt-5", "unheard-of"]
[backends.local]
base_url = "http://127.0.0.1:9/v1"
models = ["llama\\u001b[2J"]
[budget.limits.all]
usd_per_day = 2.0
tokens_per_month = 1000
[budget.limits.mine]
per = "key"
only = ["key:1"]
usd_per_month = 5.0
[budget.limits.theirs]
per = "key"
only = ["key:2"]
usd_per_day = 5.0
"""
    )
    return path


def test_models(config: Path) -> None:
    shown = invoke("--config", str(config), "models").stdout
    assert "openai/gpt-5" in shown
    assert "$1.25" in shown
    assert "nobody knows" in shown
    assert "free" in shown
    assert "\x1b" not in shown
    rows = invoke_json("--config", str(config), "models")["models"]
    assert [row["model"] for row in rows] == ["gpt-5", "unheard-of", "llama\x1b[2J"]
    assert rows[0]["output_usd_per_mtok"] == 10.0


def test_no_models() -> None:
    assert "llm-proxy init" in invoke("models").stdout


def test_no_models_after_init(tmp_path: Path) -> None:
    place = tmp_path / "llm-proxy.toml"
    place.write_text('default_backend = "openai"\n[backends.openai]\nbase_url = "https://api.openai.com/v1"\n')
    said = invoke("--config", str(place), "models").stdout
    assert "a call goes to backend openai, whatever model it names" in said
    assert 'in [backends.openai], as in models = ["gpt-4o-mini"]' in said
    assert invoke_json("--config", str(place), "models") == {"models": []}


def test_a_budget(config: Path, directory: Path) -> None:
    assert "Nothing was spent" in invoke("--config", str(config), "budget").stdout
    limits = {
        "all": BudgetLimit(usd_per_day=2.0, tokens_per_month=1000),
        "key": BudgetLimit(per="key", usd_per_month=9.0),
    }
    one = Budget(directory / BUDGET_NAME, limits, time=time.time, later=lambda call: None, note=print)
    spent = one.reserve(Ask("key:1", "", "openai", 1.0, 100, False))
    assert spent is not None
    one.settle(spent, 0.5, 40)
    one.reserve(Ask("key:1", "", "openai", 0.25, 200, False))
    one.close()
    rows = invoke_json("--config", str(config), "budget")["limits"]
    assert [(row["limit"], row["for"], row["unit"], row["used"], row["reserved"], row["left"]) for row in rows] == [
        ("all", "total", "tokens", 40, 200, 760),
        ("all", "total", "usd", 0.5, 0.25, 1.25),
        ("mine", "key key:1", "usd", 0.5, 0.25, 4.25),
    ]
    shown = invoke("--config", str(config), "budget").stdout
    assert "$1.25" in shown
    assert "760 tokens" in shown


def test_no_budget() -> None:
    assert "have no budget" in invoke("budget").stdout
    assert invoke_json("budget") == {"limits": []}
