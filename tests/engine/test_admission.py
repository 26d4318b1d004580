from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.engine.admission import is_tool_call, rejection
from tests.fakes import completion

CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def answered(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"choices": [choice]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (completion(), ""),
        (answered(content=None, tool_calls=[CALL], finish="tool_calls"), ""),
        (answered(content=None, tool_calls=[CALL]), ""),
        (answered(content=None, function_call={"name": "f", "arguments": "{}"}, finish="function_call"), ""),
        (answered(content=None, audio={"id": "a", "data": "x"}), ""),
        (answered(content=[{"type": "text", "text": "parts"}]), ""),
        (answered(content="", tool_calls=[{"type": "custom", "custom": {"name": "f", "input": "x"}}]), ""),
        (answered(content="no role", role=None), ""),
        (None, "incomplete"),
        ({"error": {"message": "no"}}, "error"),
        ({**completion(), "error": {"message": "no"}}, "error"),
        ({}, "no-choices"),
        ({"choices": []}, "no-choices"),
        ({"choices": {"0": "x"}}, "no-choices"),
        ({"choices": ["x"]}, "malformed"),
        ({"choices": [{"finish_reason": "stop"}]}, "malformed"),
        ({"choices": [{"finish_reason": "stop", "message": "x"}]}, "malformed"),
        ({"choices": [{**completion()["choices"][0], "error": {"code": 502}}]}, "error"),
        (answered(content="x", role="user"), "malformed"),
        (answered(content="x", role=["assistant"]), "malformed"),
        (answered(content={"a": 1}), "malformed"),
        (answered(content=7), "malformed"),
        (answered(content=["x"]), "malformed"),
        (answered(content=[{"text": "x"}]), "malformed"),
        (answered(tool_calls="x", finish="tool_calls"), "malformed"),
        (answered(tool_calls=[1], finish="tool_calls"), "malformed"),
        (answered(tool_calls=[{}], finish="tool_calls"), "malformed"),
        (answered(content="x", tool_calls=[CALL, {"function": {"name": "f"}}]), "malformed"),
        (answered(tool_calls=[{"function": {"name": "f", "arguments": {}}}]), "malformed"),
        (answered(content="x", function_call={"name": 1, "arguments": "{}"}), "malformed"),
        (answered(content="x", audio="y"), "malformed"),
        (completion(finish="length"), "finish-length"),
        (completion(finish="content_filter"), "finish-content-filter"),
        (answered(finish=None, content="x"), "finish-unknown"),
        (answered(finish='x"\r\nset-cookie: a=b', content="x"), "finish-unknown"),
        (answered(finish=["stop"], content="x"), "finish-unknown"),
        (answered(content=None, refusal="I can't help with that."), "refusal"),
        (answered(content="some", refusal="and no more"), "refusal"),
        (answered(content=""), "empty"),
        (answered(content=" \n"), "empty"),
        (answered(content=None), "empty"),
        (answered(content=None, tool_calls=[]), "empty"),
    ],
)
def test_only_whole_plain_successes_are_stored(value: dict[str, Any] | None, reason: str) -> None:
    assert rejection(value) == reason


def test_every_choice_must_be_good() -> None:
    good = completion()["choices"][0]
    cut = {**good, "finish_reason": "length"}
    assert rejection({"choices": [good, good]}, choices=2) == ""
    assert rejection({"choices": [good, cut]}, choices=2) == "finish-length"
    assert rejection({"choices": [good]}, choices=2) == "no-choices"
    assert rejection({"choices": [good]}, choices=0) == ""


def test_tool_calls_are_told_from_text() -> None:
    assert not is_tool_call(completion())
    assert is_tool_call(answered(tool_calls=[CALL]))
    assert is_tool_call(answered(function_call={"name": "f", "arguments": ""}))
    assert is_tool_call({"choices": [completion()["choices"][0], answered(tool_calls=[CALL])["choices"][0]]})
