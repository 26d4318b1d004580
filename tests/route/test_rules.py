from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.route.base import Score
from llm_proxy.route.rules import RuleRouter, has_image, prompt_chars
from tests.fakes import request

IMAGE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text": "hi"}, Score(0.5 * 2 / 1000, "short prompt")),
        ({"text": "x" * 999}, Score(0.4995, "short prompt")),
        ({"text": "x" * 1000}, Score(1.0, "prompt of 1000 characters")),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, Score(0.7, "tools")),
        ({"functions": [{"name": "f"}]}, Score(0.7, "tools")),
        ({"tools": []}, Score(0.001, "short prompt")),
        ({"messages": [user([IMAGE])]}, Score(0.7, "image")),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, Score(0.6, "json schema")),
        ({"response_format": {"type": "text"}}, Score(0.001, "short prompt")),
        ({"response_format": "json_schema"}, Score(0.001, "short prompt")),
        ({"messages": [user("a")] * 9}, Score(0.6, "long conversation")),
        ({"messages": [user("a")] * 8}, Score(0.004, "short prompt")),
        ({"text": "fix ```x = 1```"}, Score(0.6, "code block")),
        ({"messages": [user("```x```"), user("why?")]}, Score(0.0055, "short prompt")),
    ],
)
def test_the_strongest_rule_decides(options: dict[str, Any], expected: Score) -> None:
    score = RuleRouter(long_prompt_chars=1000).score(request(**options), None)
    assert (score.value, score.reason) == (pytest.approx(expected.value), expected.reason)
    assert 0 <= score.value <= 1


def test_text_is_counted_wherever_it_stands() -> None:
    messages = [
        user("four"),
        user([{"type": "text", "text": "four"}, IMAGE, "odd", {"type": "text", "text": 7}]),
        {},
        7,
    ]
    assert prompt_chars(messages) == 8
    assert has_image(messages)
    assert has_image([user([{"type": "input_image"}])])
    assert not has_image([user("image_url")])
    assert (prompt_chars(()), has_image(())) == (0, False)


def test_no_messages_are_a_short_prompt() -> None:
    call = request()
    object.__setattr__(call, "body", {"model": "m"})
    assert RuleRouter(long_prompt_chars=10).score(call, None) == Score(0.0, "short prompt")
