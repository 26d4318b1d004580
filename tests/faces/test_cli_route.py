"""``llm-proxy route explain``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import runtime as module
from llm_proxy.errors import CacheError
from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.route.base import Prediction
from llm_proxy.runtime import LEDGER_NAME
from llm_proxy.testing import FakeEncoder, FakeHead
from llm_proxy.types import Outcome, Usage
from tests.faces.cli_kit import invoke, invoke_json, settled

SETTINGS = """
[backends.openai]
base_url = "https://api.openai.com/v1"

[backends.local]
base_url = "http://127.0.0.1:9/v1"
has_tools = false

[routes.small]
candidates = ["local/tiny"]

[routes.auto]
candidates = ["local/tiny", "openai/gpt-4o-mini", "openai/gpt-4o"]

[aliases]
"gpt-4" = "auto"
"""
HEAD = FakeHead({"tiny": 0.4, "gpt-4o-mini": Prediction(0.92, 50.0), "gpt-4o": Prediction(0.95, 500.0)})


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        Path("llm-proxy.toml").write_text(SETTINGS, encoding="utf-8")
        yield folder


@pytest.fixture
def with_head(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """A runtime whose route has a head, and its encoder."""
    encoder, real = FakeEncoder(), module.Runtime

    def made(config: Any) -> Any:
        return real(config, encoder=encoder, heads={"auto": HEAD})  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Runtime", made)
    return encoder


def lines(*arguments: str) -> list[str]:
    return [" ".join(line.split()) for line in invoke("route", "explain", *arguments).stdout.splitlines()]


def test_by_the_rules() -> None:
    shown = lines("What is the capital of France?")
    assert shown[0] == "candidate tokens expected latency health"
    assert shown[2] == "local/tiny asked 300 $0.00 5.0 s well"
    assert shown[3] == "openai/gpt-4o-mini good enough 300 $0.000181 5.0 s well"
    assert shown[-2:] == [
        "local/tiny is asked (how strong a model it needs: 0.01): short prompt; on trial among 3, about $0.000000.",
        "The rules decided: no head.",
    ]


def test_by_a_head(with_head: FakeEncoder) -> None:
    shown = lines("What is the capital of France?")
    assert shown[0] == "candidate p_good tokens expected latency health"
    assert shown[2] == "local/tiny 0.400 300 $0.00 5.0 s well"
    assert shown[3] == "openai/gpt-4o-mini asked 0.920 50 $0.000031 1.2 s well"
    assert shown[4] == "openai/gpt-4o good enough 0.950 500 $0.00502 8.3 s well"
    assert shown[-1] == "Good enough is a p_good of 0.902 or more."
    assert shown[-2] == (
        "openai/gpt-4o-mini is asked (how strong a model it needs: 0.58): p_good 0.92; cheapest of 2, about $0.000031."
    )
    assert with_head.texts == ["What is the capital of France?"]


def test_as_json(with_head: FakeEncoder) -> None:
    found = invoke_json("route", "explain", "Why?", "--tools", "--system", "Be brief.")
    assert (found["route"], found["chosen"], found["decided_by"], found["trouble"]) == (
        "auto", "openai/gpt-4o-mini", "head", "",
    )  # fmt: skip
    assert [option["why_not"] for option in found["options"]] == ["no tools", "", ""]
    assert found["prompt_tokens"] == 4


def test_it_knows_what_the_ledger_does(directory: Path) -> None:
    ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=100, troubles=Troubles())
    for _ in range(50):
        outcome = Outcome("miss", backend="local", model="tiny", route="auto")
        ledger(CallEvent(time.time(), outcome, 0.5, usage=Usage(7, 20)))
    ledger.close()
    tiny = invoke_json("route", "explain", "What is the capital of France?")["options"][0]
    assert 10 <= tiny["completion_tokens"] <= 20
    assert 0.25 <= tiny["latency_s"] <= 0.5
    assert not tiny["is_on_trial"]


@pytest.mark.parametrize(("name", "route"), [("", "auto"), ("small", "small"), ("gpt-4", "auto"), ("auto", "auto")])
def test_the_route_that_is_meant(name: str, route: str) -> None:
    assert invoke_json("route", "explain", "Why?", *(["--route", name] if name else []))["route"] == route


def test_without_auto_the_first(directory: Path) -> None:
    Path("llm-proxy.toml").write_text(SETTINGS.replace("routes.auto", "routes.other").partition("[aliases]")[0])
    assert invoke_json("route", "explain", "Why?")["route"] == "small"


def test_nobody_can_take_it() -> None:
    shown = lines("Why?", "--route", "small", "--tools")
    assert shown[2] == "local/tiny asked - - - well"
    assert "no candidate takes this request: local/tiny (no tools)" in shown[-1]


def test_an_encoder_that_fails_is_named(with_head: FakeEncoder) -> None:
    with_head.error = CacheError("the encoder is gone")
    assert lines("Why?")[-1] == "The rules decided: the encoder is gone."
    assert invoke_json("route", "explain", "Why?")["trouble"] == "the encoder is gone"


def test_without_an_encoder_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Runtime, "_open_encoder", lambda self: None)
    real = module.Runtime
    monkeypatch.setattr(module, "Runtime", lambda config: real(config, heads={"auto": HEAD}))
    assert lines("Why?")[-1] == 'The rules decided: no encoder is installed; pip install "llm-proxy[cpu]".'


def test_without_routes_it_shows_what_to_write() -> None:
    Path("llm-proxy.toml").write_text("")
    said = invoke("route", "explain", "Why?", code=2).stderr
    assert "[routes.auto]\ncandidates = [" in said
    assert (
        said.splitlines()[-1] == "llm-proxy: the settings have no route; lines like these, in llm-proxy.toml, make one"
    )
    Path("llm-proxy.toml").write_text(said.rpartition("llm-proxy:")[0])
    assert invoke_json("route", "explain", "Why?")["chosen"] == "openai/gpt-4o-mini"


def test_a_route_that_does_not_exist() -> None:
    said = invoke("route", "explain", "Why?", "--route", "car", code=2).stderr
    assert said == "llm-proxy: --route must be one of ['small', 'auto'], not 'car'\n"


def test_nothing_commands_the_terminal() -> None:
    Path("llm-proxy.toml").write_text(SETTINGS.replace("tiny", "ti\\u001b[2Jny"))
    shown = invoke("route", "explain", "\x1b[2J?").stdout
    assert "\x1b" not in shown
    assert "ti\\x1b[2Jny" in shown


def test_it_writes_no_ledger(directory: Path) -> None:
    invoke("route", "explain", "Why?")
    assert not (directory / LEDGER_NAME).exists()
    assert json.loads(invoke("stats", "--json").stdout)["calls"] == 0
