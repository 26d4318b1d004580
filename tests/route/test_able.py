from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.config import BackendConfig
from llm_proxy.route.able import Needs, abilities_of, needs_of, why_not
from llm_proxy.types import ChatRequest
from tests.fakes import request

TOOLS = [{"type": "function", "function": {"name": "f"}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}


def backend(**settings: Any) -> BackendConfig:
    return BackendConfig(base_url="https://one.test/v1", **settings)


def image(kind: str) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "what?"}, {"type": kind, "image_url": {"url": "x"}}]}]


class TestNeeds:
    def test_of_a_plain_question(self) -> None:
        assert needs_of(request("x" * 41)) == Needs(False, False, "", 11, 0)

    @pytest.mark.parametrize(
        ("fields", "name", "expected"),
        [
            ({"tools": TOOLS}, "has_tools", True),
            ({"tools": []}, "has_tools", False),
            ({"functions": [{"name": "f"}]}, "has_tools", True),  # as they were called before
            ({"messages": image("image_url")}, "has_images", True),
            ({"messages": image("input_image")}, "has_images", True),
            ({"messages": image("file")}, "has_images", False),
            ({"messages": image("file")}, "prompt_tokens", 2),
            ({"response_format": SCHEMA}, "response_format", "json_schema"),
            ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
            ({"response_format": {"type": ["json_schema"]}}, "response_format", ""),
            ({"response_format": "json_schema"}, "response_format", ""),
            ({"max_tokens": 7}, "output_tokens", 7),
            ({"max_completion_tokens": 8, "max_tokens": 7}, "output_tokens", 8),
            ({"max_completion_tokens": None, "max_tokens": 7}, "output_tokens", 7),
            ({"max_tokens": True}, "output_tokens", 0),
            ({"max_tokens": -1}, "output_tokens", 0),
            ({"max_tokens": "9"}, "output_tokens", 0),
        ],
    )
    def test_of_others(self, fields: dict[str, Any], name: str, expected: object) -> None:
        assert getattr(needs_of(request(**fields)), name) == expected

    @pytest.mark.parametrize(
        "messages", [None, "hi", [None, 3], [{"role": "user"}], [{"content": 7}], [{"content": [3]}]]
    )
    def test_what_is_no_conversation_needs_nothing(self, messages: Any) -> None:
        assert needs_of(ChatRequest({"messages": messages}, b"", {})) == Needs(False, False, "", 0, 0)


class TestAbilities:
    @pytest.mark.parametrize(
        ("settings", "fields", "expected"),
        [
            ({}, {"tools": TOOLS, "messages": image("image_url"), "response_format": SCHEMA, "max_tokens": 9}, ""),
            ({"has_tools": False}, {"tools": TOOLS}, "no tools"),
            ({"has_images": False}, {"messages": image("image_url")}, "no images"),
            ({"has_json_schema": False}, {"response_format": SCHEMA}, "no json schema"),
            ({"has_json_schema": False}, {"response_format": {"type": "json_object"}}, ""),
            ({"has_json_object": False}, {"response_format": {"type": "json_object"}}, "no json object"),
            ({"has_json_object": False}, {"response_format": SCHEMA}, ""),
            ({"has_json_object": False, "has_json_schema": False}, {"response_format": {"type": "text"}}, ""),
            ({"max_output_tokens": 8}, {"max_tokens": 8}, ""),
            ({"max_output_tokens": 8}, {"max_tokens": 9}, "answers of 8 tokens at most"),
            ({"max_output_tokens": 8}, {"max_completion_tokens": 9}, "answers of 8 tokens at most"),
            ({"context_tokens": 10}, {"text": "x" * 40}, ""),
            ({"context_tokens": 10}, {"text": "x" * 41}, "window of 10 tokens"),
            ({"context_tokens": 10}, {"text": "x" * 36, "max_tokens": 1}, ""),
            ({"context_tokens": 10}, {"text": "x" * 36, "max_tokens": 2}, "window of 10 tokens"),
        ],
    )
    def test_what_a_request_asks_is_compared_with_them(
        self, settings: dict[str, Any], fields: dict[str, Any], expected: str
    ) -> None:
        assert why_not(needs_of(request(**fields)), abilities_of(backend(**settings), "m")) == expected

    def test_a_model_may_differ_from_its_backend(self) -> None:
        limits = {"m": {"has_tools": True, "context_tokens": 5}, "n": {"has_images": False}}
        own = backend(has_tools=False, context_tokens=9, max_output_tokens=3, limits=limits)
        found = {model: abilities_of(own, model) for model in "mno"}
        assert [found[model].has_tools for model in "mno"] == [True, False, False]
        assert [found[model].has_images for model in "mno"] == [True, False, True]
        assert [found[model].context_tokens for model in "mno"] == [5, 9, 9]
        assert found["m"].max_output_tokens == 3
