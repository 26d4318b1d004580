"""How a route says whether it cascades."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.config import Config, load
from llm_proxy.errors import ConfigError


def sections(**route: Any) -> dict[str, Any]:
    return {"backends": {"b": {"base_url": "https://b.test/v1"}}, "routes": {"auto": {"candidates": ["b/x"], **route}}}


@pytest.mark.parametrize(
    ("said", "meant"), [(True, True), ("true", True), ("0", False), ("AUTO", "auto"), ("auto", "auto"), (False, False)]
)
def test_what_it_may_say(said: Any, meant: Any) -> None:
    made = sections(cascade=said)
    made["routes"]["auto"]["candidates"] = ["b/x", "b/y"]
    assert Config(**made).routes["auto"].cascade is meant or Config(**made).routes["auto"].cascade == meant == "auto"


@pytest.mark.parametrize("said", ["perhaps", 2, None, [True]])
def test_what_it_may_not(said: Any) -> None:
    with pytest.raises(ConfigError, match=r'routes\.auto\.cascade must be true, false or "auto"'):
        Config(**sections(cascade=said))


@pytest.mark.parametrize("said", [True, "auto"])
def test_one_candidate_is_no_cascade(said: Any) -> None:
    with pytest.raises(ConfigError, match=r"routes\.auto\.cascade needs two candidates or more"):
        Config(**sections(cascade=said))


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_ROUTES_AUTO_CASCADE", "auto")
    made = sections()
    made["routes"]["auto"]["candidates"] = ["b/x", "b/y"]
    assert load(**made).routes["auto"].cascade == "auto"
