from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.config import Config, load
from llm_proxy.errors import ConfigError
from llm_proxy.route.select import Selector
from llm_proxy.testing import FakeClock
from tests.fakes import request

BACKENDS: dict[str, Any] = {name: {"base_url": f"https://{name}.test/v1"} for name in "abcd"}


def asked(
    cause: str = "outage", *, model: str = "auto", backends: dict[str, Any] | None = None, **route: Any
) -> list[str]:
    """Who may be asked where ``a/x`` gave no answer."""
    made = {name: {**BACKENDS[name], **(backends or {}).get(name, {})} for name in BACKENDS}
    config = Config(backends=made, routes={"auto": {"candidates": ["a/x", "b/y", "c/z"], **route}})
    return _asked(Selector(config, monotonic=FakeClock().monotonic), model, cause)


def _asked(selector: Selector, model: str, cause: str, **fields: Any) -> list[str]:
    call = request(model=model, **fields)
    destination = selector.resolve(call)
    if destination.route:
        destination = replace(destination, backend="a", model="x")
    return ["/".join(pair) for pair in selector.fallbacks(call, destination, cause)]


@pytest.mark.parametrize("cause", ["outage", "timeout", "rate_limit", "context_length"])
def test_the_other_candidates_strongest_first(cause: str) -> None:
    assert asked(cause) == ["c/z", "b/y", "a/x"]


def test_nobody_for_what_was_refused_for_its_content() -> None:
    assert asked("content_policy") == []
    assert asked("content_policy", fallbacks={"content_policy": ["d/w"]}) == ["d/w"]
    assert asked("content_policy", fallbacks=["d/w"]) == ["d/w"]


def test_what_the_settings_say_comes_first() -> None:
    said = {"any": ["d/w"], "timeout": ["b/y", "d/v"]}
    assert asked("timeout", fallbacks=said) == ["b/y", "d/v"]
    assert asked("outage", fallbacks=said) == ["d/w"]
    assert asked("outage", fallbacks={"any": []}) == []
    assert asked("outage", backends={"a": {"fallbacks": ["d/w"]}}) == ["d/w"]
    assert asked("outage", backends={"a": {"fallbacks": ["d/w"]}}, fallbacks=["b/y"]) == ["b/y"]


def test_a_named_model_has_those_of_its_backend() -> None:
    assert asked(model="a/gpt") == []
    assert asked(model="a/gpt", backends={"a": {"fallbacks": ["b", "c/z"]}}) == ["b/gpt", "c/z"]


def test_who_can_not_take_it_is_left_out() -> None:
    made = {**BACKENDS, "b": {**BACKENDS["b"], "has_tools": False}}
    config = Config(backends=made, routes={"auto": {"candidates": ["a/x", "b/y", "c/z"]}})
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert _asked(Selector(config), "auto", "outage", tools=tools) == ["c/z", "a/x"]


def test_a_longer_window_is_needed_for_what_was_too_long() -> None:
    windows = {"a": {"context_tokens": 100}, "b": {"context_tokens": 100}, "c": {"context_tokens": 101}}
    assert asked("context_length", backends=windows, fallbacks=["b/y", "c/z", "d/w"]) == ["c/z", "d/w"]


def test_who_rests_comes_last() -> None:
    config = Config(backends=BACKENDS, routes={"auto": {"candidates": ["a/x"], "fallbacks": ["b/y", "c/z"]}})
    selector = Selector(config, monotonic=FakeClock().monotonic)
    for _ in range(3):
        selector.health.ended("b", "y", selector, is_well=False)
    assert _asked(selector, "auto", "outage") == ["c/z", "b/y"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["z/m"],
            r"backends\.a\.fallbacks must be BACKEND/MODEL with BACKEND one of \['a', 'b', 'c', 'd'\], not 'z/m'",
        ),
        ({"oops": ["b"]}, r"must be a table by cause \(any, rate_limit, .*\), not 'oops'"),
        ("b", "fallbacks"),
    ],
)
def test_wrong_settings(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(backends={**BACKENDS, "a": {**BACKENDS["a"], "fallbacks": settings}})


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_BACKENDS_A_BASE_URL", "https://a.test/v1")
    monkeypatch.setenv("LLM_PROXY_BACKENDS_A_FALLBACKS", '{"any": ["a/m"]}')
    monkeypatch.setenv("LLM_PROXY_ATTEMPTS_MOST", "7")
    config = load()
    assert (config.backends["a"].fallbacks, config.attempts.most) == ({"any": ("a/m",)}, 7)
